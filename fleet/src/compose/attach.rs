//! What a service is attached to: networks, namespaces of others, and the hosts and addresses that it knows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::compose::fields::{Fields, named};
use crate::compose::model::{Attachment, Mode};
use crate::compose::node::{Node, Value};
use crate::compose::top::Top;

/// A namespace's owner.
pub(super) fn mode(fields: &Fields<'_>, key: &str) -> Option<Mode> {
    let mode = fields.parse(key, |text| match text.split_once(':') {
        _ if text.is_empty() => Ok(None),
        Some(("service" | "container", "")) => {
            Err(format!("{text:?} names nothing: expected host, none, service:NAME or container:NAME"))
        }
        Some(("service", name)) => Ok(Some(Mode::Service(name.to_owned()))),
        Some(("container", name)) => Ok(Some(Mode::Container(name.to_owned()))),
        _ => Ok(Some(Mode::Named(text.to_owned()))),
    });
    mode.flatten()
}

pub(super) fn networks(fields: &Fields<'_>, mode: Option<&Mode>, top: &Top<'_>) -> BTreeMap<String, Attachment> {
    let mut attachments = BTreeMap::new();
    for (name, at, node) in named(fields, "networks") {
        if name != "default" && !top.networks.contains_key(&name) {
            let message = format!("{}: network {name:?} is not declared under networks", fields.path("networks"));
            fields.findings.hint(at, message, format!("declare it: networks: {{{name}: {{}}}}"));
        }
        let attachment = node.and_then(|node| attachment(fields, &name, node)).unwrap_or_default();
        attachments.insert(name, attachment);
    }
    if let Some(entry) = fields.entry("network_mode").filter(|_| mode.is_some()) {
        if !attachments.is_empty() {
            fields.error("network_mode", &entry.at, "networks are given, too: expected one of them");
        }
        return BTreeMap::new();
    }
    if attachments.is_empty() {
        attachments.insert("default".to_owned(), Attachment::default());
    }
    attachments
}

fn attachment(fields: &Fields<'_>, name: &str, node: &Node) -> Option<Attachment> {
    let own = Fields::of(format!("{}.{name}", fields.path("networks")), node, fields.findings)?;
    let attachment = Attachment {
        aliases: own.texts("aliases"),
        ipv4_address: own.parse("ipv4_address", |text| match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not an IPv4 address")),
        }),
        ipv6_address: own.parse("ipv6_address", |text| match text.parse::<IpAddr>() {
            Ok(IpAddr::V6(_)) => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not an IPv6 address")),
        }),
        link_local_ips: addresses(&own, "link_local_ips"),
        mac_address: own.text("mac_address"),
        driver_opts: own.texts_by_name("driver_opts"),
        priority: own.integer("priority").unwrap_or_default(),
        gw_priority: own.integer("gw_priority").unwrap_or_default(),
        interface_name: own.text("interface_name"),
    };
    own.finish();
    Some(attachment)
}

pub(super) fn addresses(fields: &Fields<'_>, key: &str) -> Vec<String> {
    let addresses = fields.text_or_texts(key);
    for address in &addresses {
        if let (Err(_), Some(node)) = (address.parse::<IpAddr>(), fields.node(key)) {
            let at = match &node.value {
                Value::Sequence(items) => items
                    .iter()
                    .find(|item| item.scalar().is_some_and(|scalar| scalar.text == *address))
                    .map_or(&node.at, |item| &item.at),
                _ => &node.at,
            };
            fields.error(key, at, &format!("{address:?} is not an IP address"));
        }
    }
    addresses
}

/// `host:address`, from a list of `host=address` or `host:address`, or from a mapping.
pub(super) fn extra_hosts(fields: &Fields<'_>) -> Vec<String> {
    let mut hosts = Vec::new();
    let mut add = |host: &str, address: &Node| {
        let text = fields.typed("extra_hosts", address, |text| host_address(text).map(str::to_owned));
        hosts.extend(text.map(|address| format!("{host}:{address}")));
    };
    let Some(node) = fields.node("extra_hosts") else { return hosts };
    if let Value::Mapping(entries) = &node.value {
        for entry in entries {
            match &entry.node.value {
                Value::Sequence(addresses) => addresses.iter().for_each(|address| add(&entry.key, address)),
                _ => add(&entry.key, &entry.node),
            }
        }
        return hosts;
    }
    for item in fields.list("extra_hosts") {
        hosts.extend(fields.typed("extra_hosts", item, |text| {
            let pair = text.split_once('=').or_else(|| text.split_once(':')).filter(|(host, _)| !host.is_empty());
            let (host, address) = pair.ok_or_else(|| format!("{text:?} is not a host: expected HOST=ADDRESS"))?;
            host_address(address).map(|address| format!("{host}:{address}"))
        }));
    }
    hosts
}

fn host_address(text: &str) -> Result<&str, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare == "host-gateway" || bare.parse::<IpAddr>().is_ok() {
        Ok(bare)
    } else {
        Err(format!("{text:?} is not an IP address: expected one, or host-gateway"))
    }
}
