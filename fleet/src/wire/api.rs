//! The hub's agent API, `/api/v1/agent/`: JSON over HTTPS. All but `enroll` and
//! `hub-key` want `Authorization: Bearer` with a [`super::token::DeviceToken`]
//! for the audience `hub`.

use serde::{Deserialize, Serialize};

use super::key::PublicKey;

/// `POST` [`EnrollBody`] → [`super::enroll::EnrollResponse`].
pub const ENROLL: &str = "/api/v1/agent/enroll";
/// `POST` [`ReportsBody`] → [`ReportsAnswer`].
pub const REPORTS: &str = "/api/v1/agent/reports";
/// `GET`, `?after=SEQUENCE` → [`CommandsAnswer`].
pub const COMMANDS: &str = "/api/v1/agent/commands";
/// `GET` → [`HubKeyAnswer`].
pub const HUB_KEY: &str = "/api/v1/agent/hub-key";
/// The most reports that one `POST` carries.
pub const REPORTS_MAX: usize = 64;
/// The most bytes of reports that one `POST` carries.
pub const REPORTS_MAX_BYTES: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollBody {
    /// An [`super::enroll::EnrollRequest`] as JWS, signed by the key that it names.
    pub proof: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsBody {
    /// Reports as JWS, oldest first.
    pub reports: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportsAnswer {
    /// An [`super::ack::Ack`] as JWS; none while nothing can be acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<String>,
    /// What was not stored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedReport>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReport {
    /// Its index in the request.
    pub index: usize,
    /// Stable, CamelCase.
    pub reason: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandsAnswer {
    /// Commands as JWS, by sequence, all above `after` and not expired.
    #[serde(default)]
    pub commands: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubKeyAnswer {
    pub key: PublicKey,
    /// `SHA256:…`, for people to compare.
    pub fingerprint: String,
}

/// What an error answers, with any status that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// Stable, CamelCase.
    pub reason: String,
    /// One sentence.
    pub message: String,
}
