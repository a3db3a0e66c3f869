//! Noticing that an owned file changed: inotify on the folders that hold one.
//!
//! A hint, never the truth: a folder that is missing is not watched until the
//! next plan has seen it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Folders, each with the names in it that count.
pub(super) type Folders = BTreeMap<PathBuf, BTreeSet<String>>;

#[expect(deprecated, reason = "its successor is unsafe for types that may swap their descriptor; an OwnedFd can't")]
fn open() -> std::io::Result<AsyncFd<OwnedFd>> {
    let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Opened when first needed; `None` where the kernel has none left to give.
    inotify: OnceLock<Option<AsyncFd<OwnedFd>>>,
    /// With the number of each folder's watch.
    folders: Mutex<BTreeMap<PathBuf, (i32, BTreeSet<String>)>>,
}

impl Watch {
    fn inotify(&self) -> Option<&AsyncFd<OwnedFd>> {
        let opened = self.inotify.get_or_init(|| {
            open()
                .inspect_err(|error| tracing::warn!(%error, "no inotify, drift of files waits for the full compare"))
                .ok()
        });
        opened.as_ref()
    }

    fn folders(&self) -> MutexGuard<'_, BTreeMap<PathBuf, (i32, BTreeSet<String>)>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches exactly these folders from here on.
    pub(super) fn set(&self, wanted: Folders) {
        if wanted.is_empty() && self.folders().is_empty() {
            return;
        }
        let Some(inotify) = self.inotify() else { return };
        let mut folders = self.folders();
        folders.retain(|path, (watch, _)| {
            let stays = wanted.contains_key(path);
            if !stays {
                // It may be gone with its folder.
                let _ = inotify::remove_watch(inotify, *watch);
            }
            stays
        });
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW;
        for (path, names) in wanted {
            // Adding again gives the same watch, or one for a folder made anew.
            match inotify::add_watch(inotify, &path, flags) {
                Ok(watch) => drop(folders.insert(path, (watch, names))),
                Err(error) => {
                    tracing::debug!(path = %path.display(), %error, "folder is not watched");
                    folders.remove(&path);
                }
            }
        }
    }

    /// Resolves when events wait; takes none of them, so it is cancel-safe.
    pub(super) async fn readable(&self) {
        if let Some(inotify) = self.inotify()
            // The guard goes with the readiness kept: `drain` clears it.
            && inotify.readable().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }

    /// Takes all events that wait; whether one of them is about an owned file.
    pub(super) fn drain(&self) -> bool {
        let Some(inotify) = self.inotify() else { return false };
        let folders = self.folders();
        let mut relevant = false;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let folder_itself = ReadFlags::QUEUE_OVERFLOW | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
        // Ends with `WouldBlock`, which clears the readiness.
        while inotify
            .try_io(Interest::READABLE, |inotify| {
                let mut reader = Reader::new(inotify, &mut buffer);
                loop {
                    let event = reader.next()?;
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    relevant |= event.events().intersects(folder_itself)
                        || name.is_some_and(|name| {
                            folders.values().any(|(watch, names)| *watch == event.wd() && names.contains(name))
                        });
                    if reader.is_buffer_empty() {
                        return Ok(());
                    }
                }
            })
            .is_ok()
        {}
        relevant
    }
}
