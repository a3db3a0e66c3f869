//! The loop. Every source of change arrives as one [`Input`]; what it means
//! for the phase is [`Phase::next`]'s to say; the phase is journalled before
//! its work begins; and work follows from the phase alone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet::desired::Blobs;
use fleet::revision::{CommitId, Revision};
use fleet::wire::report::{Event as Said, ReportBody};
use fleet::wire::status::{Link, LinkState, Status};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::context::{Context, Parts};
use super::fetch::Fetcher;
use super::gate::{clock_is_set, explain, gate};
use super::polling::Polling;
use super::renew::{Renewal, Renewed};
use super::status;
use super::work::{Done, Work};
use crate::metrics::Snapshot;
use crate::phase::{Event, Hold, Phase};
use crate::ports::control;
use crate::ports::journal::{Kept, State};
use crate::ports::source::{Fetched, SourceError};
use crate::ports::uplink::{Inbound, Uplink};
use crate::retry::Backoff;

/// Everything that can happen to the daemon.
pub(crate) enum Input {
    /// An operator, on the local socket.
    Ask(control::Request),
    /// The hub, the broker.
    Inbound(Inbound),
    /// A fetch ended.
    Fetched(Result<Fetched, SourceError>),
    /// The work numbered so ended.
    Done(u64, Done),
    /// A step towards another agent ended.
    Renewed(Renewed),
    /// The watch looked at the device.
    Observed,
    /// Something to report that changes no phase.
    Say(ReportBody),
    /// A deadline passed.
    Timer,
    /// SIGTERM.
    Stop,
}

pub(super) const RETRY: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) };
/// How often a shut gate is tried.
pub(super) const GATE: Duration = Duration::from_secs(10);
/// A status that did not change is repeated, so that the hub can tell silence
/// from death.
const REPEAT: Duration = Duration::from_secs(1800);

/// See the module.
pub(crate) struct Core<P: Parts, U: Uplink> {
    pub(crate) context: Rc<Context<P>>,
    pub(crate) uplink: U,
    pub(crate) fetcher: Fetcher,
    pub(super) inbox: mpsc::UnboundedReceiver<Input>,
    pub(crate) send: mpsc::UnboundedSender<Input>,
    pub(super) wake: Rc<Notify>,
    pub(crate) work: Work,
    /// Prepares a newer revision while an older one is on its way.
    pub(super) side: Work,
    /// What waits for the running work to come to a stop.
    pub(crate) pending: Option<Pending>,
    pub(super) failures: u32,
    /// Waits for an engine or a disk: nobody's failures.
    pub(super) waits: u32,
    pub(super) retry_at: Option<Instant>,
    /// What is prepared beside.
    pub(super) side_target: Option<Revision>,
    pub(super) side_failures: u32,
    pub(super) side_retry_at: Option<Instant>,
    pub(super) gate_at: Option<Instant>,
    /// A new head waited for the clock when it was last looked at.
    clock_awaited: bool,
    pub(crate) polling: Polling,
    pub(crate) renewal: Renewal,
    /// Who waits for the fetch to end.
    pub(crate) waiting: Vec<Reply>,
    /// The next fetch anchors anew, at or above this.
    pub(crate) anchor: Option<CommitId>,
    /// What the fetch under way anchors at.
    pub(crate) anchoring: Option<CommitId>,
    published: watch::Sender<Arc<Snapshot>>,
    pub(super) repeat_at: Instant,
    /// `run --once`.
    pub(super) once: bool,
    pub(crate) outcome: Outcome,
}

/// Where an answer to an operator goes.
type Reply = oneshot::Sender<Result<control::Answer, control::Refusal>>;

/// What cannot happen before the running work has come to a stop.
pub(crate) enum Pending {
    Supersede(Box<Kept>, Blobs),
    Rollback(Revision),
}

/// What `run --once` exits by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    /// The last fetch's error, as an exit code (3, 2, 5, 1).
    pub(crate) fetch: Option<u8>,
    /// Something went wrong on the way: it went back by itself, or is unhealthy.
    pub(crate) unhealthy: bool,
    /// This process is to begin anew, with another agent.
    pub(crate) renew: bool,
}

impl<P: Parts, U: Uplink> Core<P, U> {
    #[expect(clippy::too_many_arguments, reason = "the one place where the parts come together")]
    pub(crate) fn new(
        context: Rc<Context<P>>,
        uplink: U,
        fetcher: Fetcher,
        (send, inbox): (mpsc::UnboundedSender<Input>, mpsc::UnboundedReceiver<Input>),
        wake: Rc<Notify>,
        (polling, renewal): (Polling, Renewal),
        published: watch::Sender<Arc<Snapshot>>,
        once: bool,
    ) -> Self {
        Self {
            context,
            uplink,
            fetcher,
            inbox,
            send,
            wake,
            work: Work::default(),
            side: Work::default(),
            pending: None,
            failures: 0,
            waits: 0,
            retry_at: None,
            side_target: None,
            side_failures: 0,
            side_retry_at: None,
            gate_at: None,
            clock_awaited: false,
            polling,
            renewal,
            waiting: Vec::new(),
            anchor: None,
            anchoring: None,
            published,
            repeat_at: Instant::now(),
            once,
            outcome: Outcome::default(),
        }
    }

    /// Runs until it is told to stop or, with `once`, until nothing is left to
    /// do. Returns the last status.
    pub(crate) async fn run(mut self, mut beat: impl FnMut(&Status)) -> (Status, Outcome) {
        self.say_crash();
        self.wake_up();
        self.remember_failure();
        loop {
            let status = self.settle();
            beat(&status);
            if self.once && self.is_over() {
                return (status, self.outcome);
            }
            if self.renew() {
                self.outcome.renew = true;
                self.stop().await;
                return (self.status(), self.outcome);
            }
            let deadline = self.deadline();
            let input = tokio::select! {
                biased;
                // Both cancel-safe: nothing is taken that is not handled.
                input = self.inbox.recv() => input.unwrap_or(Input::Stop),
                inbound = self.uplink.next() => Input::Inbound(inbound),
                () = tokio::time::sleep_until(deadline) => Input::Timer,
            };
            match input {
                Input::Stop => {
                    self.stop().await;
                    return (self.status(), self.outcome);
                }
                Input::Ask(request) => self.asked(request),
                Input::Inbound(inbound) => self.inbound(inbound),
                Input::Fetched(result) => self.fetched(result),
                Input::Done(number, done) => self.done(number, done),
                Input::Renewed(renewed) => self.renewed(renewed),
                Input::Say(body) => self.uplink.report(body, true),
                Input::Observed | Input::Timer => {}
            }
        }
    }

    pub(super) fn digest_of(&self, revision: &Revision) -> Option<fleet::digest::Digest> {
        self.context.kept(revision).map(|(kept, _)| kept.desired.digest)
    }

    /// Journals what `event` leads to, with the changes of `also`, and says so.
    /// A phase that can't be journalled does not begin.
    pub(crate) fn advance(
        &mut self,
        event: Event,
        keep: Option<(&Kept, &Blobs)>,
        also: impl FnOnce(&mut State),
    ) -> bool {
        let before = self.context.state().phase;
        let mut next = before.clone().next(event.clone(), &self.context.boot);
        let begins = matches!(before, Phase::Preparing { .. } | Phase::Held { .. });
        if let (Phase::Applying { back, .. }, true) = (&mut next, begins) {
            // The way home is last good, also from a revision that was held.
            let good = self.context.state().good;
            *back = good.or(back.take());
        }
        let same = next == before;
        if same {
            tracing::debug!(?event, phase = ?before, "event changes nothing");
        }
        let journalled = self.context.commit(keep, |state| {
            state.phase = next.clone();
            also(state);
        });
        if journalled.is_err() {
            self.failures += 1;
            self.retry_at = Some(Instant::now() + RETRY.delay(self.failures, self.context.seed));
            return false;
        }
        if !same {
            tracing::info!(from = ?before.name(), to = ?next.name(), revision = next.target().or(next.at()).map(tracing::field::display), "phase changed");
            if matches!(next, Phase::Steady { .. }) {
                for kind in ["Applied", "Healthy", "Prepared", "Restorable", "RolledBack"] {
                    self.context.clear(kind);
                }
            }
            if next.target() != before.target() {
                self.failures = 0;
            }
            self.work.abandon();
            self.retry_at = None;
            self.gate_at = None;
            self.wake.notify_one();
        }
        true
    }

    /// Starts what the phase asks for and publishes the status.
    fn settle(&mut self) -> Status {
        self.watch_clock();
        if self.polling.is_due() {
            self.fetch();
        }
        let state = self.context.state();
        if let Some(wanted) = wanted(&state) {
            match &state.phase {
                Phase::Applying { .. } | Phase::Probing { .. } => self.prepare_aside(&state, wanted),
                // A way back that stays blocked is left for what is newer.
                Phase::RollingBack { asked: false, .. } if self.failures >= 3 => self.prepare_aside(&state, wanted),
                Phase::RollingBack { .. } => {}
                _ => {
                    self.failures = 0;
                    self.advance(Event::Target(wanted), None, |_| {});
                }
            }
        }
        self.begin_work();
        self.forget_crash();
        if self.polling.is_idle() {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(Ok(control::Answer::Done("fetched".to_owned())));
            }
        }
        let status = self.status();
        let counters = self.context.tally.counters(self.uplink.dropped(), self.uplink.refused().values().sum());
        let (changed, counted) = {
            let before = self.published.borrow();
            (before.status != status, before.counters != counters)
        };
        if changed || counted {
            self.published.send_replace(Arc::new(Snapshot { status: status.clone(), counters }));
        }
        if changed || Instant::now() >= self.repeat_at {
            self.uplink.report(ReportBody::Status(Box::new(status.clone())), false);
            self.repeat_at = Instant::now() + REPEAT;
        }
        status
    }

    /// What waited for the clock doesn't wait for the next poll, too.
    fn watch_clock(&mut self) {
        let waits = self.context.conditions.borrow().contains_key("ClockSet");
        let is_set = clock_is_set(&self.context, self.context.now());
        if self.clock_awaited && waits && is_set {
            self.polling.now();
        }
        // Once for each time that the clock is set, whatever the source makes of it.
        self.clock_awaited = waits && !is_set;
    }

    fn begin_work(&mut self) {
        if self.work.is_running() || self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let state = self.context.state();
        let context = Rc::clone(&self.context);
        match state.phase {
            Phase::Preparing { at, to } => {
                let running = at.filter(|at| state.good.as_ref() == Some(at));
                self.work.prepare(context, self.fetcher.clone(), to, running, self.send.clone());
            }
            Phase::Held { to, why, .. } => {
                if self.gate_at.is_some_and(|at| Instant::now() < at) {
                    return;
                }
                self.gate_at = Some(Instant::now() + GATE);
                if let Some((kept, _)) = self.context.kept(&to) {
                    let gate = gate(&self.context, &kept.desired);
                    if gate != Some(why) {
                        self.advance(Event::Gate(gate), None, |_| {});
                        self.begin_work();
                    }
                }
            }
            Phase::Applying { to, back, .. } => {
                self.work.apply((context, self.fetcher.clone()), to, back, false, self.send.clone());
            }
            Phase::Probing { to, back, .. } => {
                self.work.probe((context, self.fetcher.clone()), to, back, self.send.clone());
            }
            Phase::RollingBack { failed, to, .. } => {
                self.work.apply((context, self.fetcher.clone()), to, Some(failed), true, self.send.clone());
            }
            Phase::Empty | Phase::Steady { .. } | Phase::Stalled { .. } => {}
        }
    }

    /// A newer revision came while an older one is on its way: get it ready
    /// beside, then let it take over.
    fn prepare_aside(&mut self, state: &State, wanted: Revision) {
        if self.side.is_running() || self.pending.is_some() || self.side_retry_at.is_some_and(|at| Instant::now() < at)
        {
            return;
        }
        tracing::info!(revision = %wanted, phase = ?state.phase.name(), "a newer revision is prepared beside");
        let running = match &state.phase {
            Phase::Applying { back, .. } | Phase::Probing { back, .. } => back.clone(),
            Phase::RollingBack { to, .. } => Some(to.clone()),
            _ => None,
        };
        let running = running.filter(|back| state.good.as_ref() == Some(back));
        self.side_target = Some(wanted.clone());
        self.side.prepare(Rc::clone(&self.context), self.fetcher.clone(), wanted, running, self.send.clone());
    }

    /// Forgets waits: an operator wants it now.
    pub(crate) fn now(&mut self) {
        self.failures = 0;
        self.waits = 0;
        self.retry_at = None;
        self.side_retry_at = None;
        self.gate_at = None;
    }

    pub(crate) fn say(&mut self, revision: Option<&Revision>, event: &str, message: &str) {
        let said = Said {
            revision: revision.map(|revision| revision.id.clone()),
            event: event.to_owned(),
            message: message.to_owned(),
        };
        self.uplink.report(ReportBody::Event(said), true);
    }

    pub(crate) fn status(&self) -> Status {
        let state = self.context.state();
        let hold = match &state.phase {
            Phase::Held { why, .. } => Some(*why),
            _ => None,
        };
        match hold.or(state.suspended.as_ref().map(|_| Hold::Suspended)) {
            Some(Hold::Suspended) if hold.is_none() => {
                let message = "an operator suspended the device; new revisions wait\nhint: `burgee-agent resume`";
                self.context.set("Held", true, "Suspended", message.to_owned());
            }
            Some(why) => {
                let (reason, message) = explain(why);
                self.context.set("Held", true, reason, message.to_owned());
            }
            None => self.context.clear("Held"),
        }
        let (mqtt, hub) = self.uplink.links();
        if self.uplink.dropped() > 0 {
            let message = format!("{} reports were dropped: the spool was full", self.uplink.dropped());
            self.context.set("ReportsKept", false, "SpoolFull", message);
        }
        match self.uplink.twin() {
            Some(since) => {
                let message = format!(
                    "another agent reports with this device's key since {since}: the device, or its store, was copied\nhint: on the copy, stop the agent and run `burgee-agent enroll --new-identity`"
                );
                self.context.set("Unique", false, "KeyInUseTwice", message);
            }
            None => self.context.clear("Unique"),
        }
        match self.uplink.unenrolled() {
            Some(missing) => self.context.set("Enrolled", false, missing.reason, missing.message),
            None => self.context.clear("Enrolled"),
        }
        status::status(&self.context, Link { git: self.polling.link(), mqtt, hub })
    }

    fn deadline(&self) -> Instant {
        let waits = [self.retry_at, self.side_retry_at, self.gate_at, Some(self.polling.at()), Some(self.repeat_at)];
        let now = Instant::now();
        let soonest = waits.into_iter().chain(self.renewal.deadlines()).flatten().filter(|at| *at > now).min();
        // The longest pause keeps the watchdog fed.
        soonest.unwrap_or(now + Duration::from_secs(10)).min(now + Duration::from_secs(10))
    }

    /// Whether `run --once` has nothing left to wait for.
    fn is_over(&self) -> bool {
        let state = self.context.state();
        if !self.polling.has_answered() || self.pending.is_some() || wanted(&state).is_some() {
            return false;
        }
        match state.phase {
            Phase::Steady { .. } => self.context.is_observed(),
            Phase::Stalled { .. } | Phase::Held { .. } | Phase::Empty => true,
            // Nothing to go back to: it would be tried for ever.
            Phase::Applying { back: None, .. } if self.outcome.unhealthy => self.retry_at.is_some(),
            Phase::Applying { .. } | Phase::RollingBack { .. } | Phase::Preparing { .. } => {
                self.retry_at.is_some() && self.failures.max(self.waits) > 3
            }
            Phase::Probing { .. } => false,
        }
    }

    async fn stop(&mut self) {
        tracing::info!("stopping");
        self.work.stop();
        // A step that is being carried out comes to its end; it could be
        // killed as well, the journal knows.
        let _ = tokio::time::timeout(Duration::from_secs(20), self.context.hand.lock()).await;
    }

    /// The watch compares everything once more.
    pub(crate) fn look_again(&self) {
        self.context.compare_now.set(true);
        self.wake.notify_one();
    }

    pub(crate) fn is_mqtt_up(&self) -> bool {
        self.uplink.links().0 == LinkState::Up
    }
}

/// The newest accepted revision, where the device should move and may.
fn wanted(state: &State) -> Option<Revision> {
    let accepted = &state.accepted.as_ref()?.revision;
    let blocked = state.blocked.iter().any(|blocked| blocked.revision == *accepted);
    let stalled = matches!(&state.phase, Phase::Stalled { .. });
    let there = !stalled && state.phase.target().or(state.phase.at()) == Some(accepted);
    let failed = matches!(&state.phase, Phase::Stalled { failed, .. } if failed == accepted);
    (!blocked && !there && !failed).then(|| accepted.clone())
}

/// Phases in which a newer revision that is prepared takes over.
pub(super) fn may_be_superseded(phase: &Phase) -> bool {
    matches!(phase, Phase::Applying { .. } | Phase::Probing { .. } | Phase::RollingBack { asked: false, .. })
}
