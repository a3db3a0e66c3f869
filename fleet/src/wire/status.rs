//! What `burgee-agent status -o json` prints (design §13) and what a report
//! carries. Scripts outside the project read this: fields are only ever added.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{AppName, DeviceName};
use crate::revision::CommitId;

/// The device's state. Three axes that are never merged: sync, health, link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    pub device: DeviceName,
    pub phase: PhaseName,
    /// What runs, or is being moved to.
    pub revision: Option<CommitId>,
    pub last_good: Option<CommitId>,
    /// What a rollout, window or failure keeps the device from, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<CommitId>,
    pub blocked: Vec<BlockedStatus>,
    pub apps: Vec<AppStatus>,
    pub conditions: Vec<Condition>,
    pub link: Link,
    #[serde(default)]
    pub suspended: bool,
    /// The agent's version.
    #[serde(default)]
    pub agent: String,
}

/// Where the loop stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PhaseName {
    Starting,
    Steady,
    Preparing,
    Held,
    Applying,
    Probing,
    RollingBack,
    Stalled,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockedStatus {
    pub revision: CommitId,
    pub digest: Option<Digest>,
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    pub name: AppName,
    pub runtime: String,
    pub sync: Sync,
    pub health: Health,
    pub digest: Option<Digest>,
    /// One sentence on why it is not healthy or not in sync.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    Synced,
    OutOfSync,
    Updating,
    Unknown,
}

/// The verdict on an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    Healthy,
    Progressing,
    Degraded,
    Missing,
    Suspended,
    Unknown,
}

/// A typed truth about the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Verified`, `Prepared`, `Applied`, `Healthy`, `Drifted`, `Suspended`, `ClockSet`, …
    #[serde(rename = "type")]
    pub kind: String,
    pub status: bool,
    /// Stable, CamelCase.
    pub reason: String,
    /// For people: cause and hint.
    pub message: String,
    pub since: Timestamp,
}

/// Each `up`, `down` or `unused`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub git: LinkState,
    pub mqtt: LinkState,
    pub hub: LinkState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    Up,
    Down,
    Unused,
}
