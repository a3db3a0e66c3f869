//! The local repository: a bare folder that stock Git can read, too.
//!
//! No configuration is ever read from it. What a killed fetch left behind is
//! cleared before the next one; what is damaged is set aside, and fetched anew.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::hash::Kind as Hash;

use super::packs::{ObjectError, Packs};

/// The folder, and the packs in it.
pub(super) struct Local {
    pub(super) folder: PathBuf,
    pub(super) packs: Arc<Packs>,
}

/// Why there is no local repository.
#[derive(Debug, thiserror::Error)]
pub(super) enum LocalError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Damaged(#[from] ObjectError),
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::Io { action, path, source }
}

impl Local {
    /// Opens the repository at `folder`; `None`: there is none.
    pub(super) fn open(folder: &Path, limit: usize) -> Result<Option<Self>, LocalError> {
        finish_swap(folder)?;
        let config = folder.join("config");
        let said = match fs::read_to_string(&config) {
            Ok(said) => said,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io("read", &config)(error)),
        };
        let hash = if said.contains("objectformat = sha256") { Hash::Sha256 } else { Hash::Sha1 };
        clear(folder)?;
        let mut packs = Packs::empty(hash, limit);
        for path in indexes(folder)? {
            packs.add(&path)?;
        }
        Ok(Some(Self { folder: folder.to_owned(), packs: Arc::new(packs) }))
    }

    /// Makes an empty repository at `folder`, where nothing is.
    pub(super) fn init(folder: &Path, hash: Hash, limit: usize) -> Result<Self, LocalError> {
        for sub in ["objects/pack", "objects/info", "refs/heads"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).map_err(io("create", &path))?;
        }
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(io("write", &path))
        };
        write("HEAD", "ref: refs/heads/main\n")?;
        // Last: a folder without it counts as none.
        write(
            "config",
            match hash {
                Hash::Sha256 => {
                    "[core]\n\trepositoryformatversion = 1\n\tbare = true\n[extensions]\n\tobjectformat = sha256\n"
                }
                _ => "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
            },
        )?;
        Ok(Self { folder: folder.to_owned(), packs: Arc::new(Packs::empty(hash, limit)) })
    }

    pub(super) fn pack_folder(&self) -> PathBuf {
        self.folder.join("objects/pack")
    }

    pub(super) fn shallow_file(&self) -> PathBuf {
        self.folder.join("shallow")
    }

    /// Takes a received pack into use, once it is on the disk.
    pub(super) fn add(&mut self, index: &Path, data: &Path) -> Result<(), LocalError> {
        for path in [data, index, &*self.pack_folder()] {
            File::open(path).and_then(|file| file.sync_all()).map_err(io("sync", path))?;
        }
        let mut packs = Packs::clone(&self.packs);
        packs.add(index)?;
        self.packs = Arc::new(packs);
        Ok(())
    }

    /// Names the head that was fetched last, for people with stock Git at hand.
    pub(super) fn point_at(&self, head: &gix::oid) -> Result<(), LocalError> {
        let path = self.folder.join("HEAD");
        fs::write(&path, format!("{head}\n")).map_err(io("write", &path))
    }
}

/// Removes what a fetch that was killed left behind.
pub(super) fn clear(folder: &Path) -> Result<(), LocalError> {
    let lock = folder.join("shallow.lock");
    match fs::remove_file(&lock) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io("remove", &lock)(error)),
        _ => {}
    }
    let packs = folder.join("objects/pack");
    for entry in fs::read_dir(&packs).map_err(io("list", &packs))? {
        let path = entry.map_err(io("list", &packs))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let whole = match path.extension().and_then(|extension| extension.to_str()) {
            Some("idx") => path.with_extension("pack").exists(),
            Some("pack") => path.with_extension("idx").exists(),
            _ => false,
        };
        if name.starts_with(".tmp") || name.starts_with("tmp") || !whole {
            fs::remove_file(&path).map_err(io("remove", &path))?;
        }
    }
    Ok(())
}

/// The packs' index files, oldest first.
fn indexes(folder: &Path) -> Result<Vec<PathBuf>, LocalError> {
    let packs = folder.join("objects/pack");
    let mut found = Vec::new();
    for entry in fs::read_dir(&packs).map_err(io("list", &packs))? {
        let entry = entry.map_err(io("list", &packs))?;
        if entry.path().extension().is_some_and(|extension| extension == "idx") {
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).map_err(io("read", &packs))?;
            found.push((changed, entry.path()));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Where a swap stands while it is under way.
pub(super) fn beside(folder: &Path, suffix: &str) -> PathBuf {
    let mut name = folder.file_name().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
    name.push(suffix);
    folder.with_file_name(name)
}

fn remove(path: &Path) -> Result<(), LocalError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Puts the repository at `fresh` in the place of `folder`.
pub(super) fn swap(fresh: &Path, folder: &Path) -> Result<(), LocalError> {
    let old = beside(folder, ".old");
    remove(&old)?;
    fs::rename(folder, &old).map_err(io("rename", folder))?;
    fs::rename(fresh, folder).map_err(io("rename", fresh))?;
    if let Some(parent) = folder.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io("sync", parent))?;
    }
    remove(&old)
}

/// Ends a swap that a power cut interrupted, one way or the other.
fn finish_swap(folder: &Path) -> Result<(), LocalError> {
    let old = beside(folder, ".old");
    if old.exists() && !folder.exists() {
        fs::rename(&old, folder).map_err(io("rename", &old))?;
    }
    remove(&old)?;
    remove(&beside(folder, ".new"))
}

/// Sets a damaged repository aside; the one that was set aside before goes.
pub(super) fn set_aside(folder: &Path) -> Result<(), LocalError> {
    let aside = beside(folder, ".damaged");
    remove(&aside)?;
    match fs::rename(folder, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io("set aside", folder)(error)),
        _ => Ok(()),
    }
}
