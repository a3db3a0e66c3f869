//! What a range of commits changes: for every device file, and every label
//! combination that the groups name, which apps change, and how.
//!
//! Both ends are rendered by the same function that the devices use. What a
//! device does about it (which container is made anew) is for its agent.

mod diff;
mod objects;
mod text;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::diff::Change;
use crate::desired::DesiredApp;
use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::name::{AppName, DeviceName};
use crate::render::{AppCache, DeviceFacts, Memo, Rendered, Renderer, render_with};
use crate::repo::assign::Assignment;
use crate::repo::targets::targets;
use crate::repo::value::Labels;
use crate::repo::{FLEET_FILE, Repo, Whose, below, check, read_app, unreadable};
use crate::revision::CommitId;
use crate::tree::Tree;
use crate::vars::names;

/// One end of the range.
#[derive(Clone, Copy)]
pub struct End<'a> {
    /// Its files.
    pub tree: &'a dyn Tree,
    /// Its id: what `BURGEE_REVISION` says.
    pub commit: &'a CommitId,
}

/// What a range changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Devices for which something changes.
    pub devices: Vec<DevicePlan>,
    /// How many devices and label combinations were looked at and stay as they are.
    pub unchanged: usize,
    /// Whether some label combinations were left out because they were too many.
    pub bounded: bool,
    /// What is worth saying about the range as a whole.
    pub notes: Vec<String>,
}

/// What changes for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DevicePlan {
    /// The device; absent: any device with `labels`.
    pub device: Option<DeviceName>,
    /// Labels of its `agent.toml` that this takes for granted.
    pub labels: Labels,
    /// Why the former state is not known, and counts as nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_unknown: Option<String>,
    /// Groups and windows.
    pub changes: Vec<Change>,
    /// Apps that change.
    pub apps: Vec<AppPlan>,
}

/// What happens to one app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AppPlan {
    /// The app.
    pub name: AppName,
    /// Its runtime (after; where it is removed, before).
    pub runtime: &'static str,
    /// Added, removed or changed.
    pub change: Kind,
    /// How it changes; empty where it is removed.
    pub changes: Vec<Change>,
}

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It was not there before.
    Added,
    /// It is not there any more.
    Removed,
    /// It is there, but different.
    Changed,
}

/// Plans the way from `before` to `after`.
///
/// # Errors
/// When `after` has errors: the same findings that `check` has.
pub fn plan(before: End<'_>, after: End<'_>) -> Result<Plan, Vec<Finding>> {
    let found = check(after.tree);
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(found);
    }
    let (new, mut found) = Repo::read(after.tree, Whose::Everyone);
    let Some(new) = new else { return Err(found) };
    let mut notes = Vec::new();
    let (old, wrong) = Repo::read(before.tree, Whose::Everyone);
    if old.is_none() {
        notes.push(match before.tree.entries().contains_key(FLEET_FILE) {
            true => format!(
                "{} has no usable {FLEET_FILE} ({}): everything counts as added",
                before.commit.short(),
                first(&wrong)
            ),
            false => format!("{} has no {FLEET_FILE}: everything counts as added", before.commit.short()),
        });
    }
    let both: Vec<&Repo> = old.iter().chain([&new]).collect();
    let all = targets(&both);
    let mut old_side = old.as_ref().map(|repo| Side::new(before, repo)).transpose()?;
    let mut new_side = Side::new(after, &new)?;
    let mut plan = Plan { devices: Vec::new(), unchanged: 0, bounded: all.bounded, notes };
    for target in all.targets {
        let name = target.device.clone().unwrap_or_else(|| all.stand_in.clone());
        let facts = DeviceFacts { name, labels: target.labels.clone() };
        if let Some(old) = &mut old_side
            && old.same_for(&mut new_side, &facts)
        {
            plan.unchanged += 1;
            continue;
        }
        let rendered = match new_side.render(&facts) {
            Ok(rendered) => rendered,
            // A combination of labels that no device may have: `check` warned of it.
            Err(_) if target.device.is_none() || !target.labels.is_empty() => continue,
            Err(errors) => {
                found.extend(errors);
                continue;
            }
        };
        let (former, before_unknown) = match old_side.as_mut().map(|old| old.render(&facts)) {
            None => (None, None),
            Some(Ok(former)) => (Some(former), None),
            Some(Err(errors)) => (None, Some(first(&errors))),
        };
        let apps = apps(former.as_ref(), &rendered);
        let changes = diff::state(former.as_ref().map(|former| &former.state), &rendered.state);
        if apps.is_empty() && changes.is_empty() {
            plan.unchanged += 1;
        } else {
            plan.devices.push(DevicePlan {
                device: target.device,
                labels: target.labels,
                before_unknown,
                changes,
                apps,
            });
        }
    }
    if found.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(found);
    }
    Ok(plan)
}

fn first(found: &[Finding]) -> String {
    found
        .iter()
        .find(|finding| finding.severity == Severity::Error)
        .or(found.first())
        .map_or_else(|| "for no reason given".to_owned(), ToString::to_string)
}

fn apps(before: Option<&Rendered>, after: &Rendered) -> Vec<AppPlan> {
    fn by_name(rendered: &Rendered) -> BTreeMap<&AppName, objects::Side<'_>> {
        rendered.state.apps.iter().map(|app| (&app.name, objects::Side { app, blobs: &rendered.blobs })).collect()
    }
    let (old, new) = (before.map(by_name).unwrap_or_default(), by_name(after));
    let plan = |app: &DesiredApp, change, changes| AppPlan {
        name: app.name.clone(),
        runtime: app.spec.runtime(),
        change,
        changes,
    };
    let removed = old.iter().filter(|(name, _)| !new.contains_key(**name));
    let mut plans: Vec<_> = removed.map(|(_, side)| plan(side.app, Kind::Removed, Vec::new())).collect();
    for app in &after.state.apps {
        let side = objects::Side { app, blobs: &after.blobs };
        match old.get(&app.name) {
            None => plans.push(plan(app, Kind::Added, diff::added(side))),
            Some(former) if former.app.digest != app.digest => {
                plans.push(plan(app, Kind::Changed, diff::app(*former, side)));
            }
            Some(_) => {}
        }
    }
    plans
}

/// One end of the range while it is compared.
struct Side<'a> {
    renderer: Renderer<'a>,
    cache: AppCache,
    inputs: BTreeMap<AppName, Inputs>,
}

/// What an app is rendered from, beside its variables.
#[derive(PartialEq, Eq)]
struct Inputs {
    files: Digest,
    uses_revision: bool,
}

impl<'a> Side<'a> {
    fn new(end: End<'a>, repo: &'a Repo) -> Result<Self, Vec<Finding>> {
        let mut renderer = Renderer::new(end.tree, repo, end.commit);
        renderer.memo = Some(Memo::default());
        let mut inputs = BTreeMap::new();
        let mut everything = Vec::new();
        let mut reaching = Vec::new();
        for name in &repo.apps {
            let mut files = Vec::new();
            let (mut uses_revision, mut reaches_out) = (false, false);
            for path in below(end.tree, &format!("apps/{name}")) {
                let bytes = end.tree.read(path).map_err(|failed| vec![unreadable(path, &failed)])?;
                let executable = end.tree.entries().get(path).is_some_and(|entry| entry.executable);
                files.push((path.to_owned(), executable, Digest::of(&bytes)));
                if let Ok(text) = String::from_utf8(bytes) {
                    uses_revision |= names(&text).iter().any(|(_, variable)| variable == "BURGEE_REVISION");
                    reaches_out |= text.contains("../");
                }
            }
            if reaches_out {
                reaching.push(name);
            }
            let digest = Digest::of_json(&files).map_err(|failed| vec![crate::render::no_digest(&failed)])?;
            everything.push(digest);
            inputs.insert(name.clone(), Inputs { files: digest, uses_revision });
        }
        // An app that includes files of another one is rendered from all of them.
        let all = Digest::of_json(&everything).map_err(|failed| vec![crate::render::no_digest(&failed)])?;
        for name in reaching {
            let uses_revision = inputs.values().any(|inputs| inputs.uses_revision);
            inputs.insert(name.clone(), Inputs { files: all, uses_revision });
        }
        Ok(Self { renderer, cache: AppCache::new(), inputs })
    }

    fn render(&mut self, facts: &DeviceFacts) -> Result<Rendered, Vec<Finding>> {
        render_with(&self.renderer, facts, &mut self.cache)
    }

    /// Whether a device gets the same from the same on both sides, so that nothing has to be rendered.
    fn same_for(&mut self, other: &mut Self, facts: &DeviceFacts) -> bool {
        let mine = Assignment::new(self.renderer.repo, &facts.name, &facts.labels);
        let theirs = Assignment::new(other.renderer.repo, &facts.name, &facts.labels);
        mine.groups == theirs.groups
            && mine.windows() == theirs.windows()
            && mine.rollouts().next().is_some() == theirs.rollouts().next().is_some()
            && mine.apps.keys().eq(theirs.apps.keys())
            && mine.apps.keys().all(|name| {
                let same = self.inputs.get(*name) == other.inputs.get(*name);
                let steady = self.inputs.get(*name).is_some_and(|inputs| !inputs.uses_revision);
                same && steady && self.scope(name, &mine) == other.scope(name, &theirs)
            })
    }

    /// An app's variables; the revision aside, which nothing here uses.
    fn scope(&mut self, name: &AppName, device: &Assignment<'_>) -> Option<crate::vars::Scope> {
        let tree = self.renderer.tree;
        let read = self.cache.entry(name.clone()).or_insert_with(|| read_app(tree, name));
        let (app, _) = read.as_ref().ok()?;
        Some(device.scope(name, app, self.renderer.commit).with("BURGEE_REVISION", ""))
    }
}

#[cfg(test)]
mod tests;
