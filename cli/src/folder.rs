//! A fleet repository in a folder, as it lies there: no commit, no index.
//!
//! Within the paths of format 1 the same things are refused as in a commit
//! (design §4, rule 7), with the same words. Files are read when they are
//! asked for.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fleet::finding::{Finding, Severity};
use fleet::tree::{Entry, Tree, TreeError};
use fleet::trust::names::{EntryKind, check_entry, is_format_path};

use crate::failure::Failure;

/// The limits that an agent has, unless it is told otherwise.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 20;
pub(crate) const MAX_FILES: usize = 20_000;
pub(crate) const MAX_DEPTH: usize = 32;

/// A folder as a tree.
#[derive(Debug)]
pub(crate) struct FolderTree {
    root: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// What may not be there; left out of the entries.
    pub(crate) refused: Vec<Finding>,
}

impl FolderTree {
    /// Lists a folder.
    ///
    /// # Errors
    /// When it is not there, or can't be listed.
    pub(crate) fn open(root: &Path) -> Result<Self, Failure> {
        if !root.is_dir() {
            return Err(Failure::usage(
                format!("{} is no folder", root.display()),
                "name the folder of a fleet repository; `burgee init DIR` makes one",
            ));
        }
        let mut tree = Self { root: root.to_owned(), entries: BTreeMap::new(), refused: Vec::new() };
        tree.list(root, "", 0)?;
        Ok(tree)
    }

    fn list(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), Failure> {
        let failed = |source| Failure::io("list", folder, &source);
        let mut inside = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        inside.sort_by_key(fs::DirEntry::file_name);
        for entry in inside {
            let name = entry.file_name();
            if prefix.is_empty() && !is_format_path(name.as_bytes()) {
                continue;
            }
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let metadata = entry.metadata().map_err(|source| Failure::io("look at", &entry.path(), &source))?;
            let kind = kind(&metadata);
            match check_entry(name.as_bytes(), kind) {
                Err(wrong) => self.refuse(shown, wrong),
                Ok(_) if depth >= MAX_DEPTH => self.refuse(shown, "lies deeper than 32 folders"),
                Ok(_) if kind == EntryKind::Folder => self.list(&entry.path(), &format!("{shown}/"), depth + 1)?,
                Ok(_) if self.entries.len() >= MAX_FILES => {
                    return Err(Failure::usage(
                        format!("{} holds more than {MAX_FILES} files of a fleet repository", self.root.display()),
                        "devices refuse it, too: source.limits.files",
                    ));
                }
                Ok(_) => {
                    let executable = matches!(kind, EntryKind::File { executable: true });
                    self.entries.insert(shown, Entry { executable });
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

fn kind(metadata: &Metadata) -> EntryKind {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        EntryKind::Link
    } else if kind.is_dir() {
        EntryKind::Folder
    } else if kind.is_file() {
        EntryKind::File { executable: metadata.permissions().mode() & 0o100 != 0 }
    } else {
        EntryKind::Other
    }
}

impl Tree for FolderTree {
    fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        if !self.entries.contains_key(path) {
            return Err(TreeError::Missing { path: path.to_owned() });
        }
        let failed = |source| TreeError::Read { path: path.to_owned(), source: Box::new(source) };
        let file = self.root.join(path);
        let size = fs::metadata(&file).map_err(failed)?.len();
        if size > MAX_FILE_BYTES {
            return Err(TreeError::TooLarge { path: path.to_owned(), size, limit: MAX_FILE_BYTES });
        }
        fs::read(&file).map_err(failed)
    }
}
