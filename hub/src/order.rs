//! Commands: from an operator's word to a signed message that waits for its answer.

use std::fmt;

use ed25519_dalek::SigningKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::command::{Act, Command};
use fleet::wire::jws::{self, JwsError, Kind};
use jiff::{SignedDuration, Timestamp};

use crate::store::{NewCommand, Store, StoreError, StoredCommand};

/// How soon a command that nobody answered is published again, at first. A
/// device takes a repeated one for a replay and says so, so it is not hurried.
const RESEND_FIRST: SignedDuration = SignedDuration::from_secs(15);
/// And after its first minute.
const RESEND_LATER: SignedDuration = SignedDuration::from_secs(300);

/// Why a command was not issued.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No accepted device of that name.
    #[error("no device {0} is accepted")]
    NoDevice(DeviceName),
    /// Never for a command of sane size.
    #[error("the command can't be signed")]
    Sign(#[source] JwsError),
    /// The store did not answer.
    #[error("the command is not kept")]
    Store(#[from] StoreError),
}

/// Signs a command and keeps it until it is answered or expires. `serve` sends it.
///
/// # Errors
/// When the device is not accepted or the store fails.
pub async fn issue<S: Store>(
    store: &S,
    key: &SigningKey,
    fleet: &FleetName,
    device: &DeviceName,
    act: Act,
    life: SignedDuration,
    now: Timestamp,
) -> Result<NewCommand, OrderError> {
    let sequence = store.sequence(device, now).await?.ok_or_else(|| OrderError::NoDevice(device.clone()))?;
    let expires = now.saturating_add(life).unwrap_or(Timestamp::MAX);
    let text = Named(&act).to_string();
    let command = Command { fleet: fleet.clone(), device: device.clone(), sequence, issued: now, expires, act };
    let jws = jws::sign(Kind::Command, &command, key).map_err(OrderError::Sign)?;
    let kept = NewCommand { device: device.clone(), sequence, act: text, jws, issued: now, expires };
    store.add_command(&kept).await?;
    Ok(kept)
}

/// An act as people type it.
struct Named<'a>(&'a Act);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Act::Sync => f.write_str("sync"),
            Act::Suspend => f.write_str("suspend"),
            Act::Resume => f.write_str("resume"),
            Act::Retry => f.write_str("retry"),
            Act::Rollback => f.write_str("rollback"),
            Act::Logs { app, lines } => write!(f, "logs {app} {lines}"),
        }
    }
}

/// Whether an unanswered command is to be published (again) at `now`.
#[must_use]
pub fn is_due(command: &StoredCommand, now: Timestamp) -> bool {
    let Some(sent) = command.sent else { return true };
    let young = now.duration_since(command.issued) < SignedDuration::from_mins(1);
    // A clock that went back must not stop it.
    now.duration_since(sent).abs() >= if young { RESEND_FIRST } else { RESEND_LATER }
}

/// Where a command stands, in a word.
#[must_use]
pub fn standing(command: &StoredCommand, now: Timestamp) -> &'static str {
    use crate::store::Outcome;
    match (command.outcome, command.sent) {
        (Some(Outcome::Done), _) => "done",
        (Some(Outcome::Refused), _) => "refused",
        (None, _) if now >= command.expires => "expired",
        (None, Some(_)) => "sent",
        (None, None) => "waiting",
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{is_due, standing};
    use crate::store::{Outcome, StoredCommand};

    #[test]
    fn due_and_standing() {
        let at = |secs| Timestamp::from_second(secs).expect("a time");
        let command = |sent: Option<i64>, outcome| StoredCommand {
            device: "a".parse().expect("a name"),
            sequence: 1,
            act: "sync".to_owned(),
            jws: String::new(),
            issued: at(0),
            expires: at(600),
            sent: sent.map(at),
            done: None,
            outcome,
            message: String::new(),
        };
        let cases = [
            ("new", command(None, None), 0, true, "waiting"),
            ("just sent", command(Some(0), None), 14, false, "sent"),
            ("no answer", command(Some(0), None), 15, true, "sent"),
            ("old, sent again lately", command(Some(100), None), 350, false, "sent"),
            ("old", command(Some(100), None), 400, true, "sent"),
            ("clock went back", command(Some(100), None), 0, true, "sent"),
            ("too late", command(Some(0), None), 600, true, "expired"),
            ("answered late", command(Some(0), Some(Outcome::Refused)), 900, true, "refused"),
        ];
        for (name, command, now, due, word) in cases {
            assert_eq!((is_due(&command, at(now)), standing(&command, at(now))), (due, word), "{name}");
        }
    }
}
