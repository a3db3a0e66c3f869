//! A Compose project after everything is resolved: variables put in, files
//! merged, `extends` and `include` followed, short forms made long, names
//! made final. The runtime needs no opinion about the specification.
//!
//! All maps are ordered, so that a value's JSON is canonical and its digest
//! tells whether a service changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// One project: what `docker compose -p NAME` would call a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// The file's `name:`, else the app's name.
    pub name: String,
    /// Active services (profiles applied) by name.
    pub services: BTreeMap<String, Service>,
    /// Networks that a service uses, by their key in the file.
    pub networks: BTreeMap<String, Network>,
    /// Named volumes that a service uses, by their key in the file.
    pub volumes: BTreeMap<String, Volume>,
}

/// One service. `None` and empty mean: the image's or the Engine's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Service {
    pub image: String,
    pub platform: Option<String>,
    pub pull_policy: PullPolicy,
    pub container_name: Option<String>,
    /// Number of containers (`scale`, `deploy.replicas`); 1 by default.
    pub replicas: u32,
    pub command: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    /// `env_file`s merged under `environment`; null values removed.
    pub environment: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub working_dir: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mac_address: Option<String>,
    pub init: Option<bool>,
    pub tty: bool,
    pub stdin_open: bool,
    pub read_only: bool,
    pub privileged: bool,
    pub restart: Restart,
    pub stop_signal: Option<String>,
    pub stop_grace_period_ms: Option<u64>,
    pub ports: Vec<Port>,
    /// `port` or `port/protocol`; ranges made single.
    pub expose: Vec<String>,
    /// By the network's key in [`Project::networks`]; empty with `network_mode`.
    pub networks: BTreeMap<String, Attachment>,
    pub network_mode: Option<Mode>,
    pub pid: Option<Mode>,
    pub ipc: Option<Mode>,
    pub uts: Option<String>,
    pub userns_mode: Option<String>,
    pub cgroup: Option<String>,
    pub cgroup_parent: Option<String>,
    pub runtime: Option<String>,
    pub isolation: Option<String>,
    pub mounts: Vec<Mount>,
    /// Containers whose mounts are taken over.
    pub volumes_from: Vec<VolumesFrom>,
    pub volume_driver: Option<String>,
    pub links: Vec<Link>,
    pub external_links: Vec<String>,
    pub depends_on: BTreeMap<String, Dependency>,
    pub healthcheck: Option<Healthcheck>,
    pub resources: Resources,
    pub update: UpdateConfig,
    pub logging: Option<Logging>,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub devices: Vec<Device>,
    pub device_cgroup_rules: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_opt: Vec<String>,
    pub dns_search: Vec<String>,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub shm_size: Option<i64>,
    pub security_opt: Vec<String>,
    pub storage_opt: BTreeMap<String, String>,
    pub oom_kill_disable: Option<bool>,
    pub oom_score_adj: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// Pull what is not there.
    #[default]
    Missing,
    /// Ask the registry whenever a revision is prepared.
    Always,
    /// Never: the image has to be there.
    Never,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    #[default]
    No,
    Always,
    UnlessStopped,
    OnFailure {
        max_retries: Option<u32>,
    },
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    pub host_ip: Option<String>,
    /// A port, a range `8000-8010` to choose from, or absent: any.
    pub published: Option<String>,
}

/// `none`, `host`, or another container's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Handed to the Engine as it is: `none`, `host`, `bridge`, `private`, `shareable`, …
    Named(String),
    /// `service:NAME`: that service's container.
    Service(String),
    /// `container:NAME`: a container that burgee does not manage.
    Container(String),
}

/// How a service is attached to a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attachment {
    pub aliases: Vec<String>,
    pub ipv4_address: Option<String>,
    pub ipv6_address: Option<String>,
    pub link_local_ips: Vec<String>,
    pub mac_address: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub priority: i64,
    pub gw_priority: i64,
    pub interface_name: Option<String>,
}

/// One mount of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    pub target: String,
    pub read_only: bool,
    pub source: MountSource,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSource {
    /// An absolute path of the host.
    Bind {
        path: String,
        create_host_path: bool,
        propagation: Option<String>,
        /// `z` or `Z`.
        selinux: Option<String>,
        recursive: Option<String>,
    },
    /// A file or folder of the app in the repository, written to
    /// `<store>/apps/<app>/<digest>/` before the container is made.
    Repository {
        /// Path from the repository's root, file or folder.
        path: String,
        /// Whether `path` is a folder.
        folder: bool,
        /// The file itself (key empty) or the folder's files by relative path.
        files: BTreeMap<String, RepoFile>,
        /// `z` or `Z`.
        selinux: Option<String>,
    },
    /// A config or secret: one file with these bytes.
    Content {
        /// `config` or `secret`, and its name, for messages.
        name: String,
        file: RepoFile,
        uid: Option<String>,
        gid: Option<String>,
    },
    /// A named volume, by its key in [`Project::volumes`].
    Volume {
        key: String,
        nocopy: bool,
        subpath: Option<String>,
        labels: BTreeMap<String, String>,
    },
    /// A volume of the container's own.
    Anonymous {
        nocopy: bool,
    },
    Tmpfs {
        size: Option<i64>,
        mode: Option<u32>,
        options: Vec<String>,
    },
    /// Another image's files.
    Image {
        image: String,
        subpath: Option<String>,
    },
}

/// A file out of the repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepoFile {
    pub content: Digest,
    /// Permission bits.
    pub mode: u32,
    /// Whether the bytes are a secret: written 0600-like, never shown.
    pub secret: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumesFrom {
    /// A service of the project, or (`container:NAME`) a foreign container.
    pub source: Mode,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    pub service: String,
    pub alias: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dependency {
    pub condition: Condition,
    /// Recreate the dependent when the dependency is recreated.
    pub restart: bool,
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    Started,
    Healthy,
    CompletedSuccessfully,
}

/// Times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Healthcheck {
    /// `["NONE"]` disables the image's own; first is `CMD` or `CMD-SHELL`.
    pub test: Option<Vec<String>>,
    pub interval_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    pub retries: Option<u32>,
    pub start_period_ms: Option<u64>,
    pub start_interval_ms: Option<u64>,
}

/// `deploy.resources` and the older keys that say the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Billionths of a processor.
    pub nano_cpus: Option<i64>,
    pub cpu_shares: Option<i64>,
    pub cpu_period: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<i64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpuset: Option<String>,
    /// Bytes.
    pub memory: Option<i64>,
    pub memory_reservation: Option<i64>,
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<i64>,
    pub pids: Option<i64>,
    pub blkio_weight: Option<u16>,
    pub blkio_weight_device: Vec<(String, i64)>,
    /// Bytes a second by device path.
    pub device_read_bps: Vec<(String, i64)>,
    pub device_write_bps: Vec<(String, i64)>,
    pub device_read_iops: Vec<(String, i64)>,
    pub device_write_iops: Vec<(String, i64)>,
    /// `gpus` and `deploy.resources.reservations.devices`.
    pub gpus: Vec<DeviceRequest>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeviceRequest {
    pub driver: Option<String>,
    /// -1 is all.
    pub count: Option<i64>,
    pub device_ids: Vec<String>,
    pub capabilities: Vec<String>,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpdateConfig {
    pub start_first: bool,
    /// Watched for so long after it started, before the next.
    pub monitor_ms: Option<u64>,
    pub failure_action: FailureAction,
    pub parallelism: Option<u32>,
    pub delay_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureAction {
    /// What `app.yaml` says under `onFailure`.
    #[default]
    Default,
    Pause,
    Continue,
    Rollback,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    pub driver: Option<String>,
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    pub source: String,
    pub target: String,
    /// Of `rwm`.
    pub permissions: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    pub soft: i64,
    pub hard: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// The name at the Engine: `name:`, else `<project>_<key>`.
    pub name: String,
    /// Not made by burgee, has to be there.
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub internal: bool,
    pub attachable: bool,
    pub enable_ipv4: Option<bool>,
    pub enable_ipv6: Option<bool>,
    pub ipam_driver: Option<String>,
    pub ipam: Vec<IpamPool>,
    pub ipam_options: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IpamPool {
    pub subnet: Option<String>,
    pub ip_range: Option<String>,
    pub gateway: Option<String>,
    pub aux_addresses: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Volume {
    /// The name at the Engine: `name:`, else `<project>_<key>`.
    pub name: String,
    pub external: bool,
    pub driver: Option<String>,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
}
