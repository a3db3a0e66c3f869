//! The tree of one commit: design §4, rule 7, and reading blobs by path.
//!
//! No work tree is ever checked out. Only the paths of format 1 are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet::digest::Digest;
use fleet::tree::{Entry, Tree, TreeError};
use fleet::trust::names::{EntryKind, check_entry, is_format_path};
use fleet::trust::{ALLOWED_SIGNERS, Folder, POLICY, REVOKED_KEYS};
use gix::ObjectId;
use gix::objs::Kind;

use crate::config::settings::Limits;

use super::packs::{ObjectError, Packs};

/// The largest tree object and commit that is read, in bytes.
const MAX_NODE: u64 = 16 * 1024 * 1024;

/// Why a commit's tree can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadTree {
    /// The content breaks rule 7.
    #[error("{0}")]
    Content(String),
    /// It is more than a limit allows.
    #[error("{0}")]
    Limit(String),
    /// An object that the tree names is not here.
    #[error("object {0} is missing")]
    Missing(ObjectId),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// The files of format 1 in one commit.
pub(super) struct GitTree {
    packs: Arc<Packs>,
    limit: u64,
    entries: BTreeMap<String, Entry>,
    blobs: BTreeMap<String, ObjectId>,
    /// How many were met: a tree of few objects can have no end of them.
    folders: u64,
}

impl Tree for GitTree {
    fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let missing = || TreeError::Missing { path: path.to_owned() };
        let blob = self.blobs.get(path).ok_or_else(missing)?;
        match self.packs.read(blob, Kind::Blob, self.limit) {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(missing()),
            Err(ObjectError::TooLarge { size, limit, .. }) => {
                Err(TreeError::TooLarge { path: path.to_owned(), size, limit })
            }
            Err(error) => Err(TreeError::Read { path: path.to_owned(), source: Box::new(error) }),
        }
    }
}

/// Walks the whole of format 1 in `commit` and holds it to rule 7.
pub(super) fn open(packs: &Arc<Packs>, commit: &ObjectId, limits: &Limits) -> Result<GitTree, BadTree> {
    let limit = limits.blob_mib.saturating_mul(1024 * 1024);
    let (entries, blobs) = (BTreeMap::new(), BTreeMap::new());
    let mut tree = GitTree { packs: Arc::clone(packs), limit, entries, blobs, folders: 0 };
    let root = tree_of(packs, commit)?;
    let mut names = BTreeSet::new();
    let mut folders = Vec::new();
    for node in nodes(packs, &root)? {
        if !is_format_path(&node.name) {
            continue;
        }
        if !names.insert(node.name.clone()) {
            return Err(BadTree::Content(format!("{} stands twice in its folder", shown("", &node.name))));
        }
        let is_file = node.name == b"burgee.yaml";
        match (node.kind, is_file) {
            (EntryKind::Folder, true) | (EntryKind::File { .. }, false) => {
                let expected = if is_file { "a file" } else { "a folder" };
                return Err(BadTree::Content(format!("{} must be {expected}", shown("", &node.name))));
            }
            _ => tree.take("", node, 1, limits, &mut folders)?,
        }
    }
    while let Some((path, id, depth)) = folders.pop() {
        let mut names = BTreeSet::new();
        for node in nodes(packs, &id)? {
            if !names.insert(node.name.clone()) {
                return Err(BadTree::Content(format!("{} stands twice in its folder", shown(&path, &node.name))));
            }
            tree.take(&path, node, depth + 1, limits, &mut folders)?;
        }
    }
    Ok(tree)
}

impl GitTree {
    fn take(
        &mut self,
        folder: &str,
        node: Node,
        depth: u64,
        limits: &Limits,
        folders: &mut Vec<(String, ObjectId, u64)>,
    ) -> Result<(), BadTree> {
        let name = check_entry(&node.name, node.kind)
            .map_err(|what| BadTree::Content(format!("{} {what}", shown(folder, &node.name))))?;
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if depth > limits.depth {
            let limit = limits.depth;
            return Err(BadTree::Limit(format!(
                "{path} lies deeper than {limit} folders, the limit (source.limits.depth)"
            )));
        }
        let EntryKind::File { executable } = node.kind else {
            self.folders += 1;
            if self.folders > limits.files {
                let limit = limits.files;
                return Err(BadTree::Limit(format!(
                    "it has more than {limit} folders, the limit (source.limits.files)"
                )));
            }
            folders.push((path, node.id, depth));
            return Ok(());
        };
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        if count >= limits.files {
            let limit = limits.files;
            return Err(BadTree::Limit(format!("it has more than {limit} files, the limit (source.limits.files)")));
        }
        let (kind, size) = self.packs.header(&node.id)?.ok_or(BadTree::Missing(node.id))?;
        if kind != Kind::Blob {
            return Err(BadTree::Content(format!("{path} is a {kind}, not a file")));
        }
        if size > self.limit {
            let limit = self.limit;
            return Err(BadTree::Limit(format!(
                "{path} is {size} bytes, the limit is {limit} (source.limits.blob_mib)"
            )));
        }
        self.entries.insert(path.clone(), Entry { executable });
        self.blobs.insert(path, node.id);
        Ok(())
    }
}

/// `trust/` of a commit. Links and the like show in the digest and say nothing.
pub(super) fn trust_folder(packs: &Packs, commit: &ObjectId, limits: &Limits) -> Result<Folder, BadTree> {
    let root = tree_of(packs, commit)?;
    let Some(trust) = nodes(packs, &root)?.into_iter().find(|node| node.name == b"trust") else {
        return Ok(Folder::default());
    };
    let digest = Digest::of(format!("{:?} {}", trust.kind, trust.id).as_bytes());
    let mut folder = Folder { digest: Some(digest), files: BTreeMap::new() };
    if trust.kind != EntryKind::Folder {
        return Ok(folder);
    }
    let limit = limits.blob_mib.saturating_mul(1024 * 1024);
    for node in nodes(packs, &trust.id)? {
        let known = [ALLOWED_SIGNERS, REVOKED_KEYS, POLICY]
            .into_iter()
            .find(|path| path.strip_prefix("trust/").is_some_and(|name| name.as_bytes() == node.name));
        if let (Some(path), EntryKind::File { .. }) = (known, node.kind) {
            let bytes = match packs.read(&node.id, Kind::Blob, limit) {
                Err(ObjectError::TooLarge { size, limit, .. }) => {
                    return Err(BadTree::Limit(format!(
                        "{path} is {size} bytes, the limit is {limit} (source.limits.blob_mib)"
                    )));
                }
                other => other?.ok_or(BadTree::Missing(node.id))?,
            };
            folder.files.insert(path.to_owned(), bytes);
        }
    }
    Ok(folder)
}

struct Node {
    name: Vec<u8>,
    kind: EntryKind,
    id: ObjectId,
}

fn tree_of(packs: &Packs, commit: &ObjectId) -> Result<ObjectId, BadTree> {
    let raw = packs.read(commit, Kind::Commit, MAX_NODE)?.ok_or(BadTree::Missing(*commit))?;
    let line = raw.split(|&c| c == b'\n').next().unwrap_or_default();
    line.strip_prefix(b"tree ")
        .and_then(|hex| ObjectId::from_hex(hex).ok())
        .ok_or_else(|| BadTree::Content("the commit names no tree".to_owned()))
}

/// A tree's entries, modes as they stand: Git itself reads unusual ones kindly.
fn nodes(packs: &Packs, id: &ObjectId) -> Result<Vec<Node>, BadTree> {
    if *id == ObjectId::empty_tree(packs.hash) {
        return Ok(Vec::new());
    }
    let raw = packs.read(id, Kind::Tree, MAX_NODE)?.ok_or(BadTree::Missing(*id))?;
    let mut nodes = Vec::new();
    let mut rest = &raw[..];
    while !rest.is_empty() {
        let (node, next) = node(rest, packs.hash).ok_or_else(|| BadTree::Content(format!("tree {id} is malformed")))?;
        nodes.push(node);
        rest = next;
    }
    Ok(nodes)
}

/// `MODE NAME NUL HASH`.
fn node(raw: &[u8], hash: gix::hash::Kind) -> Option<(Node, &[u8])> {
    let blank = raw.iter().position(|&c| c == b' ')?;
    let (mode, raw) = (&raw[..blank], &raw[blank + 1..]);
    let nul = raw.iter().position(|&c| c == 0)?;
    let (name, raw) = (raw[..nul].to_vec(), &raw[nul + 1..]);
    let (id, rest) = raw.split_at_checked(hash.len_in_bytes())?;
    let kind = match mode {
        b"40000" => EntryKind::Folder,
        b"100644" => EntryKind::File { executable: false },
        b"100755" => EntryKind::File { executable: true },
        b"120000" => EntryKind::Link,
        b"160000" => EntryKind::Submodule,
        _ => EntryKind::Other,
    };
    Some((Node { name, kind, id: ObjectId::try_from(id).ok()? }, rest))
}

/// A path for people: what is not printable is escaped.
fn shown(folder: &str, name: &[u8]) -> String {
    let name = name.escape_ascii();
    if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") }
}
