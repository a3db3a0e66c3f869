//! The agent's side of the local socket.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{ControlError, read};
use crate::ports::control::{Refusal, Request};

/// Questions at once; more wait.
const CONNECTIONS: usize = 16;
/// A question is some dozen bytes.
const BODY: usize = 16 * 1024;

/// A socket that is bound and not yet served.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    socket: PathBuf,
}

impl Server {
    /// Binds the socket. A socket that nobody listens on any more is replaced;
    /// a file of another kind is left alone.
    ///
    /// # Errors
    /// When another agent listens there, something else lies there, or the
    /// file system refuses.
    pub fn bind(socket: &Path) -> Result<Self, ControlError> {
        let wrong =
            |cause, source, hint| ControlError::Listen { socket: socket.display().to_string(), cause, source, hint };
        if let Some(folder) = socket.parent().filter(|folder| !folder.exists()) {
            let made = DirBuilder::new().recursive(true).mode(0o750).create(folder);
            made.map_err(|error| wrong("its folder can't be made", Some(error), None))?;
        }
        match fs::symlink_metadata(socket) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(wrong("there is a file that is no socket", None, Some("remove it, or set control.socket")));
            }
            Ok(_) if StdStream::connect(socket).is_ok() => {
                let hint = "stop the other burgee-agent, or give this one its own control.socket";
                return Err(wrong("another agent listens there", None, Some(hint)));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(wrong("it can't be looked at", Some(error), None)),
        }
        // Bound under another name first, so that it is never there with
        // permissions that are too wide.
        let mut name = socket.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let fresh = socket.with_file_name(name);
        drop(fs::remove_file(&fresh));
        let bound = UnixListener::bind(&fresh).and_then(|listener| {
            fs::set_permissions(&fresh, Permissions::from_mode(0o660))?;
            fs::rename(&fresh, socket)?;
            Ok(listener)
        });
        let listener = bound.map_err(|error| wrong("it can't be bound", Some(error), None))?;
        Ok(Self { listener, socket: socket.to_owned() })
    }

    /// Answers for as long as it is polled. The socket goes when this ends.
    pub async fn run(self, requests: mpsc::Sender<Request>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: others will go.
                    tracing::warn!(%error, "control connection not accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let requests = requests.clone();
            tokio::spawn(async move {
                let _place = place;
                let service = service_fn(move |request| answer(request, requests.clone()));
                let mut http = hyper::server::conn::http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).keep_alive(false);
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    tracing::debug!(%error, "control connection ended");
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.socket));
    }
}

/// Binds and serves the socket.
///
/// # Errors
/// See [`Server::bind`]. Once it serves, it does not end by itself.
pub async fn serve(socket: &Path, requests: mpsc::Sender<Request>) -> Result<(), ControlError> {
    Server::bind(socket)?.run(requests).await;
    Ok(())
}

async fn answer(
    request: HttpRequest<Incoming>,
    requests: mpsc::Sender<Request>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match handle(request, requests).await {
        Ok(answer) => (StatusCode::OK, encode(&answer)),
        Err((status, refusal)) => (status, encode(&refusal)),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    Ok(response)
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // The types behind the socket all have a JSON form.
    serde_json::to_vec(value).unwrap_or_default().into()
}

async fn handle(
    request: HttpRequest<Incoming>,
    requests: mpsc::Sender<Request>,
) -> Result<crate::ports::control::Answer, (StatusCode, Refusal)> {
    let refused =
        |status, reason: &str, message: String| (status, Refusal { reason: reason.to_owned(), message, hint: None });
    let (parts, body) = request.into_parts();
    let unknown = || refused(StatusCode::NOT_FOUND, "Unknown", format!("there is nothing at {}", parts.uri.path()));
    let name = parts.uri.path().strip_prefix("/v1/").ok_or_else(unknown)?;
    let body = Limited::new(body, BODY).collect().await;
    let body = body.map_err(|error| refused(StatusCode::BAD_REQUEST, "Malformed", error.to_string()))?.to_bytes();
    let fields: Map<String, Value> = if body.is_empty() {
        Map::new()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            refused(StatusCode::BAD_REQUEST, "Malformed", format!("the body is no JSON object: {error}"))
        })?
    };
    let ask = read(name, fields)
        .ok_or_else(unknown)?
        .map_err(|error| refused(StatusCode::BAD_REQUEST, "Malformed", format!("{name}: {error}")))?;
    let allowed = parts.method == Method::POST || (parts.method == Method::GET && name == "status");
    if !allowed {
        return Err(refused(StatusCode::METHOD_NOT_ALLOWED, "WrongMethod", format!("{name} wants a POST")));
    }
    let (sender, receiver) = oneshot::channel();
    let gone = || refused(StatusCode::SERVICE_UNAVAILABLE, "Stopping", "the agent is stopping".to_owned());
    requests.send((ask, sender)).await.map_err(|_| gone())?;
    match receiver.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refusal)) => Err((StatusCode::CONFLICT, refusal)),
        Err(_) => Err(gone()),
    }
}
