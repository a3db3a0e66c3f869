//! The desired state: what one device is to run at one revision.
//!
//! Rendered on the device from the verified commit; kept whole in the journal,
//! so that repair and rollback need neither Git nor network. File contents are
//! named by digest and travel beside the state as [`Blobs`], so that the state
//! itself stays small.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::compose::model::Project;
use crate::digest::Digest;
use crate::name::{AppName, DeviceName, FleetName, GroupName};

/// File contents by their digest.
pub type Blobs = BTreeMap<Digest, Arc<[u8]>>;

/// What one device is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredState {
    /// The fleet's name.
    pub fleet: FleetName,
    /// The device that this was rendered for.
    pub device: DeviceName,
    /// The groups that the device is in, in order of priority.
    pub groups: Vec<GroupName>,
    /// Apps in the order in which they are applied: dependencies first.
    pub apps: Vec<DesiredApp>,
    /// The windows of the device's groups; it may apply while all are open.
    pub windows: Vec<Window>,
    /// Whether a rollout names one of the device's groups.
    pub has_rollout: bool,
    /// Over the apps' digests alone: equal digests mean that nothing is to do.
    pub digest: Digest,
}

/// One app, rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredApp {
    /// The app's name.
    pub name: AppName,
    /// Apps that are applied and healthy before this one.
    pub depends_on: Vec<AppName>,
    /// What is run, by runtime.
    pub spec: AppSpec,
    /// How it is judged.
    pub health: HealthPolicy,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// What is deleted when it leaves.
    pub prune: PrunePolicy,
    /// What happens when it fails.
    pub on_failure: OnFailure,
    /// Over everything above, contents of files included.
    pub digest: Digest,
}

/// What an app is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "runtime", content = "spec")]
pub enum AppSpec {
    /// Containers on Docker or Podman.
    Compose(Box<Project>),
    /// Files and systemd units.
    Files(FilesSpec),
    /// Objects on a Kubernetes API server: one JSON document per object, or
    /// the folder's files where a kustomization is rendered on the device.
    Kubernetes(KubernetesSpec),
}

impl AppSpec {
    /// The runtime's name, as in `app.yaml`.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        match self {
            Self::Compose(_) => "compose",
            Self::Files(_) => "files",
            Self::Kubernetes(_) => "kubernetes",
        }
    }
}

/// Reads JSON text alone. The derived reader would take any order of `runtime`
/// and `spec`, and for that has a second reader for every type of a spec:
/// a hundred kilobytes on each device.
impl<'de> Deserialize<'de> for AppSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tagged {
            runtime: String,
            spec: Box<RawValue>,
        }
        let Tagged { runtime, spec } = Tagged::deserialize(deserializer)?;
        let spec = spec.get();
        let read = match runtime.as_str() {
            "compose" => serde_json::from_str(spec).map(Self::Compose),
            "files" => serde_json::from_str(spec).map(Self::Files),
            "kubernetes" => serde_json::from_str(spec).map(Self::Kubernetes),
            other => return Err(D::Error::unknown_variant(other, &["compose", "files", "kubernetes"])),
        };
        read.map_err(D::Error::custom)
    }
}

/// Files and units of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesSpec {
    /// By absolute path on the device (below `runtime.files.root`).
    pub files: BTreeMap<String, DesiredFile>,
    /// Units to enable, start, and restart when one of the files changed.
    pub units: Vec<String>,
}

/// One file to deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredFile {
    /// Its bytes, in the blobs beside the state.
    pub content: Digest,
    /// Permission bits, for example `0o644`.
    pub mode: u32,
    /// `user:group`, names or numbers; absent means the agent's own.
    pub owner: Option<String>,
}

/// The Kubernetes objects of one app, as rendered before the server is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSpec {
    /// Namespace for objects that name none.
    pub namespace: Option<String>,
    /// Whether that namespace is made.
    pub create_namespace: bool,
    /// Whether objects that exist and that nobody manages are taken over.
    pub adopt: bool,
    /// Kinds that may be deleted and made anew.
    pub replace: Vec<String>,
    /// Whether `kubernetes/` is a kustomization that the device renders.
    pub kustomize: bool,
    /// The files below `kubernetes/`, variables put in, by path.
    pub files: BTreeMap<String, Digest>,
}

/// How long an app may take to be healthy, and what else is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthPolicy {
    /// From the last step to healthy, in milliseconds.
    pub timeout_ms: u64,
    /// Healthy for this long, in milliseconds.
    pub soak_ms: u64,
    /// Checks on top of what the runtime itself knows.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// A GET that has to answer with `status`.
    Http {
        /// Absolute URL.
        url: String,
        /// The status that counts as healthy.
        status: u16,
    },
    /// A TCP connection, `host:port`.
    Tcp(String),
    /// An active systemd unit.
    Unit(String),
    /// A program on the host that exits 0, if `agent.toml` allows it.
    Exec(Vec<String>),
}

/// What is done about drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftPolicy {
    /// Correct, report, or off.
    pub mode: DriftMode,
    /// JSON pointers that don't count (kubernetes).
    pub ignore: Vec<String>,
}

/// See [`DriftPolicy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DriftMode {
    /// Repair it.
    #[default]
    Correct,
    /// Say so in the status.
    Report,
    /// Don't look.
    Off,
}

/// What is deleted when it leaves the desired state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrunePolicy {
    /// Whether anything is.
    pub enabled: bool,
    /// At most this many, or this share, of the app's inventory at once.
    pub max_delete: Limit,
    /// Kinds that stay: `volumes`, `pvcs`, `namespaces`, `crds`.
    pub keep: Vec<String>,
}

/// A count or a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Limit {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u8),
}

/// What happens when an app fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Back to last good.
    #[default]
    Rollback,
    /// Stay, degraded, until a newer commit.
    Hold,
}

/// When a device may apply: weekly spans in a time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Days on which a span starts: 0 is Monday, 6 is Sunday.
    pub days: Vec<u8>,
    /// Minutes after midnight at which it starts.
    pub from_minute: u16,
    /// Its length in minutes; it may cross midnight.
    pub for_minutes: u32,
    /// An IANA time zone.
    pub tz: String,
}
