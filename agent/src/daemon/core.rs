//! The loop. Every source of change arrives as one [`Input`]; what it means
//! for the phase is [`Phase::next`]'s to say; the phase is journalled before
//! its work begins; and work follows from the phase alone.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet::desired::Blobs;
use fleet::revision::{CommitId, Revision};
use fleet::wire::report::{Event as Said, ReportBody};
use fleet::wire::status::{Link, LinkState, PhaseName, Status};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::apply::Failure;
use super::context::{Context, Parts};
use super::fetch::Fetcher;
use super::gate::{explain, gate};
use super::polling::Polling;
use super::prepare::Prepared;
use super::status;
use super::tally::add;
use super::work::{Done, Work};
use crate::metrics::Snapshot;
use crate::phase::{Event, Hold, Phase};
use crate::ports::control;
use crate::ports::journal::{Blocked, HistoryEntry, Kept, State};
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
    /// The watch looked at the device.
    Observed,
    /// Something to report that changes no phase.
    Say(ReportBody),
    /// A deadline passed.
    Timer,
    /// SIGTERM.
    Stop,
}

const RETRY: Backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(300) };
/// How often a shut gate is tried.
const GATE: Duration = Duration::from_secs(10);
/// A status that did not change is repeated, so that the hub can tell silence
/// from death.
const REPEAT: Duration = Duration::from_secs(1800);
const BLOCKED: usize = 20;
const HISTORY: usize = 100;

/// See the module.
pub(crate) struct Core<P: Parts, U: Uplink> {
    pub(crate) context: Rc<Context<P>>,
    pub(crate) uplink: U,
    pub(crate) fetcher: Fetcher,
    inbox: mpsc::UnboundedReceiver<Input>,
    pub(crate) send: mpsc::UnboundedSender<Input>,
    wake: Rc<Notify>,
    pub(crate) work: Work,
    /// Prepares a newer revision while an older one is on its way.
    side: Work,
    /// What waits for the running work to come to a stop.
    pub(crate) pending: Option<Pending>,
    failures: u32,
    /// Waits for an engine or a disk: nobody's failures.
    waits: u32,
    retry_at: Option<Instant>,
    /// What is prepared beside.
    side_target: Option<Revision>,
    side_failures: u32,
    side_retry_at: Option<Instant>,
    gate_at: Option<Instant>,
    pub(crate) polling: Polling,
    /// Who waits for the fetch to end.
    pub(crate) waiting: Vec<Reply>,
    /// The next fetch anchors anew, at or above this.
    pub(crate) anchor: Option<CommitId>,
    /// What the fetch under way anchors at.
    pub(crate) anchoring: Option<CommitId>,
    published: watch::Sender<Arc<Snapshot>>,
    repeat_at: Instant,
    /// `run --once`.
    once: bool,
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
}

impl<P: Parts, U: Uplink> Core<P, U> {
    #[expect(clippy::too_many_arguments, reason = "the one place where the parts come together")]
    pub(crate) fn new(
        context: Rc<Context<P>>,
        uplink: U,
        fetcher: Fetcher,
        (send, inbox): (mpsc::UnboundedSender<Input>, mpsc::UnboundedReceiver<Input>),
        wake: Rc<Notify>,
        polling: Polling,
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
            polling,
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
        self.wake_up();
        self.remember_failure();
        loop {
            let status = self.settle();
            beat(&status);
            if self.once && self.is_over() {
                return (status, self.outcome);
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
                Input::Say(body) => self.uplink.report(body, true),
                Input::Observed | Input::Timer => {}
            }
        }
    }

    /// Counts the boot. A revision that takes the device down again and again
    /// has failed, and is blocked like any other.
    fn wake_up(&mut self) {
        let boot = self.context.boot.clone();
        let phase = self.context.state().phase;
        let next = phase.clone().next(Event::Started(boot.clone()), &boot);
        let gave_up = matches!(next, Phase::RollingBack { .. }) && !matches!(phase, Phase::RollingBack { .. });
        let (Some(to), true) = (phase.target().cloned(), gave_up) else {
            self.advance(Event::Started(boot), None, |_| {});
            return;
        };
        let message = format!("while applying {to}: the device went down again and again");
        tracing::error!(revision = %to, "the revision took the device down too often");
        let (now, digest) = (self.context.now(), self.digest_of(&to));
        self.outcome.unhealthy = true;
        add(&self.context.tally.failed);
        self.context.set("Applied", false, "TookDeviceDown", message.clone());
        self.advance(Event::Started(boot), None, |state| {
            block(state, &to, digest, "TookDeviceDown", &message, now);
            note(state, now, &to, "failed", &message);
        });
        self.say(Some(&to), "failed", &message);
    }

    fn digest_of(&self, revision: &Revision) -> Option<fleet::digest::Digest> {
        self.context.kept(revision).map(|(kept, _)| kept.desired.digest)
    }

    /// Why the device stalled is journalled with what is blocked: it is said
    /// after a restart, too.
    fn remember_failure(&self) {
        let state = self.context.state();
        let Phase::Stalled { failed, .. } = &state.phase else { return };
        let Some(blocked) = state.blocked.iter().find(|blocked| blocked.revision == *failed) else { return };
        let kind = match blocked.message.split_whitespace().nth(1) {
            Some("preparing") => "Prepared",
            Some("probing") => "Healthy",
            _ => "Applied",
        };
        self.context.set(kind, false, &blocked.reason, blocked.message.clone());
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
        if self.polling.is_idle() {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(Ok(control::Answer::Done("fetched".to_owned())));
            }
        }
        let status = self.status();
        let changed = self.published.borrow().status != status;
        if changed || Instant::now() >= self.repeat_at {
            let counters = self.context.tally.counters(self.uplink.dropped());
            self.published.send_replace(Arc::new(Snapshot { status: status.clone(), counters }));
            self.uplink.report(ReportBody::Status(Box::new(status.clone())), false);
            self.repeat_at = Instant::now() + REPEAT;
        }
        status
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
            Phase::Applying { to, back, .. } => self.work.apply(context, to, back, false, self.send.clone()),
            Phase::Probing { to, back, .. } => self.work.probe(context, to, back, self.send.clone()),
            Phase::RollingBack { failed, to, .. } => {
                self.work.apply(context, to, Some(failed), true, self.send.clone());
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

    fn done(&mut self, number: u64, done: Done) {
        if self.side.ended(number) {
            return self.side_done(done);
        }
        if !self.work.ended(number) {
            return; // Of a phase that is over.
        }
        match self.pending.take() {
            Some(Pending::Supersede(kept, blobs)) => {
                let to = kept.revision.clone();
                // Where the work brought us doesn't matter but for the phase.
                if may_be_superseded(&self.context.state().phase) {
                    self.advance(Event::Superseded(to), Some((&kept, &blobs)), |_| {});
                    return;
                }
            }
            Some(Pending::Rollback(to)) => {
                self.begin_rollback(to);
                return;
            }
            None => {}
        }
        match done {
            Done::Prepared(prepared) => self.prepared(prepared),
            Done::Applied => {
                self.failures = 0;
                self.applied();
            }
            Done::Interrupted => {}
            Done::ApplyFailed(failure) => self.apply_failed(failure),
            Done::Healthy => self.healthy(),
            Done::Unhealthy(unhealthy) => {
                let failure = Failure {
                    policy: unhealthy.policy,
                    reason: "Unhealthy",
                    message: format!(
                        "app {app}: {}\nhint: see `burgee-agent logs {app}`; push a fix, or `burgee-agent retry`",
                        unhealthy.message,
                        app = unhealthy.app
                    ),
                    transient: false,
                    blameless: false,
                };
                self.failed(&failure, Event::Unhealthy(failure.policy));
            }
            Done::Lost(what) => {
                self.context.set("Restorable", false, "StateLost", format!("{what} is not in the journal"));
                self.later();
            }
        }
    }

    fn prepared(&mut self, prepared: Prepared) {
        match prepared {
            Prepared::Ready(kept, blobs) => {
                self.failures = 0;
                self.context.clear("Prepared");
                self.context.clear("Restorable");
                let gate = gate(&self.context, &kept.desired);
                self.say_rollout(&kept);
                self.advance(Event::Prepared(gate), Some((&kept, &blobs)), |_| {});
            }
            Prepared::Same(kept, blobs) => {
                self.failures = 0;
                self.context.clear("Prepared");
                let (to, now) = (kept.revision.clone(), self.context.now());
                self.say_rollout(&kept);
                let moved = self.advance(Event::SameDigest, Some((&kept, &blobs)), |state| {
                    state.good = Some(to.clone());
                    note(state, now, &to, "steady", "the same digest as what runs; nothing to do");
                });
                if !moved {
                    return;
                }
                self.say(Some(&to), "steady", "the same digest as what runs");
            }
            Prepared::Refused(failure, digest) => self.refuse(&failure, digest),
            Prepared::Later(failure) => {
                self.failures += 1;
                let message = format!("while preparing: {}", failure.message);
                tracing::warn!(reason = failure.reason, cause = failure.message, "cannot prepare; trying again later");
                self.context.set("Prepared", false, failure.reason, message);
                self.later();
            }
        }
    }

    /// What waiting can't mend blocks the revision, the device untouched.
    fn refuse(&mut self, failure: &Failure, digest: Option<fleet::digest::Digest>) {
        let Some(to) = self.context.state().phase.target().cloned() else { return };
        let now = self.context.now();
        let message = format!("while preparing {to}: {}", failure.message);
        tracing::error!(revision = %to, reason = failure.reason, cause = failure.message, "the revision is refused");
        self.context.set("Prepared", false, failure.reason, message.clone());
        self.outcome.unhealthy = true;
        let moved = self.advance(Event::Unpreparable, None, |state| {
            block(state, &to, digest, failure.reason, &message, now);
            note(state, now, &to, "failed", &message);
        });
        if !moved {
            return;
        }
        self.say(Some(&to), "failed", &message);
    }

    fn side_done(&mut self, done: Done) {
        let Done::Prepared(prepared) = done else { return };
        let phase = self.context.state().phase;
        if !may_be_superseded(&phase) || self.pending.is_some() {
            return; // The ordinary way takes it from here; an operator's word goes first.
        }
        match prepared {
            Prepared::Ready(kept, blobs) | Prepared::Same(kept, blobs) => {
                self.side_failures = 0;
                if let Some(why) = gate(&self.context, &kept.desired) {
                    tracing::info!(?why, "the newer revision waits until the older is done");
                    self.side_retry_at = Some(Instant::now() + GATE * 6);
                } else {
                    self.interrupt(Pending::Supersede(kept, blobs));
                }
            }
            Prepared::Refused(failure, digest) => {
                let Some(to) = self.side_target.take() else { return };
                let (now, message) = (self.context.now(), format!("while preparing {to}: {}", failure.message));
                let _ = self.context.commit(None, |state| {
                    block(state, &to, digest, failure.reason, &message, now);
                });
                self.say(Some(&to), "failed", &message);
            }
            Prepared::Later(failure) => {
                self.side_failures += 1;
                tracing::warn!(cause = failure.message, "cannot prepare the newer revision yet");
                let delay = RETRY.delay(self.side_failures, self.context.seed);
                self.side_retry_at = Some(Instant::now() + delay);
            }
        }
    }

    /// Lets the running work come to a stop, then does `pending`.
    pub(crate) fn interrupt(&mut self, pending: Pending) {
        self.pending = Some(pending);
        if !self.work.stop() {
            // Nothing runs (it waits to try again): at once.
            let number = self.work.number();
            self.work.mark(number);
            self.done(number, Done::Interrupted);
        }
    }

    fn applied(&mut self) {
        let state = self.context.state();
        let now = self.context.now();
        match state.phase.clone() {
            Phase::RollingBack { failed, to, asked } => {
                let message = if asked { "an operator went back" } else { "went back by itself" };
                let moved = self.advance(Event::Applied, None, |state| {
                    state.touched.clear();
                    if asked && state.good.as_ref() != Some(&to) {
                        state.good = Some(to.clone());
                        state.before = None;
                    }
                    note(state, now, &to, "rolled-back", &format!("{message} from {failed}"));
                });
                if !moved {
                    return;
                }
                add(&self.context.tally.rollbacks);
                self.context.clear("RolledBack");
                self.say(Some(&to), "rolled-back", &format!("{message} from {failed} to {to}"));
            }
            Phase::Applying { to, .. } => {
                self.advance(Event::Applied, None, |state| note(state, now, &to, "applied", ""));
            }
            _ => {}
        }
    }

    fn healthy(&mut self) {
        let Phase::Probing { to, back, .. } = self.context.state().phase else { return };
        let now = self.context.now();
        self.failures = 0;
        let moved = self.advance(Event::Healthy, None, |state| {
            if state.good.as_ref() != Some(&to) {
                state.before = state.good.take().or(back);
            }
            state.good = Some(to.clone());
            state.touched.clear();
            note(state, now, &to, "steady", "applied and healthy");
        });
        if !moved {
            return;
        }
        self.say(Some(&to), "steady", "applied and healthy");
    }

    fn apply_failed(&mut self, failure: Failure) {
        let rolling = matches!(self.context.state().phase, Phase::RollingBack { .. });
        self.failures += 1;
        // Where there is nothing to go back to, and on the way back, it is
        // tried for as long as it takes; and an engine that is away is
        // nobody's fault. A step gets a few chances.
        if failure.blameless && !rolling {
            self.failures -= 1;
            self.waits += 1;
        }
        if rolling || failure.blameless || (failure.transient && self.failures < 4) {
            let (kind, what) = if rolling { ("RolledBack", "rolling back") } else { ("Applied", "applying") };
            tracing::warn!(reason = failure.reason, cause = failure.message, what, "failed; trying again later");
            self.context.set(kind, false, failure.reason, format!("while {what}: {}", failure.message));
            self.later();
        } else {
            self.failed(&failure, Event::ApplyFailed(failure.policy));
        }
    }

    /// The revision that is on its way has failed.
    fn failed(&mut self, failure: &Failure, event: Event) {
        let state = self.context.state();
        let Some(to) = state.phase.target().cloned() else { return };
        let now = self.context.now();
        let doing = if state.phase.name() == PhaseName::Probing { "probing" } else { "applying" };
        let message = format!("while {doing} {to}: {}", failure.message);
        tracing::error!(revision = %to, reason = failure.reason, cause = failure.message, "the revision failed");
        let digest = self.digest_of(&to);
        let has_home =
            matches!(&state.phase, Phase::Applying { back: Some(_), .. } | Phase::Probing { back: Some(_), .. });
        let blocks = has_home && failure.policy == fleet::desired::OnFailure::Rollback;
        self.outcome.unhealthy = true;
        add(&self.context.tally.failed);
        let kind = if doing == "probing" { "Healthy" } else { "Applied" };
        self.context.set(kind, false, failure.reason, message.clone());
        let moved = self.advance(event, None, |state| {
            if blocks {
                block(state, &to, digest, failure.reason, &message, now);
            }
            note(state, now, &to, "failed", &message);
        });
        if !moved {
            return;
        }
        self.say(Some(&to), "failed", &message);
        if !has_home {
            self.failures += 1;
            self.later();
        }
    }

    /// Abandons what is under way and goes back to `to`.
    pub(crate) fn begin_rollback(&mut self, to: Revision) -> bool {
        let now = self.context.now();
        self.failures = 0;
        let accepted = self.context.state().accepted.map(|accepted| accepted.revision);
        let digest = accepted.as_ref().and_then(|accepted| self.digest_of(accepted));
        self.advance(Event::Rollback(to.clone()), None, |state| {
            if let Some(accepted) = accepted.filter(|accepted| *accepted != to) {
                block(state, &accepted, digest, "RolledBack", "an operator went back behind it", now);
            }
            note(state, now, &to, "rollback", "an operator asked for it");
        })
    }

    fn later(&mut self) {
        let delay = RETRY.delay(self.failures.max(self.waits).max(1), self.context.seed);
        self.retry_at = Some(Instant::now() + delay);
    }

    /// Forgets waits: an operator wants it now.
    pub(crate) fn now(&mut self) {
        self.failures = 0;
        self.waits = 0;
        self.retry_at = None;
        self.side_retry_at = None;
        self.gate_at = None;
    }

    /// What a repository with rollouts means to a device without a hub.
    fn say_rollout(&self, kept: &Kept) {
        if kept.desired.has_rollout {
            let (reason, message) = if self.context.has_hub {
                ("NoReleases", "a rollout names this device, but this build knows no releases: it follows the branch")
            } else {
                ("NoHub", "a rollout names this device, but agent.toml has no [hub]: it follows the branch")
            };
            self.context.set("FollowsBranch", true, reason, message.to_owned());
        } else {
            self.context.clear("FollowsBranch");
        }
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
        status::status(&self.context, Link { git: self.polling.link(), mqtt, hub })
    }

    fn deadline(&self) -> Instant {
        let waits = [self.retry_at, self.side_retry_at, self.gate_at, Some(self.polling.at()), Some(self.repeat_at)];
        let now = Instant::now();
        let soonest = waits.into_iter().flatten().filter(|at| *at > now).min();
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
fn may_be_superseded(phase: &Phase) -> bool {
    matches!(phase, Phase::Applying { .. } | Phase::Probing { .. } | Phase::RollingBack { asked: false, .. })
}

/// Adds to the blocked revisions, newest last, bounded.
fn block(
    state: &mut State,
    revision: &Revision,
    digest: Option<fleet::digest::Digest>,
    reason: &str,
    message: &str,
    since: jiff::Timestamp,
) {
    // What it rendered to stays known, whoever blocks it again.
    let known = state.blocked.iter().find(|old| old.revision == *revision).and_then(|old| old.digest);
    state.blocked.retain(|old| old.revision != *revision);
    state.blocked.push(Blocked {
        revision: revision.clone(),
        digest: digest.or(known),
        reason: reason.to_owned(),
        message: message.to_owned(),
        since,
    });
    let excess = state.blocked.len().saturating_sub(BLOCKED);
    state.blocked.drain(..excess);
}

/// Adds to the history, oldest first, bounded.
pub(crate) fn note(state: &mut State, at: jiff::Timestamp, revision: &Revision, event: &str, message: &str) {
    state.history.push(HistoryEntry {
        at,
        revision: revision.id.clone(),
        event: event.to_owned(),
        message: message.to_owned(),
    });
    let excess = state.history.len().saturating_sub(HISTORY);
    state.history.drain(..excess);
}
