//! What survives a power cut: the `Journal` port and its values.

use std::collections::{BTreeMap, BTreeSet};

use fleet::desired::{AppSpec, Blobs, DesiredState};
use fleet::digest::Digest;
use fleet::name::AppName;
use fleet::revision::{CommitId, Revision};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Reason;
use super::runtime::{Inventory, Object, Pins};
use crate::phase::Phase;

/// A revision's desired state as it is kept, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub revision: Revision,
    pub desired: DesiredState,
    /// What its images resolved to, by app: an app that did not change keeps
    /// what its tags meant.
    pub pins: BTreeMap<AppName, Pins>,
}

impl Kept {
    /// Every blob that the state names.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<Digest> {
        use fleet::compose::model::MountSource;
        let mut named = BTreeSet::new();
        for app in &self.desired.apps {
            match &app.spec {
                AppSpec::Files(spec) => named.extend(spec.files.values().map(|file| file.content)),
                AppSpec::Kubernetes(spec) => named.extend(spec.files.values()),
                AppSpec::Compose(project) => {
                    for mount in project.services.values().flat_map(|service| &service.mounts) {
                        match &mount.source {
                            MountSource::Repository { files, .. } => {
                                named.extend(files.values().map(|file| file.content));
                            }
                            MountSource::Content { file, .. } => {
                                named.insert(file.content);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        named
    }
}

/// The high-water mark of trust (design §4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub revision: Revision,
    /// The commit's `trust/` as it counts from here on: paths to bytes as text
    /// (`trust/allowed_signers`, `trust/revoked_keys`, `trust/policy.yaml`).
    /// Empty where the repository never had one.
    pub trust: BTreeMap<String, String>,
    /// Over every path, mode and file under `trust/`, so that any change of it
    /// shows; `None` where the commit has no `trust/`.
    pub trust_digest: Option<Digest>,
    /// Keys that a `revoked_keys` of the chain ever named: `ssh-ed25519 AAAA…`.
    pub revoked: BTreeSet<String>,
    /// The floor in force; it only ever moves forward.
    pub floor: Option<CommitId>,
    /// Floors that the revision is known to be at or above: no need to look again.
    pub above: BTreeSet<CommitId>,
    /// The committer's date: the clock is not set while it lies a day before it.
    pub committed_at: Timestamp,
    /// First principal of the key that signed it, and the key's fingerprint.
    pub signer: String,
    pub fingerprint: String,
    /// The commit message's first line.
    pub subject: String,
    /// Digest of what the device's own root files said when this was accepted.
    pub root: Digest,
}

/// A revision that is not tried again unprompted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    pub revision: Revision,
    /// Its desired state's digest, where it rendered.
    pub digest: Option<Digest>,
    /// Stable, CamelCase: `Unhealthy`, `ApplyFailed`, `RolledBack`, …
    pub reason: String,
    /// One sentence.
    pub message: String,
    pub since: Timestamp,
}

/// An operator's pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Repair stops, too.
    pub all: bool,
    pub by: String,
    pub since: Timestamp,
}

/// Everything small that survives a power cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    pub accepted: Option<Accepted>,
    pub phase: Phase,
    /// The newest revision that applied and stayed healthy, and the one before.
    pub good: Option<Revision>,
    pub before: Option<Revision>,
    pub blocked: Vec<Blocked>,
    /// By app, then by runtime: what burgee owns. Journalled before anything is created.
    pub inventory: BTreeMap<AppName, BTreeMap<String, Inventory>>,
    /// Apps that a step towards a revision touched since the device was last
    /// steady.
    pub touched: BTreeSet<AppName>,
    /// By app: what `prune.maxDelete` kept from being deleted. It stays until
    /// an operator says otherwise, however the inventory grows.
    pub withheld: BTreeMap<AppName, BTreeSet<Object>>,
    /// What of the inventory was there before burgee took it over.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<Object, Adoption>,
    pub suspended: Option<Suspension>,
    /// Counts starts of the agent; the first half of a report's place.
    pub epoch: u64,
    /// Highest sequence of a command and of a release that were acted on.
    pub command_sequence: u64,
    pub release_sequence: u64,
    /// The newest history entries, oldest first, bounded.
    pub history: Vec<HistoryEntry>,
}

impl State {
    /// What is given back instead of deleted should it leave: on the way back
    /// all that was taken over, else what no good revision has had yet.
    #[must_use]
    pub fn borrowed(&self, back: bool) -> BTreeSet<Object> {
        let held = self.adopted.iter().filter(|(_, adoption)| back || **adoption == Adoption::Trial);
        held.map(|(object, _)| object.clone()).collect()
    }

    /// The device is at a revision that is good: what it took over is its own
    /// from here on, and what is no longer owned is forgotten.
    pub fn settle_adopted(&mut self) {
        let owned: BTreeSet<&Object> =
            self.inventory.values().flat_map(BTreeMap::values).flat_map(Inventory::keys).collect();
        self.adopted.retain(|object, _| owned.contains(object));
        self.adopted.values_mut().for_each(|adoption| *adoption = Adoption::Settled);
    }
}

/// How far an object that was there before burgee is burgee's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adoption {
    /// Taken over by a revision that has not been good yet.
    Trial,
    /// A good revision has had it.
    Settled,
}

/// What happened to a revision on this device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub at: Timestamp,
    pub revision: CommitId,
    /// `accepted`, `applied`, `steady`, `failed`, `rolled-back`, …
    pub event: String,
    pub message: String,
}

/// Why the journal could not keep or give back what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("another agent holds {path}")]
    Locked { path: String },
    #[error("the disk under {path} is full")]
    Full { path: String },
    #[error("{path} is read-only")]
    ReadOnly { path: String },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + core::marker::Sync>,
    },
    #[error("{path} has format {format}, written by a newer agent; this one knows up to {known}")]
    Newer { path: String, format: u32, known: u32 },
    #[error("{what} is damaged in both copies")]
    Damaged { what: String },
}

impl Reason for JournalError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "StoreLocked",
            Self::Full { .. } => "DiskFull",
            Self::ReadOnly { .. } => "DiskReadOnly",
            Self::Io { .. } => "StoreFailed",
            Self::Newer { .. } => "StoreNewer",
            Self::Damaged { .. } => "StoreDamaged",
        }
    }

    fn is_transient(&self) -> bool {
        !matches!(self, Self::Locked { .. } | Self::Newer { .. } | Self::Damaged { .. })
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Locked { .. } => Some("stop the other burgee-agent, or give this one its own store.path".to_owned()),
            Self::Full { path } => {
                Some(format!("free space on the file system of {path}; the agent goes on by itself"))
            }
            Self::ReadOnly { path } => Some(format!("remount {path} writable; the agent goes on by itself")),
            Self::Newer { .. } => Some("install the agent that wrote it, or a newer one".to_owned()),
            Self::Damaged { .. } => Some(
                "move the store folder away to start anew; what runs stays, source.floor in agent.toml still holds"
                    .to_owned(),
            ),
            Self::Io { .. } => None,
        }
    }
}

/// What survives a power cut. Synchronous: a commit is a few milliseconds and
/// nothing may happen beside it.
pub trait Journal {
    /// As of the last commit.
    fn state(&self) -> &State;

    /// Makes `state` durable, and with it `keep` (a revision's desired state
    /// and its blobs). When this returns, a power cut loses none of it; when
    /// it fails, what was durable before still is. Kept states that neither
    /// phase, `good` nor `before` name are dropped. Equal state: no write.
    ///
    /// # Errors
    /// When the disk is full, read-only, or fails.
    fn commit(&mut self, state: State, keep: Option<(&Kept, &Blobs)>) -> Result<(), JournalError>;

    /// A kept state and its blobs.
    ///
    /// # Errors
    /// When it is damaged in both copies.
    fn kept(&self, revision: &Revision) -> Result<Option<(Kept, Blobs)>, JournalError>;

    /// What the open had to mend or do without, for a condition: the database
    /// was rebuilt from the second copy, the disk is read-only, …
    fn notice(&self) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Adoption, Inventory, Object, State};

    fn object(name: &str) -> Object {
        Object { kind: "ConfigMap".to_owned(), name: name.to_owned() }
    }

    #[test]
    fn what_was_there_before_is_borrowed_until_a_good_revision_has_had_it() {
        let names = |objects: BTreeSet<Object>| objects.into_iter().map(|it| it.name).collect::<Vec<_>>().join(" ");
        let adopted = [("old", Adoption::Settled), ("new", Adoption::Trial), ("gone", Adoption::Trial)]
            .map(|(name, adoption)| (object(name), adoption))
            .into();
        let mut state = State { adopted, ..State::default() };
        assert_eq!(names(state.borrowed(false)), "gone new", "on the way forth");
        assert_eq!(names(state.borrowed(true)), "gone new old", "on the way back");
        let owned: Inventory = ["old", "new", "made"].map(|name| (object(name), String::new())).into();
        state.inventory.entry("pos".parse().unwrap()).or_default().insert("kubernetes".to_owned(), owned);
        state.settle_adopted();
        assert_eq!(names(state.borrowed(false)), "");
        assert_eq!(names(state.borrowed(true)), "new old", "what is no longer owned is forgotten");
    }

    #[test]
    fn a_state_of_a_newer_agent_is_read_without_what_is_new() {
        let state: State = serde_json::from_str(r#"{"epoch":3,"of-tomorrow":{"a":1}}"#).unwrap();
        assert_eq!(state.epoch, 3);
        let text = serde_json::to_string(&State::default()).unwrap();
        assert!(!text.contains("adopted"), "an older agent reads what says nothing new: {text}");
    }
}
