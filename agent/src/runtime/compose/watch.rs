//! The Engine's events, as a hint that something changed: one stream, held
//! open, and nothing else while idle.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use fleet::name::DeviceName;
use futures_util::{Stream, StreamExt};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::engine::{Engine, READ};
use super::labels;

/// Docker's and Podman's words. Healthchecks run in between would wake the
/// device for nothing: `exec_*` is not among them.
const EVENTS: [&str; 11] =
    ["die", "died", "start", "stop", "destroy", "remove", "oom", "pause", "unpause", "rename", "health_status"];

/// From asking for events until they are counted on to come.
const SETTLED: Duration = Duration::from_millis(300);

type Events = Pin<Box<dyn Stream<Item = Result<EventMessage, EngineError>> + Send>>;

/// The stream and what it said last.
#[derive(Default)]
pub(super) struct Watch {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    events: Option<Events>,
    /// The stream is new: what happened until it came is unknown.
    is_new: bool,
    failures: u32,
    /// Not before. Kept here, so that a cancelled wait isn't begun anew.
    retry_at: Option<Instant>,
    /// Podman repeats itself at every check.
    health: HashMap<String, String>,
}

impl Watch {
    /// Resolves at the next event that may matter. The stream is kept when
    /// this is cancelled.
    pub(super) async fn changed(&self, engine: &Engine, device: &DeviceName) {
        let mut inner = self.inner.lock().await;
        loop {
            if inner.events.is_none() {
                inner.connect(engine, device).await;
                continue;
            }
            let is_new = inner.is_new;
            let next = match inner.events.as_mut() {
                // The stream asks for events when it is first read from.
                Some(events) if is_new => match tokio::time::timeout(SETTLED, events.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        inner.is_new = false;
                        return;
                    }
                },
                Some(events) => events.next().await,
                None => continue,
            };
            match next {
                Some(Ok(_)) if is_new => {
                    inner.is_new = false;
                    return;
                }
                Some(Ok(event)) if inner.matters(&event) => return,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "engine events broke off");
                    inner.back_off();
                }
                None => inner.back_off(),
            }
        }
    }
}

impl Inner {
    async fn connect(&mut self, engine: &Engine, device: &DeviceName) {
        if let Some(at) = self.retry_at {
            tokio::time::sleep_until(at).await;
        }
        let Ok(link) = engine.link().await else {
            self.back_off();
            return;
        };
        // A link that was made before says nothing about now.
        if link.ask(READ, link.docker.ping()).await.is_err() {
            self.back_off();
            return;
        }
        self.failures = 0;
        let filters = HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{}={device}", labels::DEVICE)]),
            ("event".to_owned(), EVENTS.map(str::to_owned).to_vec()),
        ]);
        let options = EventsOptions { filters: Some(filters), ..EventsOptions::default() };
        self.events = Some(Box::pin(link.docker.events(Some(options))));
        self.is_new = true;
        self.health.clear();
    }

    /// One second, doubled with each failure in a row, a minute at most.
    fn back_off(&mut self) {
        self.events = None;
        let secs = (1u64 << self.failures.min(6)).min(60);
        self.failures += 1;
        self.retry_at = Some(Instant::now() + Duration::from_secs(secs));
    }

    /// A health status counts when it differs from the one before.
    fn matters(&mut self, event: &EventMessage) -> bool {
        let action = event.action.clone().unwrap_or_default();
        let actor = event.actor.clone().unwrap_or_default();
        let id = actor.id.unwrap_or_default();
        if !action.starts_with("health_status") {
            if matches!(action.as_str(), "die" | "destroy" | "remove") {
                self.health.remove(&id);
            }
            return true;
        }
        let attributes = actor.attributes.unwrap_or_default();
        let said = attributes.get("health_status").cloned().unwrap_or(action);
        self.health.insert(id, said.clone()).as_ref() != Some(&said)
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    #[test]
    fn a_repeated_health_status_is_silent() {
        let mut inner = Inner::default();
        let mut check = |action: &str, want: bool| {
            let actor = EventActor { id: Some("a".to_owned()), attributes: None };
            let event = EventMessage { action: Some(action.to_owned()), actor: Some(actor), ..EventMessage::default() };
            assert_eq!(inner.matters(&event), want, "{action}");
        };
        check("health_status: healthy", true);
        check("health_status: healthy", false);
        check("health_status: unhealthy", true);
        check("die", true);
        check("health_status: unhealthy", true);
    }
}
