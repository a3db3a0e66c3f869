//! The log of an app's units: what `journalctl` says.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::ports::runtime::RuntimeError;

const LIMIT: Duration = Duration::from_secs(20);

/// The last `lines` lines of `units`, oldest first.
pub(super) async fn read(units: &[String], lines: usize) -> Result<Vec<String>, RuntimeError> {
    let observe = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Observe {
        what: format!("the log of {}", units.join(", ")),
        source,
    };
    let mut command = Command::new("journalctl");
    command.args(["--quiet", "--no-pager", "--output=short-iso", "--lines"]).arg(lines.to_string());
    for unit in units {
        command.arg("--unit").arg(unit);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(RuntimeError::Refused {
                object: format!("the log of {}", units.join(", ")),
                cause: "journalctl is not installed on this device".to_owned(),
                hint: Some("install systemd's journal, or read the service's own log".to_owned()),
            });
        }
        Ok(Err(error)) => return Err(observe(Box::new(error))),
        Err(_) => return Err(observe(format!("journalctl took longer than {} s", LIMIT.as_secs()).into())),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(observe(format!("journalctl ended with {}: {}", output.status, said.trim()).into()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
