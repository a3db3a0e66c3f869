//! A service's mounts in the Engine's three ways of saying them: pure.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use bollard::models::{
    HostConfig, MountBindOptions, MountBindOptionsPropagationEnum, MountImageOptions, MountType, MountVolumeOptions,
};
use fleet::compose::model::{MountSource, Service};

use super::materialise;
use super::spec::{Surroundings, map, some};

/// Fills in `mounts`, `binds` and `tmpfs`.
pub(super) fn mounts(service: &Service, around: &Surroundings<'_>, host: &mut HostConfig) {
    let mut mounts = Vec::new();
    let mut binds = Vec::new();
    let mut tmpfs = HashMap::new();
    let folder = around.folder.as_deref().unwrap_or(Path::new("/"));
    for (index, mount) in service.mounts.iter().enumerate() {
        let plain = |kind, source: Option<String>| bollard::models::Mount {
            target: Some(mount.target.clone()),
            source,
            typ: Some(kind),
            read_only: Some(mount.read_only),
            ..bollard::models::Mount::default()
        };
        match &mount.source {
            MountSource::Bind { path, create_host_path, propagation, selinux, recursive } => {
                // Only the short form makes missing paths and relabels; only the long one is recursive or not.
                let short = (*create_host_path || selinux.is_some()) && !path.contains(':');
                if short && recursive.is_none() && !mount.target.contains(':') {
                    let mut options = vec![if mount.read_only { "ro" } else { "rw" }];
                    options.extend(selinux.as_deref());
                    options.extend(propagation.as_deref());
                    binds.push(format!("{path}:{}:{}", mount.target, options.join(",")));
                    continue;
                }
                let options = MountBindOptions {
                    propagation: propagation
                        .as_deref()
                        .and_then(|it| MountBindOptionsPropagationEnum::from_str(it).ok()),
                    non_recursive: (recursive.as_deref() == Some("disabled")).then_some(true),
                    read_only_non_recursive: (recursive.as_deref() == Some("writable")).then_some(true),
                    read_only_force_recursive: (recursive.as_deref() == Some("readonly")).then_some(true),
                    ..MountBindOptions::default()
                };
                let bind_options = (options != MountBindOptions::default()).then_some(options);
                mounts.push(bollard::models::Mount { bind_options, ..plain(MountType::BIND, Some(path.clone())) });
            }
            source @ (MountSource::Repository { .. } | MountSource::Content { .. }) => {
                let Some(place) = materialise::place(index, source) else { continue };
                let path = folder.join(place).display().to_string();
                let label = match source {
                    MountSource::Repository { selinux, .. } => selinux.as_deref(),
                    _ => None,
                };
                match label.filter(|_| !path.contains(':') && !mount.target.contains(':')) {
                    Some(label) => {
                        let access = if mount.read_only { "ro" } else { "rw" };
                        binds.push(format!("{path}:{}:{access},{label}", mount.target));
                    }
                    None => mounts.push(plain(MountType::BIND, Some(path))),
                }
            }
            MountSource::Volume { key, nocopy, subpath, labels } => {
                let Some(volume) = around.project.volumes.get(key) else { continue };
                let options = MountVolumeOptions {
                    no_copy: nocopy.then_some(true),
                    labels: map(labels),
                    subpath: subpath.clone(),
                    ..MountVolumeOptions::default()
                };
                let volume_options = (options != MountVolumeOptions::default()).then_some(options);
                let mount = plain(MountType::VOLUME, Some(volume.name.clone()));
                mounts.push(bollard::models::Mount { volume_options, ..mount });
            }
            MountSource::Anonymous { nocopy } => {
                let options = MountVolumeOptions { no_copy: nocopy.then_some(true), ..MountVolumeOptions::default() };
                let volume_options = (options != MountVolumeOptions::default()).then_some(options);
                let source = around.inherited.get(&mount.target).cloned();
                mounts.push(bollard::models::Mount { volume_options, ..plain(MountType::VOLUME, source) });
            }
            MountSource::Tmpfs { size, mode, options } => {
                let mut words = options.clone();
                words.extend(size.map(|bytes| format!("size={bytes}")));
                words.extend(mode.map(|mode| format!("mode={mode:o}")));
                words.extend(mount.read_only.then(|| "ro".to_owned()));
                tmpfs.insert(mount.target.clone(), words.join(","));
            }
            MountSource::Image { image, subpath } => {
                let image_options = subpath.clone().map(|path| MountImageOptions { subpath: Some(path) });
                let id = around.images.get(image).unwrap_or(image);
                mounts.push(bollard::models::Mount { image_options, ..plain(MountType::IMAGE, Some(id.clone())) });
            }
        }
    }
    let declared: Vec<&str> = service.mounts.iter().map(|mount| mount.target.as_str()).collect();
    for (target, volume) in around.inherited {
        if !declared.contains(&target.as_str()) {
            mounts.push(bollard::models::Mount {
                target: Some(target.clone()),
                source: Some(volume.clone()),
                typ: Some(MountType::VOLUME),
                ..bollard::models::Mount::default()
            });
        }
    }
    host.mounts = (!mounts.is_empty()).then_some(mounts);
    host.binds = (!binds.is_empty()).then_some(binds);
    host.tmpfs = some(tmpfs);
}
