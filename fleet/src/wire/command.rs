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
