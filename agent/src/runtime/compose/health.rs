//! Whether an app's containers are well, in one sentence.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bollard::query_parameters::LogsOptions;
use fleet::compose::model::{Project, Restart, Service};
use fleet::wire::status::Health;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::engine::{Link, READ, WRITE, one_line};
use super::observe::{Observed, Stand};
use super::read::{self, Inspection};
use crate::ports::runtime::{RuntimeError, Verdict};

/// A container that was started again by the Engine, and runs for less than
/// this, is in a crash loop.
const SETTLED: Duration = Duration::from_secs(60);

/// What an inspection says about a container's condition.
pub(super) struct Look {
    pub(super) id: String,
    pub(super) stand: Stand,
    pub(super) check: CheckState,
    pub(super) restarts: i64,
    /// Why it did not start.
    pub(super) error: String,
    oom: bool,
    started_at: Option<Timestamp>,
}

/// What the healthcheck says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckState {
    None,
    Starting,
    Healthy,
    /// With the check's last output.
    Unhealthy(String),
}

/// Podman leaves the running of healthchecks to systemd timers. Where nothing
/// runs them, Podman is asked to, whenever somebody looks and the interval is
/// over.
#[derive(Default)]
pub(super) struct OwnChecks {
    /// By container: when its last check ended, and when that was first seen.
    seen: Mutex<HashMap<String, (String, Instant)>>,
}

impl OwnChecks {
    /// Looks at one container; `None`: there is none.
    pub(super) async fn look(&self, link: &Link, name: &str) -> Result<Option<Look>, RuntimeError> {
        let Some(mut found) = read::inspect(link, name).await? else { return Ok(None) };
        if link.podman && self.is_due(&found) {
            read::run_healthcheck(link, &found.id, WRITE).await?;
            match read::inspect(link, name).await? {
                Some(fresh) => found = fresh,
                None => return Ok(None),
            }
        }
        let stand = Stand::new(&found.state.status, found.state.exit_code);
        let health = found.state.health.unwrap_or_default();
        let last = health.log.iter().flatten().last().map(|result| one_line(&result.output)).unwrap_or_default();
        let check = match health.status.as_str() {
            "starting" => CheckState::Starting,
            "healthy" => CheckState::Healthy,
            "unhealthy" => CheckState::Unhealthy(last),
            _ => CheckState::None,
        };
        Ok(Some(Look {
            id: found.id,
            stand,
            check,
            restarts: found.restart_count,
            error: one_line(&found.state.error),
            oom: found.state.oom_killed,
            started_at: found.state.started_at.parse().ok(),
        }))
    }

    fn is_due(&self, found: &Inspection) -> bool {
        let Some(config) = found.config.healthcheck.as_ref().filter(|_| found.state.running) else { return false };
        if config.test.as_ref().and_then(|test| test.first()).is_none_or(|word| word == "NONE") {
            return false;
        }
        let health = found.state.health.as_ref();
        let Some(last) = health.and_then(|health| health.log.as_ref()?.last()) else { return true };
        let interval = if config.interval > 0 { config.interval.unsigned_abs() } else { 30_000_000_000 };
        let id = &found.id;
        let mut seen = self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match seen.get(id) {
            // A second's grace for a timer that does run.
            Some((end, since)) if *end == last.end => {
                since.elapsed() > Duration::from_nanos(interval) + Duration::from_secs(1)
            }
            _ => {
                if seen.len() > 1000 {
                    seen.clear();
                }
                seen.insert(id.clone(), (last.end.clone(), Instant::now()));
                false
            }
        }
    }
}

/// The verdict on every container that a project wants.
pub(super) async fn judge(
    link: &Link,
    own: &OwnChecks,
    project: &Project,
    observed: &Observed,
) -> Result<Verdict, RuntimeError> {
    let mut worst = Verdict { health: Health::Healthy, message: String::new() };
    let mut clock = None;
    for (name, service) in &project.services {
        for number in 1..=service.replicas {
            let title = if service.replicas > 1 { format!("{name}-{number}") } else { name.clone() };
            let seen = observed.containers.iter().find(|seen| seen.service == *name && seen.number == number);
            let verdict = match seen {
                None => Verdict { health: Health::Missing, message: format!("{title}: there is no container") },
                Some(seen) => match own.look(link, &seen.id).await? {
                    None => Verdict { health: Health::Missing, message: format!("{title}: there is no container") },
                    Some(look) => one(link, &title, service, &look, &mut clock).await?,
                },
            };
            if rank(verdict.health) > rank(worst.health) {
                worst = verdict;
            }
        }
    }
    Ok(worst)
}

fn rank(health: Health) -> u8 {
    match health {
        Health::Degraded => 3,
        Health::Missing => 2,
        Health::Progressing => 1,
        _ => 0,
    }
}

async fn one(
    link: &Link,
    title: &str,
    service: &Service,
    look: &Look,
    clock: &mut Option<Timestamp>,
) -> Result<Verdict, RuntimeError> {
    let degraded = |message: String| Verdict { health: Health::Degraded, message: format!("{title}: {message}") };
    let healthy = Verdict { health: Health::Healthy, message: String::new() };
    let ends = matches!(service.restart, Restart::No | Restart::OnFailure { .. });
    Ok(match look.stand {
        Stand::Exited { code: 0 } if ends => healthy,
        Stand::Created if look.error.is_empty() => {
            Verdict { health: Health::Progressing, message: format!("{title}: not started yet") }
        }
        Stand::Created => degraded(format!("could not start: {}", look.error)),
        Stand::Paused => degraded("paused".to_owned()),
        Stand::Gone => degraded("the engine calls it dead".to_owned()),
        Stand::Exited { code } => {
            let memory = if look.oom { ", out of memory" } else { "" };
            degraded(format!("exited with code {code}{memory}{}", last_words(link, &look.id).await))
        }
        Stand::Restarting => degraded(format!(
            "restarting again and again ({} times){}",
            look.restarts,
            last_words(link, &look.id).await
        )),
        Stand::Running if look.restarts > 0 && !settled(link, look, clock).await? => {
            degraded(format!("crashed and was restarted ({} times){}", look.restarts, last_words(link, &look.id).await))
        }
        Stand::Running => match &look.check {
            CheckState::None | CheckState::Healthy => healthy,
            CheckState::Starting => {
                Verdict { health: Health::Progressing, message: format!("{title}: healthcheck has not passed yet") }
            }
            CheckState::Unhealthy(output) if output.is_empty() => degraded("healthcheck failing".to_owned()),
            CheckState::Unhealthy(output) => degraded(format!("healthcheck failing: {output}")),
        },
    })
}

/// By the Engine's clock, which also wrote the time of the start.
async fn settled(link: &Link, look: &Look, clock: &mut Option<Timestamp>) -> Result<bool, RuntimeError> {
    let now = match *clock {
        Some(now) => now,
        None => {
            let Ok(now) = read::clock(link).await?.parse() else { return Ok(true) };
            *clock = Some(now);
            now
        }
    };
    let Some(started) = look.started_at else { return Ok(true) };
    let ran = now.duration_since(started);
    // A clock that was set back says nothing.
    Ok(ran.is_negative() || ran.unsigned_abs() >= SETTLED)
}

/// The last line of a container's log, as `: LINE`; empty if there is none.
async fn last_words(link: &Link, id: &str) -> String {
    let options = LogsOptions { stdout: true, stderr: true, tail: "1".to_owned(), ..LogsOptions::default() };
    let mut lines = std::pin::pin!(link.docker.logs(id, Some(options)));
    let mut last = String::new();
    while let Ok(Some(Ok(line))) = tokio::time::timeout(READ, lines.next()).await {
        let line = one_line(&line.to_string());
        if !line.is_empty() {
            last = line;
        }
    }
    if last.is_empty() { last } else { format!(": {last}") }
}
