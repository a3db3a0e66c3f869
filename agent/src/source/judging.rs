//! Handing commits to the rules, and their verdicts to the port.

use std::sync::Arc;

use fleet::revision::CommitId;
use fleet::trust::key::PublicKey;
use fleet::trust::signers::Signer;
use fleet::trust::{Commits, Folder, Mark, Refused};
use gix::ObjectId;
use gix::objs::Kind;
use jiff::Timestamp;

use crate::config::settings::Limits;
use crate::ports::journal::Accepted;
use crate::ports::source::SourceError;

use super::packs::Packs;
use super::tree::{BadTree, trust_folder};

/// No commit larger than this is read; what is signed has a tighter limit.
const MAX_COMMIT: u64 = 4 * 1024 * 1024;

/// The commits of the local repository.
pub(super) struct AtHand<'a> {
    pub(super) packs: Arc<Packs>,
    pub(super) limits: &'a Limits,
}

impl Commits for AtHand<'_> {
    type Error = BadTree;

    fn raw(&self, id: &CommitId) -> Result<Option<Vec<u8>>, BadTree> {
        match object_id(id) {
            Some(id) if id.kind() == self.packs.hash => Ok(self.packs.read(&id, Kind::Commit, MAX_COMMIT)?),
            _ => Ok(None),
        }
    }

    fn folder(&self, id: &CommitId) -> Result<Folder, BadTree> {
        let object = object_id(id).ok_or_else(|| BadTree::Content(format!("{id} is no object id")))?;
        trust_folder(&self.packs, &object, self.limits)
    }
}

pub(super) fn object_id(id: &CommitId) -> Option<ObjectId> {
    ObjectId::from_hex(id.as_str().as_bytes()).ok()
}

pub(super) fn commit_id(id: &ObjectId) -> Option<CommitId> {
    id.to_string().parse().ok()
}

/// What the journal keeps of a mark.
pub(super) fn accepted(mark: Mark) -> Accepted {
    Accepted {
        revision: mark.revision,
        trust: mark.files,
        trust_digest: mark.folder,
        revoked: mark.revoked.iter().map(PublicKey::to_string).collect(),
        floor: mark.floor,
        above: mark.above,
        committed_at: Timestamp::from_second(mark.committed_at).unwrap_or_default(),
        signer: mark.signer.principal,
        fingerprint: mark.signer.fingerprint,
        subject: mark.subject,
        root: mark.root,
    }
}

/// The mark that the journal kept.
pub(super) fn mark(accepted: &Accepted) -> Mark {
    Mark {
        revision: accepted.revision.clone(),
        files: accepted.trust.clone(),
        folder: accepted.trust_digest,
        // Written from keys that were read; what isn't one can't sign anything either.
        revoked: accepted.revoked.iter().filter_map(|key| key.parse().ok()).collect(),
        floor: accepted.floor.clone(),
        above: accepted.above.clone(),
        committed_at: accepted.committed_at.as_second(),
        signer: Signer { principal: accepted.signer.clone(), fingerprint: accepted.fingerprint.clone() },
        subject: accepted.subject.clone(),
        root: accepted.root,
    }
}

/// A refusal as the port says it.
pub(super) fn refusal(refused: Refused) -> SourceError {
    let Refused { commit, refusal, hint } = refused;
    let (commit, cause) = (commit.to_string(), refusal.to_string());
    if refusal.is_malformed_content() {
        SourceError::Malformed { commit, cause, hint }
    } else {
        SourceError::Untrusted { commit, reason: refusal.reason(), cause, hint }
    }
}
