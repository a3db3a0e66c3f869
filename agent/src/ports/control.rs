//! What an operator on the device can ask: the values behind the local socket.

use fleet::name::AppName;
use fleet::revision::CommitId;
use fleet::wire::status::Status;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::journal::HistoryEntry;

/// A question or an order, as HTTP+JSON on the local socket carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    Status,
    /// Fetch and reconcile now; `prune`: past `prune.maxDelete`, too.
    Sync {
        prune: bool,
    },
    /// What a reconcile would do now.
    Diff,
    History,
    /// To the revision before last good.
    Rollback,
    Suspend {
        all: bool,
    },
    Resume,
    /// Unblock what failed and try it again.
    Retry,
    Logs {
        app: AppName,
        lines: usize,
    },
    /// Answered (with `Done`) once no fetch is due or under way, and what it
    /// found shows in the status: `sync` waits by it.
    Fetched,
    /// Accept this commit although it does not descend from the accepted one:
    /// the next fetch anchors anew by the root file, with this as the floor.
    Anchor {
        accept: CommitId,
    },
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    Status(Box<Status>),
    Diff(Vec<AppDiff>),
    History(Vec<HistoryEntry>),
    Lines(Vec<String>),
    /// Taken on; what happens next shows in the status.
    Done(String),
}

/// What a reconcile would do to one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppDiff {
    pub app: AppName,
    /// One line a step: `replace container/pos-web-1: image`.
    pub steps: Vec<String>,
}

/// Why an [`Ask`] can't be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct Refusal {
    /// Stable, CamelCase.
    pub reason: String,
    pub message: String,
    pub hint: Option<String>,
}

/// What the socket hands to the loop.
pub type Request = (Ask, oneshot::Sender<Result<Answer, Refusal>>);
