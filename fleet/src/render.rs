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
            Ok(mut app) => {
                blobs.extend(std::mem::take(&mut app.blobs));
                notes.append(&mut app.notes);
                rendered.push(app);
            }
            Err(errors) => notes.extend(errors),
        }
    }
    notes.extend(collisions(&rendered));
    refuse(&mut notes)?;
    let rendered: Vec<DesiredApp> = rendered.into_iter().map(|rendered| rendered.app).collect();

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
/// project, or have the same object. A namespace that several ask to be made is
/// made once, and none of theirs alone.
pub(crate) fn collisions(apps: &[RenderedApp]) -> Vec<Finding> {
    let mut taken: BTreeMap<(&str, String), (&AppName, bool)> = BTreeMap::new();
    let mut found = Vec::new();
    for RenderedApp { app, objects, .. } in apps {
        let claims: Vec<(&str, String)> = match &app.spec {
            AppSpec::Compose(project) => vec![("the project", project.name.clone())],
            AppSpec::Files(files) => files.files.keys().map(|path| ("the file", path.clone())).collect(),
            AppSpec::Kubernetes(_) => objects.iter().map(|id| ("the object", id.to_string())).collect(),
        };
        let implied = implied_namespace(app).filter(|name| claims.iter().all(|(_, claimed)| claimed != name));
        let implied = implied.map(|name| ("the object", name, true));
        for (what, name, shared) in claims.into_iter().map(|(what, name)| (what, name, false)).chain(implied) {
            let message = |other| format!("{what} `{name}` belongs to the app `{other}`, too, expected one app for it");
            let hint = "drop `createNamespace`, and name the app that has the namespace in `dependsOn`";
            match taken.get(&(what, name.clone())) {
                Some((_, true)) if shared => {}
                Some((other, theirs)) => found.push(Finding {
                    hint: (shared || *theirs).then(|| hint.to_owned()),
                    ..error(&app_path(&app.name), Place::START, message(other))
                }),
                None => drop(taken.insert((what, name), (&app.name, shared))),
            }
        }
    }
    found
}

/// The namespace that an app's settings ask for, by the name of the object.
fn implied_namespace(app: &DesiredApp) -> Option<String> {
    let AppSpec::Kubernetes(spec) = &app.spec else { return None };
    spec.namespace.as_ref().filter(|_| spec.create_namespace).map(|name| format!("Namespace/{name}"))
}

#[cfg(test)]
mod tests;
