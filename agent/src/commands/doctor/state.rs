//! What the device knows of itself: the sizes of its state, its conditions,
//! and when all was well. By the agent that runs, else by the journal.

use std::fs;
use std::path::Path;

use fleet::revision::CommitId;
use fleet::wire::status::{Condition, Status};

use super::{Finding, Grade, found};
use crate::journal::glance::{Glance, glance};
use crate::ports::journal::HistoryEntry;
use crate::uplink::Bounds;

/// See the module.
#[derive(Default)]
pub(super) struct Known {
    pub(super) status: Option<Status>,
    pub(super) history: Vec<HistoryEntry>,
    pub(super) journal: Option<Glance>,
}

impl Known {
    pub(super) fn by_journal(store: &Path) -> Self {
        let journal = glance(store);
        let history = journal.as_ref().map(|journal| journal.state.history.clone()).unwrap_or_default();
        Self { status: None, history, journal }
    }

    /// The accepted head, for judging the next.
    pub(super) fn accepted(&self) -> Option<&CommitId> {
        Some(&self.journal.as_ref()?.state.accepted.as_ref()?.revision.id)
    }

    fn last_good(&self) -> Option<CommitId> {
        let by_journal = || Some(self.journal.as_ref()?.state.good.as_ref()?.id.clone());
        self.status.as_ref().map_or_else(by_journal, |status| status.last_good.clone())
    }
}

/// Conditions that speak of something that is, and should not be.
const WORRIES: [&str; 5] = ["DriftFighting", "FollowsBranch", "Held", "PruneLimited", "Drifted"];

/// A line for each condition that is in the way.
pub(super) fn conditions(known: &Known) -> Vec<Finding> {
    let all = known.status.iter().flat_map(|status| &status.conditions);
    let worries = all.filter(|Condition { kind, status, .. }| *status == WORRIES.contains(&kind.as_str()));
    worries
        .map(|condition| {
            let (message, hint) = match condition.message.split_once("\nhint: ") {
                Some((message, hint)) => (message, Some(hint.to_owned())),
                None => (condition.message.as_str(), None),
            };
            let since = condition.since.strftime("%Y-%m-%d %H:%M:%SZ");
            let text = format!("{} ({}) since {since}: {message}", condition.kind, condition.reason);
            found("condition", Grade::Warn, text).maybe(hint)
        })
        .collect()
}

/// When the device was last where Git wants it, and well.
pub(super) fn last_good(known: &Known, store: &Path) -> Finding {
    let Some(good) = known.last_good() else {
        if known.status.is_none() && known.journal.is_none() {
            // A folder that can't be looked into is no sign of a new device.
            let copy = fs::metadata(store.join("copy"));
            if copy.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                return found("last good", Grade::Ok, "none yet: no agent has run here");
            }
            return found("last good", Grade::Warn, "not known: no agent answers, and the journal can't be read")
                .hint("run this as the agent's user");
        }
        return found("last good", Grade::Warn, "none: no revision has been healthy on this device yet")
            .hint("see burgee-agent status, and burgee-agent history");
    };
    let at = known.history.iter().rev().find(|entry| entry.revision == good && entry.event == "steady");
    let when = at.map(|entry| entry.at.strftime(", healthy since %Y-%m-%d %H:%M:%SZ").to_string());
    found("last good", Grade::Ok, format!("{}{}", good.short(), when.unwrap_or_default()))
}

/// Folders of the store, in the order in which they are shown.
const FOLDERS: [&str; 6] = ["db", "copy", "git", "apps", "files", "spool"];

/// How large the state is; nothing before the first start.
pub(super) fn sizes(store: &Path) -> Option<Finding> {
    if !store.is_dir() {
        return None;
    }
    let mut parts = Vec::new();
    for folder in FOLDERS {
        let (files, bytes) = weigh(&store.join(folder));
        if files > 0 {
            parts.push(format!("{folder} {} in {files}", human(bytes)));
        }
    }
    let (_, whole) = weigh(store);
    let spooled = weigh(&store.join("spool")).0;
    let message = format!("{} in all: {}", human(whole), parts.join(", "));
    Some(if spooled * 10 > Bounds::default().reports * 8 {
        found("state", Grade::Warn, message)
            .hint("reports wait for the hub, and the oldest are dropped soon: bring the link back")
    } else {
        found("state", Grade::Ok, message)
    })
}

/// Files and bytes below a folder; links are not followed.
pub(super) fn weigh(path: &Path) -> (usize, u64) {
    let Ok(entries) = fs::read_dir(path) else { return (0, 0) };
    let mut sum = (0, 0);
    for entry in entries.flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let (files, bytes) = if metadata.is_dir() { weigh(&entry.path()) } else { (1, metadata.len()) };
        sum = (sum.0 + files, sum.1 + bytes);
    }
    sum
}

pub(super) fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::{Grade, Known, human, last_good, sizes};

    #[test]
    fn state_is_weighed() {
        let store = tempfile::tempdir().unwrap();
        assert!(sizes(&store.path().join("none")).is_none());
        std::fs::create_dir_all(store.path().join("git/objects")).unwrap();
        std::fs::write(store.path().join("git/objects/a"), [0; 2048]).unwrap();
        std::os::unix::fs::symlink("/", store.path().join("git/root")).unwrap();
        let found = sizes(store.path()).unwrap();
        assert!(found.message.contains("git 2 KiB in 2"), "{found:?}");
        std::fs::create_dir(store.path().join("spool")).unwrap();
        for report in 0..801 {
            std::fs::write(store.path().join(format!("spool/{report}")), "").unwrap();
        }
        assert_eq!(sizes(store.path()).unwrap().result, Grade::Warn);
        assert_eq!((human(5), human(5000), human(50 << 20)), ("5 B".into(), "4 KiB".into(), "50 MiB".into()));
        assert_eq!(last_good(&Known::default(), store.path()).result, Grade::Ok, "a new device");
        std::fs::create_dir(store.path().join("copy")).unwrap();
        assert!(last_good(&Known::default(), store.path()).message.contains("not known"));
    }
}
