//! A GET that has to answer with one status. The body is not read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, StatusCode, redirect};
use rustls::{ClientConfig, RootCertStore};

use super::chain;

const LIMIT: Duration = Duration::from_secs(5);

/// Two clients, each made when first needed: a device whose checks are all
/// plain http keeps no certificates in memory.
#[derive(Debug, Default)]
pub(super) struct Http {
    plain: OnceLock<Result<Client, String>>,
    secure: OnceLock<Result<Client, String>>,
}

impl Http {
    pub(super) async fn probe(&self, url: &str, status: u16) -> Result<(), String> {
        let client = if url.starts_with("https:") {
            self.secure.get_or_init(|| client(roots()))
        } else {
            self.plain.get_or_init(|| client(RootCertStore::empty()))
        };
        let client = client.as_ref().map_err(|error| format!("GET {url} can't be tried: {error}"))?;
        match client.get(url).send().await {
            Ok(answer) if answer.status().as_u16() == status => Ok(()),
            Ok(answer) => {
                let expected =
                    StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |code| code.to_string());
                Err(format!("GET {url} answered {}, expected {expected}", answer.status()))
            }
            Err(error) if error.is_timeout() => Err(format!("GET {url} did not answer within {} s", LIMIT.as_secs())),
            Err(error) => Err(format!("GET {url} failed: {}", chain(&error.without_url()))),
        }
    }
}

fn client(roots: RootCertStore) -> Result<Client, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(LIMIT)
        // What answers is asked as it is: no way round, and no connection kept open.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .map_err(|error| chain(&error))
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}
