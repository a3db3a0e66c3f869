//! The way to the hub and back: the `Uplink` port.

use std::future::Future;

use fleet::wire::command::Command;
use fleet::wire::report::ReportBody;
use fleet::wire::status::LinkState;

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
/// back-off and spool; never blocks the loop.
pub trait Uplink: Send {
    /// Queues a report. `durable`: it is spooled to disk until the hub
    /// acknowledges it (transitions); else it may be lost (a repeated status).
    fn report(&mut self, body: ReportBody, durable: bool);

    /// The next message. Cancel-safe; pending for ever where there is no hub.
    fn next(&mut self) -> impl Future<Output = Inbound> + Send;

    /// (MQTT, hub over HTTPS).
    fn links(&self) -> (LinkState, LinkState);

    /// Reports given up because the spool was full, since the start.
    fn dropped(&self) -> u64;
}
