//! Tells the service manager how the agent fares: `sd_notify` over
//! `$NOTIFY_SOCKET`, without a library.
//!
//! Outside systemd there is no such socket, and nothing is sent. A message
//! that is lost is not worth an error: the watchdog speaks by silence.

use std::env;
use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The line to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    line: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says: `$NOTIFY_SOCKET`, `$WATCHDOG_USEC`, `$WATCHDOG_PID`.
    #[must_use]
    pub fn from_env() -> Self {
        let line = env::var_os("NOTIFY_SOCKET").and_then(|name| connect(&name));
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| ours && *usec > 0).map(Duration::from_micros);
        Self { line, watchdog }
    }

    /// How often [`Notifier::watchdog`] is to be called: half of what the
    /// service manager waits. `None`: not at all.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.line.is_some()).map(|all| all / 2)
    }

    /// The agent is up.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The agent is on its way out.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The loop turns.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    fn send(&self, message: &str) {
        if let Some((socket, to)) = &self.line
            && let Err(error) = socket.send_to_addr(message.as_bytes(), to)
        {
            tracing::debug!(%error, "service manager not notified");
        }
    }
}

/// `/a/path`, or `@name` in the abstract namespace.
fn connect(name: &OsStr) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // A manager that hangs must not hang the agent.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::{Notifier, connect};

    #[test]
    fn messages_arrive_at_either_kind_of_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let named = format!("@burgee-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&named.as_bytes()[1..]).unwrap();
        let sockets = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (named.into(), UnixDatagram::bind_addr(&address).unwrap()),
        ];
        for (name, receiver) in sockets {
            let notifier = Notifier { line: connect(&name), watchdog: None };
            notifier.ready();
            notifier.status("steady at\n4f1c");
            notifier.watchdog();
            for want in ["READY=1", "STATUS=steady at 4f1c", "WATCHDOG=1"] {
                let mut buffer = [0; 100];
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(std::str::from_utf8(&buffer[..length]), Ok(want));
            }
        }
        assert!(connect("relative".as_ref()).is_none());
        // Nobody there: no error, no wait.
        drop(folder);
        Notifier { line: connect(path.as_os_str()), watchdog: None }.ready();
    }
}
