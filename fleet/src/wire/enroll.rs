//! Enrolment: how a device becomes one of a fleet's.
//!
//! The device makes its key, signs its request with it, and posts it
//! ([`super::api::EnrollBody`]) until the hub accepts or refuses. The answer
//! never touches the device's root of trust: that is the operator's word.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::jws::{self, JwsError, Kind};
use super::key::PublicKey;
use crate::name::{DeviceName, FleetName};

/// What a device asks, signed with the key that it brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollRequest {
    /// The fleet that it means to join; the token's otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    pub name: DeviceName,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub key: PublicKey,
    /// The join token. The same device asking again with the same key uses it up once.
    pub token: String,
    pub at: Timestamp,
    /// Fresh for every request.
    pub nonce: String,
    /// The agent's version.
    #[serde(default)]
    pub agent: String,
}

impl EnrollRequest {
    /// The request as a JWS by the device's new key.
    ///
    /// # Errors
    /// When it is too long.
    pub fn prove(&self, key: &SigningKey) -> Result<String, JwsError> {
        jws::sign(Kind::Enroll, self, key)
    }

    /// The request in `proof`, if it is signed by the key that it names.
    ///
    /// # Errors
    /// When it is not.
    pub fn open(proof: &str) -> Result<Self, JwsError> {
        jws::verify_own(Kind::Enroll, proof, |request: &Self| *request.key.verifying())
    }
}

/// Reasons of a refusal that a device acts upon.
pub mod refusal {
    /// The token is unknown, expired, revoked or used up.
    pub const TOKEN: &str = "EnrollToken";
    /// The device's clock is too far from the hub's.
    pub const CLOCK: &str = "EnrollClock";
    /// Another key has that name.
    pub const NAME: &str = "EnrollName";
    /// Another device has that key.
    pub const KEY: &str = "EnrollKey";
    /// The token does not allow a label.
    pub const LABEL: &str = "EnrollLabel";
    /// The hub is of another fleet.
    pub const FLEET: &str = "EnrollFleet";
    /// The hub takes no more devices.
    pub const FULL: &str = "EnrollFull";
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrollState {
    /// The device is one of the fleet's.
    Accepted,
    /// An operator has yet to decide: ask again.
    Lobby,
    /// No, for good; `message` says why.
    Refused,
}

/// The hub's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnrollResponse {
    pub state: EnrollState,
    /// The fleet that it joins. Present when accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetName>,
    /// The key by which the hub signs. Present when accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub_key: Option<PublicKey>,
    /// `mqtts://host:port`, for devices whose `agent.toml` names no broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<String>,
    /// The fleet's `allowed_signers` as the hub knows it: to be compared with
    /// the operator's word, never to be believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust: Option<String>,
    /// The labels that the token let the device claim.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When refused: why, stable and in CamelCase ([`refusal`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// In the lobby: when to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_secs: Option<u64>,
}
