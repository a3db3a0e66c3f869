//! Watches what runs: repairs drift, judges health for the status, and frees
//! what had to wait until the device was steady. Never changes the phase.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use fleet::desired::{Blobs, DesiredApp, DriftMode};
use fleet::name::AppName;
use fleet::revision::Revision;
use fleet::wire::report::{Event, ReportBody};
use fleet::wire::status::{AppStatus, Health, Sync};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::apply::{Converged, Direction, Failure, Pass, converge, line};
use super::context::{Context, Parts, RUNTIMES, Subject, chain, runtime_of, with_runtime};
use super::core::Input;
use super::fetch::Fetcher;
use super::fights::Repairs;
use super::prepare::kept_or_anew;
use super::probe::try_look;
use crate::phase::Phase;
use crate::ports::journal::{Kept, State};
use crate::ports::runtime::{Change, NOTHING, Object, Runtime, Task, Verb, Verdict};
use crate::retry::{Backoff, share};

/// Between two full compares, which find what no event told.
const COMPARE: Duration = Duration::from_secs(600);
/// Between two looks at health, which find what no event tells (checks).
const LOOK: Duration = Duration::from_secs(60);
/// Between two looks where only the state of things changes.
const CALM: Duration = Duration::from_secs(10);
/// Events come in bursts.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Before a compare that failed is made again.
const AGAIN: Backoff = Backoff { base: Duration::from_secs(2), cap: COMPARE };

/// The watching task.
pub(crate) struct Watch<P: Parts> {
    context: Rc<Context<P>>,
    /// Renders anew what the journal lost.
    fetcher: Fetcher,
    /// The phase may have changed: look anew.
    wake: Rc<Notify>,
    inputs: mpsc::UnboundedSender<Input>,
    repairs: Vec<(AppName, Object, Repairs)>,
    next_compare: Instant,
    /// The revision for which everything was compared at least once.
    compared: Option<Revision>,
    /// The one for which that was last tried, and how often in a row it failed.
    tried: Option<Revision>,
    failures: u32,
}

impl<P: Parts> Watch<P> {
    pub(crate) fn new(
        context: Rc<Context<P>>,
        fetcher: Fetcher,
        wake: Rc<Notify>,
        inputs: mpsc::UnboundedSender<Input>,
    ) -> Self {
        let next_compare = Instant::now();
        let repairs = Vec::new();
        Self { context, fetcher, wake, inputs, repairs, next_compare, compared: None, tried: None, failures: 0 }
    }

    /// Runs until the agent ends.
    pub(crate) async fn run(mut self) {
        loop {
            let state = self.context.state();
            if let Some(at) = state.phase.at().cloned() {
                let asked = self.context.compare_now.take();
                let due = asked || Instant::now() >= self.next_compare || self.tried.as_ref() != Some(&at);
                if let Some((kept, blobs)) = kept_or_anew(&self.context, &self.fetcher, &at).await {
                    self.pass(&kept, &blobs, due).await;
                } else {
                    self.failures = 0;
                }
            } else {
                self.failures = 0;
                // What stands in the way now is the phase's own to say.
                self.context.clear("Observed");
                self.context.observed.borrow_mut().values_mut().for_each(|app| app.sync = Sync::Updating);
            }
            if self.inputs.send(Input::Observed).is_err() {
                return;
            }
            let steady = matches!(state.phase, Phase::Steady { .. });
            let mut pause = if steady { LOOK } else { LOOK / 4 };
            if self.failures > 0 {
                let left = self.next_compare.saturating_duration_since(Instant::now());
                pause = pause.min(left.max(Duration::from_secs(1)));
            }
            if self.is_changed(pause).await {
                self.next_compare = Instant::now();
                tokio::time::sleep(DEBOUNCE).await;
            }
        }
    }

    /// Waits until a compare is due (true) or a look. What only stirs brings
    /// the next look nearer, but not at once: some never rest.
    async fn is_changed(&self, pause: Duration) -> bool {
        let began = Instant::now();
        let mut until = began + pause;
        loop {
            // Cancel-safe: an event that is missed is found by the compare.
            let changed = async {
                tokio::select! {
                    change = self.context.compose.changed() => change,
                    change = self.context.files.changed() => change,
                    change = self.context.kubernetes.changed() => change,
                }
            };
            tokio::select! {
                change = changed => match change {
                    Change::Object => return true,
                    Change::State => until = until.min(began + CALM),
                },
                () = self.wake.notified() => return false,
                () = tokio::time::sleep_until(until) => return false,
            }
        }
    }

    async fn pass(&mut self, kept: &Kept, blobs: &Blobs, compare: bool) {
        if compare {
            let context = Rc::clone(&self.context);
            let _hand = context.hand.lock().await;
            // While waiting for the hand the phase may have moved on.
            let state = self.context.state();
            if state.phase.at() != Some(&kept.revision) {
                return;
            }
            let steady = matches!(&state.phase, Phase::Steady { .. });
            let free = self.context.prune_freely.take();
            let mut is_whole = true;
            for app in &kept.desired.apps {
                is_whole &= self.compare(kept, blobs, app, &state, free).await;
            }
            self.say_fights(kept);
            if steady && !state.suspended.as_ref().is_some_and(|pause| pause.all) {
                self.clean_up(kept, blobs, &state).await;
            }
            if self.tried.as_ref() != Some(&kept.revision) {
                self.failures = 0;
            }
            self.tried = Some(kept.revision.clone());
            // What could not be compared may have drifted.
            self.failures = if is_whole { 0 } else { self.failures + 1 };
            self.next_compare = Instant::now()
                + if is_whole {
                    self.compared = Some(kept.revision.clone());
                    COMPARE + share(COMPARE / 4, self.context.seed)
                } else {
                    AGAIN.delay(self.failures, self.context.seed)
                };
        }
        let mut unseen = Vec::new();
        for app in &kept.desired.apps {
            let verdict = try_look(&self.context, Subject::of(kept, blobs, app)).await.unwrap_or_else(|error| {
                unseen.push(Failure::of(Some(app), &error));
                Verdict { health: Health::Unknown, message: chain(&error) }
            });
            self.context.saw(app, &verdict);
        }
        if unseen.is_empty() && self.failures > 0 && self.context.conditions.borrow().contains_key("Observed") {
            // It can be seen again.
            self.next_compare = Instant::now();
        }
        self.say_unseen(&unseen);
        self.context.observed.borrow_mut().retain(|name, _| kept.desired.apps.iter().any(|app| app.name == *name));
        *self.context.observed_of.borrow_mut() = Some(kept.revision.clone());
    }

    /// Says that there is no telling how apps are, and why.
    fn say_unseen(&self, unseen: &[Failure]) {
        let [first, others @ ..] = unseen else {
            self.context.clear("Observed");
            return;
        };
        let more = if others.is_empty() { String::new() } else { format!(" ({} other apps, too)", others.len()) };
        self.context.set("Observed", false, first.reason, format!("while looking{more}: {}", first.message));
    }

    /// False where it came to nothing.
    async fn compare(&mut self, kept: &Kept, blobs: &Blobs, app: &DesiredApp, state: &State, free: bool) -> bool {
        let mode = if state.suspended.as_ref().is_some_and(|pause| pause.all) && app.drift.mode == DriftMode::Correct {
            DriftMode::Report
        } else {
            app.drift.mode
        };
        let subject = Subject::of(kept, blobs, app);
        let (sync, message) = match mode {
            DriftMode::Off => (Sync::Unknown, String::new()),
            DriftMode::Report => self.drift(subject, app).await,
            DriftMode::Correct => self.repair(subject, app, state, free).await,
        };
        let mut observed = self.context.observed.borrow_mut();
        let status = observed.entry(app.name.clone()).or_insert_with(|| unknown(app));
        (status.sync, status.message, status.digest) = (sync, message, Some(app.digest));
        status.runtime = runtime_of(app).to_owned();
        mode == DriftMode::Off || sync != Sync::Unknown
    }

    /// Looks for drift, without repairing it.
    async fn drift(&self, subject: Subject<'_>, app: &DesiredApp) -> (Sync, String) {
        match plan_lines(&self.context, subject, app, false).await {
            Ok(lines) if lines.is_empty() => (Sync::Synced, String::new()),
            Ok(lines) => (Sync::OutOfSync, format!("drifted: {}", lines.join("; "))),
            Err(message) => (Sync::Unknown, message),
        }
    }

    async fn repair(&mut self, subject: Subject<'_>, app: &DesiredApp, state: &State, free: bool) -> (Sync, String) {
        let steady = matches!(&state.phase, Phase::Steady { .. });
        let guard = (!free).then_some(&app.prune);
        let held = self.held(&app.name);
        if !held.is_empty() && runtime_of(app) != "kubernetes" {
            // Elsewhere steps lean on each other: a unit is restarted for its file.
            return self.drift(subject, app).await;
        }
        let pass = Pass { guard, cleanup: steady, waits: false, direction: Direction::Forward, held: &held };
        match converge(&self.context, subject, runtime_of(app), pass, &Cell::new(false)).await {
            Ok(Converged { steps, leaving, held, .. }) if steps.is_empty() => still(&leaving, &held),
            Ok(Converged { steps, leaving, held, .. }) => {
                // Cleaning up after a revision is no drift.
                let cleanup = self.compared.as_ref() != Some(subject.revision)
                    && steps.iter().all(|(_, step)| step.starts_with("delete") || step.starts_with("release"));
                if !cleanup {
                    let now = Instant::now();
                    for (object, step) in &steps {
                        self.count(&app.name, object, step, now);
                    }
                    let steps = steps.into_iter().map(|(_, step)| step).collect::<Vec<_>>().join("; ");
                    tracing::info!(app = %app.name, steps, "drift repaired");
                    let message = format!("app {}: {steps}", app.name);
                    let event = Event {
                        revision: Some(subject.revision.id.clone()),
                        event: "drift-repaired".to_owned(),
                        message,
                    };
                    super::tally::add(&self.context.tally.repairs);
                    let _ = self.inputs.send(Input::Say(ReportBody::Event(event)));
                }
                still(&leaving, &held)
            }
            Err(error) => (Sync::Unknown, chain(&error)),
        }
    }

    /// What somebody else keeps changing, and is let be for now.
    fn held(&self, app: &AppName) -> BTreeSet<Object> {
        let (now, seed) = (Instant::now(), self.context.seed);
        let held = self.repairs.iter().filter(|(name, _, repairs)| name == app && repairs.is_held(now, seed));
        held.map(|(_, object, _)| object.clone()).collect()
    }

    fn count(&mut self, app: &AppName, object: &Object, step: &str, now: Instant) {
        let known = self.repairs.iter().position(|(name, of, _)| name == app && of == object);
        let at = known.unwrap_or_else(|| {
            self.repairs.push((app.clone(), object.clone(), Repairs::default()));
            self.repairs.len() - 1
        });
        self.repairs[at].2.count(now, step, (self.context.seed, COMPARE + COMPARE / 4));
    }

    /// Says which objects are fought over. One of an app that left, or that is
    /// not repaired any more, is not.
    fn say_fights(&mut self, kept: &Kept) {
        let repaired = |name: &AppName| {
            kept.desired.apps.iter().any(|app| app.name == *name && app.drift.mode == DriftMode::Correct)
        };
        let (now, by) = (Instant::now(), (self.context.seed, COMPARE + COMPARE / 4));
        self.repairs.retain(|(name, _, repairs)| repaired(name) && repairs.is_remembered(now, by));
        let fights: Vec<_> = self.repairs.iter().filter(|(_, _, repairs)| repairs.is_fight(now, by)).collect();
        let [(app, _, repairs), ..] = fights.as_slice() else {
            self.context.clear("DriftFighting");
            return;
        };
        let others = match fights.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} other objects)"),
        };
        let message = format!(
            "app {app}{others} was repaired {} times in a row; someone keeps changing it, so repairs are held back ({})\nhint: find who does, or set drift.mode to report",
            repairs.in_a_row(),
            repairs.steps()
        );
        self.context.set("DriftFighting", true, "RepeatedRepair", message);
    }

    /// What left the desired state and had to stay until the device was
    /// steady: apps that are gone, or moved to another runtime, but for their
    /// volumes; images; files.
    async fn clean_up(&self, kept: &Kept, blobs: &Blobs, state: &State) {
        // What is owned in a runtime that the app is not of (any more).
        let is_left = |name: &AppName, runtime: &str| {
            !kept.desired.apps.iter().any(|app| app.name == *name && runtime_of(app) == runtime)
        };
        let left: Vec<(AppName, &str)> = state
            .inventory
            .keys()
            .flat_map(|name| RUNTIMES.map(|runtime| (name.clone(), runtime)))
            .filter(|(name, runtime)| is_left(name, runtime) && !self.context.inventory(name, runtime).is_empty())
            .collect();
        let before = state.before.as_ref().and_then(|revision| self.context.kept(revision));
        for (name, runtime) in left {
            let had = before.as_ref().and_then(|(old, _)| old.desired.apps.iter().find(|app| app.name == name));
            let subject = Subject {
                state: &kept.desired,
                revision: &kept.revision,
                pins: &super::context::NO_PINS,
                blobs,
                app: &name,
                want: None,
                had,
            };
            let direction = Direction::Forward;
            let pass = Pass { guard: None, cleanup: true, waits: false, direction, held: &NOTHING };
            if let Err(error) = converge(&self.context, subject, runtime, pass, &Cell::new(false)).await {
                tracing::warn!(app = %name, error = chain(&error), "cannot clean up");
            }
        }
        let _images = self.context.images.lock().await;
        if self.context.state().phase != (Phase::Steady { at: kept.revision.clone() }) {
            // What a newer revision has just downloaded is in nobody's keeping yet.
            return;
        }
        let mut keep = vec![kept];
        keep.extend(before.as_ref().map(|(old, _)| old));
        let swept = [
            self.context.compose.sweep(&keep).await,
            self.context.files.sweep(&keep).await,
            self.context.kubernetes.sweep(&keep).await,
        ];
        for result in swept {
            if let Err(error) = result {
                tracing::debug!(error = chain(&error), "cannot sweep");
            }
        }
    }
}

/// What somebody deletes is made anew once it is gone; `held`: what is let be.
fn still(leaving: &[Object], held: &[String]) -> (Sync, String) {
    match leaving {
        [] if !held.is_empty() => (Sync::OutOfSync, format!("drifted: {}", held.join("; "))),
        [] => (Sync::Synced, String::new()),
        [object, ..] => (Sync::OutOfSync, format!("{object} is being deleted; it is made anew once it is gone")),
    }
}

/// What a pass would do to an app, a line a step.
pub(crate) async fn plan_lines<P: Parts>(
    context: &Context<P>,
    subject: Subject<'_>,
    app: &DesiredApp,
    all: bool,
) -> Result<Vec<String>, String> {
    let runtime = runtime_of(app);
    let inventory = context.inventory(subject.app, runtime);
    let borrowed = context.state().borrowed(false);
    let plan = with_runtime!(context, runtime, |adapter| {
        adapter.plan(Task { borrowed: &borrowed, ..subject.task(&inventory) }).await.map(|plan| {
            let drift = plan.steps.iter().filter(|step| all || (!step.after_steady && step.verb != Verb::Wait));
            drift.map(line).collect::<Vec<_>>()
        })
    });
    plan.map_err(|error| chain(&error))
}

pub(super) fn unknown(app: &DesiredApp) -> AppStatus {
    AppStatus {
        name: app.name.clone(),
        runtime: runtime_of(app).to_owned(),
        sync: Sync::Unknown,
        health: Health::Unknown,
        digest: Some(app.digest),
        message: String::new(),
    }
}
