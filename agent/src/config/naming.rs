//! The device's name: as it is written, or made of what the device is.
//!
//! A golden image can't name its devices one by one: `store-{serial}` names
//! each after its hardware. Pure: the facts come in. A name that was made once
//! is kept ([`KeptName`]), so that a new network card makes no new device.

use fleet::digest::Digest;
use fleet::name::DeviceName;
use serde::{Deserialize, Serialize};

use super::facts::Facts;

/// The longest name.
const LONGEST: usize = 63;

/// What a name can be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Serial,
    Mac,
    MachineId,
    Host,
}

impl Part {
    const ALL: [(&'static str, Self); 4] =
        [("serial", Self::Serial), ("mac", Self::Mac), ("machine-id", Self::MachineId), ("host", Self::Host)];

    /// The fact, or why there is none.
    fn of(self, facts: &Facts) -> Result<String, Unnamed> {
        let (value, part, cause) = match self {
            Self::Serial => (&facts.serial, "{serial}", "neither its device tree nor its firmware has a serial number"),
            Self::Mac => (&facts.mac, "{mac}", "no physical network interface has an address of its own"),
            Self::MachineId => (&facts.machine_id, "{machine-id}", "/etc/machine-id is empty or not there"),
            Self::Host => (&facts.host, "{host}", "the host has no name"),
        };
        let value = value.as_ref().filter(|value| !fold(value).is_empty());
        let value = value.ok_or(Unnamed::Lacks { part, cause })?;
        Ok(match self {
            // machine-id(5) asks that the id itself be shown to nobody.
            Self::MachineId => derived(value),
            Self::Mac => value.replace(':', ""),
            Self::Serial | Self::Host => value.clone(),
        })
    }
}

/// Why there is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unnamed {
    #[error("{{{0}}} is nothing that a name can be made of: expected {{serial}}, {{mac}}, {{machine-id}} or {{host}}")]
    Unknown(String),
    #[error("a brace is open: expected {{serial}}, {{mac}}, {{machine-id}} or {{host}}")]
    Open,
    #[error("this device has no {part}: {cause}")]
    Lacks { part: &'static str, cause: &'static str },
    #[error("nothing of {0:?} is left in a name")]
    Nothing(String),
}

/// Whether `text` is a pattern, and no name.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['{', '}'])
}

/// The name that `pattern` gives a device with these facts, folded to
/// `[a-z0-9-]{1,63}`. What is too long is cut, and ends with a part of its
/// digest, so that two long names that begin alike stay two.
pub(super) fn expand(pattern: &str, facts: &Facts) -> Result<DeviceName, Unnamed> {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some((before, behind)) = rest.split_once('{') {
        let (word, after) = behind.split_once('}').ok_or(Unnamed::Open)?;
        let part = Part::ALL.iter().find(|(name, _)| *name == word).map(|(_, part)| *part);
        let part = part.ok_or_else(|| Unnamed::Unknown(word.to_owned()))?;
        text.push_str(before);
        text.push_str(&part.of(facts)?);
        rest = after;
    }
    if rest.contains('}') {
        return Err(Unnamed::Open);
    }
    text.push_str(rest);
    let mut name = fold(&text);
    if name.len() > LONGEST {
        let digest = Digest::of(name.as_bytes()).to_string();
        let tail = digest.rsplit(':').next().unwrap_or_default().get(..8).unwrap_or_default().to_owned();
        name.truncate(LONGEST - 9);
        name = format!("{}-{tail}", name.trim_end_matches('-'));
    }
    name.parse().map_err(|_| Unnamed::Nothing(text))
}

/// Lower case; what is no letter and no digit becomes one `-`, none at the ends.
fn fold(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            name.push(c);
        } else if !name.ends_with('-') {
            name.push('-');
        }
    }
    name.trim_matches('-').to_owned()
}

/// 16 hex digits that tell one machine id from the next, and not the id.
pub(super) fn derived(machine_id: &str) -> String {
    let digest = Digest::of(format!("burgee device name\n{machine_id}").as_bytes()).to_string();
    digest.rsplit(':').next().unwrap_or_default().get(..16).unwrap_or_default().to_owned()
}

/// `<store>/name.json`: the name that was made, and from which pattern.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptName {
    pub pattern: String,
    pub name: DeviceName,
}

#[cfg(test)]
mod tests {
    use super::{derived, expand, is_pattern};
    use crate::config::facts::Facts;

    #[test]
    fn names_are_made_of_facts() {
        let facts = Facts {
            serial: Some("PF2X 8K1.A".to_owned()),
            mac: Some("b8:27:eb:12:34:56".to_owned()),
            machine_id: Some("3d1219c7c4c5404aaa1f6d2a48adfda4".to_owned()),
            host: Some("Raspberry Pi".to_owned()),
        };
        let long = "x".repeat(80);
        let id = derived("3d1219c7c4c5404aaa1f6d2a48adfda4");
        let check = |pattern: &str, want: Result<&str, &str>| {
            let got = expand(pattern, &facts).map(String::from).map_err(|error| error.to_string());
            match want {
                Ok(name) => assert_eq!(got.as_deref(), Ok(name), "{pattern}"),
                Err(part) => assert!(got.as_ref().is_err_and(|error| error.contains(part)), "{pattern}: {got:?}"),
            }
        };
        assert!(is_pattern("store-{serial}") && !is_pattern("store-042"));
        check("store-{serial}", Ok("store-pf2x-8k1-a"));
        check("{mac}", Ok("b827eb123456"));
        check("gate-{machine-id}", Ok(&format!("gate-{id}")));
        check("{host}-{serial}", Ok("raspberry-pi-pf2x-8k1-a"));
        check("--{host}--", Ok("raspberry-pi"));
        check("a{uuid}", Err("{uuid} is nothing"));
        check("a{serial", Err("a brace is open"));
        check("a}b", Err("a brace is open"));
        let first = expand(&format!("{long}{{serial}}"), &facts).unwrap();
        let second = expand(&format!("{long}{{mac}}"), &facts).unwrap();
        assert!(first != second && first.as_str().len() == 63, "{first} {second}");

        let none = Facts::default();
        for part in ["serial", "mac", "machine-id", "host"] {
            let error = expand(&format!("a-{{{part}}}"), &none).unwrap_err().to_string();
            assert!(error.contains(&format!("no {{{part}}}")), "{error}");
        }
        let punctuation = Facts { serial: Some("...".to_owned()), ..none };
        assert!(expand("{serial}", &punctuation).is_err());
    }
}
