//! Commits of a local repository, read from its object database: nothing is
//! checked out, nothing is fetched, and no signature is judged here.

use std::collections::BTreeMap;
use std::path::Path;

use fleet::finding::{Finding, Severity};
use fleet::revision::CommitId;
use fleet::tree::{Entry, Tree, TreeError};
use fleet::trust::names::{EntryKind, check_entry, is_format_path};
use gix::objs::tree::EntryKind as GitKind;
use gix::{ObjectId, Repository};

use crate::failure::Failure;
use crate::folder::{MAX_DEPTH, MAX_FILE_BYTES, MAX_FILES};

/// A local repository.
pub(crate) struct Commits {
    repository: Repository,
}

/// The files of one commit.
pub(crate) struct CommitTree<'r> {
    repository: &'r Repository,
    pub(crate) id: CommitId,
    entries: BTreeMap<String, Entry>,
    objects: BTreeMap<String, ObjectId>,
    /// What may not be there; left out of the entries.
    pub(crate) refused: Vec<Finding>,
}

impl Commits {
    /// Opens the repository of a folder. The settings of the user and of the system play no part.
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let repository = gix::open_opts(dir, gix::open::Options::isolated()).map_err(|error| {
            Failure::usage(
                format!("{} is no Git repository that can be read: {}", dir.display(), chain(&error)),
                "name the top folder of the fleet repository",
            )
        })?;
        Ok(Self { repository })
    }

    /// The commit that HEAD is at.
    pub(crate) fn head(&self) -> Result<CommitId, Failure> {
        self.resolve("HEAD").map(|(_, id)| id)
    }

    /// The files of a commit, by any name that Git has for it.
    pub(crate) fn tree(&self, name: &str) -> Result<CommitTree<'_>, Failure> {
        let (object, id) = self.resolve(name)?;
        let failed =
            |error: &dyn std::error::Error| Failure::failed(format!("cannot read {}: {}", id.short(), chain(error)));
        let commit = self.repository.find_commit(object).map_err(|error| failed(&error))?;
        let root = commit.tree_id().map_err(|error| failed(&error))?.detach();
        let mut tree = CommitTree {
            repository: &self.repository,
            id: id.clone(),
            entries: BTreeMap::new(),
            objects: BTreeMap::new(),
            refused: Vec::new(),
        };
        tree.list(root, "", 0)?;
        Ok(tree)
    }

    fn resolve(&self, name: &str) -> Result<(ObjectId, CommitId), Failure> {
        let unknown = |why: String| {
            Failure::usage(
                format!("{name:?} names no commit of this repository: {why}"),
                "expected for example HEAD~1..HEAD",
            )
        };
        let object = self
            .repository
            .rev_parse_single(name)
            .map_err(|error| unknown(chain(&error)))?
            .object()
            .map_err(|error| unknown(chain(&error)))?
            .peel_to_commit()
            .map_err(|error| unknown(chain(&error)))?
            .id;
        let id =
            object.to_string().parse().map_err(|error: fleet::revision::InvalidCommitId| unknown(error.to_string()))?;
        Ok((object, id))
    }
}

impl CommitTree<'_> {
    fn list(&mut self, tree: ObjectId, prefix: &str, depth: usize) -> Result<(), Failure> {
        let failed = |error: &dyn std::error::Error| {
            Failure::failed(format!("cannot read the folder {prefix:?} of a commit: {}", chain(error)))
        };
        let object = self.repository.find_tree(tree).map_err(|error| failed(&error))?;
        let decoded = object.decode().map_err(|error| failed(&error))?;
        for entry in &decoded.entries {
            if prefix.is_empty() && !is_format_path(entry.filename) {
                continue;
            }
            let kind = match entry.mode.kind() {
                GitKind::Tree => EntryKind::Folder,
                GitKind::Blob => EntryKind::File { executable: false },
                GitKind::BlobExecutable => EntryKind::File { executable: true },
                GitKind::Link => EntryKind::Link,
                GitKind::Commit => EntryKind::Submodule,
            };
            let path = format!("{prefix}{}", String::from_utf8_lossy(entry.filename));
            match check_entry(entry.filename, kind) {
                Err(wrong) => self.refuse(path, wrong),
                Ok(_) if depth >= MAX_DEPTH => self.refuse(path, "lies deeper than 32 folders"),
                Ok(_) if kind == EntryKind::Folder => {
                    self.list(entry.oid.to_owned(), &format!("{path}/"), depth + 1)?;
                }
                Ok(_) if self.entries.len() >= MAX_FILES => {
                    return Err(Failure::usage(
                        format!("{} holds more than {MAX_FILES} files of a fleet repository", self.id.short()),
                        "devices refuse it, too: source.limits.files",
                    ));
                }
                Ok(_) => {
                    self.objects.insert(path.clone(), entry.oid.to_owned());
                    self.entries.insert(path, Entry { executable: kind == EntryKind::File { executable: true } });
                }
            }
        }
        Ok(())
    }

    fn refuse(&mut self, path: String, wrong: &str) {
        self.refused.push(Finding {
            path,
            line: 1,
            column: 1,
            severity: Severity::Error,
            message: format!("{wrong}, expected plain files and folders"),
            hint: None,
        });
    }
}

impl Tree for CommitTree<'_> {
    fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        let Some(id) = self.objects.get(path) else { return Err(TreeError::Missing { path: path.to_owned() }) };
        let size = self
            .repository
            .find_header(*id)
            .map_err(|source| TreeError::Read { path: path.to_owned(), source: Box::new(source) })?
            .size();
        if size > MAX_FILE_BYTES {
            return Err(TreeError::TooLarge { path: path.to_owned(), size, limit: MAX_FILE_BYTES });
        }
        let object = self
            .repository
            .find_object(*id)
            .map_err(|source| TreeError::Read { path: path.to_owned(), source: Box::new(source) })?;
        Ok(object.detach().data)
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
