//! Looking at the files of an app. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use fleet::desired::Blobs;
use fleet::digest::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::diff::{Found, Sight, Want, owned};
use super::place::{FOLDER, Place, Walked, name};
use super::write::TEMPORARY;
use crate::ports::runtime::{Inventory, RuntimeError};

/// Looks at every path that is wanted or owned.
pub(super) async fn files(
    place: &Place,
    want: Option<&Want>,
    inventory: &Inventory,
    blobs: &Blobs,
) -> Result<BTreeMap<String, Sight>, RuntimeError> {
    let wanted = want.iter().flat_map(|want| want.files.iter()).map(|(path, file)| (path.as_str(), Some(file.content)));
    let mut paths: BTreeMap<&str, Option<Digest>> = owned(inventory, "file").map(|path| (path, None)).collect();
    paths.extend(wanted);
    let mut seen = BTreeMap::new();
    for (path, content) in paths {
        let size = content.and_then(|digest| blobs.get(&digest)).map(|bytes| bytes.len() as u64);
        let found = look(place, path, size).map_err(|error| cannot_read(path, error))?;
        seen.insert(path.to_owned(), Sight { found, unit: place.is_unit_path(path) });
        // One file is at most a blob; the loop breathes between two of them.
        tokio::task::yield_now().await;
    }
    Ok(seen)
}

/// What is in each owned folder that exists.
pub(super) fn folders(
    place: &Place,
    inventory: &Inventory,
) -> Result<BTreeMap<String, BTreeSet<String>>, RuntimeError> {
    let mut seen = BTreeMap::new();
    for path in owned(inventory, "folder") {
        if let Some(inside) = list(place, path).map_err(|error| cannot_read(path, error))? {
            seen.insert(path.to_owned(), inside);
        }
    }
    Ok(seen)
}

fn cannot_read(path: &str, error: std::io::Error) -> RuntimeError {
    RuntimeError::Observe { what: path.to_owned(), source: Box::new(error) }
}

/// `size`: of the content that is wanted there; a file of another size is not read.
pub(super) fn look(place: &Place, path: &str, size: Option<u64>) -> std::io::Result<Found> {
    let folder = match place.walk(path)? {
        Walked::Folder(folder) => folder,
        Walked::Missing(missing) => return Ok(Found::Nothing { missing }),
        Walked::Link { at, to } => return Ok(Found::BehindLink { at, to }),
        Walked::File { at } => return Ok(Found::BehindFile { at }),
    };
    let stat = match rustix::fs::statat(&folder, name(path), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Found::Nothing { missing: Vec::new() }),
        Err(error) => return Err(error.into()),
    };
    match kind(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Symlink => return Ok(Found::Other("a link")),
        FileType::Directory => return Ok(Found::Other("a folder")),
        _ => return Ok(Found::Other("a device, pipe or socket")),
    }
    let digest = match (size, u64::try_from(stat.st_size)) {
        (Some(wanted), Ok(is)) if wanted == is => {
            // Not to hang, should a pipe have taken its place.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = File::from(rustix::fs::openat(&folder, name(path), flags, Mode::empty())?);
            let mut bytes = Vec::new();
            // It may grow while it is read; then it differs.
            file.take(wanted + 1).read_to_end(&mut bytes)?;
            Some(Digest::of(&bytes))
        }
        _ => None,
    };
    Ok(Found::File { digest, mode: permissions(stat.st_mode), owner: (stat.st_uid, stat.st_gid) })
}

fn kind(mode: RawMode) -> FileType {
    FileType::from_raw_mode(mode)
}

fn permissions(mode: RawMode) -> u32 {
    Mode::from_raw_mode(mode).bits() & 0o7777
}

fn list(place: &Place, path: &str) -> std::io::Result<Option<BTreeSet<String>>> {
    let Walked::Folder(parent) = place.walk(path)? else { return Ok(None) };
    let folder = match rustix::fs::openat(&parent, name(path), FOLDER, Mode::empty()) {
        Ok(folder) => folder,
        // Gone, or no longer a folder: nothing that burgee made.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut inside = BTreeSet::new();
    for entry in rustix::fs::Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if name != "." && name != ".." && !name.starts_with(TEMPORARY) {
            inside.insert(format!("{path}/{name}"));
        }
    }
    Ok(Some(inside))
}
