//! What the Engine has: one complete listing, or an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::engine::Link;
use super::labels::{self, Owner};
use super::read::{self, Summary};
use crate::ports::runtime::RuntimeError;

/// How a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Created,
    Running,
    Paused,
    /// The Engine is about to start it again.
    Restarting,
    Exited {
        code: i64,
    },
    /// On its way out, or broken.
    Gone,
}

/// A container of the app.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) number: u32,
    pub(super) digest: String,
    pub(super) stand: Stand,
    /// Names of the networks that it is attached to.
    pub(super) networks: BTreeSet<String>,
    /// Ids of the containers that it was made to share something with.
    pub(super) refers: BTreeSet<String>,
    /// Services that it came after.
    pub(super) depends: Vec<String>,
    /// Published ports as `number/protocol`.
    pub(super) ports: BTreeSet<String>,
    pub(super) grace_secs: u32,
}

/// A network or volume of the app.
#[derive(Clone, Debug)]
pub(super) struct SeenObject {
    pub(super) id: String,
    pub(super) digest: String,
}

/// The app's objects by name, and the names that are taken by others, each
/// with who made it.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    pub(super) containers: Vec<Seen>,
    pub(super) networks: BTreeMap<String, SeenObject>,
    pub(super) volumes: BTreeMap<String, SeenObject>,
    pub(super) foreign_containers: BTreeMap<String, String>,
    pub(super) foreign_networks: BTreeMap<String, String>,
    pub(super) foreign_volumes: BTreeMap<String, String>,
}

/// Lists everything.
///
/// # Errors
/// When any part of the listing fails.
pub(super) async fn observe(link: &Link, owner: Owner<'_>) -> Result<Observed, RuntimeError> {
    let mut observed = Observed::default();
    let (containers, networks, volumes) =
        futures_util::try_join!(read::containers(link), read::networks(link), read::volumes(link))?;
    for summary in containers {
        let labels = summary.labels.clone().unwrap_or_default();
        if owner.owns(&labels) {
            if let Some(seen) = seen(link, summary, &labels).await? {
                observed.containers.push(seen);
            }
        } else {
            for name in summary.names.unwrap_or_default() {
                observed.foreign_containers.insert(bare(&name), labels::maker(&labels));
            }
        }
    }
    observed.containers.sort_by(|a, b| a.name.cmp(&b.name));
    for network in networks {
        let labels = network.labels.unwrap_or_default();
        if owner.owns(&labels) {
            let digest = labels.get(labels::DIGEST).cloned().unwrap_or_default();
            observed.networks.insert(network.name, SeenObject { id: network.id, digest });
        } else {
            observed.foreign_networks.insert(network.name, labels::maker(&labels));
        }
    }
    for volume in volumes {
        let labels = volume.labels.unwrap_or_default();
        if owner.owns(&labels) {
            let digest = labels.get(labels::DIGEST).cloned().unwrap_or_default();
            observed.volumes.insert(volume.name.clone(), SeenObject { id: volume.name, digest });
        } else {
            observed.foreign_volumes.insert(volume.name, labels::maker(&labels));
        }
    }
    Ok(observed)
}

impl Stand {
    /// From the Engine's word for it.
    pub(super) fn new(state: &str, exit_code: i64) -> Self {
        match state {
            "created" | "configured" | "initialized" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "exited" | "stopped" | "stopping" => Self::Exited { code: exit_code },
            _ => Self::Gone,
        }
    }
}

async fn seen(link: &Link, summary: Summary, labels: &HashMap<String, String>) -> Result<Option<Seen>, RuntimeError> {
    let id = summary.id;
    let name = summary.names.unwrap_or_default().first().map(|name| bare(name)).unwrap_or_default();
    let mut stand = Stand::new(&summary.state, 0);
    if matches!(stand, Stand::Exited { .. }) {
        // The listing says how it ended in words only.
        let Some(found) = read::inspect(link, &id).await? else { return Ok(None) };
        stand = Stand::new(&found.state.status, found.state.exit_code);
    }
    let get = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let networks = summary.network_settings.networks.unwrap_or_default();
    let ports = summary.ports.unwrap_or_default();
    Ok(Some(Seen {
        id,
        name,
        service: get(labels::SERVICE),
        number: get(labels::NUMBER).parse().unwrap_or_default(),
        digest: get(labels::DIGEST),
        stand,
        networks: networks.into_keys().collect(),
        refers: get(labels::REFERS).split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect(),
        depends: labels::depends(labels.get(labels::DEPENDS)),
        ports: ports
            .iter()
            .filter_map(|port| port.public_port.map(|number| format!("{number}/{}", port.protocol)))
            .collect(),
        grace_secs: get(labels::GRACE).parse().unwrap_or(10),
    }))
}

/// The Engine writes names with a slash before them.
fn bare(name: &str) -> String {
    name.strip_prefix('/').unwrap_or(name).to_owned()
}
