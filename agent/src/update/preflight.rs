//! Whether a program that was downloaded runs on this machine at all, asked
//! before anything depends on it.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

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
}

impl Unfit {
    fn lasting(cause: String) -> Self {
        Self { cause, passing: false }
    }

    fn passing(cause: String) -> Self {
        Self { cause, passing: true }
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
            let cause = format!("it does not start on this machine: {error}");
            return Err(Unfit { cause, passing: !is_of_the_program(&error) });
        }
        Err(_) => return Err(Unfit::passing(format!("it did not tell its version in {} s", PATIENCE.as_secs()))),
    };
    if !output.status.success() {
        let cause = format!("asked for its version, it ended with {}", output.status);
        // Killed from outside: by the kernel that had no memory left, most likely.
        return Err(Unfit { cause, passing: output.status.signal() == Some(SIGKILL) });
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
fn is_of_the_program(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lasting = [Errno::NOEXEC, Errno::ACCESS, Errno::PERM, Errno::NOENT, Errno::LIBBAD];
    error.raw_os_error().is_some_and(|code| lasting.iter().any(|errno| errno.raw_os_error() == code))
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
        ];
        for (number, (text, passing)) in cases.iter().enumerate() {
            let program = folder.path().join(number.to_string());
            fs::write(&program, text).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
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
