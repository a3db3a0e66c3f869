//! The hub over MQTT 3.1.1: one task that owns connection, session and timers.
//!
//! What it keeps is only how far it has sent; reports stay with the exchange
//! until the hub's own acknowledgement, so that a lost connection loses nothing.
//! The broker is not trusted: it is asked to deliver, and everything that it
//! delivers is judged by signature.

mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet::wire::status::LinkState;
use fleet::wire::token::Audience;
use fleet::wire::topics::{self, LINK_DOWN, LINK_UP};
use rumqttc::mqttbytes::{Protocol, QoS};
use rumqttc::{
    Connect, ConnectReturnCode, LastWill, Login, Packet, PubAck, Publish, Subscribe, SubscribeFilter,
    SubscribeReasonCode,
};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use self::stream::{Incoming, MqttError, Stream};
use super::address::Broker;
use super::backoff::Backoff;
use super::exchange::{Cursor, Exchange, Identity, Via};
use super::pace::Pace;
use crate::ports::clock::Clock;

/// Reports that are under way at once, without the broker's PUBACK.
const WINDOW: usize = 16;
/// A session in which more messages than this had to be refused is ended.
const REFUSED_MAX: u32 = 1000;

pub(super) struct MqttWay<C> {
    pub(super) exchange: Arc<Exchange<C>>,
    pub(super) identity: Arc<Identity>,
    pub(super) broker: Broker,
    /// Present if the broker's address asks for TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    pub(super) pace: Pace,
}

/// The topics that this device reads.
struct Topics {
    notify: String,
    command: String,
    ack: String,
}

impl<C: Clock> MqttWay<C> {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(self.pace.retry_first, self.pace.retry_most, self.identity.seed());
        loop {
            let mut up_since = None;
            let error = match self.session(&mut up_since).await {
                Ok(never) => match never {},
                Err(error) => error,
            };
            self.exchange.mqtt(LinkState::Down);
            if up_since.is_some_and(|since: Instant| since.elapsed() >= self.pace.settled) {
                backoff.reset();
            }
            let delay = backoff.next();
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let hint = matches!(
                error,
                MqttError::Refused(ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized)
            )
            .then_some("the broker does not know this device's key, or the device's clock is wrong");
            tracing::warn!(%error, cause, hint, ?delay, "mqtt is away");
            sleep(delay).await;
        }
    }

    /// One connection, from TCP to its end.
    async fn session(&self, up_since: &mut Option<Instant>) -> Result<std::convert::Infallible, MqttError> {
        let enrolment = &self.identity.enrolment;
        let (fleet, device) = (&enrolment.fleet, &enrolment.device);
        let names = Topics {
            notify: topics::notify(fleet),
            command: topics::command(fleet, device),
            ack: topics::ack(fleet, device),
        };
        let (report, link) = (topics::report(fleet, device), topics::link(fleet, device));

        let mut stream = Stream::connect(&self.broker, self.tls.as_ref(), self.pace.network).await?;
        let password = self.exchange.token(&self.identity, Audience::Mqtt).unwrap_or_default();
        let connect = Connect {
            protocol: Protocol::V4,
            keep_alive: u16::try_from(self.pace.keep_alive.as_secs()).unwrap_or(u16::MAX).max(1),
            client_id: topics::client_id(fleet, device),
            // The broker keeps commands and acknowledgements for us while we are away.
            clean_session: false,
            last_will: Some(LastWill::new(&link, LINK_DOWN, QoS::AtLeastOnce, true)),
            login: Some(Login::new(device.as_str(), password)),
        };
        stream.write(&[Packet::Connect(connect)]).await?;
        match timeout(self.pace.network, stream.read()).await.map_err(|_| MqttError::Slow("signing in"))?? {
            Incoming::Packet(Packet::ConnAck(ack)) if ack.code == ConnectReturnCode::Success => {}
            Incoming::Packet(Packet::ConnAck(ack)) => return Err(MqttError::Refused(ack.code)),
            _ => return Err(MqttError::Protocol("it did not begin with CONNACK")),
        }
        let filter = |topic: &String, qos| SubscribeFilter::new(topic.clone(), qos);
        let mut subscribe = Subscribe::new_many([
            filter(&names.notify, QoS::AtMostOnce),
            filter(&names.command, QoS::AtLeastOnce),
            filter(&names.ack, QoS::AtLeastOnce),
        ]);
        subscribe.pkid = 1;
        stream.write(&[Packet::Subscribe(subscribe)]).await?;

        let mut signals = self.exchange.signals();
        let mut session = Session {
            way: self,
            names,
            pkid: 1,
            subscribed: false,
            window: BTreeMap::new(),
            cursor: Cursor::default(),
            resend: Backoff::new(self.pace.resend, self.pace.resend_most, self.identity.seed()),
            resend_at: None,
            acks: signals.borrow_and_update().acks,
            refused: 0,
        };
        let mut sent = Instant::now();
        let mut heard = Instant::now();
        let mut pinged: Option<Instant> = None;
        loop {
            let mut out = session.fill(&report);
            let quiet = sent.min(heard) + self.pace.keep_alive;
            let pong = if session.subscribed { pinged } else { Some(sent) }.map(|at| at + self.pace.network);
            let deadline =
                [Some(quiet).filter(|_| pinged.is_none()), pong, session.resend_at].into_iter().flatten().min();
            if out.is_empty() {
                // All cancel-safe: `read` keeps what it has, a signal is a wake-up.
                tokio::select! {
                    incoming = stream.read() => {
                        heard = Instant::now();
                        pinged = None;
                        out = session.judge(incoming?)?;
                        if session.subscribed && up_since.is_none() {
                            *up_since = Some(heard);
                            self.exchange.mqtt(LinkState::Up);
                            tracing::info!(broker = self.broker.host, "mqtt is up");
                            let mut up = Publish::new(&link, QoS::AtLeastOnce, LINK_UP);
                            up.retain = true;
                            up.pkid = session.next_pkid();
                            out.push(Packet::Publish(up));
                        }
                    }
                    changed = signals.changed() => {
                        if changed.is_err() {
                            return Err(MqttError::Closed);
                        }
                        session.acknowledged(signals.borrow_and_update().acks);
                    }
                    () = sleep_until(deadline.unwrap_or(quiet)) => {
                        let now = Instant::now();
                        if pong.is_some_and(|at| at <= now) {
                            return Err(MqttError::Slow("an answer"));
                        }
                        if session.resend_at.is_some_and(|at| at <= now) {
                            session.again();
                        }
                        if pinged.is_none() && quiet <= now {
                            pinged = Some(now);
                            out.push(Packet::PingReq);
                        }
                    }
                }
            }
            if !out.is_empty() {
                stream.write(&out).await?;
                sent = Instant::now();
            }
        }
    }
}

/// Connects, with TLS where there is a configuration for it, and hangs up.
pub(super) async fn knock(broker: &Broker, tls: Option<&Arc<ClientConfig>>, patience: Duration) -> Result<(), String> {
    Stream::connect(broker, tls, patience).await.map(drop).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{error}{cause}")
    })
}

/// What one connection knows.
struct Session<'a, C> {
    way: &'a MqttWay<C>,
    names: Topics,
    pkid: u16,
    subscribed: bool,
    /// Packet ids of reports without PUBACK.
    window: BTreeMap<u16, ()>,
    cursor: Cursor,
    resend: Backoff,
    /// When everything that is not acknowledged by then is sent again.
    resend_at: Option<Instant>,
    acks: u64,
    refused: u32,
}

impl<C: Clock> Session<'_, C> {
    fn next_pkid(&mut self) -> u16 {
        self.pkid = self.pkid.checked_add(1).unwrap_or(1);
        self.pkid
    }

    /// Reports to publish now.
    fn fill(&mut self, topic: &str) -> Vec<Packet> {
        if !self.subscribed || self.window.len() >= WINDOW {
            return Vec::new();
        }
        let exchange = &self.way.exchange;
        let room = WINDOW - self.window.len();
        let outgoing = exchange.outgoing(&self.way.identity, self.cursor, room, 256 * 1024);
        let mut packets = Vec::with_capacity(outgoing.len());
        for one in outgoing {
            self.cursor.sent(&one);
            let mut publish = Publish::new(topic, QoS::AtLeastOnce, one.text);
            publish.pkid = self.next_pkid();
            self.window.insert(publish.pkid, ());
            packets.push(Packet::Publish(publish));
        }
        if !packets.is_empty() && self.resend_at.is_none() {
            self.resend_at = Some(Instant::now() + self.resend.next());
        }
        packets
    }

    /// The hub acknowledged something since this was asked last.
    fn acknowledged(&mut self, acks: u64) {
        if std::mem::replace(&mut self.acks, acks) != acks {
            self.resend.reset();
            self.resend_at = self.way.exchange.unacknowledged().map(|_| Instant::now() + self.resend.next());
        }
    }

    /// Sends what is not acknowledged from its beginning.
    fn again(&mut self) {
        self.resend_at = None;
        self.window.clear();
        if self.way.exchange.unacknowledged().is_some() {
            self.cursor = Cursor::default();
        }
    }

    /// What to answer to what came.
    fn judge(&mut self, incoming: Incoming) -> Result<Vec<Packet>, MqttError> {
        match incoming {
            Incoming::Oversized => self.refuse("Oversized", "it is too long", "packet")?,
            Incoming::Packet(Packet::SubAck(ack)) => {
                if ack.return_codes.iter().any(|code| matches!(code, SubscribeReasonCode::Failure)) {
                    return Err(MqttError::Subscription);
                }
                self.subscribed = true;
            }
            Incoming::Packet(Packet::PubAck(ack)) => {
                self.window.remove(&ack.pkid);
            }
            Incoming::Packet(Packet::PingResp) => {}
            Incoming::Packet(Packet::Publish(publish)) => {
                if publish.qos == QoS::ExactlyOnce {
                    return Err(MqttError::Protocol("it delivers with QoS 2"));
                }
                self.deliver(&publish)?;
                if publish.qos == QoS::AtLeastOnce {
                    // Refused ones, too, or they would come again for ever.
                    return Ok(vec![Packet::PubAck(PubAck::new(publish.pkid))]);
                }
            }
            Incoming::Packet(_) => return Err(MqttError::Protocol("a packet that no broker sends to a reader")),
        }
        Ok(Vec::new())
    }

    fn deliver(&mut self, publish: &Publish) -> Result<(), MqttError> {
        let (exchange, identity) = (&self.way.exchange, &self.way.identity);
        let topic = publish.topic.as_str();
        if topic != self.names.notify && topic != self.names.command && topic != self.names.ack {
            return self.refuse("ForeignTopic", "its topic was not asked for", "packet");
        }
        if publish.retain {
            // What the hub sends here is never retained: somebody left it.
            return self.refuse("Retained", "it is retained", "packet");
        }
        if topic == self.names.notify {
            exchange.notify(&publish.payload);
            return Ok(());
        }
        match std::str::from_utf8(&publish.payload) {
            Ok(text) if topic == self.names.command => exchange.command(identity, text, Via::Mqtt),
            Ok(text) => {
                exchange.acknowledge(identity, text);
            }
            Err(_) => return self.refuse("Malformed", "it is no text", "packet"),
        }
        Ok(())
    }

    fn refuse(&mut self, reason: &'static str, cause: &str, what: &'static str) -> Result<(), MqttError> {
        self.way.exchange.refuse(reason, &cause, what);
        self.refused += 1;
        if self.refused > REFUSED_MAX {
            Err(MqttError::Protocol("nearly nothing that it sends is ours"))
        } else {
            Ok(())
        }
    }
}
