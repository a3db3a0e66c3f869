//! Whether a program that was downloaded runs on this machine at all, asked
//! before anything depends on it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

/// Asks `program` for its version.
///
/// # Errors
/// Says what it did instead of naming `version`.
pub(crate) async fn preflight(program: &Path, version: &str) -> Result<(), String> {
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
        Ok(Err(error)) => return Err(format!("it does not start on this machine: {error}")),
        Err(_) => return Err(format!("it did not tell its version in {} s", PATIENCE.as_secs())),
    };
    if !output.status.success() {
        return Err(format!("asked for its version, it ended with {}", output.status));
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let said = said.trim();
    if said == format!("burgee-agent {version}") {
        return Ok(());
    }
    let said: String = said.chars().filter(|c| !c.is_control()).take(60).collect();
    Err(format!("it says that it is {said:?}, not `burgee-agent {version}`"))
}
