//! How new containers take the place of former ones, service by service, as
//! `depends_on` and `deploy.update_config` ask for: pure.

use std::collections::BTreeSet;

use fleet::compose::model::{Condition, FailureAction, Restart};

use super::action::Action;
use super::diff::{Fate, Slot, Wanted, container, name_of, removal, step};
use super::identity;
use super::observe::Stand;
use crate::ports::runtime::{Step, Verb};

/// Service by service: dependencies are waited for, the former container goes,
/// the new one takes its place.
pub(super) fn rolling(
    wanted: &Wanted<'_>,
    slots: &[Slot<'_>],
    fates: &[Fate<'_>],
    gone: &BTreeSet<&str>,
    steps: &mut Vec<Step<Action>>,
) {
    let limit_ms = wanted.desired.health.timeout_ms;
    let mut awaited: BTreeSet<(&str, &str)> = BTreeSet::new();
    for name in identity::order(wanted.project) {
        let Some(definition) = wanted.project.services.get(name) else { continue };
        let mine: Vec<(&Slot<'_>, &Fate<'_>)> =
            slots.iter().zip(fates).filter(|(slot, _)| slot.service == name).collect();
        let due: Vec<&(&Slot<'_>, &Fate<'_>)> = mine
            .iter()
            .filter(|(slot, fate)| fate.fresh.is_some() || start(slot, fate).is_some() || !fate.former.is_empty())
            .collect();
        if due.is_empty() {
            continue;
        }
        for (on, how) in &definition.depends_on {
            let condition = match how.condition {
                Condition::Started => continue,
                Condition::Healthy => "healthy",
                Condition::CompletedSuccessfully => "completed",
            };
            if wanted.project.services.contains_key(on) && awaited.insert((on, condition)) {
                let data = Action::AwaitService {
                    service: on.clone(),
                    condition: how.condition,
                    required: how.required,
                    limit_ms,
                };
                let first = &wanted.project.services[on];
                let object = container(&name_of(wanted.project, on, first, 1));
                steps.push(step(Verb::Wait, object, format!("{name} wants it {condition}"), data));
            }
        }
        let update = &definition.update;
        let renewed = due.iter().any(|(_, fate)| !fate.former.is_empty());
        let size = match update.parallelism {
            Some(0) => due.len(),
            None if !renewed => due.len(),
            None => 1,
            Some(size) => size as usize,
        };
        let batches = due.chunks(size.max(1));
        let last = batches.len().saturating_sub(1);
        for (index, batch) in batches.enumerate() {
            // A slot whose former container is gone already has nothing to overlap with.
            let overlaps =
                |fate: &Fate<'_>| update.start_first && fate.former.iter().any(|seen| !gone.contains(seen.id.as_str()));
            let watch = |steps: &mut Vec<Step<Action>>, names: Vec<String>, healthy: bool, then_ms: u64| {
                let Some(object) = names.first().map(|name| container(name)) else { return };
                let data = Action::Watch {
                    names,
                    monitor_ms: update.monitor_ms.unwrap_or_default(),
                    healthy,
                    tolerate: update.failure_action == FailureAction::Continue,
                    limit_ms,
                    then_ms,
                };
                steps.push(step(Verb::Wait, object, "to see whether the update holds", data));
            };
            let mut overlapping = Vec::new();
            for (slot, fate) in batch.iter().filter(|(_, fate)| overlaps(fate)) {
                let name = fate.fresh.clone().or_else(|| fate.keep.map(|seen| seen.name.clone())).unwrap_or_default();
                let data = Action::StartContainer { name: name.clone(), from: None, start: true };
                if fate.keep.is_none_or(|seen| seen.stand != Stand::Running) {
                    steps.push(step(Verb::Start, container(&slot.name), "beside its former self", data));
                }
                overlapping.push(name);
            }
            watch(steps, overlapping, true, 0);
            for (_, fate) in batch {
                for seen in fate.former.iter().filter(|seen| !gone.contains(seen.id.as_str())) {
                    steps.push(removal(Verb::Replace, seen, "its successor is ready"));
                }
            }
            let mut started = Vec::new();
            for (slot, fate) in batch {
                if let Some((why, data)) = start(slot, fate) {
                    steps.push(step(Verb::Start, container(&slot.name), why, data));
                }
                if !overlaps(fate) && (fate.fresh.is_some() || renewed) {
                    started.push(slot.name.clone());
                }
            }
            let then_ms = if index == last { 0 } else { update.delay_ms.unwrap_or_default() };
            if renewed && (update.monitor_ms.is_some() || then_ms > 0 || index != last) {
                let names = if started.is_empty() {
                    batch.iter().map(|(slot, _)| slot.name.clone()).collect()
                } else {
                    started
                };
                watch(steps, names, index != last, then_ms);
            }
        }
    }
}

/// What brings a slot's container to life under its own name, if anything has to.
pub(super) fn start(slot: &Slot<'_>, fate: &Fate<'_>) -> Option<(&'static str, Action)> {
    let data = |from: Option<String>, start| Action::StartContainer { name: slot.name.clone(), from, start };
    let Some(seen) = fate.keep else {
        let made = fate.fresh.clone()?;
        return Some(("created", data((made != slot.name).then_some(made), true)));
    };
    let renamed = (seen.name != slot.name).then(|| seen.name.clone());
    let ends = matches!(slot.definition.restart, Restart::No | Restart::OnFailure { .. });
    let (why, start) = match seen.stand {
        Stand::Created => ("never started", true),
        Stand::Paused => ("paused", true),
        Stand::Exited { code: 0 } if ends => ("done", false),
        Stand::Exited { .. } => ("stopped", true),
        Stand::Running | Stand::Restarting | Stand::Gone => ("named otherwise", false),
    };
    (start || renamed.is_some()).then(|| (why, data(renamed, start)))
}
