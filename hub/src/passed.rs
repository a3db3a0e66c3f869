//! Sockets that systemd holds for the hub (`sd_listen_fds(3)`).
//!
//! They go to the listener whose configured address they have, and to no other:
//! the configuration was judged by its addresses (TLS and a password where it is
//! not loopback), so a socket that it does not name is refused, not served.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Why what was passed can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PassedError {
    /// No TCP socket that listens.
    #[error("socket {number} that systemd passed can't be used: it has to be a TCP stream")]
    Kind {
        /// Counted from 1.
        number: usize,
        #[source]
        source: io::Error,
    },
    /// One that the configuration does not name.
    #[error("systemd passed a socket on {address}, which the configuration does not name")]
    Unnamed {
        /// Where it listens.
        address: SocketAddr,
    },
}

/// What was passed and is not yet taken.
#[derive(Debug, Default)]
pub struct Passed {
    listeners: Vec<(SocketAddr, TcpListener)>,
}

impl Passed {
    /// Takes over what `$LISTEN_FDS` tells of; nothing, where it is not meant for this process.
    ///
    /// # Errors
    /// When something else than a TCP listener was passed.
    pub fn from_env() -> Result<Self, PassedError> {
        let mut passed = Self::default();
        // Without it, the descriptors could be anybody's.
        if std::env::var_os("LISTEN_PID").is_none() {
            return Ok(passed);
        }
        let mut descriptors = ListenFd::from_env();
        for index in 0..descriptors.len() {
            let failed = |source| PassedError::Kind { number: index + 1, source };
            if let Some(listener) = descriptors.take_tcp_listener(index).map_err(failed)? {
                listener.set_nonblocking(true).map_err(failed)?;
                passed.listeners.push((listener.local_addr().map_err(failed)?, listener));
            }
        }
        Ok(passed)
    }

    /// The socket on `address`, if one was passed.
    pub fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let index = self.listeners.iter().position(|(its, _)| *its == address)?;
        Some(self.listeners.swap_remove(index).1)
    }

    /// That all were taken.
    ///
    /// # Errors
    /// When one is left.
    pub fn done(self) -> Result<(), PassedError> {
        match self.listeners.first() {
            Some((address, _)) => Err(PassedError::Unnamed { address: *address }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::Passed;

    #[test]
    fn a_socket_goes_to_its_address_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut passed = Passed { listeners: vec![(address, listener)] };
        assert!(passed.take("127.0.0.2:80".parse().unwrap()).is_none());
        let taken = passed.take(address).unwrap();
        assert_eq!(taken.local_addr().unwrap(), address);
        assert!(passed.take(address).is_none());
        passed.done().unwrap();
        let refused = Passed { listeners: vec![(address, taken)] }.done().unwrap_err();
        assert!(refused.to_string().contains(&address.to_string()), "{refused}");
    }
}
