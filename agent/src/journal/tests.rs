#![expect(clippy::cast_possible_truncation, reason = "of small numbers")]

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::contract::{advance, holds, kept, revision, state};
use super::memory::MemoryJournal;
use super::record::{FORMAT, seal};
use super::{Journal, JournalError, SledJournal, State};

/// Every file below a folder with its length and inode: what a write changes.
fn files(folder: &Path) -> Vec<(PathBuf, u64, u64, i64)> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                all.push((entry.path(), metadata.len(), metadata.ino(), metadata.mtime_nsec()));
            }
        }
    }
    all.sort();
    all
}

/// Splitmix64: seeded, so that a failure can be repeated.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }

    /// Flips bits, zeroes a range, fills it with noise, cuts the file short,
    /// or repeats a part of it elsewhere.
    fn corrupt(&mut self, path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let length = bytes.len() as u64;
        let start = self.below(length) as usize;
        let run = (1 + self.below(2048)) as usize;
        let end = bytes.len().min(start + run);
        match self.below(5) {
            0 => (0..8).for_each(|_| {
                let place = self.below(length) as usize;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << self.below(8);
                }
            }),
            1 => bytes[start..end].fill(0),
            2 => bytes[start..end].iter_mut().for_each(|byte| *byte = self.below(256) as u8),
            3 => bytes.truncate(start),
            _ => {
                let source = self.below(length) as usize;
                let run = (end - start).min(bytes.len() - source);
                bytes.copy_within(source..source + run, start);
            }
        }
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn both_journals_keep_the_contract() {
    holds(MemoryJournal::default(), |journal| journal);
    let store = tempfile::tempdir().unwrap();
    holds(SledJournal::open(store.path()).unwrap(), |journal| {
        drop(journal);
        SledJournal::open(store.path()).unwrap()
    });
}

#[test]
fn a_second_agent_is_refused() {
    let store = tempfile::tempdir().unwrap();
    let first = SledJournal::open(store.path()).unwrap();
    assert!(matches!(SledJournal::open(store.path()), Err(JournalError::Locked { .. })));
    drop(first);
    assert!(SledJournal::open(store.path()).is_ok());
}

#[test]
fn an_equal_state_writes_nothing() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::open(store.path()).unwrap();
    advance(&mut journal, 3, 9000);
    let before = files(store.path());
    let (kept, blobs) = kept(3, 9000);
    journal.commit(state(3), Some((&kept, &blobs))).unwrap();
    journal.commit(state(3), None).unwrap();
    assert_eq!(files(store.path()), before);
    drop(journal);
    // sled notes a snapshot when it is closed; from then on an open and a
    // close leave the second copy alone.
    let copy = files(&store.path().join("copy"));
    drop(SledJournal::open(store.path()).unwrap());
    assert_eq!(files(&store.path().join("copy")), copy);
}

#[test]
fn a_phase_change_rewrites_no_kept_state() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::open(store.path()).unwrap();
    advance(&mut journal, 1, 100_000);
    let objects = files(&store.path().join("copy/objects"));
    let size = fs::metadata(store.path().join("db/db")).unwrap().len();
    for epoch in 0..20 {
        journal.commit(State { epoch, ..state(1) }, None).unwrap();
    }
    assert_eq!(files(&store.path().join("copy/objects")), objects);
    assert!(fs::metadata(store.path().join("db/db")).unwrap().len() <= size + (512 << 10));
}

#[test]
fn sleds_file_stays_bounded_and_makes_no_blob_files() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::open(store.path()).unwrap();
    let commits = std::env::var("BURGEE_PROVE").map_or(300, |_| 10_000);
    for number in 0..commits {
        if number % 10 == 0 {
            advance(&mut journal, number / 10, 30_000);
        } else {
            journal.commit(State { epoch: number, ..state(number / 10) }, None).unwrap();
        }
    }
    let size = fs::metadata(store.path().join("db/db")).unwrap().len();
    println!("{commits} commits: sled's file has {} KiB", size >> 10);
    assert!(size < 32 << 20, "{commits} commits: {size} bytes");
    assert_eq!(fs::read_dir(store.path().join("db/blobs")).unwrap().count(), 0);
    // Two kept states of two files, one of them shared.
    assert_eq!(fs::read_dir(store.path().join("copy/objects")).unwrap().count(), 5);
    drop(journal);
    let begun = std::time::Instant::now();
    let journal = SledJournal::open(store.path()).unwrap();
    println!("opened in {:?}", begun.elapsed());
    let last = commits - 1;
    assert_eq!(journal.state(), &State { epoch: last, ..state(last / 10) });
    assert!(journal.notice().is_none());
}

/// Corrupts what `choose` picks, some hundreds of times: the journal opens
/// with the last commit, and says what it had to mend.
fn survives(seed: u64, choose: impl Fn(&mut Seeded, &Path) -> Vec<PathBuf>) {
    let rounds = std::env::var("BURGEE_PROVE").map_or(150, |_| 1500);
    let mut seeded = Seeded(seed);
    let store = tempfile::tempdir().unwrap();
    let mut mended = 0;
    for round in 1..=rounds {
        let mut journal = SledJournal::open(store.path()).unwrap();
        advance(&mut journal, round, 5000);
        journal.commit(State { epoch: round + 7, ..state(round) }, None).unwrap();
        drop(journal);
        let targets = choose(&mut seeded, store.path());
        for path in &targets {
            seeded.corrupt(path);
        }
        let journal =
            SledJournal::open(store.path()).unwrap_or_else(|error| panic!("round {round}: {error} {targets:?}"));
        assert_eq!(journal.state(), &State { epoch: round + 7, ..state(round) }, "round {round}: {targets:?}");
        for number in [round, round - 1] {
            let found = journal.kept(&revision(number)).unwrap();
            let want = (number > 0).then(|| kept(number, 5000));
            assert_eq!(found, want, "round {round}, kept {number}: {targets:?}");
        }
        mended += u64::from(journal.notice().is_some());
    }
    assert!(mended > rounds / 5, "{mended} of {rounds} were noticed");
    let aside = fs::read_dir(store.path()).unwrap().map(Result::unwrap);
    assert!(aside.filter(|entry| entry.file_name().to_string_lossy().starts_with("db.damaged-")).count() <= 1);
}

fn any_below(seeded: &mut Seeded, folder: &Path) -> PathBuf {
    let all = files(folder);
    all[seeded.below(all.len() as u64) as usize].0.clone()
}

#[test]
fn a_corrupt_database_is_rebuilt() {
    survives(1, |seeded, store| {
        let count = 1 + seeded.below(3);
        (0..count).map(|_| store.join("db/db")).chain([any_below(seeded, &store.join("db"))]).collect()
    });
}

#[test]
fn a_corrupt_second_copy_is_rebuilt() {
    survives(2, |seeded, store| {
        let copy = store.join("copy");
        vec![any_below(seeded, &copy), any_below(seeded, &copy), copy.join("slot-0"), copy.join("slot-1")]
    });
}

#[test]
fn noise_everywhere_is_an_error_and_never_an_empty_journal() {
    let mut seeded = Seeded(3);
    for round in 0..60 {
        let store = tempfile::tempdir().unwrap();
        let mut journal = SledJournal::open(store.path()).unwrap();
        advance(&mut journal, 1, 5000);
        advance(&mut journal, 2, 5000);
        drop(journal);
        for (path, ..) in files(store.path()) {
            seeded.corrupt(&path);
        }
        match SledJournal::open(store.path()) {
            Ok(journal) => {
                assert!([1, 2].contains(&journal.state().epoch), "round {round}");
                // Either given back whole, or said to be lost.
                for number in [1, 2] {
                    if let Ok(Some(found)) = journal.kept(&revision(number)) {
                        assert_eq!(found, kept(number, 5000), "round {round}");
                    }
                }
            }
            Err(error) => assert!(matches!(error, JournalError::Damaged { .. }), "round {round}: {error}"),
        }
    }
}

#[test]
fn either_copy_may_be_lost_whole() {
    for lost in ["db", "copy"] {
        let store = tempfile::tempdir().unwrap();
        let mut journal = SledJournal::open(store.path()).unwrap();
        advance(&mut journal, 1, 5000);
        advance(&mut journal, 2, 5000);
        drop(journal);
        fs::remove_dir_all(store.path().join(lost)).unwrap();
        let journal = SledJournal::open(store.path()).unwrap();
        assert_eq!(journal.state(), &state(2), "{lost}");
        assert!(journal.notice().is_some_and(|notice| notice.contains("rebuilt")), "{lost}");
        drop(journal);
        let journal = SledJournal::open(store.path()).unwrap();
        assert_eq!(journal.kept(&revision(1)).unwrap(), Some(kept(1, 5000)), "{lost}");
        assert!(journal.notice().is_none(), "{lost}: {:?}", journal.notice());
    }
}

#[test]
fn a_newer_format_is_refused() {
    let store = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::open(store.path()).unwrap();
    advance(&mut journal, 1, 100);
    drop(journal);
    // A process that another test forks holds sled's lock for a moment longer;
    // the journal's own open waits for that, too.
    let start = std::time::Instant::now();
    let db = loop {
        match sled::open(store.path().join("db")) {
            Ok(db) => break db,
            Err(error) => assert!(start.elapsed().as_secs() < 10, "{error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let mut record = seal(b"root", b"whatever comes");
    // A record as a later agent would seal it.
    record[0] = FORMAT + 1;
    let mut sealed = vec![FORMAT + 1, 0, 0, 0, 4];
    sealed.extend_from_slice(b"root");
    sealed.extend_from_slice(b"whatever comes");
    record[1..33].copy_from_slice(fleet::digest::Digest::of(&sealed).as_bytes());
    db.insert("root", record).unwrap();
    db.flush().unwrap();
    drop(db);
    match SledJournal::open(store.path()) {
        Err(error @ JournalError::Newer { .. }) => assert!(error.to_string().contains("written by a newer agent")),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    }
}

#[test]
fn a_database_that_is_far_too_large_is_built_anew() {
    let store = tempfile::tempdir().unwrap();
    let file = store.path().join("db/db");
    let mut journal = SledJournal::open(store.path()).unwrap();
    advance(&mut journal, 1, 12 << 20);
    // Both kept states are small again.
    advance(&mut journal, 3, 1000);
    advance(&mut journal, 4, 1000);
    drop(journal);
    // However much of it sled gave back by itself.
    let size = fs::metadata(&file).unwrap().len().max(super::LARGE + 1);
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(size.next_multiple_of(512 << 10)).unwrap();
    let mut journal = SledJournal::open(store.path()).unwrap();
    assert!(fs::metadata(&file).unwrap().len() < 4 << 20);
    assert!(!store.path().join("db.old").exists());
    assert_eq!(journal.state(), &state(4));
    assert_eq!(journal.kept(&revision(4)).unwrap(), Some(kept(4, 1000)));
    assert!(journal.notice().is_none(), "{:?}", journal.notice());
    advance(&mut journal, 5, 1000);
    drop(journal);
    assert_eq!(SledJournal::open(store.path()).unwrap().state(), &state(5));
}
