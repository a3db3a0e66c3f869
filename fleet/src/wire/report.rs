//! Reports: what a device says, signed, to the hub.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::name::{DeviceName, FleetName};
use crate::revision::CommitId;

/// A report's place: the epoch is journalled once a start, the counter is in
/// memory, so that an idle device writes nothing. Later is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    pub epoch: u64,
    pub counter: u64,
}

/// The event by which a device gives its key up: whoever else has it goes on
/// alone. Sent with that key, for the last time.
pub const GIVEN_UP: &str = "identity-given-up";

/// The run of an agent that sends a report. Two devices with one key (one was
/// copied) give out the same places; their runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Drawn at the agent's start: up to 32 of `0-9a-f`.
    pub id: String,
    /// Tells one machine from another, for people: up to 32 of `0-9a-f`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// The highest sequence of an acknowledgement to this run that it has
    /// heard; 0: none. Says that it lives, however late a report comes.
    #[serde(default)]
    pub heard: u64,
}

impl Run {
    /// Whether its texts are what they have to be.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let hex = |text: &String| (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex(&self.id) && self.machine.as_ref().is_none_or(hex)
    }
}

/// One report. Its place is (`epoch`, `counter`); each place is used once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub fleet: FleetName,
    pub device: DeviceName,
    pub epoch: u64,
    pub counter: u64,
    /// The newest report before this one that the device still keeps for the
    /// hub to acknowledge; `None`: nothing before this one is to be waited for.
    /// See [`super::ack::advance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Place>,
    /// By which run of the agent it is sent; a report that waits is sent by a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// When it was made, by the device's clock.
    pub at: Timestamp,
    pub body: ReportBody,
}

impl Report {
    /// Its place.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, counter: self.counter }
    }
}

/// What a report says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportBody {
    /// The whole state; the newest one counts.
    Status(Box<Status>),
    /// Something that happened to a revision.
    Event(Event),
    /// An answer to the command `logs`.
    Logs(Logs),
    /// What became of any other command. Sent once a command.
    Answer(Answer),
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The command's sequence.
    pub command: u64,
    pub outcome: Outcome,
    /// One sentence, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What a device made of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Taken on: what comes of it shows in the status.
    Done,
    /// It would not, or could not.
    Refused,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub revision: Option<CommitId>,
    /// `accepted`, `refused`, `applied`, `steady`, `failed`, `rolled-back`, `drift-repaired`, …
    pub event: String,
    pub message: String,
}

/// Lines of an app's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logs {
    /// The command's sequence.
    pub command: u64,
    pub app: String,
    pub lines: Vec<String>,
}
