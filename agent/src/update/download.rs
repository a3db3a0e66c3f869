//! Downloads a program: resumed where it was cut off, checked against the
//! digest of the signed commit, durable before it is named.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::digest::Digest;
use reqwest::header::RANGE;
use reqwest::{Client, Proxy, StatusCode, redirect};

use tokio::time::timeout;

use super::program;
use super::record::make_folder;
use super::start::digest_of;
use crate::config::settings::UpdateSettings;
use crate::tls;

/// No agent is larger.
const MOST: u64 = 64 * 1024 * 1024;
/// What the disk keeps free beside it.
const SPARE: u64 = 16 * 1024 * 1024;
/// How much is written between two looks at what is free.
const STRIDE: u64 = 1024 * 1024;
/// A host that draws it out for longer is left; what is there stays for the next try.
const LONGEST: Duration = Duration::from_secs(3600);

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadError {
    #[error("cannot set up the download of {url}")]
    Setup {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot download {url}")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("cannot download {url}: it took longer than {} min", LONGEST.as_secs() / 60)]
    TooSlow { url: String },
    #[error("cannot download {url}: the host answered {status}")]
    Answer { url: String, status: StatusCode },
    #[error("{url} is larger than {} MiB", MOST >> 20)]
    TooLarge { url: String },
    #[error("{url} has SHA-256 {got}, and the signed commit says {want}")]
    Digest { url: String, want: Digest, got: Digest },
    #[error("{free} MiB are free in {folder}, too little for an agent")]
    DiskFull { folder: String, free: u64 },
    #[error("cannot write {path}")]
    Io {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl DownloadError {
    /// Stable, CamelCase.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Setup { .. } => "DownloadMisconfigured",
            Self::Unreachable { .. } | Self::TooSlow { .. } | Self::Answer { .. } => "DownloadFailed",
            Self::TooLarge { .. } => "DownloadTooLarge",
            Self::Digest { .. } => "DigestMismatch",
            Self::DiskFull { .. } => "DiskFull",
            Self::Io { .. } => "StoreFailed",
        }
    }

    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Setup { .. } | Self::Unreachable { .. } => "see update.ca_file and source.proxy in agent.toml",
            Self::TooSlow { .. } => "it is tried again, and goes on where it was",
            Self::Answer { .. } => "is agent.url in burgee.yaml right, and the file published?",
            Self::TooLarge { .. } | Self::Digest { .. } => {
                "publish the file that agent.sha256 in burgee.yaml names, or correct it with a signed commit"
            }
            Self::DiskFull { .. } | Self::Io { .. } => "free space; it is tried again",
        }
    }
}

/// Brings the program with this digest into `folder`, by `url`, unless it is
/// there already.
///
/// # Errors
/// What was downloaded so far stays for the next try, unless it is wrong.
pub(crate) async fn download(
    settings: &UpdateSettings,
    folder: &Path,
    url: &str,
    want: Digest,
) -> Result<PathBuf, DownloadError> {
    let (path, part) = (program(folder, &want), folder.join(format!("{want}.part")));
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |source| DownloadError::Io { path, source }
    };
    make_folder(folder).map_err(failed(folder))?;
    if path.exists() {
        if digest(&path).await.map_err(failed(&path))? == want {
            return Ok(path);
        }
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    sweep(folder, &part);
    let mut resumed = part.exists();
    loop {
        let fetched = timeout(LONGEST, fetch(settings, folder, url, &part)).await;
        fetched.unwrap_or_else(|_| Err(DownloadError::TooSlow { url: shown(url) }))?;
        let got = digest(&part).await.map_err(failed(&part))?;
        if got == want {
            break;
        }
        fs::remove_file(&part).map_err(failed(&part))?;
        // What was there before may have been of another file: once from its beginning.
        if !std::mem::take(&mut resumed) {
            return Err(DownloadError::Digest { url: shown(url), want, got });
        }
    }
    let (folder, to) = (folder.to_owned(), path.clone());
    let settled = blocking(move || {
        fs::set_permissions(&part, fs::Permissions::from_mode(0o700))?;
        File::open(&part)?.sync_all()?;
        fs::rename(&part, &to)?;
        File::open(folder)?.sync_all()
    });
    settled.await.map_err(failed(&path))?;
    Ok(path)
}

/// A URL for people: who signs addresses puts the secret behind the `?`.
pub(crate) fn shown(url: &str) -> String {
    url.split(['?', '#']).next().unwrap_or_default().to_owned()
}

async fn digest(path: &Path) -> io::Result<Digest> {
    let path = path.to_owned();
    blocking(move || digest_of(&path)).await
}

/// Off the loop's thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Other downloads that were given up.
fn sweep(folder: &Path, part: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path != part && path.extension().is_some_and(|extension| extension == "part") {
            drop(fs::remove_file(path));
        }
    }
}

/// Adds to `part` until the host has no more.
async fn fetch(settings: &UpdateSettings, folder: &Path, url: &str, part: &Path) -> Result<(), DownloadError> {
    let client = client(settings).map_err(|source| DownloadError::Setup { url: shown(url), source })?;
    let unreachable =
        |source: reqwest::Error| DownloadError::Unreachable { url: shown(url), source: source.without_url() };
    let failed = |source| DownloadError::Io { path: part.display().to_string(), source };
    let mut have = fs::metadata(part).map_or(0, |metadata| metadata.len());
    let mut request = client.get(url);
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let mut response = request.send().await.map_err(unreachable)?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT if have > 0 => {}
        // All of it is there; whether it is right, its digest says.
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => return Ok(()),
        StatusCode::OK => have = 0,
        status => return Err(DownloadError::Answer { url: shown(url), status }),
    }
    let expected = response.content_length().unwrap_or(0);
    if have + expected > MOST {
        return Err(DownloadError::TooLarge { url: shown(url) });
    }
    // A part that fills the disk would keep the journal from the commit that names another.
    let room = |wanted: u64| {
        let free = rustix::fs::statvfs(folder).map_or(u64::MAX, |space| space.f_bavail.saturating_mul(space.f_frsize));
        if free >= wanted + SPARE {
            return Ok(());
        }
        drop(fs::remove_file(part));
        Err(DownloadError::DiskFull { folder: folder.display().to_string(), free: free >> 20 })
    };
    room(expected)?;
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600).append(have > 0).write(true).truncate(have == 0);
    let mut file = options.open(part).map_err(failed)?;
    let mut looked = have;
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        have += chunk.len() as u64;
        if have > MOST {
            drop(fs::remove_file(part));
            return Err(DownloadError::TooLarge { url: shown(url) });
        }
        // What was announced, the look above counted already.
        if have - looked >= STRIDE {
            looked = have;
            room(0)?;
        }
        file.write_all(&chunk).map_err(failed)?;
    }
    Ok(())
}

fn client(settings: &UpdateSettings) -> Result<Client, Box<dyn std::error::Error + Send + Sync>> {
    let mut builder = Client::builder()
        .tls_backend_preconfigured((*tls::client_config(settings.ca_file.as_deref())?).clone())
        .http1_only()
        // Where releases lie is often told by a redirect; the digest holds for all of them.
        .redirect(redirect::Policy::limited(5))
        .https_only(true)
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60))
        .pool_max_idle_per_host(0)
        .no_proxy()
        .user_agent(concat!("burgee-agent/", env!("CARGO_PKG_VERSION")));
    if let Some(proxy) = &settings.proxy {
        builder = builder.proxy(Proxy::all(proxy)?);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn no_secret_of_an_address_is_shown() {
        assert_eq!(shown("https://x/a-aarch64?sv=1&sig=secret#part"), "https://x/a-aarch64");
        assert_eq!(shown("https://x/a-aarch64"), "https://x/a-aarch64");
    }
}
