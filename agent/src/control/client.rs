//! The operator's side of the local socket.

use std::path::Path;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper::Request as HttpRequest;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{ControlError, spelled};
use crate::ports::control::{Answer, Ask, Refusal};

/// Asks the agent that listens on `socket`.
///
/// # Errors
/// When none listens, it refuses, or what listens is no agent.
pub async fn ask(socket: &Path, ask: Ask) -> Result<Answer, ControlError> {
    let shown = || socket.display().to_string();
    let stream =
        UnixStream::connect(socket).await.map_err(|source| ControlError::Unreachable { socket: shown(), source })?;
    let protocol =
        |source: Box<dyn std::error::Error + Send + Sync>| ControlError::Protocol { socket: shown(), source };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| protocol(error.into()))?;
    let driver = tokio::spawn(connection);
    let (name, fields) = spelled(&ask);
    let body = if fields.is_null() { Vec::new() } else { fields.to_string().into_bytes() };
    let request = HttpRequest::post(format!("/v1/{name}"))
        .header(http::header::HOST, "burgee-agent")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| protocol(error.into()))?;
    let response = sender.send_request(request).await.map_err(|error| protocol(error.into()))?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(|error| protocol(error.into()))?.to_bytes();
    driver.abort();
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| protocol(error.into()));
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(|error| protocol(error.into()))?;
    Err(ControlError::Refused(refusal))
}
