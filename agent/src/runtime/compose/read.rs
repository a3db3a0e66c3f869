//! Readings of what the Engine has, in models of their own.
//!
//! The client's models name every state that Docker knows, and fail at what
//! Podman adds (`stopped`); one such container of somebody else's would make
//! every listing fail. They also know swarms, which a device never has and
//! its program would carry. What is read here is little, and tolerant.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;

use super::engine::{Failure, Link, READ, WRITE, one_line};
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

/// A network or volume. Docker finds a network by id, a volume by name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Labelled {
    pub(super) name: String,
    #[serde(default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) labels: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Volumes {
    volumes: Option<Vec<Labelled>>,
}

/// An image.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Image {
    pub(super) id: String,
    pub(super) os: String,
    pub(super) architecture: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Info {
    system_time: String,
}

/// All networks.
///
/// # Errors
/// When the listing is not complete.
pub(super) async fn networks(link: &Link) -> Result<Vec<Labelled>, RuntimeError> {
    get(link, READ, &path(link, "networks")).await.map_err(|failure| failure.reading("networks"))
}

/// All volumes.
///
/// # Errors
/// When the listing is not complete.
pub(super) async fn volumes(link: &Link) -> Result<Vec<Labelled>, RuntimeError> {
    let list: Result<Volumes, _> = get(link, READ, &path(link, "volumes")).await;
    list.map(|list| list.volumes.unwrap_or_default()).map_err(|failure| failure.reading("volumes"))
}

/// A volume; `None` where there is none.
///
/// # Errors
/// When the Engine can't say.
pub(super) async fn volume(link: &Link, name: &str) -> Result<Option<Labelled>, RuntimeError> {
    optional(get(link, READ, &path(link, &format!("volumes/{name}"))).await, &format!("volume {name}"))
}

/// An image by reference or id; `None` where there is none.
///
/// # Errors
/// When the Engine can't say.
pub(super) async fn image(link: &Link, reference: &str) -> Result<Option<Image>, RuntimeError> {
    optional(get(link, READ, &path(link, &format!("images/{reference}/json"))).await, &format!("image {reference}"))
}

/// The Engine's clock, as it writes it.
///
/// # Errors
/// When the Engine can't say.
pub(super) async fn clock(link: &Link) -> Result<String, RuntimeError> {
    let info: Result<Info, _> = get(link, READ, &path(link, "info")).await;
    info.map(|info| info.system_time).map_err(|failure| failure.reading("the engine's clock"))
}

fn path(link: &Link, rest: &str) -> String {
    let (major, minor) = link.api;
    format!("/v{major}.{minor}/{rest}")
}

fn optional<T>(answer: Result<T, Failure>, what: &str) -> Result<Option<T>, RuntimeError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.is_missing() => Ok(None),
        Err(failure) => Err(failure.reading(what)),
    }
}

/// All containers, running or not.
///
/// # Errors
/// When the listing is not complete.
pub(super) async fn containers(link: &Link) -> Result<Vec<Summary>, RuntimeError> {
    let list = get(link, READ, &path(link, "containers/json?all=true")).await;
    list.map_err(|failure| failure.reading("containers"))
}

/// A container by id or name; `None` where there is none.
///
/// # Errors
/// When the Engine can't say.
pub(super) async fn inspect(link: &Link, name: &str) -> Result<Option<Inspection>, RuntimeError> {
    optional(get(link, READ, &path(link, &format!("containers/{name}/json"))).await, &format!("container {name}"))
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

/// Makes a volume; the client's model of the answer knows swarms.
///
/// # Errors
/// When the Engine refuses, or is away.
pub(super) async fn make_volume(link: &Link, request: &VolumeCreateRequest) -> Result<(), Failure> {
    let body = serde_json::to_vec(request).map_err(|error| link.away(error.to_string()))?;
    let request = http::Request::post(path(link, "volumes/create")).header("content-type", "application/json");
    answer::<IgnoredAny>(link, WRITE, request, body.into()).await.map(|_| ())
}

async fn get<T: DeserializeOwned>(link: &Link, limit: Duration, path: &str) -> Result<T, Failure> {
    answer(link, limit, http::Request::get(path), Bytes::new()).await
}

async fn answer<T: DeserializeOwned>(
    link: &Link,
    limit: Duration,
    request: http::request::Builder,
    body: Bytes,
) -> Result<T, Failure> {
    let (status, body) = match tokio::time::timeout(limit, ask(link, request, body)).await {
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

async fn ask(
    link: &Link,
    request: http::request::Builder,
    body: Bytes,
) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
    let stream = UnixStream::connect(&*link.address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = request.header("host", "engine").body(Full::new(body))?;
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
