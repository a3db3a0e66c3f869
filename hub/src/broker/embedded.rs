//! rumqttd on loopback, behind the hub's own listener.
//!
//! Its own TLS has open advisories, so it has none: devices reach it through
//! [`crate::net`]. Who connects shows a device token as the password; user and
//! client id must be that device's. Its threads are its own: if it dies, the
//! link finds nobody, and another one is started on a fresh port.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use fleet::name::DeviceName;
use fleet::wire::token::Audience;
use fleet::wire::topics;
use rumqttd::{Broker, Config, ConnectionSettings, RouterConfig, ServerSettings};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::BrokerError;
use crate::clock;
use crate::exit::chain;
use crate::hub::SharedHub;
use crate::keys;
use crate::login::authenticate;
use crate::net::{Incoming, Stream};

/// The hub's user name: no device can have it, names have no dot.
pub const HUB_USER: &str = "burgee.hub";
/// Connections at the same time.
const CONNECTIONS: usize = 10_000;
/// The longest packet: a report of the longest size, and its topic.
const PACKET: usize = 280 * 1024;

/// A login to be judged, in the hub's own runtime.
#[derive(Debug)]
pub struct Login {
    client: String,
    user: String,
    password: String,
    answer: oneshot::Sender<bool>,
}

/// The embedded broker.
#[derive(Debug)]
pub struct Embedded {
    port: AtomicU16,
    logins: mpsc::Sender<Login>,
}

impl Embedded {
    /// Starts one. Its logins come out of the receiver.
    ///
    /// # Errors
    /// When no port or no thread can be had.
    pub fn start() -> Result<(Arc<Self>, mpsc::Receiver<Login>), BrokerError> {
        let (logins, queue) = mpsc::channel(256);
        let broker = Arc::new(Self { port: AtomicU16::new(0), logins });
        broker.restart()?;
        Ok((broker, queue))
    }

    /// Where it listens on loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed)
    }

    /// Starts another one on a fresh port; the one before is left to itself.
    ///
    /// # Errors
    /// As [`Embedded::start`].
    pub fn restart(&self) -> Result<(), BrokerError> {
        // rumqttd can't say which port it got, so one is found beforehand.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(BrokerError::Start)?
            .port();
        let mut broker = Broker::new(self.config(port));
        std::thread::Builder::new()
            .name("mqtt-broker".to_owned())
            .spawn(move || {
                if let Err(error) = broker.start() {
                    tracing::error!(%error, "embedded broker stopped");
                }
            })
            .map_err(BrokerError::Start)?;
        self.port.store(port, Ordering::Relaxed);
        Ok(())
    }

    fn config(&self, port: u16) -> Config {
        let mut server = ServerSettings {
            name: "burgee".to_owned(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            tls: None,
            next_connection_delay_ms: 0,
            connections: ConnectionSettings {
                connection_timeout_ms: 10_000,
                max_payload_size: PACKET,
                max_inflight_count: 100,
                auth: None,
                external_auth: None,
                dynamic_filters: true,
            },
        };
        let logins = self.logins.clone();
        server.set_auth_handler(move |client: String, user: String, password: String| {
            let logins = logins.clone();
            async move {
                let (answer, judged) = oneshot::channel();
                let login = Login { client, user, password, answer };
                logins.send(login).await.is_ok() && judged.await.unwrap_or(false)
            }
        });
        Config {
            id: 0,
            router: RouterConfig {
                max_connections: CONNECTIONS,
                max_outgoing_packet_count: 200,
                // A log for every filter is kept in memory, so it is small: what
                // matters is spooled by the device and sent again by the hub.
                max_segment_size: PACKET,
                max_segment_count: 2,
                ..RouterConfig::default()
            },
            v4: Some(HashMap::from([("burgee".to_owned(), server)])),
            ..Config::default()
        }
    }
}

/// Judges logins until the broker is gone.
pub async fn judge_logins(hub: SharedHub, hub_password: String, mut logins: mpsc::Receiver<Login>) {
    // A slow store must not let one login wait for the other.
    let at_once = Arc::new(Semaphore::new(32));
    while let Some(login) = logins.recv().await {
        if login.user == HUB_USER {
            let good = keys::same(login.password.as_bytes(), hub_password.as_bytes());
            let _ = login.answer.send(good);
            continue;
        }
        let Ok(permit) = Arc::clone(&at_once).acquire_owned().await else { return };
        let hub = Arc::clone(&hub);
        tokio::spawn(async move {
            let _permit = permit;
            let judged = judge(&hub, &login).await;
            match judged {
                Ok(()) => hub.metrics.login("device", "accepted"),
                Err(reason) => {
                    hub.metrics.login("device", "refused");
                    hub.refuse(reason, login.user.parse::<DeviceName>().ok().as_ref().map(DeviceName::as_str));
                }
            }
            let _ = login.answer.send(judged.is_ok());
        });
    }
}

async fn judge(hub: &SharedHub, login: &Login) -> Result<(), &'static str> {
    let fleet = &hub.config.fleet;
    let authenticated = authenticate(&hub.store, fleet, &login.password, Audience::Mqtt, clock::now()).await;
    let device = authenticated.map_err(|error| {
        tracing::warn!(error = chain(&error), "login not judged");
        "StoreFailed"
    })??;
    // A client id of somebody else would throw that one out.
    let own = login.user == device.name.as_str() && login.client == topics::client_id(fleet, &device.name);
    if own { Ok(()) } else { Err("TokenOtherDevice") }
}

/// Carries devices' connections to the broker until the hub stops.
pub async fn front(mut incoming: Incoming, broker: Arc<Embedded>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let (stream, peer) = incoming.next().await;
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!(%peer, limit = CONNECTIONS, "too many connections");
            continue;
        };
        let port = broker.port();
        tokio::spawn(async move {
            let _permit = permit;
            carry(stream, port).await;
        });
    }
}

async fn carry(mut outside: Stream, port: u16) {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(mut inside) => {
            let _ = inside.set_nodelay(true);
            // Small buffers: packets are small, and there are many connections.
            let _ = tokio::io::copy_bidirectional_with_sizes(&mut outside, &mut inside, 2048, 2048).await;
        }
        Err(error) => tracing::warn!(%error, "embedded broker does not answer"),
    }
}
