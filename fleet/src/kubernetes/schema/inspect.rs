//! The objects of one app against what their kinds may hold.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use super::fields::{Reader, Wrong};
use super::{Definitions, Schemas, Type};
use crate::finding::{Finding, Severity};
use crate::kubernetes::manifest::{documents, each};
use crate::kubernetes::names::{is_built_in, wrong_subdomain};
use crate::kubernetes::place::{Path, Places};
use crate::kubernetes::{Kind, Manifest};
use crate::repo::error;
use crate::yaml::{Place, did_you_mean};

/// What an object can be judged by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) schemas: &'a Schemas,
    pub(crate) definitions: &'a Definitions,
}

/// Everything that is wrong in the objects of these files. What can't be read
/// at all is not said again: whoever renders them has.
pub(crate) fn inspect(known: Known<'_>, files: &[(&str, &[u8])]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut unknown = BTreeSet::new();
    for (path, bytes) in files {
        let mut judged = Vec::new();
        let read = each([(*path, *bytes)], |manifest, within| {
            let wrong = known.object(&manifest, &mut unknown);
            if !wrong.is_empty() {
                judged.push((manifest, within.to_vec(), wrong));
            }
        });
        if read.is_ok() && !judged.is_empty() {
            let text = std::str::from_utf8(bytes).unwrap_or_default();
            found.extend(placed(path, text, judged));
        }
    }
    found
}

type Judged = (Manifest, Vec<usize>, Vec<Judgement>);

struct Judgement {
    severity: Severity,
    wrong: Wrong,
}

impl From<Wrong> for Judgement {
    fn from(wrong: Wrong) -> Self {
        Self { severity: Severity::Error, wrong }
    }
}

/// Finds the lines: the documents that something is wrong in are read once more.
fn placed(path: &str, text: &str, judged: Vec<Judged>) -> Vec<Finding> {
    let documents: HashMap<u32, &str> = documents(text).into_iter().collect();
    let mut places: HashMap<u32, Places> = HashMap::new();
    let mut found = Vec::new();
    for (manifest, within, wrong) in judged {
        let first = manifest.line;
        // Of JSON values behind each other only the first is found so.
        let document = documents.get(&first);
        let places = document.map(|document| places.entry(first).or_insert_with(|| Places::of(document, first)));
        let mut prefix = Path::default();
        for at in within {
            prefix.key("items");
            prefix.item(at);
        }
        for Judgement { severity, wrong } in wrong {
            let inside = match (prefix.as_str(), wrong.path.as_str()) {
                ("", path) => path.to_owned(),
                (prefix, path) if path.is_empty() || path.starts_with('[') => format!("{prefix}{path}"),
                (prefix, path) => format!("{prefix}.{path}"),
            };
            let place = places.as_ref().map_or(Place { line: first, column: 1 }, |places| {
                if wrong.key { places.key(&inside) } else { places.value(&inside) }
            });
            let message = format!("{} {}: {}", manifest.kind.kind, manifest.name, wrong.message);
            found.push(Finding { severity, hint: wrong.hint, ..error(path, place, message) });
        }
    }
    found
}

impl Known<'_> {
    fn object(self, manifest: &Manifest, unknown: &mut BTreeSet<Kind>) -> Vec<Judgement> {
        if let Some(definition) = self.definitions.get(&manifest.kind) {
            let version = manifest.api_version.rsplit('/').next().unwrap_or_default();
            let Some(schema) = definition.versions.get(version) else {
                let versions: Vec<_> = definition.versions.keys().map(String::as_str).collect();
                let wanted = format!("{}/{}", manifest.kind.group, versions.join(" or "));
                let message = format!("`{}` is not served by its definition, expected {wanted}", manifest.api_version);
                return vec![said("apiVersion", message, None)];
            };
            let mut wrong = self.scope(manifest, definition.namespaced);
            if let Some(wanted) = wrong_subdomain(&manifest.name) {
                let message = format!("`{}` is no name of an object, expected {wanted}", manifest.name);
                wrong.push(said("metadata.name", message, None));
            }
            if let Some(schema) = schema {
                wrong.extend(self.fields(&manifest.object, schema));
            }
            return wrong;
        }
        if let Some(kind) = self.schemas.kind(&manifest.api_version, &manifest.kind.kind) {
            let mut wrong = self.scope(manifest, kind.namespaced);
            wrong.extend(self.fields(&manifest.object, &Type::Named(kind.name.clone())));
            return wrong;
        }
        if is_built_in(&manifest.kind.group) {
            return vec![self.no_such_kind(manifest)];
        }
        if !unknown.insert(manifest.kind.clone()) {
            return Vec::new();
        }
        let message = format!(
            "no CustomResourceDefinition in the repository has `{}`: its fields are not checked",
            manifest.kind
        );
        let Judgement { wrong, .. } = said("kind", message, None);
        vec![Judgement { severity: Severity::Warning, wrong }]
    }

    fn no_such_kind(self, manifest: &Manifest) -> Judgement {
        let (api, kind) = (&manifest.api_version, &manifest.kind.kind);
        let message = format!("Kubernetes {} has no `{kind}` in `{api}`", self.schemas.version());
        match self.schemas.versions_of(kind).first() {
            Some(now) => said("apiVersion", message, Some(format!("it is `apiVersion: {now}` there"))),
            None => said("kind", message, did_you_mean(kind, &self.schemas.kinds_of(api))),
        }
    }

    fn scope(self, manifest: &Manifest, namespaced: bool) -> Vec<Judgement> {
        if namespaced || manifest.namespace.is_none() {
            return Vec::new();
        }
        // As kubectl has it: passed by, so that public manifests apply as they are.
        let message = "its kind lies in no namespace, the one that it names counts for nothing".to_owned();
        let Judgement { wrong, .. } =
            said("metadata.namespace", message, Some("take `metadata.namespace` out".to_owned()));
        vec![Judgement { severity: Severity::Warning, wrong }]
    }

    fn fields(self, object: &Value, wanted: &Type) -> Vec<Judgement> {
        Reader::read(self.schemas, object, wanted).into_iter().map(Judgement::from).collect()
    }
}

fn said(path: &str, message: String, hint: Option<String>) -> Judgement {
    Wrong { path: path.to_owned(), key: false, message, hint }.into()
}

#[cfg(test)]
mod tests;
