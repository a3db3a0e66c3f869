//! Why a commit is not trusted: every rule of design §4 has its own variant.
//!
//! Closed, because the reasons are on the wire and in people's alerts: a name
//! here never changes its meaning.

use crate::revision::CommitId;

/// Where a key was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedBy {
    /// The device's own `revoked_keys`: absolute.
    Device,
    /// `trust/revoked_keys` of the chain: from its place on.
    Repository,
}

/// At which time a key was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The commit's own committer date.
    Commit,
    /// The device's clock.
    Now,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Commit => "at the commit's own date",
            Self::Now => "now",
        })
    }
}

/// Why a commit is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // The commit object.
    #[error("the commit is {size} bytes, the limit is {limit}")]
    CommitTooLarge { size: usize, limit: usize },
    #[error("the commit holds a NUL byte")]
    CommitHoldsNul,
    #[error("the commit is malformed: {what}")]
    MalformedCommit { what: &'static str },

    // The header that carries the signature.
    #[error("the commit is not signed")]
    Unsigned,
    #[error("the commit has {count} headers that start with gpgsig, expected exactly one")]
    SeveralSignatures { count: usize },
    #[error("the signature is in a header named {found}, this repository's hash asks for {expected}")]
    WrongSignatureHeader { found: String, expected: &'static str },

    // The armor.
    #[error("the signature is an OpenPGP one, only SSH signatures are accepted")]
    OpenPgp,
    #[error("the signature is an X.509 one, only SSH signatures are accepted")]
    X509,
    #[error("the armor is {size} bytes, the limit is {limit}")]
    ArmorTooLarge { size: usize, limit: usize },
    #[error("the armor is malformed: {what}")]
    MalformedArmor { what: &'static str },
    #[error("the armor's base64 is not strict: {what}")]
    LooseBase64 { what: String },

    // The SSHSIG blob.
    #[error("the signature is malformed: {what}")]
    MalformedSignature { what: &'static str },
    #[error("there are bytes behind {place}")]
    TrailingBytes { place: &'static str },
    #[error("SSHSIG version {found}, expected 1")]
    SignatureVersion { found: u32 },
    #[error("the key is of type {name}, only ssh-ed25519 is accepted")]
    KeyType { name: String },
    #[error("the signature was made with a certificate ({name}), only plain ssh-ed25519 keys are accepted")]
    Certificate { name: String },
    #[error("the signature is of type {name}, only ssh-ed25519 is accepted")]
    SignatureType { name: String },
    #[error("the signature is for the namespace {found:?}, expected \"git\"")]
    WrongNamespace { found: String },
    #[error("the signature's reserved field is not empty")]
    ReservedField,
    #[error("the signature is over a {found} hash, expected sha512 or sha256")]
    HashAlgorithm { found: String },
    #[error("the key is weak: it would verify almost anything")]
    WeakKey,
    #[error("the signature does not match the commit")]
    BadSignature,

    // Who signed.
    #[error("{fingerprint} is not a trusted key")]
    UnknownKey { fingerprint: String },
    #[error("{fingerprint} is trusted, but not for the namespace git")]
    KeyNotForGit { fingerprint: String },
    #[error("{fingerprint} had expired {at}")]
    KeyExpired { fingerprint: String, at: At },
    #[error("{fingerprint} is not yet valid {at}")]
    KeyNotYetValid { fingerprint: String, at: At },
    #[error("{fingerprint} is revoked{}", match by { RevokedBy::Device => " on this device", RevokedBy::Repository => " in trust/revoked_keys" })]
    KeyRevoked { fingerprint: String, by: RevokedBy },

    // History.
    #[error("it does not descend from the accepted {accepted}")]
    Rewound { accepted: CommitId },
    #[error("more than {limit} commits would have to be looked at")]
    TooManyCommits { limit: usize },
    #[error("the host serves a shallow history: {missing} is missing")]
    ShallowHistory { missing: CommitId },
    #[error("it changes trust/ and is dated more than a day before its predecessor")]
    BackDated,
    #[error("it is dated more than a day ahead of this device's clock")]
    FutureDated,
    #[error("it removes or empties trust/allowed_signers")]
    SignersRemoved,
    #[error("it is not at or above the floor {floor}")]
    BelowFloor { floor: CommitId },
    #[error("no commit of its history is signed by a key of the device's own trust file and agrees with it")]
    NoAnchor,

    // The content under trust/, which is judged before the rest of the tree.
    #[error("{0}")]
    MalformedTrust(String),
}

impl Refusal {
    /// A stable cause in CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CommitTooLarge { .. } => "CommitTooLarge",
            Self::CommitHoldsNul => "CommitHoldsNul",
            Self::MalformedCommit { .. } => "MalformedCommit",
            Self::Unsigned => "Unsigned",
            Self::SeveralSignatures { .. } => "SeveralSignatures",
            Self::WrongSignatureHeader { .. } => "WrongSignatureHeader",
            Self::OpenPgp => "OpenPgpSignature",
            Self::X509 => "X509Signature",
            Self::ArmorTooLarge { .. } => "ArmorTooLarge",
            Self::MalformedArmor { .. } => "MalformedArmor",
            Self::LooseBase64 { .. } => "LooseBase64",
            Self::MalformedSignature { .. } => "MalformedSignature",
            Self::TrailingBytes { .. } => "TrailingBytes",
            Self::SignatureVersion { .. } => "SignatureVersion",
            Self::KeyType { .. } => "KeyType",
            Self::Certificate { .. } => "CertificateUsed",
            Self::SignatureType { .. } => "SignatureType",
            Self::WrongNamespace { .. } => "WrongNamespace",
            Self::ReservedField => "ReservedField",
            Self::HashAlgorithm { .. } => "HashAlgorithm",
            Self::WeakKey => "WeakKey",
            Self::BadSignature => "BadSignature",
            Self::UnknownKey { .. } => "UnknownKey",
            Self::KeyNotForGit { .. } => "KeyNotForGit",
            Self::KeyExpired { .. } => "KeyExpired",
            Self::KeyNotYetValid { .. } => "KeyNotYetValid",
            Self::KeyRevoked { .. } => "KeyRevoked",
            Self::Rewound { .. } => "Rewound",
            Self::TooManyCommits { .. } => "TooManyCommits",
            Self::ShallowHistory { .. } => "ShallowHistory",
            Self::BackDated => "BackDated",
            Self::FutureDated => "FutureDated",
            Self::SignersRemoved => "SignersRemoved",
            Self::BelowFloor { .. } => "BelowFloor",
            Self::NoAnchor => "NoAnchor",
            Self::MalformedTrust(_) => "MalformedTrust",
        }
    }

    /// Whether it is the content that is malformed, not a rule that is broken.
    #[must_use]
    pub fn is_malformed_content(&self) -> bool {
        matches!(self, Self::MalformedTrust(_))
    }

    /// The next step for a person, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Unsigned => {
                "sign it: git config gpg.format ssh, user.signingkey KEY.pub, then git commit --amend -S and push a new commit"
            }
            Self::OpenPgp | Self::X509 => "sign with an SSH key: git config gpg.format ssh",
            Self::KeyType { .. } | Self::Certificate { .. } | Self::SignatureType { .. } => {
                "sign with a plain Ed25519 key: ssh-keygen -t ed25519"
            }
            Self::UnknownKey { .. } => {
                "sign with a key of trust/allowed_signers, or add this one there in a commit that a trusted key signs"
            }
            Self::KeyNotForGit { .. } => "the key's line in allowed_signers has namespaces= without git",
            Self::KeyExpired { .. } => "sign a new commit with a key that is valid",
            Self::KeyNotYetValid { .. } => "see valid-after= of the key's line in allowed_signers",
            Self::KeyRevoked { .. } => "sign a new commit with another trusted key",
            Self::Rewound { .. } => {
                "to go back, git revert and sign that; after a history that was rewritten on purpose: burgee-agent anchor --accept REVISION on the device"
            }
            Self::TooManyCommits { .. } => "raise source.limits.commits in agent.toml",
            Self::ShallowHistory { .. } => "give the host the whole history: git fetch --unshallow there",
            Self::BackDated => "check the clock of the machine that signed it",
            Self::FutureDated => "check the clock of the machine that signed it, and this device's",
            Self::SignersRemoved => "git revert the removal and sign that",
            Self::BelowFloor { .. } => "a floor only moves forward: push a commit that descends from it",
            Self::NoAnchor => {
                "the device's own trust file is old, or the repository's trust/allowed_signers is not what it says"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
