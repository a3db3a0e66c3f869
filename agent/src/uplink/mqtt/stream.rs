//! MQTT packets over TCP or TLS: rumqttc's codec on our own stream.
//!
//! rumqttc's own TLS pulls a stack with open advisories, and its event loop
//! wants to own connection, session and back-off; only its reading and writing
//! of packets is used (docs/decisions).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rumqttc::mqttbytes;
use rumqttc::{ConnectReturnCode, Packet};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::super::address::Broker;

/// The longest packet that is looked at; a command is at most 16 KiB.
const INCOMING_MAX: usize = 32 * 1024;
/// Longer ones, up to this, are passed over unread; beyond, the connection ends.
const SKIP_MAX: usize = 16 * 1024 * 1024;
/// A report and its topic.
const OUTGOING_MAX: usize = 260 * 1024;

/// Why a connection to the broker ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum MqttError {
    #[error("cannot connect to {host}:{port}")]
    Connect {
        host: String,
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("TLS with {host} failed")]
    Tls {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("{host} is no name that TLS could check")]
    Name { host: String },
    #[error("{0} took too long")]
    Slow(&'static str),
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the broker closed the connection")]
    Closed,
    #[error("the broker sent a malformed packet")]
    Malformed(#[source] mqttbytes::Error),
    #[error("the broker refused the connection: {0:?}")]
    Refused(ConnectReturnCode),
    #[error("the broker refused a subscription")]
    Subscription,
    #[error("the broker broke the protocol: {0}")]
    Protocol(&'static str),
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What was read.
pub(super) enum Incoming {
    Packet(Packet),
    /// A packet that was too long to be looked at.
    Oversized,
}

pub(super) struct Stream {
    stream: Box<dyn Duplex>,
    inbox: BytesMut,
    /// What is left of a packet that is passed over.
    skip: usize,
    patience: Duration,
}

impl Stream {
    /// Connects; with `tls`, the broker's certificate must be for its host.
    pub(super) async fn connect(
        broker: &Broker,
        tls: Option<&Arc<ClientConfig>>,
        patience: Duration,
    ) -> Result<Self, MqttError> {
        let connect = async {
            let failed = |source| MqttError::Connect { host: broker.host.clone(), port: broker.port, source };
            let tcp = TcpStream::connect((broker.host.as_str(), broker.port)).await.map_err(failed)?;
            tcp.set_nodelay(true).map_err(failed)?;
            let Some(tls) = tls else { return Ok(Box::new(tcp) as Box<dyn Duplex>) };
            let name =
                ServerName::try_from(broker.host.clone()).map_err(|_| MqttError::Name { host: broker.host.clone() })?;
            let failed = |source| MqttError::Tls { host: broker.host.clone(), source };
            let stream = TlsConnector::from(tls.clone()).connect(name, tcp).await.map_err(failed)?;
            Ok(Box::new(stream) as Box<dyn Duplex>)
        };
        let stream = timeout(patience, connect).await.map_err(|_| MqttError::Slow("connecting"))??;
        Ok(Self { stream, inbox: BytesMut::new(), skip: 0, patience })
    }

    /// The next packet. Cancel-safe: what was read so far stays in the inbox.
    pub(super) async fn read(&mut self) -> Result<Incoming, MqttError> {
        loop {
            if self.skip > 0 {
                let here = self.skip.min(self.inbox.len());
                self.inbox.advance(here);
                self.skip -= here;
                if self.skip == 0 {
                    return Ok(Incoming::Oversized);
                }
            } else {
                match Packet::read(&mut self.inbox, INCOMING_MAX) {
                    Ok(packet) => return Ok(Incoming::Packet(packet)),
                    Err(mqttbytes::Error::InsufficientBytes(_)) => {}
                    Err(mqttbytes::Error::PayloadSizeLimitExceeded(remaining)) if remaining <= SKIP_MAX => {
                        self.skip = header_len(remaining) + remaining;
                        continue;
                    }
                    Err(error) => return Err(MqttError::Malformed(error)),
                }
            }
            self.inbox.reserve(1024);
            if self.stream.read_buf(&mut self.inbox).await.map_err(MqttError::Io)? == 0 {
                return Err(MqttError::Closed);
            }
        }
    }

    /// Writes packets as one. Not cancel-safe.
    pub(super) async fn write(&mut self, packets: &[Packet]) -> Result<(), MqttError> {
        let mut out = BytesMut::new();
        for packet in packets {
            packet.write(&mut out, OUTGOING_MAX).map_err(MqttError::Malformed)?;
        }
        let write = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        timeout(self.patience, write).await.map_err(|_| MqttError::Slow("writing"))?.map_err(MqttError::Io)
    }
}

/// The fixed header's length: one byte, and the remaining length in base 128.
fn header_len(remaining: usize) -> usize {
    match remaining {
        0..128 => 2,
        128..16_384 => 3,
        16_384..2_097_152 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rumqttc::mqttbytes::QoS;
    use rumqttc::{Packet, Publish};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::{Incoming, MqttError, Stream};
    use crate::uplink::address::Broker;

    /// What a broker that sends `bytes` looks like from here.
    async fn check(name: &str, bytes: Vec<u8>, want: &[&str]) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serve = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            // In pieces, so that packets end anywhere.
            for piece in bytes.chunks(1500) {
                if socket.write_all(piece).await.is_err() {
                    return;
                }
            }
        });
        let broker = Broker { host: "127.0.0.1".to_owned(), port, tls: false };
        let mut stream = Stream::connect(&broker, None, Duration::from_secs(5)).await.unwrap();
        let mut got = Vec::new();
        loop {
            match stream.read().await {
                Ok(Incoming::Packet(Packet::Publish(publish))) => got.push(format!("publish {}", publish.topic)),
                Ok(Incoming::Packet(other)) => got.push(format!("{other:?}")),
                Ok(Incoming::Oversized) => got.push("oversized".to_owned()),
                Err(MqttError::Closed | MqttError::Io(_)) => break,
                Err(error) => {
                    got.push(format!("{error}"));
                    break;
                }
            }
        }
        assert_eq!(got, want, "{name}");
        serve.abort();
    }

    fn publish(topic: &str, size: usize) -> Vec<u8> {
        let mut out = bytes::BytesMut::new();
        Publish::new(topic, QoS::AtMostOnce, vec![b'x'; size]).write(&mut out).unwrap();
        out.to_vec()
    }

    #[tokio::test]
    async fn hostile_bytes() {
        let ping = [0xd0, 0];
        let malformed = "the broker sent a malformed packet";
        check(
            "packets",
            [publish("a", 3), ping.to_vec(), publish("b", 9000)].concat(),
            &["publish a", "PingResp", "publish b"],
        )
        .await;
        check(
            "oversized ones are passed over",
            [publish("a", 40_000), ping.to_vec(), publish("b", 3_000_000), ping.to_vec()].concat(),
            &["oversized", "PingResp", "oversized", "PingResp"],
        )
        .await;
        check("longer than anything", vec![0x30, 0xff, 0xff, 0xff, 0x7f, 1], &[malformed]).await;
        check("a length without an end", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0xff], &[malformed]).await;
        check("no such type", vec![0xf0, 2, 0, 0], &[malformed]).await;
        check("a topic beyond its packet", vec![0x30, 4, 0xff, 0xff, b'a', b'b'], &[malformed]).await;
        check("a topic that is no UTF-8", vec![0x30, 4, 0, 2, 0xff, 0xfe], &[malformed]).await;
        check("QoS 3", vec![0x36, 6, 0, 1, b'a', 0, 1, b'x'], &[malformed]).await;
        check("packet id 0", vec![0x32, 6, 0, 1, b'a', 0, 0, b'x'], &[malformed]).await;
        check("cut short", vec![0x30, 100, 0, 1], &[]).await;
        for kind in 0..16_u8 {
            for length in 0..6_u8 {
                // Whatever these are, they end in a packet or an error, never in a panic.
                let mut bytes = vec![kind << 4 | 0x02, length];
                bytes.extend((0..length).map(|_| 0));
                let mut inbox = bytes::BytesMut::from(&bytes[..]);
                let _ = Packet::read(&mut inbox, 1024);
            }
        }
    }
}
