//! What the end of a work means: the phase it leads to, what is blocked, what
//! is said, and when it is tried again.

use fleet::revision::Revision;
use fleet::wire::status::PhaseName;
use tokio::time::Instant;

use super::apply::Failure;
use super::context::Parts;
use super::core::{Core, GATE, Pending, RETRY, may_be_superseded};
use super::gate::gate;
use super::prepare::Prepared;
use super::record::{block, note};
use super::tally::add;
use super::work::Done;
use crate::phase::{Event, Phase};
use crate::ports::journal::Kept;
use crate::ports::uplink::Uplink;

impl<P: Parts, U: Uplink> Core<P, U> {
    pub(super) fn done(&mut self, number: u64, done: Done) {
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
                // With nothing to go back to, the tries are counted until one is healthy.
                if !matches!(self.context.state().phase, Phase::Applying { back: None, .. }) {
                    self.failures = 0;
                }
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
            Done::Lost => {
                self.failures += 1;
                self.later();
            }
        }
    }

    pub(super) fn prepared(&mut self, prepared: Prepared) {
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
            Prepared::Refused(failure, digest) if !self.may_come(&failure) => self.refuse(&failure, digest),
            Prepared::Later(failure) | Prepared::Refused(failure, _) => {
                self.failures += 1;
                let message = format!("while preparing: {}", failure.message);
                tracing::warn!(reason = failure.reason, cause = failure.message, "cannot prepare; trying again later");
                self.context.set("Prepared", false, failure.reason, message);
                self.later();
            }
        }
    }

    /// With nothing to go back to, what this device lacks may be on its way (a
    /// definition that k3s itself installs): it is tried again.
    fn may_come(&self, failure: &Failure) -> bool {
        failure.reason == "Refused" && self.context.state().good.is_none()
    }

    /// What waiting can't mend blocks the revision, the device untouched.
    pub(super) fn refuse(&mut self, failure: &Failure, digest: Option<fleet::digest::Digest>) {
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

    pub(super) fn side_done(&mut self, done: Done) {
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
            Prepared::Refused(failure, digest) if !self.may_come(&failure) => {
                let Some(to) = self.side_target.take() else { return };
                let (now, message) = (self.context.now(), format!("while preparing {to}: {}", failure.message));
                let _ = self.context.commit(None, |state| {
                    block(state, &to, digest, failure.reason, &message, now);
                });
                self.say(Some(&to), "failed", &message);
            }
            Prepared::Later(failure) | Prepared::Refused(failure, _) => {
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

    pub(super) fn applied(&mut self) {
        let state = self.context.state();
        let now = self.context.now();
        match state.phase.clone() {
            Phase::RollingBack { failed, to, asked } => {
                let message = if asked { "an operator went back" } else { "went back by itself" };
                let moved = self.advance(Event::Applied, None, |state| {
                    state.touched.clear();
                    state.settle_adopted();
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
                let moved = self.advance(Event::Applied, None, |state| note(state, now, &to, "applied", ""));
                if !moved {
                    return;
                }
                // What it waited for came.
                self.context.clear("Applied");
            }
            _ => {}
        }
    }

    pub(super) fn healthy(&mut self) {
        let Phase::Probing { to, back, .. } = self.context.state().phase else { return };
        let now = self.context.now();
        self.failures = 0;
        let moved = self.advance(Event::Healthy, None, |state| {
            if state.good.as_ref() != Some(&to) {
                state.before = state.good.take().or(back);
            }
            state.good = Some(to.clone());
            state.touched.clear();
            state.settle_adopted();
            note(state, now, &to, "steady", "applied and healthy");
        });
        if !moved {
            return;
        }
        self.say(Some(&to), "steady", "applied and healthy");
    }

    pub(super) fn apply_failed(&mut self, failure: Failure) {
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
    pub(super) fn failed(&mut self, failure: &Failure, event: Event) {
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

    pub(super) fn later(&mut self) {
        let delay = RETRY.delay(self.failures.max(self.waits).max(1), self.context.seed);
        self.retry_at = Some(Instant::now() + delay);
    }

    /// What a repository with rollouts means to a device without a hub.
    pub(super) fn say_rollout(&self, kept: &Kept) {
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
}
