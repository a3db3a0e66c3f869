//! Files that are whole or absent, whatever the power does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Writes `bytes` to `path`: beside it, synced, renamed over it, folder synced.
/// When this fails, what was there before still is.
pub(crate) fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = Path::new(&beside);
    let written = fill(beside, bytes, mode).and_then(|()| std::fs::rename(beside, path));
    if written.is_err() {
        // Best effort: on a full disk the half file must not stay.
        let _ = std::fs::remove_file(beside);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new("/")))
}

/// Makes what was renamed or removed in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn fill(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // `create_new`: the mode holds from the first byte on, and no link is followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
