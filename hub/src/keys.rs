//! The hub's own Ed25519 key, and secrets made by chance.
//!
//! The key signs commands and acknowledgements. It is made at the first start
//! and never leaves its file; devices learn its public half when they enrol.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use fleet::wire::key::PublicKey;
use sha2::{Digest as _, Sha256};

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file system said no.
    #[error("{doing} {path} failed")]
    File {
        /// What was being done.
        doing: &'static str,
        /// With which file.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is there, and is no key.
    #[error("{path} is not the hub's key")]
    Form {
        /// Which file.
        path: PathBuf,
    },
    /// Others may read the file.
    #[error("{path} can be read by others (mode {mode:o})")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// Random bytes from the system.
///
/// # Errors
/// When it has none.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

/// The key in `data`, made if there is none.
///
/// # Errors
/// When the file can't be read or written, is no key, or is open to others.
pub fn load_or_create(data: &Path) -> Result<SigningKey, KeyError> {
    let path = data.join("hub.key");
    match load(&path)? {
        Some(key) => Ok(key),
        None => create(&path),
    }
}

fn load(path: &Path) -> Result<Option<SigningKey>, KeyError> {
    let file = |doing| move |source| KeyError::File { doing, path: path.to_owned(), source };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(file("reading")(error)),
    };
    let mode = fs::metadata(path).map_err(file("reading"))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { path: path.to_owned(), mode });
    }
    let seed = URL_SAFE_NO_PAD.decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    match seed {
        Some(seed) => Ok(Some(SigningKey::from_bytes(&seed))),
        None => Err(KeyError::Form { path: path.to_owned() }),
    }
}

/// Written whole beside its place and then linked into it, so that two starts
/// at once agree on one key and a power cut leaves none or a whole one.
fn create(path: &Path) -> Result<SigningKey, KeyError> {
    let file = |doing| move |source| KeyError::File { doing, path: path.to_owned(), source };
    let seed = random::<32>()?;
    let temporary = path.with_extension(format!("new-{}", hex(&random::<6>()?)));
    let mut out =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(file("writing"))?;
    let written = out
        .write_all(format!("{}\n", URL_SAFE_NO_PAD.encode(seed)).as_bytes())
        .and_then(|()| out.sync_all())
        .and_then(|()| match fs::hard_link(&temporary, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
    fs::remove_file(&temporary).map_err(file("tidying up beside"))?;
    written.map_err(file("writing"))?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(file("keeping"))?;
    }
    load(path)?.ok_or_else(|| KeyError::Form { path: path.to_owned() })
}

/// The key that devices are given.
#[must_use]
pub fn public(key: &SigningKey) -> PublicKey {
    PublicKey::from(key.verifying_key())
}

/// Lower-case hex.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Whether two secrets are the same, in a time that says nothing of where they
/// differ: their digests are compared, all of them.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let (one, other) = (sha256(one), sha256(other));
    let difference = one.iter().zip(&other).fold(0, |sum, (a, b)| sum | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// A secret's first line, without the line's end.
///
/// # Errors
/// When the file can't be read or is empty.
pub fn secret_file(path: &Path) -> io::Result<String> {
    let text = fs::read_to_string(path)?;
    match text.lines().next().map(str::trim_end).filter(|line| !line.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{KeyError, load_or_create, same};

    #[test]
    fn made_once_and_kept_to_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = load_or_create(folder.path()).expect("makes one");
        assert_eq!(load_or_create(folder.path()).expect("finds it").to_bytes(), key.to_bytes());
        let path = folder.path().join("hub.key");
        assert_eq!(fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1, "nothing is left over");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("opens it");
        assert!(matches!(load_or_create(folder.path()), Err(KeyError::Open { mode: 0o640, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("closes it");
        fs::write(&path, "nonsense").expect("writes");
        assert!(matches!(load_or_create(folder.path()), Err(KeyError::Form { .. })));
    }

    #[test]
    fn secrets() {
        for (one, other, want) in [("a", "a", true), ("a", "b", false), ("", "", true), ("a", "aa", false)] {
            assert_eq!(same(one.as_bytes(), other.as_bytes()), want, "{one} {other}");
        }
    }
}
