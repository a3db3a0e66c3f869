//! The pages: rendered here, whole without script, live with a few lines of it.
//!
//! They only show. What changes something is typed at the command line, which
//! the pages name wherever there is a next step.

mod device;
mod fleet;
mod lobby;
mod part;

pub(crate) use part::utc;

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use maud::{DOCTYPE, Markup, html};

use crate::exit::chain;
use crate::hub::SharedHub;
use crate::store::StoreError;

/// Changes within this time are one.
const CALM: Duration = Duration::from_millis(400);

/// The routes of this room.
pub fn router() -> Router<SharedHub> {
    Router::new()
        .route("/", get(fleet::page))
        .route("/devices/{name}", get(device::page))
        .route("/lobby", get(lobby::page))
        .route("/live", get(live))
        .route("/style.css", get(async || asset("text/css; charset=utf-8", include_str!("style.css"))))
        .route("/live.js", get(async || asset("text/javascript; charset=utf-8", include_str!("live.js"))))
        .route("/icon.svg", get(async || asset("image/svg+xml", include_str!("icon.svg"))))
}

/// Small, and of this very build: asked for again each time, answered at once.
fn asset(kind: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Where a page stands in the navigation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Fleet,
    Lobby,
    Elsewhere,
}

/// A whole page around `content`.
fn layout(hub: &SharedHub, title: &str, place: Place, content: &Markup) -> Markup {
    let current = |here: Place| (place == here).then_some("page");
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · " (hub.config.page_title) }
                link rel="icon" type="image/svg+xml" href="/icon.svg";
                link rel="stylesheet" href="/style.css";
                script src="/live.js" defer {}
                noscript { meta http-equiv="refresh" content="30"; }
            }
            body {
                a.skip href="#content" { "Skip to the content" }
                header.top {
                    a.brand href="/" {
                        (part::flag())
                        span { (hub.config.page_title) }
                    }
                    nav aria-label="Pages" {
                        a href="/" aria-current=[current(Place::Fleet)] { "Fleet" }
                        a href="/lobby" aria-current=[current(Place::Lobby)] { "Lobby" }
                    }
                    span.live id="live" role="status" hidden { span.dot aria-hidden="true" {} span.word { "live" } }
                }
                main id="content" { (content) }
                footer {
                    "Fleet " strong { (hub.config.fleet) } " · hub " (env!("CARGO_PKG_VERSION"))
                }
            }
        }
    }
}

/// The store did not answer: said so, never shown as an empty fleet.
fn failed(hub: &SharedHub, error: &StoreError) -> Response {
    tracing::error!(error = chain(error), "page not read");
    let content = html! {
        section.card.empty {
            h1 { "The hub can’t read its store" }
            p { "Nothing is lost by that. The hub’s log says why; the page is back when the store is." }
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, layout(hub, "Not available", Place::Elsewhere, &content)).into_response()
}

/// There is no such page.
pub async fn missing(State(hub): State<SharedHub>, request: Request) -> Response {
    if request.uri().path().starts_with("/api/") {
        let body = serde_json::json!({"reason": "NotFound", "message": "there is no such address"});
        return (StatusCode::NOT_FOUND, axum::Json(body)).into_response();
    }
    let content = html! {
        section.card.empty {
            h1 { "There is nothing here" }
            p { a href="/" { "Back to the fleet" } }
        }
    };
    (StatusCode::NOT_FOUND, layout(&hub, "Not found", Place::Elsewhere, &content)).into_response()
}

/// Takes back its count when the page goes.
struct Open(SharedHub);

impl Open {
    fn new(hub: SharedHub) -> Self {
        hub.metrics.pages(1);
        Self(hub)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.pages(-1);
    }
}

/// Says "look again" whenever something changed; what, the page itself says.
async fn live(State(hub): State<SharedHub>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = hub.changes.subscribe();
    let stop = hub.stop.clone();
    let stream = stream::unfold((Open::new(hub), changes, stop, true), async |(open, mut changes, mut stop, first)| {
        if !first {
            tokio::select! {
                changed = changes.changed() => changed.ok()?,
                _ = stop.wait_for(|stop| *stop) => return None,
            }
            tokio::time::sleep(CALM).await;
        }
        let count = *changes.borrow_and_update();
        let name = if first { "hello" } else { "changed" };
        Some((Ok(Event::default().event(name).data(count.to_string())), (open, changes, stop, false)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(Duration::from_secs(20)))
}
