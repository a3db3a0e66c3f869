//! What a crash leaves for the next start.
//!
//! What is shipped ends with a panic, and systemd starts it again
//! (docs/decisions/0021). So that a host that can crash the agent can't keep
//! it down, and a revision that does is a failed one, each crash is counted
//! in a file of the store until the agent has come to rest again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

static STORE: OnceLock<PathBuf> = OnceLock::new();

/// The last crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crash {
    /// Crashes since the agent was at rest, this one included.
    pub in_a_row: u32,
    /// File and line.
    pub place: String,
    pub cause: String,
}

/// From here on, [`note`] writes to this store.
pub fn remember_in(store: &Path) {
    // A process has one store; a second call could only come from a test.
    drop(STORE.set(store.to_owned()));
}

/// Notes a panic that ends the process; what can't be noted is lost.
pub fn note(place: &str, cause: &str) {
    let Some(store) = STORE.get() else { return };
    let in_a_row = last(store).map_or(0, |crash| crash.in_a_row).saturating_add(1);
    write(store, &Crash { in_a_row, place: place.to_owned(), cause: cause.chars().take(500).collect() });
}

/// The crash that nobody has forgotten yet.
#[must_use]
pub fn last(store: &Path) -> Option<Crash> {
    serde_json::from_slice(&fs::read(path(store)).ok()?).ok()
}

/// The agent is at rest again.
pub fn forget(store: &Path) {
    if let Err(error) = fs::remove_file(path(store)) {
        tracing::warn!(%error, "cannot forget the last crash");
    }
}

fn path(store: &Path) -> PathBuf {
    store.join("crash.json")
}

fn write(store: &Path, crash: &Crash) {
    // In a panic: nothing here may panic, and nobody is left to tell.
    let Ok(bytes) = serde_json::to_vec(crash) else { return };
    let fresh = store.join("crash.json.new");
    if fs::write(&fresh, bytes).is_ok() {
        drop(fs::rename(&fresh, path(store)));
    }
}

#[cfg(test)]
mod tests {
    use super::{Crash, forget, last, note, remember_in, write};

    #[test]
    fn crashes_are_counted_until_they_are_forgotten() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(last(store.path()), None);
        remember_in(store.path());
        note("src/x.rs:1:1", "no reason");
        note("src/y.rs:2:2", "still none");
        let want = Crash { in_a_row: 2, place: "src/y.rs:2:2".to_owned(), cause: "still none".to_owned() };
        assert_eq!(last(store.path()), Some(want.clone()));
        forget(store.path());
        assert_eq!(last(store.path()), None);
        write(store.path(), &want);
        std::fs::write(store.path().join("crash.json"), "half").unwrap();
        assert_eq!(last(store.path()), None);
    }
}
