//! Notifies: the hub's hint that there is something to fetch. Unsigned JSON: a
//! forged one costs a fetch, and fetches coalesce.

use serde::{Deserialize, Serialize};

/// A hint to fetch. An empty object is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Notify {
    /// Each device draws its place within this many seconds; 0: at once.
    pub spread_secs: u64,
    /// The branch that moved, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Where it moved to, if that is known: for logs alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// The longest notify that is looked at, in bytes.
pub const NOTIFY_LIMIT: usize = 4096;
