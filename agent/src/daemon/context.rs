//! What every part of the daemon works with: the adapters, the journal, and
//! what was last seen. One thread; nothing here is held across an await but
//! the `hand`, which sees to it that one thing at a time changes the device.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use fleet::desired::{AppSpec, Blobs, DesiredApp, DesiredState};
use fleet::name::AppName;
use fleet::revision::Revision;
use fleet::wire::status::{AppStatus, Condition, Sync};
use jiff::Timestamp;

use crate::config::settings::DeviceSettings;
use crate::crash::Crash;
use crate::ports::clock::Clock;
use crate::ports::journal::{Journal, JournalError, Kept, State};
use crate::ports::prober::Prober;
use crate::ports::runtime::{Inventory, NOTHING, Pins, Runtime, RuntimeError, Task, Verdict};

/// The adapters that one daemon is made of.
pub(crate) trait Parts: 'static {
    type Journal: Journal;
    type Compose: Runtime;
    type Files: Runtime;
    type Kubernetes: Runtime;
    type Prober: Prober;
    type Clock: Clock;
}

/// See the module.
pub(crate) struct Context<P: Parts> {
    pub(crate) device: DeviceSettings,
    pub(crate) has_hub: bool,
    pub(crate) journal: RefCell<P::Journal>,
    pub(crate) compose: P::Compose,
    pub(crate) files: P::Files,
    pub(crate) kubernetes: P::Kubernetes,
    pub(crate) prober: P::Prober,
    pub(crate) clock: P::Clock,
    /// Whoever changes the device holds it.
    pub(crate) hand: tokio::sync::Mutex<()>,
    pub(crate) conditions: RefCell<BTreeMap<&'static str, Condition>>,
    pub(crate) observed: RefCell<BTreeMap<AppName, AppStatus>>,
    /// The running boot's id.
    pub(crate) boot: String,
    /// The crash before this start, until the agent is at rest.
    pub(crate) crashed: RefCell<Option<Crash>>,
    /// Where the store is.
    pub(crate) store: PathBuf,
    /// Spreads this device's waits among the fleet's.
    pub(crate) seed: u64,
    /// When this agent started.
    pub(crate) started: Timestamp,
    pub(crate) tally: super::tally::Tally,
    /// Of which revision `observed` tells.
    pub(crate) observed_of: RefCell<Option<Revision>>,
    /// Images are being downloaded, or swept: not both.
    pub(crate) images: tokio::sync::Mutex<()>,
    /// The watch is to compare everything at its next turn.
    pub(crate) compare_now: Cell<bool>,
    /// `sync --prune` was asked: the next pass may delete past the limit.
    pub(crate) prune_freely: Cell<bool>,
}

impl<P: Parts> Context<P> {
    /// The journalled state, as of now.
    pub(crate) fn state(&self) -> State {
        self.journal.borrow().state().clone()
    }

    /// Journals a change; equal state writes nothing. Says in a condition
    /// whether the store takes it.
    pub(crate) fn commit(
        &self,
        keep: Option<(&Kept, &Blobs)>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), JournalError> {
        let mut state = self.state();
        change(&mut state);
        let done = self.journal.borrow_mut().commit(state, keep);
        match &done {
            Ok(()) => self.clear("StoreWritable"),
            Err(error) => {
                tracing::error!(error = chain(error), "cannot journal");
                self.set("StoreWritable", false, reason_of(error), with_hint(error));
            }
        }
        done
    }

    /// A kept state, from the journal. Damage counts as absence, said aloud.
    pub(crate) fn kept(&self, revision: &Revision) -> Option<(Kept, Blobs)> {
        match self.journal.borrow().kept(revision) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(%revision, error = chain(&error), "a kept state is lost");
                None
            }
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// When the accepted commit says that it was made.
    pub(crate) fn journal_accepted_at(&self) -> Option<Timestamp> {
        self.journal.borrow().state().accepted.as_ref().map(|accepted| accepted.committed_at)
    }

    /// What the store had to mend or does without.
    pub(crate) fn journal_notice(&self) -> Option<String> {
        self.journal.borrow().notice()
    }

    /// Sets a condition; its age counts from when status or reason changed.
    pub(crate) fn set(&self, kind: &'static str, status: bool, reason: &str, message: String) {
        let mut conditions = self.conditions.borrow_mut();
        let since = conditions
            .get(kind)
            .filter(|old| old.status == status && old.reason == reason)
            .map_or_else(|| self.now(), |old| old.since);
        let condition = Condition { kind: kind.to_owned(), status, reason: reason.to_owned(), message, since };
        conditions.insert(kind, condition);
    }

    pub(crate) fn clear(&self, kind: &'static str) {
        self.conditions.borrow_mut().remove(kind);
    }

    /// Notes an app's health for the status.
    pub(crate) fn saw(&self, app: &DesiredApp, verdict: &Verdict) {
        let mut observed = self.observed.borrow_mut();
        let status = observed.entry(app.name.clone()).or_insert_with(|| super::watch::unknown(app));
        status.health = verdict.health;
        if status.sync != Sync::OutOfSync {
            status.message.clone_from(&verdict.message);
        }
    }

    /// Whether the watch has looked at what runs now.
    pub(crate) fn is_observed(&self) -> bool {
        let journal = self.journal.borrow();
        let at = journal.state().phase.at();
        at.is_some() && self.observed_of.borrow().as_ref() == at
    }

    /// What burgee owns of an app in one runtime.
    pub(crate) fn inventory(&self, app: &AppName, runtime: &str) -> Inventory {
        self.journal
            .borrow()
            .state()
            .inventory
            .get(app)
            .and_then(|by_runtime| by_runtime.get(runtime))
            .cloned()
            .unwrap_or_default()
    }
}

/// One app of one kept revision, with all that a [`Task`] borrows.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) state: &'a DesiredState,
    pub(crate) revision: &'a Revision,
    pub(crate) pins: &'a Pins,
    pub(crate) blobs: &'a Blobs,
    pub(crate) app: &'a AppName,
    pub(crate) want: Option<&'a DesiredApp>,
    pub(crate) had: Option<&'a DesiredApp>,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(kept: &'a Kept, blobs: &'a Blobs, app: &'a DesiredApp) -> Self {
        Self {
            state: &kept.desired,
            revision: &kept.revision,
            pins: kept.pins.get(&app.name).unwrap_or(&NO_PINS),
            blobs,
            app: &app.name,
            want: Some(app),
            had: None,
        }
    }

    pub(crate) fn task(self, inventory: &'a Inventory) -> Task<'a> {
        Task {
            fleet: &self.state.fleet,
            app: self.app,
            revision: &self.revision.id,
            want: self.want,
            had: self.had,
            inventory,
            pins: self.pins,
            blobs: self.blobs,
            beside: &self.state.apps,
            back: false,
            borrowed: &NOTHING,
        }
    }
}

pub(crate) static NO_PINS: Pins = Pins::new();

/// Names of the runtimes that this build has.
pub(crate) const RUNTIMES: [&str; 3] = ["compose", "files", "kubernetes"];

/// An app of a runtime that this build does not have.
pub(crate) fn unknown_runtime(runtime: &str) -> RuntimeError {
    RuntimeError::Refused {
        object: format!("runtime {runtime}"),
        cause: "this build of the agent does not have it".to_owned(),
        hint: Some(format!(
            "this build runs {}; take the app off this device, or update the agent",
            RUNTIMES.join(", ")
        )),
    }
}

/// Runs `$body` with `$runtime` bound to the adapter that `$name` names.
macro_rules! with_runtime {
    ($context:expr, $name:expr, |$runtime:ident| $body:expr) => {
        match $name {
            "compose" => {
                let $runtime = &$context.compose;
                $body
            }
            "files" => {
                let $runtime = &$context.files;
                $body
            }
            "kubernetes" => {
                let $runtime = &$context.kubernetes;
                $body
            }
            other => Err($crate::daemon::context::unknown_runtime(other)),
        }
    };
}
pub(crate) use with_runtime;

/// The app's runtime, by name.
pub(crate) fn runtime_of(app: &DesiredApp) -> &'static str {
    AppSpec::runtime(&app.spec)
}

/// An error and its sources, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some libraries repeat their source; a person reads it once.
        if !line.ends_with(&text) {
            let _ = write!(line, ": {text}");
        }
        source = error.source();
    }
    line
}

/// [`chain`], and the hint on a line of its own.
pub(crate) fn with_hint<E: crate::ports::Reason>(error: &E) -> String {
    let line = chain(error);
    error.hint().map_or(line.clone(), |hint| format!("{line}\nhint: {hint}"))
}

fn reason_of<E: crate::ports::Reason>(error: &E) -> &'static str {
    error.reason()
}
