//! Listeners: plain or TLS, one kind of stream for HTTP and MQTT alike.
//!
//! Handshakes happen beside the accepting, so that one that hangs holds up
//! nobody. The certificate is read again on SIGHUP.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsFiles;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time.
const HANDSHAKES: usize = 512;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Somebody has the port, or it isn't ours.
    #[error("listening on {address} failed")]
    Bind {
        /// Where.
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// A PEM file.
    #[error("{path} holds no usable {what}")]
    Pem {
        /// Which file.
        path: PathBuf,
        /// Certificate or key.
        what: &'static str,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key don't fit.
    #[error("the certificate and its key can't be used")]
    Tls(#[source] rustls::Error),
}

/// The acceptor of a certificate and its key.
///
/// # Errors
/// When a file can't be read, or they don't fit.
pub fn acceptor(files: &TlsFiles, alpn: &[&[u8]]) -> Result<TlsAcceptor, NetError> {
    let pem = |path: &PathBuf, what| {
        let path = path.clone();
        move |source| NetError::Pem { path, what, source }
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(&files.cert_file)
        .and_then(Iterator::collect)
        .map_err(pem(&files.cert_file, "certificate"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(pem(&files.key_file, "private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(NetError::Tls)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(NetError::Tls)?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepted connections, handshakes done. Serves axum, too.
#[derive(Debug)]
pub struct Incoming {
    address: SocketAddr,
    streams: mpsc::Receiver<(Stream, SocketAddr)>,
}

impl Incoming {
    /// Binds, unless systemd `passed` a socket there, and begins to accept.
    /// `tls`: the newest acceptor counts.
    ///
    /// # Errors
    /// When the address can't be had.
    pub async fn bind(
        address: SocketAddr,
        passed: Option<std::net::TcpListener>,
        tls: Option<watch::Receiver<TlsAcceptor>>,
    ) -> Result<Self, NetError> {
        let failed = |source| NetError::Bind { address, source };
        let listener = match passed {
            Some(listener) => TcpListener::from_std(listener).map_err(failed)?,
            None => TcpListener::bind(address).await.map_err(failed)?,
        };
        let bound = listener.local_addr().map_err(failed)?;
        let (sender, streams) = mpsc::channel(64);
        tokio::spawn(accept(listener, tls, sender));
        Ok(Self { address: bound, streams })
    }

    /// Where it listens: the port is known even if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Cancel-safe.
    pub async fn next(&mut self) -> (Stream, SocketAddr) {
        match self.streams.recv().await {
            Some(accepted) => accepted,
            // The accepting task lives as long as this does.
            None => std::future::pending().await,
        }
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<watch::Receiver<TlsAcceptor>>,
    sender: mpsc::Sender<(Stream, SocketAddr)>,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = sender.closed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let _ = stream.set_nodelay(true);
        match &tls {
            None => {
                if sender.send((Stream::Plain(stream), peer)).await.is_err() {
                    return;
                }
            }
            Some(acceptor) => {
                let acceptor = acceptor.borrow().clone();
                let sender = sender.clone();
                let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else { return };
                tokio::spawn(async move {
                    let _permit = permit;
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => {
                            let _ = sender.send((Stream::Tls(Box::new(stream)), peer)).await;
                        }
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "handshake failed"),
                        Err(_) => tracing::debug!(%peer, "handshake took too long"),
                    }
                });
            }
        }
    }
}

impl axum::serve::Listener for Incoming {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        self.next().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
