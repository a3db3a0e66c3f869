//! What every part of a running hub shares.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ed25519_dalek::SigningKey;
use fleet::name::DeviceName;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, mpsc, watch};

use crate::broker::Publish;
use crate::clock;
use crate::config::Config;
use crate::exit::chain;
use crate::hook::Sender;
use crate::ingest::{Inlet, Rate, Refused};
use crate::join::Terms;
use crate::metrics::Metrics;
use crate::store::{HubStore, Store};

/// A hint to publish: a push was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// The branch that moved.
    pub branch: Option<String>,
    /// Where to.
    pub commit: Option<String>,
}

/// Secrets from files, read once at the start.
#[derive(Clone, Default)]
pub struct Secrets {
    /// User and password of the page.
    pub page: Option<(String, String)>,
    /// By sender.
    pub hooks: Vec<(Sender, String)>,
}

/// The running hub.
pub struct Hub {
    pub config: Config,
    pub store: HubStore,
    pub key: SigningKey,
    pub secrets: Secrets,
    pub metrics: Metrics,
    pub inlet: Inlet,
    pub rate: Rate,
    pub refused: RefusedBook,
    /// To the broker; `None`: there is no MQTT.
    pub outbox: Option<mpsc::Sender<Publish>>,
    /// Whether the hub is connected to the broker.
    pub mqtt_up: watch::Receiver<bool>,
    /// What devices are told to connect to.
    pub mqtt_url: Option<String>,
    /// Hints on their way to a notify.
    pub hints: mpsc::Sender<Hint>,
    /// Commands may be due.
    pub orders: Notify,
    /// Counts what changed: pages look again.
    pub changes: watch::Sender<u64>,
    /// True once the hub is to stop.
    pub stop: watch::Receiver<bool>,
}

impl Hub {
    /// Something that a page shows has changed.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Counts a refused message. `device` is what it said it was.
    pub fn refuse(&self, reason: &'static str, device: Option<&str>) {
        tracing::debug!(reason, device, "message refused");
        self.refused.add(reason, device);
    }

    /// Counts a report that was refused.
    pub fn refuse_report(&self, refused: &Refused, device: Option<&DeviceName>) {
        self.refuse(refused.reason(), device.map(DeviceName::as_str));
    }

    /// Before this time, a device was silent.
    #[must_use]
    pub fn silent_before(&self, now: Timestamp) -> Timestamp {
        let silent = SignedDuration::try_from(self.config.silent_after).unwrap_or(SignedDuration::MAX);
        now.saturating_sub(silent).unwrap_or(Timestamp::MIN)
    }

    /// The terms of enrolment.
    #[must_use]
    pub fn terms(&self) -> Terms<'_> {
        Terms {
            fleet: &self.config.fleet,
            key: &self.key,
            mqtt: self.mqtt_url.as_deref(),
            devices: self.config.devices,
        }
    }

    /// Writes counted refusals to the store, all in one go a reason.
    pub async fn flush_refusals(&self) {
        for (reason, (count, device)) in self.refused.take() {
            if let Err(error) = self.store.refuse(reason, device.as_deref(), count, clock::now()).await {
                tracing::warn!(error = chain(&error), reason, count, "refusals not counted");
            }
        }
    }
}

/// A shared hub.
pub type SharedHub = Arc<Hub>;

/// Refusals since the last flush: a flood of bad messages costs no writes.
#[derive(Debug, Default)]
pub struct RefusedBook {
    counts: Mutex<HashMap<&'static str, (u64, Option<String>)>>,
}

impl RefusedBook {
    fn add(&self, reason: &'static str, device: Option<&str>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = counts.entry(reason).or_default();
        entry.0 = entry.0.saturating_add(1);
        if let Some(device) = device {
            entry.1 = Some(device.to_owned());
        }
    }

    fn take(&self) -> HashMap<&'static str, (u64, Option<String>)> {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
