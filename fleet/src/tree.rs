//! Read access to the files of one commit, or of a folder on a laptop.

use std::collections::BTreeMap;

/// What a path in the tree is. Links, submodules and everything else that a
/// tree can hold are refused before a `Tree` exists (design §4, rule 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Git's executable bit: the file's mode is 755, else 644.
    pub executable: bool,
}

/// Why a file of the tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// No such file.
    #[error("{path}: no such file in the repository")]
    Missing {
        /// Path from the repository's root.
        path: String,
    },
    /// The file is larger than the limit.
    #[error("{path}: {size} bytes, the limit is {limit} (source.limits.blob_mib)")]
    TooLarge {
        /// Path from the repository's root.
        path: String,
        /// Size in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// The store or the disk failed.
    #[error("cannot read {path}")]
    Read {
        /// Path from the repository's root.
        path: String,
        /// What failed below.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The files of format 1 in one commit. Paths are relative to the
/// repository's root, with `/`, valid UTF-8, and hold no `.` or `..` part.
pub trait Tree {
    /// Every file under the paths of format 1, in order.
    fn entries(&self) -> &BTreeMap<String, Entry>;

    /// A file's bytes.
    ///
    /// # Errors
    /// When there is no such file, it is over the limit, or reading failed.
    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError>;
}

/// A tree in memory: tests, scaffolds, and small repositories.
#[derive(Clone, Debug, Default)]
pub struct MemoryTree {
    entries: BTreeMap<String, Entry>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl MemoryTree {
    /// Adds or replaces one plain file.
    pub fn insert(&mut self, path: &str, content: impl Into<Vec<u8>>) {
        self.entries.insert(path.to_owned(), Entry { executable: false });
        self.contents.insert(path.to_owned(), content.into());
    }
}

impl<P: AsRef<str>, C: Into<Vec<u8>>> FromIterator<(P, C)> for MemoryTree {
    fn from_iter<I: IntoIterator<Item = (P, C)>>(files: I) -> Self {
        let mut tree = Self::default();
        for (path, content) in files {
            tree.insert(path.as_ref(), content);
        }
        tree
    }
}

impl Tree for MemoryTree {
    fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.contents.get(path).cloned().ok_or_else(|| TreeError::Missing { path: path.to_owned() })
    }
}
