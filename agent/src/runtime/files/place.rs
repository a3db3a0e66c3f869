//! Where files may go, and the way there.
//!
//! **Invariant:** every path is walked from the root's descriptor, one part at
//! a time, without following a link; what is done at the end is done relative
//! to the descriptor of the folder that was reached. A link that is put in
//! place meanwhile leads nowhere else.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::ports::runtime::RuntimeError;

/// Folders that systemd, its generators or quadlet read.
const UNIT_FOLDERS: [&str; 10] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/etc/systemd/system-generators",
    "/etc/systemd/system.control",
    "/etc/containers/systemd",
    "/run/containers/systemd",
    "/usr/share/containers/systemd",
];

/// The agent's own settings and root of trust.
const OWN: &str = "/etc/burgee";

/// The root and what is allowed below it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    root: PathBuf,
    allow: Vec<PathBuf>,
    store: PathBuf,
}

/// What the walk to a path's folder came upon.
#[derive(Debug)]
pub(super) enum Walked {
    /// The folder, open.
    Folder(OwnedFd),
    /// These folders are missing, outermost first.
    Missing(Vec<String>),
    /// This part of the path is a link to there.
    Link { at: String, to: String },
    /// This part of the path is neither folder nor link.
    File { at: String },
}

impl Place {
    pub(super) fn new(root: &Path, allow: &[PathBuf], store: &Path) -> Result<Self, RuntimeError> {
        for path in allow.iter().map(PathBuf::as_path).chain([root]) {
            let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            if !path.is_absolute() || !plain {
                return Err(RuntimeError::Refused {
                    object: path.display().to_string(),
                    cause: "runtime.files names a path that is not absolute or holds `..`".to_owned(),
                    hint: Some("correct root and allow under [runtime.files] in agent.toml".to_owned()),
                });
            }
        }
        Ok(Self { root: root.to_owned(), allow: allow.to_vec(), store: store.to_owned() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The path as this process sees it.
    pub(super) fn on_disk(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Whether systemd reads the file at `path`.
    pub(super) fn is_unit_path(&self, path: &str) -> bool {
        let path = self.on_disk(path);
        UNIT_FOLDERS.iter().any(|folder| path.starts_with(folder))
    }

    /// Judges the text of a folder's path. A folder that burgee made on the way
    /// to a file may itself be above what is allowed.
    pub(super) fn check_folder(&self, path: &str) -> Result<(), RuntimeError> {
        let parts_hold = |part: &str| !part.is_empty() && part != "." && part != "..";
        let cause = match path.strip_prefix('/') {
            None => "the path is not absolute",
            Some(relative) if path.contains('\0') || !relative.split('/').all(parts_hold) => {
                "the path holds an empty part, `.` or `..`"
            }
            Some(_) if self.on_disk(path).starts_with(&self.store) => "the path is in the agent's own store",
            Some(_) => return Ok(()),
        };
        Err(RuntimeError::Refused { object: format!("file/{path}"), cause: cause.to_owned(), hint: None })
    }

    /// Judges the text of a file's path; the disk is not looked at.
    pub(super) fn check(&self, path: &str) -> Result<(), RuntimeError> {
        self.check_folder(path)?;
        let as_path = Path::new(path);
        let within = |allowed: &PathBuf| {
            as_path != allowed
                && as_path.starts_with(allowed)
                // What the device trusts changes only where its operator named that very folder.
                && (!as_path.starts_with(OWN) || allowed.starts_with(OWN))
        };
        if self.allow.iter().any(within) {
            return Ok(());
        }
        let folder = as_path.parent().unwrap_or(as_path).display();
        Err(RuntimeError::Refused {
            object: format!("file/{path}"),
            cause: "the path is outside what this device allows".to_owned(),
            hint: Some(format!("add \"{folder}\" to allow under [runtime.files] in agent.toml, or deliver elsewhere")),
        })
    }

    fn open_root(&self) -> rustix::io::Result<OwnedFd> {
        rustix::fs::open(&self.root, FOLDER - OFlags::NOFOLLOW, Mode::empty())
    }

    /// Opens the folder of `path` (of a path that [`Self::check`] let pass).
    pub(super) fn walk(&self, path: &str) -> std::io::Result<Walked> {
        let mut folder = self.open_root()?;
        let mut at = String::new();
        let mut parts = folders(path);
        while let Some(part) = parts.next() {
            at = format!("{at}/{part}");
            folder = match rustix::fs::openat(&folder, part, FOLDER, Mode::empty()) {
                Ok(next) => next,
                Err(Errno::NOENT) => {
                    let mut missing = vec![at];
                    for part in parts {
                        missing.push(format!("{}/{part}", missing[missing.len() - 1]));
                    }
                    return Ok(Walked::Missing(missing));
                }
                Err(error @ (Errno::LOOP | Errno::NOTDIR)) => {
                    return match rustix::fs::readlinkat(&folder, part, Vec::new()) {
                        Ok(to) => Ok(Walked::Link { at, to: to.to_string_lossy().into_owned() }),
                        Err(Errno::INVAL) => Ok(Walked::File { at }),
                        Err(_) => Err(error.into()),
                    };
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Walked::Folder(folder))
    }

    /// As [`Self::walk`], and makes the folders that are missing (0755), each
    /// durable in its parent before the next.
    pub(super) fn make_way(&self, path: &str) -> std::io::Result<OwnedFd> {
        let mut folder = self.open_root()?;
        for part in folders(path) {
            folder = match rustix::fs::openat(&folder, part, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    let made = rustix::fs::openat(&folder, part, FOLDER, Mode::empty())?;
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
                    rustix::fs::fsync(&folder)?;
                    made
                }
                other => other?,
            };
        }
        Ok(folder)
    }
}

/// Opens folders, never through a link.
pub(super) const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The parts of `path` that are folders.
fn folders(path: &str) -> impl Iterator<Item = &str> {
    let folder = path.trim_start_matches('/').rsplit_once('/').map_or("", |(folder, _)| folder);
    folder.split('/').filter(|part| !part.is_empty())
}

/// The last part of `path`.
pub(super) fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Writes `bytes` to `path` durably and whole or not at all; for the runtime's
/// own records, whose folder is trusted.
pub(super) fn replace_own(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

/// Removes `path` durably; no error where there is none.
pub(super) fn remove_own(path: &Path) -> std::io::Result<()> {
    match rustix::fs::unlinkat(rustix::fs::CWD, path, AtFlags::empty()) {
        Ok(()) => File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all(),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::Place;

    fn place(allow: &[&str]) -> Place {
        let allow: Vec<_> = allow.iter().map(PathBuf::from).collect();
        Place::new(Path::new("/"), &allow, Path::new("/var/lib/burgee")).unwrap()
    }

    #[test]
    fn paths_are_judged_by_their_text() {
        let cases: &[(&[&str], &str, bool)] = &[
            (&["/etc/app"], "/etc/app/a", true),
            (&["/etc/app"], "/etc/app/b/c", true),
            (&["/etc/app"], "/etc/app", false),
            (&["/etc/app"], "/etc/apple/a", false),
            (&["/etc/app"], "/etc/app/../shadow", false),
            (&["/etc/app"], "/etc/app/./a", false),
            (&["/etc/app"], "/etc/app//a", false),
            (&["/etc/app"], "/etc/app/", false),
            (&["/etc/app"], "etc/app/a", false),
            (&["/etc/app"], "/etc/app/a\0b", false),
            (&[], "/etc/app/a", false),
            (&["/"], "/etc/a", true),
            (&["/"], "/var/lib/burgee/db", false),
            (&["/etc"], "/etc/burgee/allowed_signers", false),
            (&["/etc/burgee/agent.d"], "/etc/burgee/agent.d/20.toml", true),
        ];
        for (allow, path, holds) in cases {
            assert_eq!(place(allow).check(path).is_ok(), *holds, "{path} below {allow:?}");
        }
    }

    #[test]
    fn settings_are_absolute() {
        for (root, allow) in [("relative", "/etc"), ("/", "etc"), ("/", "/etc/../root")] {
            let allow = [PathBuf::from(allow)];
            assert!(Place::new(Path::new(root), &allow, Path::new("/s")).is_err(), "{root} {allow:?}");
        }
    }

    #[test]
    fn units_count_only_where_systemd_reads_them() {
        assert!(place(&["/"]).is_unit_path("/etc/containers/systemd/web.container"));
        let elsewhere = Place::new(Path::new("/tmp/x"), &[], Path::new("/s")).unwrap();
        assert!(!elsewhere.is_unit_path("/etc/systemd/system/a.service"));
    }
}
