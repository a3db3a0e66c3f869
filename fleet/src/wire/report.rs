//! Reports: what a device says, signed, to the hub.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::status::Status;
use crate::name::{DeviceName, FleetName};
use crate::revision::CommitId;

/// One report. Its place is (`epoch`, `counter`): the epoch is journalled once
/// a start, the counter is in memory, so that an idle device writes nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub fleet: FleetName,
    pub device: DeviceName,
    pub epoch: u64,
    pub counter: u64,
    /// When it was made, by the device's clock.
    pub at: Timestamp,
    pub body: ReportBody,
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
