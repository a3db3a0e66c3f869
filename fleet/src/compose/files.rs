//! Files of the repository that Compose files name: paths made whole, contents read once, digests taken.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::compose::model::RepoFile;
use crate::compose::node::{Findings, Place};
use crate::desired::Blobs;
use crate::digest::Digest;
use crate::finding::{Finding, Severity};
use crate::tree::{Tree, TreeError};

/// Contents that one app's services may mount, in bytes.
const MAX_BYTES: usize = 64 << 20;

pub(super) struct Files<'a> {
    tree: &'a dyn Tree,
    findings: &'a Findings,
    blobs: RefCell<Blobs>,
    read: RefCell<BTreeMap<String, Option<Digest>>>,
    left: Cell<usize>,
}

/// A file, or the files below a folder by their relative path.
#[derive(Debug)]
pub(super) enum Found {
    File(RepoFile),
    Folder(BTreeMap<String, RepoFile>),
}

impl<'a> Files<'a> {
    pub(super) fn new(tree: &'a dyn Tree, findings: &'a Findings) -> Self {
        Self { tree, findings, blobs: RefCell::default(), read: RefCell::default(), left: Cell::new(MAX_BYTES) }
    }

    pub(super) fn tree(&self) -> &'a dyn Tree {
        self.tree
    }

    pub(super) fn into_blobs(self) -> Blobs {
        self.blobs.into_inner()
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.tree.entries().contains_key(path)
    }

    /// A text of the repository; `at` is where it is named, none where burgee looks for it itself.
    pub(super) fn text(&self, path: &str, at: Option<&Place>) -> Option<String> {
        match self.tree.read(path) {
            Ok(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Some(text),
                Err(_) => {
                    self.fail(path, at, format!("{path} is not UTF-8 text"));
                    None
                }
            },
            Err(error) => {
                self.fail(path, at, chain(&error));
                None
            }
        }
    }

    /// What is at `path`, contents among the blobs; a finding where there is nothing.
    pub(super) fn collect(&self, path: &str, at: &Place, what: &str) -> Option<Found> {
        if let Some(entry) = self.tree.entries().get(path) {
            let mode = if entry.executable { 0o755 } else { 0o644 };
            return self.content(path, at).map(|content| Found::File(RepoFile { content, mode, secret: false }));
        }
        let below = format!("{path}/");
        let mut files = BTreeMap::new();
        let inside = self.tree.entries().range(below.clone()..).take_while(|(file, _)| file.starts_with(&below));
        for (file, entry) in inside {
            let mode = if entry.executable { 0o755 } else { 0o644 };
            let content = self.content(file, at)?;
            files.insert(file[below.len()..].to_owned(), RepoFile { content, mode, secret: false });
        }
        if files.is_empty() {
            let hint = "commit the file, or name an absolute path for a file of the device's own";
            self.findings.hint(at, format!("{what}: {path} is not in the repository"), hint);
            return None;
        }
        Some(Found::Folder(files))
    }

    /// Puts bytes among the blobs.
    pub(super) fn put(&self, bytes: impl Into<Arc<[u8]>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.blobs.borrow_mut().insert(digest, bytes);
        digest
    }

    fn content(&self, path: &str, at: &Place) -> Option<Digest> {
        if let Some(read) = self.read.borrow().get(path) {
            return *read;
        }
        let digest = match self.tree.read(path) {
            Ok(bytes) => match self.left.get().checked_sub(bytes.len()) {
                Some(left) => {
                    self.left.set(left);
                    Some(self.put(bytes))
                }
                None => {
                    let limit = MAX_BYTES >> 20;
                    self.findings.error(at, format!("{path}: with it, the app's files grow past {limit} MiB"));
                    None
                }
            },
            Err(error) => {
                self.findings.error(at, chain(&error));
                None
            }
        };
        self.read.borrow_mut().insert(path.to_owned(), digest);
        digest
    }

    fn fail(&self, path: &str, at: Option<&Place>, message: String) {
        match at {
            Some(at) => self.findings.error(at, message),
            None => self.whole(path, message),
        }
    }

    /// A finding about a whole file.
    pub(super) fn whole(&self, path: &str, message: String) {
        let path = path.to_owned();
        self.findings.add(Finding { path, line: 1, column: 1, severity: Severity::Error, message, hint: None });
    }
}

fn chain(error: &TreeError) -> String {
    match error {
        TreeError::Read { source, .. } => format!("{error}: {source}"),
        _ => error.to_string(),
    }
}

/// `path` as seen from `dir`, as a path from the repository's root.
///
/// Errors say what can't be: a path that leaves the repository, or a home folder.
pub(super) fn resolve(dir: &str, path: &str) -> Result<String, String> {
    if path.starts_with('~') {
        return Err(format!("{path:?} is in a home folder, and an agent has none"));
    }
    if path.contains('\\') || path.contains('\0') {
        return Err(format!("{path:?} is not a path of a repository"));
    }
    let mut parts: Vec<&str> = if path.starts_with('/') { Vec::new() } else { dir.split('/').collect() };
    parts.retain(|part| !part.is_empty());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(format!("{path:?} leaves the repository"));
                }
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return Err(format!("{path:?} is the whole repository: name a folder of it"));
    }
    Ok(parts.join("/"))
}

/// The folder of a path; empty at the root.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[cfg(test)]
mod tests {
    use super::resolve;

    #[test]
    fn paths() {
        let cases = [
            ("./x", Ok("apps/pos/x")),
            ("x/y/", Ok("apps/pos/x/y")),
            (".", Ok("apps/pos")),
            ("../base/./x", Ok("apps/base/x")),
            ("a/../../b", Ok("apps/b")),
            ("../../..", Err("\"../../..\" leaves the repository")),
            ("../..", Err("\"../..\" is the whole repository: name a folder of it")),
            ("~/x", Err("\"~/x\" is in a home folder, and an agent has none")),
        ];
        for (path, want) in cases {
            assert_eq!(resolve("apps/pos", path).as_deref().map_err(String::as_str), want, "{path}");
        }
    }
}
