//! Kubernetes objects on the device's own API server (k3s first).
//!
//! `objects` says what is wanted, `cache` what is there, `plan` (pure) what to
//! do about it, `execute` does it, by server-side apply. Whose an object is,
//! its own marks say, and the journal's inventory what of it is ours to delete.

pub mod api;
mod cache;
mod closer;
mod differences;
mod execute;
mod fields;
mod health;
mod home;
mod ignore;
mod inhabitants;
mod kubeconfig;
mod kustomize;
mod logs;
mod managed;
mod objects;
mod observe;
mod order;
mod owner;
mod plan;
mod pods;
mod status;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use fleet::desired::{DesiredApp, KubernetesSpec, Limit, PrunePolicy};
use fleet::kubernetes::ObjectId;
use fleet::wire::status::Health;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use self::api::{Api, ApiError};
use self::cache::Cache;
use self::execute::{Defined, Hands, Prints};
use self::health::Targets;
use self::kustomize::Kustomize;
use self::objects::{Wanted, spec_of};
use self::observe::Sight;
pub use self::plan::Action;
use self::plan::{Scene, Standing};
use crate::config::settings::KubernetesSettings;
use crate::ports::Reason as _;
use crate::ports::journal::Kept;
use crate::ports::runtime::{Change, Pins, Plan, Runtime, RuntimeError, Step, Task, Verdict};

/// Requests at a time, where each object is asked about.
const AT_ONCE: usize = 8;

/// Runs the Kubernetes apps of one device.
pub struct KubernetesRuntime {
    api: Arc<Api>,
    cache: Cache,
    prints: Prints,
    defined: Defined,
    kustomize: Kustomize,
    targets: Targets,
}

impl KubernetesRuntime {
    /// Nothing is connected yet: the server may be down now and up later.
    /// `store`: renderings of kustomizations go to `<store>/kubernetes`.
    #[must_use]
    pub fn new(settings: &KubernetesSettings, store: &Path) -> Self {
        Self {
            api: Arc::new(Api::new(settings)),
            cache: Cache::new(),
            prints: Prints::default(),
            defined: Defined::default(),
            kustomize: Kustomize::new(store),
            targets: Targets::default(),
        }
    }

    fn sight(&self) -> Sight<'_> {
        Sight { api: &self.api, cache: &self.cache, prints: &self.prints, kustomize: &self.kustomize }
    }

    /// What the server would make of what differs, before anything is changed:
    /// what it refuses is refused now.
    /// `frees`: something goes before, and with it what it holds.
    async fn rehearse(&self, objects: Vec<(&Wanted, bool, bool)>, frees: bool) -> Result<(), RuntimeError> {
        let tries = objects.into_iter().map(|(it, fresh, replace)| async move {
            match self.rehearse_one(it, fresh, replace).await {
                Err(error) if error.is_taken() && fresh && frees => Ok(()),
                tried => tried.map_err(|error| error.step("apply", &objects::named(&it.id))),
            }
        });
        let tries: Vec<_> = tries.collect();
        stream::iter(tries).buffer_unordered(AT_ONCE).try_collect::<()>().await
    }

    /// Two apps of a revision that have one object would take it from each
    /// other for ever. What kustomize makes of names, and which kinds lie in a
    /// namespace, only the device knows.
    async fn refuse_shared(&self, sight: &Sight<'_>, task: &Task<'_>, wanted: &[Wanted]) -> Result<(), RuntimeError> {
        let own: BTreeSet<&ObjectId> = wanted.iter().map(|it| &it.id).collect();
        for other in task.beside.iter().filter(|app| app.name != *task.app) {
            let Some(spec) = spec_of(other) else { continue };
            let theirs = match self.targets.of(sight, task, other, spec).await {
                Ok(theirs) => theirs,
                Err(error) if error.is_transient() => return Err(error),
                // What is wrong with the other app is said when it is prepared.
                Err(_) => continue,
            };
            if let Some((id, _)) = theirs.iter().find(|(id, _)| own.contains(id)) {
                let cause = format!("apps {} and {} both have it", task.app, other.name);
                return Err(objects::refused(id, cause, Some("leave it to one of them")));
            }
        }
        Ok(())
    }

    /// `fresh`: it is to be made; `replace`: deleted and made anew, if need be.
    async fn rehearse_one(&self, it: &Wanted, fresh: bool, replace: bool) -> Result<(), ApiError> {
        let body = if fresh { plan::creating(&it.object) } else { it.object.to_string() };
        let said =
            self.api.apply_meta(&it.resource, it.id.namespace.as_deref(), &it.id.name, body.as_bytes(), true).await;
        match said {
            Ok(_) => Ok(()),
            // Of a definition that comes with this revision; or somebody is quicker: the plan will see.
            Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
            Err(error) if error.is_invalid() && replace => {
                let would = self.api.would_make(&it.resource, it.id.namespace.as_deref(), &it.object).await?;
                if would || error.is_immutable() { Ok(()) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }
}

impl Runtime for KubernetesRuntime {
    type Data = Action;

    async fn prepare(&self, task: Task<'_>) -> Result<Pins, RuntimeError> {
        let Some((app, spec)) = wanted(&task) else { return Ok(Pins::new()) };
        // What somebody did to an app that stays as it is, is not this
        // revision's fault: the watch sees to it, and says so.
        if task.had.is_some_and(|had| had.digest == app.digest) {
            return Ok(Pins::new());
        }
        let sight = self.sight();
        let (wanted, standing) = sight.wanted(&task, app, spec).await?;
        if let Some((it, Standing::Foreign(owner))) =
            wanted.iter().zip(&standing).find(|(_, standing)| matches!(standing, Standing::Foreign(_)))
        {
            return Err(RuntimeError::Foreign { object: objects::named(&it.id), owner: owner.clone() });
        }
        self.refuse_shared(&sight, &task, &wanted).await?;
        let fresh = self.homes(&sight, &task, &wanted, &standing).await?;
        let has_custom = wanted.iter().any(|it| order::is_custom(&it.id.kind));
        let redefined = if has_custom { sight.redefined(&task).await? } else { BTreeSet::new() };
        let mut tried = Vec::new();
        for (it, standing) in wanted.iter().zip(&standing) {
            let differs = matches!(standing, Standing::Missing | Standing::Adopted(_) | Standing::Differs(..));
            // In a namespace that is not there yet the server can't say.
            let homeless = it.id.namespace.as_deref().is_some_and(|name| fresh.contains(name));
            if differs && !homeless && !redefined.contains(&it.id.kind) {
                let fresh = matches!(standing, Standing::Missing);
                tried.push((it, fresh, !fresh && spec.replace.contains(&it.id.kind.kind)));
            }
        }
        let kept: BTreeSet<_> = wanted.iter().map(|it| objects::named(&it.id)).collect();
        let frees = task.inventory.keys().any(|object| !kept.contains(object));
        self.rehearse(tried, frees).await?;
        Ok(Pins::new())
    }

    async fn plan(&self, task: Task<'_>) -> Result<Plan<Action>, RuntimeError> {
        let sight = self.sight();
        let (wanted, standing) = match wanted(&task) {
            Some((app, spec)) => sight.wanted(&task, app, spec).await?,
            None => (Vec::new(), Vec::new()),
        };
        let left = sight.left(&task, &wanted).await?;
        let claims = if left.is_empty() { BTreeMap::new() } else { sight.claims(&task).await? };
        let lost = PrunePolicy { enabled: true, max_delete: Limit::Percent(100), keep: vec!["volumes".to_owned()] };
        let settings = task.want.filter(|app| spec_of(app).is_some()).or(task.had);
        let scene = Scene {
            app: task.app.as_str(),
            fleet: task.fleet.as_str(),
            wanted: &wanted,
            standing: &standing,
            inventory: task.inventory,
            left: &left,
            claims: &claims,
            beside: task.beside,
            prune: settings.map_or(&lost, |app| &app.prune),
            replace: &objects::replaceable(task.want, task.had, task.back),
            borrowed: task.borrowed,
            held: &BTreeMap::new(),
        };
        let held = sight.held(&task, &plan::going(&scene), &wanted, &claims).await?;
        plan::plan(&Scene { held: &held, ..scene })
    }

    async fn execute(&self, _: Task<'_>, step: &Step<Action>) -> Result<(), RuntimeError> {
        let hands = Hands { api: &self.api, cache: &self.cache, prints: &self.prints, defined: &self.defined };
        hands.carry_out(&step.data).await
    }

    async fn health(&self, task: Task<'_>) -> Result<Verdict, RuntimeError> {
        let Some((app, spec)) = wanted(&task) else {
            return Ok(Verdict { health: Health::Missing, message: "the app is not wanted here".to_owned() });
        };
        health::judge(&self.sight(), &self.targets, &task, app, spec).await
    }

    async fn changed(&self) -> Change {
        self.cache.changed().await
    }

    async fn sweep(&self, keep: &[&Kept]) -> Result<(), RuntimeError> {
        let apps = keep.iter().flat_map(|kept| &kept.desired.apps).map(|app| &app.name).collect();
        self.targets.retain(&apps);
        self.cache.retain(&apps);
        let specs = keep.iter().flat_map(|kept| &kept.desired.apps).filter_map(|app| Some((&app.name, spec_of(app)?)));
        self.kustomize.sweep(specs.filter(|(_, spec)| spec.kustomize)).map_err(|error| RuntimeError::Observe {
            what: "the renderings of kustomizations".to_owned(),
            source: Box::new(error),
        })
    }

    async fn logs(&self, task: Task<'_>, lines: usize) -> Result<Vec<String>, RuntimeError> {
        let Some((app, spec)) = wanted(&task) else { return Ok(Vec::new()) };
        logs::tail(&self.api, &self.kustomize, &task, app, spec, lines).await
    }
}

/// The app as a Kubernetes app; `None` where this runtime has nothing to run.
fn wanted<'a>(task: &Task<'a>) -> Option<(&'a DesiredApp, &'a KubernetesSpec)> {
    task.want.and_then(|app| spec_of(app).map(|spec| (app, spec)))
}
