//! The second copy: two slot files, written in turn, over content-addressed
//! files that are written once.
//!
//! `copy/slot-0`, `copy/slot-1`: generation, checksum, state. The newest whole
//! one counts. `copy/objects/<sha256>`: kept states and their blobs, durable
//! before a slot names them, and there as long as either slot does.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fleet::digest::Digest;

use super::disk::{failed, is_temporary, make_folder, replace, sync_folder};
use super::record::{Root, Unreadable, read_slot, write_slot};
use crate::ports::journal::JournalError;

pub(super) struct Copy {
    folder: PathBuf,
    /// By slot: its generation and the objects that it needs.
    slots: [Option<(u64, BTreeSet<Digest>)>; 2],
    /// Object files that were whole when last looked at.
    present: BTreeSet<Digest>,
}

/// What lies in the second copy.
pub(super) struct Found {
    pub copy: Copy,
    /// Whole slots, newest first.
    pub roots: Vec<Root>,
    /// Why a slot that is there can't be used.
    pub broken: Option<String>,
}

impl Copy {
    /// Reads both slots and checks every object. Writes nothing.
    pub(super) fn open(folder: &Path) -> Result<Found, JournalError> {
        let mut copy = Self { folder: folder.to_owned(), slots: [None, None], present: BTreeSet::new() };
        let mut roots = Vec::new();
        let mut broken = None;
        for slot in 0..2 {
            let path = copy.slot(slot);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => {
                    broken = Some(format!("{}: {error}", path.display()));
                    continue;
                }
            };
            match read_slot(&bytes) {
                Ok(root) => {
                    copy.slots[slot] = Some((root.generation, BTreeSet::new()));
                    roots.push(root);
                }
                Err(Unreadable::Newer(format)) => return Err(newer(&path, format)),
                Err(Unreadable::Damaged(why)) => broken = Some(format!("{}: {why}", path.display())),
            }
        }
        roots.sort_by_key(|root| std::cmp::Reverse(root.generation));
        copy.present = copy.survey()?;
        Ok(Found { copy, roots, broken })
    }

    /// The objects whose bytes are what their name says.
    fn survey(&self) -> Result<BTreeSet<Digest>, JournalError> {
        let folder = self.objects();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(failed("list", &folder, error)),
        };
        let mut present = BTreeSet::new();
        for entry in entries {
            let path = entry.map_err(|error| failed("list", &folder, error))?.path();
            let digest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<Digest>().ok());
            match digest {
                Some(digest) if self.object(&digest).is_some() => drop(present.insert(digest)),
                // A damaged object is written anew when a slot needs it.
                Some(_) => {}
                None if is_temporary(&path) => drop(fs::remove_file(&path)),
                None => {}
            }
        }
        Ok(present)
    }

    /// An object's bytes, if they are whole.
    pub(super) fn object(&self, digest: &Digest) -> Option<Vec<u8>> {
        let bytes = fs::read(self.object_path(digest)).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// The newest generation in a slot.
    pub(super) fn generation(&self) -> u64 {
        self.slots.iter().flatten().map(|(generation, _)| *generation).max().unwrap_or(0)
    }

    /// Whether every one of `needs` lies here.
    pub(super) fn has(&self, needs: &BTreeSet<Digest>) -> bool {
        needs.is_subset(&self.present)
    }

    /// Tells which objects the slot of `generation` needs: what no slot needs
    /// goes at the next write.
    pub(super) fn claim(&mut self, generation: u64, needs: BTreeSet<Digest>) {
        for slot in self.slots.iter_mut().flatten().filter(|slot| slot.0 == generation) {
            slot.1.clone_from(&needs);
        }
    }

    /// Makes `root` durable in the older slot, and `needs` before it. After an
    /// error the newer slot is what it was.
    pub(super) fn write(
        &mut self,
        root: &Root,
        needs: BTreeSet<Digest>,
        mut read: impl FnMut(&Digest) -> Result<Vec<u8>, JournalError>,
    ) -> Result<(), JournalError> {
        make_folder(&self.folder)?;
        make_folder(&self.objects())?;
        let missing: Vec<Digest> = needs.difference(&self.present).copied().collect();
        let written = missing.iter().try_for_each(|digest| {
            let bytes = read(digest)?;
            replace(&self.object_path(digest), &[&bytes])?;
            self.present.insert(*digest);
            Ok(())
        });
        let slot = self.older();
        let written = written
            .and_then(|()| if missing.is_empty() { Ok(()) } else { sync_folder(&self.objects()) })
            .and_then(|()| {
                let (header, payload) = write_slot(root).map_err(|error| JournalError::Io {
                    action: "encode",
                    path: self.slot(slot).display().to_string(),
                    source: Box::new(error),
                })?;
                replace(&self.slot(slot), &[header.as_bytes(), &payload])?;
                sync_folder(&self.folder)
            });
        if let Err(error) = written {
            // A disk that is full should not be left fuller.
            self.sweep();
            return Err(error);
        }
        self.slots[slot] = Some((root.generation, needs));
        self.sweep();
        Ok(())
    }

    /// Takes the newest slot back: its commit failed further on.
    pub(super) fn retract(&mut self) {
        let newest = 1 - self.older();
        if self.slots[newest].take().is_some() {
            drop(fs::remove_file(self.slot(newest)));
            drop(sync_folder(&self.folder));
            self.sweep();
        }
    }

    /// Drops the objects that neither slot needs. Best effort: what stays is
    /// found by the next survey.
    fn sweep(&mut self) {
        let needed: BTreeSet<Digest> =
            self.slots.iter().flatten().flat_map(|(_, needs)| needs.iter().copied()).collect();
        let idle: Vec<Digest> = self.present.difference(&needed).copied().collect();
        for digest in idle {
            drop(fs::remove_file(self.object_path(&digest)));
            self.present.remove(&digest);
        }
    }

    /// The slot to be written next: an empty one, else the older one.
    fn older(&self) -> usize {
        let generation = |slot: usize| self.slots[slot].as_ref().map_or(0, |(generation, _)| *generation);
        usize::from(generation(1) < generation(0))
    }

    fn slot(&self, slot: usize) -> PathBuf {
        self.folder.join(format!("slot-{slot}"))
    }

    fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    fn object_path(&self, digest: &Digest) -> PathBuf {
        self.objects().join(digest.to_string())
    }
}

pub(super) fn newer(path: &Path, format: u32) -> JournalError {
    JournalError::Newer { path: path.display().to_string(), format, known: super::record::FORMAT.into() }
}
