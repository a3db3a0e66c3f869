//! Validated settings. Built by the loader from merged fragments; each adapter
//! takes only its own part.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use fleet::name::DeviceName;

#[derive(Clone, Debug)]
pub struct Settings {
    pub device: DeviceSettings,
    pub source: SourceSettings,
    pub compose: ComposeSettings,
    pub kubernetes: KubernetesSettings,
    pub files: FilesSettings,
    pub health: HealthSettings,
    pub hub: Option<HubSettings>,
    pub mqtt: Option<MqttSettings>,
    pub update: UpdateSettings,
    pub store: StoreSettings,
    pub control: ControlSettings,
    pub metrics: Option<SocketAddr>,
    /// What is in them that this agent does not know, where another one does
    /// (docs/decisions/0027).
    pub passed_over: Option<String>,
}

#[derive(Clone, Debug)]
pub struct DeviceSettings {
    pub name: DeviceName,
    /// The pattern that the name was made from, where it is not just written.
    pub made_from: Option<String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// `https://…`, `http://…` (loopback and private links only by choice), `ssh://…`, `user@host:path`, `file://…` or a path.
    pub url: String,
    pub branch: String,
    pub poll: Duration,
    /// While MQTT is connected.
    pub poll_connected: Duration,
    /// Root of trust, `allowed_signers` format.
    pub trust: PathBuf,
    pub revoked: PathBuf,
    pub floor: Option<String>,
    pub token_file: Option<PathBuf>,
    pub username: Option<String>,
    pub ssh_key_file: Option<PathBuf>,
    pub known_hosts_file: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<String>,
    pub limits: Limits,
}

/// What a hostile host may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub pack_mib: u64,
    pub blob_mib: u64,
    pub files: u64,
    pub commits: u64,
    pub depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pack_mib: 64, blob_mib: 1, files: 20_000, commits: 10_000, depth: 64 }
    }
}

#[derive(Clone, Debug)]
pub struct ComposeSettings {
    /// `None`: Docker's default socket, else Podman's.
    pub socket: Option<String>,
    pub auth_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct FilesSettings {
    pub root: PathBuf,
    /// Absolute paths below which files may be written.
    pub allow: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct HealthSettings {
    pub exec: Vec<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct HubSettings {
    pub url: String,
    pub ca_file: Option<PathBuf>,
    /// A join token, by which a device that has not enrolled does so itself.
    pub token_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub struct MqttSettings {
    /// `mqtts://host:port` or `mqtt://host:port`.
    pub url: String,
    pub ca_file: Option<PathBuf>,
}

/// How the agent follows the version that `burgee.yaml` names.
#[derive(Clone, Debug)]
pub struct UpdateSettings {
    pub enabled: bool,
    /// From the start of a new agent to its being healthy.
    pub limit: Duration,
    /// For the host that the agent is downloaded from.
    pub ca_file: Option<PathBuf>,
    /// As for the fleet repository.
    pub proxy: Option<String>,
}

#[derive(Clone, Debug)]
pub struct StoreSettings {
    pub path: PathBuf,
}

#[derive(Clone, Debug)]
pub struct ControlSettings {
    pub socket: PathBuf,
}
