//! For those who watch the hub: `/healthz`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::clock;
use crate::config::Broker;
use crate::exit::chain;
use crate::hub::SharedHub;
use crate::store::Store;

/// The process is there.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// The store answers, and the broker is connected if there is one.
pub async fn readyz(State(hub): State<SharedHub>) -> Response {
    let mut lines = String::new();
    let mut ready = true;
    match hub.store.ping().await {
        Ok(()) => lines.push_str("store ok\n"),
        Err(error) => {
            ready = false;
            lines.push_str(&format!("store {}\n", chain(&error)));
        }
    }
    match (&hub.config.broker, *hub.mqtt_up.borrow()) {
        (Broker::Off, _) => lines.push_str("broker off\n"),
        (_, true) => lines.push_str("broker ok\n"),
        (_, false) => {
            ready = false;
            lines.push_str("broker not connected\n");
        }
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, lines).into_response()
}

/// OpenMetrics.
pub async fn metrics(State(hub): State<SharedHub>) -> Response {
    hub.flush_refusals().await;
    let fleet = hub.store.counts(hub.silent_before(clock::now())).await;
    let refusals = hub.store.refusals().await;
    match (fleet, refusals) {
        (Ok(fleet), Ok(refusals)) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], hub.metrics.text(&fleet, &refusals)).into_response()
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(error = chain(&error), "metrics not read");
            (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response()
        }
    }
}
