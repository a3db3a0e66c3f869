//! Kustomizations, rendered by the device's own `kubectl kustomize`: with a
//! time limit, without network and credentials, from the app's files alone.
//!
//! What was rendered is kept in the store by the digest of its files, so that
//! a compare starts no program, and a rollback renders what it rendered then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use fleet::desired::{Blobs, KubernetesSpec};
use fleet::digest::Digest;
use fleet::name::AppName;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::ports::runtime::RuntimeError;

const LIMIT: Duration = Duration::from_secs(60);
/// A larger rendering is not read.
const LARGEST: u64 = 16 << 20;
/// Programs that render, with the words before `kustomize`.
const PROGRAMS: [(&str, &[&str]); 2] = [("kubectl", &[]), ("k3s", &["kubectl"])];
/// Where k3s and packages put them, beside what `PATH` says.
const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/opt/bin", "/var/lib/rancher/k3s/data/current/bin"];

/// See the module.
pub(super) struct Kustomize {
    /// `<store>/kubernetes`.
    folder: PathBuf,
}

impl Kustomize {
    pub(super) fn new(store: &Path) -> Self {
        Self { folder: store.join("kubernetes") }
    }

    /// Where a rendering is kept.
    fn kept(&self, app: &AppName, spec: &KubernetesSpec) -> Result<PathBuf, RuntimeError> {
        let digest = Digest::of_json(&spec.files).map_err(|error| failed(app, io::Error::other(error)))?;
        Ok(self.folder.join(format!("{app}-{digest}.yaml")))
    }

    /// The rendered manifests of an app, made once.
    ///
    /// # Errors
    /// When there is no program that renders, or it refuses.
    pub(super) async fn rendered(
        &self,
        app: &AppName,
        spec: &KubernetesSpec,
        blobs: &Blobs,
    ) -> Result<String, RuntimeError> {
        let kept = self.kept(app, spec)?;
        match fs::read_to_string(&kept) {
            Ok(text) => return Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(app, error)),
        }
        let files = self.folder.join(format!(".rendering-{app}"));
        let outcome = async {
            lay_out(&files, spec, blobs).map_err(|error| failed(app, error))?;
            run(app, &files).await
        }
        .await;
        drop(fs::remove_dir_all(&files));
        let text = outcome?;
        let fresh = kept.with_extension("new");
        let write = || -> io::Result<()> {
            fs::write(&fresh, &text)?;
            fs::File::open(&fresh)?.sync_all()?;
            fs::rename(&fresh, &kept)
        };
        write().map_err(|error| failed(app, error))?;
        Ok(text)
    }

    /// Removes the renderings of what is not kept.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn sweep<'s>(&self, keep: impl Iterator<Item = (&'s AppName, &'s KubernetesSpec)>) -> io::Result<()> {
        let keep: Vec<PathBuf> = keep.filter_map(|(app, spec)| self.kept(app, spec).ok()).collect();
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "yaml") && !keep.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn failed(app: &AppName, error: io::Error) -> RuntimeError {
    RuntimeError::Observe { what: format!("the kustomization of app {app}"), source: Box::new(error) }
}

/// Writes the app's files into a folder of their own.
fn lay_out(folder: &Path, spec: &KubernetesSpec, blobs: &Blobs) -> io::Result<()> {
    drop(fs::remove_dir_all(folder));
    fs::create_dir_all(folder)?;
    for (path, digest) in &spec.files {
        let target = folder.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let bytes = blobs.get(digest).ok_or_else(|| io::Error::other(format!("blob {} is missing", digest.short())))?;
        fs::write(target, bytes)?;
    }
    Ok(())
}

fn program() -> Option<(PathBuf, &'static [&'static str])> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from)).collect();
    PROGRAMS.iter().find_map(|(name, words)| {
        let found = folders.iter().map(|folder| folder.join(name)).find(|program| program.is_file())?;
        Some((found, *words))
    })
}

async fn run(app: &AppName, folder: &Path) -> Result<String, RuntimeError> {
    let refuse = |cause: String, hint: Option<String>| RuntimeError::Refused {
        object: format!("the kustomization of app {app}"),
        cause,
        hint,
    };
    let Some((program, words)) = program() else {
        return Err(refuse(
            "there is no kubectl on this device to render it".to_owned(),
            Some("install kubectl (k3s has one), or commit what `kubectl kustomize` prints".to_owned()),
        ));
    };
    let mut child = Command::new(&program)
        .args(words)
        .arg("kustomize")
        .arg(folder)
        .env_clear()
        // Nothing to fetch with: no git, and for HTTP a proxy that nobody is.
        .env("PATH", "/nonexistent")
        .env("HOME", folder)
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(app, error))?;
    let (mut out, mut said) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let read = async {
        let (out, said) = (&mut out, &mut said);
        let read_out = async move {
            match stdout {
                Some(pipe) => pipe.take(LARGEST + 1).read_to_end(out).await.map(|_| ()),
                None => Ok(()),
            }
        };
        let read_said = async move {
            match stderr {
                Some(pipe) => pipe.take(64 << 10).read_to_end(said).await.map(|_| ()),
                None => Ok(()),
            }
        };
        futures_util::future::try_join(read_out, read_said).await?;
        child.wait().await
    };
    let status = match tokio::time::timeout(LIMIT, read).await {
        Ok(status) => status.map_err(|error| failed(app, error))?,
        Err(_) => return Err(refuse(format!("{} did not end within {} s", program.display(), LIMIT.as_secs()), None)),
    };
    if out.len() as u64 > LARGEST {
        return Err(refuse(format!("it renders to more than {} MiB", LARGEST >> 20), None));
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&said);
        let line: String = said.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(400).collect();
        let line = line.replace(&folder.display().to_string(), "kubernetes");
        let hint = "`kubectl kustomize` in the app's kubernetes folder shows the same; what it names must lie there";
        return Err(refuse(line, Some(hint.to_owned())));
    }
    String::from_utf8(out).map_err(|error| refuse(format!("what it renders to is no text: {error}"), None))
}
