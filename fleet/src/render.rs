//! A verified commit and a device → the desired state of that device.
//!
//! The same function on the device, on the hub and on a laptop. Only the apps
//! that the device gets are rendered. Nothing is asked of the device here:
//! whether it has the runtime, or may write a path, is for its agent.

mod app;
mod files;
mod kubernetes;
mod memo;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use self::app::{RenderedApp, Renderer};
pub(crate) use self::memo::Memo;
use crate::desired::{AppSpec, Blobs, DesiredApp, DesiredState};
use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::name::{AppName, DeviceName};
use crate::repo::app::App;
use crate::repo::assign::Assignment;
use crate::repo::value::Labels;
use crate::repo::{Repo, Whose, app_path, error, read_app, references};
use crate::revision::CommitId;
use crate::tree::Tree;
use crate::yaml::Place;

/// The device, as it knows itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// Its name.
    pub name: DeviceName,
    /// Its labels in `agent.toml`; those of `devices/<device>.yaml` go before them.
    pub labels: Labels,
}

/// What a commit is for one device.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// What it is to run.
    pub state: DesiredState,
    /// The contents that the state names by digest.
    pub blobs: Blobs,
    /// Warnings.
    pub notes: Vec<Finding>,
}

/// Renders the desired state of one device.
///
/// # Errors
/// Everything that is wrong in the files that concern the device.
pub fn render(tree: &dyn Tree, device: &DeviceFacts, commit: &CommitId) -> Result<Rendered, Vec<Finding>> {
    let (repo, mut notes) = Repo::read(tree, Whose::Device(&device.name));
    let Some(repo) = repo else { return Err(notes) };
    notes.extend(references::rollout_groups(&repo));
    refuse(&mut notes)?;
    let renderer = Renderer::new(tree, &repo, commit);
    let rendered = render_with(&renderer, device, &mut BTreeMap::new())?;
    notes.extend(rendered.notes);
    tidy(&mut notes);
    Ok(Rendered { notes, ..rendered })
}

/// Apps that were read already, by name.
pub(crate) type AppCache = BTreeMap<AppName, Result<(App, Vec<Finding>), Vec<Finding>>>;

/// The rest of [`render`], for callers that render for many devices.
pub(crate) fn render_with(
    renderer: &Renderer<'_>,
    device: &DeviceFacts,
    cache: &mut AppCache,
) -> Result<Rendered, Vec<Finding>> {
    let repo = renderer.repo;
    let assignment = Assignment::new(repo, &device.name, &device.labels);
    let mut notes = assignment.problems();
    let mut apps = BTreeMap::new();
    for name in assignment.apps.keys().copied().filter(|name| repo.apps.contains(*name)) {
        match cache.entry(name.clone()).or_insert_with(|| read_app(renderer.tree, name)) {
            Ok((app, warnings)) => {
                notes.extend(warnings.iter().cloned());
                apps.insert(name.clone(), app.clone());
            }
            Err(errors) => notes.extend(errors.iter().cloned()),
        }
    }
    refuse(&mut notes)?;
    notes.extend(references::dependencies(&repo.apps, &apps));
    notes.extend(missing_dependencies(&assignment, &apps));
    refuse(&mut notes)?;

    let mut rendered = Vec::new();
    let mut blobs = Blobs::new();
    for name in order(&apps) {
        let Some(app) = apps.get(&name) else { continue };
        match renderer.app(&name, app, &assignment) {
            Ok(RenderedApp { app, blobs: contents, notes: said }) => {
                rendered.push(app);
                blobs.extend(contents);
                notes.extend(said);
            }
            Err(errors) => notes.extend(errors),
        }
    }
    notes.extend(collisions(&rendered, &blobs));
    refuse(&mut notes)?;

    let digests: Vec<_> = rendered.iter().map(|app| app.digest).collect();
    let digest = Digest::of_json(&digests).map_err(|failed| vec![no_digest(&failed)])?;
    let state = DesiredState {
        fleet: repo.fleet.name.clone(),
        device: device.name.clone(),
        groups: assignment.groups.iter().map(|name| (*name).clone()).collect(),
        apps: rendered,
        windows: assignment.windows(),
        has_rollout: assignment.rollouts().next().is_some(),
        digest,
    };
    tidy(&mut notes);
    Ok(Rendered { state, blobs, notes })
}

/// Ends with everything that was found as soon as one of it is an error.
fn refuse(found: &mut Vec<Finding>) -> Result<(), Vec<Finding>> {
    if found.iter().all(|found| found.severity == Severity::Warning) {
        return Ok(());
    }
    let mut found = std::mem::take(found);
    tidy(&mut found);
    Err(found)
}

/// In the order of places, each once.
pub(crate) fn tidy(found: &mut Vec<Finding>) {
    found.sort_by(|a, b| {
        (&a.path, a.line, a.column, a.severity, &a.message).cmp(&(&b.path, b.line, b.column, b.severity, &b.message))
    });
    found.dedup();
}

pub(crate) fn no_digest(failed: &serde_json::Error) -> Finding {
    error(crate::repo::FLEET_FILE, Place::START, format!("the state has no digest: {failed}"))
}

/// Dependencies that the device does not get.
pub(crate) fn missing_dependencies(assignment: &Assignment<'_>, apps: &BTreeMap<AppName, App>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in apps {
        for dependency in app.depends_on.iter().filter(|dependency| !assignment.apps.contains_key(&dependency.value)) {
            let given = assignment.apps.get(name).map_or("", |(path, _)| path.as_str());
            found.push(Finding {
                hint: Some(format!("add `{}` to the `apps` of {given}", dependency.value)),
                ..error(
                    &app_path(name),
                    dependency.place,
                    format!(
                        "`{name}` depends on `{}`, which the device `{}` does not get, expected both",
                        dependency.value, assignment.device
                    ),
                )
            });
        }
    }
    found
}

/// The apps, dependencies first; of those that could be next, the first by
/// name. What depends on a circle is left out: that is an error before.
fn order(apps: &BTreeMap<AppName, App>) -> Vec<AppName> {
    let mut done: BTreeSet<&AppName> = BTreeSet::new();
    let mut ordered = Vec::new();
    while let Some((name, _)) = apps
        .iter()
        .find(|(name, app)| !done.contains(name) && app.depends_on.iter().all(|before| done.contains(&before.value)))
    {
        done.insert(name);
        ordered.push(name.clone());
    }
    ordered
}

/// Two apps of one device that would deliver the same file, be the same
/// project, or have the same object.
pub(crate) fn collisions(apps: &[DesiredApp], blobs: &Blobs) -> Vec<Finding> {
    let mut taken: BTreeMap<(&str, String), &AppName> = BTreeMap::new();
    let mut found = Vec::new();
    for app in apps {
        let claims: Vec<(&str, String)> = match &app.spec {
            AppSpec::Compose(project) => vec![("the project", project.name.clone())],
            AppSpec::Files(files) => files.files.keys().map(|path| ("the file", path.clone())).collect(),
            AppSpec::Kubernetes(spec) => {
                kubernetes::objects(spec, blobs).into_iter().map(|name| ("the object", name)).collect()
            }
        };
        for claim in claims {
            if let Some(other) = taken.insert(claim.clone(), &app.name) {
                let message =
                    format!("{} `{}` belongs to the app `{other}`, too, expected one app for it", claim.0, claim.1);
                found.push(error(&app_path(&app.name), Place::START, message));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
