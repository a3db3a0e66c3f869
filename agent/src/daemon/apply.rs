//! Carries a revision out: leaving apps first, then each app in order.
//!
//! Before an app's first step the journal knows what the steps will own, so
//! that a power cut leaves nothing behind that nobody owns. Every step may be
//! repeated. The plan is the runtime's; this only guards and orders.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use fleet::desired::{Blobs, DesiredApp, OnFailure, PrunePolicy};
use fleet::name::AppName;

use super::context::{Context, NO_PINS, Parts, RUNTIMES, Subject, chain, runtime_of, with_runtime};
use super::owned::{Begun, Mark, journal, own, settled_inventory};
use super::probe;
use super::steps::{Carried, carry_out};
use crate::plan::{order, prune};
use crate::ports::Reason;
use crate::ports::journal::Kept;
use crate::ports::runtime::{Inventory, NOTHING, Object, Plan, Runtime, RuntimeError, Step, Task, Verb};

/// Why a pass was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// To a newer revision, or to repair drift: the prune guard holds.
    Forward,
    /// Undoing a failed revision: its additions go whatever their number.
    Back,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Asked to stop, it did so between two steps.
    Interrupted,
}

/// Why a pass failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) policy: OnFailure,
    pub(crate) reason: &'static str,
    /// Cause and hint.
    pub(crate) message: String,
    /// Waiting alone can help: the same pass is made again.
    pub(crate) transient: bool,
    /// The engine did not answer: no fault of the revision, however long.
    pub(crate) blameless: bool,
}

impl Failure {
    pub(crate) fn of<E: Reason + 'static>(app: Option<&DesiredApp>, error: &E) -> Self {
        let thing = app.map_or_else(String::new, |app| format!("app {}: ", app.name));
        let hint = error.hint().map_or_else(String::new, |hint| format!("\nhint: {hint}"));
        Self {
            policy: app.map_or(OnFailure::Rollback, |app| app.on_failure),
            reason: error.reason(),
            message: format!("{thing}{}{hint}", chain(error)),
            transient: error.is_transient(),
            blameless: matches!(error.reason(), "RuntimeUnreachable" | "ObserveFailed" | "DiskFull" | "DiskReadOnly"),
        }
    }
}

/// One pass from what is to `to`. `from` is what was before: the way home of a
/// revision, or the failed revision of a rollback.
pub(crate) async fn apply<P: Parts>(
    context: &Context<P>,
    (to, blobs): (&Kept, &Blobs),
    from: Option<&Kept>,
    direction: Direction,
    stop: &Cell<bool>,
) -> Result<Outcome, Failure> {
    let _hand = context.hand.lock().await;
    let free = context.prune_freely.take();
    let owned: BTreeSet<AppName> = context.state().inventory.into_keys().collect();
    let from_state = from.map(|kept| &kept.desired);
    let mut first_failure = None;
    // Going back, one app's trouble must not keep the others away: it may even
    // be theirs (a port that the failed revision gave away).
    let mut passed_by = |app: &AppName, failure: Failure| {
        if direction == Direction::Forward {
            return Err(failure);
        }
        tracing::warn!(%app, cause = failure.message, "cannot go back yet; going on with the others");
        first_failure.get_or_insert(failure);
        Ok(())
    };

    for app in order::leaving(&owned, &to.desired, from_state) {
        let had = from_state.and_then(|state| state.apps.iter().find(|old| old.name == app));
        let subject =
            Subject { state: &to.desired, revision: &to.revision, pins: &NO_PINS, blobs, app: &app, want: None, had };
        match leave(context, subject, &RUNTIMES, direction, stop).await {
            Ok(Outcome::Interrupted) => return Ok(Outcome::Interrupted),
            Ok(Outcome::Done) => {}
            Err(error) => passed_by(&app, Failure::of(had, &error))?,
        }
    }

    let touched = context.state().touched;
    for app in &to.desired.apps {
        if stop.get() {
            return Ok(Outcome::Interrupted);
        }
        // The watch repairs what drifted; an old sick app is none of this
        // revision's business.
        if order::unchanged(app, from_state, &touched) {
            continue;
        }
        if direction == Direction::Forward {
            wait_for_dependencies(context, (to, blobs), app, from, stop).await?;
        }
        let had = from_state.and_then(|state| state.apps.iter().find(|old| old.name == app.name));
        let subject = Subject { had, ..Subject::of(to, blobs, app) };
        let guard = (direction == Direction::Forward && !free).then_some(&app.prune);
        let pass = Pass { guard, cleanup: false, waits: true, direction, held: &NOTHING };
        // An app that moved to another runtime leaves the old one first: it may
        // hold a port that the new one needs.
        let others: Vec<&'static str> = RUNTIMES.into_iter().filter(|name| *name != runtime_of(app)).collect();
        let moved = leave(context, Subject { want: None, ..subject }, &others, direction, stop).await;
        let converged = match moved {
            Ok(Outcome::Interrupted) => return Ok(Outcome::Interrupted),
            Ok(Outcome::Done) => converge(context, subject, runtime_of(app), pass, stop).await,
            Err(error) => Err(error),
        };
        match converged {
            Ok(Converged { outcome: Outcome::Interrupted, .. }) => return Ok(Outcome::Interrupted),
            Ok(Converged { outcome: Outcome::Done, .. }) => {}
            Err(error) => passed_by(&app.name, Failure::of(Some(app), &error))?,
        }
    }
    first_failure.map_or(Ok(Outcome::Done), Err)
}

/// Takes away all that burgee owns of an app in `runtimes`.
async fn leave<P: Parts>(
    context: &Context<P>,
    subject: Subject<'_>,
    runtimes: &[&'static str],
    direction: Direction,
    stop: &Cell<bool>,
) -> Result<Outcome, RuntimeError> {
    for runtime in runtimes {
        if context.inventory(subject.app, runtime).is_empty() {
            continue;
        }
        if subject.had.is_some_and(|had| !had.prune.enabled) {
            // It stays, and is nobody's from here on.
            own(context, subject.app, runtime, Inventory::new(), Mark::Settled(BTreeSet::new())).map_err(journal)?;
            continue;
        }
        let pass = Pass { guard: None, cleanup: false, waits: true, direction, held: &NOTHING };
        if converge(context, subject, runtime, pass, stop).await?.outcome == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
    }
    Ok(Outcome::Done)
}

/// What one pass over one app may do.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// The policy whose limit holds; `None`: no limit.
    pub(crate) guard: Option<&'a PrunePolicy>,
    /// Whether what had to wait for steady (volumes) goes now.
    pub(crate) cleanup: bool,
    /// Whether what is on its way out is waited for, to be made anew. Repairing
    /// drift does not: nothing else could be done on the device meanwhile, and
    /// that it is gone is an event.
    pub(crate) waits: bool,
    pub(crate) direction: Direction,
    /// What is let be: somebody keeps changing it.
    pub(crate) held: &'a BTreeSet<Object>,
}

/// What a pass over one app did.
#[derive(Clone, Debug)]
pub(crate) struct Converged {
    pub(crate) outcome: Outcome,
    /// What is on its way out and was not waited for.
    pub(crate) leaving: Vec<Object>,
    /// A line a step that was let be.
    pub(crate) held: Vec<String>,
    /// A line a step that was carried out, with its object.
    pub(crate) steps: Vec<(Object, String)>,
}

/// Plans one app and carries the plan out, anew when the world changed.
pub(crate) async fn converge<P: Parts>(
    context: &Context<P>,
    subject: Subject<'_>,
    runtime: &str,
    pass: Pass<'_>,
    stop: &Cell<bool>,
) -> Result<Converged, RuntimeError> {
    with_runtime!(context, runtime, |adapter| converge_in(context, adapter, runtime, subject, pass, stop).await)
}

/// How often a world that keeps changing is planned for again.
const REPLANS: u32 = 5;

async fn converge_in<P: Parts, R: Runtime>(
    context: &Context<P>,
    adapter: &R,
    runtime: &str,
    subject: Subject<'_>,
    pass: Pass<'_>,
    stop: &Cell<bool>,
) -> Result<Converged, RuntimeError> {
    let mut done = Vec::new();
    let mut replans = 0;
    loop {
        let owned = context.inventory(subject.app, runtime);
        let back = pass.direction == Direction::Back;
        let borrowed = context.state().borrowed(back);
        let task = |inventory| Task { back, borrowed: &borrowed, ..subject.task(inventory) };
        let mut plan = adapter.plan(task(&owned)).await?;
        let leaving = if pass.waits { Vec::new() } else { let_go(&mut plan) };
        let mut held = Vec::new();
        let (plan, kept_back, withheld) = guarded(context, subject, plan, &owned, pass, &mut held);
        let settled = settled_inventory(&plan, &kept_back, &owned);
        if plan.steps.is_empty() {
            own(context, subject.app, runtime, settled, Mark::Settled(withheld)).map_err(journal)?;
            return Ok(Converged { outcome: Outcome::Done, leaving, held, steps: done });
        }
        let mut union = owned.clone();
        union.extend(plan.inventory.clone());
        // Before the first step: what the steps will own is on disk.
        // So is which of it somebody else made.
        let begun = Begun::of(&plan.steps, withheld.clone());
        own(context, subject.app, runtime, union.clone(), Mark::Begun(begun)).map_err(journal)?;
        let run = async |step: &Step<R::Data>| {
            tracing::info!(app = %subject.app, verb = ?step.verb, object = %step.object, why = step.why, "step");
            adapter.execute(Task { back, borrowed: &borrowed, ..subject.task(&union) }, step).await
        };
        let carried = carry_out(&plan.steps, stop, run, |step| done.push((step.object.clone(), line(step)))).await;
        let Carried { ended, mut changed } = carried;
        // What could not be made is somebody's: it was named as ours before the
        // first step, and must not be taken for ours by the next plan.
        let begins = |step: &Step<R::Data>| matches!(step.verb, Verb::Create | Verb::Adopt);
        let made = |object: &Object| plan.steps.iter().any(|step| begins(step) && step.object == *object);
        changed.retain(|object| made(object) && !owned.contains_key(object));
        if !changed.is_empty() {
            changed.iter().for_each(|object| drop(union.remove(object)));
            let begun = Begun { withheld: withheld.clone(), ..Begun::default() };
            own(context, subject.app, runtime, union, Mark::Begun(begun)).map_err(journal)?;
        }
        match ended {
            Ok(Outcome::Interrupted) => {
                return Ok(Converged { outcome: Outcome::Interrupted, leaving, held, steps: done });
            }
            Ok(Outcome::Done) => {
                own(context, subject.app, runtime, settled, Mark::Settled(withheld)).map_err(journal)?;
                return Ok(Converged { outcome: Outcome::Done, leaving, held, steps: done });
            }
            // It was waited for long enough.
            Err(error) if is_of_wait(&plan, &error) => return Err(error),
            Err(RuntimeError::Changed { object }) if replans < REPLANS => {
                tracing::warn!(app = %subject.app, %object, "the device changed under the plan; planning anew");
                replans += 1;
            }
            Err(error) if error.is_transient() && matches!(error, RuntimeError::Step { .. }) && replans < REPLANS => {
                tracing::warn!(app = %subject.app, error = chain(&error), "a step failed; planning anew");
                replans += 1;
                tokio::time::sleep(Duration::from_millis(200 << replans)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether a step failed that only waits.
fn is_of_wait<D>(plan: &Plan<D>, error: &RuntimeError) -> bool {
    let RuntimeError::Step { object: failed, action, .. } = error else { return false };
    *action == "wait for" && plan.steps.iter().any(|step| step.verb == Verb::Wait && step.object == *failed)
}

/// Takes out of a plan what would first be waited for until it is gone, and all
/// that is to be done to it then.
fn let_go<D>(plan: &mut Plan<D>) -> Vec<Object> {
    let mut leaving: Vec<Object> = Vec::new();
    for (at, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.verb == Verb::Wait) {
        // What is waited for after it was made is not on its way out.
        if !plan.steps[..at].iter().any(|before| before.object == step.object) {
            leaving.push(step.object.clone());
        }
    }
    plan.steps.retain(|step| !leaving.contains(&step.object));
    leaving
}

/// `replace container/pos-web-1: image`.
pub(crate) fn line<D>(step: &Step<D>) -> String {
    let verb = format!("{:?}", step.verb).to_lowercase();
    let later = if step.after_steady { " (once steady)" } else { "" };
    if step.why.is_empty() {
        format!("{verb} {}{later}", step.object)
    } else {
        format!("{verb} {}: {}{later}", step.object, step.why)
    }
}

/// The plan without what may not go and what is let be, whose lines go to
/// `held`; the objects whose deletion was left out, now or for good; and those
/// of them that `prune.maxDelete` keeps.
fn guarded<P: Parts, D>(
    context: &Context<P>,
    subject: Subject<'_>,
    mut plan: Plan<D>,
    owned: &Inventory,
    pass: Pass<'_>,
    held: &mut Vec<String>,
) -> (Plan<D>, BTreeSet<Object>, BTreeSet<Object>) {
    let mut left_out = BTreeSet::new();
    let withheld = context.state().withheld.remove(subject.app).unwrap_or_default();
    let policy = pass.guard.or_else(|| subject.had.map(|app| &app.prune).filter(|_| subject.want.is_none()));
    let deletions = plan.steps.iter().filter(|step| step.verb == Verb::Delete).count();
    let disabled = policy.is_some_and(|policy| !policy.enabled);
    let deletes = |object: &Object| plan.steps.iter().any(|step| step.verb == Verb::Delete && step.object == *object);
    // What was withheld once is not let go because the inventory grew since.
    let over =
        pass.guard.is_some_and(|policy| !prune::within(policy, deletions, owned.len()) || withheld.iter().any(deletes));
    if deletions > 0 && over && !disabled {
        let message = format!(
            "app {}: {deletions} of {} objects would be deleted, more than prune.maxDelete allows; none was\nhint: look at `burgee-agent diff`, then `burgee-agent sync --prune`",
            subject.app,
            owned.len()
        );
        tracing::warn!(app = %subject.app, deletions, owned = owned.len(), "too many deletions; none carried out");
        context.set("PruneLimited", true, "MaxDelete", message);
    } else if pass.guard.is_some() || subject.want.is_none() {
        // Within the limit, let go, or gone whole.
        let ours = context
            .conditions
            .borrow()
            .get("PruneLimited")
            .is_some_and(|condition| condition.message.starts_with(&format!("app {}:", subject.app)));
        if ours {
            context.clear("PruneLimited");
        }
    }
    plan.steps.retain(|step| {
        let refused = step.verb == Verb::Delete && (over || disabled);
        let later = step.after_steady && !pass.cleanup;
        if refused || later {
            left_out.insert(step.object.clone());
        }
        // What is to go is fought over by nobody.
        let is_held = !matches!(step.verb, Verb::Delete | Verb::Release) && pass.held.contains(&step.object);
        if is_held {
            held.push(line(step));
        }
        !refused && !later && !is_held
    });
    let withheld = if over && !disabled { left_out.clone() } else { BTreeSet::new() };
    (plan, left_out, withheld)
}

/// Waits until what `app` depends on is healthy, each as long as its own
/// time-out allows.
async fn wait_for_dependencies<P: Parts>(
    context: &Context<P>,
    (to, blobs): (&Kept, &Blobs),
    app: &DesiredApp,
    from: Option<&Kept>,
    stop: &Cell<bool>,
) -> Result<(), Failure> {
    let touched = context.state().touched;
    for name in &app.depends_on {
        let Some(dependency) = to.desired.apps.iter().find(|other| other.name == *name) else { continue };
        // What nobody changed is not waited for: an old sick app must not
        // block an innocent revision.
        if order::unchanged(dependency, from.map(|kept| &kept.desired), &touched) {
            continue;
        }
        let subject = Subject::of(to, blobs, dependency);
        probe::until_healthy(context, subject, Duration::ZERO, stop).await.map_err(|unhealthy| Failure {
            policy: dependency.on_failure,
            reason: "DependencyUnhealthy",
            message: format!("app {} waits for app {name}: {}", app.name, unhealthy.message),
            transient: false,
            blameless: false,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Object, Plan, RuntimeError, Step, Verb, is_of_wait, let_go};
    use crate::ports::runtime::Inventory;

    fn object(name: &str) -> Object {
        Object { kind: "x".to_owned(), name: name.to_owned() }
    }

    fn plan(steps: &[(Verb, &str)]) -> Plan<()> {
        let step = |(verb, name): &(Verb, &str)| Step {
            verb: *verb,
            object: object(name),
            why: String::new(),
            after_steady: false,
            group: None,
            data: (),
        };
        Plan { steps: steps.iter().map(step).collect(), inventory: Inventory::new() }
    }

    #[test]
    fn a_repair_does_not_wait_for_what_is_on_its_way_out() {
        let mut plan = plan(&[
            (Verb::Create, "definition"),
            (Verb::Wait, "definition"),
            (Verb::Update, "map"),
            (Verb::Wait, "claim"),
            (Verb::Create, "claim"),
        ]);
        assert_eq!(let_go(&mut plan), [object("claim")]);
        let rest: Vec<(Verb, &str)> = plan.steps.iter().map(|step| (step.verb, step.object.name.as_str())).collect();
        assert_eq!(rest, [(Verb::Create, "definition"), (Verb::Wait, "definition"), (Verb::Update, "map")]);
    }

    #[test]
    fn what_was_waited_for_long_enough_is_not_planned_again() {
        let plan = plan(&[(Verb::Wait, "claim"), (Verb::Create, "claim")]);
        let failed = |action, name| RuntimeError::Step {
            action,
            object: object(name),
            transient: true,
            source: "it takes its time".into(),
        };
        assert!(is_of_wait(&plan, &failed("wait for", "claim")));
        assert!(!is_of_wait(&plan, &failed("apply", "claim")));
        assert!(!is_of_wait(&plan, &failed("wait for", "other")));
    }
}
