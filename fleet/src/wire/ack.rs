//! Acknowledgements: the hub's signed word that reports are stored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::report::{Place, Report};
use crate::name::{DeviceName, FleetName};

/// Everything durable up to and with (`epoch`, `counter`) is stored; the device
/// may forget it. Cumulative: the newest one says it all, a repeated or older
/// one does no harm. A broker's PUBACK is no such word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ack {
    pub fleet: FleetName,
    pub device: DeviceName,
    pub epoch: u64,
    pub counter: u64,
    pub at: Timestamp,
    /// The hub's, per device: max(last + 1, Unix milliseconds).
    pub sequence: u64,
    /// The run of the agent ([`super::report::Run::id`]) whose reports are
    /// stored; another run takes no notice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The highest place that the hub knows of any run of the device: what
    /// comes next has to lie behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Place>,
    /// Since when another run lives with the device's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<Timestamp>,
}

impl Ack {
    /// The last place that is stored.
    #[must_use]
    pub fn place(&self) -> Place {
        Place { epoch: self.epoch, counter: self.counter }
    }
}

/// How far a hub that acknowledged up to `acked` may acknowledge once it has
/// stored `report`, too. A report whose predecessor ([`Report::after`]) never
/// came is stored, but acknowledges nothing yet: the device sends again from
/// the first one that is missing. Without this, one message that a broker lost
/// would be acknowledged by the next that it did not lose.
#[must_use]
pub fn advance(acked: Option<Place>, report: &Report) -> Option<Place> {
    if report.after.is_none_or(|after| Some(after) <= acked) { acked.max(Some(report.place())) } else { acked }
}

#[cfg(test)]
mod tests {
    use super::advance;
    use crate::wire::report::{Event, Place, Report, ReportBody};

    fn place((epoch, counter): (u64, u64)) -> Place {
        Place { epoch, counter }
    }

    fn check(
        name: &str,
        acked: Option<(u64, u64)>,
        at: (u64, u64),
        after: Option<(u64, u64)>,
        want: Option<(u64, u64)>,
    ) {
        let report = Report {
            fleet: "retail".parse().unwrap(),
            device: "a".parse().unwrap(),
            epoch: at.0,
            counter: at.1,
            after: after.map(place),
            run: None,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            body: ReportBody::Event(Event { revision: None, event: "steady".into(), message: String::new() }),
        };
        assert_eq!(advance(acked.map(place), &report), want.map(place), "{name}");
    }

    #[test]
    fn advances() {
        check("the first ever", None, (1, 1), None, Some((1, 1)));
        check("in order", Some((1, 1)), (1, 2), Some((1, 1)), Some((1, 2)));
        check("over dropped ones", Some((1, 1)), (1, 9), None, Some((1, 9)));
        check("over a new start", Some((1, 7)), (2, 1), Some((1, 7)), Some((2, 1)));
        check("one is missing", Some((1, 1)), (1, 3), Some((1, 2)), Some((1, 1)));
        check("the first is missing", None, (1, 3), Some((1, 2)), None);
        check("again", Some((1, 5)), (1, 3), Some((1, 2)), Some((1, 5)));
    }
}
