//! Reports on their way into the store.
//!
//! Judging is pure: whose signature, whose name, which place. Storing groups
//! what comes at the same time into one commit, and only after it is anything
//! acknowledged. A broker or a network is never believed: only the signature.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use ed25519_dalek::{SigningKey, VerifyingKey};
use fleet::name::{DeviceName, FleetName};
use fleet::wire::ack::Ack;
use fleet::wire::jws::{self, JwsError, Kind};
use fleet::wire::report::{Report, ReportBody};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::exit::chain;
use crate::store::{AckAt, Device, DeviceState, Store, Taken};

/// Reports in one commit.
const BATCH: usize = 256;

/// Why a report was not stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such device.
    #[error("no device of that name is enrolled")]
    UnknownDevice,
    /// In the lobby, or decommissioned.
    #[error("the device is not accepted")]
    NotAccepted,
    /// Its form or its signature.
    #[error("the message is refused: {0}")]
    Jws(JwsError),
    /// Signed by the right key, for another name.
    #[error("it speaks of another device or fleet")]
    OtherDevice,
    /// No agent gets there.
    #[error("its place is out of range")]
    Place,
    /// No agent draws that.
    #[error("its run is not one")]
    Run,
    /// More than the limit.
    #[error("too many reports in a minute")]
    TooMany,
}

impl Refused {
    /// Stable, CamelCase: on the wire, in metrics and on the page.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownDevice => "UnknownDevice",
            Self::NotAccepted => "NotAccepted",
            Self::Jws(JwsError::TooLong { .. }) => "TooLong",
            Self::Jws(error) => error.reason(),
            Self::OtherDevice => "OtherDevice",
            Self::Place | Self::Run => "Malformed",
            Self::TooMany => "TooMany",
        }
    }
}

/// The reason that counts a report which was stored before.
pub const DUPLICATE: &str = "Duplicate";

/// The report in `text`, if `device` may have sent it.
///
/// # Errors
/// When it is not from the device's key, or not about the device.
pub fn judge(fleet: &FleetName, device: Option<&Device>, text: &str) -> Result<Report, Refused> {
    let device = device.ok_or(Refused::UnknownDevice)?;
    if device.state != DeviceState::Accepted {
        return Err(Refused::NotAccepted);
    }
    let key = VerifyingKey::from_bytes(&device.key).map_err(|_| Refused::Jws(JwsError::Signature))?;
    let report: Report = jws::verify(Kind::Report, text, &key).map_err(Refused::Jws)?;
    let speaks_of = match &report.body {
        ReportBody::Status(status) => &status.device,
        ReportBody::Event(_) | ReportBody::Logs(_) | ReportBody::Answer(_) => &report.device,
    };
    if report.fleet != *fleet || report.device != device.name || *speaks_of != device.name {
        return Err(Refused::OtherDevice);
    }
    let far = |value: u64| i64::try_from(value).is_err();
    if report.run.as_ref().is_some_and(|run| !run.is_sane() || far(run.heard)) {
        return Err(Refused::Run);
    }
    if far(report.epoch)
        || far(report.counter)
        || report.place() == (fleet::wire::report::Place { epoch: 0, counter: 0 })
    {
        return Err(Refused::Place);
    }
    Ok(report)
}

/// The hub's signed word that everything up to a place is stored.
///
/// # Errors
/// Never for an acknowledgement of sane size.
pub fn acknowledge(at: &AckAt, fleet: &FleetName, key: &SigningKey, now: Timestamp) -> Result<String, JwsError> {
    let ack = Ack {
        fleet: fleet.clone(),
        device: at.device.clone(),
        epoch: at.place.epoch,
        counter: at.place.counter,
        at: now,
        sequence: at.sequence,
        run: (!at.run.is_empty()).then(|| at.run.clone()),
        known: (!at.run.is_empty()).then_some(at.known),
        twin: at.twin,
    };
    jws::sign(Kind::Ack, &ack, key)
}

/// How many reports each device may send in a minute.
#[derive(Debug)]
pub struct Rate {
    limit: u32,
    spent: Mutex<(i64, HashMap<DeviceName, u32>)>,
}

impl Rate {
    /// So many a minute.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, spent: Mutex::new((0, HashMap::new())) }
    }

    /// Spends one of this minute's; `false`: none is left.
    #[must_use]
    pub fn spend(&self, device: &DeviceName, now: Timestamp) -> bool {
        let minute = now.as_second() / 60;
        let mut spent = match self.spent.lock() {
            Ok(spent) => spent,
            Err(poisoned) => poisoned.into_inner(),
        };
        if spent.0 != minute {
            *spent = (minute, HashMap::new());
        }
        let count = spent.1.entry(device.clone()).or_insert(0);
        *count = count.saturating_add(1);
        *count <= self.limit
    }
}

/// What a batch came to, after its commit.
#[derive(Clone, Debug, Default)]
pub struct Receipt {
    /// Those stored now.
    pub new: u64,
    /// Those that were there.
    pub duplicates: u64,
    /// Acknowledgements to sign.
    pub acks: Vec<AckAt>,
}

/// The store did not take a batch: nothing is acknowledged, devices send again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the store did not take the reports")]
pub struct NotStored;

struct Job {
    reports: Vec<Report>,
    done: oneshot::Sender<Result<Receipt, NotStored>>,
}

/// The way into the store; clones lead to the same writer.
#[derive(Clone, Debug)]
pub struct Inlet {
    jobs: mpsc::Sender<Job>,
}

impl Inlet {
    /// Starts the writer. It ends when the last inlet is dropped.
    pub fn start<S: Store>(store: S) -> Self {
        let (jobs, queue) = mpsc::channel(64);
        tokio::spawn(write(store, queue));
        Self { jobs }
    }

    /// Stores judged reports and answers after the commit.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn store(&self, reports: Vec<Report>) -> Result<Receipt, NotStored> {
        if reports.is_empty() {
            return Ok(Receipt::default());
        }
        let (done, answer) = oneshot::channel();
        self.jobs.send(Job { reports, done }).await.map_err(|_| NotStored)?;
        answer.await.map_err(|_| NotStored)?
    }
}

async fn write<S: Store>(store: S, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.recv().await {
        let mut jobs = vec![first];
        let mut size = jobs[0].reports.len();
        while size < BATCH {
            let Ok(job) = queue.try_recv() else { break };
            size += job.reports.len();
            jobs.push(job);
        }
        let lengths: Vec<usize> = jobs.iter().map(|job| job.reports.len()).collect();
        let all: Vec<Report> = jobs.iter_mut().flat_map(|job| std::mem::take(&mut job.reports)).collect();
        let stored = store.store(&all, clock::now()).await;
        if let Err(error) = &stored {
            tracing::error!(error = chain(error), reports = all.len(), "reports not stored");
        }
        let mut start = 0;
        for (job, length) in jobs.into_iter().zip(lengths) {
            let range = start..start + length;
            start += length;
            let receipt = match &stored {
                Err(_) => Err(NotStored),
                Ok(stored) => {
                    let run = |report: &Report| report.run.as_ref().map_or(String::new(), |run| run.id.clone());
                    let senders: HashSet<(&DeviceName, String)> =
                        all[range.clone()].iter().map(|report| (&report.device, run(report))).collect();
                    let new = stored.taken[range].iter().filter(|taken| **taken == Taken::New).count();
                    Ok(Receipt {
                        new: new as u64,
                        duplicates: (length - new) as u64,
                        acks: stored
                            .acks
                            .iter()
                            .filter(|ack| senders.contains(&(&ack.device, ack.run.clone())))
                            .cloned()
                            .collect(),
                    })
                }
            };
            // Whoever asked may have gone; what is stored is stored.
            let _ = job.done.send(receipt);
        }
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use fleet::wire::jws::{self, Kind};
    use fleet::wire::report::{Event, Report, ReportBody, Run};
    use jiff::Timestamp;

    use super::{Rate, judge};
    use crate::axes::{HealthAxis, SyncAxis};
    use crate::store::{Device, DeviceState};

    fn device(state: DeviceState) -> Device {
        Device {
            name: "a".parse().expect("a name"),
            key: SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes(),
            state,
            labels: [].into(),
            token: None,
            enrolled: Timestamp::UNIX_EPOCH,
            status: None,
            status_at: None,
            status_received: None,
            sync: SyncAxis::Unknown,
            health: HealthAxis::Unknown,
            last_seen: None,
            mqtt_up: None,
            twin: None,
        }
    }

    fn report(device: &str, fleet: &str, epoch: u64) -> Report {
        Report {
            fleet: fleet.parse().expect("a name"),
            device: device.parse().expect("a name"),
            epoch,
            counter: 1,
            after: None,
            run: None,
            at: Timestamp::UNIX_EPOCH,
            body: ReportBody::Event(Event { revision: None, event: "steady".into(), message: String::new() }),
        }
    }

    fn signed(kind: Kind, report: &Report, seed: u8) -> String {
        jws::sign(kind, report, &SigningKey::from_bytes(&[seed; 32])).expect("signs")
    }

    #[test]
    fn judged() {
        let fleet = "f".parse().expect("a name");
        let good = report("a", "f", 1);
        let ok = Some(device(DeviceState::Accepted));
        let with_run =
            |id: &str| Report { run: Some(Run { id: id.to_owned(), machine: None, heard: 1 }), ..good.clone() };
        let cases = [
            ("good", ok.clone(), signed(Kind::Report, &good, 1), None),
            ("nobody", None, signed(Kind::Report, &good, 1), Some("UnknownDevice")),
            ("in the lobby", Some(device(DeviceState::Lobby)), signed(Kind::Report, &good, 1), Some("NotAccepted")),
            ("removed", Some(device(DeviceState::Removed)), signed(Kind::Report, &good, 1), Some("NotAccepted")),
            ("another key", ok.clone(), signed(Kind::Report, &good, 2), Some("OtherKey")),
            ("of another kind", ok.clone(), signed(Kind::Release, &good, 1), Some("Malformed")),
            ("of another device", ok.clone(), signed(Kind::Report, &report("b", "f", 1), 1), Some("OtherDevice")),
            ("of another fleet", ok.clone(), signed(Kind::Report, &report("a", "g", 1), 1), Some("OtherDevice")),
            ("out of range", ok.clone(), signed(Kind::Report, &report("a", "f", u64::MAX), 1), Some("Malformed")),
            ("a run of words", ok.clone(), signed(Kind::Report, &with_run("no hex"), 1), Some("Malformed")),
            ("a run", ok.clone(), signed(Kind::Report, &with_run("00ff"), 1), None),
            ("no message", ok.clone(), "x".to_owned(), Some("Malformed")),
            ("too long", ok, "x".repeat(300_000), Some("TooLong")),
        ];
        for (name, device, text, want) in cases {
            let got = judge(&fleet, device.as_ref(), &text);
            assert_eq!(got.as_ref().err().map(super::Refused::reason), want, "{name}: {got:?}");
        }
    }

    #[test]
    fn a_minute_has_so_many() {
        let rate = Rate::new(2);
        let (a, b) = ("a".parse().expect("a name"), "b".parse().expect("a name"));
        let at = |secs| Timestamp::from_second(secs).expect("a time");
        let spent = [(&a, 0), (&a, 1), (&a, 59), (&b, 59), (&a, 60)].map(|(device, secs)| rate.spend(device, at(secs)));
        assert_eq!(spent, [true, true, false, true, true]);
    }
}
