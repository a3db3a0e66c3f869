//! `agent.toml`: what each part is told.
//!
//! Files become [`inputs::Inputs`] (keys with the place each came from, later
//! files winning), and those become validated [`settings::Settings`]. Nothing
//! here looks at the device beyond its configuration files and what its name is
//! made of ([`facts`]).

pub mod facts;
pub mod inputs;
pub mod keys;
mod naming;
pub mod settings;
mod validate;

use std::path::{Path, PathBuf};

use fleet::name::DeviceName;

pub use self::inputs::Inputs;
pub use self::naming::KeptName;
use self::settings::Settings;

/// Where fragments lie when no file is named, later ones winning.
pub const PLACES: [&str; 3] = ["/usr/lib/burgee/agent.d", "/etc/burgee/agent.toml", "/etc/burgee/agent.d"];

/// In the store: the name that was made of a pattern ([`KeptName`]).
pub const KEPT_NAME: &str = "name.json";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that can't be read.
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or not a key of the agent's, or not a value that it can take.
    #[error("{place}: {cause}")]
    Wrong {
        /// `FILE:LINE: KEY`, or the flag.
        place: String,
        /// What is wrong, and what was expected.
        cause: String,
        hint: Option<String>,
    },
    /// A key without a default that is nowhere set.
    #[error("{key} is not set: {cause}")]
    Missing { key: &'static str, cause: String, hint: String },
}

impl ConfigError {
    /// The next step, if there is an obvious one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Read { .. } => None,
            Self::Wrong { hint, .. } => hint.as_deref(),
            Self::Missing { hint, .. } => Some(hint),
        }
    }
}

/// Reads the configuration: `file` alone, else the fragments in [`PLACES`];
/// `flags` (`KEY=VALUE`, the value in TOML) go before all of them.
///
/// # Errors
/// When a file can't be read or holds what is no configuration. A file or
/// folder of [`PLACES`] that is not there is no error; `file` has to be.
pub fn read(file: Option<&Path>, flags: &[String]) -> Result<Inputs, ConfigError> {
    read_into(Inputs::default(), file, flags)
}

/// [`read`], but keys and values that this agent does not know are passed over:
/// the installed agent answers for a newer one that runs in its place, whose
/// configuration may have more of them (docs/decisions/0027).
///
/// # Errors
/// When a file can't be read or is no TOML.
pub fn read_of_any_age(file: Option<&Path>, flags: &[String]) -> Result<Inputs, ConfigError> {
    read_into(Inputs::lenient(), file, flags)
}

fn read_into(mut inputs: Inputs, file: Option<&Path>, flags: &[String]) -> Result<Inputs, ConfigError> {
    match file {
        Some(file) => inputs.add_file(file)?,
        None => {
            for place in PLACES.map(Path::new) {
                for file in fragments(place)? {
                    inputs.add_file(&file)?;
                }
            }
        }
    }
    for flag in flags {
        inputs.add_flag(flag)?;
    }
    Ok(inputs)
}

/// [`read`], validated.
///
/// # Errors
/// As [`read`], and when a value is out of its range or a required one is missing.
pub fn load(file: Option<&Path>, flags: &[String]) -> Result<Settings, ConfigError> {
    read(file, flags)?.settings()
}

/// Where the store is, by a configuration of whatever age: the installed agent
/// looks there for a newer one. The default where nothing can be read.
#[must_use]
pub fn store(file: Option<&Path>, flags: &[String]) -> PathBuf {
    read_of_any_age(file, flags).unwrap_or_default().store()
}

/// The name that a pattern gives this device as it is, whatever was kept.
///
/// # Errors
/// In words: what the device lacks, or what is wrong with the pattern.
pub fn made_anew(pattern: &str) -> Result<DeviceName, String> {
    naming::expand(pattern, &facts::Facts::read(Path::new("/"))).map_err(|error| error.to_string())
}

/// The `.toml` files of a folder by name, or the file itself.
fn fragments(place: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: place.display().to_string(), source };
    match std::fs::metadata(place) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Ok(vec![place.to_owned()]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(place).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
