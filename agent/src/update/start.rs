//! The guard: what `run` does first. The base turns into the program that the
//! record names, or stays itself.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fleet::digest::Digest;
use nix::unistd::alarm;
use sha2::{Digest as _, Sha256};

use super::choose::{Choice, Fault, choose, unusable};
use super::preflight::is_of_the_program;
use super::record::{Moment, Program, Record};
use super::{folder, program};

/// Tells a program where the base is.
const BASE: &str = "BURGEE_AGENT_BASE";
/// Tells it that it is on trial.
const TRIAL: &str = "BURGEE_AGENT_TRIAL";
/// Tells it for how many seconds more: an earlier start of it may have had some.
const LEFT: &str = "BURGEE_AGENT_TRIAL_SECS";

/// As what this process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The package's program, which a restart begins with.
    pub base: PathBuf,
    /// Whether this is another one than the base.
    pub by_base: bool,
    /// It has to prove itself.
    pub trial: bool,
    /// For so long, where the base says.
    pub left: Option<Duration>,
}

/// As what this process runs, as it is.
#[must_use]
pub fn itself() -> Launched {
    match std::env::var_os(BASE) {
        Some(base) => {
            let left = std::env::var(LEFT).ok().and_then(|secs| secs.parse().ok()).map(Duration::from_secs);
            Launched { base: base.into(), by_base: true, trial: std::env::var_os(TRIAL).is_some(), left }
        }
        None => {
            let base = std::env::current_exe().unwrap_or_else(|_| "burgee-agent".into());
            Launched { base, by_base: false, trial: false, left: None }
        }
    }
}

/// Turns into the program that is due, if it is another; returns as what this
/// process runs otherwise. To be called before anything is opened. One that
/// can't prove itself (`run --once`) begins no trial: `tries` is false.
#[must_use]
pub fn begin(store: &Path, tries: bool) -> Launched {
    let own = itself();
    if own.by_base {
        return own;
    }
    let base = own.base.clone();
    let folder = folder(store);
    let mut record = match Record::read(&folder) {
        Ok(record) if record == Record::default() => return own,
        Ok(record) => record,
        Err(error) => {
            tracing::error!(%error, "the record of downloaded agents can't be read; running the installed one");
            return own;
        }
    };
    if !tries {
        record.trial = None;
    }
    let digest = match digest_of(&base) {
        Ok(digest) => digest,
        Err(error) => {
            tracing::error!(%error, program = %base.display(), "cannot read the agent's own program");
            return own;
        }
    };
    follow(&mut record, &folder, &base, &digest);
    own
}

/// Turns into the program that proved itself, if there is one: what looks at
/// the device, or at a repository, for a person has to judge as the agent does.
/// Begins no trial and records nothing; returns where this is the program.
pub fn as_it_runs(store: &Path) {
    let own = itself();
    let folder = folder(store);
    if own.by_base {
        return;
    }
    let Ok(mut record) = Record::read(&folder) else { return };
    record.trial = None;
    if record.current.is_none() {
        return;
    }
    let Ok(digest) = digest_of(&own.base) else { return };
    if let Choice::Program(current) = choose(&mut record, &digest, &now()) {
        // One that can't be started is told of where the agent starts.
        drop(turn_into(&current, &folder, &own.base, None));
    }
}

/// Remembers that a downloaded agent knows all of the settings with this print.
pub fn knows(store: &Path, print: &Digest) {
    let folder = folder(store);
    let noted = Record::read(&folder).and_then(|mut record| {
        if record.settings.as_ref() == Some(print) {
            return Ok(());
        }
        record.settings = Some(*print);
        record.write(&folder)
    });
    if let Err(error) = noted {
        // What it goes back to may not start by these settings, then: said there.
        tracing::warn!(%error, "the record of downloaded agents can't be written");
    }
}

/// Whether a downloaded agent knew all of the settings with this print.
#[must_use]
pub fn knew(store: &Path, print: &Digest) -> bool {
    Record::read(&folder(store)).is_ok_and(|record| record.settings.as_ref() == Some(print))
}

/// Returns only where the base is to stay itself.
fn follow(record: &mut Record, folder: &Path, base: &Path, digest: &Digest) {
    loop {
        let before = record.clone();
        let choice = choose(record, digest, &now());
        if *record != before
            && let Err(error) = record.write(folder)
        {
            // A start that can't be counted is none: not the trial's.
            tracing::error!(%error, "the record of downloaded agents can't be written");
            *record = Record { trial: None, ..before };
            if matches!(choice, Choice::Trial(..)) {
                continue;
            }
        }
        let (chosen, limit) = match choice {
            Choice::Base => return,
            Choice::Program(chosen) => (chosen, None),
            Choice::Trial(chosen, limit) => (chosen, Some(limit)),
        };
        let (fault, cause) = match turn_into(&chosen, folder, base, limit) {
            Ok(never) => match never {},
            Err(unusable) => unusable,
        };
        let reason = fault.reason();
        tracing::error!(version = chosen.version, reason, cause, "a downloaded agent can't be started");
        unusable(record, &chosen, fault, &cause);
        if fault == Fault::Damaged {
            drop(std::fs::remove_file(program(folder, &chosen.sha256)));
        }
        if let Err(error) = record.write(folder) {
            tracing::error!(%error, "the record of downloaded agents can't be written");
        }
    }
}

fn turn_into(
    chosen: &Program,
    folder: &Path,
    base: &Path,
    limit: Option<u64>,
) -> Result<std::convert::Infallible, (Fault, String)> {
    let path = program(folder, &chosen.sha256);
    match digest_of(&path) {
        Ok(digest) if digest == chosen.sha256 => {}
        Ok(_) => return Err((Fault::Damaged, format!("{} is not what was downloaded", path.display()))),
        Err(error) => return Err((Fault::Damaged, format!("{}: {error}", path.display()))),
    }
    let mut command = again(&path);
    command.env(BASE, base);
    if let Some(limit) = limit {
        command.env(TRIAL, "1").env(LEFT, limit.to_string());
        // Outlives the exec: one that hangs is ended, whoever watches it. It
        // rings a little later than a program that works gives up by itself.
        alarm::set(u32::try_from(limit + limit / 10 + 1).unwrap_or(u32::MAX));
    }
    let error = command.exec();
    alarm::cancel();
    let fault = if is_of_the_program(&error) { Fault::NotExecutable } else { Fault::NotAllowed };
    Err((fault, error.to_string()))
}

/// Begins anew with the base, in this process: the service manager sees no
/// restart. Returns the error where that can't be done.
#[must_use]
pub fn restart(launched: &Launched) -> io::Error {
    alarm::cancel();
    again(&launched.base).exec()
}

/// The trial is over, well.
pub(crate) fn passed() {
    alarm::cancel();
}

/// This command line, run by another program.
fn again(path: &Path) -> Command {
    let mut command = Command::new(path);
    let mut line = std::env::args_os();
    command.arg0(line.next().unwrap_or_else(|| OsString::from("burgee-agent")));
    command.args(line).env_remove(BASE).env_remove(TRIAL).env_remove(LEFT);
    command
}

fn now() -> Moment {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Moment { boot: boot.trim().to_owned(), secs: u64::try_from(since.tv_sec).unwrap_or(0) }
}

/// # Errors
/// When the file can't be read.
pub(crate) fn digest_of(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::from(<[u8; 32]>::from(hash.finalize()))),
            read => hash.update(&buffer[..read]),
        }
    }
}
