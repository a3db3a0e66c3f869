//! The fleet repository, format 1: its files as types, read from a [`Tree`]
//! and checked, each alone and against each other.
//!
//! Not here: which device gets what ([`assign`]), what that becomes
//! ([`crate::render`]), and who may sign it.

pub mod app;
pub mod assign;
pub mod check;
mod check_file;
pub mod files;
mod objects;
pub(crate) mod problems;
pub(crate) mod references;
pub mod rollout;
pub mod targets;
pub mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use self::app::App;
pub use self::check::{check, check_with};
use self::files::{Device, Fleet, Group};
use self::rollout::Rollout;
use crate::finding::{Finding, Severity};
use crate::name::{AppName, DeviceName, GroupName, RolloutName};
use crate::tree::{Tree, TreeError};
use crate::yaml::Place;

/// The fleet's own file.
pub const FLEET_FILE: &str = "burgee.yaml";
/// For whom a repository is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Whose<'a> {
    /// One device: of `devices/`, its own file alone.
    Device(&'a DeviceName),
    /// Everyone: every file.
    Everyone,
}

/// The files of a repository, apps not yet among them: they are read when a device needs them.
#[derive(Clone, Debug)]
pub struct Repo {
    /// `burgee.yaml`.
    pub fleet: Fleet,
    /// `groups/`.
    pub groups: BTreeMap<GroupName, Group>,
    /// `devices/`.
    pub devices: BTreeMap<DeviceName, Device>,
    /// `rollouts/`.
    pub rollouts: BTreeMap<RolloutName, Rollout>,
    /// The names of all apps: folders of `apps/` with an `app.yaml`.
    pub apps: BTreeSet<AppName>,
}

impl Repo {
    /// Reads the files; what is wrong in one leaves that one out. `None` where
    /// `burgee.yaml` itself is.
    pub(crate) fn read(tree: &dyn Tree, whose: Whose<'_>) -> (Option<Self>, Vec<Finding>) {
        let mut found = Vec::new();
        let fleet = keep(&mut found, read_file(tree, FLEET_FILE, Fleet::parse));
        let groups = read_folder(tree, "groups", &mut found, Group::parse);
        let rollouts = read_folder(tree, "rollouts", &mut found, Rollout::parse);
        let devices = match whose {
            Whose::Everyone => read_folder(tree, "devices", &mut found, Device::parse),
            Whose::Device(name) => {
                let path = device_path(name);
                let given = tree.entries().contains_key(&path);
                let device = given.then(|| keep(&mut found, read_file(tree, &path, Device::parse))).flatten();
                device.map(|device| (name.clone(), device)).into_iter().collect()
            }
        };
        let apps = app_names(tree, &mut found);
        (fleet.map(|fleet| Self { fleet, groups, devices, rollouts, apps }), found)
    }
}

/// `apps/<app>/app.yaml`.
pub(crate) fn app_path(app: &AppName) -> String {
    format!("apps/{app}/app.yaml")
}

/// `groups/<group>.yaml`.
pub(crate) fn group_path(group: &GroupName) -> String {
    format!("groups/{group}.yaml")
}

/// `devices/<device>.yaml`.
pub(crate) fn device_path(device: &DeviceName) -> String {
    format!("devices/{device}.yaml")
}

/// `rollouts/<rollout>.yaml`.
pub(crate) fn rollout_path(rollout: &RolloutName) -> String {
    format!("rollouts/{rollout}.yaml")
}

/// Reads one app's `app.yaml`.
pub(crate) fn read_app(tree: &dyn Tree, app: &AppName) -> Result<(App, Vec<Finding>), Vec<Finding>> {
    read_file(tree, &app_path(app), App::parse)
}

/// An error at a place.
pub(crate) fn error(path: &str, place: Place, message: impl Into<String>) -> Finding {
    let (line, column) = (place.line, place.column);
    Finding { path: path.to_owned(), line, column, severity: Severity::Error, message: message.into(), hint: None }
}

/// An error because a file could not be read.
pub(crate) fn unreadable(path: &str, failed: &TreeError) -> Finding {
    let message = match failed {
        TreeError::Missing { .. } => "no such file in the repository, expected it".to_owned(),
        TreeError::TooLarge { size, limit, .. } => {
            format!("{size} bytes, the limit is {limit} (source.limits.blob_mib)")
        }
        TreeError::Read { source, .. } => format!("the file can't be read: {source}"),
    };
    error(path, Place::START, message)
}

type Parsed<T> = Result<(T, Vec<Finding>), Vec<Finding>>;

fn read_file<T>(tree: &dyn Tree, path: &str, parse: impl Fn(&str, &[u8]) -> Parsed<T>) -> Parsed<T> {
    let bytes = tree.read(path).map_err(|failed| vec![unreadable(path, &failed)])?;
    parse(path, &bytes)
}

fn keep<T>(found: &mut Vec<Finding>, parsed: Parsed<T>) -> Option<T> {
    match parsed {
        Ok((value, warnings)) => {
            found.extend(warnings);
            Some(value)
        }
        Err(errors) => {
            found.extend(errors);
            None
        }
    }
}

fn read_folder<N: FromStr + Ord, T>(
    tree: &dyn Tree,
    folder: &str,
    found: &mut Vec<Finding>,
    parse: impl Fn(&str, &[u8]) -> Parsed<T>,
) -> BTreeMap<N, T>
where
    N::Err: ToString,
{
    let mut read = BTreeMap::new();
    for path in below(tree, folder) {
        match name_of::<N>(path, folder) {
            Ok(Some(name)) => {
                if let Some(value) = keep(found, read_file(tree, path, &parse)) {
                    read.insert(name, value);
                }
            }
            Ok(None) => {}
            Err(wrong) => found.push(error(path, Place::START, wrong)),
        }
    }
    read
}

/// The paths of the files below a folder.
pub(crate) fn below<'t>(tree: &'t dyn Tree, folder: &str) -> impl Iterator<Item = &'t str> {
    let prefix = format!("{folder}/");
    let from = prefix.clone();
    tree.entries().range(from..).map(|(path, _)| path.as_str()).take_while(move |path| path.starts_with(&prefix))
}

/// The name that a file's path gives to its object; `None` for files that are no objects.
fn name_of<N: FromStr>(path: &str, folder: &str) -> Result<Option<N>, String>
where
    N::Err: ToString,
{
    if let Some(stem) = files::stem(path, folder) {
        return stem.parse().map(Some).map_err(|wrong: N::Err| wrong.to_string());
    }
    let file = path.rsplit('/').next().unwrap_or_default();
    if file.starts_with('.') || file.ends_with(".md") {
        return Ok(None);
    }
    Err(format!("not a file of format 1, expected `{folder}/<name>.yaml`"))
}

fn app_names(tree: &dyn Tree, found: &mut Vec<Finding>) -> BTreeSet<AppName> {
    let mut folders: BTreeMap<&str, bool> = BTreeMap::new();
    for path in below(tree, "apps") {
        let Some((folder, file)) = path["apps/".len()..].split_once('/') else {
            if let Err(wrong) = name_of::<AppName>(path, "apps") {
                found.push(error(path, Place::START, wrong.replace("<name>.yaml", "<app>/app.yaml")));
            }
            continue;
        };
        *folders.entry(folder).or_default() |= file == "app.yaml";
    }
    let mut names = BTreeSet::new();
    for (folder, whole) in folders {
        let path = format!("apps/{folder}/app.yaml");
        match folder.parse::<AppName>() {
            Err(wrong) => found.push(error(&path, Place::START, wrong.to_string())),
            Ok(_) if !whole => {
                found.push(error(&path, Place::START, "no such file, expected one in every folder of `apps/`"))
            }
            Ok(name) => {
                names.insert(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests;
