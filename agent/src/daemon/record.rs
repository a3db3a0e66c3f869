//! What the journal remembers of revisions: the blocked ones and the history,
//! both bounded.

use fleet::revision::Revision;

use crate::ports::journal::{Blocked, HistoryEntry, State};

const BLOCKED: usize = 20;
const HISTORY: usize = 100;

/// Adds to the blocked revisions, newest last, bounded.
pub(crate) fn block(
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
