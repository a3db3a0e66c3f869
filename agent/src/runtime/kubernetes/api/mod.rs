//! A thin client of one API server: requests, their time-outs and repetitions.
//!
//! Nothing is connected before it is asked for: the server may be down now and
//! up later. What the objects mean is not known here.

mod discovery;
mod error;
mod items;
mod list;
mod meta;
mod watch;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::kubernetes::Kind;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::discovery::{Resource, Resources};
pub use self::error::ApiError;
pub use self::meta::{MANAGER, Meta};
pub use self::watch::{Watch, WatchEvent};
use super::kubeconfig::{self, Credentials, Kubeconfig};
use crate::config::settings::KubernetesSettings;
use crate::tls;

const CONNECT: Duration = Duration::from_secs(10);
/// One answer, body included.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a request is made, when the server asks for patience.
const TRIES: u32 = 5;
/// All waiting between tries of one request.
const PATIENCE: Duration = Duration::from_secs(60);
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

#[derive(Clone)]
struct Connected {
    client: Client,
    server: Arc<str>,
    authorization: Option<HeaderValue>,
}

/// What a request asks for.
struct Request<'a> {
    method: Method,
    path: &'a str,
    accept: &'static str,
    /// Content type and bytes.
    body: Option<(&'static str, &'a [u8])>,
    limit: Option<Duration>,
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

    /// Sends it, again where that can help, and returns the head of a success.
    async fn send(&self, request: &Request<'_>) -> Result<Response, ApiError> {
        let mut waited = Duration::ZERO;
        let mut tried = 0;
        let mut anew = false;
        loop {
            let connected = self.connect()?;
            tried += 1;
            let response = match connected.send(request).await {
                Ok(response) => response,
                // The server may have closed a connection that was idle.
                Err(error) if !anew && !error.is_timeout() && !error.is_connect() => {
                    anew = true;
                    continue;
                }
                Err(error) => {
                    // Its certificates may have been made anew, and ours with them.
                    self.disconnect();
                    return Err(unreachable(&connected.server, error));
                }
            };
            let status = response.status().as_u16();
            if response.status().is_success() {
                return Ok(response);
            }
            if status == 401 && !anew {
                self.disconnect();
                anew = true;
                continue;
            }
            let pause = error::retry_after(response.headers().get("retry-after").and_then(|value| value.to_str().ok()));
            let body = refusal(response).await;
            let busy = status == 429 || (status == 503 && pause.is_some());
            let pause = pause.unwrap_or(Duration::from_millis(250 << tried.min(5)));
            if busy && tried < TRIES && waited + pause <= PATIENCE {
                tracing::debug!(status, ?pause, "the API server asks for patience");
                tokio::time::sleep(pause).await;
                waited += pause;
                continue;
            }
            let refused = ApiError::refused(status, &body);
            if status == 404 && !refused.is_missing() {
                // The path itself is unknown: a definition is gone, or the server
                // was updated. While it is being asked, that is known already.
                if let Ok(mut discovered) = self.discovered.try_lock() {
                    *discovered = None;
                }
            }
            return Err(refused);
        }
    }

    fn connect(&self) -> Result<Connected, ApiError> {
        let mut held = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connected) = held.as_ref() {
            return Ok(connected.clone());
        }
        let config = kubeconfig::find(self.named.as_deref())
            .map_err(|error| ApiError::Settings { hint: error.hint(), source: Box::new(error) })?;
        let connected = Connected::new(&config)?;
        *held = Some(connected.clone());
        Ok(connected)
    }

    fn disconnect(&self) {
        *self.connected.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Connected {
    fn new(config: &Kubeconfig) -> Result<Self, ApiError> {
        let settings = |source: Box<dyn std::error::Error + Send + Sync>| ApiError::Settings {
            hint: Some(format!("see {}", config.path.display())),
            source,
        };
        let identity = match &config.credentials {
            Credentials::Certificate { chain, key } => Some((chain.as_slice(), key.as_slice())),
            _ => None,
        };
        let token = match &config.credentials {
            Credentials::Token(token) => Some(token.clone()),
            Credentials::TokenFile(path) => {
                Some(std::fs::read_to_string(path).map_err(|error| settings(error.into()))?)
            }
            Credentials::Certificate { .. } | Credentials::Anonymous => None,
        };
        let authorization = match token {
            Some(token) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                    .map_err(|error| settings(error.into()))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let tls =
            tls::with_identity(config.authority.as_deref(), identity).map_err(|error| settings(Box::new(error)))?;
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(4)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| settings(Box::new(error)))?;
        Ok(Self { client, server: config.server.as_str().into(), authorization })
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, reqwest::Error> {
        let url = format!("{}{}", self.server, request.path);
        let mut builder = self.client.request(request.method.clone(), url).header(ACCEPT, request.accept);
        if let Some(limit) = request.limit {
            builder = builder.timeout(limit);
        }
        if let Some(value) = &self.authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        if let Some((kind, bytes)) = request.body {
            builder = builder.header(CONTENT_TYPE, kind).body(bytes.to_vec());
        }
        builder.send().await
    }
}

impl<'a> Request<'a> {
    fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, accept: "application/json", body: None, limit: Some(ANSWER) }
    }
}

fn optional<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The body of a refusal, as far as it is of use.
async fn refusal(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > 1 << 20 {
            break;
        }
    }
    body
}

fn unreachable(server: &str, error: reqwest::Error) -> ApiError {
    let text = error::chain(&error);
    // In words of its own: those of TLS name the time, and so change with it.
    let (hint, words) = if text.contains("NotValidYet") || text.contains("not valid yet") {
        (Some("check the time service"), Some("its certificate is not valid yet by this device's clock"))
    } else if text.contains("Expired") || text.contains("expired") {
        let words = "its certificate has expired by this device's clock";
        (Some("check the time service, else renew it"), Some(words))
    } else if text.contains("UnknownIssuer") {
        let hint = "the kubeconfig's certificate authority is not the server's: the cluster may have been made anew";
        (Some(hint), None)
    } else if error.is_connect() {
        (Some("see whether k3s (or the API server) runs; the agent tries again by itself"), None)
    } else {
        (None, None)
    };
    let source = words.map_or_else(|| error.into(), Into::into);
    ApiError::Unreachable { server: server.to_owned(), hint: hint.map(str::to_owned), source }
}

/// A kind's name for messages about listings.
pub(super) fn listing(kind: &Kind) -> String {
    format!("the list of {kind}")
}
