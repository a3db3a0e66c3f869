//! What the disk alone can't tell: with which files a unit was started last,
//! and whether systemd has yet to read what was written.
//!
//! One small file per app in the store. **Invariant:** a mark goes before the
//! first file is touched and comes back after the job is done. So a power cut
//! in between leaves no mark, and the next plan reloads and restarts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fleet::digest::Digest;
use fleet::name::AppName;
use serde::{Deserialize, Serialize};

use super::place::{remove_own, replace_own};

/// The marks of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Marks {
    /// A file that systemd reads changed, and it was not told.
    pub(super) reload: bool,
    /// By unit: its last (re)start.
    pub(super) started: BTreeMap<String, Start>,
}

/// A start that burgee saw through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// The digest of the app's files at the time.
    pub(super) files: Digest,
    /// The kernel's id of the boot it was in.
    pub(super) boot: String,
}

/// The kernel's id of this boot.
pub(super) fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The folder of all marks.
#[derive(Debug)]
pub(super) struct MarkStore {
    folder: PathBuf,
}

impl MarkStore {
    pub(super) fn new(store: &Path) -> Self {
        Self { folder: store.join("files") }
    }

    fn path(&self, app: &AppName) -> PathBuf {
        self.folder.join(format!("{app}.json"))
    }

    /// A record that is damaged counts as none: the units are restarted once more.
    pub(super) fn read(&self, app: &AppName) -> std::io::Result<Marks> {
        let path = self.path(app);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "marks of a files app are damaged, its units restart");
                Marks { reload: true, ..Marks::default() }
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Marks::default()),
            Err(error) => Err(error),
        }
    }

    /// Changes the marks durably; writes nothing where nothing changes.
    pub(super) fn change(&self, app: &AppName, change: impl FnOnce(&mut Marks)) -> std::io::Result<()> {
        let before = self.read(app)?;
        let mut after = before.clone();
        change(&mut after);
        if after == before {
            return Ok(());
        }
        if after == Marks::default() {
            return remove_own(&self.path(app));
        }
        replace_own(&self.path(app), &serde_json::to_vec(&after)?)
    }

    /// Drops the marks of apps that `keep` does not name.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) -> std::io::Result<()> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            if !path.file_stem().and_then(|stem| stem.to_str()).is_some_and(&keep) {
                remove_own(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use fleet::digest::Digest;

    use super::{MarkStore, Marks, Start};

    #[test]
    fn marks_survive_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let marks = MarkStore::new(folder.path());
        let app = "base".parse().unwrap();
        assert_eq!(marks.read(&app).unwrap(), Marks::default());
        let last = Start { files: Digest::of(b"x"), boot: super::boot_id().unwrap() };
        let start = |marks: &mut Marks| {
            marks.started.insert("a.service".into(), last.clone());
        };
        marks.change(&app, start).unwrap();
        assert_eq!(MarkStore::new(folder.path()).read(&app).unwrap().started["a.service"], last);
        marks.retain(|name| name == "base").unwrap();
        marks.change(&app, |marks| marks.started.clear()).unwrap();
        assert!(!folder.path().join("files/base.json").exists());
        std::fs::write(folder.path().join("files/base.json"), "{").unwrap();
        assert!(marks.read(&app).unwrap().reload);
        marks.retain(|_| false).unwrap();
        assert_eq!(marks.read(&app).unwrap(), Marks::default());
    }
}
