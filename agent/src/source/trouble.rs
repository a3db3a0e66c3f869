//! What goes wrong in a fetch, and which of it may be the disk's doing.

use fleet::revision::CommitId;
use gix::ObjectId;

use super::error;
use super::packs::ObjectError;
use super::tree::BadTree;
use crate::ports::source::SourceError;

/// Trouble on the way: said as it is, or mended by fetching anew.
pub(super) enum Trouble {
    Said(SourceError),
    Tree(CommitId, BadTree),
    Damaged(CommitId, BadTree),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Said(error)
    }
}

impl Trouble {
    pub(super) fn absent(id: &CommitId) -> Self {
        Self::Said(error::local_failure("read", id.as_str(), error::Cause("it is not in the local repository")))
    }

    /// What can't be read or is not there may be the disk's doing.
    pub(super) fn sorted(self) -> Self {
        match self {
            Self::Tree(id, bad) => match bad {
                BadTree::Missing(_)
                | BadTree::Object(ObjectError::Decode { .. } | ObjectError::Hash { .. } | ObjectError::Open { .. }) => {
                    Self::Damaged(id, bad)
                }
                content => Self::Tree(id, content),
            },
            other => other,
        }
    }

    pub(super) fn into_error(self) -> SourceError {
        match self {
            Self::Said(error) => error,
            Self::Tree(id, bad) | Self::Damaged(id, bad) => error::bad_tree(&id, bad),
        }
    }
}

/// A head that the host names and does not send.
pub(super) fn incomplete(head: ObjectId) -> SourceError {
    SourceError::Untrusted {
        commit: head.to_string(),
        reason: "IncompletePack",
        cause: "the host names it and does not send it".to_owned(),
        hint: None,
    }
}
