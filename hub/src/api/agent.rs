//! What devices ask: `/api/v1/agent/` (see `fleet::wire::api`).

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use fleet::wire::api::{
    COMMANDS, CommandsAnswer, ENROLL, EnrollBody, ErrorAnswer, HUB_KEY, HubKeyAnswer, REPORTS, REPORTS_MAX,
    REPORTS_MAX_BYTES, RefusedReport, ReportsAnswer, ReportsBody,
};
use fleet::wire::token::Audience;
use serde::Deserialize;

use crate::clock;
use crate::exit::chain;
use crate::hub::SharedHub;
use crate::ingest::{self, DUPLICATE, Refused};
use crate::join;
use crate::keys;
use crate::login::authenticate;
use crate::store::{Device, Store};

/// The routes of this room.
pub fn router() -> Router<SharedHub> {
    Router::new()
        .route(ENROLL, post(enroll).layer(DefaultBodyLimit::max(32 * 1024)))
        // Quotes, commas and the frame around the reports.
        .route(REPORTS, post(reports).layer(DefaultBodyLimit::max(REPORTS_MAX_BYTES + 8 * 1024)))
        .route(COMMANDS, get(commands))
        .route(HUB_KEY, get(hub_key))
}

fn error(status: StatusCode, reason: &str, message: impl Into<String>) -> Response {
    (status, Json(ErrorAnswer { reason: reason.to_owned(), message: message.into() })).into_response()
}

fn store_failed(hub: &SharedHub, doing: &'static str, cause: &crate::store::StoreError) -> Response {
    tracing::error!(error = chain(cause), doing, "store failed");
    hub.refuse("StoreFailed", None);
    error(StatusCode::SERVICE_UNAVAILABLE, "StoreFailed", "the hub's store does not answer; send it again later")
}

fn bad_body(hub: &SharedHub, rejection: &JsonRejection) -> Response {
    let status = rejection.status();
    let reason = if status == StatusCode::PAYLOAD_TOO_LARGE { "TooLong" } else { "Malformed" };
    hub.refuse(reason, None);
    error(status, reason, "the body is not what this address takes")
}

async fn enroll(State(hub): State<SharedHub>, body: Result<Json<EnrollBody>, JsonRejection>) -> Response {
    let Json(body) = match body {
        Ok(body) => body,
        Err(rejection) => return bad_body(&hub, &rejection),
    };
    match join::enroll(&hub.store, &hub.terms(), &body.proof, clock::now()).await {
        Err(cause) => store_failed(&hub, "enrolling", &cause),
        Ok(Ok(answer)) => {
            hub.changed();
            Json(answer).into_response()
        }
        Ok(Err(refused)) => {
            hub.refuse(refused.reason(), None);
            // An answer to what was asked, so 200: the agent reads the state.
            Json(join::refusal(&refused)).into_response()
        }
    }
}

/// The device that asks, by its bearer token.
async fn who(hub: &SharedHub, headers: &HeaderMap) -> Result<Device, Response> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else {
        hub.refuse("TokenMissing", None);
        return Err(error(StatusCode::UNAUTHORIZED, "TokenMissing", "the request has no bearer token"));
    };
    match authenticate(&hub.store, &hub.config.fleet, token.trim(), Audience::Hub, clock::now()).await {
        Err(cause) => Err(store_failed(hub, "authenticating", &cause)),
        Ok(Ok(device)) => Ok(device),
        Ok(Err(reason)) => {
            hub.refuse(reason, None);
            let message = match reason {
                "TokenTime" => "the token is not good now; is the device's clock set?",
                "TokenUnknownDevice" | "TokenNotAccepted" => "the device is not enrolled here, or no longer",
                _ => "the token is not one of the device's",
            };
            Err(error(StatusCode::UNAUTHORIZED, reason, message))
        }
    }
}

async fn reports(
    State(hub): State<SharedHub>,
    headers: HeaderMap,
    body: Result<Json<ReportsBody>, JsonRejection>,
) -> Response {
    let device = match who(&hub, &headers).await {
        Ok(device) => device,
        Err(response) => return response,
    };
    let Json(body) = match body {
        Ok(body) => body,
        Err(rejection) => return bad_body(&hub, &rejection),
    };
    if body.reports.len() > REPORTS_MAX {
        hub.refuse("TooMany", Some(device.name.as_str()));
        let message = format!("one request carries at most {REPORTS_MAX} reports");
        return error(StatusCode::PAYLOAD_TOO_LARGE, "TooMany", message);
    }
    let now = clock::now();
    let mut good = Vec::with_capacity(body.reports.len());
    let mut answer = ReportsAnswer::default();
    for (index, text) in body.reports.iter().enumerate() {
        let judged = ingest::judge(&hub.config.fleet, Some(&device), text)
            .and_then(|report| if hub.rate.spend(&device.name, now) { Ok(report) } else { Err(Refused::TooMany) });
        match judged {
            Ok(report) => good.push(report),
            Err(refused) => {
                hub.refuse_report(&refused, Some(&device.name));
                answer.refused.push(RefusedReport { index, reason: refused.reason().to_owned() });
            }
        }
    }
    let Ok(receipt) = hub.inlet.store(good).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "StoreFailed", "the hub's store does not answer; send it again");
    };
    for _ in 0..receipt.duplicates {
        hub.refuse(DUPLICATE, Some(device.name.as_str()));
    }
    if receipt.new > 0 {
        hub.metrics.stored("http", receipt.new);
        hub.changed();
    }
    for at in receipt.acks.iter().filter(|at| at.device == device.name) {
        match ingest::acknowledge(at, &hub.config.fleet, &hub.key, now) {
            Ok(ack) => answer.ack = Some(ack),
            Err(cause) => tracing::error!(error = %cause, "acknowledgement not signed"),
        }
    }
    Json(answer).into_response()
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn commands(
    State(hub): State<SharedHub>,
    headers: HeaderMap,
    query: Result<Query<After>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let device = match who(&hub, &headers).await {
        Ok(device) => device,
        Err(response) => return response,
    };
    let Ok(Query(after)) = query else {
        return error(StatusCode::BAD_REQUEST, "Malformed", "after is not a sequence");
    };
    let now = clock::now();
    let open = match hub.store.open_commands(Some(&device.name), after.after, now).await {
        Ok(open) => open,
        Err(cause) => return store_failed(&hub, "reading commands", &cause),
    };
    let mut answer = CommandsAnswer::default();
    for command in open {
        hub.metrics.command("http");
        if let Err(cause) = hub.store.command_sent(&device.name, command.sequence, now).await {
            return store_failed(&hub, "noting a command", &cause);
        }
        answer.commands.push(command.jws);
    }
    if !answer.commands.is_empty() {
        hub.changed();
    }
    Json(answer).into_response()
}

async fn hub_key(State(hub): State<SharedHub>) -> Response {
    let key = keys::public(&hub.key);
    Json(HubKeyAnswer { key, fingerprint: key.fingerprint() }).into_response()
}
