//! Judges apps: what their runtime says, and the checks of `app.yaml`.

use std::cell::Cell;
use std::time::Duration;

use fleet::desired::{Blobs, OnFailure};
use fleet::name::AppName;
use fleet::wire::status::Health;
use tokio::time::Instant;

use super::context::{Context, Parts, Subject, chain, runtime_of, with_runtime};
use crate::plan::order;
use crate::ports::journal::Kept;
use crate::ports::prober::Prober;
use crate::ports::runtime::{Runtime, RuntimeError, Verdict};

/// An app that was not healthy in time.
#[derive(Clone, Debug)]
pub(crate) struct Unhealthy {
    pub(crate) app: AppName,
    pub(crate) policy: OnFailure,
    pub(crate) message: String,
}

/// Looks once; an error where there is no verdict.
pub(crate) async fn try_look<P: Parts>(context: &Context<P>, subject: Subject<'_>) -> Result<Verdict, RuntimeError> {
    let Some(app) = subject.want else { return Ok(Verdict { health: Health::Missing, message: String::new() }) };
    let runtime = runtime_of(app);
    let inventory = context.inventory(subject.app, runtime);
    let verdict = with_runtime!(context, runtime, |adapter| adapter.health(subject.task(&inventory)).await)?;
    if verdict.health != Health::Healthy {
        return Ok(verdict);
    }
    for check in &app.health.checks {
        let probed = context.prober.probe(check).await;
        if probed.health != Health::Healthy {
            return Ok(probed);
        }
    }
    Ok(verdict)
}

/// Waits until one app was healthy for `soak`, within its time-out.
pub(crate) async fn until_healthy<P: Parts>(
    context: &Context<P>,
    subject: Subject<'_>,
    soak: Duration,
    stop: &Cell<bool>,
) -> Result<(), Unhealthy> {
    let Some(app) = subject.want else { return Ok(()) };
    let time = Duration::from_millis(app.health.timeout_ms);
    let (mut deadline, mut spare) = (Instant::now() + time, time);
    let mut healthy_since: Option<Instant> = None;
    let mut pause = Duration::from_millis(50);
    loop {
        let looked = Instant::now();
        let mut away = false;
        let verdict = try_look(context, subject).await.unwrap_or_else(|error| {
            away = matches!(error, RuntimeError::Unreachable { .. });
            Verdict { health: Health::Unknown, message: chain(&error) }
        });
        // Said while it is waited for: why it takes so long.
        context.saw(app, &verdict);
        match verdict.health {
            // Suspended is as the revision has it: paused by its own word.
            Health::Healthy | Health::Suspended => {
                let since = *healthy_since.get_or_insert(looked);
                if looked.duration_since(since) >= soak {
                    return Ok(());
                }
            }
            // Time without an engine is no one's fault; with one that answers, and
            // does not tell, that is so for a while: else a bad revision would stay
            // for ever.
            Health::Unknown => {
                let more = looked.elapsed() + pause;
                let more = if away { more } else { more.min(spare) };
                spare = if away { spare } else { spare - more };
                deadline += more;
            }
            _ => {
                // A soak that broke begins again, and the time-out with it
                // only if it had not passed: else a flapping app never fails.
                healthy_since = None;
            }
        }
        let is_well = matches!(verdict.health, Health::Healthy | Health::Suspended);
        let limit = if healthy_since.is_some() { deadline + soak } else { deadline };
        if !is_well && Instant::now() >= limit {
            let message = if verdict.message.is_empty() {
                format!("{:?} after {} s", verdict.health, app.health.timeout_ms / 1000).to_lowercase()
            } else {
                verdict.message
            };
            return Err(Unhealthy { app: app.name.clone(), policy: app.on_failure, message });
        }
        if stop.get() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Judges the apps that changed and those that depend on them, all at once.
pub(crate) async fn probe<P: Parts>(
    context: &Context<P>,
    (to, blobs): (&Kept, &Blobs),
    back: Option<&Kept>,
    stop: &Cell<bool>,
) -> Result<(), Unhealthy> {
    let judged = order::judged(&to.desired, back.map(|kept| &kept.desired), &context.state().touched);
    let apps = to.desired.apps.iter().filter(|app| judged.contains(&app.name));
    let waits = apps.map(|app| {
        let soak = Duration::from_millis(app.health.soak_ms);
        until_healthy(context, Subject::of(to, blobs, app), soak, stop)
    });
    // The first failure is enough; the others' soak need not be waited for.
    futures_util::future::try_join_all(waits).await.map(|_| ())
}
