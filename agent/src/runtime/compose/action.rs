//! What the steps of a compose plan do.

use fleet::compose::model::Condition;
use fleet::digest::Digest;

/// One action on the Engine or on the folder of files. All of them may be
/// repeated: what is there already is not done twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Writes a service's files.
    WriteFolder {
        service: String,
        digest: Digest,
    },
    /// By the network's key; one that is to be replaced goes first.
    CreateNetwork {
        key: String,
        replaces: Option<String>,
    },
    /// By the volume's key.
    CreateVolume {
        key: String,
    },
    /// Creates, connects, does not start. `name` differs from the container's
    /// final name while that is taken; `former` is what it takes over from.
    CreateContainer {
        service: String,
        number: u32,
        name: String,
        digest: String,
        former: Option<String>,
    },
    /// Stops within the grace time, and removes.
    RemoveContainer {
        id: String,
        grace_secs: u32,
    },
    /// Renames it from a name that it bore meanwhile, and starts it.
    StartContainer {
        name: String,
        from: Option<String>,
        start: bool,
    },
    /// Waits until every container of a service is as a dependent wants it.
    AwaitService {
        service: String,
        condition: Condition,
        required: bool,
        limit_ms: u64,
    },
    /// Watches containers for a while after an update.
    Watch {
        names: Vec<String>,
        monitor_ms: u64,
        healthy: bool,
        tolerate: bool,
        limit_ms: u64,
        then_ms: u64,
    },
    RemoveNetwork {
        id: String,
    },
    RemoveVolume {
        name: String,
    },
}
