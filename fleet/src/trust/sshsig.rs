//! SSH signatures (OpenSSH's PROTOCOL.sshsig), read strictly.
//!
//! Only what design §4 accepts has a value here: Ed25519, the namespace
//! `git`, sha512 or sha256. Stock `ssh-keygen` accepts more; each difference
//! is stricter and listed in `docs/security.md`. Who the key belongs to is
//! [`super::signers`]' matter.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signature as Ed25519Signature;
use sha2::{Digest as _, Sha256, Sha512};

use super::key::{ED25519, InvalidKey, PublicKey, Wire, put_string};
use super::refusal::Refusal;

/// The largest armor that is looked at, in bytes.
pub const MAX_ARMOR: usize = 4 * 1024;

const MAGIC: &[u8] = b"SSHSIG";
const NAMESPACE: &[u8] = b"git";
const BEGIN: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const END: &[u8] = b"-----END SSH SIGNATURE-----";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha512,
}

/// A well-formed signature that has yet to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The key that claims to have signed.
    pub key: PublicKey,
    hash: Hash,
    bytes: [u8; 64],
}

impl Signature {
    /// Reads an armored signature: `BEGIN` line, base64 lines, `END` line,
    /// parted by LF, and nothing else.
    ///
    /// # Errors
    /// The refusal that names what is not as it must be.
    pub fn from_armor(armor: &[u8]) -> Result<Self, Refusal> {
        if armor.starts_with(b"-----BEGIN PGP") {
            return Err(Refusal::OpenPgp);
        }
        if armor.starts_with(b"-----BEGIN SIGNED MESSAGE") {
            return Err(Refusal::X509);
        }
        if armor.len() > MAX_ARMOR {
            return Err(Refusal::ArmorTooLarge { size: armor.len(), limit: MAX_ARMOR });
        }
        if armor.contains(&b'\r') {
            return Err(Refusal::MalformedArmor { what: "it holds a carriage return" });
        }
        let mut lines = armor.split(|&c| c == b'\n');
        if lines.next() != Some(BEGIN) {
            return Err(Refusal::MalformedArmor { what: "it does not begin with its BEGIN line" });
        }
        let mut base64 = Vec::with_capacity(armor.len());
        let ended = lines.by_ref().any(|line| {
            let end = line == END;
            if !end {
                base64.extend_from_slice(if line.is_empty() { b" " } else { line });
            }
            end
        });
        if !ended {
            return Err(Refusal::MalformedArmor { what: "it has no END line" });
        }
        if lines.next().is_some() {
            return Err(Refusal::MalformedArmor { what: "something follows its END line" });
        }
        let blob = STANDARD.decode(&base64).map_err(|error| Refusal::LooseBase64 { what: error.to_string() })?;
        Self::from_blob(&blob)
    }

    /// Reads the blob inside the armor.
    ///
    /// # Errors
    /// The refusal that names what is not as it must be.
    pub fn from_blob(blob: &[u8]) -> Result<Self, Refusal> {
        let short = |what| Refusal::MalformedSignature { what };
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(64)]).into_owned();
        let mut wire = Wire(blob);
        if wire.take(MAGIC.len()) != Some(MAGIC) {
            return Err(short("it does not begin with SSHSIG"));
        }
        match wire.u32() {
            Some(1) => {}
            Some(found) => return Err(Refusal::SignatureVersion { found }),
            None => return Err(short("it is cut short in its version")),
        }
        let key = wire.string().ok_or_else(|| short("it is cut short in its key"))?;
        let key = PublicKey::from_blob(key).map_err(|error| match error {
            InvalidKey::Type(name) if name.contains("-cert-v") => Refusal::Certificate { name },
            InvalidKey::Type(name) => Refusal::KeyType { name },
            InvalidKey::TrailingBytes => Refusal::TrailingBytes { place: "the key" },
            InvalidKey::Weak => Refusal::WeakKey,
            InvalidKey::NoPoint => short("its key is no point on the curve"),
            InvalidKey::Length | InvalidKey::Base64 => short("its key is cut short or of the wrong length"),
        })?;
        let namespace = wire.string().ok_or_else(|| short("it is cut short in its namespace"))?;
        if namespace != NAMESPACE {
            return Err(Refusal::WrongNamespace { found: lossy(namespace) });
        }
        if !wire.string().ok_or_else(|| short("it is cut short in its reserved field"))?.is_empty() {
            return Err(Refusal::ReservedField);
        }
        let hash = match wire.string().ok_or_else(|| short("it is cut short in its hash"))? {
            b"sha256" => Hash::Sha256,
            b"sha512" => Hash::Sha512,
            other => return Err(Refusal::HashAlgorithm { found: lossy(other) }),
        };
        let mut inner = Wire(wire.string().ok_or_else(|| short("it is cut short in its signature"))?);
        if !wire.0.is_empty() {
            return Err(Refusal::TrailingBytes { place: "the SSHSIG blob" });
        }
        let name = inner.string().ok_or_else(|| short("its signature is cut short"))?;
        if name != ED25519.as_bytes() {
            return Err(Refusal::SignatureType { name: lossy(name) });
        }
        let bytes = inner.string().ok_or_else(|| short("its signature is cut short"))?;
        let bytes = bytes.try_into().map_err(|_| short("its signature is not 64 bytes long"))?;
        if !inner.0.is_empty() {
            return Err(Refusal::TrailingBytes { place: "the signature" });
        }
        Ok(Self { key, hash, bytes })
    }

    /// Whether this is the key's signature of `payload`.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn verify(&self, payload: &[u8]) -> Result<(), Refusal> {
        let mut signed = MAGIC.to_vec();
        put_string(&mut signed, NAMESPACE);
        put_string(&mut signed, b"");
        match self.hash {
            Hash::Sha256 => {
                put_string(&mut signed, b"sha256");
                put_string(&mut signed, &Sha256::digest(payload));
            }
            Hash::Sha512 => {
                put_string(&mut signed, b"sha512");
                put_string(&mut signed, &Sha512::digest(payload));
            }
        }
        let key = self.key.verifying().ok_or(Refusal::BadSignature)?;
        key.verify_strict(&signed, &Ed25519Signature::from_bytes(&self.bytes)).map_err(|_| Refusal::BadSignature)
    }
}
