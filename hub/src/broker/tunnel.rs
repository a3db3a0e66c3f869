//! From a Unix socket to the broker: TCP, or TLS of the hub's own choice.
//!
//! The MQTT client brings an old TLS along, so it speaks plain MQTT to this
//! socket, and the TLS is done here, with the versions the hub is built with.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsConnector;

use super::BrokerError;
use super::embedded::Embedded;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(15);

/// Where the tunnel leads.
#[derive(Clone)]
pub enum Target {
    /// The broker in this process, at whatever port it has now.
    Embedded(Arc<Embedded>),
    /// Plain.
    Tcp { host: String, port: u16 },
    /// TLS.
    Tls { host: String, port: u16, name: ServerName<'static>, connector: TlsConnector },
}

impl Target {
    /// An external broker.
    ///
    /// # Errors
    /// When its roots can't be read or its name is none.
    pub fn external(host: &str, port: u16, tls: bool, ca_file: Option<&Path>) -> Result<Self, BrokerError> {
        if !tls {
            return Ok(Self::Tcp { host: host.to_owned(), port });
        }
        let roots = roots(ca_file)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(BrokerError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).map_err(|_| BrokerError::Host(host.to_owned()))?;
        Ok(Self::Tls { host: host.to_owned(), port, name, connector: TlsConnector::from(Arc::new(config)) })
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BrokerError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let pem = std::fs::read(path).map_err(|source| BrokerError::File { path: path.to_owned(), source })?;
            for certificate in CertificateDer::pem_slice_iter(&pem).flatten() {
                let _ = roots.add(certificate);
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() { Err(BrokerError::Roots) } else { Ok(roots) }
}

/// Makes the socket and begins to carry.
///
/// # Errors
/// When the socket can't be made.
pub fn open(path: PathBuf, target: Target) -> Result<(), BrokerError> {
    // Left over from a process that is gone: the store's lock says so.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(|source| BrokerError::Socket { path, source })?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let target = target.clone();
                    tokio::spawn(async move {
                        match tokio::time::timeout(CONNECT, connect(stream, target)).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => tracing::debug!(%error, "broker not reached"),
                            Err(_) => tracing::debug!("broker did not answer in time"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "tunnel to the broker not accepted");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    });
    Ok(())
}

/// Connects within the caller's time-out; carrying goes on by itself.
async fn connect(mut inside: UnixStream, target: Target) -> std::io::Result<()> {
    match target {
        Target::Embedded(broker) => {
            let mut outside = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.port())).await?;
            outside.set_nodelay(true)?;
            tokio::spawn(async move { copy_bidirectional(&mut inside, &mut outside).await });
        }
        Target::Tcp { host, port } => {
            let mut outside = TcpStream::connect((host.as_str(), port)).await?;
            outside.set_nodelay(true)?;
            tokio::spawn(async move { copy_bidirectional(&mut inside, &mut outside).await });
        }
        Target::Tls { host, port, name, connector } => {
            let outside = TcpStream::connect((host.as_str(), port)).await?;
            outside.set_nodelay(true)?;
            let mut outside = connector.connect(name, outside).await?;
            tokio::spawn(async move { copy_bidirectional(&mut inside, &mut outside).await });
        }
    }
    Ok(())
}
