//! What leaves for the hub and what arrives from it, whichever way it takes.
//!
//! Both ways (MQTT, HTTPS) draw from the same spool, sign alike and hand what
//! they received to the same judgement. **Nothing leaves the spool but by an
//! acknowledgement that the hub signed**, and no command passes that the hub did
//! not sign for this device. Does no network I/O.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ed25519_dalek::SigningKey;
use fleet::wire::ack::Ack;
use fleet::wire::command::Command;
use fleet::wire::jws::{self, Kind};
use fleet::wire::notify::{NOTIFY_LIMIT, Notify};
use fleet::wire::report::{Place, Report, ReportBody, Run};
use fleet::wire::status::LinkState;
use fleet::wire::token::{Audience, DeviceToken};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::identity::Enrolment;
use super::spool::{Spool, Waiting};
use crate::ports::clock::Clock;
use crate::ports::uplink::{Inbound, Unenrolled};
use crate::retry;

/// The device as the hub knows it.
pub(super) struct Identity {
    pub(super) key: SigningKey,
    pub(super) enrolment: Enrolment,
}

impl Identity {
    /// By which this device's delays differ from another's.
    pub(super) fn seed(&self) -> u64 {
        retry::seed(self.enrolment.device.as_str())
    }
}

/// Which way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Mqtt,
    Https,
}

/// What the ways to the hub wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Signals {
    /// Grows with every report.
    pub(super) reports: u64,
    /// Grows with every acknowledgement.
    pub(super) acks: u64,
    /// The broker has our subscriptions.
    pub(super) mqtt_up: bool,
    /// Grows with every MQTT connection.
    pub(super) connections: u64,
}

/// One report, ready to go.
pub(super) struct Outgoing {
    pub(super) place: Place,
    pub(super) durable: bool,
    pub(super) text: String,
}

/// How far one connection has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    spooled: Option<Place>,
    latest: Option<Place>,
}

impl Cursor {
    pub(super) fn sent(&mut self, outgoing: &Outgoing) {
        let cursor = if outgoing.durable { &mut self.spooled } else { &mut self.latest };
        *cursor = (*cursor).max(Some(outgoing.place));
    }
}

struct State {
    spool: Spool,
    /// The newest report that need not survive, until the hub has it.
    latest: Option<Waiting>,
    /// The place that was given out last.
    last: Place,
    /// The highest sequence of a command that was handed on.
    commands: u64,
    /// Since when the oldest report waits without any acknowledgement.
    unacknowledged_since: Option<Instant>,
    mqtt: LinkState,
    hub: LinkState,
    refused: BTreeMap<&'static str, u64>,
    dropped: u64,
    unenrolled: Option<Unenrolled>,
    /// The highest sequence of an acknowledgement to this run.
    heard: u64,
    twin: Option<Timestamp>,
}

pub(super) struct Exchange<C> {
    pub(super) clock: Arc<C>,
    /// This run of the agent, by its id, and the machine.
    run: (String, Option<String>),
    state: Mutex<State>,
    signals: watch::Sender<Signals>,
    inbound: mpsc::Sender<Inbound>,
}

impl<C: Clock> Exchange<C> {
    pub(super) fn new(
        clock: Arc<C>,
        run: (String, Option<String>),
        spool: Spool,
        epoch: u64,
        commands: u64,
        mqtt: LinkState,
        inbound: mpsc::Sender<Inbound>,
    ) -> Self {
        // A journal that was set back must not give a place out twice.
        let epoch = spool.last().map_or(epoch, |last| if last.epoch >= epoch { last.epoch + 1 } else { epoch });
        let waits = !spool.is_empty();
        let state = State {
            spool,
            latest: None,
            last: Place { epoch, counter: 0 },
            commands,
            unacknowledged_since: waits.then(Instant::now),
            mqtt,
            hub: LinkState::Down,
            refused: BTreeMap::new(),
            dropped: 0,
            unenrolled: None,
            heard: 0,
            twin: None,
        };
        Self { clock, run, state: Mutex::new(state), signals: watch::Sender::new(Signals::default()), inbound }
    }

    pub(super) fn signals(&self) -> watch::Receiver<Signals> {
        self.signals.subscribe()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is still the best there is.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the report its place and time, and keeps it.
    pub(super) fn report(&self, body: ReportBody, durable: bool) {
        let at = self.clock.now();
        let mut state = self.state();
        let Some(body) = fitted(body) else {
            state.dropped += 1;
            tracing::error!("a report is too long for the wire and is given up");
            return;
        };
        state.last.counter += 1;
        let waiting = Waiting { place: state.last, at, body };
        if durable {
            state.spool.push(&waiting);
            state.unacknowledged_since.get_or_insert_with(Instant::now);
        } else {
            state.latest = Some(waiting);
        }
        drop(state);
        self.signals.send_modify(|signals| signals.reports += 1);
    }

    /// What waits behind `cursor`, oldest first, signed; at most `count` from
    /// the spool, about `bytes`, and the newest status.
    pub(super) fn outgoing(&self, identity: &Identity, cursor: Cursor, count: usize, bytes: usize) -> Vec<Outgoing> {
        let mut state = self.state();
        let (id, machine) = self.run.clone();
        let run = Run { id, machine, heard: state.heard };
        let places: Vec<Place> = state.spool.places(cursor.spooled).take(count).collect();
        let mut ready = Vec::new();
        let mut size = 0;
        for place in places {
            if size > bytes {
                break;
            }
            let Some(waiting) = state.spool.read(place) else { continue };
            let before = state.spool.before(place);
            if let Some(text) = signed(identity, &run, waiting, before) {
                size += text.len();
                ready.push(Outgoing { place, durable: true, text });
            } else {
                // It would be in the way for ever.
                state.spool.give_up(place);
            }
        }
        if let Some(waiting) = state.latest.clone().filter(|latest| Some(latest.place) > cursor.latest) {
            let place = waiting.place;
            let before = state.spool.before(place);
            match signed(identity, &run, waiting, before) {
                Some(text) => ready.push(Outgoing { place, durable: false, text }),
                None => state.latest = None,
            }
        }
        ready.sort_by_key(|outgoing| outgoing.place);
        ready
    }

    /// Whether a report waits that no way has delivered yet.
    pub(super) fn waits(&self) -> bool {
        let state = self.state();
        !state.spool.is_empty() || state.latest.is_some()
    }

    /// The hub says, unsigned, that it has `place`. Only a report that need not
    /// survive is forgotten on such a word.
    pub(super) fn delivered(&self, place: Place) {
        let mut state = self.state();
        if state.latest.as_ref().is_some_and(|latest| latest.place <= place) {
            state.latest = None;
        }
    }

    /// For how long reports wait without any acknowledgement.
    pub(super) fn unacknowledged(&self) -> Option<std::time::Duration> {
        self.state().unacknowledged_since.map(|since| since.elapsed())
    }

    /// An acknowledgement arrived; whether it was one.
    pub(super) fn acknowledge(&self, identity: &Identity, text: &str) -> bool {
        let enrolment = &identity.enrolment;
        let ack: Ack = match jws::verify(Kind::Ack, text, enrolment.hub_key.verifying()) {
            Ok(ack) => ack,
            Err(error) => {
                self.refuse(error.reason(), &error, "acknowledgement");
                return false;
            }
        };
        if (&ack.fleet, &ack.device) != (&enrolment.fleet, &enrolment.device) {
            self.refuse("OtherDevice", &format!("it is for {}/{}", ack.fleet, ack.device), "acknowledgement");
            return false;
        }
        if ack.run.as_ref().is_some_and(|run| *run != self.run.0) {
            // What another run has sent is not what this one keeps; that is no
            // fault of the hub's: the topic is the device's.
            tracing::debug!(run = ack.run, "an acknowledgement is for another run");
            return true;
        }
        let mut state = self.state();
        let mut changed = false;
        if ack.sequence > state.heard {
            state.heard = ack.sequence;
            changed = std::mem::replace(&mut state.twin, ack.twin) != ack.twin;
        }
        let forgotten = state.spool.acknowledge(ack.place());
        state.unacknowledged_since = (!state.spool.is_empty()).then(Instant::now);
        if state.latest.as_ref().is_some_and(|latest| latest.place <= ack.place()) {
            state.latest = None;
        }
        let known = ack.known.unwrap_or(ack.place()).max(ack.place());
        if known > state.last && ack.twin.is_none() {
            // The hub has later reports of this device than the device knows of:
            // its journal was set back. Whatever comes next must count as new.
            tracing::warn!(epoch = known.epoch, "the hub knows later reports of this device; a new epoch begins");
            state.last = Place { epoch: known.epoch + 1, counter: 0 };
        }
        drop(state);
        tracing::debug!(forgotten, epoch = ack.epoch, counter = ack.counter, "reports acknowledged");
        if changed {
            if ack.twin.is_some() {
                tracing::error!("another agent reports with this device's key");
            }
            drop(self.inbound.try_send(Inbound::Link));
        }
        self.hub(LinkState::Up);
        self.signals.send_modify(|signals| signals.acks += 1);
        true
    }

    /// A command arrived. Handed on if the hub signed it for this device, it is
    /// not late, and was not handed on before.
    pub(super) fn command(&self, identity: &Identity, text: &str, via: Via) {
        let enrolment = &identity.enrolment;
        let command: Command = match jws::verify(Kind::Command, text, enrolment.hub_key.verifying()) {
            Ok(command) => command,
            Err(error) => return self.refuse(error.reason(), &error, "command"),
        };
        if let Err(refused) = command.check(&enrolment.fleet, &enrolment.device, self.clock.now()) {
            return self.refuse(refused.reason(), &refused, "command");
        }
        let mut state = self.state();
        if command.sequence <= state.commands {
            drop(state);
            // Over HTTPS the hub repeats what came over MQTT meanwhile.
            if via == Via::Mqtt {
                self.refuse("Replayed", &format!("sequence {} came before", command.sequence), "command");
            }
            return;
        }
        let sequence = command.sequence;
        match self.inbound.try_send(Inbound::Command(command)) {
            Ok(()) => state.commands = sequence,
            Err(error) => tracing::error!(sequence, %error, "a command finds no room; it is asked for again"),
        }
    }

    /// The highest sequence of a command that was handed on.
    pub(super) fn last_command(&self) -> u64 {
        self.state().commands
    }

    /// A hint to fetch arrived.
    pub(super) fn notify(&self, payload: &[u8]) {
        if payload.len() > NOTIFY_LIMIT {
            return self.refuse("Oversized", &"it is too long", "notify");
        }
        match serde_json::from_slice::<Notify>(payload) {
            // Where there is no room, hints enough are waiting.
            Ok(notify) => drop(self.inbound.try_send(Inbound::Notify { spread_secs: notify.spread_secs })),
            Err(error) => self.refuse("Malformed", &error, "notify"),
        }
    }

    /// Counts and logs what was refused; a flood is logged ever more rarely.
    pub(super) fn refuse(&self, reason: &'static str, cause: &dyn std::fmt::Display, what: &'static str) {
        let mut state = self.state();
        let count = state.refused.entry(reason).or_default();
        *count += 1;
        let count = *count;
        drop(state);
        if count <= 4 || count.is_power_of_two() {
            tracing::warn!(what, reason, %cause, count, "a message from the hub's side is refused");
        }
    }

    /// A token that opens `audience` from now on.
    pub(super) fn token(&self, identity: &Identity, audience: Audience) -> Option<String> {
        let Enrolment { fleet, device, .. } = &identity.enrolment;
        let token = DeviceToken::new(fleet.clone(), device.clone(), audience, self.clock.now());
        jws::sign(Kind::Token, &token, &identity.key).ok()
    }

    /// MQTT came up or went down.
    pub(super) fn mqtt(&self, link: LinkState) {
        let mut state = self.state();
        let changed = std::mem::replace(&mut state.mqtt, link) != link;
        if changed && link == LinkState::Up && state.unacknowledged_since.is_some() {
            // What waited offline did not wait for an acknowledgement.
            state.unacknowledged_since = Some(Instant::now());
        }
        drop(state);
        if changed {
            self.signals.send_modify(|signals| {
                signals.mqtt_up = link == LinkState::Up;
                signals.connections += u64::from(signals.mqtt_up);
            });
            drop(self.inbound.try_send(Inbound::Link));
        }
    }

    /// The hub answered, or did not.
    pub(super) fn hub(&self, link: LinkState) {
        let changed = std::mem::replace(&mut self.state().hub, link) != link;
        if changed {
            drop(self.inbound.try_send(Inbound::Link));
        }
    }

    /// The device is enrolled, or why it is not; said and logged once.
    pub(super) fn enrolled(&self, missing: Option<Unenrolled>) {
        if let Some(missing) = missing.as_ref().filter(|missing| self.state().unenrolled.as_ref() != Some(missing)) {
            tracing::warn!(reason = missing.reason, cause = missing.message, "not enrolled; reports wait in the spool");
        }
        let changed = std::mem::replace(&mut self.state().unenrolled, missing.clone()) != missing;
        if changed {
            drop(self.inbound.try_send(Inbound::Link));
        }
    }

    /// Since when the hub knows of another run that lives.
    pub(super) fn twin(&self) -> Option<Timestamp> {
        self.state().twin
    }

    pub(super) fn unenrolled(&self) -> Option<Unenrolled> {
        self.state().unenrolled.clone()
    }

    pub(super) fn links(&self) -> (LinkState, LinkState) {
        let state = self.state();
        (state.mqtt, state.hub)
    }

    pub(super) fn dropped(&self) -> u64 {
        let state = self.state();
        state.dropped + state.spool.dropped()
    }

    pub(super) fn refused(&self) -> BTreeMap<&'static str, u64> {
        self.state().refused.clone()
    }

    pub(super) fn spooled(&self) -> usize {
        self.state().spool.len()
    }
}

fn signed(identity: &Identity, run: &Run, waiting: Waiting, after: Option<Place>) -> Option<String> {
    let Waiting { place, at, body } = waiting;
    let report = Report {
        fleet: identity.enrolment.fleet.clone(),
        device: identity.enrolment.device.clone(),
        epoch: place.epoch,
        counter: place.counter,
        after,
        run: Some(run.clone()),
        at,
        body,
    };
    match jws::sign(Kind::Report, &report, &identity.key) {
        Ok(text) => Some(text),
        Err(error) => {
            tracing::error!(%error, "a report can't be signed and is given up");
            None
        }
    }
}

/// `body` such that its report fits the wire: logs lose their oldest lines, for
/// anything else there is nothing to leave out.
fn fitted(mut body: ReportBody) -> Option<ReportBody> {
    // base64 makes four bytes of three; header, names and signature are small.
    let room = Kind::Report.limit() / 4 * 3 - 2048;
    loop {
        let size = serde_json::to_vec(&body).ok()?.len();
        if size <= room {
            return Some(body);
        }
        let ReportBody::Logs(logs) = &mut body else { return None };
        if logs.lines.is_empty() {
            return None;
        }
        let mut excess = size - room;
        let surplus = logs.lines.iter().take_while(|line| {
            let goes_on = excess > 0;
            excess = excess.saturating_sub(line.len() + 1);
            goes_on
        });
        let surplus = surplus.count();
        logs.lines.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use fleet::wire::report::{Event, Logs, ReportBody};

    use super::fitted;

    #[test]
    fn logs_lose_their_oldest_lines() {
        let lines: Vec<String> = (0..5000).map(|number| format!("{number:099}")).collect();
        let last = lines.last().cloned();
        let Some(ReportBody::Logs(logs)) = fitted(ReportBody::Logs(Logs { command: 1, app: "pos".into(), lines }))
        else {
            panic!("logs always fit");
        };
        assert_eq!(logs.lines.last().cloned(), last);
        assert!(logs.lines.len() > 1800, "{}", logs.lines.len());
        let long = Event { revision: None, event: "x".into(), message: "x".repeat(300_000) };
        assert!(fitted(ReportBody::Event(long)).is_none());
    }
}
