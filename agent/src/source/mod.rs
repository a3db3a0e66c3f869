//! The Git source: fetches one branch of one fleet repository and has its head
//! judged on this device.
//!
//! The transport is ours (HTTP through the agent's one client, `ssh` and
//! `git-upload-pack` as children), so that every read has a limit, a time-out
//! and can be stopped; gix speaks the protocol and reads packs. The rules are
//! in [`fleet::trust`]; nothing here decides who is trusted. The host may be
//! hostile: it is believed about nothing but bytes, and those are limited.

mod address;
mod error;
mod fetch;
mod http;
mod judging;
mod local;
mod meter;
mod packs;
mod process;
mod session;
#[cfg(test)]
mod tests;
mod tree;
mod trouble;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::revision::CommitId;
use fleet::tree::Tree;
use fleet::trust::signers::Signer;
use fleet::trust::{Mark, Root};
use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::config::settings::SourceSettings;
use crate::ports::journal::Accepted;
use crate::ports::source::{Fetched, Source, SourceError};

use self::address::Address;
use self::fetch::{After, Fetch, Found};
use self::local::Local;
use self::meter::Meter;
use self::packs::Packs;

/// The longest silence of a host.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest that a whole fetch may take.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// A fleet repository behind an URL, with its local copy.
pub struct GitSource {
    shared: Arc<Shared>,
}

/// What a fetch on a blocking thread needs.
struct Shared {
    settings: SourceSettings,
    address: Address,
    floor: Option<CommitId>,
    folder: PathBuf,
    build_date: Timestamp,
    silence: Duration,
    /// Only for HTTP; keeps TLS sessions, so that a poll is small.
    client: Option<reqwest::Client>,
    /// For readers of trees, who must not wait for a fetch.
    packs: Mutex<Option<Arc<Packs>>>,
    /// One fetch at a time.
    work: Mutex<Work>,
}

/// What one fetch leaves to the next.
#[derive(Default)]
struct Work {
    local: Option<Local>,
    /// A head whose history the host does not give: not asked for at every poll.
    gave_up: Option<fetch::GaveUp>,
    /// Making the local repository anew failed; not tried again until it grows.
    compact_failed_at: usize,
}

/// What `verify` says of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// The head holds; who signed it (empty where an accepted head is asked for that nobody signed).
    Holds { revision: CommitId, principal: String, fingerprint: String },
    /// It can only be judged once the clock is set.
    ClockUnset { head: CommitId },
}

impl GitSource {
    /// A source with its local repository in `folder`. Blocks for a moment.
    /// `build_date`: a clock before that is not set.
    ///
    /// # Errors
    /// When a setting can't be used, or the folder can't be read.
    pub fn open(settings: &SourceSettings, folder: &Path, build_date: Timestamp) -> Result<Self, SourceError> {
        let address = Address::parse(&settings.url).map_err(|source| {
            error::setting("source.url", &settings.url, Some("https://…, ssh://… or a path"), source)
        })?;
        let floor = settings.floor.as_deref().map(str::parse).transpose().map_err(|source| {
            error::setting("source.floor", settings.floor.as_deref().unwrap_or_default(), None, source)
        })?;
        if !branch_is_safe(&settings.branch) {
            return Err(error::setting("source.branch", &settings.branch, None, error::Cause("it is no branch name")));
        }
        let client = match &address {
            Address::Http { tls, loopback, .. } => {
                if !tls && !loopback && settings.token_file.is_some() {
                    let hint = Some("a token is not sent in the clear: use https");
                    return Err(error::setting("source.url", &settings.url, hint, error::Cause("it is not encrypted")));
                }
                Some(client(settings)?)
            }
            Address::Ssh { .. } | Address::File { .. } => None,
        };
        let limit = object_limit(settings);
        let local = match Local::open(folder, limit) {
            Ok(local) => local,
            Err(damage) => {
                tracing::warn!(cause = meter::chain(&damage), "the local repository is set aside");
                local::set_aside(folder).map_err(error::local)?;
                None
            }
        };
        let packs = local.as_ref().map(|local| Arc::clone(&local.packs));
        Ok(Self {
            shared: Arc::new(Shared {
                settings: settings.clone(),
                address,
                floor,
                folder: folder.to_owned(),
                build_date,
                silence: SILENCE,
                client,
                packs: Mutex::new(packs),
                work: Mutex::new(Work { local, ..Work::default() }),
            }),
        })
    }

    /// Waits no longer than this for a host's next byte (60 s by default).
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> Self {
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => Self { shared: Arc::new(Shared { silence, ..shared }) },
            Err(shared) => Self { shared },
        }
    }

    /// Fetches and judges the head after `after`, whose own `trust/` is taken
    /// as in force (`None`: a first start). Nothing is kept but objects.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub async fn verify(&self, after: Option<&CommitId>, now: Timestamp) -> Result<Verified, SourceError> {
        match self.perform(After::Verify(after.cloned()), now).await? {
            Found::Verified(verified) => Ok(verified),
            Found::Port(Fetched::ClockUnset { head }) => Ok(Verified::ClockUnset { head }),
            Found::Port(Fetched::New(accepted)) => Ok(Verified::Holds {
                revision: accepted.revision.id,
                principal: accepted.signer,
                fingerprint: accepted.fingerprint,
            }),
            Found::Port(Fetched::Same) => {
                Err(error::local_failure("judge", "the head", error::Cause("an accepted head was not expected")))
            }
        }
    }

    async fn perform(&self, after: After, now: Timestamp) -> Result<Found, SourceError> {
        let limit = self.shared.settings.limits.pack_mib.saturating_mul(1024 * 1024);
        // Dropped with this future: a fetch that is given up stops by itself.
        let (meter, _stop) = Meter::new(limit, self.shared.silence, PATIENCE);
        let (shared, runtime) = (Arc::clone(&self.shared), Handle::current());
        let task = tokio::task::spawn_blocking(move || {
            let mut work = shared.work.lock().unwrap_or_else(PoisonError::into_inner);
            let root = root(&shared.settings)?;
            Fetch { shared: &shared, work: &mut work, meter, runtime, root, now }.run(&after)
        });
        match task.await {
            Ok(found) => found,
            Err(panic) => Err(error::local_failure("fetch", &self.shared.settings.url, panic)),
        }
    }
}

impl Source for GitSource {
    async fn fetch(&self, after: Option<&Accepted>, now: Timestamp) -> Result<Fetched, SourceError> {
        let after = after.map_or(After::Nothing, |accepted| After::Mark(Box::new(judging::mark(accepted))));
        match self.perform(after, now).await? {
            Found::Port(fetched) => Ok(fetched),
            Found::Verified(_) => Ok(Fetched::Same),
        }
    }

    async fn anchor(
        &self,
        before: Option<&Accepted>,
        accept: &CommitId,
        now: Timestamp,
    ) -> Result<Fetched, SourceError> {
        let before = before.map(judging::mark).map(Box::new);
        match self.perform(After::Anew { accept: accept.clone(), before }, now).await? {
            Found::Port(fetched) => Ok(fetched),
            Found::Verified(_) => Ok(Fetched::Same),
        }
    }

    fn tree(&self, commit: &CommitId) -> Result<Arc<dyn Tree + Send + Sync>, SourceError> {
        let packs = self.shared.packs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let absent =
            || error::local_failure("read", commit.as_str(), error::Cause("it is not in the local repository"));
        let id = judging::object_id(commit).ok_or_else(absent)?;
        let packs = packs.filter(|packs| packs.hash == id.kind() && packs.has(&id)).ok_or_else(absent)?;
        match tree::open(&packs, &id, &self.shared.settings.limits) {
            Ok(tree) => Ok(Arc::new(tree)),
            Err(bad) => Err(error::bad_tree(commit, bad)),
        }
    }
}

impl Shared {
    fn publish(&self, local: &Local) {
        *self.packs.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&local.packs));
    }
}

/// A name that is one ref below `refs/heads/` and nothing else.
fn branch_is_safe(branch: &str) -> bool {
    let name = format!("refs/heads/{branch}");
    gix::validate::reference::name(name.as_str().into()).is_ok()
}

/// The largest object that is decoded. Files outside format 1 may be larger
/// than `blob_mib`, but nothing may be larger than all that is fetched.
fn object_limit(settings: &SourceSettings) -> usize {
    let mib = settings.limits.pack_mib.max(settings.limits.blob_mib);
    usize::try_from(mib.saturating_mul(1024 * 1024)).unwrap_or(usize::MAX)
}

fn client(settings: &SourceSettings) -> Result<reqwest::Client, SourceError> {
    let tls = crate::tls::client_config(settings.ca_file.as_deref()).map_err(|source| {
        let file = settings.ca_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        error::setting("source.ca_file", &file, None, source)
    })?;
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured((*tls).clone())
        // HTTP/2 costs more than it brings for two requests in a row.
        .http1_only()
        .connect_timeout(Duration::from_secs(15))
        .pool_idle_timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::custom(|attempt| {
            let downgrade =
                attempt.url().scheme() != "https" && attempt.previous().iter().any(|url| url.scheme() == "https");
            if downgrade || attempt.previous().len() > 5 { attempt.stop() } else { attempt.follow() }
        }))
        .no_proxy();
    if let Some(proxy) = &settings.proxy {
        let proxy = reqwest::Proxy::all(proxy)
            .map_err(|source| error::setting("source.proxy", "the proxy's URL", None, source))?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|source| error::local_failure("set up", "the HTTP client", source))
}

/// The device's own root of trust, read anew for every fetch.
fn root(settings: &SourceSettings) -> Result<Root, SourceError> {
    let read = |path: &Path| match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error::root(path, error)),
    };
    let allowed = read(&settings.trust)?
        .ok_or_else(|| error::root(&settings.trust, std::io::Error::from(std::io::ErrorKind::NotFound)))?;
    let revoked = read(&settings.revoked)?;
    let (root, findings) =
        Root::parse(&allowed, revoked.as_deref()).map_err(|source| error::root(&settings.trust, source))?;
    for finding in findings {
        tracing::debug!(%finding, "a line of the device's own trust file counts for less than it says");
    }
    Ok(root)
}

/// Who a mark says signed it, where it says so.
fn signed_by(mark: &Mark) -> Option<&Signer> {
    (!mark.signer.fingerprint.is_empty()).then_some(&mark.signer)
}
