//! `runtime: kubernetes`: the files below `kubernetes/`, variables put in where
//! the app asks for it, and which objects they hold. What a server makes of
//! them is for the runtime.

use std::collections::BTreeMap;

use super::app::substituted;
use crate::desired::{Blobs, KubernetesSpec};
use crate::digest::Digest;
use crate::finding::Finding;
use crate::kubernetes::{Manifest, ObjectId, kustomization, manifest};
use crate::name::AppName;
use crate::repo::app::KubernetesApp;
use crate::repo::{app_path, below, error, unreadable};
use crate::tree::Tree;
use crate::vars::Scope;
use crate::yaml::{Place, well_formed};

/// An app's files, and what can be said of its objects without a server.
pub(super) struct Rendered {
    pub(super) spec: KubernetesSpec,
    pub(super) blobs: Blobs,
    pub(super) objects: Vec<ObjectId>,
    pub(super) notes: Vec<Finding>,
}

pub(super) fn render(
    tree: &dyn Tree,
    name: &AppName,
    app: &KubernetesApp,
    scope: &Scope,
) -> Result<Rendered, Vec<Finding>> {
    let root = format!("apps/{name}/kubernetes");
    let kustomize = kustomization::NAMES.iter().any(|file| tree.entries().contains_key(&format!("{root}/{file}")));
    let mut files = BTreeMap::new();
    let mut blobs = Blobs::new();
    let mut found = Vec::new();
    for path in below(tree, &root) {
        let manifest = is_manifest(path);
        if !manifest && !kustomize {
            continue;
        }
        match content(tree, path, manifest, app.substitute, kustomize, scope) {
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
    let (objects, notes) = objects(&root, kustomize, app.namespace.as_deref(), &files, &blobs)?;
    let spec = KubernetesSpec {
        namespace: app.namespace.clone(),
        create_namespace: app.create_namespace,
        adopt: app.adopt,
        replace: app.replace.clone(),
        kustomize,
        files,
    };
    Ok(Rendered { spec, blobs, objects, notes })
}

/// The objects of an app, each once; of a kustomization those that come out as they are written.
fn objects(
    root: &str,
    kustomize: bool,
    namespace: Option<&str>,
    files: &BTreeMap<String, Digest>,
    blobs: &Blobs,
) -> Result<(Vec<ObjectId>, Vec<Finding>), Vec<Finding>> {
    let named: Vec<(String, &[u8])> =
        files.iter().filter_map(|(path, digest)| Some((format!("{root}/{path}"), &blobs.get(digest)?[..]))).collect();
    let contents = || named.iter().map(|(path, bytes)| (path.as_str(), *bytes));
    let mut seen: BTreeMap<ObjectId, (String, u32)> = BTreeMap::new();
    let mut twice = Vec::new();
    let mut take = |manifest: Manifest, _: &[usize]| {
        let id = manifest.id(namespace);
        let (path, line) = (manifest.path, manifest.line);
        if let Some((first, at)) = seen.get(&id) {
            let message = format!("{id} is in {first}:{at}, too, expected each object once");
            twice.push(error(&path, Place { line, column: 1 }, message));
        } else {
            seen.insert(id, (path, line));
        }
    };
    let notes = if kustomize {
        let known = kustomization::read(root, contents());
        if !known.found.is_empty() {
            return Err(known.found);
        }
        if known.keeps_names {
            // What is wrong in them is for `kubectl` to say: it may read more than objects.
            drop(manifest::each(contents().filter(|(path, _)| known.resources.contains(*path)), take));
        }
        Vec::new()
    } else {
        manifest::each(contents(), &mut take)?
    };
    if !twice.is_empty() {
        return Err(twice);
    }
    Ok((seen.into_keys().collect(), notes))
}

/// Whether a file holds objects, by its name.
fn is_manifest(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    [".yaml", ".yml", ".json"].iter().any(|end| file.ends_with(end)) || file == "Kustomization"
}

fn content(
    tree: &dyn Tree,
    path: &str,
    manifest: bool,
    substitute: bool,
    kustomize: bool,
    scope: &Scope,
) -> Result<Vec<u8>, Finding> {
    let bytes = tree.read(path).map_err(|failed| unreadable(path, &failed))?;
    if !manifest {
        return Ok(bytes);
    }
    let bytes = if substitute { substituted(path, bytes, scope)? } else { bytes };
    let text =
        std::str::from_utf8(&bytes).map_err(|_| error(path, Place::START, "not UTF-8, expected YAML or JSON"))?;
    // Elsewhere they are read as objects, which finds more.
    if kustomize {
        well_formed(path, text)?;
    }
    Ok(bytes)
}
