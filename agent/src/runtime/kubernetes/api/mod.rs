//! A thin client of one API server: what the runtime asks of it, and no more.
//!
//! Nothing is connected before it is asked for: the server may be down now and
//! up later. What the objects mean is not known here.

mod discovery;
mod error;
mod items;
mod list;
mod meta;
mod transport;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use fleet::kubernetes::Kind;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::discovery::{Resource, Resources};
pub use self::error::ApiError;
pub use self::meta::{MANAGER, Meta, Owned};
use self::transport::{ANSWER, Connected, Request, unreachable};
pub use self::watch::{Watch, WatchEvent};
use crate::config::settings::KubernetesSettings;

/// A larger answer is not read.
const LARGEST: usize = 64 << 20;
/// The one that gives metadata alone.
const META: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// See the module.
pub struct Api {
    named: Option<PathBuf>,
    connected: Mutex<Option<Connected>>,
    discovered: tokio::sync::Mutex<Option<Arc<Resources>>>,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// There is no such object (any more).
    Gone,
    /// It is on its way: a finalizer, or a grace period.
    Going,
}

impl Api {
    #[must_use]
    pub fn new(settings: &KubernetesSettings) -> Self {
        Self {
            named: settings.kubeconfig.clone(),
            connected: Mutex::new(None),
            discovered: tokio::sync::Mutex::new(None),
        }
    }

    /// What the server knows, asked once per server version.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn resources(&self) -> Result<Arc<Resources>, ApiError> {
        let mut discovered = self.discovered.lock().await;
        if let Some(known) = discovered.as_ref() {
            return Ok(Arc::clone(known));
        }
        let found = Arc::new(Resources::discover(self).await?);
        *discovered = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Asks anew: a kind was not known.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn rediscover(&self) -> Result<Arc<Resources>, ApiError> {
        self.forget_resources().await;
        self.resources().await
    }

    /// What the server knows has changed: it is asked when that is needed next.
    pub async fn forget_resources(&self) {
        *self.discovered.lock().await = None;
    }

    /// An object; `None` where the server says that there is none.
    ///
    /// # Errors
    /// When it can't say.
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, ApiError> {
        optional(self.json(Request::get(&resource.path(namespace, Some(name)))).await)
    }

    /// An object's metadata; `None` where the server says that there is none.
    ///
    /// # Errors
    /// When it can't say.
    pub async fn get_meta(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Meta>, ApiError> {
        let path = resource.path(namespace, Some(name));
        optional(self.json(Request { accept: META, ..Request::get(&path) }).await)
    }

    /// Server-side apply by the manager `burgee`, by force. What the object is then.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: &[u8],
        dry_run: bool,
    ) -> Result<Value, ApiError> {
        self.apply_as("application/json", resource, (namespace, name), body, dry_run).await
    }

    /// The same; of what the object is then its metadata alone, on the wire, too.
    ///
    /// # Errors
    /// When the server refuses it.
    pub async fn apply_meta(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: &[u8],
        dry_run: bool,
    ) -> Result<Meta, ApiError> {
        self.apply_as(META, resource, (namespace, name), body, dry_run).await
    }

    async fn apply_as<T: DeserializeOwned>(
        &self,
        accept: &'static str,
        resource: &Resource,
        (namespace, name): (Option<&str>, &str),
        body: &[u8],
        dry_run: bool,
    ) -> Result<T, ApiError> {
        let dry = if dry_run { "&dryRun=All" } else { "" };
        let path = format!("{}?fieldManager={MANAGER}&force=true{dry}", resource.path(namespace, Some(name)));
        let secret = resource.kind.is("", "Secret");
        let request = Request {
            method: Method::PATCH,
            path: &path,
            accept,
            body: Some(("application/apply-patch+yaml", body)),
            limit: Some(ANSWER),
        };
        self.json(request).await.map_err(|error: ApiError| if secret { error.discreet() } else { error })
    }

    /// Whether the server would make this object, were there none of its name:
    /// what it refuses as a change is immutable, then, and not wrong.
    ///
    /// # Errors
    /// When it can't say.
    pub async fn would_make(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        object: &Value,
    ) -> Result<bool, ApiError> {
        let path = format!("{}?fieldManager={MANAGER}&dryRun=All", resource.path(namespace, None));
        let body = object.to_string();
        let request = Request {
            method: Method::POST,
            path: &path,
            accept: META,
            body: Some(("application/json", body.as_bytes())),
            limit: Some(ANSWER),
        };
        match self.json::<Meta>(request).await {
            Ok(_) => Ok(true),
            // Everything else about it is looked at before its name.
            Err(error) if error.is_conflict() => Ok(true),
            Err(error) if error.status().is_some() && !error.is_transient() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Patches the object as it was read (`live`): a JSON patch.
    ///
    /// # Errors
    /// When the server refuses; a conflict where the object was written since.
    pub async fn patch(
        &self,
        resource: &Resource,
        (namespace, name): (Option<&str>, &str),
        live: &Value,
        mut patch: Value,
    ) -> Result<(), ApiError> {
        let version = &live["metadata"]["resourceVersion"];
        if let Some(steps) = patch.as_array_mut() {
            steps.push(json!({"op": "replace", "path": "/metadata/resourceVersion", "value": version}));
        }
        let body = patch.to_string();
        let path = format!("{}?fieldManager={MANAGER}", resource.path(namespace, Some(name)));
        let request = Request {
            method: Method::PATCH,
            path: &path,
            accept: META,
            body: Some(("application/json-patch+json", body.as_bytes())),
            limit: Some(ANSWER),
        };
        self.json::<Meta>(request).await.map(drop)
    }

    /// Deletes the object of that uid, and what it owns after it (or, in the
    /// foreground, before it).
    ///
    /// # Errors
    /// When the server refuses; a conflict where another object has the name.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        uid: &str,
        foreground: bool,
    ) -> Result<Deleted, ApiError> {
        let policy = if foreground { "Foreground" } else { "Background" };
        let body = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": policy,
            "preconditions": {"uid": uid},
        })
        .to_string();
        let path = resource.path(namespace, Some(name));
        let request = Request {
            method: Method::DELETE,
            path: &path,
            accept: "application/json",
            body: Some(("application/json", body.as_bytes())),
            limit: Some(ANSWER),
        };
        match self.json::<Value>(request).await {
            // The object itself: it is still there.
            Ok(answer) if answer["metadata"]["uid"] == uid && answer["kind"] != "Status" => Ok(Deleted::Going),
            Ok(_) => Ok(Deleted::Gone),
            Err(error) if error.is_missing() => Ok(Deleted::Gone),
            Err(error) => Err(error),
        }
    }

    /// The last lines that a container wrote.
    ///
    /// # Errors
    /// When they can't be had.
    pub async fn log(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        lines: usize,
    ) -> Result<Vec<String>, ApiError> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines={lines}");
        let body = self.bytes(Request { accept: "*/*", ..Request::get(&path) }).await?;
        Ok(String::from_utf8_lossy(&body).lines().map(str::to_owned).collect())
    }

    async fn json<T: DeserializeOwned>(&self, request: Request<'_>) -> Result<T, ApiError> {
        let body = self.bytes(request).await?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Unreadable { cause: error.to_string() })
    }

    async fn bytes(&self, request: Request<'_>) -> Result<Vec<u8>, ApiError> {
        let server = self.connect()?.server;
        let mut response = self.send(&request).await?;
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > LARGEST => {
                    return Err(ApiError::Unreadable { cause: format!("it is larger than {} MiB", LARGEST >> 20) });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(error) => return Err(unreachable(&server, error)),
            }
        }
    }
}

fn optional<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A kind's name for messages about listings.
pub(super) fn listing(kind: &Kind) -> String {
    format!("the list of {kind}")
}
