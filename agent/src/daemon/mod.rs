//! The daemon: one loop over what happens, its work, and its watch.
//!
//! `run` opens the store, puts the parts together and turns the loop until it
//! is told to stop. It needs no network to start.

mod apply;
mod context;
mod core;
mod fetch;
mod fights;
mod gate;
mod inbound;
mod inspect;
mod outcome;
mod owned;
mod polling;
mod prepare;
mod probe;
mod record;
mod renew;
mod status;
mod steps;
mod tally;
mod trial;
mod wake;
mod watch;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet::render::DeviceFacts;
use fleet::wire::status::{Health, PhaseName, Status};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::task::LocalSet;

use self::context::{Context, Parts, chain};
use self::core::{Core, Input, Outcome};
use self::fetch::Fetcher;
use self::polling::Polling;
use self::renew::Renewal;
use self::tally::Tally;
use self::watch::Watch;
use crate::clock::SystemClock;
use crate::config::settings::Settings;
use crate::control::Server;
use crate::crash::{self, Crash};
use crate::health::Probes;
use crate::journal::SledJournal;
use crate::metrics::{self, Snapshot};
use crate::notify::Notifier;
use crate::ports::Reason;
use crate::ports::clock::Clock as _;
use crate::ports::journal::Journal as _;
use crate::retry;
use crate::runtime::compose::ComposeRuntime;
use crate::runtime::files::FilesRuntime;
use crate::runtime::kubernetes::KubernetesRuntime;
use crate::source::GitSource;
use crate::update::start::Launched;
use crate::uplink::{AnyUplink, keep_name};

/// The parts of the real agent.
struct Real;

impl Parts for Real {
    type Journal = SledJournal;
    type Compose = ComposeRuntime;
    type Files = FilesRuntime;
    type Kubernetes = KubernetesRuntime;
    type Prober = Probes;
    type Clock = SystemClock;
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The last status.
    pub status: Status,
    /// By design §13: 0, 1, 2 (malformed repository), 3 (refused by trust), 4, 5.
    pub code: u8,
    /// This process is to begin anew, with another agent.
    pub renew: bool,
}

/// Why the agent could not begin.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    pub message: String,
    pub hint: Option<String>,
    /// 1, or 2 where the settings are wrong.
    pub code: u8,
}

impl Failed {
    fn of<E: Reason>(part: &str, error: &E) -> Self {
        Self { message: format!("while starting, {part} failed: {}", chain(error)), hint: error.hint(), code: 1 }
    }

    fn plain(part: &str, error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { message: format!("while starting, {part} failed: {}", chain(error)), hint, code: 1 }
    }
}

/// Runs the agent until SIGTERM or, with `once`, until it is steady or stalled.
///
/// # Errors
/// When the store is another agent's or can't be opened, the control socket
/// can't be had, or a setting can't be honoured.
pub async fn run(settings: Settings, once: bool, launched: Launched) -> Result<Ended, Failed> {
    LocalSet::new().run_until(begin(settings, once, launched)).await
}

async fn begin(settings: Settings, once: bool, launched: Launched) -> Result<Ended, Failed> {
    let store = settings.store.path.clone();
    let opened = match std::env::current_exe() {
        Ok(program) => SledJournal::open_looking(&store, &program),
        Err(_) => SledJournal::open(&store),
    };
    let mut journal = opened.map_err(|error| Failed::of("the store", &error))?;
    if let Err(error) = keep_name(&store, &settings.device) {
        // Made anew at the next start, of the same parts.
        tracing::error!(error = chain(&error), "the device's name is not kept");
    }
    crash::remember_in(&store);
    let crashed = crash::last(&store);
    if let Some(notice) = journal.notice() {
        tracing::warn!(notice, "the store was mended");
    }
    let mut state = journal.state().clone();
    state.epoch += 1;
    let (epoch, command_sequence) = (state.epoch, state.command_sequence);
    if let Err(error) = journal.commit(state, None) {
        // Full or read-only: the state is held all the same.
        tracing::error!(error = chain(&error), "the store takes nothing");
    }

    let clock = SystemClock;
    let seed = retry::seed(settings.device.name.as_str());
    let uplink = AnyUplink::start(&settings, epoch, command_sequence, Arc::new(clock))
        .map_err(|error| Failed::plain("the uplink", &error, None))?;
    let source = GitSource::open(&settings.source, &store.join("git"), clock.build_date())
        .map_err(|error| Failed::of("the source", &error))?;
    let (send, inbox) = mpsc::unbounded_channel();
    listen(&settings, once, &send)?;

    let facts = DeviceFacts { name: settings.device.name.clone(), labels: settings.device.labels.clone() };
    let context = Rc::new(Context::<Real> {
        device: settings.device.clone(),
        has_hub: settings.hub.is_some(),
        journal: RefCell::new(journal),
        compose: ComposeRuntime::new(&settings.compose, &settings.device.name, &store)
            .map_err(|error| Failed::of("the compose runtime", &error))?,
        files: FilesRuntime::new(&settings.files, &settings.device.name, &store)
            .map_err(|error| Failed::of("the files runtime", &error))?,
        kubernetes: KubernetesRuntime::new(&settings.kubernetes, &store),
        prober: Probes::new(&settings.health),
        clock,
        hand: tokio::sync::Mutex::new(()),
        conditions: RefCell::new(BTreeMap::new()),
        observed: RefCell::new(BTreeMap::new()),
        boot: boot_id(crashed.as_ref()),
        crashed: RefCell::new(crashed.clone()),
        store: store.clone(),
        seed,
        started: clock.now(),
        tally: Tally::default(),
        observed_of: RefCell::new(None),
        images: tokio::sync::Mutex::new(()),
        compare_now: Cell::new(false),
        prune_freely: Cell::new(false),
    });
    if let Some(cause) = &settings.passed_over {
        tracing::error!(cause, "settings that this agent does not know are passed over: a newer one knew them");
        let hint = "nothing, if a newer agent is to come back; else remove what only that one knows";
        context.set("SettingsKnown", false, "PassedOver", format!("passed over: {cause}\nhint: {hint}"));
    }
    let wake = Rc::new(Notify::new());
    let fetcher = Fetcher::start(source, facts);
    tokio::task::spawn_local(Watch::new(Rc::clone(&context), fetcher.clone(), Rc::clone(&wake), send.clone()).run());

    let empty = status::status(&context, status::unused());
    let (published, snapshots) = channel::channel(Arc::new(Snapshot { status: empty, counters: Vec::new() }));
    if let Some(address) = settings.metrics {
        tokio::task::spawn_local(async move {
            if let Err(error) = metrics::serve(address, snapshots).await {
                tracing::error!(%address, %error, "metrics are not served");
            }
        });
    }
    let wait = crashed.map(|crash| crash.in_a_row);
    let polling = Polling::new(settings.source.poll, settings.source.poll_connected, seed, wait);
    tracing::info!(device = %settings.device.name, version = env!("CARGO_PKG_VERSION"), epoch, "agent started");
    let notifier = Notifier::from_env();
    keep_watchdog(&notifier, &send);
    let mut last = None;
    let beat = |status: &Status| {
        if last.is_none() {
            notifier.ready();
        }
        notifier.watchdog();
        let line = line(status);
        if last.as_ref() != Some(&line) {
            notifier.status(&line);
            last = Some(line);
        }
    };
    let renewal = Renewal::new(settings.update.clone(), launched, &store);
    let core = Core::new(context, uplink, fetcher, (send, inbox), wake, (polling, renewal), published, once);
    let (status, outcome) = core.run(beat).await;
    if !outcome.renew {
        Notifier::from_env().stopping();
    }
    let code = if once { exit_code(&status, outcome) } else { 0 };
    Ok(Ended { status, code, renew: outcome.renew })
}

/// Signals and the local socket become inputs.
fn listen(settings: &Settings, once: bool, send: &mpsc::UnboundedSender<Input>) -> Result<(), Failed> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(|error| Failed::plain("listening for signals", &error, None))?;
        let send = send.clone();
        tokio::task::spawn_local(async move {
            while signals.recv().await.is_some() {
                if send.send(Input::Stop).is_err() {
                    return;
                }
            }
        });
    }
    match Server::bind(&settings.control.socket) {
        Ok(server) => {
            let (requests, mut asked) = mpsc::channel(4);
            tokio::task::spawn_local(server.run(requests));
            let send = send.clone();
            tokio::task::spawn_local(async move {
                while let Some(request) = asked.recv().await {
                    if send.send(Input::Ask(request)).is_err() {
                        return;
                    }
                }
            });
            Ok(())
        }
        Err(error) if once => {
            tracing::warn!(error = chain(&error), "no control socket; going on without");
            Ok(())
        }
        Err(error) => {
            let hint = error.hint();
            Err(Failed::plain("the control socket", &error, hint))
        }
    }
}

/// Wakes the loop often enough for systemd's watchdog, which the loop feeds
/// itself: a loop that hangs is restarted.
fn keep_watchdog(notifier: &Notifier, send: &mpsc::UnboundedSender<Input>) {
    let Some(interval) = notifier.watchdog_interval() else { return };
    let send = send.clone();
    tokio::task::spawn_local(async move {
        let mut ticks = tokio::time::interval(interval.max(Duration::from_secs(1)));
        loop {
            ticks.tick().await;
            if send.send(Input::Timer).is_err() {
                return;
            }
        }
    });
}

/// One line for `systemctl status`.
fn line(status: &Status) -> String {
    let phase = format!("{:?}", status.phase).to_lowercase();
    match &status.revision {
        Some(revision) => format!("{phase} at {}", revision.short()),
        None => phase,
    }
}

fn exit_code(status: &Status, outcome: Outcome) -> u8 {
    let sick = status.apps.iter().any(|app| !matches!(app.health, Health::Healthy | Health::Suspended));
    match (status.phase, outcome.fetch) {
        (_, Some(code)) => code,
        (PhaseName::Steady, None) if !sick && !outcome.unhealthy => 0,
        (PhaseName::Held, None) if !outcome.unhealthy => 0,
        (PhaseName::Preparing, None) => 1,
        _ => 4,
    }
}

/// Tells one boot from the next. A revision that crashes the agent is like one
/// that takes the device down: each start after a crash counts as a boot.
fn boot_id(crashed: Option<&Crash>) -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    crashed.map_or(id.clone(), |crash| format!("{id}+{}", crash.in_a_row))
}
