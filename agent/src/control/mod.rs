//! The local socket: how an operator on the device asks the running agent.
//!
//! HTTP and JSON over a Unix socket, so that `curl --unix-socket` does, too:
//! `GET /v1/status`, and `POST /v1/<ask>` with the ask's fields as a JSON
//! object (or nothing, where the defaults will do). Who may connect may ask:
//! the socket's owner and group. What is asked is the daemon's to answer.

mod client;
mod server;

pub use self::client::ask;
pub use self::server::{Server, serve};

use serde_json::{Map, Value, json};

use crate::ports::control::{Ask, Refusal};

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No agent listens there.
    #[error("cannot reach the agent at {socket}")]
    Unreachable {
        socket: String,
        #[source]
        source: std::io::Error,
    },
    /// The agent can't do it.
    #[error(transparent)]
    Refused(Refusal),
    /// What came back is no answer.
    #[error("the agent at {socket} sent no answer")]
    Protocol {
        socket: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The socket can't be made.
    #[error("cannot listen at {socket}: {cause}")]
    Listen {
        socket: String,
        cause: &'static str,
        #[source]
        source: Option<std::io::Error>,
        hint: Option<&'static str>,
    },
}

impl ControlError {
    /// The next step.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run it as root, or as a member of the socket's group".to_owned())
            }
            Self::Unreachable { .. } => Some("systemctl start burgee-agent".to_owned()),
            Self::Refused(refusal) => refusal.hint.clone(),
            Self::Protocol { .. } => Some("is it a burgee-agent of this version?".to_owned()),
            Self::Listen { hint, .. } => hint.map(str::to_owned),
        }
    }
}

/// An ask's name in the path, and its fields.
fn spelled(ask: &Ask) -> (String, Value) {
    match serde_json::to_value(ask) {
        Ok(Value::Object(map)) => map.into_iter().next().unwrap_or_default(),
        Ok(Value::String(name)) => (name, Value::Null),
        _ => (String::new(), Value::Null),
    }
}

/// The inverse of [`spelled`]; fields that are left out take their defaults.
/// `None`: there is no such ask.
fn read(name: &str, fields: Map<String, Value>) -> Option<Result<Ask, serde_json::Error>> {
    let defaults = match name {
        "status" | "diff" | "history" | "rollback" | "resume" | "retry" | "fetched" => None,
        "sync" => Some(json!({"prune": false})),
        "suspend" => Some(json!({"all": false})),
        "logs" => Some(json!({"lines": 100})),
        "anchor" => Some(json!({})),
        _ => return None,
    };
    let value = match defaults {
        None if fields.is_empty() => Value::String(name.to_owned()),
        // Serde names the field that is not expected.
        None => json!({ name: fields }),
        Some(mut all) => {
            if let Some(all) = all.as_object_mut() {
                all.extend(fields);
            }
            json!({ name: all })
        }
    };
    Some(serde_json::from_value(value))
}

#[cfg(test)]
mod tests;
