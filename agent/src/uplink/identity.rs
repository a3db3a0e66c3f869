//! Who the device is, and whose word it takes: its key and its enrolment.
//!
//! The key is made here and never leaves the device. Neither file is the root
//! of trust for content; that one is the operator's (design §4).

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::key::PublicKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::durable;
use crate::config::settings::DeviceSettings;
use crate::config::{KEPT_NAME, KeptName};
use crate::ports::uplink::UplinkError;

/// What enrolment left behind: `<store>/enrolment.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enrolment {
    /// The hub that accepted the device.
    pub hub: String,
    /// The key by which that hub signs.
    pub hub_key: PublicKey,
    pub fleet: FleetName,
    pub device: DeviceName,
    /// The broker that the hub named; `agent.toml`'s comes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// The labels that the hub knows the device by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub at: Timestamp,
}

/// Where the device's key lies.
#[must_use]
pub fn key_path(store: &Path) -> PathBuf {
    store.join("device.key")
}

/// Where the enrolment lies.
#[must_use]
pub fn enrolment_path(store: &Path) -> PathBuf {
    store.join("enrolment.json")
}

/// PKCS#8 v1 of an Ed25519 key (RFC 8410 §7), up to the 32 bytes of the seed.
const PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----\n";
const END: &str = "\n-----END PRIVATE KEY-----\n";

/// The device's key; `None` where it has none yet.
///
/// # Errors
/// When it can't be read, is damaged, or can be read by others.
pub fn device_key(store: &Path) -> Result<Option<SigningKey>, UplinkError> {
    let path = key_path(store);
    let failed = |source| UplinkError::Store { action: "read", path: path.clone(), source };
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(UplinkError::Exposed { path });
    }
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let damaged = || UplinkError::Damaged { path: path.clone(), cause: "not an Ed25519 key in PKCS#8".to_owned() };
    let body = text.strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END)).ok_or_else(damaged)?;
    let der = STANDARD.decode(body).map_err(|_| damaged())?;
    let seed = der.strip_prefix(&PKCS8).ok_or_else(damaged)?;
    Ok(Some(SigningKey::from_bytes(seed.try_into().map_err(|_| damaged())?)))
}

/// The device's key, made and made durable where it has none yet.
///
/// # Errors
/// As [`device_key`], and when it can't be written or the system has no entropy.
pub fn make_device_key(store: &Path) -> Result<SigningKey, UplinkError> {
    if let Some(key) = device_key(store)? {
        return Ok(key);
    }
    let failed = |action, path: &Path, source| UplinkError::Store { action, path: path.to_path_buf(), source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(store)
        .map_err(|error| failed("make", store, error))?;
    let path = key_path(store);
    let mut der = PKCS8.to_vec();
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| failed("make", &path, io::Error::other(error.to_string())))?;
    der.extend_from_slice(&seed);
    let text = format!("{BEGIN}{}{END}", STANDARD.encode(&der));
    durable::write(&path, text.as_bytes(), 0o600).map_err(|error| failed("write", &path, error))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// The enrolment; `None` where the device is not enrolled.
///
/// # Errors
/// When it can't be read or is damaged.
pub fn enrolment(store: &Path) -> Result<Option<Enrolment>, UplinkError> {
    let path = enrolment_path(store);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(UplinkError::Store { action: "read", path, source }),
    };
    match serde_json::from_slice(&bytes) {
        Ok(enrolment) => Ok(Some(enrolment)),
        Err(error) => Err(UplinkError::Damaged { path, cause: error.to_string() }),
    }
}

/// Makes the enrolment durable.
///
/// # Errors
/// When it can't be written; the former one then stays.
pub fn keep_enrolment(store: &Path, enrolment: &Enrolment) -> Result<(), UplinkError> {
    let path = enrolment_path(store);
    let mut bytes = serde_json::to_vec_pretty(enrolment)
        .map_err(|error| UplinkError::Damaged { path: path.clone(), cause: error.to_string() })?;
    bytes.push(b'\n');
    durable::write(&path, &bytes, 0o600).map_err(|source| UplinkError::Store { action: "write", path, source })
}

/// Keeps the name that was made of what the device is, so that it stays when
/// a part is replaced. A name that is written in the settings is not kept.
///
/// # Errors
/// When it can't be written.
pub fn keep_name(store: &Path, device: &DeviceSettings) -> Result<(), UplinkError> {
    let Some(pattern) = device.made_from.clone() else { return Ok(()) };
    let path = store.join(KEPT_NAME);
    let kept = KeptName { pattern, name: device.name.clone() };
    let known = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<KeptName>(&bytes).ok());
    if known.as_ref() == Some(&kept) {
        return Ok(());
    }
    let bytes = serde_json::to_vec(&kept)
        .map_err(|error| UplinkError::Damaged { path: path.clone(), cause: error.to_string() })?;
    let failed = |source| UplinkError::Store { action: "write", path: path.clone(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(store).map_err(failed)?;
    durable::write(&path, &bytes, 0o644).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use fleet::wire::key::PublicKey;

    use super::{Enrolment, device_key, enrolment, enrolment_path, keep_enrolment, key_path, make_device_key};
    use crate::ports::uplink::UplinkError;

    #[test]
    fn key_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        assert!(device_key(&store).unwrap().is_none());
        let key = make_device_key(&store).unwrap();
        assert_eq!(make_device_key(&store).unwrap().to_bytes(), key.to_bytes());
        let path = key_path(&store);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(device_key(&store), Err(UplinkError::Exposed { .. })));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&path, "").unwrap();
        // An empty file is damage, never a reason to become somebody else.
        assert!(matches!(make_device_key(&store), Err(UplinkError::Damaged { .. })));
    }

    #[test]
    fn openssl_reads_the_key() {
        let store = tempfile::tempdir().unwrap();
        let key = make_device_key(store.path()).unwrap();
        let output = Command::new("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-in"])
            .arg(key_path(store.path()))
            .output()
            .expect("openssl is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.ends_with(key.verifying_key().as_bytes()));
    }

    #[test]
    fn enrolment_and_back() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(enrolment(store.path()).unwrap(), None);
        let made = Enrolment {
            hub: "https://hub.example.com".to_owned(),
            hub_key: PublicKey::from(make_device_key(store.path()).unwrap().verifying_key()),
            fleet: "retail".parse().unwrap(),
            device: "store-042".parse().unwrap(),
            mqtt: None,
            labels: [].into(),
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
        };
        keep_enrolment(store.path(), &made).unwrap();
        assert_eq!(enrolment(store.path()).unwrap(), Some(made));
        std::fs::write(enrolment_path(store.path()), "{").unwrap();
        assert!(matches!(enrolment(store.path()), Err(UplinkError::Damaged { .. })));
    }
}
