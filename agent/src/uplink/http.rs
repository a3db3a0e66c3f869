//! The hub over HTTPS: enrolment, and reports and commands where MQTT is
//! missing, down, or brings no acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fleet::wire::api::{
    COMMANDS, CommandsAnswer, ENROLL, EnrollBody, ErrorAnswer, HUB_KEY, HubKeyAnswer, REPORTS, REPORTS_MAX,
    REPORTS_MAX_BYTES, ReportsAnswer, ReportsBody,
};
use fleet::wire::enroll::EnrollResponse;
use fleet::wire::jws::{self, Kind};
use fleet::wire::status::LinkState;
use fleet::wire::token::{Audience, DeviceToken};
use jiff::Timestamp;
use reqwest::{Client, RequestBuilder, redirect};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::address;
use super::backoff::Backoff;
use super::exchange::{Cursor, Exchange, Identity, Via};
use super::identity::Enrolment;
use super::pace::Pace;
use crate::config::settings::HubSettings;
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::uplink::UplinkError;
use crate::tls;

/// The longest answer that is read.
const ANSWER_LIMIT: usize = 1024 * 1024;

/// A hub's agent API.
pub(crate) struct HubClient {
    base: String,
    client: Client,
}

impl HubClient {
    /// # Errors
    /// When the address is none, or its CA file can't be used.
    pub(crate) fn new(hub: &HubSettings) -> Result<Self, UplinkError> {
        let base = address::hub(&hub.url)?;
        let failed = |source| UplinkError::Tls { thing: base.clone(), source };
        let config = tls::client_config(hub.ca_file.as_deref()).map_err(|error| failed(error.into()))?;
        let client = Client::builder()
            .tls_backend_preconfigured((*config).clone())
            .http1_only()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .pool_max_idle_per_host(1)
            .user_agent(concat!("burgee-agent/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| failed(error.into()))?;
        Ok(Self { base, client })
    }

    /// # Errors
    /// When the hub can't be reached, or answers something else.
    pub(crate) async fn enroll(&self, body: &EnrollBody) -> Result<EnrollResponse, UplinkError> {
        self.ask(self.client.post(self.url(ENROLL)).json(body), ENROLL).await
    }

    /// The key by which the hub signs, by its own word.
    ///
    /// # Errors
    /// When the hub can't be reached, or answers something else.
    pub(crate) async fn key(&self) -> Result<HubKeyAnswer, UplinkError> {
        self.ask(self.client.get(self.url(HUB_KEY)), HUB_KEY).await
    }

    /// Whether the hub takes this device for one of its own. Takes nothing
    /// from it: there is no command of so high a sequence.
    ///
    /// # Errors
    /// When it does not, or can't be reached.
    pub(crate) async fn knows(
        &self,
        key: &SigningKey,
        enrolment: &Enrolment,
        now: Timestamp,
    ) -> Result<(), UplinkError> {
        let token = DeviceToken::new(enrolment.fleet.clone(), enrolment.device.clone(), Audience::Hub, now);
        let token =
            jws::sign(Kind::Token, &token, key).map_err(|error| UplinkError::Request { cause: error.to_string() })?;
        self.commands(&token, i64::MAX.unsigned_abs()).await.map(drop)
    }

    pub(super) async fn reports(&self, token: &str, body: &ReportsBody) -> Result<ReportsAnswer, UplinkError> {
        self.ask(self.client.post(self.url(REPORTS)).bearer_auth(token).json(body), REPORTS).await
    }

    async fn commands(&self, token: &str, after: u64) -> Result<CommandsAnswer, UplinkError> {
        let url = format!("{}?after={after}", self.url(COMMANDS));
        self.ask(self.client.get(url).bearer_auth(token), COMMANDS).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder, path: &str) -> Result<T, UplinkError> {
        let unreachable = |error: reqwest::Error| UplinkError::Unreachable {
            url: self.base.clone(),
            source: error.without_url().into(),
        };
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let answer = |message| UplinkError::Answer { url: self.url(path), status: status.as_u16(), message };
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len() + chunk.len() > ANSWER_LIMIT {
                return Err(answer(format!("more than {ANSWER_LIMIT} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            let message = serde_json::from_slice::<ErrorAnswer>(&body).map(|error| error.message);
            return Err(answer(message.unwrap_or_else(|_| "no reason given".to_owned())));
        }
        serde_json::from_slice(&body).map_err(|error| answer(format!("not what was asked for: {error}")))
    }
}

/// Carries reports and commands over HTTPS whenever MQTT does not.
pub(super) struct HttpsWay<C> {
    pub(super) exchange: Arc<Exchange<C>>,
    pub(super) identity: Arc<Identity>,
    pub(super) hub: HubClient,
    pub(super) pace: Pace,
    /// MQTT is configured: it gets a moment to connect first.
    pub(super) beside_mqtt: bool,
}

impl<C: Clock> HttpsWay<C> {
    pub(super) async fn run(self) {
        let mut signals = self.exchange.signals();
        let seed = self.identity.seed();
        let mut failures = Backoff::new(self.pace.retry_first, self.pace.retry_most, seed);
        let mut stalls = Backoff::new(self.pace.resend, self.pace.resend_most, seed);
        let mut not_before = Instant::now();
        if self.beside_mqtt {
            not_before += self.pace.mqtt_grace;
        }
        let mut commands_at = not_before;
        let mut connections = 0;
        loop {
            let seen = *signals.borrow_and_update();
            if seen.connections != connections {
                // What was said while MQTT was away, the broker may not have kept.
                connections = seen.connections;
                commands_at = Instant::now();
            }
            let reports_at = if !self.exchange.waits() {
                None
            } else if seen.mqtt_up {
                let waited = self.exchange.unacknowledged();
                waited.map(|waited| Instant::now() + self.pace.ack_patience.saturating_sub(waited))
            } else {
                Some(not_before)
            };
            let next = reports_at.map_or(commands_at, |at| at.min(commands_at)).max(not_before);
            // Both cancel-safe: nothing is taken from the signals but a wake-up.
            tokio::select! {
                () = sleep_until(next) => {}
                changed = signals.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let now = Instant::now();
            let reports = reports_at.is_some_and(|at| at <= now);
            match self.turn(reports, commands_at <= now).await {
                Ok(progress) => {
                    self.exchange.hub(LinkState::Up);
                    failures.reset();
                    not_before = Instant::now();
                    if progress {
                        stalls.reset();
                    } else {
                        not_before += stalls.next();
                    }
                    if commands_at <= now {
                        let poll = if seen.mqtt_up { self.pace.commands_slow } else { self.pace.commands };
                        commands_at = Instant::now() + poll;
                    }
                }
                Err(error) if seen.mqtt_up && !reports => {
                    // Only the catch-up is missing; MQTT says whether the hub is there.
                    tracing::debug!(%error, "commands can't be asked for over HTTPS");
                    commands_at = Instant::now() + self.pace.catch_up;
                }
                Err(error) => {
                    self.exchange.hub(LinkState::Down);
                    let delay = failures.next();
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, cause, hint = error.hint(), ?delay, "the hub does not answer as it should");
                    not_before = Instant::now() + delay;
                }
            }
        }
    }

    /// Whether what was sent was acknowledged, at least in part.
    async fn turn(&self, reports: bool, commands: bool) -> Result<bool, UplinkError> {
        let token = self.exchange.token(&self.identity, Audience::Hub).unwrap_or_default();
        let mut progress = true;
        if reports {
            let before = self.exchange.spooled();
            let batch =
                self.exchange.outgoing(&self.identity, Cursor::default(), REPORTS_MAX - 1, REPORTS_MAX_BYTES / 2);
            let last = batch.iter().map(|outgoing| outgoing.place).max();
            let body = ReportsBody { reports: batch.into_iter().map(|outgoing| outgoing.text).collect() };
            let answer = self.hub.reports(&token, &body).await?;
            for refused in &answer.refused {
                tracing::warn!(index = refused.index, reason = refused.reason, "the hub refuses a report");
            }
            if let Some(last) = last {
                self.exchange.delivered(last);
            }
            if let Some(ack) = &answer.ack {
                self.exchange.acknowledge(&self.identity, ack);
            }
            progress = before == 0 || self.exchange.spooled() < before;
        }
        if commands {
            let answer = self.hub.commands(&token, self.exchange.last_command()).await?;
            for command in &answer.commands {
                self.exchange.command(&self.identity, command, Via::Https);
            }
        }
        Ok(progress)
    }
}
