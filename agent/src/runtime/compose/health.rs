//! Whether an app's containers are well, in one sentence.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::{ContainerStateStatusEnum, HealthConfig, HealthStatusEnum};
use bollard::query_parameters::LogsOptions;
use fleet::compose::model::{Project, Restart, Service};
use fleet::wire::status::Health;
use futures_util::StreamExt;
use jiff::Timestamp;

use super::engine::{Link, READ, one_line};
use super::observe::{Observed, Stand, inspect};
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
    /// Why it did not start, or how it died.
    pub(super) error: String,
    oom: bool,
    started_at: Option<Timestamp>,
    health_config: Option<HealthConfig>,
    /// Whether the Engine ran the check at all.
    checked: bool,
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

/// Podman leaves healthchecks to systemd timers. Where those don't run, the
/// checks are run from here, whenever somebody looks; this counts failures.
#[derive(Default)]
pub(super) struct OwnChecks {
    failed: Mutex<HashMap<String, i64>>,
}

impl OwnChecks {
    /// Looks at one container; `None`: there is none.
    pub(super) async fn look(&self, link: &Link, name: &str) -> Result<Option<Look>, RuntimeError> {
        let Some(mut look) = look(link, name).await? else { return Ok(None) };
        if link.podman && look.stand == Stand::Running && look.check == CheckState::Starting && !look.checked {
            if let Some(config) = &look.health_config {
                look.check = self.run(link, &look.id, config).await?;
            }
        }
        Ok(Some(look))
    }

    async fn run(&self, link: &Link, id: &str, config: &HealthConfig) -> Result<CheckState, RuntimeError> {
        let test = config.test.clone().unwrap_or_default();
        let command = match test.split_first() {
            Some((first, rest)) if first == "CMD" => rest.to_vec(),
            Some((first, rest)) if first == "CMD-SHELL" => {
                [&["/bin/sh".to_owned(), "-c".to_owned()][..], rest].concat()
            }
            _ => return Ok(CheckState::None),
        };
        let nanos = config.timeout.filter(|nanos| *nanos > 0).unwrap_or(30_000_000_000);
        let limit = Duration::from_nanos(nanos.unsigned_abs());
        let (passed, output) = match tokio::time::timeout(limit, exec(link, id, command)).await {
            Ok(outcome) => outcome?,
            Err(_) => (false, format!("no answer within {} s", limit.as_secs())),
        };
        let mut failed = self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if passed {
            failed.remove(id);
            return Ok(CheckState::Healthy);
        }
        let count = failed.entry(id.to_owned()).or_default();
        *count += 1;
        let retries = config.retries.filter(|retries| *retries > 0).unwrap_or(3);
        Ok(if *count >= retries { CheckState::Unhealthy(output) } else { CheckState::Starting })
    }
}

/// Runs a command in a container: (whether it exited 0, its output).
async fn exec(link: &Link, id: &str, command: Vec<String>) -> Result<(bool, String), RuntimeError> {
    let what = "healthcheck";
    let options = CreateExecOptions::<String> {
        cmd: Some(command),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let made = link.ask(READ, link.docker.create_exec(id, options)).await.map_err(|failure| failure.reading(what))?;
    let started = link.ask(READ, link.docker.start_exec(&made.id, None::<StartExecOptions>)).await;
    let mut text = String::new();
    if let StartExecResults::Attached { mut output, .. } = started.map_err(|failure| failure.reading(what))? {
        while let Some(Ok(piece)) = output.next().await {
            if text.len() < 4096 {
                text.push_str(&piece.to_string());
            }
        }
    }
    let ended = link.ask(READ, link.docker.inspect_exec(&made.id)).await.map_err(|failure| failure.reading(what))?;
    Ok((ended.exit_code == Some(0), one_line(&text)))
}

async fn look(link: &Link, name: &str) -> Result<Option<Look>, RuntimeError> {
    let Some(found) = inspect(link, name).await? else { return Ok(None) };
    let state = found.state.unwrap_or_default();
    let code = state.exit_code.unwrap_or_default();
    let stand = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Stand::Created,
        Some(ContainerStateStatusEnum::RUNNING) => Stand::Running,
        Some(ContainerStateStatusEnum::PAUSED) => Stand::Paused,
        Some(ContainerStateStatusEnum::RESTARTING) => Stand::Restarting,
        Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::STOPPING) => Stand::Exited { code },
        _ => Stand::Gone,
    };
    let health = state.health.unwrap_or_default();
    let log = health.log.unwrap_or_default();
    let last = log.last().and_then(|result| result.output.as_deref()).map(one_line).unwrap_or_default();
    let check = match health.status {
        Some(HealthStatusEnum::STARTING) => CheckState::Starting,
        Some(HealthStatusEnum::HEALTHY) => CheckState::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => CheckState::Unhealthy(last),
        Some(HealthStatusEnum::EMPTY | HealthStatusEnum::NONE) | None => CheckState::None,
    };
    Ok(Some(Look {
        id: found.id.unwrap_or_default(),
        stand,
        check,
        restarts: found.restart_count.unwrap_or_default(),
        error: one_line(&state.error.unwrap_or_default()),
        oom: state.oom_killed.unwrap_or_default(),
        started_at: state.started_at.and_then(|at| at.parse().ok()),
        health_config: found.config.and_then(|config| config.healthcheck),
        checked: !log.is_empty(),
    }))
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
            let info =
                link.ask(READ, link.docker.info()).await.map_err(|failure| failure.reading("the engine's clock"))?;
            let Some(now) = info.system_time.and_then(|time| time.parse().ok()) else { return Ok(true) };
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
