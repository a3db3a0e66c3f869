//! A first look at the database by a process of its own.
//!
//! sled 0.34 panics on some damaged files, and what is shipped ends with a
//! panic (docs/decisions/0021). So the agent has another process of itself
//! open and read the database first: what takes that one down, or keeps it
//! for too long, is damage, and the agent goes on with the second copy.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::database::Database;

/// A database of the size that the journal allows opens in milliseconds, on a
/// slow card in seconds.
const LIMIT: Duration = Duration::from_secs(120);
/// The command of the agent that only looks.
pub const COMMAND: &str = "look-at-database";

/// Opens and reads the database in `folder`, and nothing else: for the process
/// that may not come back. What it can say of damage, the agent finds itself.
pub fn look(folder: &Path) {
    drop(Database::open(folder));
}

/// Has `program` look at `folder`.
///
/// # Errors
/// How that process ended, where it did not come to its end.
pub(super) fn survives(program: &Path, folder: &Path) -> Result<(), String> {
    let looking = Command::new(program)
        .arg(COMMAND)
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut looking = match looking {
        Ok(looking) => looking,
        Err(error) => {
            // No look is no damage; it is opened all the same.
            tracing::warn!(%error, "cannot look at the database in a process of its own");
            return Ok(());
        }
    };
    match wait(&mut looking) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("opening it ended with {status}")),
        None => Err(format!("opening it did not end within {} s", LIMIT.as_secs())),
    }
}

fn wait(looking: &mut Child) -> Option<ExitStatus> {
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    while began.elapsed() < LIMIT {
        if let Ok(Some(status)) = looking.try_wait() {
            return Some(status);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    // It can't be waited for: killed, it is reaped here.
    drop(looking.kill());
    drop(looking.wait());
    None
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::survives;

    #[test]
    fn how_a_look_ends() {
        let folder = Path::new("/nowhere");
        assert_eq!(survives(Path::new("true"), folder), Ok(()));
        assert!(survives(Path::new("false"), folder).is_err());
        assert_eq!(survives(Path::new("/no/such/program"), folder), Ok(()));
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\nkill -ABRT $$\n").unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(script.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        // A file that is open for writing can't be run.
        let path = script.into_temp_path();
        let ended = survives(&path, folder).unwrap_err();
        assert!(ended.contains("signal: 6"), "{ended}");
    }
}
