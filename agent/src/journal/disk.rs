//! The few file operations of the journal, each durable when it returns.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::ports::journal::JournalError;

/// What went wrong, told apart by what an operator can do about it.
pub(super) fn failed(action: &'static str, path: &Path, error: io::Error) -> JournalError {
    let path = path.display().to_string();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => JournalError::Full { path },
        ErrorKind::ReadOnlyFilesystem => JournalError::ReadOnly { path },
        _ => JournalError::Io { action, path, source: Box::new(error) },
    }
}

/// Makes the names in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), JournalError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed("sync", path, error))
}

/// Makes a folder that only the agent's user may enter, durable with its parent.
pub(super) fn make_folder(path: &Path) -> Result<(), JournalError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("make", path, error))?;
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), sync_folder)
}

/// Replaces `path` so that a power cut leaves the old file or the new one. The
/// name is durable only after [`sync_folder`], so that many files share one.
pub(super) fn replace(path: &Path, parts: &[&[u8]]) -> Result<(), JournalError> {
    let temporary = temporary(path);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    written.map_err(|error| {
        // Best effort: what stays is swept at the next open.
        drop(fs::remove_file(&temporary));
        failed("write", path, error)
    })
}

/// Where [`replace`] writes first.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// Whether a file is what a [`replace`] that was cut off left behind.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "new")
}

/// Locks the store against a second agent, for as long as the file is open.
///
/// On a full or read-only disk, where no lock file can be made, the folder
/// itself is locked: both are tried by every agent in the same order.
pub(super) fn lock(store: &Path) -> Result<File, JournalError> {
    let path = store.join("lock");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = match opened {
        Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::StorageFull) => {
            File::open(&path).or_else(|_| File::open(store))
        }
        other => other,
    }
    .map_err(|error| failed("open", &path, error))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::Locked { path: store.display().to_string() }),
        Err(error) => Err(failed("lock", &path, error.into())),
    }
}
