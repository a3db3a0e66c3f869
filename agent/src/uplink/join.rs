//! Joining a hub: the request, the judgement of its answer, and a device that
//! does both by itself.
//!
//! What is taken over from the hub is its key, the fleet's name and the
//! broker's address. **Never the root of trust.** A device that joins by
//! itself has a join token in a file of its image; nothing waits for it: the
//! loop runs meanwhile. The token is never logged, and its file goes once the
//! hub said yes.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::api::{EnrollBody, ReportsBody};
use fleet::wire::enroll::{EnrollRequest, EnrollResponse, EnrollState, refusal};
use fleet::wire::jws::{self, JwsError, Kind};
use fleet::wire::key::{PublicKey, fingerprint};
use fleet::wire::report::{Event, GIVEN_UP, Report, ReportBody, Run};
use fleet::wire::token::{Audience, DeviceToken};
use jiff::Timestamp;
use tokio::time::Instant;

use super::address::is_private;
use super::backoff::Backoff;
use super::http::HubClient;
use super::identity::{Enrolment, enrolment, keep_enrolment, key_path, make_device_key};
use super::{UplinkSettings, address};
use crate::config::settings::{DeviceSettings, HubSettings};
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::uplink::{Unenrolled, UplinkError};
use crate::retry;

/// Who asks to join what.
pub(crate) struct Applicant<'a> {
    pub(crate) device: &'a DeviceSettings,
    pub(crate) key: &'a SigningKey,
    pub(crate) token: &'a str,
    /// No other fleet will do.
    pub(crate) fleet: Option<&'a FleetName>,
}

impl Applicant<'_> {
    /// Asks once.
    ///
    /// # Errors
    /// When the hub can't be reached or answers something else, or the system
    /// has no entropy.
    pub(crate) async fn ask(&self, hub: &HubClient, now: Timestamp) -> Result<EnrollResponse, UplinkError> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| UplinkError::Random { cause: error.to_string() })?;
        let request = EnrollRequest {
            fleet: self.fleet.cloned(),
            name: self.device.name.clone(),
            labels: self.device.labels.clone(),
            key: PublicKey::from(self.key.verifying_key()),
            token: self.token.to_owned(),
            at: now,
            nonce: URL_SAFE_NO_PAD.encode(nonce),
            agent: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let proof = request.prove(self.key).map_err(|error| UplinkError::Request { cause: error.to_string() })?;
        hub.enroll(&EnrollBody { proof }).await
    }
}

/// The enrolment in a hub's yes; `None`: it lacks the hub's key or the fleet.
pub(crate) fn enrolment_in(
    response: EnrollResponse,
    hub: &str,
    device: &DeviceSettings,
    at: Timestamp,
) -> Option<Enrolment> {
    Some(Enrolment {
        hub: hub.to_owned(),
        hub_key: response.hub_key?,
        fleet: response.fleet?,
        device: device.name.clone(),
        mqtt: response.mqtt,
        labels: response.labels,
        at,
    })
}

/// Says to the hub, with a key that is given up, that it is: whoever else has
/// it goes on alone.
///
/// # Errors
/// When the hub can't be reached, or knows the key no more.
pub(crate) async fn give_up(
    hub: &HubSettings,
    key: &SigningKey,
    former: &Enrolment,
    successor: &DeviceName,
    now: Timestamp,
) -> Result<(), UplinkError> {
    let (fleet, device) = (former.fleet.clone(), former.device.clone());
    let mut drawn = [0; 8];
    getrandom::fill(&mut drawn).map_err(|error| UplinkError::Random { cause: error.to_string() })?;
    let message = format!("a device that had this key took an identity of its own: {successor}");
    let report = Report {
        fleet: fleet.clone(),
        device: device.clone(),
        // Before every place that the other one gives out.
        epoch: 0,
        counter: u64::try_from(now.as_millisecond()).unwrap_or(1).max(1),
        after: None,
        run: Some(Run { id: format!("{:016x}", u64::from_be_bytes(drawn)), machine: None, heard: 0 }),
        at: now,
        body: ReportBody::Event(Event { revision: None, event: GIVEN_UP.to_owned(), message }),
    };
    let too_long = |error: JwsError| UplinkError::Request { cause: error.to_string() };
    let report = jws::sign(Kind::Report, &report, key).map_err(too_long)?;
    let token = DeviceToken::new(fleet, device, Audience::Hub, now);
    let token = jws::sign(Kind::Token, &token, key).map_err(too_long)?;
    let answer = HubClient::new(hub)?.reports(&token, &ReportsBody { reports: vec![report] }).await?;
    match answer.refused.first() {
        None => Ok(()),
        Some(refused) => {
            Err(UplinkError::Answer { url: hub.url.clone(), status: 200, message: refused.reason.clone() })
        }
    }
}

/// How often a device asks again.
const UNREACHED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// After a no: only a person can change it, at the hub or here.
const REFUSED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15 * 60));

/// A device on its way into a fleet.
pub(super) struct Joining {
    unreached: Backoff,
    refused: Backoff,
    not_before: Instant,
    /// Of the token file when it was last tried: another file is another try.
    tried: Option<SystemTime>,
    last: Option<Unenrolled>,
}

impl Joining {
    pub(super) fn new(device: &DeviceSettings) -> Self {
        let seed = retry::seed(device.name.as_str());
        Self {
            unreached: Backoff::new(UNREACHED.0, UNREACHED.1, seed),
            refused: Backoff::new(REFUSED.0, REFUSED.1, seed),
            not_before: Instant::now(),
            tried: None,
            last: None,
        }
    }

    /// One turn: asks where it is time to. `None`: the device has enrolled.
    pub(super) async fn turn(&mut self, settings: &UplinkSettings, clock: &impl Clock) -> Option<Unenrolled> {
        let Some(file) = settings.hub.token_file.as_deref() else {
            return Some(unenrolled(
                "NotEnrolled",
                "the device is not enrolled".to_owned(),
                Some("run `burgee-agent enroll`, or name a join token in hub.token_file"),
            ));
        };
        let changed = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        if let Some(last) = self.last.as_ref().filter(|_| Instant::now() < self.not_before && changed == self.tried) {
            return Some(last.clone());
        }
        if changed != self.tried {
            self.refused.reset();
        }
        self.tried = changed;
        self.last = self.ask(file, settings, clock).await;
        self.last.clone()
    }

    async fn ask(&mut self, file: &Path, settings: &UplinkSettings, clock: &impl Clock) -> Option<Unenrolled> {
        self.not_before = Instant::now();
        let shown = file.display();
        let token = match std::fs::read_to_string(file) {
            Ok(text) => text.lines().next().unwrap_or_default().trim().to_owned(),
            Err(error) => {
                let hint = "put a join token there (burgee-hub token create), or run `burgee-agent enroll`";
                return Some(unenrolled("NoToken", format!("cannot read the join token {shown}: {error}"), Some(hint)));
            }
        };
        if token.is_empty() {
            let hint = "put a join token into its first line: burgee-hub token create";
            return Some(unenrolled("NoToken", format!("the join token {shown} is empty"), Some(hint)));
        }
        if !is_private(&settings.hub.url) {
            let message = format!("{} is not https: the join token could be read on the way", settings.hub.url);
            return Some(unenrolled("NotEncrypted", message, Some("set hub.url to https://…")));
        }
        match self.ask_hub(&token, settings, clock).await {
            Ok(None) => {
                forget_token(file);
                None
            }
            Ok(waits) => waits,
            Err(error) => {
                let after = if error.is_transient() { &mut self.unreached } else { &mut self.refused };
                self.not_before += after.next();
                let mut message = format!("while enrolling: {error}");
                let mut source = std::error::Error::source(&error);
                while let Some(cause) = source {
                    message = format!("{message}: {cause}");
                    source = cause.source();
                }
                let hint = match &error {
                    UplinkError::Unreachable { .. } => Some(
                        "it is tried again; if it lasts: is hub.url right, is its certificate authority in hub.ca_file, is the clock set?".to_owned(),
                    ),
                    error => error.hint(),
                };
                Some(unenrolled(error.reason(), message, hint.as_deref()))
            }
        }
    }

    /// `Ok(None)`: the hub took the device in, and it is on disk.
    async fn ask_hub(
        &mut self,
        token: &str,
        settings: &UplinkSettings,
        clock: &impl Clock,
    ) -> Result<Option<Unenrolled>, UplinkError> {
        let key = make_device_key(&settings.store)?;
        let url = address::hub(&settings.hub.url)?;
        let hub = HubClient::new(&settings.hub)?;
        let applicant = Applicant { device: &settings.device, key: &key, token, fleet: None };
        let response = applicant.ask(&hub, clock.now()).await?;
        self.unreached.reset();
        let message = response.message.clone().unwrap_or_else(|| "no reason given".to_owned());
        let own = fingerprint(&key.verifying_key());
        match response.state {
            EnrollState::Accepted => {
                let enrolment = enrolment_in(response, &url, &settings.device, clock.now());
                let enrolment = enrolment.ok_or_else(|| UplinkError::Answer {
                    url: url.clone(),
                    status: 200,
                    message: "accepted, without its key or the fleet's name".to_owned(),
                })?;
                keep_enrolment(&settings.store, &enrolment)?;
                tracing::info!(device = %enrolment.device, fleet = %enrolment.fleet, hub = url, hub_key = enrolment.hub_key.fingerprint(), "enrolled");
                Ok(None)
            }
            EnrollState::Lobby => {
                self.refused.reset();
                self.not_before = Instant::now() + Duration::from_secs(response.retry_secs.unwrap_or(15).clamp(1, 300));
                let hint = format!(
                    "compare the key on the hub's lobby page with {own}, and type `burgee-hub device accept {}`",
                    settings.device.name
                );
                Ok(Some(unenrolled("InLobby", format!("in the lobby of {url}: {message}"), Some(&hint))))
            }
            EnrollState::Refused
                if response.reason.as_deref() == Some(refusal::KEY) && enrolment(&settings.store)?.is_none() =>
            {
                // Made before its image was copied. Nobody knows this device by
                // it: the next one is its own.
                let path = key_path(&settings.store);
                std::fs::remove_file(&path).map_err(|source| UplinkError::Store { action: "remove", path, source })?;
                tracing::warn!(message, key = own, "this device's key is another's; making a new one");
                self.not_before = Instant::now() + self.unreached.next();
                Ok(Some(unenrolled(
                    "KeyTaken",
                    format!("{url} refuses this device: {message}; it makes a new key"),
                    None,
                )))
            }
            EnrollState::Refused => {
                let (reason, hint) = refusal_of(response.reason.as_deref());
                // A clock is set sooner or later, by nobody's doing.
                let after = if reason == "ClockWrong" { &mut self.unreached } else { &mut self.refused };
                self.not_before = Instant::now() + after.next();
                Ok(Some(unenrolled(reason, format!("{url} refuses this device: {message}"), Some(hint))))
            }
        }
    }
}

/// The condition's reason, and what to do.
pub(crate) fn refusal_of(reason: Option<&str>) -> (&'static str, &'static str) {
    match reason {
        Some(refusal::TOKEN) => ("TokenRefused", "put a new token into hub.token_file: burgee-hub token create"),
        Some(refusal::CLOCK) => ("ClockWrong", "check the time service; it is tried again"),
        Some(refusal::NAME) => (
            "NameTaken",
            "give this device another device.name, or free the name at the hub: burgee-hub device remove NAME",
        ),
        Some(refusal::KEY) => (
            "KeyTaken",
            "on a copy: burgee-agent enroll --new-identity; where the device got another name: burgee-hub device remove its former one",
        ),
        Some(refusal::LABEL) => {
            ("LabelRefused", "make a token that allows device.labels: burgee-hub token create --label")
        }
        Some(refusal::FLEET) => ("OtherFleet", "set hub.url to the fleet's own hub"),
        Some(refusal::FULL) => ("FleetFull", "raise limits.devices of the hub"),
        _ => ("HubRefused", "see the hub's log; it is tried again"),
    }
}

fn unenrolled(reason: &'static str, message: String, hint: Option<&str>) -> Unenrolled {
    let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    Unenrolled { reason, message: message + &hint }
}

/// A token that did its work is no one's any more: its file is removed; where
/// the folder can't be written (the packaged unit lets the agent write to the
/// file alone), emptied. An image that can't be written at all keeps it; the
/// device does not look at it again.
pub(super) fn forget_token(file: &Path) {
    let path = file.display();
    let refused = match std::fs::remove_file(file) {
        Ok(()) => return tracing::info!(%path, "the join token is removed"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => error,
    };
    match std::fs::metadata(file) {
        // Emptied at an earlier start.
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {}
        Ok(metadata) if metadata.is_file() && std::fs::File::create(file).and_then(|file| file.sync_all()).is_ok() => {
            tracing::info!(%path, "the join token is emptied");
        }
        _ => tracing::info!(%path, error = %refused, "the join token stays, and is not looked at again"),
    }
}

#[cfg(test)]
mod tests {
    use super::{forget_token, refusal_of};

    #[test]
    fn refusals() {
        let cases = [
            (Some("EnrollToken"), "TokenRefused"),
            (Some("EnrollClock"), "ClockWrong"),
            (Some("EnrollName"), "NameTaken"),
            (Some("EnrollKey"), "KeyTaken"),
            (Some("EnrollLabel"), "LabelRefused"),
            (Some("EnrollLater"), "HubRefused"),
            (None, "HubRefused"),
        ];
        for (reason, want) in cases {
            assert_eq!(refusal_of(reason).0, want, "{reason:?}");
        }
    }

    #[test]
    fn a_token_is_forgotten_where_it_can_be() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "x").unwrap();
        forget_token(&file);
        assert!(!file.exists());
        forget_token(&file);
        // What can't be removed (here: a folder) is no error.
        std::fs::create_dir(&file).unwrap();
        forget_token(&file);
        assert!(file.exists());
    }
}
