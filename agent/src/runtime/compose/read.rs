//! Readings of containers, in models of their own.
//!
//! The client's models name every state that Docker knows, and fail at what
//! Podman adds (`stopped`); one such container of somebody else's would make
//! every listing fail. What is read here is little, and tolerant.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;

use super::engine::{Failure, Link, READ, one_line};
use crate::ports::runtime::RuntimeError;

/// More than a listing of a thousand containers.
const LARGEST: usize = 32 << 20;

/// One entry of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Summary {
    pub(super) id: String,
    #[serde(default)]
    pub(super) names: Option<Vec<String>>,
    #[serde(default, rename = "ImageID")]
    pub(super) image_id: String,
    #[serde(default)]
    pub(super) labels: Option<HashMap<String, String>>,
    #[serde(default)]
    pub(super) state: String,
    #[serde(default)]
    pub(super) ports: Option<Vec<PublishedPort>>,
    #[serde(default)]
    pub(super) network_settings: Networks,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PublishedPort {
    #[serde(default)]
    pub(super) public_port: Option<u16>,
    #[serde(default, rename = "Type")]
    pub(super) protocol: String,
}

/// Names of networks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Networks {
    #[serde(default)]
    pub(super) networks: Option<BTreeMap<String, IgnoredAny>>,
}

/// One container.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspection {
    pub(super) id: String,
    #[serde(default)]
    pub(super) state: State,
    #[serde(default)]
    pub(super) restart_count: i64,
    #[serde(default)]
    pub(super) config: Config,
    #[serde(default)]
    pub(super) mounts: Option<Vec<MountPoint>>,
    #[serde(default)]
    pub(super) network_settings: Networks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    pub(super) status: String,
    pub(super) running: bool,
    pub(super) paused: bool,
    #[serde(rename = "OOMKilled")]
    pub(super) oom_killed: bool,
    pub(super) exit_code: i64,
    pub(super) error: String,
    pub(super) started_at: String,
    pub(super) health: Option<HealthState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HealthState {
    pub(super) status: String,
    pub(super) log: Option<Vec<HealthResult>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HealthResult {
    pub(super) end: String,
    pub(super) output: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Config {
    pub(super) labels: Option<HashMap<String, String>>,
    pub(super) healthcheck: Option<HealthConfig>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HealthConfig {
    pub(super) test: Option<Vec<String>>,
    /// Nanoseconds.
    pub(super) interval: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct MountPoint {
    #[serde(rename = "Type")]
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) destination: String,
}

/// All containers, running or not.
///
/// # Errors
/// When the listing is not complete.
pub(super) async fn containers(link: &Link) -> Result<Vec<Summary>, RuntimeError> {
    let (major, minor) = link.api;
    let list = get(link, READ, &format!("/v{major}.{minor}/containers/json?all=true")).await;
    list.map_err(|failure| failure.reading("containers"))
}

/// A container by id or name; `None` where there is none.
///
/// # Errors
/// When the Engine can't say.
pub(super) async fn inspect(link: &Link, name: &str) -> Result<Option<Inspection>, RuntimeError> {
    let (major, minor) = link.api;
    match get(link, READ, &format!("/v{major}.{minor}/containers/{name}/json")).await {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure.reading(&format!("container {name}"))),
    }
}

/// Has Podman run a container's healthcheck once; the outcome shows in the
/// next inspection (the answer itself knows nothing of retries).
///
/// # Errors
/// When Podman does not answer.
pub(super) async fn run_healthcheck(link: &Link, id: &str, limit: Duration) -> Result<(), RuntimeError> {
    match get::<IgnoredAny>(link, limit, &format!("/v4.0.0/libpod/containers/{id}/healthcheck")).await {
        // It may have stopped meanwhile.
        Err(failure) if failure.status().is_some() => Ok(()),
        outcome => outcome.map(|_| ()).map_err(RuntimeError::from),
    }
}

async fn get<T: DeserializeOwned>(link: &Link, limit: Duration, path: &str) -> Result<T, Failure> {
    let (status, body) = match tokio::time::timeout(limit, ask(link, path)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(link.away(one_line(&error.to_string()))),
        Err(_) => return Err(link.away(format!("no answer within {} s", limit.as_secs()))),
    };
    if !(200..300).contains(&status) {
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        let message = serde_json::from_slice(&body)
            .map_or_else(|_| one_line(&String::from_utf8_lossy(&body)), |refusal: Refusal| one_line(&refusal.message));
        return Err(Failure::Refused { status, message });
    }
    serde_json::from_slice(&body)
        .map_err(|error| Failure::Refused { status: 500, message: format!("the answer is not understood: {error}") })
}

async fn ask(link: &Link, path: &str) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(&*link.address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = http::Request::get(path).header("host", "engine").body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), LARGEST).collect().await?.to_bytes();
        Ok((status, body))
    };
    let (answer, _) = futures_util::future::join(exchange, connection).await;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_unknown_are_fine() {
        let text = r#"{"Id": "a", "Names": null, "Labels": null, "State": "stopped", "Ports": null,
            "NetworkSettings": {"Networks": null}, "Else": 1}"#;
        assert_eq!(serde_json::from_str::<Summary>(text).unwrap().state, "stopped");
        let text = r#"{"Id": "a", "State": {"Status": "exited", "ExitCode": 3, "Health": {"Status": "", "Log": null}},
            "Config": {"Labels": null, "Healthcheck": {"Test": ["NONE"]}}, "Mounts": null}"#;
        assert_eq!(serde_json::from_str::<Inspection>(text).unwrap().state.exit_code, 3);
    }
}
