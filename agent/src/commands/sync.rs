//! `sync` and `rollback`: begin, then watch until the device comes to rest.

use std::io::{IsTerminal as _, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fleet::wire::status::{PhaseName, Status, Sync};
use tokio::time::{sleep, timeout};

use super::args::{Output, Wait};
use super::status::{exit_code, show, word};
use super::table::Paint;
use super::{Failure, json, print, tell};
use crate::clock::SystemClock;
use crate::control::ask;
use crate::ports::clock::Clock as _;
use crate::ports::control::{Answer, Ask};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The agent's status.
pub(super) async fn status(socket: &Path) -> Result<Status, Failure> {
    match ask(socket, Ask::Status).await? {
        Answer::Status(status) => Ok(*status),
        _ => Err(Failure::new(1, "the agent gave another answer than its status")),
    }
}

/// Asks for `order` and waits, as told, for what comes of it.
pub(super) async fn sync(socket: &Path, order: Ask, wait: Wait, output: Output) -> Result<ExitCode, Failure> {
    let fetches = matches!(order, Ask::Sync { .. });
    if let Answer::Done(done) = ask(socket, order).await? {
        tell(&done);
    }
    let limit = match wait {
        Wait::No => return Ok(ExitCode::SUCCESS),
        Wait::Yes(limit) => limit,
    };
    let resting = async {
        if fetches {
            // Before the fetch has ended, steady means nothing.
            ask(socket, Ask::Fetched).await?;
        }
        rest(socket).await
    };
    let status = match limit {
        None => resting.await?,
        Some(limit) => timeout(limit, resting).await.map_err(|_| {
            Failure::new(1, format!("not at rest after {} seconds", limit.as_secs()))
                .hint("it goes on; see burgee-agent status")
        })??,
    };
    print(&match output {
        Output::Json => json(&status)?,
        Output::Table => show(&status, SystemClock.now(), &Paint::on(stdout().is_terminal())),
    });
    // An operator who asks to go back has no interest in what the head is.
    let code = if fetches || status.phase == PhaseName::Stalled { exit_code(&status) } else { 0 };
    Ok(ExitCode::from(code))
}

/// Follows the status until nothing happens by itself any more.
async fn rest(socket: &Path) -> Result<Status, Failure> {
    let mut told = String::new();
    loop {
        let status = status(socket).await?;
        if is_at_rest(&status) {
            return Ok(status);
        }
        let message = progress(&status);
        if message != told {
            tell(&message);
            told = message;
        }
        sleep(LOOK).await;
    }
}

/// Held is rest, too: a window may be days away.
fn is_at_rest(status: &Status) -> bool {
    match status.phase {
        // Steady and not looked at yet is not known to be healthy.
        PhaseName::Steady => status.apps.iter().all(|app| app.sync != Sync::Updating),
        PhaseName::Stalled | PhaseName::Held => true,
        // Nothing was ever accepted; a failed fetch is retried, but not soon.
        PhaseName::Starting => status.conditions.iter().any(|condition| {
            !condition.status && matches!(condition.kind.as_str(), "Verified" | "Fetched" | "ClockSet")
        }),
        PhaseName::Preparing | PhaseName::Applying | PhaseName::Probing | PhaseName::RollingBack => false,
    }
}

/// One line: the phase, where to, and what is in the way. Hints come with the status.
fn progress(status: &Status) -> String {
    let target = match status.phase {
        // Where Git wants it may be elsewhere: an operator sent it back.
        PhaseName::Steady => status.revision.as_ref(),
        _ => status.target.as_ref().or(status.revision.as_ref()),
    };
    let target = target.map(|id| format!(" {}", id.short())).unwrap_or_default();
    // Of a head that is not taken, what is under way is none.
    let of_it = |kind: &str| status.phase == PhaseName::Starting || !matches!(kind, "Fetched" | "Verified");
    let trouble = status.conditions.iter().find(|condition| !condition.status && of_it(&condition.kind));
    let trouble = trouble.and_then(|condition| condition.message.lines().next());
    let trouble = trouble.map(|line| format!(": {line}")).unwrap_or_default();
    format!("{}{target}{trouble}", word(&status.phase))
}
