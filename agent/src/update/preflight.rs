//! Whether a program that was downloaded runs on this machine at all, asked
//! before anything depends on it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::Errno;
use tokio::process::Command;
use tokio::time::timeout;

const SIGKILL: i32 = 9;
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a program will not do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    pub(crate) cause: String,
    /// The device may be to blame, short of memory or of time: another try may
    /// find it fit.
    pub(crate) passing: bool,
    /// What a person can do.
    pub(crate) hint: String,
}

impl Unfit {
    fn lasting(cause: String) -> Self {
        let hint = "publish an agent for this machine under its right version and digest";
        Self { cause, passing: false, hint: hint.to_owned() }
    }

    fn passing(cause: String) -> Self {
        let hint = "it is tried again; `burgee-agent doctor` tells what the device lacks";
        Self { cause, passing: true, hint: hint.to_owned() }
    }

    fn not_allowed(program: &Path, error: &io::Error) -> Self {
        let folder = program.parent().unwrap_or(program).display();
        Self {
            cause: format!("this device does not let it start: {error}"),
            passing: true,
            hint: format!(
                "is {folder} on a file system that is mounted noexec, or does a policy (SELinux, AppArmor, fapolicyd) forbid programs there? It is tried again"
            ),
        }
    }
}

/// Asks `program` for its version.
///
/// # Errors
/// Says what it did instead of naming `version`.
pub(crate) async fn preflight(program: &Path, version: &str) -> Result<(), Unfit> {
    let asked = Command::new(program)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = match timeout(PATIENCE, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => {
            if is_of_the_device(&error) {
                return Err(Unfit::not_allowed(program, &error));
            }
            let cause = format!("it does not start on this machine: {error}");
            return Err(if is_of_the_program(&error) { Unfit::lasting(cause) } else { Unfit::passing(cause) });
        }
        Err(_) => return Err(Unfit::passing(format!("it did not tell its version in {} s", PATIENCE.as_secs()))),
    };
    if !output.status.success() {
        let cause = format!("asked for its version, it ended with {}", output.status);
        // Killed from outside: by the kernel that had no memory left, most likely.
        let killed = output.status.signal() == Some(SIGKILL);
        return Err(if killed { Unfit::passing(cause) } else { Unfit::lasting(cause) });
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    if said == format!("burgee-agent {version}") {
        return Ok(());
    }
    let said: String = said.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(Unfit::lasting(format!("it says that it is {said:?}, not `burgee-agent {version}`")))
}

/// Whether a start fails by what the program is, whenever it is tried.
pub(super) fn is_of_the_program(error: &io::Error) -> bool {
    is(error, &[Errno::NOEXEC, Errno::NOENT, Errno::LIBBAD])
}

/// Whether a start fails by what the device allows: a file system without
/// programs, a policy.
fn is_of_the_device(error: &io::Error) -> bool {
    is(error, &[Errno::ACCESS, Errno::PERM])
}

fn is(error: &io::Error, any: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|code| any.iter().any(|errno| errno.raw_os_error() == code))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::{Unfit, preflight};

    #[tokio::test]
    async fn what_is_the_programs_fault_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("#!/bin/sh\necho burgee-agent 1.2.0\n", None),
            ("#!/bin/sh\necho burgee-agent 1.2.1\n", Some(false)),
            ("#!/bin/sh\nexit 3\n", Some(false)),
            ("#!/bin/sh\nkill -ILL $$\n", Some(false)),
            ("#!/bin/sh\nkill -KILL $$\n", Some(true)),
            ("#!/no/such/interpreter\n", Some(false)),
            ("\u{7f}ELF of another machine", Some(false)),
            // As on a file system without programs.
            ("not allowed", Some(true)),
        ];
        for (number, (text, passing)) in cases.iter().enumerate() {
            let program = folder.path().join(number.to_string());
            fs::write(&program, text).unwrap();
            let mode = if *text == "not allowed" { 0o600 } else { 0o700 };
            fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
            // Another test's fork may hold the file open for writing for a moment.
            let mut found = preflight(&program, "1.2.0").await;
            for _ in 0..100 {
                if !matches!(&found, Err(Unfit { cause, .. }) if cause.contains("busy")) {
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                found = preflight(&program, "1.2.0").await;
            }
            assert_eq!(found.as_ref().err().map(|unfit| unfit.passing), *passing, "{text}: {found:?}");
        }
    }
}
