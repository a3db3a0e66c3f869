//! Files of the repository that services mount, on the device's disk.
//!
//! Each service with such mounts has one folder, `<store>/apps/<app>/<digest>/`,
//! named by the digest of what is in it. A folder appears whole (written beside
//! it, synced, renamed) or not at all, and is never changed afterwards.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use fleet::compose::model::{MountSource, RepoFile, Service};
use fleet::desired::Blobs;
use fleet::digest::Digest;
use fleet::name::AppName;

use crate::ports::runtime::{Object, RuntimeError};

/// One file to write, below the folder.
#[derive(Clone, Debug)]
pub(super) struct Item {
    path: PathBuf,
    bytes: Arc<[u8]>,
    mode: u32,
    owner: Option<(Option<u32>, Option<u32>)>,
}

/// The digest of a service's files; `None` where it mounts none.
///
/// # Errors
/// Never for the types of the model; the signature is the digest's.
pub(super) fn digest(service: &Service) -> Result<Option<Digest>, RuntimeError> {
    let named: Vec<(usize, &MountSource)> = service
        .mounts
        .iter()
        .map(|mount| &mount.source)
        .enumerate()
        .filter(|(_, source)| matches!(source, MountSource::Repository { .. } | MountSource::Content { .. }))
        .collect();
    if named.is_empty() {
        return Ok(None);
    }
    Digest::of_json(&named).map(Some).map_err(|error| RuntimeError::Refused {
        object: service.image.clone(),
        cause: format!("its files have no digest: {error}"),
        hint: None,
    })
}

/// Where a service's folder is.
pub(super) fn folder(store: &Path, app: &AppName, digest: &Digest) -> PathBuf {
    store.join("apps").join(app.as_str()).join(digest.to_string())
}

/// The object that stands for it in the inventory.
pub(super) fn object(app: &AppName, digest: &Digest) -> Object {
    Object { kind: "folder".to_owned(), name: format!("{app}/{digest}") }
}

/// The path of mount number `index` below the service's folder.
pub(super) fn place(index: usize, source: &MountSource) -> Option<PathBuf> {
    match source {
        MountSource::Repository { path, .. } => Some(Path::new("repository").join(path.trim_matches('/'))),
        MountSource::Content { .. } => Some(Path::new("content").join(index.to_string())),
        _ => None,
    }
}

/// What a service's folder holds: the files, and folders that may be empty.
///
/// # Errors
/// When a content is missing from `blobs`, a path leaves the folder, or an
/// owner isn't a number.
pub(super) fn items(
    app: &AppName,
    service: &Service,
    digest: &Digest,
    blobs: &Blobs,
) -> Result<(Vec<Item>, Vec<PathBuf>), RuntimeError> {
    let refuse = |object: &str, cause: String| RuntimeError::Refused { object: object.to_owned(), cause, hint: None };
    let mut items: Vec<Item> = Vec::new();
    let mut folders = Vec::new();
    let mut seen = BTreeSet::new();
    let mut push = |path: PathBuf, file: &RepoFile, owner, what: &str| {
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err(refuse(what, "its path leaves the app's folder".to_owned()));
        }
        let bytes = blobs.get(&file.content).ok_or_else(|| RuntimeError::Step {
            action: "write",
            object: object(app, digest),
            transient: false,
            source: format!("the content of {what} is not kept on this device").into(),
        })?;
        if seen.insert(path.clone()) {
            items.push(Item { path, bytes: bytes.clone(), mode: file.mode & 0o7777, owner });
        }
        Ok(())
    };
    for (index, mount) in service.mounts.iter().enumerate() {
        let Some(place) = place(index, &mount.source) else { continue };
        match &mount.source {
            MountSource::Repository { path, folder, files, .. } => {
                if *folder {
                    folders.push(place.clone());
                }
                for (name, file) in files {
                    let at = if name.is_empty() { place.clone() } else { place.join(name) };
                    push(at, file, None, path)?;
                }
            }
            MountSource::Content { name, file, uid, gid } => {
                let number = |text: &Option<String>| match text.as_deref() {
                    None => Ok(None),
                    Some(text) => text.parse().map(Some).map_err(|_| {
                        refuse(name, format!("its owner {text:?} is not a number, and names differ in every image"))
                    }),
                };
                let owner = (number(uid)?, number(gid)?);
                push(place, file, (owner != (None, None)).then_some(owner), name)?;
            }
            _ => {}
        }
    }
    Ok((items, folders))
}

/// Writes a folder whole. One that is there already is left as it is.
///
/// # Errors
/// When the disk doesn't take it.
pub(super) fn write(target: &Path, items: &[Item], folders: &[PathBuf]) -> io::Result<()> {
    if target.is_dir() {
        return Ok(());
    }
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // Only root and the agent walk to it; a container gets what is mounted.
    DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_os_string();
    name.push(".new");
    let fresh = parent.join(name);
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(&fresh)?;
    let mut made = BTreeSet::from([fresh.clone()]);
    let mut ensure = |path: PathBuf| -> io::Result<()> {
        let mut missing = Vec::new();
        let mut at = path.as_path();
        while !made.contains(at) {
            missing.push(at.to_path_buf());
            at = at.parent().ok_or(io::ErrorKind::InvalidInput)?;
        }
        for path in missing.into_iter().rev() {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
            made.insert(path);
        }
        Ok(())
    };
    for folder in folders {
        ensure(fresh.join(folder))?;
    }
    for item in items {
        let path = fresh.join(&item.path);
        ensure(path.parent().ok_or(io::ErrorKind::InvalidInput)?.to_path_buf())?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&item.bytes)?;
        if let Some((uid, gid)) = item.owner {
            std::os::unix::fs::fchown(&file, uid, gid)?;
        }
        file.set_permissions(Permissions::from_mode(item.mode))?;
        file.sync_all()?;
    }
    for folder in &made {
        File::open(folder)?.sync_all()?;
    }
    fs::rename(&fresh, target)?;
    for folder in [Some(parent), parent.parent()].into_iter().flatten() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Removes every folder of every app that is not in `keep` (`<app>/<digest>`),
/// half-written ones included.
///
/// # Errors
/// When a listing fails; what could not be removed is only logged.
pub(super) fn sweep(store: &Path, keep: &BTreeSet<String>) -> io::Result<()> {
    let apps = match fs::read_dir(store.join("apps")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listing => listing?,
    };
    for app in apps {
        let app = app?;
        if !app.file_type()?.is_dir() {
            continue;
        }
        let mut left = false;
        for folder in fs::read_dir(app.path())? {
            let folder = folder?;
            let name = format!("{}/{}", app.file_name().to_string_lossy(), folder.file_name().to_string_lossy());
            if keep.contains(&name) {
                left = true;
            } else if let Err(error) = fs::remove_dir_all(folder.path()) {
                left = true;
                tracing::warn!(folder = %name, %error, "could not remove a folder that nothing mounts");
            }
        }
        if !left {
            // Not empty after all, or gone: either is fine.
            let _ = fs::remove_dir(app.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet::compose::model::Mount;

    use super::*;

    fn file(bytes: &[u8], mode: u32) -> (RepoFile, Blobs) {
        let content = Digest::of(bytes);
        (RepoFile { content, mode, secret: false }, [(content, Arc::from(bytes))].into())
    }

    fn service(sources: Vec<MountSource>) -> Service {
        let mounts = sources.into_iter().map(|source| Mount { target: "/x".to_owned(), read_only: true, source });
        Service { mounts: mounts.collect(), ..Service::default() }
    }

    #[test]
    fn a_folder_is_written_whole_with_its_modes() {
        let store = tempfile::tempdir().unwrap();
        let app: AppName = "pos".parse().unwrap();
        let (conf, mut blobs) = file(b"listen 80", 0o644);
        let (secret, more) = file(b"hush", 0o400);
        blobs.extend(more);
        let files: BTreeMap<_, _> = [("nginx/site".to_owned(), conf)].into();
        let service = service(vec![
            MountSource::Repository { path: "apps/pos/conf".to_owned(), folder: true, files, selinux: None },
            MountSource::Repository {
                path: "apps/pos/empty".to_owned(),
                folder: true,
                files: BTreeMap::new(),
                selinux: None,
            },
            MountSource::Content { name: "secret key".to_owned(), file: secret, uid: None, gid: None },
        ]);
        let digest = digest(&service).unwrap().unwrap();
        let target = folder(store.path(), &app, &digest);
        let (items, folders) = items(&app, &service, &digest, &blobs).unwrap();
        write(&target, &items, &folders).unwrap();
        write(&target, &items, &folders).unwrap();
        let mode = |path: &str| fs::metadata(target.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(fs::read(target.join("repository/apps/pos/conf/nginx/site")).unwrap(), b"listen 80");
        assert_eq!(mode("repository/apps/pos/conf/nginx/site"), 0o644);
        assert_eq!(mode("repository/apps/pos/conf/nginx"), 0o755);
        assert_eq!(mode("content/2"), 0o400);
        assert!(target.join("repository/apps/pos/empty").is_dir());
        // A leftover of a power cut goes, what is kept stays.
        fs::create_dir(target.with_extension("new")).unwrap();
        sweep(store.path(), &[format!("pos/{digest}")].into()).unwrap();
        assert!(target.is_dir());
        assert_eq!(fs::read_dir(target.parent().unwrap()).unwrap().count(), 1);
        sweep(store.path(), &BTreeSet::new()).unwrap();
        assert!(!target.parent().unwrap().exists());
    }

    #[test]
    fn what_can_not_be_written_is_an_error() {
        let app: AppName = "pos".parse().unwrap();
        let (conf, blobs) = file(b"x", 0o644);
        let check = |source: MountSource, blobs: &Blobs| {
            let service = service(vec![source]);
            let digest = digest(&service).unwrap().unwrap();
            assert!(items(&app, &service, &digest, blobs).is_err());
        };
        let content = |uid: Option<&str>| MountSource::Content {
            name: "config a".to_owned(),
            file: conf.clone(),
            uid: uid.map(str::to_owned),
            gid: None,
        };
        check(content(None), &Blobs::new());
        check(content(Some("www-data")), &blobs);
        let files: BTreeMap<_, _> = [(String::new(), conf.clone())].into();
        check(
            MountSource::Repository { path: "apps/../../etc/x".to_owned(), folder: false, files, selinux: None },
            &blobs,
        );
    }
}
