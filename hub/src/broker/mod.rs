//! MQTT: the embedded broker or somebody else's, and the hub's own link to it.
//!
//! **Integrity never rests on a broker.** Reports, commands and
//! acknowledgements are signed; `notify` and `link` are hints. The embedded one
//! (rumqttd) has no access rules for topics, so an enrolled device could read
//! what others send: docs/hub.md says so, and names brokers that do better.

pub mod embedded;
pub mod link;
pub mod tunnel;

use std::path::PathBuf;

/// A message to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    /// Worth waiting for the broker. What is sent again anyway is not.
    pub wait: bool,
}

/// Why there is no way to a broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// The embedded one's thread.
    #[error("starting the embedded broker failed")]
    Start(#[source] std::io::Error),
    /// The socket in the data folder.
    #[error("the socket {path} can't be made")]
    Socket {
        /// Where.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// A file with roots or a password.
    #[error("reading {path} failed")]
    File {
        /// Which.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// No roots to verify the broker with.
    #[error("there are no usable certificates to verify the broker with")]
    Roots,
    /// A host name that TLS can't verify.
    #[error("{0:?} is no host name")]
    Host(String),
    /// The TLS configuration.
    #[error("TLS can't be set up")]
    Tls(#[source] rustls::Error),
}
