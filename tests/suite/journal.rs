//! The journal against the faults that a device meets: a process that is
//! killed, a power cut, a disk that is full or read-only.
//!
//! A power cut is a loop-mounted ext4 that is shut down without flushing its
//! log (`EXT4_IOC_SHUTDOWN`): what was not on the disk by then is gone. That
//! this cuts deep enough is shown first, on sled's own flush, which loses what
//! it acknowledged. Needs root. `BURGEE_PROVE=1` raises the counts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use agent::journal::SledJournal;
use agent::phase::Phase;
use agent::ports::journal::{Journal as _, JournalError, Kept, State};
use fleet::desired::{
    AppSpec, Blobs, DesiredApp, DesiredFile, DesiredState, DriftMode, DriftPolicy, FilesSpec, HealthPolicy, Limit,
    OnFailure, PrunePolicy,
};
use fleet::digest::Digest;
use fleet::revision::Revision;

fn rounds(small: u64, large: u64) -> u64 {
    if std::env::var_os("BURGEE_PROVE").is_some() { large } else { small }
}

fn revision(number: u64) -> Revision {
    Revision { id: format!("{number:040x}").parse().expect("an id"), identity: Digest::of(&number.to_be_bytes()) }
}

/// A revision's state of one app with one file of `size` bytes.
fn kept(number: u64, size: usize) -> (Kept, Blobs) {
    let content: Arc<[u8]> = format!("revision {number}\n").into_bytes().into_iter().cycle().take(size).collect();
    let digest = Digest::of(&content);
    let file = DesiredFile { content: digest, mode: 0o644, owner: None };
    let app = DesiredApp {
        name: "base".parse().expect("a name"),
        depends_on: Vec::new(),
        spec: AppSpec::Files(FilesSpec { files: BTreeMap::from([("/etc/a".to_owned(), file)]), units: Vec::new() }),
        health: HealthPolicy { timeout_ms: 1000, soak_ms: 100, checks: Vec::new() },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: Vec::new() },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: Vec::new() },
        on_failure: OnFailure::Rollback,
        digest,
    };
    let desired = DesiredState {
        fleet: "retail".parse().expect("a name"),
        device: "store-042".parse().expect("a name"),
        groups: Vec::new(),
        apps: vec![app],
        windows: Vec::new(),
        has_rollout: false,
        digest,
    };
    (Kept { revision: revision(number), desired, pins: BTreeMap::new() }, Blobs::from([(digest, content)]))
}

const SIZE: usize = 20_000;

fn state(epoch: u64) -> State {
    let number = epoch / 5;
    State {
        phase: Phase::Steady { at: revision(number) },
        good: Some(revision(number)),
        before: number.checked_sub(1).map(revision),
        epoch,
        ..State::default()
    }
}

fn commit(journal: &mut SledJournal, epoch: u64) -> Result<(), JournalError> {
    let (kept, blobs) = kept(epoch / 5, SIZE);
    journal.commit(state(epoch), Some((&kept, &blobs)))
}

/// Opens the journal of a process that was just killed or closed. Between fork
/// and exec, a child of another test's thread holds this program's locks, too.
fn open(store: &Path, place: &str) -> SledJournal {
    for _ in 0..500 {
        match SledJournal::open(store) {
            Err(JournalError::Locked { .. }) => sleep(Duration::from_millis(10)),
            Err(error) => panic!("{place}: {error}: {:?}", std::error::Error::source(&error)),
            Ok(journal) => return journal,
        }
    }
    panic!("{place}: the store stays locked");
}

/// The journal holds what was acknowledged, or the commit after it, whole.
fn check(store: &Path, acknowledged: u64, place: &str) -> u64 {
    let journal = open(store, place);
    let epoch = journal.state().epoch;
    assert!((acknowledged..=acknowledged + 1).contains(&epoch), "{place}: {acknowledged} acknowledged, {epoch} found");
    if epoch > 0 {
        assert_eq!(journal.state(), &state(epoch), "{place}");
        for revision in [epoch / 5, (epoch / 5).saturating_sub(1)] {
            let found = journal.kept(&self::revision(revision)).expect("a kept state");
            assert_eq!(found, Some(kept(revision, SIZE)), "{place}");
        }
    }
    epoch
}

/// Not a test of its own: the process that is killed. It commits until it
/// can't, and says so after each.
#[test]
fn child() {
    let Ok(mode) = std::env::var("BURGEE_JOURNAL_CHILD") else { return };
    let store = PathBuf::from(std::env::var("BURGEE_JOURNAL_STORE").expect("a store"));
    let say = |number: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nack {number}").and_then(|()| out.flush()).is_ok()
    };
    if mode == "plain" {
        // What the journal would be without its own fsync.
        let db = sled::Config::new().path(store.join("plain")).flush_every_ms(None).open().expect("sled");
        for number in 1.. {
            let done = db.insert("number", &u64::to_be_bytes(number)).and_then(|_| db.flush());
            if done.is_err() || !say(number) {
                return;
            }
        }
    }
    let mut journal = open(&store, "child");
    let first = journal.state().epoch + 1;
    for epoch in first.. {
        // A commit that fails is the power cut; another fault shows in that
        // nothing is acknowledged.
        if let Err(error) = commit(&mut journal, epoch) {
            assert!(epoch > first, "{error}: {:?}", std::error::Error::source(&error));
            return;
        }
        if !say(epoch) {
            return;
        }
    }
}

struct Victim {
    child: Child,
    lines: BufReader<ChildStdout>,
    acknowledged: u64,
}

impl Victim {
    fn start(mode: &str, store: &Path, acknowledged: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env("BURGEE_JOURNAL_CHILD", mode)
            .env("BURGEE_JOURNAL_STORE", store)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        let mut victim = Self { child, lines, acknowledged };
        while victim.acknowledged == acknowledged {
            assert!(victim.read(), "the child committed nothing");
        }
        victim
    }

    /// Reads a line; `false` at the end.
    fn read(&mut self) -> bool {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).is_ok_and(|length| length > 0);
        if let Some(number) = line.trim().strip_prefix("ack ") {
            self.acknowledged = number.parse().expect("a number");
        }
        read
    }

    /// Kills it and returns the last commit that it acknowledged.
    fn end(mut self) -> u64 {
        self.child.kill().expect("SIGKILL");
        while self.read() {}
        self.child.wait().expect("its end");
        self.acknowledged
    }
}

/// Spreads the moments of the faults, the same at every run.
fn moment(round: u64) -> Duration {
    Duration::from_micros(500 + round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 60_000)
}

#[test]
fn a_kill_loses_nothing_that_was_acknowledged() {
    let store = tempfile::tempdir().expect("a folder");
    let mut epoch = 0;
    for round in 0..rounds(15, 300) {
        let victim = Victim::start("journal", store.path(), epoch);
        sleep(moment(round));
        let acknowledged = victim.end();
        epoch = check(store.path(), acknowledged, &format!("round {round}"));
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
}

/// A file system of its own, on a loop device.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(mib: u64) -> Self {
        assert!(rustix::process::geteuid().is_root(), "mounting a loop device needs root");
        let disk = Self { folder: tempfile::tempdir().expect("a folder") };
        let image = fs::File::create(disk.image()).expect("an image");
        image.set_len(mib << 20).expect("its size");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &disk.image().display().to_string()]);
        fs::create_dir(disk.at()).expect("a mount point");
        disk.mount();
        disk
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn at(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn mount(&self) {
        run("mount", &["-o", "loop", &self.image().display().to_string(), &self.at().display().to_string()]);
    }

    fn unmount(&self) {
        run("umount", &[&self.at().display().to_string()]);
    }

    fn remount(&self, how: &str) {
        run("mount", &["-o", &format!("remount,{how}"), &self.at().display().to_string()]);
    }

    /// From here on nothing reaches the disk, and the log is not flushed.
    fn cut(&self) {
        // EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH; perl, because an
        // ioctl from here would need unsafe code.
        let script = r#"open(my $f, "<", $ARGV[0]) or die "open: $!"; my $flag = pack("I", 2); ioctl($f, 0x8004587d, $flag) or die "ioctl: $!""#;
        run("perl", &["-e", script, &self.at().display().to_string()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.at()).output());
    }
}

/// Cuts the power while `mode` commits. Returns the last acknowledged commit;
/// the disk is mounted again.
fn cut_while(disk: &Disk, mode: &str, before: u64, round: u64) -> u64 {
    let victim = Victim::start(mode, &disk.at(), before);
    sleep(moment(round));
    disk.cut();
    let acknowledged = victim.end();
    disk.unmount();
    disk.mount();
    // A container that starts beside this test has copied the mount: the file
    // system that was shut down lives until that copy is gone.
    while fs::write(disk.at().join("probe"), "").is_err() {
        disk.unmount();
        sleep(Duration::from_millis(100));
        disk.mount();
    }
    acknowledged
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    // The proof that the harness cuts: sled's own flush does not survive it.
    let mut lost = 0;
    let proofs = rounds(5, 50);
    for round in 0..proofs {
        let disk = Disk::new(16);
        let acknowledged = cut_while(&disk, "plain", 0, round);
        let found = sled::Config::new()
            .path(disk.at().join("plain"))
            .open()
            .ok()
            .and_then(|db| db.get("number").ok().flatten());
        let found = found.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes);
        lost += u64::from(found < acknowledged);
    }
    println!("{lost} of {proofs} power cuts took away what sled's flush had acknowledged");
    assert!(lost > 0, "of {proofs} power cuts sled's flush survived all: this harness proves nothing");

    let disk = Disk::new(48);
    let mut epoch = 0;
    for round in 0..rounds(24, 800) {
        let acknowledged = cut_while(&disk, "journal", epoch, round);
        // Each copy has to hold it alone, too.
        let place = match round % 3 {
            0 => "both copies",
            1 => {
                fs::remove_dir_all(disk.at().join("copy")).expect("a second copy");
                "the database alone"
            }
            _ => {
                fs::remove_dir_all(disk.at().join("db")).expect("a database");
                "the second copy alone"
            }
        };
        epoch = check(&disk.at(), acknowledged, &format!("round {round}, {place}"));
    }
}

/// Fills the disk to the last block.
fn fill(disk: &Disk) -> PathBuf {
    let path = disk.at().join("filler");
    let mut file = fs::File::create(&path).expect("a filler");
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
    drop(file.sync_all());
    path
}

#[test]
fn a_full_disk_keeps_the_state_and_lets_go_when_there_is_space() {
    let disk = Disk::new(16);
    let store = disk.at().join("store");
    let mut journal = SledJournal::open(&store).expect("a journal");
    (1..=20).for_each(|epoch| commit(&mut journal, epoch).expect("a commit"));
    let filler = fill(&disk);

    let failed = (21..100).find_map(|epoch| commit(&mut journal, epoch).err().map(|error| (epoch, error)));
    let (epoch, error) = failed.expect("a disk this full refuses");
    assert!(matches!(error, JournalError::Full { .. }), "{error:?}");
    assert_eq!(journal.state(), &state(epoch - 1), "what was durable still is");
    assert!(journal.notice().is_some_and(|notice| notice.contains("full")), "{:?}", journal.notice());
    assert_eq!(journal.kept(&revision((epoch - 1) / 5)).expect("kept"), Some(kept((epoch - 1) / 5, SIZE)));

    // A restart on the full disk still knows everything.
    drop(journal);
    let mut journal = SledJournal::open(&store).expect("a journal on a full disk");
    assert_eq!(journal.state(), &state(epoch - 1));
    assert_eq!(journal.kept(&revision((epoch - 1) / 5)).expect("kept"), Some(kept((epoch - 1) / 5, SIZE)));

    // Space comes back, and no restart is needed.
    fs::remove_file(filler).expect("space");
    commit(&mut journal, epoch).expect("a commit");
    assert!(journal.notice().is_none_or(|notice| !notice.contains("full")), "{:?}", journal.notice());
    drop(journal);
    check(&store, epoch, "after space came back");
}

#[test]
fn a_read_only_disk_keeps_the_state_and_says_so() {
    let disk = Disk::new(16);
    let store = disk.at().join("store");
    let mut journal = SledJournal::open(&store).expect("a journal");
    (1..=12).for_each(|epoch| commit(&mut journal, epoch).expect("a commit"));
    drop(journal);
    disk.remount("ro");

    let mut journal = SledJournal::open(&store).expect("a journal on a read-only disk");
    assert_eq!(journal.state(), &state(12));
    assert_eq!(journal.kept(&revision(2)).expect("kept"), Some(kept(2, SIZE)));
    assert!(journal.notice().is_some_and(|notice| notice.contains("read-only")), "{:?}", journal.notice());
    assert!(matches!(SledJournal::open(&store), Err(JournalError::Locked { .. })), "locked all the same");
    assert!(matches!(commit(&mut journal, 13), Err(JournalError::ReadOnly { .. })));
    commit(&mut journal, 12).expect("an equal state needs no disk");
    assert_eq!(journal.state(), &state(12));

    disk.remount("rw");
    commit(&mut journal, 13).expect("a commit");
    assert!(journal.notice().is_none(), "{:?}", journal.notice());
    drop(journal);
    check(&store, 13, "writable again");
}
