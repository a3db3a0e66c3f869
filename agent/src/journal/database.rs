//! The database: sled, held to what it can do.
//!
//! Keys: `root` is the [`Index`]; `o<sha256><n>` is the nth piece of an
//! object. **Invariants:** no value is over [`VALUE`] (sled puts larger ones
//! into files that it never reclaims); nothing is written but by
//! [`Database::write`], which ends with an fsync of its own, because sled's
//! flush alone loses acknowledged writes at a power cut; no call into sled is
//! made outside [`guarded`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::digest::Digest;
use sha2::Digest as _;

use super::disk::{failed, make_folder, sync_folder};
use super::guard::guarded;
use super::record::{Index, Root, SEAL, Unreadable, fields, from_fields, seal, unseal};
use crate::ports::journal::JournalError;

/// The largest value, seal included.
pub(super) const VALUE: usize = 4096;
/// An object's piece: a value less its seal and the count of pieces.
const PIECE: usize = VALUE - SEAL - 4;
/// Pieces that are put into one batch, so that memory stays small.
const BATCH: usize = 64;
/// sled's page cache. The journal is read at start and at a rollback only.
const CACHE: u64 = 256 * 1024;
const ROOT: &[u8] = b"root";

/// Why the database can't be used.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its content is broken: set it aside and build it anew.
    Damaged(String),
    /// It may be whole, and can't be used now, or not by this agent.
    Unusable(JournalError),
}

pub(super) struct Database {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    folder: PathBuf,
    /// sled's own file, for the fsync.
    file: File,
    /// Objects that are whole.
    objects: BTreeSet<Digest>,
    /// Objects of which something is there, but not all.
    torn: BTreeSet<Digest>,
    generation: u64,
}

/// What lies in a database that could be opened.
pub(super) struct Opened {
    pub database: Database,
    pub root: Option<Root>,
    /// Why it should not be used any further than to save what is whole.
    pub damage: Option<String>,
}

impl Database {
    /// Opens the database, or makes an empty one, and reads all of it once, so
    /// that damage shows now and not at a rollback.
    pub(super) fn open(folder: &Path) -> Result<Opened, Fault> {
        make_folder(folder).map_err(Fault::Unusable)?;
        let config =
            sled::Config::new().path(folder).cache_capacity(CACHE).flush_every_ms(None).mode(sled::Mode::LowSpace);
        let db = open_sled(folder, &config)?;
        let path = folder.join("db");
        let settled = File::open(&path).map_err(|error| failed("open", &path, error)).and_then(|file| {
            // sled writes its parameters without an fsync.
            File::open(folder.join("conf"))
                .and_then(|conf| conf.sync_all())
                .map_err(|error| failed("sync", folder, error))?;
            Ok(file)
        });
        let mut database = Self {
            db: Some(db),
            folder: folder.to_owned(),
            file: settled.map_err(Fault::Unusable)?,
            objects: BTreeSet::new(),
            torn: BTreeSet::new(),
            generation: 0,
        };
        let mut damage = database.survey()?;
        let root = match database.read_root() {
            Ok(root) => root,
            Err(Fault::Damaged(why)) => {
                damage = Some(why);
                None
            }
            Err(other) => return Err(other),
        };
        database.generation = root.as_ref().map_or(0, |root| root.generation);
        Ok(Opened { database, root, damage })
    }

    /// The generation of the root.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn has(&self, needs: &BTreeSet<Digest>) -> bool {
        needs.is_subset(&self.objects)
    }

    /// Bytes of sled's file.
    pub(super) fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    /// Reads every record, checks it, and notes which objects are whole.
    fn survey(&mut self) -> Result<Option<String>, Fault> {
        let mut damage = None;
        let mut open: Option<Pieces> = None;
        let Some(db) = &self.db else { return Ok(None) };
        let mut records = db.iter();
        let mut objects = BTreeSet::new();
        let mut torn = BTreeSet::new();
        let mut close = |pieces: Option<Pieces>| {
            if let Some(pieces) = pieces {
                let whole = pieces.is_whole();
                if whole { &mut objects } else { &mut torn }.insert(pieces.digest);
            }
        };
        while let Some((key, value)) = sleds(&self.folder, || records.next().transpose())? {
            if &*key == ROOT {
                continue;
            }
            let piece = match (split_key(&key), unseal(&key, &value)) {
                (_, Err(Unreadable::Newer(format))) => {
                    return Err(Fault::Unusable(super::copy::newer(&self.folder, format)));
                }
                (Some((digest, number)), Ok(payload)) => Some((digest, number, payload)),
                (_, Err(Unreadable::Damaged(why))) => {
                    damage = Some(why.to_owned());
                    None
                }
                (None, Ok(_)) => {
                    damage = Some("a record has no place".to_owned());
                    None
                }
            };
            let Some((digest, number, payload)) = piece else { continue };
            if open.as_ref().is_none_or(|open| open.digest != digest) {
                close(open.take());
                open = Some(Pieces::new(digest));
            }
            if let Some(open) = &mut open {
                open.add(number, payload);
            }
        }
        close(open);
        self.objects = objects;
        self.torn = torn;
        Ok(damage)
    }

    fn read_root(&self) -> Result<Option<Root>, Fault> {
        let Some(index) = self.get(ROOT)? else { return Ok(None) };
        let unreadable = |_| Fault::Damaged("the root can't be read".to_owned());
        let index: Index = serde_json::from_slice(&index).map_err(unreadable)?;
        let mut fields = BTreeMap::new();
        for (name, digest) in index.fields {
            let bytes = self.object(&digest)?;
            let lost = || Fault::Damaged(format!("the field {name} is not whole"));
            fields.insert(name.clone(), bytes.ok_or_else(lost)?);
        }
        let state = from_fields(&fields).map_err(unreadable)?;
        Ok(Some(Root { generation: index.generation, state, kept: index.kept }))
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        let Some(db) = &self.db else { return Ok(None) };
        let Some(value) = sleds(&self.folder, || db.get(key))? else { return Ok(None) };
        match unseal(key, &value) {
            Ok(payload) => Ok(Some(payload.to_vec())),
            Err(Unreadable::Newer(format)) => Err(Fault::Unusable(super::copy::newer(&self.folder, format))),
            Err(Unreadable::Damaged(why)) => Err(Fault::Damaged(why.to_owned())),
        }
    }

    /// An object's bytes, if they are whole.
    pub(super) fn object(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Fault> {
        let mut bytes = Vec::new();
        let mut number = 0;
        loop {
            let Some(record) = self.get(&key(digest, number))? else { return Ok(None) };
            let Some((count, piece)) = split_piece(&record) else { return Ok(None) };
            bytes.extend_from_slice(piece);
            number += 1;
            if number >= count {
                break;
            }
        }
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    /// The one commit function: the database holds `root` and `kept` objects,
    /// and nothing else, and a power cut takes none of it away.
    ///
    /// After an error the database must be dropped: what reached the disk is
    /// known only to the next open.
    pub(super) fn write(
        &mut self,
        root: &Root,
        kept: &BTreeSet<Digest>,
        mut read: impl FnMut(&Digest) -> Result<Vec<u8>, JournalError>,
    ) -> Result<(), Fault> {
        let encode =
            |error| Fault::Unusable(failed("encode", &self.folder, std::io::Error::new(ErrorKind::InvalidData, error)));
        let fields = fields(&root.state).map_err(encode)?;
        let index = Index {
            generation: root.generation,
            fields: fields.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect(),
            kept: root.kept.clone(),
        };
        let mut needs = kept.clone();
        let mut batch = sled::Batch::default();
        let mut pieces = 0;
        let mut several = false;
        for bytes in fields.into_values() {
            let digest = Digest::of(&bytes);
            needs.insert(digest);
            if !self.objects.contains(&digest) {
                pieces += put(&mut batch, &digest, &bytes);
                self.objects.insert(digest);
            }
        }
        for digest in kept {
            if self.objects.contains(digest) {
                continue;
            }
            let bytes = read(digest).map_err(Fault::Unusable)?;
            for (number, piece) in split(&bytes) {
                let key = key(digest, number);
                batch.insert(&key[..], seal(&key, &piece));
                pieces += 1;
                if pieces >= BATCH {
                    self.apply(std::mem::take(&mut batch))?;
                    (pieces, several) = (0, true);
                }
            }
            self.objects.insert(*digest);
        }
        if several {
            // The root must not be durable before what it names.
            self.settle()?;
        }
        let gone: Vec<Digest> =
            self.objects.union(&self.torn).filter(|digest| !needs.contains(digest)).copied().collect();
        for digest in gone {
            for key in self.keys(&digest)? {
                batch.remove(key);
            }
            self.objects.remove(&digest);
            self.torn.remove(&digest);
        }
        let index = serde_json::to_vec(&index).map_err(encode)?;
        batch.insert(ROOT, seal(ROOT, &index));
        self.apply(batch)?;
        self.settle()?;
        self.generation = root.generation;
        Ok(())
    }

    fn keys(&self, digest: &Digest) -> Result<Vec<sled::IVec>, Fault> {
        let Some(db) = &self.db else { return Ok(Vec::new()) };
        sleds(&self.folder, || db.scan_prefix(&key(digest, 0)[..33]).keys().collect())
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), Fault> {
        self.db.as_ref().map_or(Ok(()), |db| sleds(&self.folder, || db.apply_batch(batch)))
    }

    /// sled's flush writes its buffers and calls `sync_file_range`, which
    /// neither writes the file's metadata nor empties the disk's cache.
    fn settle(&self) -> Result<(), Fault> {
        let Some(db) = &self.db else { return Ok(()) };
        sleds(&self.folder, || db.flush())?;
        self.file
            .sync_all()
            .map_err(|error| failed("sync", &self.folder, error))
            .and_then(|()| sync_folder(&self.folder))
            .map_err(Fault::Unusable)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // sled flushes when it is dropped, and a broken one may panic there.
        if let Err(message) = guarded(|| drop(self.db.take())) {
            tracing::debug!(message, "database closed with a panic");
        }
    }
}

/// One object while its records go by.
struct Pieces {
    digest: Digest,
    hash: sha2::Sha256,
    seen: u32,
    count: u32,
}

impl Pieces {
    fn new(digest: Digest) -> Self {
        Self { digest, hash: sha2::Sha256::new(), seen: 0, count: 0 }
    }

    fn add(&mut self, number: u32, payload: &[u8]) {
        if let Some((count, piece)) = split_piece(payload)
            && number == self.seen
            && (number == 0 || count == self.count)
        {
            self.hash.update(piece);
            self.count = count;
            self.seen += 1;
        }
    }

    fn is_whole(&self) -> bool {
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        self.seen > 0 && self.seen == self.count && Digest::from(digest) == self.digest
    }
}

fn put(batch: &mut sled::Batch, digest: &Digest, bytes: &[u8]) -> usize {
    let mut pieces = 0;
    for (number, piece) in split(bytes) {
        let key = key(digest, number);
        batch.insert(&key[..], seal(&key, &piece));
        pieces += 1;
    }
    pieces
}

/// An object's pieces, each behind the count of all.
fn split(bytes: &[u8]) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let count = u32::try_from(bytes.len().div_ceil(PIECE).max(1)).unwrap_or(u32::MAX);
    (0..count).map(move |number| {
        let start = number as usize * PIECE;
        let end = bytes.len().min(start + PIECE);
        (number, [&count.to_be_bytes()[..], &bytes[start..end]].concat())
    })
}

fn split_piece(payload: &[u8]) -> Option<(u32, &[u8])> {
    let (count, piece) = payload.split_first_chunk()?;
    Some((u32::from_be_bytes(*count), piece))
}

fn key(digest: &Digest, number: u32) -> [u8; 37] {
    let mut key = [b'o'; 37];
    key[1..33].copy_from_slice(digest.as_bytes());
    key[33..].copy_from_slice(&number.to_be_bytes());
    key
}

fn split_key(key: &[u8]) -> Option<(Digest, u32)> {
    let (digest, number) = key.strip_prefix(b"o")?.split_first_chunk::<32>()?;
    Some((Digest::from(*digest), u32::from_be_bytes(number.try_into().ok()?)))
}

/// Opens sled. A database that this process closed a moment ago may still be
/// held by sled's own threads: the store's lock says that it is nobody else.
fn open_sled(folder: &Path, config: &sled::Config) -> Result<sled::Db, Fault> {
    let mut tries = 0;
    loop {
        match guarded(|| config.open()) {
            Ok(Err(sled::Error::Io(error))) if tries < 50 && error.to_string().contains("acquire lock") => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            outcome => return judged(folder, outcome),
        }
    }
}

/// A call into sled: its panics and errors, told apart by what can be done.
fn sleds<T>(folder: &Path, work: impl FnOnce() -> sled::Result<T>) -> Result<T, Fault> {
    judged(folder, guarded(work))
}

fn judged<T>(folder: &Path, outcome: Result<sled::Result<T>, String>) -> Result<T, Fault> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if !is_damage(&error) => {
            Err(Fault::Unusable(failed("use the database in", folder, error)))
        }
        Ok(Err(error)) => Err(Fault::Damaged(error.to_string())),
        Err(message) => Err(Fault::Damaged(message)),
    }
}

/// Whether an I/O error speaks of the file's content, not of the world around it.
fn is_damage(error: &std::io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
        || matches!(
            error.kind(),
            ErrorKind::UnexpectedEof
                | ErrorKind::InvalidData
                | ErrorKind::InvalidInput
                | ErrorKind::NotFound
                | ErrorKind::IsADirectory
                | ErrorKind::NotADirectory
        )
}

/// Puts a damaged database out of the way, for whoever wants to look at it.
/// One is kept: the newest.
pub(super) fn set_aside(folder: &Path) -> Result<PathBuf, JournalError> {
    let store = folder.parent().unwrap_or(folder);
    let mut newest = 0;
    let mut old = Vec::new();
    for entry in fs::read_dir(store).map_err(|error| failed("list", store, error))?.flatten() {
        let name = entry.file_name();
        let number =
            name.to_str().and_then(|name| name.strip_prefix("db.damaged-")).and_then(|n| n.parse::<u64>().ok());
        if let Some(number) = number {
            newest = newest.max(number);
            old.push(entry.path());
        }
    }
    let aside = store.join(format!("db.damaged-{}", newest.saturating_add(1)));
    fs::rename(folder, &aside).map_err(|error| failed("set aside", folder, error))?;
    for path in old {
        drop(fs::remove_dir_all(path));
    }
    sync_folder(store)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use super::{PIECE, SEAL, VALUE, seal, split};

    #[test]
    fn no_value_is_over_the_limit() {
        for (length, pieces) in [(0, 1), (1, 1), (PIECE, 1), (PIECE + 1, 2), (10 * PIECE, 10)] {
            let all: Vec<_> = split(&vec![7; length]).collect();
            assert_eq!(all.len(), pieces, "length {length}");
            assert!(all.iter().all(|(_, piece)| seal(b"k", piece).len() <= VALUE && piece.len() <= VALUE - SEAL));
        }
    }
}
