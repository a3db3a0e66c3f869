//! What is in force at one place of the chain: signers, policy, revocations.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::Digest;
use crate::finding::Finding;
use crate::revision::{CommitId, Revision};

use super::key::PublicKey;
use super::policy::Policy;
use super::refusal::{At, Refusal, RevokedBy};
use super::signers::{Signer, Signers, parse_revoked};

/// Git's own `allowed_signers`.
pub const ALLOWED_SIGNERS: &str = "trust/allowed_signers";
/// Public key lines.
pub const REVOKED_KEYS: &str = "trust/revoked_keys";
/// See [`Policy`].
pub const POLICY: &str = "trust/policy.yaml";

/// `trust/` of one commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// Over every path, mode and blob below it, so that any change shows;
    /// `None` where the commit has no `trust/` at all.
    pub digest: Option<Digest>,
    /// The three files that mean something, by their path from the root.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The device's own root of trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    pub(super) signers: Signers,
    pub(super) revoked: BTreeSet<PublicKey>,
    digest: Digest,
}

/// Why the device's own files can't be a root of trust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRoot {
    #[error("no line of the device's allowed_signers counts{}", .0.as_ref().map(|finding| format!(": {finding}")).unwrap_or_default())]
    Empty(Option<Finding>),
    #[error("the device's revoked_keys can't be read: {0}")]
    Revoked(Finding),
}

impl Root {
    /// Reads the device's `allowed_signers` and, if it has one, its
    /// `revoked_keys`. The findings are lines that count for nothing.
    ///
    /// # Errors
    /// When no line counts, or a revocation can't be read.
    pub fn parse(allowed: &[u8], revoked: Option<&[u8]>) -> Result<(Self, Vec<Finding>), InvalidRoot> {
        let (signers, findings) = Signers::parse("allowed_signers", allowed);
        if signers.is_empty() {
            return Err(InvalidRoot::Empty(findings.into_iter().next()));
        }
        let (revoked, broken) = parse_revoked("revoked_keys", revoked.unwrap_or_default());
        if let Some(finding) = broken.into_iter().next() {
            return Err(InvalidRoot::Revoked(finding));
        }
        // What the files say, not their bytes: a new comment is no new root.
        let said = format!("{:?} {revoked:?}", signers.grants());
        Ok((Self { signers, revoked, digest: Digest::of(said.as_bytes()) }, findings))
    }

    /// Changes when what the files say does.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The keys that may sign, for a hint.
    #[must_use]
    pub fn fingerprints(&self) -> BTreeSet<String> {
        self.signers.fingerprints()
    }
}

/// The high-water mark: what is known and in force at an accepted revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub revision: Revision,
    /// The files of `trust/` as they count from here on, by path.
    pub files: BTreeMap<String, String>,
    /// [`Folder::digest`] of the accepted commit.
    pub folder: Option<Digest>,
    /// Keys that the chain ever revoked.
    pub revoked: BTreeSet<PublicKey>,
    /// The highest floor that the chain's policies ever named.
    pub floor: Option<CommitId>,
    /// Floors that the revision is known to be at or above.
    pub above: BTreeSet<CommitId>,
    /// Committer's date, seconds since 1970.
    pub committed_at: i64,
    pub signer: Signer,
    /// The message's first line.
    pub subject: String,
    /// [`Root::digest`] when it was accepted.
    pub root: Digest,
}

/// Signers S, policy P and revocations in force before the next commit.
#[derive(Clone, Debug)]
pub(super) struct Force {
    pub(super) signers: Signers,
    pub(super) policy: Policy,
    pub(super) revoked: BTreeSet<PublicKey>,
    pub(super) files: BTreeMap<String, String>,
    pub(super) folder: Option<Digest>,
    pub(super) findings: Vec<Finding>,
    /// Floors that policies along the chain named, oldest first.
    pub(super) floors: Vec<CommitId>,
}

impl Force {
    /// The device's root alone, as for a repository without `trust/`.
    pub(super) fn root(root: &Root) -> Self {
        Self {
            signers: root.signers.clone(),
            policy: Policy::default(),
            revoked: BTreeSet::new(),
            files: BTreeMap::new(),
            folder: None,
            findings: Vec::new(),
            floors: Vec::new(),
        }
    }

    pub(super) fn at(mark: &Mark, root: &Root) -> Self {
        let mut force = Self::root(root);
        if let Some(text) = mark.files.get(ALLOWED_SIGNERS) {
            (force.signers, force.findings) = Signers::parse(ALLOWED_SIGNERS, text.as_bytes());
        }
        if let Some(Ok(policy)) = mark.files.get(POLICY).map(|text| Policy::parse(POLICY, text.as_bytes())) {
            force.policy = policy;
        }
        force.revoked.clone_from(&mark.revoked);
        force.files.clone_from(&mark.files);
        force.folder = mark.folder;
        force
    }

    /// Puts a commit's `trust/` in force. When it is refused, S and P stay as
    /// they are, so that a chain in which it was mended later goes on as it
    /// does on a device that saw both commits one by one.
    pub(super) fn apply(&mut self, folder: &Folder) -> Result<(), Refusal> {
        self.folder = folder.digest;
        // Whatever else is wrong: what is revoked is revoked.
        let (revoked, broken) = match folder.files.get(REVOKED_KEYS) {
            Some(bytes) => parse_revoked(REVOKED_KEYS, bytes),
            None => Default::default(),
        };
        self.revoked.extend(revoked);
        if let Some(finding) = broken.first() {
            return Err(Refusal::MalformedTrust(finding.to_string()));
        }
        let policy = match folder.files.get(POLICY) {
            Some(bytes) => {
                Policy::parse(POLICY, bytes).map_err(|finding| Refusal::MalformedTrust(finding.to_string()))?
            }
            None => Policy::default(),
        };
        let mut files = BTreeMap::new();
        for (path, bytes) in &folder.files {
            let text = String::from_utf8(bytes.clone())
                .map_err(|_| Refusal::MalformedTrust(format!("{path}:1:1: it is not UTF-8")))?;
            files.insert(path.clone(), text);
        }
        let signers = folder.files.get(ALLOWED_SIGNERS).map(|bytes| Signers::parse(ALLOWED_SIGNERS, bytes));
        match signers {
            Some((signers, findings)) if !signers.is_empty() => {
                self.signers = signers;
                self.findings = findings;
            }
            None if !self.files.contains_key(ALLOWED_SIGNERS) => {}
            _ => return Err(Refusal::SignersRemoved),
        }
        self.floors.extend(policy.floor.clone());
        self.policy = policy;
        self.files = files;
        Ok(())
    }

    /// Who signed with `key`.
    pub(super) fn signer(&self, key: &PublicKey, root: &Root, time: Option<(At, i64)>) -> Result<Signer, Refusal> {
        let fingerprint = || key.fingerprint();
        if root.revoked.contains(key) {
            return Err(Refusal::KeyRevoked { fingerprint: fingerprint(), by: RevokedBy::Device });
        }
        if self.revoked.contains(key) {
            return Err(Refusal::KeyRevoked { fingerprint: fingerprint(), by: RevokedBy::Repository });
        }
        self.signers.signer(key, time)
    }
}
