//! Reports that must not be lost, kept until the hub acknowledges them.
//!
//! One file a report under `<store>/spool/`, named by its place and whole or
//! absent (temporary file, fsync, rename, fsync of the folder). Bounded by count
//! and bytes: the oldest goes first, and is counted. What the disk refuses stays
//! in memory, bounded more tightly, until the disk takes it again. Reports are
//! signed when they are sent, not here: what must hold is their place and time.
//!
//! **A folder that could not be listed is not an empty one**: its files stay
//! untouched, and listing is tried again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use fleet::wire::report::{Place, ReportBody};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::durable;

/// What the spool may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub reports: usize,
    pub bytes: u64,
    /// Of those, what may wait in memory while the disk takes nothing.
    pub memory_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { reports: 1000, bytes: 8 * 1024 * 1024, memory_bytes: 256 * 1024 }
    }
}

/// A report as it waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub(super) place: Place,
    pub(super) at: Timestamp,
    pub(super) body: ReportBody,
}

enum Slot {
    Disk { bytes: u64 },
    Memory { text: Vec<u8> },
}

impl Slot {
    fn bytes(&self) -> u64 {
        match self {
            Self::Disk { bytes } => *bytes,
            Self::Memory { text } => text.len() as u64,
        }
    }
}

pub(super) struct Spool {
    folder: PathBuf,
    bounds: Bounds,
    slots: BTreeMap<Place, Slot>,
    listed: bool,
    dropped: u64,
    /// Whether the last write went wrong, so that this is logged once.
    failing: bool,
}

impl Spool {
    /// What an earlier start left behind, and room for more. Never fails: an
    /// agent whose disk is in trouble still reports, from memory.
    pub(super) fn open(folder: PathBuf, bounds: Bounds) -> Self {
        let mut spool = Self { folder, bounds, slots: BTreeMap::new(), listed: false, dropped: 0, failing: false };
        spool.list();
        spool.trim();
        spool
    }

    /// Keeps a report; when this returns it is on disk, if the disk takes it.
    pub(super) fn push(&mut self, waiting: &Waiting) {
        let text = match serde_json::to_vec(waiting) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "a report has no JSON form and is given up");
                self.dropped += 1;
                return;
            }
        };
        if !self.listed {
            self.list();
        }
        self.slots.insert(waiting.place, Slot::Memory { text });
        self.trim();
        self.settle();
        self.trim_memory();
    }

    /// Forgets everything up to and with `place`; how many that were.
    pub(super) fn acknowledge(&mut self, place: Place) -> usize {
        if !self.listed {
            self.list();
        }
        let acknowledged: Vec<Place> = self.slots.range(..=place).map(|(place, _)| *place).collect();
        for place in &acknowledged {
            self.forget(*place);
        }
        acknowledged.len()
    }

    /// The places that wait, oldest first, from behind `after` on.
    pub(super) fn places(&self, after: Option<Place>) -> impl Iterator<Item = Place> + '_ {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.slots.range((from, std::ops::Bound::Unbounded)).map(|(place, _)| *place)
    }

    /// The newest place that waits before `place`.
    pub(super) fn before(&self, place: Place) -> Option<Place> {
        self.slots.range(..place).next_back().map(|(place, _)| *place)
    }

    /// A report that waits. One that is damaged is given up, counted, and gone.
    pub(super) fn read(&mut self, place: Place) -> Option<Waiting> {
        let text = match self.slots.get(&place)? {
            Slot::Memory { text } => text.clone(),
            Slot::Disk { .. } => match std::fs::read(self.path(place)) {
                Ok(text) => text,
                Err(error) => {
                    tracing::error!(%error, path = %self.path(place).display(), "a spooled report can't be read and is given up");
                    self.give_up(place);
                    return None;
                }
            },
        };
        match serde_json::from_slice::<Waiting>(&text) {
            Ok(waiting) if waiting.place == place => Some(waiting),
            _ => {
                tracing::error!(path = %self.path(place).display(), "a spooled report is damaged and given up");
                self.give_up(place);
                None
            }
        }
    }

    /// Gives one report up: it is gone, and counted.
    pub(super) fn give_up(&mut self, place: Place) {
        self.forget(place);
        self.dropped += 1;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Given up since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The highest place that waits.
    pub(super) fn last(&self) -> Option<Place> {
        self.slots.keys().next_back().copied()
    }

    fn path(&self, place: Place) -> PathBuf {
        self.folder.join(file_name(place))
    }

    fn list(&mut self) {
        match read_folder(&self.folder) {
            Ok(found) => {
                for (place, bytes) in found {
                    self.slots.entry(place).or_insert(Slot::Disk { bytes });
                }
                self.listed = true;
            }
            Err(error) => {
                tracing::error!(%error, folder = %self.folder.display(), "the spool can't be listed; reports wait in memory");
            }
        }
    }

    /// Brings what waits in memory to disk, oldest first, as far as it goes.
    fn settle(&mut self) {
        let in_memory: Vec<Place> = self
            .slots
            .iter()
            .filter(|(_, slot)| matches!(slot, Slot::Memory { .. }))
            .map(|(place, _)| *place)
            .collect();
        for place in in_memory {
            let path = self.path(place);
            let Some(Slot::Memory { text }) = self.slots.get(&place) else { continue };
            let bytes = text.len() as u64;
            let written = std::fs::create_dir_all(&self.folder).and_then(|()| durable::write(&path, text, 0o600));
            match written {
                Ok(()) => {
                    self.slots.insert(place, Slot::Disk { bytes });
                    self.failing = false;
                }
                Err(error) => {
                    if !self.failing {
                        tracing::error!(%error, folder = %self.folder.display(), "the spool can't be written; reports wait in memory");
                    }
                    self.failing = true;
                    return;
                }
            }
        }
    }

    fn trim(&mut self) {
        let mut bytes: u64 = self.slots.values().map(Slot::bytes).sum();
        while self.slots.len() > self.bounds.reports || bytes > self.bounds.bytes {
            let Some((place, size)) = self.slots.first_key_value().map(|(place, slot)| (*place, slot.bytes())) else {
                return;
            };
            bytes -= size;
            self.give_up(place);
            tracing::warn!(dropped = self.dropped, "the spool is full: its oldest report is given up");
        }
    }

    fn trim_memory(&mut self) {
        loop {
            let in_memory = || self.slots.iter().filter(|(_, slot)| matches!(slot, Slot::Memory { .. }));
            let bytes: u64 = in_memory().map(|(_, slot)| slot.bytes()).sum();
            let oldest = in_memory().next().map(|(place, _)| *place);
            match oldest {
                Some(place) if bytes > self.bounds.memory_bytes => self.give_up(place),
                _ => return,
            }
        }
    }

    /// No fsync: a report that comes back after a power cut is sent twice,
    /// which does no harm.
    fn forget(&mut self, place: Place) {
        if let Some(Slot::Disk { .. }) = self.slots.remove(&place)
            && let Err(error) = std::fs::remove_file(self.path(place))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path(place).display(), "a spooled report can't be removed");
        }
    }
}

fn file_name(place: Place) -> String {
    format!("{:016x}-{:016x}.json", place.epoch, place.counter)
}

fn parse_name(name: &str) -> Option<Place> {
    let (epoch, counter) = name.strip_suffix(".json")?.split_once('-')?;
    let hex = |text: &str| u64::from_str_radix(text, 16).ok().filter(|_| text.len() == 16);
    let place = Place { epoch: hex(epoch)?, counter: hex(counter)? };
    (file_name(place) == name).then_some(place)
}

/// Places and sizes; what a crash left half-written is removed.
fn read_folder(folder: &Path) -> io::Result<Vec<(Place, u64)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(place) = parse_name(name) {
            found.push((place, entry.metadata()?.len()));
        } else if name.ends_with(".json.tmp") {
            // Best effort: it is written over by the next report of that place.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use fleet::wire::report::{Event, Place, ReportBody};

    use super::{Bounds, Spool, Waiting, file_name};

    const BOUNDS: Bounds = Bounds { reports: 5, bytes: 4096, memory_bytes: 1024 };

    fn waiting(epoch: u64, counter: u64) -> Waiting {
        Waiting {
            place: Place { epoch, counter },
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            body: ReportBody::Event(Event { revision: None, event: "steady".into(), message: "x".repeat(50) }),
        }
    }

    fn places(spool: &Spool) -> Vec<(u64, u64)> {
        spool.places(None).map(|place| (place.epoch, place.counter)).collect()
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).map_or(0, Iterator::count)
    }

    #[test]
    fn survives_a_restart() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        assert!(!folder.exists(), "an idle spool writes nothing");
        for counter in 1..=3 {
            spool.push(&waiting(1, counter));
        }
        drop(spool);
        // A power cut while a fourth was being written, and a stranger's file.
        std::fs::write(folder.join(format!("{}.tmp", file_name(waiting(1, 4).place))), "{").unwrap();
        std::fs::write(folder.join("README"), "").unwrap();
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        assert_eq!(places(&spool), [(1, 1), (1, 2), (1, 3)]);
        assert_eq!(spool.read(waiting(1, 2).place), Some(waiting(1, 2)));
        assert_eq!(spool.before(Place { epoch: 2, counter: 1 }), Some(Place { epoch: 1, counter: 3 }));
        assert_eq!(spool.acknowledge(Place { epoch: 1, counter: 2 }), 2);
        assert_eq!(spool.acknowledge(Place { epoch: 1, counter: 2 }), 0);
        assert_eq!(places(&Spool::open(folder.clone(), BOUNDS)), [(1, 3)]);
        assert_eq!(files(&folder), 2, "the stranger's file stays");
    }

    #[test]
    fn drops_the_oldest_and_counts() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        for counter in 1..=8 {
            spool.push(&waiting(1, counter));
        }
        assert_eq!(places(&spool), [(1, 4), (1, 5), (1, 6), (1, 7), (1, 8)]);
        assert_eq!((spool.dropped(), files(&folder)), (3, 5));
        let tight = Bounds { bytes: 400, ..BOUNDS };
        let spool = Spool::open(folder.clone(), tight);
        assert!(spool.len() < 5 && !spool.is_empty(), "bytes are a bound, too, and hold for what was left behind");
        assert_eq!(files(&folder), spool.len());
    }

    #[test]
    fn damage_is_given_up() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        for counter in 1..=3 {
            spool.push(&waiting(1, counter));
        }
        std::fs::write(folder.join(file_name(waiting(1, 1).place)), "{\"place\"").unwrap();
        std::fs::copy(folder.join(file_name(waiting(1, 3).place)), folder.join(file_name(waiting(1, 2).place)))
            .unwrap();
        assert_eq!(spool.read(waiting(1, 1).place), None);
        assert_eq!(spool.read(waiting(1, 2).place), None, "a report in another's place");
        assert_eq!((spool.dropped(), places(&spool)), (2, vec![(1, 3)]));
    }

    #[test]
    fn waits_in_memory_while_the_disk_refuses() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        // A link to nowhere: the folder can be listed as absent, and not be made.
        symlink(store.path().join("nowhere/spool"), &folder).unwrap();
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        for counter in 1..=3 {
            spool.push(&waiting(1, counter));
        }
        assert_eq!(spool.read(waiting(1, 1).place), Some(waiting(1, 1)));
        std::fs::remove_file(&folder).unwrap();
        spool.push(&waiting(1, 4));
        assert_eq!(files(&folder), 4, "all reach the disk once it takes them");
        assert_eq!(spool.dropped(), 0);
    }

    #[test]
    fn memory_is_bounded() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        symlink(store.path().join("nowhere/spool"), &folder).unwrap();
        let mut spool = Spool::open(folder, Bounds { reports: 100, bytes: 1 << 20, memory_bytes: 1024 });
        for counter in 1..=50 {
            spool.push(&waiting(1, counter));
        }
        assert!(spool.len() < 10 && spool.len() > 2, "{}", spool.len());
        assert_eq!(spool.dropped() + spool.len() as u64, 50);
        assert_eq!(spool.last(), Some(waiting(1, 50).place));
    }

    #[test]
    fn unlistable_is_not_empty() {
        let store = tempfile::tempdir().unwrap();
        let folder = store.path().join("spool");
        Spool::open(folder.clone(), BOUNDS).push(&waiting(1, 1));
        let aside = store.path().join("aside");
        std::fs::rename(&folder, &aside).unwrap();
        // A file where the folder should be: listing fails, as with a dying disk.
        std::fs::write(&folder, "").unwrap();
        let mut spool = Spool::open(folder.clone(), BOUNDS);
        spool.push(&waiting(2, 1));
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(&aside, &folder).unwrap();
        spool.push(&waiting(2, 2));
        assert_eq!(places(&spool), [(1, 1), (2, 1), (2, 2)]);
    }
}
