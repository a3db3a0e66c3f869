//! Where revisions come from: the `Source` port.

use std::future::Future;
use std::sync::Arc;

use fleet::revision::CommitId;
use fleet::tree::Tree;
use jiff::Timestamp;

use super::Reason;
use super::journal::Accepted;

/// What a fetch found.
#[derive(Clone, Debug)]
pub enum Fetched {
    /// The head is the accepted revision (or a twin of it).
    Same,
    /// A head that passed every rule of design §4; not yet journalled.
    New(Box<Accepted>),
    /// A head that can only be judged once the clock is set; nothing is refused.
    ClockUnset {
        /// The head.
        head: CommitId,
    },
}

/// A fleet repository, fetched and judged.
///
/// Trees are read while a fetch is under way: a host that answers slowly must
/// not keep an accepted revision from being rendered.
pub trait Source: Send + Sync {
    /// Fetches the branch and judges its head after `after` (`None`: a first
    /// start). Bounded in time and size; a cancelled fetch leaves nothing that
    /// hinders the next.
    fn fetch(
        &self,
        after: Option<&Accepted>,
        now: Timestamp,
    ) -> impl Future<Output = Result<Fetched, SourceError>> + Send;

    /// Fetches and judges as on a first start, on the operator's word that
    /// history was rewritten: the head must be at or above `accept`, which
    /// becomes the floor. What `before` remembers of revoked keys stays.
    fn anchor(
        &self,
        before: Option<&Accepted>,
        accept: &CommitId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Fetched, SourceError>> + Send;

    /// The tree of a commit that a fetch returned. Reads block: use it off the
    /// loop's thread.
    ///
    /// # Errors
    /// When the commit isn't in the local repository, or its tree breaks rule 7
    /// or a limit.
    fn tree(&self, commit: &CommitId) -> Result<Arc<dyn Tree + Send + Sync>, SourceError>;
}

/// Why no new revision could be taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The host does not answer, or not in time.
    #[error("cannot reach {remote}")]
    Unreachable {
        remote: String,
        hint: Option<String>,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A rule of design §4 is broken. `reason` is stable, CamelCase.
    #[error("commit {commit} is refused: {cause}")]
    Untrusted { commit: String, reason: &'static str, cause: String, hint: Option<String> },
    /// The repository's content breaks the format or a limit.
    #[error("commit {commit} is malformed: {cause}")]
    Malformed { commit: String, cause: String, hint: Option<String> },
    /// A local failure: disk, settings, a missing program.
    #[error("cannot {action} {thing}")]
    Local {
        action: &'static str,
        thing: String,
        transient: bool,
        hint: Option<String>,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Reason for SourceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "GitUnreachable",
            Self::Untrusted { reason, .. } => reason,
            Self::Malformed { .. } => "Malformed",
            Self::Local { .. } => "SourceFailed",
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Local { transient, .. } => *transient,
            Self::Untrusted { .. } | Self::Malformed { .. } => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { hint, .. }
            | Self::Untrusted { hint, .. }
            | Self::Malformed { hint, .. }
            | Self::Local { hint, .. } => hint.clone(),
        }
    }
}
