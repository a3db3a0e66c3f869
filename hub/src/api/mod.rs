//! Everything the hub answers over HTTP, put together: who may ask what, and
//! the headers that every answer has.

pub mod agent;
pub mod hooks;
pub mod ops;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::hub::SharedHub;
use crate::keys;
use crate::page;

/// Nothing from elsewhere, no inline script or style, in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The whole of it.
pub fn router(hub: SharedHub) -> Router {
    let people = Router::new()
        .merge(page::router())
        .route("/metrics", axum::routing::get(ops::metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&hub), login));
    Router::new()
        .merge(people)
        .merge(agent::router())
        .merge(hooks::router())
        .route("/healthz", axum::routing::get(ops::healthz))
        .route("/readyz", axum::routing::get(ops::readyz))
        .fallback(page::missing)
        .layer(middleware::from_fn(headers))
        .with_state(hub)
}

async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The page's password, where there is one.
async fn login(State(hub): State<SharedHub>, request: Request, next: Next) -> Response {
    let Some((user, password)) = &hub.secrets.page else { return next.run(request).await };
    let given = basic(request.headers());
    // Both are compared whatever the first says.
    let good = given.is_some_and(|(given_user, given_password)| {
        let user = keys::same(user.as_bytes(), given_user.as_bytes());
        let password = keys::same(password.as_bytes(), given_password.as_bytes());
        user & password
    });
    if good {
        return next.run(request).await;
    }
    if request.headers().contains_key(header::AUTHORIZATION) {
        hub.refuse("PageLogin", None);
        // A person does not notice; somebody who tries words does.
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"burgee\", charset=\"UTF-8\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the page wants a user and a password\n").into_response()
}

fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}
