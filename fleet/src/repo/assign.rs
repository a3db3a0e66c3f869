//! Which device gets what: its groups, its apps, and its variables in layers.
//!
//! Pure over a [`Repo`]; what the apps become is for [`crate::render`].

use std::collections::BTreeMap;

use super::app::App;
use super::value::{Labels, Vars, label_variable};
use super::{Repo, device_path, error, group_path, references};
use crate::desired::Window;
use crate::finding::Finding;
use crate::name::{AppName, DeviceName, GroupName};
use crate::revision::CommitId;
use crate::select::merge_labels;
use crate::vars::Scope;
use crate::yaml::{At, Place};

/// What one device gets.
#[derive(Clone, Debug)]
pub struct Assignment<'r> {
    repo: &'r Repo,
    /// The device.
    pub device: &'r DeviceName,
    /// Its labels, from `agent.toml` and its file.
    pub labels: Labels,
    /// Its groups, in order of priority, then of name.
    pub groups: Vec<&'r GroupName>,
    /// Its apps, each with the file and the place that gave it first.
    pub apps: BTreeMap<&'r AppName, (String, Place)>,
}

impl<'r> Assignment<'r> {
    /// The assignment of a device with these labels of its own.
    #[must_use]
    pub fn new(repo: &'r Repo, device: &'r DeviceName, agent_labels: &Labels) -> Self {
        let file = repo.devices.get(device);
        let labels = file.map_or_else(|| agent_labels.clone(), |file| merge_labels(agent_labels, &file.labels));
        let mut groups: Vec<_> = repo.groups.iter().filter(|(_, group)| group.selector.matches(&labels)).collect();
        groups.sort_by_key(|(name, group)| (group.priority, *name));
        let mut apps = BTreeMap::new();
        let mut give = |path: String, given: &'r [At<AppName>]| {
            for app in given {
                apps.entry(&app.value).or_insert_with(|| (path.clone(), app.place));
            }
        };
        for (name, group) in &groups {
            give(group_path(name), &group.apps);
        }
        if let Some(file) = file {
            give(device_path(device), &file.apps);
        }
        Self { repo, device, labels, groups: groups.into_iter().map(|(name, _)| name).collect(), apps }
    }

    /// What is wrong with it: apps that there are not, variables that its
    /// groups set differently, labels that share a variable.
    pub(crate) fn problems(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for group in &self.groups {
            if let Some(read) = self.repo.groups.get(*group) {
                found.extend(references::unknown_apps(self.repo, &group_path(group), &read.apps));
            }
        }
        if let Some(file) = self.repo.devices.get(self.device) {
            found.extend(references::unknown_apps(self.repo, &device_path(self.device), &file.apps));
        }
        let mut by_name = self.groups.clone();
        by_name.sort();
        found.extend(references::ambiguities(self.repo, &by_name, |_, _| true));
        let mut named: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        for (label, value) in &self.labels {
            let variable = label_variable(label);
            if let Some((other, before)) = named.insert(variable.clone(), (label, value))
                && before != value
            {
                found.push(error(
                    &device_path(self.device),
                    Place::START,
                    format!("the labels `{other}` and `{label}` of the device both become `{variable}`, expected one"),
                ));
            }
        }
        found
    }

    /// The windows in which the device may apply: it may while all are open.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        let groups = self.groups.iter().filter_map(|group| self.repo.groups.get(*group)?.window.clone());
        let rollouts = self.rollouts().filter_map(|rollout| rollout.window.clone());
        let mut windows = Vec::new();
        for window in groups.chain(rollouts) {
            if !windows.contains(&window) {
                windows.push(window);
            }
        }
        windows
    }

    /// The rollouts that pace one of its groups.
    pub fn rollouts(&self) -> impl Iterator<Item = &'r super::rollout::Rollout> {
        let groups = &self.groups;
        self.repo.rollouts.values().filter(|rollout| rollout.groups.iter().any(|group| groups.contains(&&group.value)))
    }

    /// The variables of one app, later layers over earlier ones: fleet, app,
    /// groups by priority, device; and what is built in.
    #[must_use]
    pub fn scope(&self, name: &AppName, app: &App, commit: &CommitId) -> Scope {
        let mut values = BTreeMap::new();
        let mut layer = |vars: &Vars| {
            values.extend(vars.iter().map(|(name, value)| (name.value.clone(), value.value.clone())));
        };
        layer(&self.repo.fleet.vars);
        layer(&app.vars);
        for group in &self.groups {
            if let Some(group) = self.repo.groups.get(*group) {
                layer(&group.vars);
            }
        }
        if let Some(file) = self.repo.devices.get(self.device) {
            layer(&file.vars);
        }
        values.extend(self.labels.iter().map(|(label, value)| (label_variable(label), value.clone())));
        values.insert("BURGEE_DEVICE".to_owned(), self.device.to_string());
        values.insert("BURGEE_FLEET".to_owned(), self.repo.fleet.name.to_string());
        values.insert("BURGEE_APP".to_owned(), name.to_string());
        values.insert("BURGEE_REVISION".to_owned(), commit.to_string());
        Scope::new(values)
    }
}
