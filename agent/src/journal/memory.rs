//! A journal in memory, for tests of what stands on the `Journal` port. It
//! passes the same contract as the real one, and can be told to fail.

use std::collections::{BTreeMap, BTreeSet};

use fleet::desired::Blobs;
use fleet::digest::Digest;
use fleet::revision::Revision;

use super::record::named;
use crate::ports::journal::{Journal, JournalError, Kept, State};

/// Loses everything when it is dropped.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    state: State,
    kept: BTreeMap<Digest, (Kept, Blobs)>,
    /// Commits that changed something.
    pub commits: u64,
    /// While set, commits fail as on a full disk.
    pub full: bool,
}

impl Journal for MemoryJournal {
    fn state(&self) -> &State {
        &self.state
    }

    fn commit(&mut self, state: State, keep: Option<(&Kept, &Blobs)>) -> Result<(), JournalError> {
        let identities: BTreeSet<Digest> = named(&state).iter().map(|revision| revision.identity).collect();
        let fresh = keep.filter(|(kept, _)| {
            let identity = &kept.revision.identity;
            identities.contains(identity) && self.kept.get(identity).is_none_or(|(old, _)| old != *kept)
        });
        if self.state == state && fresh.is_none() {
            return Ok(());
        }
        if self.full {
            return Err(JournalError::Full { path: "memory".to_owned() });
        }
        if let Some((kept, blobs)) = fresh {
            let mut needed = Blobs::new();
            for digest in kept.blobs() {
                let old = || self.kept.values().find_map(|(_, blobs)| blobs.get(&digest));
                let blob = blobs.get(&digest).or_else(old).cloned();
                let missing = || JournalError::Damaged { what: format!("object {}", digest.short()) };
                needed.insert(digest, blob.ok_or_else(missing)?);
            }
            self.kept.insert(kept.revision.identity, (kept.clone(), needed));
        }
        self.kept.retain(|identity, _| identities.contains(identity));
        self.state = state;
        self.commits += 1;
        Ok(())
    }

    fn kept(&self, revision: &Revision) -> Result<Option<(Kept, Blobs)>, JournalError> {
        Ok(self.kept.get(&revision.identity).cloned())
    }

    fn notice(&self) -> Option<String> {
        None
    }
}
