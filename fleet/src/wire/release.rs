//! Releases: the hub's signed word on which revision each stage may run.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name::{FleetName, RolloutName};
use crate::revision::CommitId;

/// One small document per fleet, the same bytes for every device; each works
/// out its own stage. A sequence that is not above the last one is a replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub fleet: FleetName,
    /// max(last + 1, Unix milliseconds).
    pub sequence: u64,
    pub issued: Timestamp,
    /// Past it the release is old: a condition, never a stop.
    pub expires: Timestamp,
    pub rollouts: BTreeMap<RolloutName, RolloutRelease>,
}

/// One rollout's part of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutRelease {
    /// By stage.
    pub stages: BTreeMap<String, StageRelease>,
}

/// What the devices of one stage may run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StageRelease {
    /// The commit, to fetch and to show.
    pub revision: CommitId,
    /// SHA-256 of its signed payload: what it is judged by.
    pub identity: Digest,
}
