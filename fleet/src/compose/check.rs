//! What one service can't know about itself: dependencies, names and ports that two services claim, and which of
//! what is declared is used.

use std::collections::{BTreeMap, BTreeSet};

use crate::compose::fields::Fields;
use crate::compose::model::{Condition, Dependency, Mode, MountSource, Network, Project, Service};
use crate::compose::node::{Findings, Node, Place, Value};
use crate::compose::service::Read;
use crate::compose::top::Top;

/// The project out of its services, those of active profiles only.
pub(super) fn project(name: String, read: Vec<Read<'_>>, active: &[String], top: &Top<'_>) -> Project {
    let findings = top.findings;
    let all: BTreeSet<String> = read.iter().map(|read| read.entry.key.clone()).collect();
    let is_active = |read: &Read<'_>| {
        let named = |profile: &String| active.iter().any(|active| active == profile || active == "*");
        read.profiles.is_empty() || read.profiles.iter().any(named)
    };
    let mut services: Vec<Read<'_>> = read.into_iter().filter(is_active).collect();
    let present: BTreeSet<String> = services.iter().map(|read| read.entry.key.clone()).collect();
    let unhealthy: BTreeSet<String> = services
        .iter()
        .filter(|read| {
            let test = read.service.healthcheck.as_ref().and_then(|check| check.test.as_ref());
            test.is_some_and(|test| test.first().is_some_and(|first| first == "NONE"))
        })
        .map(|read| read.entry.key.clone())
        .collect();
    for read in &mut services {
        implied(&mut read.service);
        dependencies(read, &all, &present, &unhealthy, findings);
    }
    cycles(&services, findings);
    names(&services, findings);
    ports(&services, findings);
    let services: BTreeMap<String, Service> =
        services.into_iter().map(|read| (read.entry.key.clone(), read.service)).collect();
    let (networks, volumes) = used(&name, &services, top);
    Project { name, services, networks, volumes }
}

/// Dependencies that other keys imply: who shares a namespace or volumes has to be there first.
fn implied(service: &mut Service) {
    let mut implied: Vec<(String, bool)> = service.links.iter().map(|link| (link.service.clone(), true)).collect();
    for mode in [&service.network_mode, &service.pid, &service.ipc].into_iter().flatten() {
        if let Mode::Service(name) = mode {
            implied.push((name.clone(), true));
        }
    }
    for from in &service.volumes_from {
        if let Mode::Service(name) = &from.source {
            implied.push((name.clone(), false));
        }
    }
    for (name, restart) in implied {
        let dependency = Dependency { condition: Condition::Started, restart, required: true };
        service.depends_on.entry(name).or_insert(dependency);
    }
}

fn dependencies(
    read: &mut Read<'_>,
    all: &BTreeSet<String>,
    present: &BTreeSet<String>,
    unhealthy: &BTreeSet<String>,
    findings: &Findings,
) {
    let service = &read.entry.key;
    let mut absent = Vec::new();
    for (name, dependency) in &read.service.depends_on {
        let at = mention(&read.entry.node, name).unwrap_or(&read.entry.at);
        let what = format!("services.{service}");
        if name == service {
            findings.error(at, format!("{what}: depends on itself"));
        } else if !present.contains(name) {
            absent.push(name.clone());
            if !dependency.required {
                continue;
            }
            if all.contains(name) {
                let hint = format!("give {service} the same profiles, or say required: false");
                findings.hint(at, format!("{what}: depends on {name}, whose profile is not active"), hint);
            } else {
                findings.error(at, format!("{what}: depends on {name}, and there is no such service"));
            }
        } else if dependency.condition == Condition::Healthy && unhealthy.contains(name) {
            findings.error(at, format!("{what}: waits for {name} to be healthy, and its healthcheck is off"));
        }
    }
    for name in absent {
        read.service.depends_on.remove(&name);
    }
}

/// Where a service names another one.
fn mention<'a>(service: &'a Node, name: &str) -> Option<&'a Place> {
    let plain = |text: &str| {
        let text = text.strip_prefix("service:").unwrap_or(text);
        text.split(':').next() == Some(name)
    };
    for key in ["depends_on", "links", "network_mode", "pid", "ipc", "volumes_from"] {
        let Some(node) = service.get(key) else { continue };
        let found = match &node.value {
            Value::Mapping(entries) => entries.iter().find(|entry| entry.key == name).map(|entry| &entry.at),
            Value::Sequence(items) => {
                items.iter().find(|item| item.scalar().is_some_and(|scalar| plain(&scalar.text))).map(|item| &item.at)
            }
            Value::Scalar(scalar) => plain(&scalar.text).then_some(&node.at),
            Value::Null => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// One finding for each cycle, at the dependency of the service whose name comes first.
fn cycles(services: &[Read<'_>], findings: &Findings) {
    let by_name: BTreeMap<&str, &Read<'_>> = services.iter().map(|read| (read.entry.key.as_str(), read)).collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for start in by_name.keys().copied() {
        // Depth first, by hand: a chain may be as long as there are services.
        let mut path: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut on_path: BTreeSet<&str> = BTreeSet::new();
        let below = |name: &str| -> Vec<&str> {
            let read = by_name.get(name);
            read.map(|read| read.service.depends_on.keys().rev().map(String::as_str).collect()).unwrap_or_default()
        };
        if done.insert(start) {
            path.push((start, below(start)));
            on_path.insert(start);
        }
        while let Some((name, rest)) = path.last_mut() {
            let Some(next) = rest.pop() else {
                on_path.remove(*name);
                path.pop();
                continue;
            };
            let name = *name;
            if on_path.contains(next) {
                // One that depends on itself was found before.
                if name != next
                    && let Some(read) = by_name.get(name)
                {
                    let circle = path.iter().map(|(name, _)| *name).skip_while(|name| *name != next);
                    let circle: Vec<&str> = circle.chain([next]).collect();
                    let at = mention(&read.entry.node, next).unwrap_or(&read.entry.at);
                    findings.error(at, format!("services depend on each other: {}", circle.join(" → ")));
                }
            } else if let Some((known, _)) = by_name.get_key_value(next)
                && done.insert(known)
            {
                path.push((known, below(known)));
                on_path.insert(known);
            }
        }
    }
}

fn names(services: &[Read<'_>], findings: &Findings) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for read in services {
        let Some(name) = &read.service.container_name else { continue };
        let at = read.entry.node.get("container_name").map_or(&read.entry.at, |node| &node.at);
        let what = format!("services.{}.container_name", read.entry.key);
        if let Some(other) = taken.insert(name, &read.entry.key) {
            findings.error(at, format!("{what}: {name:?} is taken by services.{other}"));
        }
        if read.service.replicas > 1 {
            let replicas = read.service.replicas;
            findings.error(at, format!("{what}: {replicas} containers can't have one name"));
        }
    }
}

fn ports(services: &[Read<'_>], findings: &Findings) {
    // By protocol and port: the address, the service and the line that claim it.
    type Claim<'a> = (Option<&'a str>, &'a str, u32);
    let mut claims: BTreeMap<(&str, &str), Vec<Claim<'_>>> = BTreeMap::new();
    for read in services {
        let service = read.entry.key.as_str();
        for (port, at) in read.service.ports.iter().zip(&read.ports) {
            // Out of a range, the Engine chooses one that is free.
            let Some(published) = port.published.as_deref().filter(|published| !published.contains('-')) else {
                continue;
            };
            let what = format!("services.{service}.ports: {published}/{}", port.protocol);
            let host = port.host_ip.as_deref().filter(|ip| !matches!(*ip, "0.0.0.0" | "::"));
            if read.service.replicas > 1 {
                let replicas = read.service.replicas;
                findings.error(at, format!("{what} can't be published by {replicas} containers"));
            }
            let claims = claims.entry((port.protocol.as_str(), published)).or_default();
            let clash = claims.iter().find(|(other, ..)| other.is_none() || host.is_none() || *other == host);
            if let Some((_, other, line)) = clash {
                findings.error(at, format!("{what} is already published by services.{other} in line {line}"));
            }
            claims.push((host, service, at.line));
        }
    }
}

/// Networks and volumes that a service uses, by key.
fn used(
    project: &str,
    services: &BTreeMap<String, Service>,
    top: &Top<'_>,
) -> (BTreeMap<String, Network>, BTreeMap<String, crate::compose::model::Volume>) {
    let mut networks = BTreeMap::new();
    let mut volumes = BTreeMap::new();
    for service in services.values() {
        for key in service.networks.keys() {
            match top.networks.get(key) {
                Some(network) => {
                    networks.insert(key.clone(), network.clone());
                }
                None if key == "default" => {
                    let network = Network { name: format!("{project}_default"), ..Network::default() };
                    networks.insert(key.clone(), network);
                }
                None => {}
            }
        }
        for mount in &service.mounts {
            if let MountSource::Volume { key, .. } = &mount.source
                && let Some(volume) = top.volumes.get(key)
            {
                volumes.insert(key.clone(), volume.clone());
            }
        }
    }
    (networks, volumes)
}

/// Profiles have names like services; one that no service can have is a mistake.
pub(super) fn profiles(read: &Read<'_>, findings: &Findings) {
    let Some(fields) = Fields::of(format!("services.{}", read.entry.key), &read.entry.node, findings) else { return };
    for item in fields.list("profiles") {
        let Some(scalar) = item.scalar() else { continue };
        if !crate::compose::top::is_object_name(&scalar.text) {
            fields.error("profiles", &item.at, &format!("{:?} is not a profile's name", scalar.text));
        }
    }
}
