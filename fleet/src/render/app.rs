//! One app for one device: its variables, its spec by runtime, its digest.

use std::collections::BTreeMap;

use super::memo::Memo;
use super::{files, kubernetes, no_digest};
use crate::compose;
use crate::desired::{AppSpec, Blobs, DesiredApp};
use crate::digest::Digest;
use crate::finding::Finding;
use crate::name::AppName;
use crate::repo::app::{App, Runtime};
use crate::repo::assign::Assignment;
use crate::repo::{Repo, error};
use crate::revision::CommitId;
use crate::tree::Tree;
use crate::vars::{Scope, interpolate};
use crate::yaml::Place;

/// Renders apps of one commit.
#[derive(Clone)]
pub(crate) struct Renderer<'a> {
    pub(crate) tree: &'a dyn Tree,
    pub(crate) repo: &'a Repo,
    pub(crate) commit: &'a CommitId,
    /// For `burgee check` alone: variables that some layer could define.
    pub(crate) possible: BTreeMap<String, String>,
    /// For callers that render for many devices.
    pub(crate) memo: Option<Memo>,
}

/// One app, rendered.
#[derive(Clone, Debug)]
pub(crate) struct RenderedApp {
    pub(crate) app: DesiredApp,
    pub(crate) blobs: Blobs,
    pub(crate) notes: Vec<Finding>,
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(tree: &'a dyn Tree, repo: &'a Repo, commit: &'a CommitId) -> Self {
        Self { tree, repo, commit, possible: BTreeMap::new(), memo: None }
    }

    /// One app as one device gets it.
    pub(crate) fn app(&self, name: &AppName, app: &App, device: &Assignment<'_>) -> Result<RenderedApp, Vec<Finding>> {
        let scope = device.scope(name, app, self.commit);
        match &self.memo {
            Some(memo) => memo.get(self.tree, name, &scope, || self.app_with(name, app, &scope)),
            None => self.app_with(name, app, &scope),
        }
    }

    /// One app with these variables.
    fn app_with(&self, name: &AppName, app: &App, scope: &Scope) -> Result<RenderedApp, Vec<Finding>> {
        let scope = scope.clone().with_possible(self.possible.clone());
        let folder = format!("apps/{name}");
        let (spec, blobs, notes) = match &app.runtime {
            Runtime::Compose => {
                let request = compose::Request { tree: self.tree, app: name, folder: &folder, scope: &scope };
                let read = compose::read(request)?;
                (AppSpec::Compose(Box::new(read.project)), read.blobs, read.notes)
            }
            Runtime::Files(files) => {
                let (spec, blobs) = files::render(self.tree, name, files, &scope)?;
                (AppSpec::Files(spec), blobs, Vec::new())
            }
            Runtime::Kubernetes(app) => {
                let (spec, blobs, notes) = kubernetes::render(self.tree, name, app, &scope)?;
                (AppSpec::Kubernetes(spec), blobs, notes)
            }
        };
        let mut depends_on: Vec<_> = app.depends_on.iter().map(|dependency| dependency.value.clone()).collect();
        depends_on.sort();
        // The spec names every content by its digest, so contents count, too.
        let whole = (name, &depends_on, &spec, &app.health, &app.drift, &app.prune, app.on_failure);
        let digest = Digest::of_json(&whole).map_err(|failed| vec![no_digest(&failed)])?;
        let app = DesiredApp {
            name: name.clone(),
            depends_on,
            spec,
            health: app.health.clone(),
            drift: app.drift.clone(),
            prune: app.prune.clone(),
            on_failure: app.on_failure,
            digest,
        };
        Ok(RenderedApp { app, blobs, notes })
    }
}

/// A file's bytes with variables put in.
pub(super) fn substituted(path: &str, bytes: Vec<u8>, scope: &Scope) -> Result<Vec<u8>, Finding> {
    let text = String::from_utf8(bytes)
        .map_err(|_| error(path, Place::START, "not UTF-8, expected text: this file gets variables"))?;
    match interpolate(&text, scope) {
        Ok(filled) => Ok(filled.into_bytes()),
        Err(wrong) => Err(error(path, Place::of_offset(&text, wrong.offset), wrong.message)),
    }
}
