//! Waiting, within a bound: for what a dependent asks of its dependency, and
//! for an update to prove itself.

use std::time::Duration;

use fleet::compose::model::{Condition, Restart};
use tokio::time::Instant;

use super::diff;
use super::execute::{Hands, changed, step_failed};
use super::health::{CheckState, Look};
use super::observe::Stand;
use crate::ports::runtime::{Object, RuntimeError};

impl Hands<'_> {
    /// Waits until all of a service's containers satisfy a dependent.
    pub(super) async fn await_service(
        &self,
        object: &Object,
        name: &str,
        condition: Condition,
        limit: Duration,
    ) -> Result<(), RuntimeError> {
        let (project, service) = self.service(name, object)?;
        let names: Vec<String> =
            (1..=service.replicas).map(|number| diff::name_of(project, name, service, number)).collect();
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(50);
        loop {
            let mut waits_for = None;
            for name in &names {
                let Some(look) = self.own.look(self.link, name).await? else { return Err(changed(object)) };
                match satisfied(&look, condition, service.restart) {
                    Some(Ok(())) => {}
                    Some(Err(cause)) => return Err(step_failed("wait for", object, &cause, false)),
                    None => waits_for = Some(name.clone()),
                }
            }
            let Some(name) = waits_for else { return Ok(()) };
            if Instant::now() > deadline {
                let cause = match condition {
                    Condition::Healthy => format!("{name} was not healthy within {} s", limit.as_secs()),
                    _ => format!("{name} was not done within {} s", limit.as_secs()),
                };
                return Err(step_failed("wait for", object, &cause, false));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
        }
    }

    /// Watches containers after an update: until they are healthy if
    /// `healthy`, and in any case for `monitor`.
    pub(super) async fn watch(
        &self,
        names: &[String],
        monitor: Duration,
        healthy: bool,
        limit: Duration,
    ) -> Result<(), RuntimeError> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let mut waiting = begun.elapsed() < monitor;
            for name in names {
                let object = diff::container(name);
                let look = self.own.look(self.link, name).await?.ok_or_else(|| changed(&object))?;
                let failed = |cause: &str| Err(step_failed("update", &object, cause, false));
                match (look.stand, &look.check) {
                    (Stand::Exited { code: 0 }, _) => {}
                    (Stand::Exited { code }, _) => return failed(&format!("it exited with code {code}")),
                    (Stand::Restarting, _) => return failed("it crashes"),
                    _ if look.restarts > 0 => return failed("it crashed"),
                    (_, CheckState::Unhealthy(output)) => return failed(&format!("healthcheck failing: {output}")),
                    (Stand::Running, CheckState::Starting) if healthy => waiting = true,
                    (Stand::Running, _) => {}
                    (Stand::Created | Stand::Paused | Stand::Gone, _) => return Err(changed(&object)),
                }
            }
            if !waiting {
                return Ok(());
            }
            if begun.elapsed() > limit.max(monitor) {
                let object = diff::container(names.first().map(String::as_str).unwrap_or_default());
                return Err(step_failed("update", &object, "it was not healthy in time", false));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(500));
        }
    }
}

/// Whether a container is as its dependent wants it; `None`: not yet.
fn satisfied(look: &Look, condition: Condition, restart: Restart) -> Option<Result<(), String>> {
    let ended = |code: i64| match restart {
        Restart::No => Some(Err(format!("it exited with code {code}"))),
        // The Engine may start it again.
        Restart::OnFailure { .. } | Restart::Always | Restart::UnlessStopped => None,
    };
    match (condition, look.stand) {
        (_, Stand::Created) if !look.error.is_empty() => Some(Err(format!("it could not start: {}", look.error))),
        (_, Stand::Gone) => Some(Err("the engine calls it dead".to_owned())),
        (Condition::Started, Stand::Running | Stand::Exited { .. }) => Some(Ok(())),
        (Condition::Healthy, Stand::Running) => match &look.check {
            CheckState::Healthy => Some(Ok(())),
            CheckState::None => Some(Err("it has no healthcheck".to_owned())),
            CheckState::Unhealthy(output) => Some(Err(format!("healthcheck failing: {output}"))),
            CheckState::Starting => None,
        },
        (Condition::CompletedSuccessfully, Stand::Exited { code: 0 }) => Some(Ok(())),
        (_, Stand::Exited { code }) => ended(code),
        _ => None,
    }
}
