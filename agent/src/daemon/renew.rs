//! The agent's own version: what the accepted revision says of it, its
//! download, and the moment to begin anew with it. Whether it proves itself then
//! is seen in [`super::trial`].
//!
//! Beside the phases, not one of them: an agent that can't be had keeps no
//! revision back, and a revision that fails takes no agent with it.

use std::path::PathBuf;
use std::time::Duration;

use fleet::digest::Digest;
use fleet::repo::files::AgentRelease;
use fleet::revision::Revision;
use fleet::wire::status::LinkState;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::context::{Parts, chain};
use super::core::{Core, GATE, Input};
use super::gate::{explain, gate};
use super::record::note;
use crate::config::settings::UpdateSettings;
use crate::phase::Phase;
use crate::ports::journal::State;
use crate::ports::uplink::Uplink;
use crate::retry::Backoff;
use crate::update::download::{download, shown};
use crate::update::preflight::{Unfit, preflight};
use crate::update::record::{Program, Record, Trial};
use crate::update::start::{Launched, digest_of};
use crate::update::{self, MACHINE};

const RETRY: Backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(3600) };
pub(super) const CONDITION: &str = "AgentUpdated";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// See the module.
pub(crate) struct Renewal {
    pub(super) settings: UpdateSettings,
    launched: Launched,
    pub(super) folder: PathBuf,
    /// Whose word was asked for, and whose was read.
    asked: Option<Revision>,
    read: Option<Revision>,
    wanted: Option<Wanted>,
    /// A read or a download is under way.
    busy: bool,
    /// Ends the download, which a host may draw out for as long as it likes.
    download: Option<AbortHandle>,
    failures: u32,
    retry_at: Option<Instant>,
    /// Of a program that was not in time once, how often, and when it is tried
    /// again: a newer commit with the same word does not begin the wait anew.
    waits: Option<((Digest, u32), Instant)>,
    /// The moment is tried again then.
    gate_at: Option<Instant>,
    /// Until when this agent has to be healthy.
    pub(super) trial_until: Option<Instant>,
}

/// What the accepted revision wants this machine to run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    program: Program,
    url: String,
    /// It is in the folder, and starts.
    ready: bool,
}

/// How a work of the renewal ended.
pub(crate) enum Renewed {
    Read(Revision, Result<Word, String>),
    /// The program of this digest; or reason, message, and whether waiting may mend it.
    Ready(Digest, Result<(), (&'static str, String, bool)>),
}

/// What a revision says, and what runs.
pub(crate) struct Word {
    release: Option<AgentRelease>,
    /// Of the program that runs, where the revision names one.
    running: Option<Digest>,
    base: Option<Digest>,
}

impl Renewal {
    pub(crate) fn new(settings: UpdateSettings, launched: Launched, store: &std::path::Path) -> Self {
        let left = launched.left.map_or(settings.limit, |left| left.min(settings.limit));
        let trial_until = launched.trial.then(|| Instant::now() + left);
        Self {
            settings,
            launched,
            folder: update::folder(store),
            asked: None,
            read: None,
            wanted: None,
            busy: false,
            download: None,
            failures: 0,
            retry_at: None,
            waits: None,
            gate_at: None,
            trial_until,
        }
    }

    /// An operator wants it now, also what failed.
    pub(crate) fn retry(&mut self) {
        self.read = None;
        self.give_up_download();
        self.failures = 0;
        self.retry_at = None;
        self.waits = None;
        self.gate_at = None;
        let cleared = Record::read(&self.folder).and_then(|mut record| {
            if record.failed.is_empty() {
                return Ok(());
            }
            record.failed.clear();
            record.write(&self.folder)
        });
        if let Err(error) = cleared {
            tracing::warn!(%error, "what is remembered of failed agents can't be cleared");
        }
    }

    /// What is there of it stays for the next.
    fn give_up_download(&mut self) {
        if let Some(download) = self.download.take() {
            download.abort();
            self.busy = false;
        }
    }

    pub(crate) fn deadlines(&self) -> [Option<Instant>; 3] {
        [self.retry_at, self.gate_at, self.trial_until]
    }
}

impl<P: Parts, U: Uplink> Core<P, U> {
    /// Takes the next step towards the agent that is wanted. True: this
    /// process is to begin anew.
    pub(super) fn renew(&mut self) -> bool {
        if self.once {
            return false;
        }
        if let Some(until) = self.renewal.trial_until {
            return self.on_trial(until);
        }
        let state = self.context.state();
        let Some(accepted) = state.accepted.as_ref().map(|accepted| accepted.revision.clone()) else { return false };
        let now = Instant::now();
        if self.renewal.asked.as_ref() != Some(&accepted) {
            // A newer word waits neither for the download of an older one nor for its next try.
            self.renewal.asked = Some(accepted.clone());
            self.renewal.give_up_download();
            self.renewal.failures = 0;
            self.renewal.retry_at = None;
        }
        if self.renewal.busy || self.renewal.retry_at.is_some_and(|at| now < at) {
            return false;
        }
        if self.renewal.read.as_ref() != Some(&accepted) {
            self.read_word(accepted);
            return false;
        }
        let Some(wanted) = self.renewal.wanted.clone() else { return false };
        if !wanted.ready {
            self.get(&wanted);
            return false;
        }
        if self.renewal.gate_at.is_some_and(|at| now < at) {
            return false;
        }
        self.renewal.gate_at = Some(now + GATE);
        match self.keeps_waiting(&state) {
            Some((reason, why)) => {
                let message = format!("agent {} is ready: {why}", wanted.program.version);
                self.context.set(CONDITION, false, reason, message);
                false
            }
            None => self.switch(&wanted, &accepted),
        }
    }

    fn read_word(&mut self, accepted: Revision) {
        self.renewal.busy = true;
        let (fetcher, send) = (self.fetcher.clone(), self.send.clone());
        let base = self.renewal.launched.base.clone();
        tokio::task::spawn_local(async move {
            let word = async {
                let file = fetcher.file(&accepted.id, "burgee.yaml").await.map_err(|error| chain(&error))?;
                let release = AgentRelease::peek("burgee.yaml", &file.unwrap_or_default())
                    .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
                if release.is_none() {
                    return Ok(Word { release, running: None, base: None });
                }
                let digests = move || (running(), digest_of(&base).ok());
                let (running, base) = tokio::task::spawn_blocking(digests).await.map_err(|error| error.to_string())?;
                Ok(Word { release, running, base })
            };
            let word = word.await;
            let _ = send.send(Input::Renewed(Renewed::Read(accepted, word)));
        });
    }

    fn get(&mut self, wanted: &Wanted) {
        self.renewal.busy = true;
        let Wanted { program, url, .. } = wanted.clone();
        let (settings, folder) = (self.renewal.settings.clone(), self.renewal.folder.clone());
        let send = self.send.clone();
        tracing::info!(version = program.version, url = shown(&url), "downloading an agent");
        let message = format!("agent {} is being downloaded", program.version);
        self.context.set(CONDITION, false, "Downloading", message);
        let task = tokio::task::spawn_local(async move {
            let ready = match download(&settings, &folder, &url, program.sha256).await {
                Ok(path) => preflight(&path, &program.version).await.map_err(|Unfit { cause, passing, hint }| {
                    ("NotExecutable", format!("agent {} won't do: {cause}\nhint: {hint}", program.version), passing)
                }),
                Err(error) => {
                    let message = format!("{}\nhint: {}", chain(&error), error.hint());
                    Err((error.reason(), message, true))
                }
            };
            let _ = send.send(Input::Renewed(Renewed::Ready(program.sha256, ready)));
        });
        self.renewal.download = Some(task.abort_handle());
    }

    pub(super) fn renewed(&mut self, renewed: Renewed) {
        self.renewal.busy = false;
        self.renewal.download = None;
        match renewed {
            Renewed::Read(revision, Ok(word)) => {
                self.renewal.read = Some(revision);
                self.renewal.failures = 0;
                self.renewal.wanted = self.judge(word);
            }
            Renewed::Read(revision, Err(cause)) => {
                // A revision with a word that can't be read says nothing.
                tracing::warn!(%revision, cause, "what the revision says of the agent can't be read");
                self.renewal_later();
            }
            Renewed::Ready(sha256, ready) => {
                let Some(wanted) = self.renewal.wanted.as_mut().filter(|wanted| wanted.program.sha256 == sha256) else {
                    return;
                };
                match ready {
                    Ok(()) => wanted.ready = true,
                    Err((reason, message, may_mend)) => {
                        tracing::warn!(reason, message, "no new agent");
                        let program = wanted.program.clone();
                        self.context.set(CONDITION, false, reason, message.clone());
                        if may_mend {
                            self.renewal_later();
                        } else {
                            self.renewal.wanted = None;
                            self.remember(|record| record.fail(program, reason, message, true));
                            self.tell_failures();
                        }
                    }
                }
            }
        }
    }

    fn renewal_later(&mut self) {
        self.renewal.failures += 1;
        self.renewal.retry_at = Some(Instant::now() + RETRY.delay(self.renewal.failures, self.context.seed));
    }

    /// What is to be done about what the revision says. `None`: nothing.
    fn judge(&mut self, word: Word) -> Option<Wanted> {
        self.tell_failures();
        let Some(release) = word.release else {
            self.context.clear(CONDITION);
            return None;
        };
        let version = release.version.clone();
        let say = |reason, message: String| self.context.set(CONDITION, false, reason, message);
        if !self.renewal.settings.enabled {
            let hint = "set update.enabled in agent.toml to true, or update the device's package";
            say("Disabled", format!("burgee.yaml names agent {version}; update.enabled is false here\nhint: {hint}"));
            return None;
        }
        let Some((url, sha256)) = MACHINE.and_then(|machine| release.for_machine(machine)) else {
            let machine = MACHINE.unwrap_or("this machine");
            let hint = "name its digest under agent.sha256 in burgee.yaml; until then the device keeps its agent";
            say(
                "NotForThisMachine",
                format!("burgee.yaml names agent {version}, but none for {machine}\nhint: {hint}"),
            );
            return None;
        };
        if word.running == Some(sha256) {
            self.context.clear(CONDITION);
            return None;
        }
        let record = match Record::read(&self.renewal.folder) {
            Ok(record) => record,
            Err(error) => {
                // What failed before is not known: nothing is tried.
                say("StoreFailed", unreadable(&self.renewal.folder, &error));
                return None;
            }
        };
        let program = Program { version, sha256 };
        if let Some(failed) = record.failure(&sha256).filter(|failed| failed.blocked) {
            let hint = "name another version in burgee.yaml, or `burgee-agent retry`";
            say(&failed.reason, format!("{}; it is blocked\nhint: {hint}", failed.message));
            return None;
        }
        // One that was not in time, perhaps through nobody's fault, waits longer each time.
        if let Some(failed) = record.failure(&sha256) {
            say(&failed.reason, format!("{}; it is tried again", failed.message));
            let which = (sha256, failed.times);
            let at = match self.renewal.waits {
                Some((waits, at)) if waits == which => at,
                _ => Instant::now() + self.renewal.settings.limit * failed.times,
            };
            self.renewal.waits = Some((which, at));
            self.renewal.retry_at = Some(at);
        }
        // The package's own program needs no download and no trial.
        let ready = word.base == Some(sha256);
        Some(Wanted { program, url, ready })
    }

    /// Reason and message of what keeps a ready program waiting.
    fn keeps_waiting(&self, state: &State) -> Option<(&'static str, String)> {
        let busy = match &state.phase {
            Phase::Applying { .. } | Phase::Probing { .. } | Phase::RollingBack { .. } => true,
            Phase::Preparing { .. } => self.retry_at.is_none(),
            Phase::Empty | Phase::Held { .. } | Phase::Steady { .. } | Phase::Stalled { .. } => false,
        };
        if busy {
            return Some(("Busy", "a revision is on its way; it begins after that".to_owned()));
        }
        // A new one has to reach the repository: where nobody can, it would fail for nothing.
        if self.polling.link() != LinkState::Up {
            return Some(("Offline", "it waits until the fleet repository is reached again".to_owned()));
        }
        let ours = [state.accepted.as_ref().map(|accepted| &accepted.revision), state.good.as_ref()];
        let kept = ours.into_iter().flatten().find_map(|revision| self.context.kept(revision));
        let hold = match (&kept, &state.suspended) {
            (Some((kept, _)), _) => gate(&self.context, &kept.desired),
            (None, Some(_)) => Some(crate::phase::Hold::Suspended),
            (None, None) => None,
        };
        hold.map(|hold| {
            let (reason, text) = explain(hold);
            (reason, text.replace("a new revision is ready and waits", "it waits"))
        })
    }

    /// Records the trial and begins anew, or says why not.
    fn switch(&mut self, wanted: &Wanted, accepted: &Revision) -> bool {
        let base = match digest_of(&self.renewal.launched.base) {
            Ok(base) => base,
            Err(error) => {
                let path = self.renewal.launched.base.display();
                let message =
                    format!("the installed agent {path} can't be read: {error}\nhint: install the package anew");
                self.context.set(CONDITION, false, "BaseMissing", message);
                self.renewal_later();
                return false;
            }
        };
        let program = wanted.program.clone();
        let limit_secs = self.renewal.settings.limit.as_secs();
        let recorded = self.remember(|record| {
            record.base = Some(base);
            if program.sha256 == base {
                record.current = None;
                record.trial = None;
            } else {
                record.trial = Some(Trial { program: program.clone(), starts: 0, limit_secs, began: None });
            }
        });
        if !recorded {
            self.renewal_later();
            return false;
        }
        let message = format!("from {VERSION} to {}", program.version);
        tracing::info!(from = VERSION, to = program.version, sha256 = %program.sha256, "beginning anew with another agent");
        let now = self.context.now();
        // The history is for people: what can't be noted changes nothing.
        let _ = self.context.commit(None, |state| note(state, now, accepted, "agent-update", &message));
        self.say(Some(accepted), "agent-update", &message);
        true
    }

    /// The hub and the history hear of each failure once.
    fn tell_failures(&mut self) {
        let mut untold = Vec::new();
        // One that can't be read is told of where it is needed.
        if Record::read(&self.renewal.folder).is_ok_and(|record| record.failed.iter().all(|failed| failed.told)) {
            return;
        }
        self.remember(|record| {
            for failed in record.failed.iter_mut().filter(|failed| !failed.told) {
                failed.told = true;
                untold.push(failed.message.clone());
            }
        });
        let accepted = self.context.state().accepted.map(|accepted| accepted.revision);
        let now = self.context.now();
        for message in untold {
            if let Some(accepted) = &accepted {
                let _ = self.context.commit(None, |state| note(state, now, accepted, "agent-update-failed", &message));
            }
            self.say(accepted.as_ref(), "agent-update-failed", &message);
        }
    }

    /// Changes the record. False: it could not be, which a condition says.
    pub(super) fn remember(&self, change: impl FnOnce(&mut Record)) -> bool {
        let folder = &self.renewal.folder;
        let done = Record::read(folder).and_then(|mut record| {
            change(&mut record);
            record.write(folder)
        });
        if let Err(error) = &done {
            tracing::error!(%error, "the record of downloaded agents can't be read or written");
            self.context.set(CONDITION, false, "StoreFailed", unreadable(folder, error));
        }
        done.is_ok()
    }
}

/// What a person reads of a record that can't be read or written.
fn unreadable(folder: &std::path::Path, error: &std::io::Error) -> String {
    format!(
        "the record of agents, {}, can't be read or written: {error}\nhint: look at the disk; if the file is damaged, remove it and restart the agent: the installed one runs then",
        folder.join("record.json").display()
    )
}

/// The digest of the program that this process runs.
fn running() -> Option<Digest> {
    digest_of(&std::env::current_exe().ok()?).ok()
}
