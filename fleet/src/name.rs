//! The names of a fleet's things: `[a-z0-9-]{1,63}`, so that none of them can
//! be a path, an MQTT wildcard or a label value that Kubernetes refuses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a name: expected 1 to 63 characters of a-z, 0-9 and '-'")]
pub struct InvalidName {
    /// What was given.
    pub text: String,
}

fn check(text: &str) -> Result<(), InvalidName> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidName { text: text.to_owned() })
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[schemars(regex(pattern = "^[a-z0-9-]{1,63}$"))] String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a fleet, from `burgee.yaml`.
    FleetName;
    /// The name of an app: its folder under `apps/`.
    AppName;
    /// The name of a group: its file under `groups/`.
    GroupName;
    /// The name of a device: `agent.toml`, or the host's name folded.
    DeviceName;
    /// The name of a rollout: its file under `rollouts/`.
    RolloutName;
}

impl DeviceName {
    /// A host name folded to a device name: lower case, up to the first dot.
    ///
    /// # Errors
    /// When what remains is still no name.
    pub fn from_host(host: &str) -> Result<Self, InvalidName> {
        host.split('.').next().unwrap_or_default().to_ascii_lowercase().parse()
    }
}

#[cfg(test)]
mod tests {
    use super::{AppName, DeviceName};

    #[test]
    fn names() {
        let long = "a".repeat(64);
        let cases =
            [("pos", true), ("a-1", true), ("", false), ("A", false), ("a/b", false), ("+", false), (&long, false)];
        for (text, want) in cases {
            assert_eq!(text.parse::<AppName>().is_ok(), want, "{text:?}");
        }
        assert_eq!(DeviceName::from_host("Store-042.example.com").map(String::from), Ok("store-042".to_owned()));
    }
}
