//! `burgee check`: everything that can be wrong in a repository, found without
//! a device.
//!
//! Every file is read; every app is rendered for every device file and every
//! label combination that the groups name. A variable that is undefined there
//! is an error, unless some layer could define it.

use std::collections::{BTreeMap, BTreeSet};

use super::app::{App, Runtime};
use super::assign::Assignment;
use super::targets::{Targets, targets};
use super::value::label_variable;
use super::{Repo, Whose, app_path, below, error, read_app, references};
use crate::desired::Blobs;
use crate::finding::{Finding, Severity};
use crate::name::{AppName, DeviceName, GroupName};
use crate::render::{Memo, RenderedApp, Renderer, collisions, missing_dependencies, tidy};
use crate::revision::CommitId;
use crate::tree::Tree;
use crate::vars::names;
use crate::yaml::Place;

/// Checks a whole repository; an empty answer is a good one. In order of path and place.
#[must_use]
pub fn check(tree: &dyn Tree) -> Vec<Finding> {
    let (repo, mut found) = Repo::read(tree, Whose::Everyone);
    found.extend(crate::trust::check(tree));
    let mut apps = BTreeMap::new();
    if let Some(repo) = &repo {
        for name in &repo.apps {
            match read_app(tree, name) {
                Ok((app, warnings)) => {
                    found.extend(warnings);
                    apps.insert(name.clone(), app);
                }
                Err(errors) => found.extend(errors),
            }
        }
        found.extend(references::unknown_names(repo));
        found.extend(references::dependencies(&repo.apps, &apps));
        found.extend(ambiguous_groups(repo));
        found.extend(revision_uses(tree, &apps));
        found.extend(rendered(tree, repo, &apps));
    }
    tidy(&mut found);
    found
}

fn ambiguous_groups(repo: &Repo) -> Vec<Finding> {
    let groups: Vec<&GroupName> = repo.groups.keys().collect();
    references::ambiguities(repo, &groups, |a, b| match (repo.groups.get(a), repo.groups.get(b)) {
        (Some(a), Some(b)) => a.selector.and(&b.selector).example().is_some(),
        _ => false,
    })
}

/// Renders every app for every target, and finds what is wrong then.
fn rendered(tree: &dyn Tree, repo: &Repo, apps: &BTreeMap<AppName, App>) -> Vec<Finding> {
    let mut found = Vec::new();
    let Ok(commit) = "0".repeat(40).parse::<CommitId>() else { return found };
    let mut renderer = Renderer::new(tree, repo, &commit);
    renderer.possible = possible(tree, repo, apps);
    renderer.memo = Some(Memo::default());
    let Targets { targets, bounded, stand_in } = targets(&[repo]);
    if bounded {
        found.push(Finding {
            severity: Severity::Warning,
            ..error(
                super::FLEET_FILE,
                Place::START,
                "the groups name too many label combinations to check all; each group, each pair of groups and each device file was checked",
            )
        });
    }
    let mut said: BTreeSet<Finding> = BTreeSet::new();
    let mut given: BTreeSet<&AppName> = BTreeSet::new();
    let mut dependencies: BTreeMap<(&AppName, &AppName), Dependency> = BTreeMap::new();
    for target in &targets {
        let device: &DeviceName = target.device.as_ref().unwrap_or(&stand_in);
        let assignment = Assignment::new(repo, device, &target.labels);
        // Ambiguity is judged by the selectors, for devices that no file names, too.
        let exact = target.device.is_some() && target.labels.is_empty();
        if exact {
            found.extend(assignment.problems());
        }
        let (mut together, mut blobs) = (Vec::new(), Blobs::new());
        for name in assignment.apps.keys() {
            let Some((name, app)) = apps.get_key_value(*name) else { continue };
            for before in &app.depends_on {
                let both = assignment.apps.contains_key(&before.value);
                let missing = (!both).then(|| missing_dependencies(&assignment, &only(name, app)));
                dependencies.entry((name, &before.value)).or_default().count(missing);
            }
            match renderer.app(name, app, &assignment) {
                Ok(rendered) => {
                    said.extend(rendered.notes);
                    together.push(rendered.app);
                    blobs.extend(rendered.blobs);
                }
                Err(errors) => said.extend(errors),
            }
            given.insert(name);
        }
        said.extend(collisions(&together, &blobs));
    }
    found.extend(said);
    for ((_, before), dependency) in dependencies {
        if repo.apps.contains(before) {
            found.extend(dependency.finding(before));
        }
    }
    for (name, app) in apps {
        if given.contains(name) {
            continue;
        }
        let nobody = Assignment::new(repo, &stand_in, &BTreeMap::new());
        found.extend(outcome(renderer.app(name, app, &nobody)));
        found.push(Finding {
            severity: Severity::Warning,
            hint: Some(format!("add `{name}` to the `apps` of a group or a device")),
            ..error(&app_path(name), Place::START, format!("no device gets the app `{name}`"))
        });
    }
    found
}

fn only(name: &AppName, app: &App) -> BTreeMap<AppName, App> {
    BTreeMap::from([(name.clone(), app.clone())])
}

fn outcome(rendered: Result<RenderedApp, Vec<Finding>>) -> Vec<Finding> {
    rendered.map_or_else(|errors| errors, |rendered| rendered.notes)
}

/// How often a dependency comes with the app that needs it.
#[derive(Default)]
struct Dependency {
    met: bool,
    missing: Vec<Finding>,
}

impl Dependency {
    fn count(&mut self, missing: Option<Vec<Finding>>) {
        match missing {
            None => self.met = true,
            Some(found) if self.missing.is_empty() => self.missing = found,
            Some(_) => {}
        }
    }

    /// An error where no device gets both. A warning where some do: a combination of labels may be one that no
    /// device has.
    fn finding(self, before: &AppName) -> impl Iterator<Item = Finding> {
        let severity = if self.met { Severity::Warning } else { Severity::Error };
        let mark = format!("depends on `{before}`");
        self.missing
            .into_iter()
            .filter(move |finding| finding.message.contains(&mark))
            .map(move |finding| Finding { severity, ..finding })
    }
}

/// Variables that a layer other than an app's own could define, each with a value that it would have.
fn possible(tree: &dyn Tree, repo: &Repo, apps: &BTreeMap<AppName, App>) -> BTreeMap<String, String> {
    let mut possible = BTreeMap::new();
    let groups = repo.groups.values().map(|group| &group.vars);
    for vars in groups.chain(repo.devices.values().map(|device| &device.vars)) {
        for (name, value) in vars {
            possible.entry(name.value.clone()).or_insert_with(|| value.value.clone());
        }
    }
    for (label, value) in repo.devices.values().flat_map(|device| &device.labels) {
        possible.entry(label_variable(label)).or_insert_with(|| value.clone());
    }
    for (label, values) in repo.groups.values().flat_map(|group| group.selector.names().collect::<Vec<_>>()) {
        let sample = values.into_iter().next().unwrap_or_else(|| "any".to_owned());
        possible.entry(label_variable(label)).or_insert(sample);
    }
    // Any other label may stand in some device's agent.toml.
    for (name, app) in apps {
        for (_, text) in texts(tree, name, app) {
            for (_, variable) in names(&text).into_iter().filter(|(_, name)| name.starts_with("BURGEE_LABEL_")) {
                possible.entry(variable).or_insert_with(|| "any".to_owned());
            }
        }
    }
    possible
}

/// The files of an app that get variables; those that can't be read are found elsewhere.
fn texts(tree: &dyn Tree, name: &AppName, app: &App) -> Vec<(String, String)> {
    let root = format!("apps/{name}");
    let wanted = |path: &str| {
        let yaml = [".yaml", ".yml", ".json"].iter().any(|end| path.ends_with(end));
        match &app.runtime {
            Runtime::Compose => yaml && !path.ends_with("/app.yaml") || path.ends_with(".env"),
            Runtime::Kubernetes(app) => app.substitute && yaml && path[root.len()..].starts_with("/kubernetes/"),
            Runtime::Files(app) => path[root.len()..].strip_prefix("/files/").is_some_and(|inner| {
                app.templates.iter().any(|template| {
                    inner == template.value || template.value.ends_with('/') && inner.starts_with(&template.value)
                })
            }),
        }
    };
    below(tree, &root)
        .filter(|path| wanted(path))
        .filter_map(|path| Some((path.to_owned(), String::from_utf8(tree.read(path).ok()?).ok()?)))
        .collect()
}

/// `BURGEE_REVISION` changes with every commit, so what uses it restarts with every commit.
fn revision_uses(tree: &dyn Tree, apps: &BTreeMap<AppName, App>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, app) in apps {
        for (path, text) in texts(tree, name, app) {
            let uses = uncommented(&text);
            for (offset, _) in names(&uses).into_iter().filter(|(_, variable)| variable == "BURGEE_REVISION") {
                found.push(Finding {
                    severity: Severity::Warning,
                    ..error(
                        &path,
                        Place::of_offset(&text, offset),
                        format!("`BURGEE_REVISION` changes with every commit, so what uses it in `{name}` restarts with every commit"),
                    )
                });
            }
        }
    }
    found
}

/// The text with whole-line comments blanked, so that offsets stay.
fn uncommented(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| {
            if line.trim_start().starts_with('#') {
                let end = if line.ends_with('\n') { "\n" } else { "" };
                format!("{}{end}", " ".repeat(line.len() - end.len()))
            } else {
                line.to_owned()
            }
        })
        .collect()
}
