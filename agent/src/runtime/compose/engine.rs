//! The way to the Engine: one Unix socket, Docker's or Podman's.
//!
//! Connecting is lazy, the API version is negotiated at the first use and
//! again after the Engine was away. Every question has a time limit. What the
//! answers mean is not decided here.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::sync::Mutex;

use crate::ports::runtime::{Hinted, Object, RuntimeError};

/// For questions that an Engine answers from memory.
pub(super) const READ: Duration = Duration::from_secs(20);
/// For create, connect, rename, start and remove, on a slow card.
pub(super) const WRITE: Duration = Duration::from_secs(120);

/// Sockets that are tried where none is configured: Docker's, then Podman's.
const SOCKETS: [&str; 3] = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];

/// Where the Engine is, and the connection once there is one.
pub(super) struct Engine {
    socket: Option<PathBuf>,
    link: Mutex<Option<Link>>,
}

/// A negotiated connection.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) docker: Docker,
    /// Podman's compatible API, which differs here and there.
    pub(super) podman: bool,
    /// Negotiated version of the API.
    pub(super) api: (usize, usize),
    pub(super) address: Arc<str>,
    stale: Arc<AtomicBool>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The Engine is down, or hangs.
    #[error("{cause}")]
    Away { address: Arc<str>, cause: String },
    /// The Engine says no.
    #[error("{message}")]
    Refused { status: u16, message: String },
}

impl Engine {
    /// # Errors
    /// When the address isn't a Unix socket's.
    pub(super) fn new(address: Option<&str>) -> Result<Self, RuntimeError> {
        let socket = match address {
            None => None,
            Some(text) => match text.strip_prefix("unix://").unwrap_or(text) {
                path if path.starts_with('/') => Some(PathBuf::from(path)),
                _ => {
                    return Err(RuntimeError::Refused {
                        object: format!("runtime.compose.socket {text:?}"),
                        cause: "only Unix sockets are spoken to".to_owned(),
                        hint: Some("write it as unix:///run/docker.sock".to_owned()),
                    });
                }
            },
        };
        Ok(Self { socket, link: Mutex::new(None) })
    }

    fn path(&self) -> PathBuf {
        match &self.socket {
            Some(path) => path.clone(),
            None => {
                let found = SOCKETS.iter().map(Path::new).find(|path| path.exists());
                found.unwrap_or(Path::new(SOCKETS[0])).to_path_buf()
            }
        }
    }

    /// The connection, made and negotiated if there is none.
    ///
    /// # Errors
    /// When the Engine does not answer.
    pub(super) async fn link(&self) -> Result<Link, RuntimeError> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|link| !link.stale.load(Ordering::Relaxed)) {
            return Ok(link.clone());
        }
        let path = self.path();
        let address: Arc<str> = path.display().to_string().into();
        let away = |cause: String| RuntimeError::from(Failure::Away { address: address.clone(), cause });
        // Limits are this module's; the client's own is out of the way.
        let docker = Docker::connect_with_unix(&address, 3600, API_DEFAULT_VERSION)
            .map_err(|error| away(plain(&error)))?
            .with_request_modifier(url_safe_credentials);
        let negotiate = async {
            let docker = docker.negotiate_version().await?;
            let version = docker.version().await?;
            Ok::<_, EngineError>((docker, version))
        };
        let (docker, version) = tokio::time::timeout(READ, negotiate)
            .await
            .map_err(|_| away(silence(READ)))?
            .map_err(|error| away(plain(&error)))?;
        let components = version.components.unwrap_or_default();
        let podman = components.iter().any(|component| component.name.starts_with("Podman"));
        let spoken = docker.client_version();
        let api = (spoken.major_version, spoken.minor_version);
        tracing::debug!(socket = %address, podman, api = %format!("{}.{}", api.0, api.1), "engine connected");
        let link = Link { docker, podman, api, address, stale: Arc::default() };
        *held = Some(link.clone());
        Ok(link)
    }
}

impl Link {
    /// Waits for an answer, at most `limit`.
    pub(super) async fn ask<T>(
        &self,
        limit: Duration,
        question: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(limit, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(self.away(silence(limit))),
        }
    }

    pub(super) fn failure(&self, error: &EngineError) -> Failure {
        match error {
            EngineError::DockerResponseServerError { status_code, message } => {
                Failure::Refused { status: *status_code, message: one_line(message) }
            }
            EngineError::DockerStreamError { error } => Failure::Refused { status: 500, message: one_line(error) },
            // The answer came, but isn't what the API promises: no reason to connect anew.
            EngineError::JsonDataError { .. } | EngineError::JsonSerdeError { .. } => {
                Failure::Refused { status: 500, message: plain(error) }
            }
            other => self.away(plain(other)),
        }
    }

    pub(super) fn away(&self, cause: String) -> Failure {
        self.stale.store(true, Ordering::Relaxed);
        Failure::Away { address: self.address.clone(), cause }
    }
}

impl Failure {
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Away { .. } => None,
            Self::Refused { status, .. } => Some(*status),
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.status() == Some(404)
    }

    /// A reading that failed.
    pub(super) fn reading(self, what: &str) -> RuntimeError {
        match self {
            away @ Self::Away { .. } => away.into(),
            refused @ Self::Refused { .. } => {
                RuntimeError::Observe { what: what.to_owned(), source: Box::new(refused) }
            }
        }
    }

    /// A step that failed. What the Engine refuses, it will refuse again.
    pub(super) fn step(self, action: &'static str, object: &Object) -> RuntimeError {
        match self {
            away @ Self::Away { .. } => away.into(),
            Self::Refused { status, message } => match advice(&message) {
                Some(hint) => RuntimeError::Step {
                    action,
                    object: object.clone(),
                    transient: false,
                    source: Box::new(Hinted { message: sentence(&message), hint }),
                },
                None => RuntimeError::Step {
                    action,
                    object: object.clone(),
                    transient: status == 409,
                    source: Box::new(Self::Refused { status, message: sentence(&message) }),
                },
            },
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away { address, cause } => {
                let hint = if cause.contains("ermission denied") {
                    format!("let the agent's user read and write {address}")
                } else {
                    format!("see whether the Docker or Podman service behind {address} runs")
                };
                Self::Unreachable {
                    engine: format!("the container engine at {address}"),
                    source: Box::new(Hinted { message: cause, hint }),
                }
            }
            refused @ Failure::Refused { .. } => {
                Self::Observe { what: "the container engine".to_owned(), source: Box::new(refused) }
            }
        }
    }
}

/// What a person can do about a refusal, where the Engine's words are known.
fn advice(message: &str) -> Option<String> {
    let has = |text: &str| message.contains(text);
    let hint = if has("port is already allocated") || has("address already in use") || has("ports are not available") {
        "another program or container holds the port: stop it, or publish another one"
    } else if has("executable file not found") || has("no such file or directory: unknown") {
        "the image has no such program: look at command and entrypoint"
    } else if has("network") && has("not found") {
        "an external network has to be there first: `docker network create NAME`"
    } else if has("volume") && (has("not found") || has("no such volume")) {
        "an external volume has to be there first: `docker volume create NAME`"
    } else if has("no space left on device") {
        "free space on the engine's disk"
    } else if has("bind source path does not exist") {
        "make the path on the device, or let Compose make it (create_host_path: true)"
    } else if has("could not select device driver") {
        "the device lacks the driver that `gpus` or `devices` asks for"
    } else if has("Address already in use") || has("Pool overlaps") || has("could not find an available") {
        "the address or subnet is taken: choose another one, or none"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

/// An Engine wraps its causes in layers; the innermost says it.
fn sentence(message: &str) -> String {
    let text = message.strip_prefix("Error response from daemon: ").unwrap_or(message);
    if text.contains("port is already allocated")
        && let Some(port) = text.split("Bind for ").nth(1).and_then(|rest| rest.split(" failed").next())
    {
        return format!("{port}: port is already allocated");
    }
    text.to_owned()
}

/// Docker and Podman decode `X-Registry-Auth` as URL-safe base64, the client
/// sends the standard alphabet.
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("X-Registry-Auth") {
        let text = value.to_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        if let Ok(safe) = text.parse() {
            *value = safe;
        }
    }
    request
}

fn silence(limit: Duration) -> String {
    format!("no answer within {} s", limit.as_secs())
}

/// An error and what caused it, in one line.
fn plain(error: &dyn std::error::Error) -> String {
    let mut text = one_line(&error.to_string());
    let mut source = error.source();
    while let Some(cause) = source {
        let more = one_line(&cause.to_string());
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

/// Engines end their messages with line breaks, and put some in between.
pub(super) fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > 600 {
        let mut end = 600;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Reason;

    #[test]
    fn refusals_carry_advice() {
        let check = |message: &str, shown: &str, hinted: bool| {
            let failure = Failure::Refused { status: 500, message: message.to_owned() };
            let object = Object { kind: "container".to_owned(), name: "a".to_owned() };
            let error = failure.step("start", &object);
            assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some(shown));
            assert_eq!(error.hint().is_some(), hinted, "{message}");
        };
        check(
            "driver failed programming external connectivity on endpoint a (b): Bind for 0.0.0.0:80 failed: port is already allocated",
            "0.0.0.0:80: port is already allocated",
            true,
        );
        check("something else", "something else", false);
    }

    #[test]
    fn only_unix_sockets() {
        assert!(Engine::new(Some("tcp://10.0.0.1:2375")).is_err());
        assert!(Engine::new(Some("unix:///run/x.sock")).is_ok());
        assert!(Engine::new(None).is_ok());
    }
}
