//! Releases as `packaging/package` makes them, of the programs that this run
//! tests: debug ones, or with `BURGEE_PROVE` what is shipped. Two versions,
//! whose programs differ by a mark, signed by a key of the tests. Made once, and
//! anew when a program or a packaging file changed.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::bins::{bin, root};
use crate::process::run;

/// The version that is installed first, and the one that follows it.
pub const FIRST: &str = "0.1.0";
/// See [`FIRST`].
pub const NEXT: &str = "0.1.1";

/// Folders with one release each.
#[derive(Clone, Debug)]
pub struct Releases {
    folder: PathBuf,
}

/// Whether the heavy form was asked for.
#[must_use]
pub fn proves() -> bool {
    std::env::var_os("BURGEE_PROVE").is_some()
}

impl Releases {
    /// Those of this machine's kind.
    #[must_use]
    pub fn made() -> Self {
        let folder = root().join(if proves() { "target/test-releases-shipped" } else { "target/test-releases" });
        fs::create_dir_all(&folder).expect("a folder");
        // Suites that start together make them once.
        let lock = fs::File::create(folder.join("lock")).expect("a lock");
        flock(&lock, FlockOperation::LockExclusive).expect("the lock");
        let releases = Self { folder };
        let programs = programs();
        let (stamp, file) = (stamp(&programs), releases.folder.join("stamp"));
        if fs::read_to_string(&file).is_ok_and(|done| done == stamp) {
            return releases;
        }
        let _ = fs::remove_file(&file);
        let key = releases.key();
        if !key.exists() {
            run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "release", "-f"]).arg(&key));
        }
        let next = releases.marked(&programs);
        for (version, programs) in [(FIRST, &programs), (NEXT, &next)] {
            let out = releases.of(version);
            let _ = fs::remove_dir_all(&out);
            let mut package = Command::new(root().join("packaging/package"));
            package.args(["--debug", "--version", version, "x86_64", "--programs"]).arg(programs);
            run(package.arg("--out").arg(&out).env("BURGEE_RELEASE_KEY", &key));
        }
        fs::write(&file, stamp).expect("the stamp");
        releases
    }

    /// The same programs as other files: with a section of their own.
    fn marked(&self, programs: &Path) -> PathBuf {
        let folder = self.folder.join("programs");
        fs::create_dir_all(&folder).expect("a folder");
        let mark = self.folder.join("mark");
        fs::write(&mark, NEXT).expect("a mark");
        for name in ["burgee-agent", "burgee-hub", "burgee"] {
            let mut command = Command::new("objcopy");
            command.arg("--add-section").arg(format!(".burgee.next={}", mark.display()));
            run(command.arg(programs.join(name)).arg(folder.join(name)));
        }
        folder
    }

    /// The folder of a version.
    #[must_use]
    pub fn of(&self, version: &str) -> PathBuf {
        self.folder.join(version)
    }

    /// The private key that signs them.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.join("key")
    }
}

/// The folder of the programs that are packed.
fn programs() -> PathBuf {
    if proves() { cross("x86_64", &["burgee-agent", "burgee-hub", "burgee"]) } else { built() }
}

fn built() -> PathBuf {
    let [agent, ..] = ["burgee-agent", "burgee-hub", "burgee"].map(bin);
    agent.parent().expect("a folder").to_owned()
}

/// Builds static programs for `target`, unless they are up to date: debug ones,
/// or with `BURGEE_PROVE` what is shipped. Their folder.
#[must_use]
pub fn cross(target: &str, programs: &[&str]) -> PathBuf {
    let mut build = Command::new(root().join("cross/build"));
    if !proves() {
        build.arg("--debug");
    }
    PathBuf::from(run(build.arg(target).args(programs)).trim())
}

/// What a release is made of: each file's name, size and time of change.
fn stamp(programs: &Path) -> String {
    let mut stamp = format!("{FIRST} and, marked, {NEXT}\n");
    let mut files: Vec<PathBuf> =
        ["burgee-agent", "burgee-hub", "burgee"].iter().map(|name| programs.join(name)).collect();
    for folder in ["packaging", "systemd"] {
        below(&root().join(folder), &mut files);
    }
    files.sort();
    for file in files {
        let metadata = fs::metadata(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let changed = (metadata.mtime(), metadata.mtime_nsec());
        writeln!(stamp, "{} {} {changed:?}", file.display(), metadata.len()).expect("a line");
    }
    stamp
}

fn below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() { below(&entry, files) } else { files.push(entry) }
    }
}
