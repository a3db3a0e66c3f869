//! TLS as every client of the agent speaks it: rustls on ring.
//!
//! One configuration per set of roots, shared for as long as anyone uses it:
//! parsed roots are the largest thing that an idle agent would hold twice.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read CA file {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("CA file {path} is malformed: {cause}")]
    Malformed { path: PathBuf, cause: String },
    #[error("CA file {path} holds no certificate that can be a root")]
    Empty { path: PathBuf },
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
    #[error("the {what} is malformed: {cause}")]
    Pem { what: &'static str, cause: String },
}

type Cached = (Option<PathBuf>, Weak<ClientConfig>);
static CONFIGS: Mutex<Vec<Cached>> = Mutex::new(Vec::new());

/// A configuration that trusts the certificates in `ca_file` (PEM) alone;
/// without one, the system's; where the system has none, Mozilla's.
///
/// # Errors
/// When `ca_file` can't be read or holds no certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let mut configs = CONFIGS.lock().unwrap_or_else(PoisonError::into_inner);
    configs.retain(|(_, config)| config.strong_count() > 0);
    let known = configs.iter().find(|(path, _)| path.as_deref() == ca_file).and_then(|(_, config)| config.upgrade());
    if let Some(config) = known {
        return Ok(config);
    }
    let roots = match ca_file {
        Some(path) => from_file(path)?,
        None => from_system(),
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::in_memory_sessions(8);
    let config = Arc::new(config);
    configs.push((ca_file.map(Path::to_path_buf), Arc::downgrade(&config)));
    Ok(config)
}

/// A configuration of one connection's own: roots from memory (PEM; `None`:
/// the system's), and a client certificate with its key (PEM), where one is
/// asked for.
///
/// # Errors
/// When one of them is malformed, or the key doesn't fit the certificate.
pub fn with_identity(roots: Option<&[u8]>, identity: Option<(&[u8], &[u8])>) -> Result<ClientConfig, TlsError> {
    let malformed = |what| move |error: rustls_pki_types::pem::Error| TlsError::Pem { what, cause: error.to_string() };
    let roots = match roots {
        Some(pem) => {
            let mut store = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(malformed("certificate authority"))?;
                store
                    .add(certificate)
                    .map_err(|error| TlsError::Pem { what: "certificate authority", cause: error.to_string() })?;
            }
            store
        }
        None => from_system(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    let Some((chain, key)) = identity else { return Ok(builder.with_no_client_auth()) };
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(malformed("client certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(malformed("client key"))?;
    builder.with_client_auth_cert(chain, key).map_err(TlsError::Setup)
}

fn from_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let pem = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_path_buf(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let malformed = |cause: String| TlsError::Malformed { path: path.to_path_buf(), cause };
        let certificate = certificate.map_err(|error| malformed(error.to_string()))?;
        roots.add(certificate).map_err(|error| malformed(error.to_string()))?;
    }
    if roots.is_empty() { Err(TlsError::Empty { path: path.to_path_buf() }) } else { Ok(roots) }
}

fn from_system() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    let (_, unreadable) = roots.add_parsable_certificates(native.certs);
    if unreadable > 0 {
        tracing::debug!(unreadable, "some of the system's roots can't be used");
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{TlsError, client_config};

    #[test]
    fn roots() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let empty = client_config(Some(&file("empty.pem", "")));
        assert!(matches!(empty, Err(TlsError::Empty { .. })));
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let garbage = client_config(Some(&file("garbage.pem", garbage)));
        assert!(matches!(garbage, Err(TlsError::Malformed { .. })));
        let missing = client_config(Some(&folder.path().join("missing.pem")));
        assert!(matches!(missing, Err(TlsError::Read { .. })));
        let (one, two) = (client_config(None).unwrap(), client_config(None).unwrap());
        assert!(Arc::ptr_eq(&one, &two));
    }
}
