//! `POST /hooks/{github,gitlab,gitea,plain}`.

use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::Semaphore;

use crate::clock;
use crate::exit::chain;
use crate::hook::{self, Asked, Sender};
use crate::hub::{Hint, SharedHub};
use crate::store::{Delivery, Store};

/// GitHub sends up to 25 MB. Only the first fields matter, but the proof is over all of it.
const BODY: usize = 26 * 1024 * 1024;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bodies that are read at the same time.
static READING: Semaphore = Semaphore::const_new(4);

/// The routes of this room.
pub fn router() -> Router<SharedHub> {
    Router::new().route("/hooks/{sender}", post(receive))
}

async fn receive(State(hub): State<SharedHub>, Path(sender): Path<String>, request: Request) -> Response {
    let Some(sender) = Sender::ALL.into_iter().find(|one| one.as_str() == sender) else {
        return (StatusCode::NOT_FOUND, "there is no such webhook\n").into_response();
    };
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let secret = hub.secrets.hooks.iter().find(|(of, _)| *of == sender).map(|(_, secret)| secret.as_str());
    let (Some(secret), Some(proof)) = (secret, header(sender.proof_header())) else {
        return unproved(&hub, sender);
    };
    let Ok(_permit) = READING.acquire().await else { return unproved(&hub, sender) };
    let Ok(Ok(body)) = tokio::time::timeout(PATIENCE, to_bytes(body, BODY)).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or came too slowly\n").into_response();
    };
    if !hook::proves(sender, secret, &body, proof) {
        return unproved(&hub, sender);
    }
    let event = sender.event_header().and_then(|(name, _)| header(name));
    match hook::read(sender, event, &body, hub.config.webhooks.branch.as_deref()) {
        Asked::Malformed => {
            finish(&hub, sender, "malformed", None).await;
            (StatusCode::BAD_REQUEST, "the body is no push\n").into_response()
        }
        Asked::Nothing(why) => {
            finish(&hub, sender, "ignored", None).await;
            (StatusCode::OK, format!("ignored: {why}\n")).into_response()
        }
        Asked::Fetch { branch, commit } => {
            finish(&hub, sender, "taken", branch.clone()).await;
            // Full: hints are waiting, and one is as good as the other.
            let _ = hub.hints.try_send(Hint { branch, commit });
            (StatusCode::ACCEPTED, "taken\n").into_response()
        }
    }
}

/// The same answer whether there is a secret or not. It costs no write.
fn unproved(hub: &SharedHub, sender: Sender) -> Response {
    hub.refuse("Webhook", None);
    hub.metrics.webhook(sender.as_str(), "refused");
    (StatusCode::UNAUTHORIZED, "the request is not signed with the webhook's secret\n").into_response()
}

async fn finish(hub: &SharedHub, sender: Sender, outcome: &'static str, branch: Option<String>) {
    hub.metrics.webhook(sender.as_str(), outcome);
    let delivery =
        Delivery { kind: sender.as_str().to_owned(), received: clock::now(), outcome: outcome.to_owned(), branch };
    if let Err(error) = hub.store.add_delivery(&delivery).await {
        tracing::warn!(error = chain(&error), "webhook not noted");
    }
    hub.changed();
}
