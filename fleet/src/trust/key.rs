//! Ed25519 public keys as SSH writes them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest as _, Sha256};

/// The one key type that is accepted.
pub const ED25519: &str = "ssh-ed25519";

/// A usable (not weak) Ed25519 public key; shown as `ssh-ed25519 AAAA…`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

/// Why bytes are no usable key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    #[error("its base64 is not strict")]
    Base64,
    #[error("it is cut short or of the wrong length")]
    Length,
    #[error("there are bytes behind it")]
    TrailingBytes,
    #[error("it is of type {0}, only ssh-ed25519 is accepted")]
    Type(String),
    #[error("it is no point on the curve")]
    NoPoint,
    #[error("it is weak: it would verify almost anything")]
    Weak,
}

/// Reads RFC 4251 values off a slice.
pub(super) struct Wire<'a>(pub(super) &'a [u8]);

impl<'a> Wire<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }
}

/// Appends an RFC 4251 string. Only for short values of our own.
pub(super) fn put_string(into: &mut Vec<u8>, value: &[u8]) {
    into.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
    into.extend_from_slice(value);
}

impl PublicKey {
    /// From the 32 bytes.
    ///
    /// # Errors
    /// When they are no point, or a weak one.
    pub fn from_bytes(bytes: [u8; 32]) -> Result<Self, InvalidKey> {
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| InvalidKey::NoPoint)?;
        if key.is_weak() { Err(InvalidKey::Weak) } else { Ok(Self(bytes)) }
    }

    /// From SSH's wire form: the type's name, then the key (RFC 8709).
    ///
    /// # Errors
    /// When it is anything but one whole, usable Ed25519 key.
    pub fn from_blob(blob: &[u8]) -> Result<Self, InvalidKey> {
        let mut wire = Wire(blob);
        let name = wire.string().ok_or(InvalidKey::Length)?;
        if name != ED25519.as_bytes() {
            return Err(InvalidKey::Type(String::from_utf8_lossy(name).into_owned()));
        }
        let key = wire.string().ok_or(InvalidKey::Length)?;
        let key = key.try_into().map_err(|_| InvalidKey::Length)?;
        if !wire.0.is_empty() {
            return Err(InvalidKey::TrailingBytes);
        }
        Self::from_bytes(key)
    }

    /// From the base64 of a public key line.
    ///
    /// # Errors
    /// As [`PublicKey::from_blob`], and when the base64 is loose.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        Self::from_blob(&STANDARD.decode(text).map_err(|_| InvalidKey::Base64)?)
    }

    /// SSH's wire form.
    #[must_use]
    pub fn blob(&self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(51);
        put_string(&mut blob, ED25519.as_bytes());
        put_string(&mut blob, &self.0);
        blob
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(self.blob())))
    }

    pub(super) fn verifying(&self) -> Option<VerifyingKey> {
        VerifyingKey::from_bytes(&self.0).ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ED25519} {}", STANDARD.encode(self.blob()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl std::str::FromStr for PublicKey {
    type Err = InvalidKey;

    /// From `ssh-ed25519 AAAA…`, with or without a comment.
    fn from_str(line: &str) -> Result<Self, InvalidKey> {
        let mut parts = line.split_ascii_whitespace();
        match (parts.next(), parts.next()) {
            (Some(ED25519), Some(key)) => Self::from_base64(key),
            (Some(other), _) => Err(InvalidKey::Type(other.to_owned())),
            (None, _) => Err(InvalidKey::Length),
        }
    }
}
