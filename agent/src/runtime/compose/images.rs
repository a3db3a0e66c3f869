//! Images: pulled before anything changes, pinned by id, and removed again
//! once nothing needs them, if it was burgee that pulled them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::query_parameters::{CreateImageOptions, RemoveImageOptions};
use fleet::compose::model::{Project, PullPolicy};
use futures_util::StreamExt;

use super::credentials;
use super::engine::{Link, WRITE, one_line};
use super::{identity, read};
use crate::ports::runtime::{Hinted, Object, Pins, RuntimeError};

/// A pull from which nothing was heard for so long is given up.
const QUIET: Duration = Duration::from_secs(300);

/// Image ids that burgee pulled, with the reference that it asked for.
/// Written when a pull brought something new, so never while idle.
pub(super) struct Record {
    path: PathBuf,
}

impl Record {
    pub(super) fn new(store: &Path) -> Self {
        Self { path: store.join("images.json") }
    }

    fn read(&self) -> io::Result<BTreeMap<String, String>> {
        match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(error) => Err(error),
            // A record that is damaged names nothing: no image is removed by it.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        }
    }

    fn write(&self, pulled: &BTreeMap<String, String>) -> io::Result<()> {
        let parent = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        std::fs::create_dir_all(parent)?;
        let fresh = self.path.with_extension("json.new");
        let mut file = std::fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(pulled)?)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        std::fs::File::open(parent)?.sync_all()
    }

    fn add(&self, id: &str, reference: &str) -> io::Result<()> {
        let mut pulled = self.read()?;
        if pulled.insert(id.to_owned(), reference.to_owned()).as_deref() == Some(reference) {
            return Ok(());
        }
        self.write(&pulled)
    }
}

/// What the Engine has under a reference or id: (id, `os/architecture`).
async fn local(link: &Link, reference: &str) -> Result<Option<(String, String)>, RuntimeError> {
    Ok(read::image(link, reference).await?.map(|image| {
        let id = if image.id.starts_with("sha256:") { image.id } else { format!("sha256:{}", image.id) };
        (id, format!("{}/{}", image.os, image.architecture))
    }))
}

/// The id of what is there under a reference, without asking any registry.
///
/// # Errors
/// When the Engine can't be read.
pub(super) async fn present(link: &Link, reference: &str) -> Result<Option<String>, RuntimeError> {
    Ok(local(link, reference).await?.map(|(id, _)| id))
}

/// Resolves every image of a project, pulling what its policy asks for.
///
/// # Errors
/// When one can't be had.
pub(super) async fn prepare(
    link: &Link,
    project: &Project,
    known: &Pins,
    auth_file: Option<&Path>,
    record: &Record,
) -> Result<Pins, RuntimeError> {
    let mut wanted: BTreeMap<&str, (PullPolicy, Option<&str>)> = BTreeMap::new();
    for service in project.services.values() {
        for image in identity::images(service) {
            let platform = service.platform.as_deref();
            let entry = wanted.entry(image).or_insert((service.pull_policy, platform));
            entry.0 = stronger(entry.0, service.pull_policy);
            entry.1 = entry.1.or(platform);
        }
    }
    let mut pins = Pins::new();
    for (image, (policy, platform)) in wanted {
        // A tag can move: what was resolved once stays, as long as it is there.
        if let Some(id) = known.get(image)
            && present(link, id).await?.is_some()
        {
            pins.insert(image.to_owned(), id.clone());
            continue;
        }
        let before = local(link, image).await?;
        let fits = before.as_ref().is_some_and(|(_, is)| platform.is_none_or(|want| same_platform(want, is)));
        match (policy, &before) {
            (PullPolicy::Missing | PullPolicy::Never, Some((id, _))) if fits => {
                pins.insert(image.to_owned(), id.clone());
                continue;
            }
            (PullPolicy::Never, _) => {
                return Err(RuntimeError::Pull {
                    image: image.to_owned(),
                    transient: true,
                    source: Box::new(Hinted {
                        message: "it is not on this device, and pull_policy is never".to_owned(),
                        hint: format!("load it with `docker load` or `docker pull {image}`, or drop pull_policy"),
                    }),
                });
            }
            (PullPolicy::Missing | PullPolicy::Always, _) => {}
        }
        let before = before.map(|(id, _)| id);
        let id = pull(link, image, platform, auth_file).await?;
        if before.as_ref() != Some(&id) {
            record.add(&id, image).map_err(|error| RuntimeError::Step {
                action: "remember",
                object: Object { kind: "image".to_owned(), name: image.to_owned() },
                transient: true,
                source: Box::new(error),
            })?;
        }
        pins.insert(image.to_owned(), id);
    }
    Ok(pins)
}

fn stronger(a: PullPolicy, b: PullPolicy) -> PullPolicy {
    match (a, b) {
        (PullPolicy::Always, _) | (_, PullPolicy::Always) => PullPolicy::Always,
        (PullPolicy::Missing, _) | (_, PullPolicy::Missing) => PullPolicy::Missing,
        (PullPolicy::Never, PullPolicy::Never) => PullPolicy::Never,
    }
}

/// `linux/arm64/v8` asked for, `linux/arm64` there: the variant isn't compared.
fn same_platform(want: &str, is: &str) -> bool {
    let mut parts = want.split('/');
    match (parts.next(), parts.next()) {
        (Some(os), Some(architecture)) => is == format!("{os}/{architecture}"),
        _ => true,
    }
}

async fn pull(
    link: &Link,
    image: &str,
    platform: Option<&str>,
    auth_file: Option<&Path>,
) -> Result<String, RuntimeError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Pull {
        image: image.to_owned(),
        transient: true,
        source,
    };
    let credentials = match auth_file {
        Some(file) => credentials::lookup(file, image)?,
        None => None,
    };
    let anonymous = credentials.is_none();
    // Without a tag, Docker would pull all of them.
    let tagged = image.contains('@') || image.rsplit('/').next().is_some_and(|last| last.contains(':'));
    let options = CreateImageOptions {
        from_image: Some(if tagged { image.to_owned() } else { format!("{image}:latest") }),
        platform: platform.unwrap_or_default().to_owned(),
        ..CreateImageOptions::default()
    };
    tracing::info!(image, "pulling");
    let mut progress = std::pin::pin!(link.docker.create_image(Some(options), None, credentials));
    let mut layers: BTreeSet<String> = BTreeSet::new();
    loop {
        let item = match tokio::time::timeout(QUIET, progress.next()).await {
            Err(_) => return Err(failed(format!("nothing was heard for {} s", QUIET.as_secs()).into())),
            Ok(None) => break,
            Ok(Some(item)) => item,
        };
        let refusal = match item {
            Ok(info) => {
                if let (Some(layer), Some("Pull complete" | "Already exists")) = (&info.id, info.status.as_deref()) {
                    layers.insert(layer.clone());
                    tracing::debug!(image, layers = layers.len(), "layer is here");
                }
                match info.error_detail.and_then(|detail| detail.message) {
                    Some(message) => message,
                    None => continue,
                }
            }
            Err(error) => match link.failure(&error) {
                away if away.status().is_none() => return Err(away.into()),
                refused => refused.to_string(),
            },
        };
        return Err(failed(explain(image, &one_line(&refusal), anonymous)));
    }
    match local(link, image).await? {
        Some((id, _)) => {
            tracing::info!(image, id, "pulled");
            Ok(id)
        }
        None => Err(failed("the engine pulled it, and does not have it".into())),
    }
}

/// Says what a registry's refusal means.
fn explain(image: &str, message: &str, anonymous: bool) -> Box<dyn std::error::Error + Send + Sync> {
    let has = |text: &str| message.contains(text);
    let hint =
        if has("connection refused") || has("no such host") || has("i/o timeout") || has("network is unreachable") {
            Some(format!(
                "see whether registry {} runs and this device reaches it; the agent tries again by itself",
                credentials::registry(image)
            ))
        } else if has("unauthorized") || has("authentication required") || has("no basic auth") || has("denied") {
            let registry = credentials::registry(image);
            Some(if anonymous {
                format!("if it exists, {registry} wants credentials: name a file in runtime.compose.auth_file")
            } else {
                format!("{registry} does not take the credentials in runtime.compose.auth_file, or has no such image")
            })
        } else if has("manifest unknown") || has("not found") || has("name unknown") {
            Some("push that tag to the registry, or correct the reference".to_owned())
        } else if has("no matching manifest") {
            Some("publish the image for this device's architecture".to_owned())
        } else if has("x509") || has("HTTP response to HTTPS client") {
            Some("the engine does not trust this registry: see its insecure-registries and certs.d".to_owned())
        } else if has("no space left") {
            Some("free space on the engine's disk".to_owned())
        } else {
            None
        };
    let message = message.strip_prefix("Error response from daemon: ").unwrap_or(message).to_owned();
    match hint {
        Some(hint) => Box::new(Hinted { message, hint }),
        None => message.into(),
    }
}

/// Removes the images that burgee pulled and that `keep` doesn't name. One
/// that a container still uses, or that has other names, stays.
///
/// # Errors
/// When the record can't be read or written, or the Engine is away.
pub(super) async fn sweep(link: &Link, record: &Record, keep: &BTreeSet<&str>) -> Result<(), RuntimeError> {
    let io =
        |error: io::Error| RuntimeError::Observe { what: "the record of images".to_owned(), source: Box::new(error) };
    let pulled = record.read().map_err(io)?;
    let mut left = pulled.clone();
    for (id, reference) in pulled.iter().filter(|(id, _)| !keep.contains(id.as_str())) {
        let options = Some(RemoveImageOptions::default());
        match link.ask(WRITE, link.docker.remove_image(id, options, None)).await {
            Ok(_) => {
                tracing::debug!(image = %reference, id, "image removed");
                left.remove(id);
            }
            Err(failure) if failure.is_missing() => {
                left.remove(id);
            }
            Err(failure) if failure.status().is_none() => return Err(failure.into()),
            Err(failure) => tracing::debug!(image = %reference, id, cause = %failure, "image stays"),
        }
    }
    if left != pulled {
        record.write(&left).map_err(io)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        assert!(same_platform("linux/arm64/v8", "linux/arm64"));
        assert!(!same_platform("linux/arm64", "linux/amd64"));
    }

    #[test]
    fn the_record_survives() {
        let store = tempfile::tempdir().unwrap();
        let record = Record::new(store.path());
        record.add("sha256:1", "a:1").unwrap();
        record.add("sha256:2", "a:2").unwrap();
        assert_eq!(Record::new(store.path()).read().unwrap().len(), 2);
    }
}
