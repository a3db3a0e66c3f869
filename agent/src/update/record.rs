//! The record of programs, read by agents of every age: fields are only ever
//! added, and what one doesn't know it passes over.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use fleet::digest::Digest;
use serde::{Deserialize, Serialize};

/// As many failed programs are remembered.
const FAILED: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Record {
    /// The base that the rest was written for. Another package means another
    /// base, which runs itself until the repository's word is read again.
    pub(crate) base: Option<Digest>,
    /// What runs instead of the base.
    pub(crate) current: Option<Program>,
    /// What is to run instead of `current`, if it stays healthy.
    pub(crate) trial: Option<Trial>,
    /// Oldest first.
    pub(crate) failed: Vec<Failed>,
    /// Of the settings that a downloaded agent last knew all of: the one that it
    /// goes back to need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) settings: Option<Digest>,
}

/// A program in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Program {
    pub(crate) version: String,
    pub(crate) sha256: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Trial {
    #[serde(flatten)]
    pub(crate) program: Program,
    /// How often it was started.
    pub(crate) starts: u32,
    /// Seconds from its first start to health.
    pub(crate) limit_secs: u64,
    /// Its first start.
    #[serde(default)]
    pub(crate) began: Option<Moment>,
}

/// A moment of a boot: what no clock that is set can move.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    /// The boot's id.
    pub(crate) boot: String,
    /// Seconds since it began, sleep included.
    pub(crate) secs: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Failed {
    #[serde(flatten)]
    pub(crate) program: Program,
    /// Stable, CamelCase.
    pub(crate) reason: String,
    pub(crate) message: String,
    /// Trials that ended so.
    pub(crate) times: u32,
    /// Not tried again before `retry` or another version.
    pub(crate) blocked: bool,
    /// The hub was told.
    #[serde(default)]
    pub(crate) told: bool,
}

impl Record {
    /// The record in `folder`; a missing one is empty.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        match fs::read(folder.join("record.json")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes it so that a power cut leaves the old one or this one.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        make_folder(folder)?;
        let fresh = folder.join("record.json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, folder.join("record.json"))?;
        File::open(folder)?.sync_all()
    }

    pub(crate) fn failure(&self, sha256: &Digest) -> Option<&Failed> {
        self.failed.iter().find(|failed| failed.program.sha256 == *sha256)
    }

    /// Remembers that a program failed, once more. It is blocked by itself
    /// after the third time.
    pub(crate) fn fail(&mut self, program: Program, reason: &str, message: String, block: bool) {
        let times = self.failure(&program.sha256).map_or(0, |failed| failed.times) + 1;
        self.failed.retain(|failed| failed.program.sha256 != program.sha256);
        let blocked = block || times >= 3;
        self.failed.push(Failed { program, reason: reason.to_owned(), message, times, blocked, told: false });
        let excess = self.failed.len().saturating_sub(FAILED);
        self.failed.drain(..excess);
    }
}

/// Makes the folder that only the agent's user may enter.
pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    folder.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}
