//! What Prometheus reads. Counters live here; what the store knows is asked at each scrape.

use std::fmt::Write as _;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::store::{FleetCounts, Refusal};

/// By one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct By {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Axis {
    axis: &'static str,
    value: String,
}

/// The hub's counters; clones count the same.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Reports stored, by the way they came: `mqtt` or `http`.
    stored: Family<By, Counter>,
    commands: Family<By, Counter>,
    webhooks: Family<Outcome, Counter>,
    notifies: Counter,
    logins: Family<Outcome, Counter>,
    broker: Gauge,
    pages: Gauge,
}

impl Metrics {
    /// Reports were stored.
    pub fn stored(&self, way: &str, count: u64) {
        self.stored.get_or_create(&By { kind: way.to_owned() }).inc_by(count);
    }

    /// A command was handed out.
    pub fn command(&self, way: &str) {
        self.commands.get_or_create(&By { kind: way.to_owned() }).inc();
    }

    /// A webhook came.
    pub fn webhook(&self, kind: &'static str, outcome: &'static str) {
        self.webhooks.get_or_create(&Outcome { kind, outcome }).inc();
    }

    /// A notify was published.
    pub fn notify(&self) {
        self.notifies.inc();
    }

    /// A device connected to the embedded broker, or was not let in.
    pub fn login(&self, kind: &'static str, outcome: &'static str) {
        self.logins.get_or_create(&Outcome { kind, outcome }).inc();
    }

    /// Whether the hub is connected to the broker.
    pub fn broker(&self, up: bool) {
        self.broker.set(i64::from(up));
    }

    /// Pages that are open and live.
    pub fn pages(&self, difference: i64) {
        self.pages.inc_by(difference);
    }

    /// Everything as OpenMetrics text.
    #[must_use]
    pub fn text(&self, fleet: &FleetCounts, refusals: &[Refusal]) -> String {
        let mut registry = Registry::with_prefix("burgee_hub");
        let devices = Family::<Axis, Gauge>::default();
        let set = |axis, value: &str, count: u64| {
            let axis = Axis { axis, value: value.to_owned() };
            devices.get_or_create(&axis).set(i64::try_from(count).unwrap_or(i64::MAX));
        };
        for (axis, groups) in [("phase", &fleet.phases), ("sync", &fleet.sync), ("health", &fleet.health)] {
            groups.iter().for_each(|group| set(axis, &group.key, group.count));
        }
        for (value, count) in [("heard", fleet.heard), ("silent", fleet.silent), ("unheard", fleet.unheard)] {
            set("link", value, count);
        }
        for (value, count) in [("accepted", fleet.accepted), ("lobby", fleet.lobby), ("copied", fleet.copied)] {
            set("enrolled", value, count);
        }
        let refused = Family::<By, Counter>::default();
        for refusal in refusals {
            refused.get_or_create(&By { kind: refusal.reason.clone() }).inc_by(refusal.count);
        }
        registry.register("devices", "Devices, by axis and its value", devices);
        registry.register("reports_stored", "Reports stored, by the way they came", self.stored.clone());
        registry.register("refused", "Messages refused, by reason; survives a restart", refused);
        registry.register("commands_sent", "Commands handed out, by way", self.commands.clone());
        registry.register("webhooks", "Webhooks, by sender and outcome", self.webhooks.clone());
        registry.register("notifies", "Hints to fetch that were published", self.notifies.clone());
        registry.register("broker_logins", "Logins at the embedded broker", self.logins.clone());
        registry.register("broker_connected", "1 while the hub is connected to the broker", self.broker.clone());
        registry.register("pages_live", "Pages that are open and live", self.pages.clone());
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            // Writing to a string does not fail; a half text would still say so.
            let _ = text.write_str("# the metrics could not be written\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;
    use crate::store::{FleetCounts, Group, Refusal};

    #[test]
    fn text() {
        let metrics = Metrics::default();
        metrics.stored("mqtt", 3);
        metrics.webhook("github", "refused");
        metrics.broker(true);
        let fleet = FleetCounts {
            accepted: 2,
            silent: 1,
            phases: vec![Group { key: "rolling-back".to_owned(), count: 1 }],
            ..FleetCounts::default()
        };
        let refusals =
            [Refusal { reason: "BadSignature".to_owned(), count: 4, last: jiff::Timestamp::UNIX_EPOCH, device: None }];
        let text = metrics.text(&fleet, &refusals);
        for line in [
            "burgee_hub_reports_stored_total{kind=\"mqtt\"} 3",
            "burgee_hub_webhooks_total{kind=\"github\",outcome=\"refused\"} 1",
            "burgee_hub_devices{axis=\"phase\",value=\"rolling-back\"} 1",
            "burgee_hub_devices{axis=\"link\",value=\"silent\"} 1",
            "burgee_hub_refused_total{kind=\"BadSignature\"} 4",
            "burgee_hub_broker_connected 1",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }
}
