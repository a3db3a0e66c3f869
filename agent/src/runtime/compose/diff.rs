//! The difference between an app as it is wanted and as it is: pure.
//!
//! Order of a plan: files, networks and volumes; every container, created but
//! not started (under another name while its own is taken); what leaves;
//! networks that are made anew; then service by service in the order of their
//! dependencies: the former container stops and goes, the new one gets its name
//! and starts. A crash between any two steps leaves something that the next
//! plan finds by its labels, and uses or removes.

use std::collections::{BTreeMap, BTreeSet};

use fleet::compose::model::{Project, Service};
use fleet::desired::DesiredApp;
use fleet::digest::Digest;
use fleet::name::AppName;

use super::action::Action;
use super::identity::{self, Identity};
use super::materialise;
use super::observe::{Observed, Seen, Stand};
use super::removals::{removals, reverse};
use super::rolling::rolling;
use super::why;
use crate::ports::runtime::{Inventory, Object, Plan, RuntimeError, Step, Verb};

/// What is wanted, with what it was made of.
pub(super) struct Wanted<'a> {
    pub(super) app: &'a AppName,
    pub(super) desired: &'a DesiredApp,
    pub(super) project: &'a Project,
    pub(super) had: Option<&'a Project>,
    pub(super) identities: &'a BTreeMap<String, Identity>,
    /// Folders of files that are on the disk.
    pub(super) folders: &'a BTreeSet<Digest>,
}

/// One container that is wanted.
pub(super) struct Slot<'a> {
    pub(super) service: &'a str,
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) definition: &'a Service,
    pub(super) identity: &'a Identity,
    pub(super) networks: BTreeSet<String>,
}

/// What becomes of a slot.
pub(super) struct Fate<'s> {
    pub(super) keep: Option<&'s Seen>,
    /// Under which name a new container is made.
    pub(super) fresh: Option<String>,
    /// Containers of this slot that go.
    pub(super) former: Vec<&'s Seen>,
}

pub(super) fn container(name: &str) -> Object {
    Object { kind: "container".to_owned(), name: name.to_owned() }
}

pub(super) fn network(name: &str) -> Object {
    Object { kind: "network".to_owned(), name: name.to_owned() }
}

pub(super) fn volume(name: &str) -> Object {
    Object { kind: "volume".to_owned(), name: name.to_owned() }
}

/// The name of a service's container.
pub(super) fn name_of(project: &Project, service: &str, definition: &Service, number: u32) -> String {
    match &definition.container_name {
        Some(name) => name.clone(),
        None => format!("{}-{service}-{number}", project.name),
    }
}

pub(super) fn step(verb: Verb, object: Object, why: impl Into<String>, data: Action) -> Step<Action> {
    Step { verb, object, why: why.into(), after_steady: false, group: None, data }
}

/// The plan for an app that stays.
///
/// # Errors
/// When a name is taken by something that isn't the app's, or something is
/// asked for that no step can do.
pub(super) fn plan(wanted: &Wanted<'_>, observed: &Observed) -> Result<Plan<Action>, RuntimeError> {
    let project = wanted.project;
    let slots = slots(wanted)?;
    foreign(wanted, observed, &slots)?;
    let mut steps = Vec::new();
    let mut inventory = Inventory::new();

    for (service, identity) in wanted.identities {
        let Some(digest) = &identity.files else { continue };
        if inventory.insert(materialise::object(wanted.app, digest), String::new()).is_none()
            && !wanted.folders.contains(digest)
        {
            let data = Action::WriteFolder { service: service.clone(), digest: *digest };
            steps.push(step(Verb::Create, materialise::object(wanted.app, digest), "missing", data));
        }
    }

    let mut replaced: BTreeMap<&str, &str> = BTreeMap::new();
    let mut absent: BTreeSet<&str> = BTreeSet::new();
    for (key, definition) in project.networks.iter().filter(|(_, network)| !network.external) {
        let digest = identity::network(definition)?;
        inventory.insert(network(&definition.name), digest.clone());
        match observed.networks.get(&definition.name) {
            Some(seen) if seen.digest == digest => {}
            Some(seen) => {
                replaced.insert(&definition.name, &seen.id);
            }
            None => {
                absent.insert(&definition.name);
                let data = Action::CreateNetwork { key: key.clone(), replaces: None };
                steps.push(step(Verb::Create, network(&definition.name), "missing", data));
            }
        }
    }
    for (key, definition) in project.volumes.iter().filter(|(_, volume)| !volume.external) {
        let digest = identity::volume(definition)?;
        inventory.insert(volume(&definition.name), digest.clone());
        match observed.volumes.get(&definition.name) {
            Some(seen) if seen.digest == digest => {}
            Some(_) => {
                return Err(RuntimeError::Refused {
                    object: volume(&definition.name).to_string(),
                    cause: "its driver or driver_opts changed, and its data can't be moved".to_owned(),
                    hint: Some(
                        "give the volume another name, or remove it on the device once its data is safe".to_owned(),
                    ),
                });
            }
            None => {
                let data = Action::CreateVolume { key: key.clone() };
                steps.push(step(Verb::Create, volume(&definition.name), "missing", data));
            }
        }
    }

    let fates = fates(wanted, observed, &slots, &replaced, &absent)?;
    let (leaving, early) = removals(observed, &slots, &fates, &replaced, wanted.desired.prune.enabled);

    // A half-made container that bears a name that is needed goes before.
    let needed: BTreeSet<&str> = fates.iter().filter_map(|fate| fate.fresh.as_deref()).collect();
    let in_the_way = |seen: &&Seen| needed.contains(seen.name.as_str());
    let mut gone: BTreeSet<&str> = BTreeSet::new();
    for seen in fates.iter().flat_map(|fate| &fate.former).copied().filter(in_the_way) {
        gone.insert(&seen.id);
        steps.push(removal(Verb::Replace, seen, "left half-made"));
    }

    let late = |slot: &Slot<'_>| slot.networks.iter().any(|name| replaced.contains_key(name.as_str()));
    let mut later: BTreeSet<&str> = BTreeSet::new();
    for slot in &slots {
        if late(slot) || slot.identity.refers.iter().any(|on| later.contains(on.as_str())) {
            later.insert(slot.service);
        }
    }
    let create = |steps: &mut Vec<Step<Action>>, gone: &BTreeSet<&str>, is_late: bool| {
        for (slot, fate) in slots.iter().zip(&fates) {
            let Some(name) = fate.fresh.as_ref().filter(|_| later.contains(slot.service) == is_late) else { continue };
            let former = fate.former.iter().find(|seen| !gone.contains(seen.id.as_str()));
            let (verb, reason) = match fate.former.first() {
                None => (Verb::Create, "missing".to_owned()),
                Some(seen) => (Verb::Replace, reason(wanted, slot, seen, &replaced)),
            };
            let data = Action::CreateContainer {
                service: slot.service.to_owned(),
                number: slot.number,
                name: name.clone(),
                digest: slot.identity.digest.clone(),
                former: former.filter(|_| !is_late).map(|seen| seen.id.clone()),
            };
            steps.push(step(verb, container(&slot.name), reason, data));
        }
    };
    create(&mut steps, &gone, false);

    for seen in leaving {
        gone.insert(&seen.id);
        steps.push(removal(Verb::Delete, seen, "no longer wanted"));
    }
    for seen in early {
        if gone.insert(&seen.id) {
            steps.push(removal(Verb::Replace, seen, "makes way for its successor"));
        }
    }
    for (name, id) in &replaced {
        let key = project.networks.iter().find(|(_, network)| network.name == *name).map(|(key, _)| key.clone());
        let data = Action::CreateNetwork { key: key.unwrap_or_default(), replaces: Some((*id).to_owned()) };
        steps.push(step(Verb::Replace, network(name), "its definition", data));
    }
    create(&mut steps, &gone, true);

    rolling(wanted, &slots, &fates, &gone, &mut steps);

    for slot in &slots {
        inventory.insert(container(&slot.name), slot.identity.digest.clone());
    }
    prune(wanted, observed, &mut inventory, &mut steps);
    Ok(Plan { steps, inventory })
}

/// The plan for an app that leaves. `keep`: what stays.
pub(super) fn leave(observed: &Observed, keep_volumes: bool) -> Plan<Action> {
    let mut steps: Vec<_> = reverse(observed.containers.iter().collect())
        .into_iter()
        .map(|seen| removal(Verb::Delete, seen, "the app left"))
        .collect();
    for (name, seen) in &observed.networks {
        let data = Action::RemoveNetwork { id: seen.id.clone() };
        steps.push(step(Verb::Delete, network(name), "the app left", data));
    }
    for name in observed.volumes.keys().filter(|_| !keep_volumes) {
        let data = Action::RemoveVolume { name: name.clone() };
        steps.push(Step { after_steady: true, ..step(Verb::Delete, volume(name), "the app left", data) });
    }
    Plan { steps, inventory: Inventory::new() }
}

fn slots<'a>(wanted: &Wanted<'a>) -> Result<Vec<Slot<'a>>, RuntimeError> {
    let mut slots = Vec::new();
    for name in identity::order(wanted.project) {
        let Some((service, definition)) = wanted.project.services.get_key_value(name) else { continue };
        let Some(identity) = wanted.identities.get(service) else { continue };
        if definition.container_name.is_some() && definition.replicas > 1 {
            return Err(RuntimeError::Refused {
                object: format!("service {service}"),
                cause: "it has a container_name and more than one replica".to_owned(),
                hint: Some("drop container_name".to_owned()),
            });
        }
        let networks = definition.networks.keys().filter_map(|key| wanted.project.networks.get(key));
        let networks: BTreeSet<String> = networks.map(|network| network.name.clone()).collect();
        for number in 1..=definition.replicas {
            slots.push(Slot {
                service,
                number,
                name: name_of(wanted.project, service, definition, number),
                definition,
                identity,
                networks: networks.clone(),
            });
        }
    }
    Ok(slots)
}

fn foreign(wanted: &Wanted<'_>, observed: &Observed, slots: &[Slot<'_>]) -> Result<(), RuntimeError> {
    let networks = wanted.project.networks.values().filter(|it| !it.external).map(|it| network(&it.name));
    let volumes = wanted.project.volumes.values().filter(|it| !it.external).map(|it| volume(&it.name));
    let taken = |object: Object, by: &BTreeMap<String, String>| match by.get(&object.name) {
        Some(owner) => Err(RuntimeError::Foreign { object, owner: owner.clone() }),
        None => Ok(()),
    };
    slots.iter().try_for_each(|slot| taken(container(&slot.name), &observed.foreign_containers))?;
    networks.into_iter().try_for_each(|object| match observed.networks.contains_key(&object.name) {
        // Docker allows two networks of one name; ours is used by id.
        true => Ok(()),
        false => taken(object, &observed.foreign_networks),
    })?;
    volumes.into_iter().try_for_each(|object| taken(object, &observed.foreign_volumes))
}

fn fates<'s>(
    wanted: &Wanted<'_>,
    observed: &'s Observed,
    slots: &[Slot<'_>],
    replaced: &BTreeMap<&str, &str>,
    absent: &BTreeSet<&str>,
) -> Result<Vec<Fate<'s>>, RuntimeError> {
    let mut fates: Vec<Fate<'s>> = Vec::new();
    // Id of each service's first container, where that one stays.
    let mut first: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for slot in slots {
        let mine = || observed.containers.iter().filter(|it| it.service == slot.service && it.number == slot.number);
        let refers: Option<BTreeSet<String>> = slot
            .identity
            .refers
            .iter()
            .map(|on| first.get(on.as_str()).copied().flatten().map(str::to_owned))
            .collect();
        let connected =
            slot.networks.iter().all(|name| !replaced.contains_key(name.as_str()) && !absent.contains(name.as_str()));
        let filed = slot.identity.files.is_none_or(|digest| wanted.folders.contains(&digest));
        let fits = |seen: &&Seen| {
            seen.digest == slot.identity.digest
                && seen.stand != Stand::Gone
                && connected
                && filed
                && slot.networks.is_subset(&seen.networks)
                && refers.as_ref() == Some(&seen.refers)
        };
        let keep = mine()
            .filter(fits)
            .max_by_key(|seen| (seen.name == slot.name, matches!(seen.stand, Stand::Running | Stand::Restarting)));
        let former: Vec<&Seen> = mine().filter(|seen| keep.is_none_or(|kept| kept.id != seen.id)).collect();
        let taken = observed.containers.iter().any(|seen| seen.name == slot.name);
        let fresh = keep.is_none().then(|| match taken {
            true => format!("{}.{}", slot.name, slot.identity.digest.get(..8).unwrap_or_default()),
            false => slot.name.clone(),
        });
        if fresh.is_some() && slot.definition.update.start_first && former.iter().any(|it| clash(slot, it)) {
            return Err(RuntimeError::Refused {
                object: format!("service {}", slot.service),
                cause: "update_config.order start-first can't work while both containers publish the same port"
                    .to_owned(),
                hint: Some("use stop-first, or publish no fixed port".to_owned()),
            });
        }
        if slot.number == 1 {
            first.insert(slot.service, keep.map(|seen| seen.id.as_str()));
        }
        fates.push(Fate { keep, fresh, former });
    }
    Ok(fates)
}

/// Whether a container holds a host port that the slot's new one needs.
pub(super) fn clash(slot: &Slot<'_>, seen: &Seen) -> bool {
    slot.definition.ports.iter().any(|port| {
        let Some(published) = &port.published else { return false };
        !published.contains('-') && seen.ports.contains(&format!("{published}/{}", port.protocol))
    })
}

pub(super) fn removal(verb: Verb, seen: &Seen, why: &str) -> Step<Action> {
    let data = Action::RemoveContainer { id: seen.id.clone(), grace_secs: seen.grace_secs };
    step(verb, container(&seen.name), why, data)
}

fn reason(wanted: &Wanted<'_>, slot: &Slot<'_>, seen: &Seen, replaced: &BTreeMap<&str, &str>) -> String {
    if seen.digest == slot.identity.digest {
        return match slot.networks.iter().find(|name| !seen.networks.contains(*name)) {
            Some(network) => format!("not on network {network}"),
            None if slot.identity.files.is_some_and(|digest| !wanted.folders.contains(&digest)) => {
                "its files were removed".to_owned()
            }
            None => "what it shares was made anew".to_owned(),
        };
    }
    if let Some(name) = slot.networks.iter().find(|name| replaced.contains_key(name.as_str())) {
        return format!("network {name} changed");
    }
    let had = wanted.had.and_then(|project| project.services.get(slot.service));
    had.map_or("configuration".to_owned(), |had| why::differs(had, slot.definition))
}

/// Networks and volumes that nothing wants any more.
fn prune(wanted: &Wanted<'_>, observed: &Observed, inventory: &mut Inventory, steps: &mut Vec<Step<Action>>) {
    let policy = &wanted.desired.prune;
    if !policy.enabled {
        for seen in &observed.containers {
            inventory.entry(container(&seen.name)).or_insert_with(|| seen.digest.clone());
        }
    }
    let networks: BTreeSet<&String> = wanted.project.networks.values().map(|it| &it.name).collect();
    let volumes: BTreeSet<&String> = wanted.project.volumes.values().map(|it| &it.name).collect();
    for (name, seen) in &observed.networks {
        if networks.contains(name) {
            continue;
        }
        if policy.enabled {
            let data = Action::RemoveNetwork { id: seen.id.clone() };
            steps.push(step(Verb::Delete, network(name), "no longer wanted", data));
        } else {
            inventory.insert(network(name), seen.digest.clone());
        }
    }
    let keep = !policy.enabled || policy.keep.iter().any(|kind| kind == "volumes");
    for (name, seen) in &observed.volumes {
        if volumes.contains(name) {
            continue;
        }
        if keep {
            inventory.insert(volume(name), seen.digest.clone());
        } else {
            let data = Action::RemoveVolume { name: name.clone() };
            steps.push(Step { after_steady: true, ..step(Verb::Delete, volume(name), "no longer wanted", data) });
        }
    }
}
