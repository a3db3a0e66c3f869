//! How often and how long: every interval of the uplink in one place.

use std::time::Duration;

/// Intervals. The defaults keep an idle connection, TLS included, within the
/// budget of design §12 (a ping in two minutes is some 3 KB an hour).
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// MQTT keep-alive: a ping after so long a silence.
    pub keep_alive: Duration,
    /// For TCP, TLS and CONNACK; for one packet to be written; for a PINGRESP.
    pub network: Duration,
    /// First and longest delay before a connection is tried again.
    pub retry_first: Duration,
    pub retry_most: Duration,
    /// A connection that held so long was a good one: back-off starts over.
    pub settled: Duration,
    /// How long HTTPS leaves it to MQTT at start.
    pub mqtt_grace: Duration,
    /// How long reports sent by MQTT may go unacknowledged before HTTPS takes them.
    pub ack_patience: Duration,
    /// First and longest delay before unacknowledged reports are sent again.
    pub resend: Duration,
    pub resend_most: Duration,
    /// Commands are asked for over HTTPS so often without MQTT, and with it.
    pub commands: Duration,
    pub commands_slow: Duration,
    /// After a failure of that, while MQTT is up.
    pub catch_up: Duration,
    /// How often an agent that is not enrolled looks whether it is.
    pub enrolment: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(120),
            network: Duration::from_secs(20),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(300),
            settled: Duration::from_secs(60),
            mqtt_grace: Duration::from_secs(2),
            ack_patience: Duration::from_secs(20),
            resend: Duration::from_secs(30),
            resend_most: Duration::from_secs(600),
            commands: Duration::from_secs(60),
            commands_slow: Duration::from_secs(6 * 3600),
            catch_up: Duration::from_secs(900),
            enrolment: Duration::from_secs(5),
        }
    }
}
