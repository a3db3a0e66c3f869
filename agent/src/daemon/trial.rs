//! The trial of an agent that was downloaded: it has to look at what runs and to
//! reach the fleet repository in time, or the one before comes back
//! (docs/decisions/0027).

use std::path::Path;

use fleet::digest::Digest;
use fleet::wire::status::LinkState;
use tokio::time::Instant;

use super::context::Parts;
use super::core::Core;
use super::record::note;
use super::renew::{CONDITION, VERSION};
use crate::phase::Event;
use crate::ports::journal::State;
use crate::ports::uplink::Uplink;
use crate::update::start::passed;

impl<P: Parts, U: Uplink> Core<P, U> {
    /// Whether this agent has proved itself, or is to give up.
    pub(super) fn on_trial(&mut self, until: Instant) -> bool {
        let state = self.context.state();
        let reached = self.polling.has_answered() && self.polling.link() == LinkState::Up;
        let seen = state.phase.at().is_none() || self.context.is_observed();
        if reached && seen {
            self.pass(&state);
            return false;
        }
        let lacks = match (reached, seen) {
            (false, _) => "it has not reached the fleet repository yet",
            (_, false) => "it has not seen yet what runs",
            (true, true) => "",
        };
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        if left > 0 {
            self.context.set(CONDITION, false, "OnTrial", format!("agent {VERSION} is on trial: {lacks}"));
            return false;
        }
        tracing::error!(version = VERSION, lacks, "this agent did not become healthy in time; going back");
        let limit = self.renewal.settings.limit.as_secs();
        // Perhaps nobody could: it is tried again, and blocked after the third time.
        self.remember(|record| {
            if let Some(trial) = record.trial.take() {
                let message = format!("agent {} was not healthy within {limit} s: {lacks}", trial.program.version);
                record.fail(trial.program, "NotInTime", message, false);
            }
        })
    }

    fn pass(&mut self, state: &State) {
        let mut program = None;
        let folder = self.renewal.folder.clone();
        let recorded = self.remember(|record| {
            let Some(trial) = record.trial.take() else { return };
            let old = record.current.replace(trial.program.clone());
            record.failed.retain(|failed| failed.program != trial.program);
            // The one before stays until the next; older ones go.
            let keep = [Some(trial.program.sha256), old.map(|old| old.sha256)];
            sweep(&folder, &keep);
            program = Some(trial.program);
        });
        if !recorded {
            // Without the record the next start would count against it: tried again.
            return;
        }
        passed();
        self.renewal.trial_until = None;
        self.context.clear(CONDITION);
        let Some(program) = program else { return };
        tracing::info!(version = program.version, "this agent is healthy and stays");
        let now = self.context.now();
        let accepted = state.accepted.as_ref().map(|accepted| accepted.revision.clone());
        let unread = accepted.clone().filter(|accepted| {
            state.blocked.iter().any(|blocked| blocked.revision == *accepted && blocked.reason == "NotRendered")
        });
        let _ = self.context.commit(None, |state| {
            if let Some(accepted) = &accepted {
                note(state, now, accepted, "agent-updated", &format!("agent {} is healthy", program.version));
            }
            // What the old one could not read, this one may.
            state.blocked.retain(|blocked| Some(&blocked.revision) != unread.as_ref());
        });
        if let Some(unread) = unread {
            self.advance(Event::Target(unread), None, |_| {});
        }
        self.say(accepted.as_ref(), "agent-updated", &format!("agent {} is healthy", program.version));
    }
}

/// Removes the programs that nothing names.
fn sweep(folder: &Path, keep: &[Option<Digest>]) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(digest) = name.parse::<Digest>() else { continue };
        if !keep.contains(&Some(digest)) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
}
