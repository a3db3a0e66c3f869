//! Which containers go before anything new is started, and in which order: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::diff::{Fate, Slot, clash};
use super::observe::{Observed, Seen};

/// What leaves for good, and what has to make way before anything new can be
/// started: containers on a network that is made anew, and those that hold
/// another slot's name or port, with all that refer to them.
pub(super) fn removals<'s>(
    observed: &'s Observed,
    slots: &[Slot<'_>],
    fates: &[Fate<'s>],
    replaced: &BTreeMap<&str, &str>,
    prune: bool,
) -> (Vec<&'s Seen>, Vec<&'s Seen>) {
    let is_slot = |seen: &Seen| slots.iter().any(|slot| slot.service == seen.service && slot.number == seen.number);
    let leaving: Vec<&Seen> = observed.containers.iter().filter(|seen| prune && !is_slot(seen)).collect();
    let former: Vec<(usize, &Seen)> =
        fates.iter().enumerate().flat_map(|(index, fate)| fate.former.iter().map(move |seen| (index, *seen))).collect();
    let mut early: Vec<&Seen> = Vec::new();
    for (index, seen) in &former {
        let on_replaced = seen.networks.iter().any(|name| replaced.contains_key(name.as_str()));
        let hinders = slots.iter().zip(fates).enumerate().any(|(other, (slot, fate))| {
            other != *index && fate.fresh.is_some() && (slot.name == seen.name || clash(slot, seen))
        });
        // Podman removes no container that another one refers to.
        let referred = former.iter().any(|(_, other)| other.refers.contains(&seen.id));
        if on_replaced || hinders || referred {
            early.push(seen);
        }
    }
    loop {
        let going: BTreeSet<&str> = leaving.iter().chain(&early).map(|seen| seen.id.as_str()).collect();
        let refers = |seen: &Seen| seen.refers.iter().any(|id| going.contains(id.as_str()));
        let more: Vec<&Seen> = former
            .iter()
            .map(|(_, seen)| *seen)
            .filter(|seen| !going.contains(seen.id.as_str()) && refers(seen))
            .collect();
        if more.is_empty() {
            break;
        }
        early.extend(more);
    }
    (reverse(leaving), reverse(early))
}

/// Containers in the order in which they can go: dependents first.
pub(super) fn reverse(mut left: Vec<&Seen>) -> Vec<&Seen> {
    let mut order = Vec::new();
    while !left.is_empty() {
        let needed = |seen: &Seen| {
            left.iter().any(|other| {
                other.id != seen.id
                    && (other.refers.contains(&seen.id)
                        || other.service != seen.service && other.depends.contains(&seen.service))
            })
        };
        let (free, rest): (Vec<&Seen>, Vec<&Seen>) = left.iter().partition(|seen| !needed(seen));
        if free.is_empty() {
            order.extend(rest);
            break;
        }
        order.extend(free);
        left = rest;
    }
    order
}
