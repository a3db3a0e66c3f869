//! The way to the hub and back: the `Uplink` port.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;

use fleet::name::DeviceName;
use fleet::wire::command::Command;
use fleet::wire::report::ReportBody;
use fleet::wire::status::LinkState;
use jiff::Timestamp;

use super::Reason;

/// What comes from the hub, verified as far as that needs no journal: a
/// command is signed by the hub's key, for this device, and not expired. Its
/// sequence is the daemon's to judge and to journal.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A hint to fetch, after a share of `spread_secs` that the device draws.
    Notify {
        /// 0: at once.
        spread_secs: u64,
    },
    /// An order.
    Command(Command),
    /// A link came up or went down: read [`Uplink::links`].
    Link,
}

/// Reports go out, hints and commands come in. Owns its own connections,
/// back-off and spool; never blocks the loop but for the few milliseconds in
/// which a durable report reaches the disk.
pub trait Uplink: Send {
    /// Queues a report. `durable`: it is spooled to disk until the hub
    /// acknowledges it (transitions), and on disk when this returns (in
    /// memory, while the disk is full); else it may be lost, and a newer one
    /// takes its place (a repeated status).
    fn report(&mut self, body: ReportBody, durable: bool);

    /// The next message. Cancel-safe; pending for ever where there is no hub.
    fn next(&mut self) -> impl Future<Output = Inbound> + Send;

    /// (MQTT, hub). MQTT is up while the broker has our subscriptions; the hub
    /// is up while it answers: over HTTPS, or with a signed acknowledgement.
    fn links(&self) -> (LinkState, LinkState);

    /// Why the device belongs to no hub yet, where it should.
    fn unenrolled(&self) -> Option<Unenrolled> {
        None
    }

    /// Since when the hub knows of another agent with this device's key.
    fn twin(&self) -> Option<Timestamp> {
        None
    }

    /// Reports given up because the spool was full, since the start.
    fn dropped(&self) -> u64;

    /// Messages that were refused since the start, by reason: `BadSignature`,
    /// `OtherKey`, `OtherDevice`, `Late`, `Replayed`, `Malformed`, `Oversized`,
    /// `ForeignTopic`, `Retained`.
    fn refused(&self) -> BTreeMap<&'static str, u64> {
        BTreeMap::new()
    }
}

/// Why the device is not enrolled, for a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unenrolled {
    /// Stable, CamelCase.
    pub reason: &'static str,
    /// Cause, and `hint:` on a line of its own.
    pub message: String,
}

/// Why there is no way to the hub.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    #[error("{url} is no address: {cause}")]
    Address { url: String, cause: &'static str },
    #[error("cannot set up TLS for {thing}")]
    Tls {
        thing: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot {action} {path}")]
    Store {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is damaged: {cause}")]
    Damaged { path: PathBuf, cause: String },
    #[error("{path} can be read by others than its owner")]
    Exposed { path: PathBuf },
    #[error("the device is enrolled as {enrolled}, but its settings say {configured}")]
    OtherName { enrolled: DeviceName, configured: DeviceName },
    #[error("cannot reach {url}")]
    Unreachable {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the system has no random bytes: {cause}")]
    Random { cause: String },
    #[error("the request to join can't be signed: {cause}")]
    Request { cause: String },
    /// The hub answered, with something else than what was asked for.
    #[error("{url} answered {status}: {message}")]
    Answer { url: String, status: u16, message: String },
}

impl Reason for UplinkError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Address { .. } => "BadAddress",
            Self::Tls { .. } => "TlsFailed",
            Self::Store { .. } => "StoreFailed",
            Self::Damaged { .. } => "IdentityDamaged",
            Self::Exposed { .. } => "KeyExposed",
            Self::OtherName { .. } => "OtherName",
            Self::Unreachable { .. } => "HubUnreachable",
            Self::Random { .. } => "NoRandomBytes",
            Self::Request { .. } => "RequestTooLong",
            Self::Answer { .. } => "HubRefused",
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Store { .. } | Self::Random { .. } => true,
            Self::Answer { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Damaged { .. } => Some("remove it and enroll the device again".to_owned()),
            Self::Exposed { path } => {
                Some(format!("chmod 600 {}; if others could have read it, enroll anew", path.display()))
            }
            Self::OtherName { enrolled, .. } => Some(format!(
                "on a copy of {enrolled}: burgee-agent enroll --new-identity; else give device.name its former value, or `burgee-hub device remove {enrolled}` and enroll again"
            )),
            Self::Request { .. } => Some("give it fewer or shorter device.labels".to_owned()),
            Self::Answer { status: 401 | 403, .. } => {
                Some("the hub does not know this device's key, or the device's clock is wrong".to_owned())
            }
            _ => None,
        }
    }
}
