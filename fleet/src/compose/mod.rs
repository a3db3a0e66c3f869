//! The Compose specification, as far as a device can honour it.
//!
//! [`read`] turns an app's Compose files into a [`model::Project`] in which everything is resolved. The way there:
//! `load` finds the files and makes one tree of them (`yaml` parses, `interpolation` puts variables in, `dotenv` reads
//! them from files, `merge` merges), in which every `node` knows its place; `service` and `top` give the values types,
//! through `fields`, which refuses what nobody asked for; `check` looks at services beside each other. What a device
//! can't honour is refused by its key, never dropped. Nothing here knows an Engine.

mod attach;
mod check;
mod deploy;
mod dotenv;
mod fields;
mod files;
mod interpolation;
mod load;
mod merge;
pub mod model;
mod mounts;
mod node;
mod ports;
mod service;
#[cfg(test)]
mod tests;
mod top;
mod values;
mod variables;
mod yaml;

use crate::compose::check::profiles;
use crate::compose::fields::Fields;
use crate::compose::files::Files;
use crate::compose::load::{Loader, active};
use crate::compose::model::Project;
use crate::compose::node::Findings;
use crate::compose::service::service;
use crate::compose::top::{is_key, top};
use crate::desired::Blobs;
use crate::finding::Finding;
use crate::name::AppName;
use crate::tree::Tree;
use crate::vars::Scope;

/// What is read: one app's Compose files.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The repository's files.
    pub tree: &'a dyn Tree,
    /// The app; its name is the project's, unless the file says `name:`.
    pub app: &'a AppName,
    /// The app's folder, `apps/<app>`.
    pub folder: &'a str,
    /// Variables of the fleet, the app, the groups and the device; `.env` goes under them.
    pub scope: &'a Scope,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// The project, everything resolved.
    pub project: Project,
    /// Contents of the files that services mount, and of configs and secrets.
    pub blobs: Blobs,
    /// Warnings: what is ignored because it does no harm.
    pub notes: Vec<Finding>,
}

/// Reads one app's Compose files to a project.
///
/// # Errors
/// Everything that is wrong in the files, each with its place.
pub fn read(request: Request<'_>) -> Result<Read, Vec<Finding>> {
    let findings = Findings::default();
    let files = Files::new(request.tree, &findings);
    let project = project(request, &files, &findings);
    let blobs = files.into_blobs();
    let (errors, notes) = findings.split();
    match project {
        Some(project) if errors.is_empty() => Ok(Read { project, blobs, notes }),
        _ => Err(errors),
    }
}

/// The project, or none where so much is wrong that there is none; what is wrong is among the findings.
fn project(request: Request<'_>, files: &Files<'_>, findings: &Findings) -> Option<Project> {
    // A project's name begins with a letter or a digit, an app's need not.
    let fallback = request.app.as_str().trim_start_matches('-');
    let fallback = if fallback.is_empty() { "app" } else { fallback };
    let loaded = Loader::new(request.folder, files, findings).load(request.scope, fallback)?;
    let name = match &loaded.name {
        None => fallback.to_owned(),
        Some(node) => {
            let name = node.scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
            let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
            if !name.bytes().all(allowed) || name.starts_with(['-', '_']) {
                let expected = "expected lower-case letters, digits, '-' and '_', the first a letter or a digit";
                findings.error(&node.at, format!("name: {name:?} is not a project's name: {expected}"));
            }
            name
        }
    };
    if let Some(node) = loaded.root.get("name").filter(|node| node.scalar().is_none()) {
        findings.error(&node.at, format!("name: expected a single value, found {}", node.kind()));
    }
    let top = top(&loaded.root, &name, files, findings);
    let Some(section) = loaded.root.get("services") else {
        findings.error(&loaded.root.at, "services: is missing: expected at least one service");
        return None;
    };
    let mut services = Vec::new();
    for entry in Fields::of("services", section, findings)?.rest() {
        if !is_key(&entry.key) {
            let message =
                format!("services: {:?} is not a name: expected letters, digits, '.', '_' and '-'", entry.key);
            findings.error(&entry.at, message);
        }
        let read = service(entry, &top);
        if let Some(read) = &read {
            profiles(read, findings);
        }
        services.extend(read);
    }
    if section.entries().is_empty() {
        findings.error(&section.at, "services: expected at least one service");
    }
    Some(check::project(name, services, &active(&loaded.scope), &top))
}
