//! The Kubernetes objects of a repository's apps, for `burgee check`.

use std::collections::{BTreeMap, BTreeSet};

use super::app::{App, Runtime};
use super::below;
use crate::desired::AppSpec;
use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::kubernetes::schema::inspect::{Known, inspect};
use crate::kubernetes::schema::{Definitions, collect};
use crate::kubernetes::{kustomization, manifest};
use crate::name::AppName;
use crate::render::RenderedApp;
use crate::tree::Tree;

/// The definitions that the repository has in any app, variables left as they
/// are. A file that can't be read is found when it is rendered.
pub(super) fn definitions(tree: &dyn Tree, apps: &BTreeMap<AppName, App>) -> Definitions {
    let mut definitions = Definitions::new();
    for (name, _) in apps.iter().filter(|(_, app)| matches!(app.runtime, Runtime::Kubernetes(_))) {
        for path in below(tree, &format!("apps/{name}/kubernetes")) {
            let Ok(bytes) = tree.read(path) else { continue };
            // To read all files as objects twice would take long for nothing.
            if !bytes.windows(DEFINITION.len()).any(|part| part == DEFINITION) {
                continue;
            }
            if let Ok(read) = manifest::read([(path, &bytes[..])]) {
                collect(&read.objects, &mut definitions);
            }
        }
    }
    definitions
}

const DEFINITION: &[u8] = b"CustomResourceDefinition";

/// Looks through apps, each form of one once.
pub(super) struct Inspector<'a> {
    known: Known<'a>,
    done: BTreeSet<(AppName, Digest)>,
}

impl<'a> Inspector<'a> {
    pub(super) fn new(known: Known<'a>) -> Self {
        Self { known, done: BTreeSet::new() }
    }

    /// What is wrong in the objects of an app.
    pub(super) fn app(&mut self, rendered: &RenderedApp) -> Vec<Finding> {
        let app = &rendered.app;
        let AppSpec::Kubernetes(spec) = &app.spec else { return Vec::new() };
        if !self.done.insert((app.name.clone(), app.digest)) {
            return Vec::new();
        }
        let root = format!("apps/{}/kubernetes", app.name);
        let content = |digest: &Digest| rendered.blobs.get(digest).map(|bytes| &bytes[..]);
        let named: Vec<(String, &[u8])> =
            spec.files.iter().filter_map(|(path, digest)| Some((format!("{root}/{path}"), content(digest)?))).collect();
        let mut files: Vec<(&str, &[u8])> = named.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
        if !spec.kustomize {
            return inspect(self.known, &files);
        }
        let kustomization = kustomization::read(&root, files.iter().copied());
        files.retain(|(path, _)| kustomization.resources.contains(*path));
        let mut found = inspect(self.known, &files);
        if !kustomization.keeps_fields {
            // A patch may put in what is missing here.
            found.iter_mut().for_each(|finding| finding.severity = Severity::Warning);
        }
        found
    }
}
