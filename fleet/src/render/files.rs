//! `runtime: files`: entries of `app.yaml` → files by their path on the device.

use std::collections::{BTreeMap, BTreeSet};

use super::app::substituted;
use crate::desired::{Blobs, DesiredFile, FilesSpec};
use crate::digest::Digest;
use crate::finding::Finding;
use crate::name::AppName;
use crate::repo::app::{FileEntry, FilesApp};
use crate::repo::problems::Problems;
use crate::repo::{app_path, below, unreadable};
use crate::tree::Tree;
use crate::vars::Scope;
use crate::yaml::{At, Place};

pub(super) fn render(
    tree: &dyn Tree,
    name: &AppName,
    app: &FilesApp,
    scope: &Scope,
) -> Result<(FilesSpec, Blobs), Vec<Finding>> {
    let path = app_path(name);
    let root = format!("apps/{name}/files");
    let mut problems = Problems::new(&path);
    let mut contents = Vec::new();
    let mut spec = FilesSpec { files: BTreeMap::new(), units: app.units.clone() };
    let mut blobs = Blobs::new();
    let mut sources = BTreeSet::new();
    let mut targets: BTreeMap<String, Place> = BTreeMap::new();
    for entry in &app.entries {
        for (source, target) in deliveries(tree, &root, entry, &mut problems) {
            if let Some(before) = targets.insert(target.clone(), entry.to.place) {
                problems.error(
                    entry.to.place,
                    format!(
                        "`{target}` is delivered by the entry on line {}, too, expected one entry for it",
                        before.line
                    ),
                );
            }
            let executable = tree.entries().get(&source).is_some_and(|entry| entry.executable);
            let template = app.templates.iter().any(|template| covers(&root, template, &source));
            match content(tree, &source, template, scope) {
                Ok(bytes) => {
                    let digest = Digest::of(&bytes);
                    blobs.insert(digest, bytes.into());
                    let mode = entry.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
                    spec.files.insert(target, DesiredFile { content: digest, mode, owner: entry.owner.clone() });
                }
                Err(wrong) => contents.push(wrong),
            }
            sources.insert(source);
        }
    }
    for template in &app.templates {
        if !sources.iter().any(|source| covers(&root, template, source)) {
            problems.error(
                template.place,
                format!("no entry under `files` delivers `{}`, expected one that does", template.value),
            );
        }
    }
    match problems.finish(Some(())) {
        Ok(_) if contents.is_empty() => Ok((spec, blobs)),
        Ok(_) => Err(contents),
        Err(mut wrong) => {
            wrong.extend(contents);
            Err(wrong)
        }
    }
}

/// Pairs of a path in the repository and one on the device.
fn deliveries(tree: &dyn Tree, root: &str, entry: &FileEntry, problems: &mut Problems<'_>) -> Vec<(String, String)> {
    let from = format!("{root}/{}", entry.from.value);
    let to = &entry.to.value;
    let Some(folder) = from.strip_suffix('/') else {
        if tree.entries().contains_key(&from) {
            let file = from.rsplit('/').next().unwrap_or_default();
            let target = if to.ends_with('/') { format!("{to}{file}") } else { to.clone() };
            return vec![(from, target)];
        }
        let message = format!("there is no file `{from}`, expected one");
        if below(tree, &from).next().is_some() {
            problems.error_with_hint(
                entry.from.place,
                message,
                format!("it is a folder: write `{}/`", entry.from.value),
            );
        } else {
            problems.error(entry.from.place, message);
        }
        return Vec::new();
    };
    let files: Vec<_> =
        below(tree, folder).map(|file| (file.to_owned(), format!("{to}{}", &file[from.len()..]))).collect();
    if files.is_empty() {
        problems.error(entry.from.place, format!("there is no folder `{from}` with files, expected one"));
    }
    files
}

fn covers(root: &str, template: &At<String>, source: &str) -> bool {
    let Some(inner) = source.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) else { return false };
    inner == template.value || template.value.ends_with('/') && inner.starts_with(&template.value)
}

fn content(tree: &dyn Tree, path: &str, template: bool, scope: &Scope) -> Result<Vec<u8>, Finding> {
    let bytes = tree.read(path).map_err(|failed| unreadable(path, &failed))?;
    if template { substituted(path, bytes, scope) } else { Ok(bytes) }
}
