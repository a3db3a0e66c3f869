//! Carries out one action. Each may be repeated: an object that is there as it
//! should be is applied once more without effect, and one that is gone is not
//! missed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fleet::kubernetes::{Kind, ObjectId};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api::{Api, ApiError, Deleted, Meta, Resource};
use super::cache::Cache;
use super::managed::{given_back, handed_over};
use super::objects::{defined_by, named};
use super::owner::DIGEST;
use super::plan::{Action, creating};
use crate::ports::runtime::{Hinted, Object, RuntimeError};

/// An object that is deleted may take its time: pods stop, finalizers run.
const GONE: Duration = Duration::from_secs(120);
/// What has an operator to finish it, before that goes, too.
const FINISHED: Duration = Duration::from_secs(30);
/// A definition is served within a moment.
const SERVED: Duration = Duration::from_secs(60);
/// A name whose namespace was just made may be refused for a moment.
const YOUNG: Duration = Duration::from_secs(10);

/// What every action works with.
pub(super) struct Hands<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) cache: &'a Cache,
    pub(super) prints: &'a Prints,
    pub(super) defined: &'a Defined,
}

/// The kinds whose definition was applied, and when: for a moment the server
/// may judge an object by the one before.
#[derive(Default)]
pub(super) struct Defined(Mutex<Vec<(Kind, Instant)>>);

impl Defined {
    fn note(&self, definition: &Value) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.retain(|(_, since)| since.elapsed() < YOUNG);
        kinds.extend(defined_by(definition).into_iter().map(|it| (it.kind, Instant::now())));
    }

    fn is_young(&self, kind: &Kind) -> bool {
        let kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().any(|(it, since)| it == kind && since.elapsed() < YOUNG)
    }
}

/// By what the agent sees that its fields are still its own: the object's uid,
/// and the print of the fields after its last apply.
#[derive(Default)]
pub(super) struct Prints(Mutex<BTreeMap<ObjectId, (String, [u8; 16])>>);

impl Prints {
    pub(super) fn keep(&self, id: &ObjectId, meta: &Meta) {
        if let Some(print) = meta.print {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), (meta.uid.clone(), print));
        }
    }

    pub(super) fn forget(&self, id: &ObjectId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    /// Whether nobody has taken a field away since.
    pub(super) fn holds(&self, id: &ObjectId, meta: &Meta) -> bool {
        let prints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        prints.get(id).is_some_and(|(uid, print)| *uid == meta.uid && Some(*print) == meta.print)
    }
}

impl Hands<'_> {
    pub(super) async fn carry_out(&self, action: &Action) -> Result<(), RuntimeError> {
        match action {
            Action::Apply { id, resource, body, digest, fresh, adopted, replace } => {
                if *adopted {
                    self.take_over(id, resource).await?;
                }
                let digest = fresh.then_some(digest.as_str());
                self.apply(id, resource, body, digest, *replace).await
            }
            Action::Release { id, resource, uid } => self.release(id, resource, uid).await,
            Action::Delete { id, resource, uid, finishes } => self.delete(id, resource, uid, *finishes).await,
            Action::AwaitGone { id, resource, uid } => self.until_gone(id, resource, uid).await,
            Action::AwaitServed { id, resource } => self.until_served(id, resource).await,
        }
    }

    /// `fresh`: it is made, not changed; with the digest of its mark.
    async fn apply(
        &self,
        id: &ObjectId,
        resource: &Resource,
        body: &str,
        fresh: Option<&str>,
        replace: bool,
    ) -> Result<(), RuntimeError> {
        let object = named(id);
        let began = Instant::now();
        let applied = loop {
            match self.api.apply_meta(resource, id.namespace.as_deref(), &id.name, body.as_bytes(), false).await {
                Err(error) if error.is_conflict() => match fresh {
                    Some(digest) => break self.made_already(id, resource, digest).await?,
                    None => return Err(RuntimeError::Changed { object }),
                },
                // The uid in the body is of an object that is gone by now.
                Err(error) if error.is_missing() && is_self(&error, id) => {
                    return Err(RuntimeError::Changed { object });
                }
                Err(error)
                    if (is_young(&error) && began.elapsed() < YOUNG)
                        || ((error.is_invalid() || error.is_misshapen()) && self.defined.is_young(&id.kind)) =>
                {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) if error.is_invalid() && replace && fresh.is_none() => {
                    if self.is_in_the_way(id, resource, body, &error).await? {
                        return self.replace(id, resource, body).await;
                    }
                    return Err(error.step("apply", &object));
                }
                Err(error) if error.is_immutable() => {
                    let hint = format!(
                        "give it another name, or put {} under `replace:` in app.yaml to have it deleted and made anew",
                        id.kind.kind
                    );
                    let source = Box::new(Hinted { message: error.to_string(), hint });
                    return Err(RuntimeError::Step { action: "apply", object, transient: false, source });
                }
                outcome => break outcome.map_err(|error| error.step("apply", &object))?,
            }
        };
        self.learn(id, applied);
        Ok(())
    }

    /// Whether it is only the object that is there which bars the way of a change.
    async fn is_in_the_way(
        &self,
        id: &ObjectId,
        resource: &Resource,
        body: &str,
        error: &ApiError,
    ) -> Result<bool, RuntimeError> {
        if error.is_immutable() {
            return Ok(true);
        }
        let object = named(id);
        let would = self.api.would_make(resource, id.namespace.as_deref(), &unbound(body, &object)?).await;
        would.map_err(|error| error.step("apply", &object))
    }

    /// Has the fields that `kubectl apply` owns handed over to us.
    async fn take_over(&self, id: &ObjectId, resource: &Resource) -> Result<(), RuntimeError> {
        let object = named(id);
        let live = self.api.get(resource, id.namespace.as_deref(), &id.name).await;
        let live = live.map_err(|error| error.reading(&object.to_string()))?;
        let Some(live) = live else { return Err(RuntimeError::Changed { object }) };
        let Some(fields) = handed_over(&live["metadata"]["managedFields"]) else { return Ok(()) };
        let patch = json!([{"op": "replace", "path": "/metadata/managedFields", "value": fields}]);
        match self.api.patch(resource, (id.namespace.as_deref(), &id.name), &live, patch).await {
            Err(error) if error.is_conflict() || error.is_missing() => Err(RuntimeError::Changed { object }),
            done => done.map_err(|error| error.step("take over", &object)),
        }
    }

    /// Takes our marks and our name off an object; all else stays as it is.
    async fn release(&self, id: &ObjectId, resource: &Resource, uid: &str) -> Result<(), RuntimeError> {
        let object = named(id);
        let live = self.api.get(resource, id.namespace.as_deref(), &id.name).await;
        let live = live.map_err(|error| error.reading(&object.to_string()))?;
        if let Some(live) = live.filter(|live| live["metadata"]["uid"] == uid) {
            let patched = self.api.patch(resource, (id.namespace.as_deref(), &id.name), &live, given_back(&live)).await;
            match patched {
                Err(error) if error.is_conflict() || error.is_missing() => {
                    return Err(RuntimeError::Changed { object });
                }
                done => done.map_err(|error| error.step("give back", &object))?,
            }
        }
        self.prints.forget(id);
        self.cache.remove(id);
        Ok(())
    }

    /// The object that is there instead of being made: this very apply's, when
    /// its answer was lost; else somebody's, which is not overwritten.
    async fn made_already(&self, id: &ObjectId, resource: &Resource, digest: &str) -> Result<Meta, RuntimeError> {
        let object = named(id);
        let found = self.api.get_meta(resource, id.namespace.as_deref(), &id.name).await;
        let found = found.map_err(|error| error.reading(&object.to_string()))?;
        let ours = |meta: &Meta| meta.print.is_some() && meta.annotations.get(DIGEST).is_some_and(|it| it == digest);
        found.filter(ours).ok_or(RuntimeError::Changed { object })
    }

    fn learn(&self, id: &ObjectId, meta: Meta) {
        self.prints.keep(id, &meta);
        self.cache.put(id, meta);
    }

    /// Deletes the object and makes it anew.
    async fn replace(&self, id: &ObjectId, resource: &Resource, body: &str) -> Result<(), RuntimeError> {
        let object = named(id);
        let bound: Value = serde_json::from_str(body).map_err(|error| unreadable(&object, error))?;
        let uid = bound["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        let fresh = creating(&unbound(body, &object)?);
        tracing::info!(%object, "a field is immutable; it is deleted and made anew, as app.yaml says");
        let outcome = self.api.delete(resource, id.namespace.as_deref(), &id.name, &uid, true).await;
        outcome.map_err(|error| error.step("delete", &object))?;
        self.until_gone(id, resource, &uid).await?;
        match self.api.apply_meta(resource, id.namespace.as_deref(), &id.name, fresh.as_bytes(), false).await {
            Err(error) if error.is_conflict() => return Err(RuntimeError::Changed { object }),
            applied => self.learn(id, applied.map_err(|error| error.step("apply", &object))?),
        }
        Ok(())
    }

    async fn delete(&self, id: &ObjectId, resource: &Resource, uid: &str, finishes: bool) -> Result<(), RuntimeError> {
        let object = named(id);
        let deleted = self.api.delete(resource, id.namespace.as_deref(), &id.name, uid, false).await;
        match deleted {
            // Another object has the name by now: it is not ours.
            Err(error) if error.is_conflict() => return Err(RuntimeError::Changed { object }),
            Err(error) => return Err(error.step("delete", &object)),
            Ok(Deleted::Going) if finishes && !self.is_gone(id, resource, uid, FINISHED).await? => {
                // It stays owned, and holds its definition and its namespace.
                tracing::warn!(%object, "its finalizers hold it: what should clear them has not yet; going on");
            }
            Ok(Deleted::Gone | Deleted::Going) => {}
        }
        self.prints.forget(id);
        self.cache.remove(id);
        Ok(())
    }

    async fn until_gone(&self, id: &ObjectId, resource: &Resource, uid: &str) -> Result<(), RuntimeError> {
        if !self.is_gone(id, resource, uid, GONE).await? {
            let message = format!("it is not gone after {} s", GONE.as_secs());
            let hint = "see its finalizers with `kubectl get -o yaml`, and what should clear them".to_owned();
            let source = Box::new(Hinted { message, hint });
            return Err(RuntimeError::Step { action: "wait for", object: named(id), transient: true, source });
        }
        self.prints.forget(id);
        self.cache.remove(id);
        Ok(())
    }

    /// Whether it is gone within this time.
    async fn is_gone(
        &self,
        id: &ObjectId,
        resource: &Resource,
        uid: &str,
        limit: Duration,
    ) -> Result<bool, RuntimeError> {
        let mut patience = Patience::new(limit);
        loop {
            let meta = self.api.get_meta(resource, id.namespace.as_deref(), &id.name).await;
            let meta = meta.map_err(|error| error.reading(&named(id).to_string()))?;
            if meta.is_none_or(|meta| meta.uid != uid) {
                return Ok(true);
            }
            if !patience.is_left().await {
                return Ok(false);
            }
        }
    }

    async fn until_served(&self, id: &ObjectId, resource: &Resource) -> Result<(), RuntimeError> {
        let object = named(id);
        let mut patience = Patience::new(SERVED);
        loop {
            let found = self.api.get(resource, None, &id.name).await;
            let found = found.map_err(|error| error.reading(&object.to_string()))?;
            let Some(found) = found else { return Err(RuntimeError::Changed { object }) };
            let mut conditions = found["status"]["conditions"].as_array().into_iter().flatten();
            if conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
                self.defined.note(&found);
                break;
            }
            if !patience.is_left().await {
                let source = format!("it is not established after {} s", SERVED.as_secs()).into();
                return Err(RuntimeError::Step { action: "wait for", object, transient: true, source });
            }
        }
        // What it defines is known from here on: asked for once, when it is needed.
        self.api.forget_resources().await;
        Ok(())
    }
}

/// Looks again and again, ever more seldom, for a bounded time.
struct Patience {
    deadline: Instant,
    pause: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, pause: Duration::from_millis(50) }
    }

    /// Waits for a moment; false once the time is over.
    async fn is_left(&mut self) -> bool {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(Duration::from_secs(1));
        Instant::now() < self.deadline
    }
}

/// A body without the uid of the object that it is to change.
fn unbound(body: &str, object: &Object) -> Result<Value, RuntimeError> {
    let mut read: Value = serde_json::from_str(body).map_err(|error| unreadable(object, error))?;
    if let Some(metadata) = read["metadata"].as_object_mut() {
        metadata.remove("uid");
    }
    Ok(read)
}

fn unreadable(object: &Object, error: serde_json::Error) -> RuntimeError {
    RuntimeError::Step { action: "read", object: object.clone(), transient: false, source: Box::new(error) }
}

/// Whether a refusal is about the object itself, not about its namespace.
fn is_self(error: &ApiError, id: &ObjectId) -> bool {
    error.to_string().contains(&format!("\"{}\"", id.name)) && !error.to_string().starts_with("namespaces ")
}

/// Refusals that come of a namespace or definition made a moment ago.
fn is_young(error: &ApiError) -> bool {
    let text = error.to_string();
    match error.status() {
        Some(404) => {
            text.starts_with("namespaces ")
                || text.contains("404 page not found")
                || text.contains("could not find the requested resource")
        }
        Some(403) => text.contains("error looking up service account"),
        _ => false,
    }
}
