//! `runtime: kubernetes`: the files below `kubernetes/`, variables put in where
//! the app asks for it. What the objects are is for the runtime.

use std::collections::BTreeMap;

use super::app::substituted;
use crate::desired::{Blobs, KubernetesSpec};
use crate::digest::Digest;
use crate::finding::Finding;
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
) -> Result<(KubernetesSpec, Blobs), Vec<Finding>> {
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
    let spec = KubernetesSpec {
        namespace: app.namespace.clone(),
        create_namespace: app.create_namespace,
        adopt: app.adopt,
        replace: app.replace.clone(),
        kustomize,
        files,
    };
    Ok((spec, blobs))
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
