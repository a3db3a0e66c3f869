//! Changing the disk, so that a power cut at any instruction leaves the old
//! file or the new one, whole.
//!
//! Temporary file in the same folder → bytes, owner, mode → fsync → rename →
//! fsync of the folder. What it says about failures names the disk's trouble.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use fleet::digest::Digest;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::owner::Owner;
use super::place::{FOLDER, Place, Walked, name};

/// What a temporary file's name starts with.
pub(super) const TEMPORARY: &str = ".burgee-tmp-";

/// Why the disk was not changed. What was there still is.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the disk that holds {path} is full")]
    Full { path: String },
    #[error("the disk that holds {path} is read-only")]
    ReadOnly { path: String },
    #[error("the agent may not do that to {path} (it runs as user {uid})")]
    Denied { path: String, uid: u32 },
    #[error("{path} is there already")]
    Exists { path: String },
    #[error("{at} on the way to {path} is no folder")]
    Way { path: String, at: String },
    #[error("input or output failed on {path}")]
    Io {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl WriteError {
    fn of(path: &str, error: impl Into<std::io::Error>) -> Self {
        let (path, source) = (path.to_owned(), error.into());
        match source.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::Full { path },
            Some(Errno::ROFS) => Self::ReadOnly { path },
            Some(Errno::PERM | Errno::ACCESS) => Self::Denied { path, uid: rustix::process::geteuid().as_raw() },
            _ => Self::Io { path, source },
        }
    }

    /// Whether waiting alone can help.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::ReadOnly { .. } | Self::Io { .. })
    }

    /// What a person can do about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Full { .. } => Some("free space on that disk"),
            Self::ReadOnly { .. } => Some(
                "remount that disk writable; where `runtime.files.allow` was changed, \
                 `systemctl daemon-reload && systemctl restart burgee-agent` lets the agent write there",
            ),
            Self::Denied { .. } => Some("run the agent as root, or deliver to where its user may write"),
            _ => None,
        }
    }

    /// Whether the world is not what the plan saw.
    pub(super) fn is_change(&self) -> bool {
        matches!(self, Self::Exists { .. } | Self::Way { .. })
    }
}

/// A file as it is to be.
#[derive(Clone, Debug)]
pub(super) struct Content<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) mode: u32,
    pub(super) owner: Owner,
}

/// Puts `content` at `path`, and makes the folders on the way. With `fresh`,
/// what came to be there since the plan was made is not overwritten.
pub(super) fn put(place: &Place, path: &str, content: &Content<'_>, fresh: bool) -> Result<(), WriteError> {
    let folder = place.make_way(path).map_err(|error| match place.walk(path) {
        Ok(Walked::Link { at, .. } | Walked::File { at }) => WriteError::Way { path: path.to_owned(), at },
        _ => WriteError::of(path, error),
    })?;
    let temporary = temporary(path);
    let written = write_temporary(&folder, &temporary, content)
        .and_then(|()| move_into_place(&folder, &temporary, name(path), fresh));
    if let Err(error) = written {
        // Best effort: what is left is removed by the next write or sweep.
        let _ = rustix::fs::unlinkat(&folder, temporary.as_str(), AtFlags::empty());
        return Err(match error {
            Errno::EXIST | Errno::ISDIR | Errno::NOTEMPTY => WriteError::Exists { path: path.to_owned() },
            error => WriteError::of(path, error),
        });
    }
    rustix::fs::fsync(&folder).map_err(|error| WriteError::of(path, error))
}

/// One name per path, so that what a power cut left is overwritten by the next try.
fn temporary(path: &str) -> String {
    format!("{TEMPORARY}{}", Digest::of(path.as_bytes()).short())
}

fn write_temporary(folder: &OwnedFd, temporary: &str, content: &Content<'_>) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its owner and mode.
    let open = || rustix::fs::openat(folder, temporary, flags, Mode::from_raw_mode(0o600));
    let file = match open() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(folder, temporary, AtFlags::empty())?;
            open()?
        }
        other => other?,
    };
    let mut file = File::from(file);
    file.write_all(content.bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let is = rustix::fs::fstat(&file)?;
    if (is.st_uid, is.st_gid) != content.owner {
        rustix::fs::fchown(&file, Some(Uid::from_raw(content.owner.0)), Some(Gid::from_raw(content.owner.1)))?;
    }
    // After the owner: giving a file away clears its set-id bits.
    rustix::fs::fchmod(&file, Mode::from_raw_mode(content.mode & 0o7777))?;
    rustix::fs::fsync(&file)
}

fn move_into_place(folder: &OwnedFd, temporary: &str, name: &str, fresh: bool) -> rustix::io::Result<()> {
    if !fresh {
        return rustix::fs::renameat(folder, temporary, folder, name);
    }
    match rustix::fs::renameat_with(folder, temporary, folder, name, RenameFlags::NOREPLACE) {
        // File systems and kernels that don't know the flag: a hard link refuses to overwrite, too.
        Err(Errno::INVAL | Errno::NOSYS) => {
            match rustix::fs::linkat(folder, temporary, folder, name, AtFlags::empty()) {
                Ok(()) => rustix::fs::unlinkat(folder, temporary, AtFlags::empty()),
                // Neither has FAT: a look is all that remains.
                Err(Errno::PERM | Errno::OPNOTSUPP) => {
                    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                        Err(Errno::NOENT) => rustix::fs::renameat(folder, temporary, folder, name),
                        Ok(_) => Err(Errno::EXIST),
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            }
        }
        other => other,
    }
}

/// Removes the file (or a link that took its place) at `path`; no error where
/// there is none.
pub(super) fn unlink(place: &Place, path: &str) -> Result<(), WriteError> {
    remove(place, path, AtFlags::empty())
}

/// Removes the folder at `path` if it is empty; a folder that others have put
/// something into stays.
pub(super) fn rmdir(place: &Place, path: &str) -> Result<(), WriteError> {
    if let Ok(Walked::Folder(parent)) = place.walk(path)
        && let Ok(folder) = rustix::fs::openat(&parent, name(path), FOLDER, Mode::empty())
    {
        clean(&folder).map_err(|error| WriteError::of(path, error))?;
    }
    match remove(place, path, AtFlags::REMOVEDIR) {
        Err(WriteError::Exists { .. }) => Ok(()),
        other => other,
    }
}

fn remove(place: &Place, path: &str, flags: AtFlags) -> Result<(), WriteError> {
    let Walked::Folder(folder) = place.walk(path).map_err(|error| WriteError::of(path, error))? else {
        return Ok(());
    };
    match rustix::fs::unlinkat(&folder, name(path), flags) {
        Ok(()) => rustix::fs::fsync(&folder).map_err(|error| WriteError::of(path, error)),
        // Gone, or something else by now: neither is what burgee made.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => Ok(()),
        // What systemd lets the agent write to is a mount in the agent's eyes, and stays.
        Err(Errno::BUSY) if flags == AtFlags::REMOVEDIR => Err(WriteError::Exists { path: path.to_owned() }),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Err(WriteError::Exists { path: path.to_owned() }),
        Err(error) => Err(WriteError::of(path, error)),
    }
}

/// Removes temporary files that a power cut left in `folder`.
pub(super) fn clean(folder: impl AsFd) -> rustix::io::Result<()> {
    let mut stale = Vec::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        if entry.file_name().to_bytes().starts_with(TEMPORARY.as_bytes()) {
            stale.push(entry.file_name().to_owned());
        }
    }
    for name in stale {
        rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
    }
    Ok(())
}
