//! How a request gets to the server: connection, credentials, time-outs, and
//! what is tried again.
//!
//! Every request of this client may be repeated: a reading changes nothing, an
//! apply or a delete that has landed lands again without effect, and who makes
//! an object knows its own when it is there already.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Method, Response, Url};

use super::super::kubeconfig::{self, Credentials, Kubeconfig};
use super::Api;
use super::error::{self, ApiError};
use crate::retry::Backoff;
use crate::tls;

const CONNECT: Duration = Duration::from_secs(10);
/// One answer, body included.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How often a request is made, when the server is busy.
const TRIES: u32 = 6;
/// How often, when it (or what stands in front of it) fails.
const FAULTS: u32 = 3;
/// Between tries, where the server doesn't say.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(8) };
/// All waiting between tries of one request.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(super) struct Connected {
    client: Client,
    /// What paths are put behind.
    base: Arc<str>,
    /// For messages.
    pub(super) server: Arc<str>,
    authorization: Option<HeaderValue>,
}

/// What a request asks for.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    /// Content type and bytes.
    pub(super) body: Option<(&'static str, &'a [u8])>,
    pub(super) limit: Option<Duration>,
}

impl Api {
    /// Sends it, again where that can help, and returns the head of a success.
    pub(super) async fn send(&self, request: &Request<'_>) -> Result<Response, ApiError> {
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
            let asked = error::retry_after(response.headers().get("retry-after").and_then(|it| it.to_str().ok()));
            let body = refusal(response).await;
            let refused = ApiError::refused(status, &body);
            let tries = match status {
                429 | 503 => TRIES,
                500 | 502 | 504 if refused.is_transient() => FAULTS,
                _ => 0,
            };
            let pause = asked.unwrap_or_else(|| AGAIN.delay(tried, 0));
            if tried < tries && waited + pause <= PATIENCE {
                tracing::debug!(status, ?pause, path = request.path, "the API server is asked again");
                tokio::time::sleep(pause).await;
                waited += pause;
                continue;
            }
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

    pub(super) fn connect(&self) -> Result<Connected, ApiError> {
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
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(8)
            .redirect(reqwest::redirect::Policy::none());
        let mut base = config.server.clone();
        if let Some(name) = &config.server_name {
            // Certificate and SNI go by the URL's host; the connection goes where the kubeconfig says.
            let mut url = Url::parse(&config.server).map_err(|error| settings(Box::new(error)))?;
            let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            builder = builder.dns_resolver(Elsewhere { host, port: url.port_or_known_default().unwrap_or(443) });
            url.set_host(Some(name)).map_err(|error| settings(Box::new(error)))?;
            url.as_str().trim_end_matches('/').clone_into(&mut base);
        }
        let client = builder.build().map_err(|error| settings(Box::new(error)))?;
        Ok(Self { client, base: base.into(), server: config.server.as_str().into(), authorization })
    }

    async fn send(&self, request: &Request<'_>) -> Result<Response, reqwest::Error> {
        let url = format!("{}{}", self.base, request.path);
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
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, accept: "application/json", body: None, limit: Some(ANSWER) }
    }
}

/// Resolves every name to one host's addresses.
struct Elsewhere {
    host: String,
    port: u16,
}

impl Resolve for Elsewhere {
    fn resolve(&self, _: Name) -> Resolving {
        let (host, port) = (self.host.clone(), self.port);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), port)).await?.collect();
            let found: Addrs = Box::new(found.into_iter());
            Ok(found)
        })
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

pub(super) fn unreachable(server: &str, error: reqwest::Error) -> ApiError {
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
