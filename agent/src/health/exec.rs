//! A program on the host that exits 0; only those that agent.toml names.
//!
//! It runs as the agent's user, in a process group of its own that ends with
//! the check, without the agent's environment.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

const LIMIT: Duration = Duration::from_secs(30);
/// What is left in the pipes of a program that ended comes at once.
const REST: Duration = Duration::from_millis(500);
/// How much of what it said is shown.
const TAIL: usize = 400;

pub(super) async fn probe(allowed: &[PathBuf], command: &[String]) -> Result<(), String> {
    probe_within(LIMIT, allowed, command).await
}

pub(super) async fn probe_within(limit: Duration, allowed: &[PathBuf], command: &[String]) -> Result<(), String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("an exec check names no program".to_owned());
    };
    if !allowed.iter().any(|path| path.is_absolute() && path == Path::new(program)) {
        return Err(format!("{program} may not run on this device: add it to exec under [health] in agent.toml"));
    }
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} could not be started: {error}"))?;
    // Also when the check is cancelled.
    let group = Group(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw));
    let said = (
        child.stdout.take().map(|pipe| tokio::spawn(tail(pipe))),
        child.stderr.take().map(|pipe| tokio::spawn(tail(pipe))),
    );
    let ended = tokio::time::timeout(limit, child.wait()).await;
    drop(group);
    let status = match ended {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => format!("ended with {status}"),
        Ok(Err(error)) => format!("was lost: {error}"),
        Err(_) => format!("did not end within {} s and was killed", limit.as_secs()),
    };
    let mut words = String::new();
    for pipe in [said.1, said.0].into_iter().flatten() {
        if let Ok(Ok(text)) = tokio::time::timeout(REST, pipe).await {
            words.push_str(&text);
        }
    }
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.is_empty() { Err(format!("{program} {status}")) } else { Err(format!("{program} {status}: {words}")) }
}

/// The end of what a pipe brings.
async fn tail(mut pipe: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..read]);
        let surplus = kept.len().saturating_sub(TAIL);
        kept.drain(..surplus);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// A process group that ends when this is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Nobody left in it is the ordinary case.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
