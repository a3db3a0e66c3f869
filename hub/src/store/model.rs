//! The values that go into the store and come out of it.

use std::collections::BTreeMap;

use fleet::name::DeviceName;
use fleet::wire::report::ReportBody;
pub use fleet::wire::report::{Outcome, Place};
use fleet::wire::status::Status;
use jiff::Timestamp;
use serde::Serialize;

use crate::axes::{HealthAxis, LinkAxis, SyncAxis};

/// Labels, or what a token allows of them.
pub type Labels = BTreeMap<String, String>;

/// Where a device stands with the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Proved its key; waits for an operator.
    Lobby,
    /// Reports are stored, commands are sent.
    Accepted,
    /// Decommissioned: its key counts for nothing.
    Removed,
}

impl DeviceState {
    /// As stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lobby => "lobby",
            Self::Accepted => "accepted",
            Self::Removed => "removed",
        }
    }
}

/// A device as stored.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    pub name: DeviceName,
    #[serde(skip)]
    pub key: [u8; 32],
    pub state: DeviceState,
    /// As the device claimed at enrolment, within what its token allowed.
    pub labels: Labels,
    /// The id of its join token.
    pub token: Option<String>,
    pub enrolled: Timestamp,
    /// The newest status.
    pub status: Option<Status>,
    /// By the device's clock.
    pub status_at: Option<Timestamp>,
    /// By the hub's.
    pub status_received: Option<Timestamp>,
    pub sync: SyncAxis,
    pub health: HealthAxis,
    /// The last signed report of any kind, by the hub's clock.
    pub last_seen: Option<Timestamp>,
    /// The broker's unsigned hint.
    pub mqtt_up: Option<bool>,
    /// Two agents were found to live with its key.
    pub twin: Option<Twin>,
}

/// Two agents with one key: the device was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Twin {
    pub since: Timestamp,
    /// When the one that spoke less lately was heard.
    pub seen: Timestamp,
}

impl Device {
    /// Its twin, if both were heard of since `silent_before`.
    #[must_use]
    pub fn twin(&self, silent_before: Timestamp) -> Option<Twin> {
        self.twin.filter(|twin| twin.seen >= silent_before)
    }
}

/// A run of a device's agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunSeen {
    /// What it drew at its start; empty: an agent of before that.
    pub run: String,
    /// The machine, as the device tells it from others.
    pub machine: Option<String>,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// A device to enrol.
#[derive(Clone, Debug)]
pub struct NewDevice {
    pub name: DeviceName,
    pub key: [u8; 32],
    pub state: DeviceState,
    pub labels: Labels,
    pub token: String,
    pub now: Timestamp,
}

/// Which devices.
#[derive(Clone, Debug, Default)]
pub struct DeviceFilter {
    /// `None`: lobby and accepted.
    pub state: Option<DeviceState>,
    /// Part of the name, or of `key=value` of a label.
    pub search: Option<String>,
    pub phase: Option<String>,
    pub sync: Option<String>,
    pub health: Option<String>,
    /// The start of a revision.
    pub revision: Option<String>,
    /// By the last signed report; silent is one before the time given.
    pub link: Option<(LinkAxis, Timestamp)>,
    /// Copied, with both heard of since then.
    pub copied: Option<Timestamp>,
    pub offset: u32,
    /// 0: all.
    pub limit: u32,
}

/// The fleet in numbers; accepted devices only, but for `lobby`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct FleetCounts {
    pub accepted: u64,
    pub lobby: u64,
    pub phases: Vec<Group>,
    pub sync: Vec<Group>,
    pub health: Vec<Group>,
    pub heard: u64,
    pub silent: u64,
    /// Never sent a report.
    pub unheard: u64,
    /// Two agents live with the device's key.
    pub copied: u64,
    /// Revision → devices on it, most first.
    pub revisions: Vec<Group>,
}

/// So many devices have `key`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    pub key: String,
    pub count: u64,
}

/// A join token to keep. The token itself is never stored.
#[derive(Clone, Debug)]
pub struct NewToken {
    pub id: String,
    pub hash: [u8; 32],
    /// `None`: any number.
    pub uses: Option<u32>,
    /// Labels that a device may claim; empty: any.
    pub labels: Labels,
    pub lobby: bool,
    pub created: Timestamp,
    pub expires: Timestamp,
}

/// A join token as stored.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    pub id: String,
    #[serde(skip)]
    pub hash: [u8; 32],
    pub uses: Option<u32>,
    pub used: u32,
    pub labels: Labels,
    pub lobby: bool,
    pub created: Timestamp,
    pub expires: Timestamp,
    pub revoked: bool,
}

/// What came of enrolling a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enrolled {
    /// It is enrolled, now or before.
    Done,
    /// A device of that name has another key; nothing was changed.
    NameTaken,
    /// This one has that key; nothing was changed.
    KeyOf(DeviceName),
}

/// What came of using a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUse {
    Taken,
    Expired,
    UsedUp,
    Revoked,
    Unknown,
}

/// What came of storing a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Stored now.
    New,
    /// Was there already; nothing changed.
    Duplicate,
}

/// What came of storing a batch, after its commit.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// One a report, in order.
    pub taken: Vec<Taken>,
    /// How far each of the batch's devices may be told that its reports are stored.
    pub acks: Vec<AckAt>,
}

/// A device's acknowledgement to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckAt {
    pub device: DeviceName,
    pub place: Place,
    /// max(last + 1, Unix milliseconds).
    pub sequence: u64,
    /// The run that it is for; empty: an agent that draws none.
    pub run: String,
    /// The highest place of any run.
    pub known: Place,
    /// Since when another run lives.
    pub twin: Option<Timestamp>,
}

/// An event or a log excerpt of a device.
#[derive(Clone, Debug)]
pub struct Entry {
    pub place: Place,
    pub at: Timestamp,
    pub received: Timestamp,
    pub body: ReportBody,
    /// The run that sent it.
    pub run: String,
}

/// A signed command to keep until it is answered or expires.
#[derive(Clone, Debug)]
pub struct NewCommand {
    pub device: DeviceName,
    pub sequence: u64,
    /// For people and the page: `rollback`, `logs pos 100`.
    pub act: String,
    pub jws: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// A command as stored.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredCommand {
    pub device: DeviceName,
    pub sequence: u64,
    pub act: String,
    #[serde(skip)]
    pub jws: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub sent: Option<Timestamp>,
    pub done: Option<Timestamp>,
    pub outcome: Option<Outcome>,
    pub message: String,
}

/// How often something was refused.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    pub reason: String,
    pub count: u64,
    pub last: Timestamp,
    /// The device it said it was, or whose topic it came by; unproven.
    pub device: Option<String>,
}

/// One webhook.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    pub kind: String,
    pub received: Timestamp,
    pub outcome: String,
    pub branch: Option<String>,
}
