//! `POST /hooks/{github,gitlab,gitea,plain}`.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;

use crate::clock;
use crate::exit::chain;
use crate::hook::{self, Asked, Sender};
use crate::hub::{Hint, SharedHub};
use crate::store::{Delivery, Store};

/// The routes of this room.
pub fn router() -> Router<SharedHub> {
    // GitHub sends up to 25 MB; only the first fields matter, but the proof is over all of it.
    Router::new().route("/hooks/{sender}", post(receive)).layer(DefaultBodyLimit::max(26 * 1024 * 1024))
}

async fn receive(
    State(hub): State<SharedHub>,
    Path(sender): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(sender) = Sender::ALL.into_iter().find(|one| one.as_str() == sender) else {
        return (StatusCode::NOT_FOUND, "there is no such webhook\n").into_response();
    };
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let secret = hub.secrets.hooks.iter().find(|(of, _)| *of == sender).map(|(_, secret)| secret.as_str());
    let proved = match (secret, header(sender.proof_header())) {
        (Some(secret), Some(proof)) => hook::proves(sender, secret, &body, proof),
        _ => false,
    };
    if !proved {
        hub.refuse("Webhook", None);
        finish(&hub, sender, "refused", None).await;
        // The same answer whether there is a secret or not.
        return (StatusCode::UNAUTHORIZED, "the request is not signed with the webhook's secret\n").into_response();
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

async fn finish(hub: &SharedHub, sender: Sender, outcome: &'static str, branch: Option<String>) {
    hub.metrics.webhook(sender.as_str(), outcome);
    // What is not signed costs no write.
    if outcome == "refused" {
        return;
    }
    let delivery =
        Delivery { kind: sender.as_str().to_owned(), received: clock::now(), outcome: outcome.to_owned(), branch };
    if let Err(error) = hub.store.add_delivery(&delivery).await {
        tracing::warn!(error = chain(&error), "webhook not noted");
    }
    hub.changed();
}
