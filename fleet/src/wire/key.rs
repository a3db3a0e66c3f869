//! Public Ed25519 keys of devices and hubs, as the wire carries them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A public key that is neither weak nor of another form: 43 characters of
/// base64url, as `x` in a JWK (RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(VerifyingKey);

/// Text that is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an Ed25519 public key of 43 base64url characters")]
pub struct InvalidKey(String);

impl PublicKey {
    /// The key itself.
    #[must_use]
    pub fn verifying(&self) -> &VerifyingKey {
        &self.0
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it for the same key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }
}

/// `SHA256:` and the unpadded base64 digest of the key's SSH form (RFC 4253 §6.6,
/// RFC 8709), so that one key has one fingerprint wherever people meet it.
#[must_use]
pub fn fingerprint(key: &VerifyingKey) -> String {
    const KIND: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";
    let digest = Sha256::new().chain_update(KIND).chain_update(key.as_bytes()).finalize();
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest))
}

impl From<VerifyingKey> for PublicKey {
    fn from(key: VerifyingKey) -> Self {
        Self(key)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let invalid = || InvalidKey(text.to_owned());
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
        let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid())?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| invalid())?;
        if key.is_weak() { Err(invalid()) } else { Ok(Self(key)) }
    }
}

impl TryFrom<String> for PublicKey {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::PublicKey;

    #[test]
    fn text_and_back() {
        // The key of RFC 8037, appendix A.2.
        let text = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let key: PublicKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        // `ssh-keygen -lf` on the same key.
        assert_eq!(key.fingerprint(), "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8");
        for wrong in ["", "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURp", &format!("{text}="), &"A".repeat(43)] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong:?}");
        }
    }
}
