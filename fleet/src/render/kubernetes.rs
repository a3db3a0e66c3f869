//! `runtime: kubernetes`: the files below `kubernetes/`, variables put in where
//! the app asks for it. What the objects are is for the runtime.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::app::substituted;
use crate::desired::{Blobs, KubernetesSpec};
use crate::digest::Digest;
use crate::finding::Finding;
use crate::kubernetes::object::is_cluster_wide;
use crate::kubernetes::{Manifest, ObjectId, kustomization, manifest};
use crate::name::AppName;
use crate::repo::app::KubernetesApp;
use crate::repo::{app_path, below, error, unreadable};
use crate::tree::Tree;
use crate::vars::Scope;
use crate::yaml::{Place, well_formed};

/// The names that `kubectl kustomize` looks for.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

pub(super) fn render(
    tree: &dyn Tree,
    name: &AppName,
    app: &KubernetesApp,
    scope: &Scope,
) -> Result<(KubernetesSpec, Blobs, Vec<Finding>), Vec<Finding>> {
    let root = format!("apps/{name}/kubernetes");
    let kustomize = KUSTOMIZATIONS.iter().any(|file| tree.entries().contains_key(&format!("{root}/{file}")));
    let mut files = BTreeMap::new();
    let mut blobs = Blobs::new();
    let mut found = Vec::new();
    for path in below(tree, &root) {
        let manifest = is_manifest(path);
        if !manifest && !kustomize {
            continue;
        }
        match content(tree, path, manifest, app.substitute, scope) {
            Ok(bytes) => {
                let digest = Digest::of(&bytes);
                blobs.insert(digest, bytes.into());
                files.insert(path[root.len() + 1..].to_owned(), digest);
            }
            Err(wrong) => found.push(wrong),
        }
    }
    if files.is_empty() && found.is_empty() {
        let message =
            format!("there are no manifests below `{root}/`, expected at least one .yaml, .yml or .json file");
        found.push(error(&app_path(name), Place::START, message));
    }
    if !found.is_empty() {
        return Err(found);
    }
    let contents: Vec<(String, Arc<[u8]>)> = files
        .iter()
        .filter_map(|(path, digest)| Some((format!("{root}/{path}"), Arc::clone(blobs.get(digest)?))))
        .collect();
    let contents = || contents.iter().map(|(path, bytes)| (path.as_str(), &bytes[..]));
    let notes = if kustomize {
        found.extend(kustomization::check(contents()));
        Vec::new()
    } else {
        let manifests = manifest::read(contents())?;
        found.extend(twice(&manifests.objects, app.namespace.as_deref()));
        manifests.notes
    };
    if !found.is_empty() {
        return Err(found);
    }
    let spec = KubernetesSpec {
        namespace: app.namespace.clone(),
        create_namespace: app.create_namespace,
        adopt: app.adopt,
        replace: app.replace.clone(),
        kustomize,
        files,
    };
    Ok((spec, blobs, notes))
}

/// The objects of an app that can be known without a server or `kubectl`, by
/// what names them; none for a kustomization.
pub(super) fn objects(spec: &KubernetesSpec, blobs: &Blobs) -> Vec<String> {
    if spec.kustomize {
        return Vec::new();
    }
    let files = spec.files.iter().filter_map(|(path, digest)| Some((path.as_str(), &blobs.get(digest)?[..])));
    let manifests = manifest::read(files).map(|read| read.objects).unwrap_or_default();
    manifests.iter().map(|it| name_of(it, spec.namespace.as_deref())).collect()
}

fn name_of(manifest: &Manifest, namespace: Option<&str>) -> String {
    let namespace = manifest.namespace.as_deref().or(namespace).filter(|_| !is_cluster_wide(&manifest.kind));
    let id =
        ObjectId { kind: manifest.kind.clone(), namespace: namespace.map(str::to_owned), name: manifest.name.clone() };
    id.to_string()
}

/// Objects that an app has twice.
fn twice(manifests: &[Manifest], namespace: Option<&str>) -> Vec<Finding> {
    let mut seen: BTreeMap<String, &Manifest> = BTreeMap::new();
    let mut found = Vec::new();
    for manifest in manifests {
        let name = name_of(manifest, namespace);
        if let Some(first) = seen.insert(name.clone(), manifest) {
            let place = Place { line: manifest.line, column: 1 };
            let message = format!("{name} is in {}:{}, too, expected each object once", first.path, first.line);
            found.push(error(&manifest.path, place, message));
        }
    }
    found
}

/// Whether a file holds objects, by its name.
fn is_manifest(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    [".yaml", ".yml", ".json"].iter().any(|end| file.ends_with(end)) || file == "Kustomization"
}

fn content(tree: &dyn Tree, path: &str, manifest: bool, substitute: bool, scope: &Scope) -> Result<Vec<u8>, Finding> {
    let bytes = tree.read(path).map_err(|failed| unreadable(path, &failed))?;
    if !manifest {
        return Ok(bytes);
    }
    let bytes = if substitute { substituted(path, bytes, scope)? } else { bytes };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| error(path, Place::START, "not UTF-8, expected YAML or JSON"))?;
    well_formed(path, text)?;
    Ok(bytes)
}
