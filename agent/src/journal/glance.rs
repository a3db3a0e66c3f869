//! What the journal says, read beside a running agent: from the second copy,
//! without its lock, writing nothing. For looking, never for acting: it may be
//! a commit old.

use std::fs;
use std::path::Path;

use fleet::digest::Digest;

use super::record::{read_kept, read_slot};
use crate::ports::journal::{Kept, State};

/// See the module.
#[derive(Clone, Debug)]
pub struct Glance {
    pub state: State,
    /// Kept states, with those of their files that could be read.
    pub kept: Vec<(Kept, Vec<Vec<u8>>)>,
}

/// The newest whole slot; `None`: there is none, or it can't be read.
#[must_use]
pub fn glance(store: &Path) -> Option<Glance> {
    let copy = store.join("copy");
    let roots = (0..2).filter_map(|slot| read_slot(&fs::read(copy.join(format!("slot-{slot}"))).ok()?).ok());
    let root = roots.max_by_key(|root| root.generation)?;
    let object = |digest: &Digest| fs::read(copy.join("objects").join(digest.to_string())).ok();
    let kept = root.kept.iter().filter_map(|at| {
        let (kept, blobs) = read_kept(&object(&at.object)?)?;
        Some((kept, blobs.iter().filter_map(object).collect()))
    });
    Some(Glance { kept: kept.collect(), state: root.state })
}

#[cfg(test)]
mod tests {
    use super::glance;
    use crate::journal::SledJournal;
    use crate::ports::journal::Journal as _;

    #[test]
    fn it_looks_beside_a_running_agent() {
        let store = tempfile::tempdir().unwrap();
        assert!(glance(store.path()).is_none());
        let mut journal = SledJournal::open(store.path()).unwrap();
        let mut state = journal.state().clone();
        state.epoch = 7;
        journal.commit(state, None).unwrap();
        assert_eq!(glance(store.path()).unwrap().state.epoch, 7, "while the journal is open");
        assert!(glance(store.path()).unwrap().kept.is_empty());
    }
}
