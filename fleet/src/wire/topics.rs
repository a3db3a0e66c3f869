//! MQTT topics (design §7). Names are `[a-z0-9-]{1,63}`, so none of them can
//! hold a separator or a wildcard.

use crate::name::{DeviceName, FleetName};

/// Hints to fetch. Devices read.
#[must_use]
pub fn notify(fleet: &FleetName) -> String {
    format!("burgee/v1/{fleet}/notify")
}

/// The release, retained. Devices read.
#[must_use]
pub fn release(fleet: &FleetName) -> String {
    format!("burgee/v1/{fleet}/release")
}

/// What only this device writes: its reports.
#[must_use]
pub fn report(fleet: &FleetName, device: &DeviceName) -> String {
    device_topic(fleet, device, Leaf::Report)
}

/// What only the hub writes to this device: commands.
#[must_use]
pub fn command(fleet: &FleetName, device: &DeviceName) -> String {
    device_topic(fleet, device, Leaf::Command)
}

/// What only the hub writes to this device: acknowledgements.
#[must_use]
pub fn ack(fleet: &FleetName, device: &DeviceName) -> String {
    device_topic(fleet, device, Leaf::Ack)
}

/// `up` or `down`, retained; `down` is the device's last will. A hint.
#[must_use]
pub fn link(fleet: &FleetName, device: &DeviceName) -> String {
    device_topic(fleet, device, Leaf::Link)
}

/// All devices' topics of one kind, for the hub's subscription.
#[must_use]
pub fn every_device(fleet: &FleetName, leaf: Leaf) -> String {
    format!("burgee/v1/{fleet}/devices/+/{}", leaf.name())
}

/// The client id that a device connects with.
#[must_use]
pub fn client_id(fleet: &FleetName, device: &DeviceName) -> String {
    format!("burgee-{fleet}-{device}")
}

/// The payloads of `link`.
pub const LINK_UP: &str = "up";
pub const LINK_DOWN: &str = "down";

/// The last part of a device's topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    Report,
    Command,
    Ack,
    Link,
}

impl Leaf {
    fn name(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Command => "command",
            Self::Ack => "ack",
            Self::Link => "link",
        }
    }
}

/// What a topic is, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    Notify(FleetName),
    Release(FleetName),
    Device(FleetName, DeviceName, Leaf),
}

/// Takes a topic apart; `None` for anything that is not exactly one of ours.
#[must_use]
pub fn parse(topic: &str) -> Option<Topic> {
    let (fleet, rest) = topic.strip_prefix("burgee/v1/")?.split_once('/')?;
    let fleet = fleet.parse().ok()?;
    match rest {
        "notify" => return Some(Topic::Notify(fleet)),
        "release" => return Some(Topic::Release(fleet)),
        _ => {}
    }
    let (device, leaf) = rest.strip_prefix("devices/")?.split_once('/')?;
    let leaf = [Leaf::Report, Leaf::Command, Leaf::Ack, Leaf::Link].into_iter().find(|one| one.name() == leaf)?;
    Some(Topic::Device(fleet, device.parse().ok()?, leaf))
}

fn device_topic(fleet: &FleetName, device: &DeviceName, leaf: Leaf) -> String {
    format!("burgee/v1/{fleet}/devices/{device}/{}", leaf.name())
}

#[cfg(test)]
mod tests {
    use super::{Leaf, Topic, ack, command, every_device, link, notify, parse, release, report};

    #[test]
    fn parse_is_the_inverse() {
        let (fleet, device) = ("retail".parse().unwrap(), "store-042".parse().unwrap());
        let of = |leaf| Some(Topic::Device("retail".parse().unwrap(), "store-042".parse().unwrap(), leaf));
        assert_eq!(parse(&notify(&fleet)), Some(Topic::Notify("retail".parse().unwrap())));
        assert_eq!(parse(&release(&fleet)), Some(Topic::Release("retail".parse().unwrap())));
        assert_eq!(parse(&report(&fleet, &device)), of(Leaf::Report));
        assert_eq!(parse(&command(&fleet, &device)), of(Leaf::Command));
        assert_eq!(parse(&ack(&fleet, &device)), of(Leaf::Ack));
        assert_eq!(parse(&link(&fleet, &device)), of(Leaf::Link));
        let wildcard = every_device(&fleet, Leaf::Report);
        for wrong in ["", "burgee/v1/retail", "burgee/v2/retail/notify", "burgee/v1/Retail/notify", &wildcard] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse("burgee/v1/retail/devices/a/b/report"), None);
        assert_eq!(parse("burgee/v1/retail/devices/a/report/"), None);
    }
}
