//! A hub of a test's own making: its key, and what it signs; and the enrolment
//! of a device that believes it. For what no honest hub says.

use std::path::Path;

use agent::uplink::{Enrolment, keep_enrolment, make_device_key};
use ed25519_dalek::{SigningKey, VerifyingKey};
use fleet::name::{DeviceName, FleetName};
use fleet::wire::ack::Ack;
use fleet::wire::command::{Act, Command};
use fleet::wire::jws::{self, Kind};
use fleet::wire::key::PublicKey;
use fleet::wire::report::{Place, Report};
use jiff::{SignedDuration, Timestamp};

use crate::broker::Subscription;

/// See the module.
pub struct Voice {
    pub key: SigningKey,
    pub fleet: FleetName,
    pub device: DeviceName,
    device_key: VerifyingKey,
}

/// The time of this machine.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "tests live in the present")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

impl Voice {
    /// Writes an enrolment with this hub at `url` into a device's store.
    pub fn enrol(store: &Path, fleet: &str, device: &str, url: &str) -> Self {
        let device_key = make_device_key(store).expect("a key").verifying_key();
        let key = SigningKey::from_bytes(&[7; 32]);
        let (fleet, device): (FleetName, DeviceName) =
            (fleet.parse().expect("a name"), device.parse().expect("a name"));
        let enrolment = Enrolment {
            hub: url.to_owned(),
            hub_key: PublicKey::from(key.verifying_key()),
            fleet: fleet.clone(),
            device: device.clone(),
            mqtt: None,
            labels: [].into(),
            at: now(),
        };
        keep_enrolment(store, &enrolment).expect("a disk");
        Self { key, fleet, device, device_key }
    }

    #[must_use]
    pub fn topic(&self, leaf: &str) -> String {
        format!("burgee/v1/{}/devices/{}/{leaf}", self.fleet, self.device)
    }

    /// A command of now, good for five minutes.
    #[must_use]
    pub fn command(&self, sequence: u64, act: Act) -> Command {
        let (fleet, device, issued) = (self.fleet.clone(), self.device.clone(), now());
        Command { fleet, device, sequence, issued, expires: issued + SignedDuration::from_mins(5), act }
    }

    #[must_use]
    pub fn signed(&self, command: &Command) -> String {
        jws::sign(Kind::Command, command, &self.key).expect("it can be signed")
    }

    #[must_use]
    pub fn signed_ack(&self, place: Place) -> String {
        let (fleet, device) = (self.fleet.clone(), self.device.clone());
        let ack = Ack {
            fleet,
            device,
            epoch: place.epoch,
            counter: place.counter,
            at: now(),
            sequence: 1,
            run: None,
            known: None,
            twin: None,
        };
        jws::sign(Kind::Ack, &ack, &self.key).expect("it can be signed")
    }

    /// Reports that a subscription received, each place once, in their order,
    /// all of them signed by the device.
    #[must_use]
    pub fn reports(&self, heard: &Subscription) -> Vec<Report> {
        let read = |text: &String| jws::verify(Kind::Report, text, &self.device_key).expect("the device's signature");
        let mut reports: Vec<Report> = heard.of(&self.topic("report")).iter().map(read).collect();
        reports.sort_by_key(Report::place);
        reports.dedup_by_key(|report| report.place());
        reports
    }
}
