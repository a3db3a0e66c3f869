//! Join tokens and enrolment: who may become a device of the fleet.
//!
//! A token is a secret that an operator hands out; the store has its digest
//! alone. What a device proves is that it holds the key it brings; that it is
//! the device it says it is rests on the token. Nothing here opens a socket.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::enroll::{EnrollRequest, EnrollResponse, EnrollState, refusal as reasons};
use fleet::wire::token::TOKEN_LEEWAY;
use jiff::{SignedDuration, Timestamp};

use crate::keys::{self, KeyError};
use crate::store::{DeviceState, Enrolled, NewDevice, NewToken, Store, StoreError, Token, TokenUse};

/// How long a device in the lobby waits before it asks again.
const LOBBY_RETRY_SECS: u64 = 15;
/// Labels in one request.
const LABELS_MAX: usize = 64;
/// Bytes of a label's key or value.
const LABEL_MAX: usize = 128;

/// A new token: what is printed, and what is kept.
///
/// # Errors
/// When the system has no random bytes.
pub fn new_token(
    uses: Option<u32>,
    life: SignedDuration,
    labels: BTreeMap<String, String>,
    lobby: bool,
    now: Timestamp,
) -> Result<(String, NewToken), KeyError> {
    let text = format!("bjt_{}", URL_SAFE_NO_PAD.encode(keys::random::<24>()?));
    let hash = keys::sha256(text.as_bytes());
    let token = NewToken {
        // Enough to name it, nothing to guess it by.
        id: keys::hex(&hash[..5]),
        hash,
        uses,
        labels,
        lobby,
        created: now,
        expires: now.saturating_add(life).unwrap_or(Timestamp::MAX),
    };
    Ok((text, token))
}

/// Why a device was not enrolled. The text goes to the device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinRefused {
    /// The request itself.
    #[error("the request is not signed by the key that it brings")]
    Proof,
    /// The device's clock, or a replay.
    #[error("the request was made at {at}, too far from the hub's clock; is the device's clock set?")]
    Clock {
        /// By the device's clock.
        at: Timestamp,
    },
    /// Whatever is wrong with the token: a guesser learns nothing more.
    #[error("the join token is unknown, expired, revoked or used up")]
    Token,
    /// It means to join somewhere else.
    #[error("this hub is of fleet {fleet}")]
    Fleet {
        /// The hub's.
        fleet: FleetName,
    },
    /// The token does not say so.
    #[error("the join token does not allow the label {label}")]
    Label {
        /// `key=value`.
        label: String,
    },
    /// The name is taken.
    #[error("a device of that name is enrolled with another key; an operator must remove it first")]
    Name,
    /// The key is another device's.
    #[error("this device's key is enrolled already, as {device}")]
    Key {
        /// That device.
        device: DeviceName,
    },
    /// The fleet is as large as the hub may make it.
    #[error("the hub takes no more devices")]
    Full,
}

impl JoinRefused {
    /// Stable, CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Proof => "EnrollProof",
            Self::Clock { .. } => reasons::CLOCK,
            Self::Token => reasons::TOKEN,
            Self::Fleet { .. } => reasons::FLEET,
            Self::Label { .. } => reasons::LABEL,
            Self::Name => reasons::NAME,
            Self::Key { .. } => reasons::KEY,
            Self::Full => reasons::FULL,
        }
    }
}

/// What is said to a device that asks to join.
#[derive(Clone, Debug)]
pub struct Terms<'a> {
    /// The hub's fleet.
    pub fleet: &'a FleetName,
    /// The hub's key.
    pub key: &'a SigningKey,
    /// Where the broker is, if there is one.
    pub mqtt: Option<&'a str>,
    /// The most devices.
    pub devices: usize,
}

/// Takes a device in, or says why not. The outer error is the store's.
///
/// # Errors
/// When the store does not answer.
pub async fn enroll<S: Store>(
    store: &S,
    terms: &Terms<'_>,
    proof: &str,
    now: Timestamp,
) -> Result<Result<EnrollResponse, JoinRefused>, StoreError> {
    let Ok(request) = EnrollRequest::open(proof) else { return Ok(Err(JoinRefused::Proof)) };
    if let Err(refused) = check_request(&request, terms, now) {
        return Ok(Err(refused));
    }
    let hash = keys::sha256(request.token.as_bytes());
    let token = match store.token(&hash).await? {
        Some(token) if keys::same(&token.hash, &hash) => token,
        _ => return Ok(Err(JoinRefused::Token)),
    };
    // The same device asking again: out of the lobby, or its answer was lost.
    // Its key is proved, so the token need not be good any more.
    if let Some(known) = store.device(&request.name).await? {
        let same = known.key == *request.key.verifying().as_bytes();
        match known.state {
            DeviceState::Removed => {}
            state if same => return Ok(Ok(answer(state, known.labels, terms))),
            DeviceState::Lobby | DeviceState::Accepted => return Ok(Err(JoinRefused::Name)),
        }
    }
    if let Err(refused) = check_labels(&request.labels, &token) {
        return Ok(Err(refused));
    }
    if store.count(&crate::store::DeviceFilter::default()).await? >= terms.devices as u64 {
        return Ok(Err(JoinRefused::Full));
    }
    if store.use_token(&token.id, now).await? != TokenUse::Taken {
        return Ok(Err(JoinRefused::Token));
    }
    let state = if token.lobby { DeviceState::Lobby } else { DeviceState::Accepted };
    let device = NewDevice {
        name: request.name,
        key: *request.key.verifying().as_bytes(),
        state,
        labels: request.labels,
        token: token.id.clone(),
        now,
    };
    let refused = match store.enroll(&device).await? {
        Enrolled::Done => return Ok(Ok(answer(state, device.labels, terms))),
        Enrolled::NameTaken => JoinRefused::Name,
        Enrolled::KeyOf(device) => JoinRefused::Key { device },
    };
    store.unuse_token(&token.id).await?;
    Ok(Err(refused))
}

fn check_request(request: &EnrollRequest, terms: &Terms<'_>, now: Timestamp) -> Result<(), JoinRefused> {
    // A recorded request names the key that made it, so a replay gives nobody
    // anything; it is refused all the same once it is old.
    if request.at.duration_since(now).abs() > TOKEN_LEEWAY {
        return Err(JoinRefused::Clock { at: request.at });
    }
    match &request.fleet {
        Some(fleet) if fleet != terms.fleet => Err(JoinRefused::Fleet { fleet: terms.fleet.clone() }),
        _ => Ok(()),
    }
}

fn check_labels(labels: &BTreeMap<String, String>, token: &Token) -> Result<(), JoinRefused> {
    let short = |text: &str| text.chars().take(80).collect();
    if labels.len() > LABELS_MAX {
        return Err(JoinRefused::Label { label: format!("number {}", LABELS_MAX + 1) });
    }
    for (key, value) in labels {
        let allowed = token.labels.is_empty() || token.labels.get(key) == Some(value);
        if !allowed || key.is_empty() || key.len() > LABEL_MAX || value.len() > LABEL_MAX {
            return Err(JoinRefused::Label { label: short(&format!("{key}={value}")) });
        }
    }
    Ok(())
}

fn answer(state: DeviceState, labels: BTreeMap<String, String>, terms: &Terms<'_>) -> EnrollResponse {
    let accepted = state == DeviceState::Accepted;
    EnrollResponse {
        state: if accepted { EnrollState::Accepted } else { EnrollState::Lobby },
        fleet: accepted.then(|| terms.fleet.clone()),
        hub_key: accepted.then(|| keys::public(terms.key)),
        mqtt: terms.mqtt.filter(|_| accepted).map(str::to_owned),
        trust: None,
        labels,
        message: (!accepted).then(|| "an operator has yet to accept the device".to_owned()),
        reason: None,
        retry_secs: (!accepted).then_some(LOBBY_RETRY_SECS),
    }
}

/// The answer to a device that was refused.
#[must_use]
pub fn refusal(refused: &JoinRefused) -> EnrollResponse {
    EnrollResponse {
        state: EnrollState::Refused,
        fleet: None,
        hub_key: None,
        mqtt: None,
        trust: None,
        labels: BTreeMap::new(),
        message: Some(refused.to_string()),
        reason: Some(refused.reason().to_owned()),
        retry_secs: None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ed25519_dalek::SigningKey;
    use fleet::wire::enroll::{EnrollRequest, EnrollState};
    use fleet::wire::key::PublicKey;
    use jiff::{SignedDuration, Timestamp};

    use super::{JoinRefused, Terms, enroll, new_token};
    use crate::store::sqlite::SqliteStore;
    use crate::store::{DeviceState, Store};

    struct Bench {
        _folder: tempfile::TempDir,
        store: SqliteStore,
        key: SigningKey,
        now: Timestamp,
    }

    impl Bench {
        async fn token(&self, uses: Option<u32>, labels: &[(&str, &str)], lobby: bool) -> String {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            let (text, token) =
                new_token(uses, SignedDuration::from_hours(1), labels, lobby, self.now).expect("a token");
            self.store.add_token(&token).await.expect("kept");
            text
        }

        fn request(&self, name: &str, seed: u8, token: &str) -> EnrollRequest {
            EnrollRequest {
                fleet: None,
                name: name.parse().expect("a name"),
                labels: BTreeMap::new(),
                key: PublicKey::from(SigningKey::from_bytes(&[seed; 32]).verifying_key()),
                token: token.to_owned(),
                at: self.now,
                nonce: "n".to_owned(),
                agent: String::new(),
            }
        }

        async fn ask(&self, request: &EnrollRequest, seed: u8) -> Result<EnrollState, JoinRefused> {
            self.ask_at(request, seed, self.now).await
        }

        async fn ask_at(&self, request: &EnrollRequest, seed: u8, now: Timestamp) -> Result<EnrollState, JoinRefused> {
            let fleet = "retail".parse().expect("a name");
            let terms = Terms { fleet: &fleet, key: &self.key, mqtt: Some("mqtt://b"), devices: 4 };
            let proof = request.prove(&SigningKey::from_bytes(&[seed; 32])).expect("signs");
            enroll(&self.store, &terms, &proof, now).await.expect("the store answers").map(|answer| answer.state)
        }
    }

    async fn bench() -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        let store = SqliteStore::open(&folder.path().join("hub.db")).await.expect("opens");
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        Bench { _folder: folder, store, key: SigningKey::from_bytes(&[9; 32]), now }
    }

    #[tokio::test]
    async fn who_gets_in() {
        let bench = bench().await;
        let once = bench.token(Some(1), &[], false).await;
        let first = bench.request("a", 1, &once);
        assert_eq!(bench.ask(&first, 2).await, Err(JoinRefused::Proof), "another's key");
        assert_eq!(bench.ask(&first, 1).await, Ok(EnrollState::Accepted));
        assert_eq!(bench.ask(&first, 1).await, Ok(EnrollState::Accepted), "its answer was lost");
        assert_eq!(bench.ask(&bench.request("b", 2, &once), 2).await, Err(JoinRefused::Token), "used up");
        assert_eq!(bench.ask(&bench.request("b", 2, "bjt_x"), 2).await, Err(JoinRefused::Token), "made up");

        let many = bench.token(None, &[], false).await;
        assert_eq!(bench.ask(&bench.request("a", 3, &many), 3).await, Err(JoinRefused::Name), "taken");
        let hour = bench.now + SignedDuration::from_hours(1);
        let late = EnrollRequest { at: hour, ..bench.request("c", 3, &many) };
        assert_eq!(bench.ask_at(&late, 3, hour).await, Err(JoinRefused::Token), "expired");
        assert_eq!(bench.ask_at(&first, 1, hour).await, Err(JoinRefused::Clock { at: bench.now }), "replayed");
        let elsewhere = EnrollRequest { fleet: "lab".parse().ok(), ..bench.request("c", 3, &many) };
        assert!(matches!(bench.ask(&elsewhere, 3).await, Err(JoinRefused::Fleet { .. })));

        let name = "a".parse().expect("a name");
        bench.store.set_state(&name, DeviceState::Removed, bench.now).await.expect("removes");
        assert_eq!(bench.ask(&bench.request("a", 3, &many), 3).await, Ok(EnrollState::Accepted), "replaced");
        // Two devices with one key would be one to whoever checks a signature.
        let copied = |device: &str| Err(JoinRefused::Key { device: device.parse().expect("a name") });
        let last = bench.token(Some(1), &[], false).await;
        assert_eq!(bench.ask(&bench.request("b", 3, &last), 3).await, copied("a"), "a copy");
        for (name, seed) in [("b", 4), ("c", 5), ("d", 6)] {
            let token = if name == "b" { &last } else { &many };
            assert_eq!(bench.ask(&bench.request(name, seed, token), seed).await, Ok(EnrollState::Accepted), "{name}");
        }
        assert_eq!(bench.ask(&bench.request("e", 7, &many), 7).await, Err(JoinRefused::Full));
    }

    #[tokio::test]
    async fn labels_and_lobby() {
        let bench = bench().await;
        let token = bench.token(None, &[("region", "eu")], true).await;
        let with = |key: &str, value: &str| EnrollRequest {
            labels: [(key.to_owned(), value.to_owned())].into(),
            ..bench.request("a", 1, &token)
        };
        let refused = |label: &str| Err(JoinRefused::Label { label: label.to_owned() });
        assert_eq!(bench.ask(&with("region", "us"), 1).await, refused("region=us"));
        assert_eq!(bench.ask(&with("ring", "lab"), 1).await, refused("ring=lab"));
        assert_eq!(bench.ask(&with("region", "eu"), 1).await, Ok(EnrollState::Lobby));
        let name = "a".parse().expect("a name");
        bench.store.set_state(&name, DeviceState::Accepted, bench.now).await.expect("accepts");
        assert_eq!(bench.ask(&with("region", "eu"), 1).await, Ok(EnrollState::Accepted));
    }
}
