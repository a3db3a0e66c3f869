//! What the files of a repository say about each other: names that have to
//! exist, cycles, and variables that two groups set to different values.

use std::collections::{BTreeMap, BTreeSet};

use super::app::App;
use super::problems::Problems;
use super::{Repo, app_path, device_path, group_path, rollout_path};
use crate::finding::Finding;
use crate::name::{AppName, GroupName};
use crate::yaml::{At, did_you_mean, one_of};

/// Names in groups, devices and rollouts that nothing has.
pub(super) fn unknown_names(repo: &Repo) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, group) in &repo.groups {
        found.extend(unknown_apps(repo, &group_path(name), &group.apps));
    }
    for (name, device) in &repo.devices {
        found.extend(unknown_apps(repo, &device_path(name), &device.apps));
    }
    found.extend(rollout_groups(repo));
    found
}

/// Apps of one list that there are not.
pub(crate) fn unknown_apps(repo: &Repo, path: &str, apps: &[At<AppName>]) -> Vec<Finding> {
    let mut problems = Problems::new(path);
    for app in apps.iter().filter(|app| !repo.apps.contains(&app.value)) {
        let known: Vec<_> = repo.apps.iter().map(AppName::as_str).collect();
        unknown(&mut problems, app, "app", &known, "apps/<app>/app.yaml");
    }
    problems.finish::<()>(None).err().unwrap_or_default()
}

fn unknown<N: ToString>(problems: &mut Problems<'_>, name: &At<N>, kind: &str, known: &[&str], expected: &str) {
    let text = name.value.to_string();
    let message = format!("there is no {kind} `{text}`, expected a name that {expected} gives");
    match did_you_mean(&text, known) {
        Some(hint) => problems.error_with_hint(name.place, message, hint),
        None => problems.error(name.place, message),
    }
}

/// Groups of rollouts that there are not, or that two rollouts pace.
pub(crate) fn rollout_groups(repo: &Repo) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut paced: BTreeMap<&GroupName, String> = BTreeMap::new();
    let known: Vec<_> = repo.groups.keys().map(GroupName::as_str).collect();
    for (name, rollout) in &repo.rollouts {
        let path = rollout_path(name);
        let mut problems = Problems::new(&path);
        for group in &rollout.groups {
            if !repo.groups.contains_key(&group.value) {
                unknown(&mut problems, group, "group", &known, "groups/<group>.yaml");
            } else if let Some(other) = paced.get(&group.value) {
                problems.error(
                    group.place,
                    format!("the group `{}` is in {other}, too, expected it in one rollout", group.value),
                );
            } else {
                paced.insert(&group.value, path.clone());
            }
        }
        found.extend(problems.finish::<()>(None).err().unwrap_or_default());
    }
    found
}

/// `dependsOn` of apps that there are not, and cycles; each cycle once, where its first app names the next.
pub(crate) fn dependencies(all: &BTreeSet<AppName>, apps: &BTreeMap<AppName, App>) -> Vec<Finding> {
    let known: Vec<_> = all.iter().map(AppName::as_str).collect();
    let mut found = Vec::new();
    for (name, app) in apps {
        let path = app_path(name);
        let mut problems = Problems::new(&path);
        for dependency in &app.depends_on {
            if !all.contains(&dependency.value) {
                unknown(&mut problems, dependency, "app", &known, "apps/<app>/app.yaml");
            } else if let Some(cycle) = cycle(name, &dependency.value, apps)
                && cycle.iter().all(|other| name <= other)
            {
                let names: Vec<_> = cycle.iter().map(|app| format!("`{app}`")).collect();
                problems.error(
                    dependency.place,
                    format!(
                        "`{name}` depends on itself: `{name}` → {}, expected no circle in dependsOn",
                        names.join(" → ")
                    ),
                );
            }
        }
        found.extend(problems.finish::<()>(None).err().unwrap_or_default());
    }
    found
}

/// The way from `next` back to `start`, both ends included.
fn cycle<'a>(start: &'a AppName, next: &'a AppName, apps: &'a BTreeMap<AppName, App>) -> Option<Vec<&'a AppName>> {
    let mut came_from: BTreeMap<&AppName, Option<&AppName>> = BTreeMap::from([(next, None)]);
    let mut open = std::collections::VecDeque::from([next]);
    while let Some(name) = open.pop_front() {
        if name == start {
            let mut way = vec![name];
            let mut at = name;
            while let Some(Some(before)) = came_from.get(at) {
                way.push(before);
                at = before;
            }
            way.reverse();
            return Some(way);
        }
        for dependency in apps.get(name).iter().flat_map(|app| &app.depends_on) {
            if !came_from.contains_key(&dependency.value) {
                came_from.insert(&dependency.value, Some(name));
                open.push_back(&dependency.value);
            }
        }
    }
    None
}

/// Variables that two of these groups, at the same priority, set to different
/// values, for pairs that `meet`.
pub(crate) fn ambiguities(
    repo: &Repo,
    groups: &[&GroupName],
    meet: impl Fn(&GroupName, &GroupName) -> bool,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, second) in groups.iter().enumerate() {
        let path = group_path(second);
        let mut problems = Problems::new(&path);
        for first in &groups[..index] {
            let (Some(a), Some(b)) = (repo.groups.get(*first), repo.groups.get(*second)) else { continue };
            if a.priority != b.priority {
                continue;
            }
            let differing: Vec<_> = b
                .vars
                .iter()
                .filter_map(|(name, value)| {
                    a.vars.get(name).filter(|other| *other != value).map(|other| (name, value, other))
                })
                .collect();
            if differing.is_empty() || !meet(first, second) {
                continue;
            }
            for (name, value, other) in differing {
                problems.error_with_hint(
                    name.place,
                    format!(
                        "`{}` is `{}` here and `{}` in {}, both groups have priority {} and one device can be in both; expected one value",
                        name.value, value.value, other.value, group_path(first), a.priority
                    ),
                    format!("give one of {} another `priority`: the higher one wins", one_of(&[first.as_str(), second.as_str()])),
                );
            }
        }
        found.extend(problems.finish::<()>(None).err().unwrap_or_default());
    }
    found
}
