//! What survives a power cut: the `Journal` port over sled, and a second copy.
//!
//! Every commit goes to the second copy first and to the database then; it is
//! acknowledged when both are durable. So the second copy never lacks what was
//! acknowledged, and either of the two may be lost. At open the newest whole
//! one counts and mends the other; what had to be mended is told by `notice`.
//!
//! On a full or read-only disk the journal still says what was, from the
//! second copy, and every commit tries anew. What this room does not do: it
//! doesn't judge states, and doesn't bound the history.

mod copy;
mod database;
mod disk;
pub mod glance;
mod guard;
pub mod look;
pub mod memory;
mod record;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fleet::desired::Blobs;
use fleet::digest::Digest;
use fleet::revision::Revision;

use self::copy::{Copy, Found};
use self::database::{Database, Fault, Opened, set_aside};
use self::record::{KeptObjects, KeptRef, Root, fields, named, objects, read_kept};
use crate::ports::Reason as _;
use crate::ports::journal::{Journal, JournalError, Kept, State};

/// Past this many bytes, and [`SLACK`] times what it holds, the database's
/// file is built anew at open: sled frees space late.
const LARGE: u64 = 16 << 20;
const SLACK: u64 = 8;

/// Holds the store, as an agent that runs does; for as long as the file lives.
///
/// # Errors
/// When another holds it, or it can't be made.
pub fn hold(store: &Path) -> Result<File, JournalError> {
    disk::make_folder(store)?;
    disk::lock(store)
}

/// The journal of one store folder.
pub struct SledJournal {
    store: PathBuf,
    /// Held for as long as the journal lives.
    _lock: File,
    copy: Copy,
    /// `None` while the disk does not let it be opened.
    database: Option<Database>,
    root: Root,
    kept: BTreeMap<Digest, KeptObjects>,
    /// Kept states that are damaged in both copies.
    lost: BTreeMap<Digest, String>,
    /// A commit failed half-way: the next one writes even an equal state.
    unsettled: bool,
    mended: Vec<String>,
    degraded: Option<String>,
}

impl SledJournal {
    /// Opens the store's journal, or begins one.
    ///
    /// # Errors
    /// When another agent holds the store, a newer agent wrote it, it is
    /// damaged in both copies, or there is nothing readable to start from.
    pub fn open(store: &Path) -> Result<Self, JournalError> {
        Self::open_after(store, |_| Ok(()))
    }

    /// As [`SledJournal::open`], after `program` (the agent's own) has looked
    /// at the database and survived it.
    ///
    /// # Errors
    /// As [`SledJournal::open`].
    pub fn open_looking(store: &Path, program: &Path) -> Result<Self, JournalError> {
        Self::open_after(store, |folder| look::survives(program, folder))
    }

    fn open_after(store: &Path, look: impl FnOnce(&Path) -> Result<(), String>) -> Result<Self, JournalError> {
        disk::make_folder(store)?;
        let lock = disk::lock(store)?;
        let Found { copy, roots, broken } = Copy::open(&store.join("copy"))?;
        let mut journal = Self {
            store: store.to_owned(),
            _lock: lock,
            copy,
            database: None,
            root: Root::default(),
            kept: BTreeMap::new(),
            lost: BTreeMap::new(),
            unsettled: false,
            mended: Vec::new(),
            degraded: None,
        };
        drop(fs::remove_dir_all(journal.compacting()));
        let existed = journal.folder().join("db").exists();
        let mut damage = None;
        let mut database_root = None;
        let looked = if existed { look(&journal.folder()) } else { Ok(()) };
        match looked.map_err(Fault::Damaged).and_then(|()| Database::open(&journal.folder())) {
            Ok(Opened { database, root, damage: found }) => {
                damage = found;
                database_root = root;
                journal.database = Some(database);
            }
            Err(Fault::Damaged(why)) => damage = Some(why),
            Err(Fault::Unusable(error @ JournalError::Newer { .. })) => return Err(error),
            Err(Fault::Unusable(error)) => {
                if roots.is_empty() && (existed || broken.is_some()) {
                    return Err(error);
                }
                journal.degrade(&error);
            }
        }
        let in_database = database_root.as_ref().map_or(0, |root| root.generation);
        let chosen = roots.first().cloned().into_iter().chain(database_root).max_by_key(|root| root.generation);
        match chosen {
            Some(root) => journal.root = root,
            None if broken.is_some() => {
                let why = damage.or(broken).unwrap_or_default();
                return Err(JournalError::Damaged { what: format!("the journal in {} ({why})", store.display()) });
            }
            None => {}
        }
        let older = roots.get(1).map(|root| (root.generation, root.kept.clone()));
        journal.find_kept();
        journal.claim(older);
        journal.mend(existed, in_database, damage, broken);
        journal.bound();
        Ok(journal)
    }

    /// Learns which objects the kept states have, and which of them are lost.
    fn find_kept(&mut self) {
        for at in self.root.kept.clone() {
            let found = self.object(&at.object).and_then(|bytes| read_kept(&bytes));
            let Some((_, blobs)) = found else {
                self.lost.insert(at.revision.identity, format!("the kept state of {}", at.revision));
                continue;
            };
            // An empty store needs no look at the blobs: they are in `objects`.
            let whole = blobs.iter().find(|blob| !self.lies_somewhere(blob));
            if let Some(blob) = whole {
                let what = format!("file {} of the kept state of {}", blob.short(), at.revision);
                self.lost.insert(at.revision.identity, what);
                continue;
            }
            self.kept.insert(at.revision.identity, KeptObjects { at, blobs });
        }
        let lost: Vec<String> = self.lost.values().map(|what| format!("{what} is damaged in both copies")).collect();
        self.mended.extend(lost);
    }

    fn lies_somewhere(&self, digest: &Digest) -> bool {
        let one = BTreeSet::from([*digest]);
        self.copy.has(&one) || self.database.as_ref().is_some_and(|database| database.has(&one))
    }

    /// Tells the second copy what its slots need, the older one's included.
    fn claim(&mut self, older: Option<(u64, Vec<KeptRef>)>) {
        self.copy.claim(self.root.generation, objects(self.kept.values()));
        if let Some((generation, kept)) = older {
            let kept = kept.into_iter().filter_map(|at| {
                let (_, blobs) = read_kept(&self.object(&at.object)?)?;
                Some(KeptObjects { at, blobs })
            });
            let needs = objects(&kept.collect::<Vec<_>>());
            self.copy.claim(generation, needs);
        }
    }

    /// Makes both copies hold the root. What can't be written now makes the
    /// journal run from memory.
    fn mend(&mut self, existed: bool, in_database: u64, damage: Option<String>, broken: Option<String>) {
        let needs = objects(self.kept.values());
        let began = self.root.generation > 0;
        if let Some(why) = damage {
            match self.rebuild() {
                Ok(aside) if began => {
                    self.mended.push(format!(
                        "the database was damaged ({why}): set aside as {} and rebuilt from the second copy",
                        aside.display()
                    ));
                }
                Ok(aside) => self.mended.push(format!(
                    "the database was damaged ({why}) before anything was committed: set aside as {}",
                    aside.display()
                )),
                Err(error) => {
                    self.database = None;
                    self.degrade(&error);
                }
            }
        } else if self.database.is_some()
            && began
            && (in_database != self.root.generation || self.database.as_ref().is_some_and(|db| !db.has(&needs)))
        {
            match self.write_database() {
                // One generation behind is a commit that a power cut ended.
                Ok(()) if !existed || in_database + 1 < self.root.generation => {
                    self.mended.push("the database was missing or old and was rebuilt from the second copy".to_owned());
                }
                Ok(()) => {}
                Err(error) => {
                    self.database = None;
                    self.degrade(&error);
                }
            }
        }
        if began && (self.copy.generation() != self.root.generation || !self.copy.has(&needs)) {
            match self.write_copy() {
                Ok(()) => self.mended.push(match broken {
                    Some(why) => format!("the second copy was damaged ({why}) and was rebuilt from the database"),
                    None => "the second copy was incomplete and was rebuilt from the database".to_owned(),
                }),
                Err(error) => self.degrade(&error),
            }
        } else if let (Some(why), true) = (broken, began) {
            // The newest copy is whole; the next commit overwrites this slot.
            self.mended.push(format!("a slot of the second copy was damaged ({why})"));
        }
        for mended in &self.mended {
            tracing::warn!(store = %self.store.display(), what = mended, "journal mended");
        }
    }

    /// Builds a database that has grown far beyond what it holds anew.
    fn bound(&mut self) {
        let held: u64 = objects(self.kept.values())
            .iter()
            .filter_map(|digest| fs::metadata(self.store.join("copy/objects").join(digest.to_string())).ok())
            .map(|metadata| metadata.len())
            .sum();
        let size = self.database.as_ref().map_or(0, Database::size);
        // Only while the second copy holds everything: it is the source.
        if size <= LARGE || size / SLACK <= held || self.copy.generation() != self.root.generation {
            return;
        }
        self.database = None;
        let compacted = fs::rename(self.folder(), self.compacting())
            .map_err(|error| disk::failed("rename", &self.folder(), error))
            .and_then(|()| self.reopen());
        drop(fs::remove_dir_all(self.compacting()));
        match compacted {
            Ok(()) => tracing::info!(size, held, "database built anew for its size"),
            Err(error) => self.degrade(&error),
        }
    }

    /// Sets the database aside and makes a new one that holds the root.
    /// Whatever the second copy lacks is saved from the old one first.
    fn rebuild(&mut self) -> Result<PathBuf, JournalError> {
        let needs = objects(self.kept.values());
        if self.root.generation > 0 && (self.copy.generation() != self.root.generation || !self.copy.has(&needs)) {
            self.write_copy()?;
        }
        self.database = None;
        let aside = set_aside(&self.folder())?;
        self.reopen()?;
        Ok(aside)
    }

    /// Opens the database once more and makes it hold the root.
    fn reopen(&mut self) -> Result<(), JournalError> {
        let opened = match Database::open(&self.folder()) {
            Ok(Opened { database, damage: None, .. }) => database,
            Ok(Opened { damage: Some(why), .. }) | Err(Fault::Damaged(why)) => {
                let aside = set_aside(&self.folder())?;
                self.mended.push(format!("the database was damaged ({why}): set aside as {}", aside.display()));
                match Database::open(&self.folder()) {
                    Ok(Opened { database, .. }) => database,
                    Err(fault) => return Err(self.fault(fault)),
                }
            }
            Err(Fault::Unusable(error)) => return Err(error),
        };
        // What the last process or a failed commit left there is overtaken.
        self.root.generation = self.root.generation.max(opened.generation());
        self.database = Some(opened);
        let written = if self.root.generation > 0 { self.write_database() } else { Ok(()) };
        match written {
            Ok(()) => {
                self.degraded = None;
                Ok(())
            }
            Err(error) => {
                self.database = None;
                Err(error)
            }
        }
    }

    fn write_database(&mut self) -> Result<(), JournalError> {
        let needs = objects(self.kept.values());
        let Some(mut database) = self.database.take() else { return Ok(()) };
        let copy = &self.copy;
        let written = database.write(&self.root, &needs, |digest| copy.object(digest).ok_or_else(|| damaged(digest)));
        match written {
            Ok(()) => {
                self.database = Some(database);
                Ok(())
            }
            Err(fault) => Err(self.fault(fault)),
        }
    }

    fn write_copy(&mut self) -> Result<(), JournalError> {
        let needs = objects(self.kept.values());
        let database = &self.database;
        self.copy.write(&self.root, needs, |digest| {
            let found = database.as_ref().and_then(|database| database.object(digest).ok().flatten());
            found.ok_or_else(|| damaged(digest))
        })
    }

    /// An object from whichever copy has it whole.
    fn object(&self, digest: &Digest) -> Option<Vec<u8>> {
        let database = self.database.as_ref();
        database.and_then(|database| database.object(digest).ok().flatten()).or_else(|| self.copy.object(digest))
    }

    fn degrade(&mut self, error: &JournalError) {
        let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        tracing::warn!(store = %self.store.display(), reason = error.reason(), "journal can't be written");
        self.degraded = Some(format!("{}: running from the second copy{hint}", chain(error)));
    }

    fn fault(&self, fault: Fault) -> JournalError {
        match fault {
            Fault::Unusable(error) => error,
            Fault::Damaged(why) => JournalError::Io {
                action: "use the database in",
                path: self.folder().display().to_string(),
                source: why.into(),
            },
        }
    }

    fn folder(&self) -> PathBuf {
        self.store.join("db")
    }

    fn compacting(&self) -> PathBuf {
        self.store.join("db.old")
    }
}

impl Journal for SledJournal {
    fn state(&self) -> &State {
        &self.root.state
    }

    fn commit(&mut self, state: State, keep: Option<(&Kept, &Blobs)>) -> Result<(), JournalError> {
        let encode = |error: serde_json::Error| JournalError::Io {
            action: "encode",
            path: self.store.display().to_string(),
            source: Box::new(error),
        };
        let mut fresh: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        let mut kept: BTreeMap<Digest, KeptObjects> = BTreeMap::new();
        let identities: BTreeSet<Digest> = named(&state).iter().map(|revision| revision.identity).collect();
        if let Some((keep, _)) = keep.filter(|(keep, _)| identities.contains(&keep.revision.identity)) {
            let bytes = serde_json::to_vec(keep).map_err(encode)?;
            let at = KeptRef { revision: keep.revision.clone(), object: Digest::of(&bytes) };
            fresh.insert(at.object, bytes);
            kept.insert(keep.revision.identity, KeptObjects { blobs: keep.blobs(), at });
        }
        for (identity, old) in self.kept.iter().filter(|(identity, _)| identities.contains(identity)) {
            kept.entry(*identity).or_insert_with(|| old.clone());
        }
        let refs: Vec<KeptRef> = kept.values().map(|kept| kept.at.clone()).collect();
        let before = (fields(&self.root.state).map_err(encode)?, &self.root.kept);
        let equal = before == (fields(&state).map_err(encode)?, &refs);
        if equal && !self.unsettled && self.degraded.is_none() {
            return Ok(());
        }
        if self.database.is_none()
            && let Err(error) = self.reopen()
        {
            self.degrade(&error);
            return if equal && !self.unsettled { Ok(()) } else { Err(error) };
        }
        let root = Root { generation: self.root.generation.max(self.copy.generation()) + 1, state, kept: refs };
        let needs = objects(kept.values());
        let (database, copy) = (&self.database, &self.copy);
        // The bytes of what is new; an old object is read where it still lies.
        let read = |digest: &Digest| -> Result<Vec<u8>, JournalError> {
            let given = keep.and_then(|(_, blobs)| blobs.get(digest)).map(|blob| blob.to_vec());
            let old = || database.as_ref().and_then(|database| database.object(digest).ok().flatten());
            fresh
                .get(digest)
                .cloned()
                .or(given)
                .or_else(old)
                .or_else(|| copy.object(digest))
                .filter(|bytes| Digest::of(bytes) == *digest)
                .ok_or_else(|| damaged(digest))
        };
        // Read before the copy is borrowed for the write.
        let mut bytes = BTreeMap::new();
        for digest in &needs {
            let one = BTreeSet::from([*digest]);
            if !copy.has(&one) || !database.as_ref().is_some_and(|database| database.has(&one)) {
                bytes.insert(*digest, read(digest)?);
            }
        }
        let from = |digest: &Digest| bytes.get(digest).cloned().ok_or_else(|| damaged(digest));
        if let Err(error) = self.copy.write(&root, needs.clone(), from) {
            self.degrade(&error);
            return Err(error);
        }
        let written = self.database.as_mut().map_or(Ok(()), |database| database.write(&root, &needs, from));
        match written {
            Ok(()) => {}
            Err(Fault::Unusable(error)) => {
                // What reached the database is unknown until it is opened again.
                self.database = None;
                self.copy.retract();
                self.unsettled = true;
                self.degrade(&error);
                return Err(error);
            }
            Err(Fault::Damaged(why)) => {
                self.mended.push(format!("the database broke ({why}) and was rebuilt from the second copy"));
                self.root = root;
                self.kept = kept;
                if let Err(error) = self.rebuild() {
                    // The second copy has it: that is durable.
                    self.database = None;
                    self.degrade(&error);
                    return Ok(());
                }
                self.unsettled = false;
                return Ok(());
            }
        }
        self.lost.retain(|identity, _| identities.contains(identity) && !kept.contains_key(identity));
        self.root = root;
        self.kept = kept;
        self.unsettled = false;
        self.degraded = None;
        Ok(())
    }

    fn kept(&self, revision: &Revision) -> Result<Option<(Kept, Blobs)>, JournalError> {
        if let Some(what) = self.lost.get(&revision.identity) {
            return Err(JournalError::Damaged { what: what.clone() });
        }
        let Some(entry) = self.kept.get(&revision.identity) else { return Ok(None) };
        let lost = || JournalError::Damaged { what: format!("the kept state of {revision}") };
        let (kept, named) = self.object(&entry.at.object).and_then(|bytes| read_kept(&bytes)).ok_or_else(lost)?;
        let mut blobs = Blobs::new();
        for digest in named {
            let bytes = self.object(&digest).ok_or_else(|| JournalError::Damaged {
                what: format!("file {} of the kept state of {revision}", digest.short()),
            })?;
            blobs.insert(digest, bytes.into());
        }
        Ok(Some((kept, blobs)))
    }

    fn notice(&self) -> Option<String> {
        let parts: Vec<&str> = self.degraded.iter().chain(&self.mended).map(String::as_str).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn damaged(digest: &Digest) -> JournalError {
    JournalError::Damaged { what: format!("object {}", digest.short()) }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
