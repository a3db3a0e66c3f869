//! Waking up: what the journal, and a crash, say of the time before.

use super::context::Parts;
use super::core::Core;
use super::record::{block, note};
use super::tally::add;
use crate::phase::{Event, Phase};
use crate::ports::uplink::Uplink;

impl<P: Parts, U: Uplink> Core<P, U> {
    /// Counts the boot. A revision that takes the device down again and again
    /// has failed, and is blocked like any other.
    pub(super) fn wake_up(&mut self) {
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

    /// Why the device stalled is journalled with what is blocked: it is said
    /// after a restart, too.
    pub(super) fn remember_failure(&self) {
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

    /// Says what ended the agent before.
    pub(super) fn say_crash(&mut self) {
        let Some(crash) = self.context.crashed.borrow().clone() else { return };
        let times = if crash.in_a_row > 1 { format!(" ({} times in a row)", crash.in_a_row) } else { String::new() };
        let message = format!("the agent crashed at {}: {}{times}", crash.place, crash.cause);
        tracing::error!(
            place = crash.place,
            cause = crash.cause,
            in_a_row = crash.in_a_row,
            "the agent crashed before"
        );
        let hint = "it holds what runs and fetches again after a pause; please report it with its log";
        self.context.set("Crashed", true, "Panic", format!("{message}\nhint: {hint}"));
        self.say(None, "crashed", &message);
    }

    /// At rest, and the host answered: whatever crashed it has passed.
    pub(super) fn forget_crash(&self) {
        let resting = matches!(self.context.state().phase, Phase::Steady { .. } | Phase::Stalled { .. });
        if resting && self.polling.has_answered() && self.context.crashed.borrow_mut().take().is_some() {
            crate::crash::forget(&self.context.store);
            self.context.clear("Crashed");
        }
    }
}
