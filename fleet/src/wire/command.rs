//! Commands: what the hub, signed, may ask of a device. There is no remote shell.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::name::{AppName, DeviceName, FleetName};

/// One command. Refused when it is for another device, late, or its sequence
/// is not above the last one acted on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Command {
    pub fleet: FleetName,
    pub device: DeviceName,
    /// max(last + 1, Unix milliseconds), so that a restored hub isn't taken for a replay.
    pub sequence: u64,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub act: Act,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Act {
    Sync,
    Suspend,
    Resume,
    Retry,
    Rollback,
    Logs { app: AppName, lines: u32 },
}

/// Why a command whose signature holds is not for this device, or not now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandRefused {
    #[error("it is for device {fleet}/{device}")]
    OtherDevice { fleet: FleetName, device: DeviceName },
    #[error("it expired at {expires}")]
    Late { expires: Timestamp },
}

impl CommandRefused {
    /// Stable, CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherDevice { .. } => "OtherDevice",
            Self::Late { .. } => "Late",
        }
    }
}

impl Command {
    /// Whether it is for `device` of `fleet`, at `now`. Its sequence is judged
    /// where the last one is journalled.
    ///
    /// # Errors
    /// When it is not.
    pub fn check(&self, fleet: &FleetName, device: &DeviceName, now: Timestamp) -> Result<(), CommandRefused> {
        if (&self.fleet, &self.device) != (fleet, device) {
            Err(CommandRefused::OtherDevice { fleet: self.fleet.clone(), device: self.device.clone() })
        } else if now >= self.expires {
            Err(CommandRefused::Late { expires: self.expires })
        } else {
            Ok(())
        }
    }
}
