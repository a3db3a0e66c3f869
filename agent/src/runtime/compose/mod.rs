//! Compose projects on Docker or Podman, over the Engine API.
//!
//! `identity` says what an object is made from, `observe` what is there,
//! `diff` (pure) what to do about it, `execute` does it. Objects are found
//! again by their labels alone, so that nothing is lost when the agent dies
//! between two steps. Compose files are not read here: `fleet` has resolved
//! them to a [`Project`].

mod action;
mod credentials;
mod diff;
#[cfg(test)]
mod diff_tests;
mod engine;
mod execute;
mod health;
mod identity;
mod images;
mod labels;
mod logs;
mod materialise;
mod mounts;
mod observe;
mod read;
mod removals;
mod rolling;
mod spec;
mod wait;
mod watch;
mod why;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fleet::compose::model::Project;
use fleet::desired::{AppSpec, DesiredApp};
use fleet::digest::Digest;
use fleet::name::DeviceName;
use fleet::wire::status::Health;

pub use self::action::Action;
use self::engine::{Engine, Link};
use self::execute::Hands;
use self::health::OwnChecks;
use self::images::Record;
use self::labels::Owner;
use self::watch::Watch;
use crate::config::settings::ComposeSettings;
use crate::ports::journal::Kept;
use crate::ports::runtime::{Change, Inventory, Pins, Plan, Runtime, RuntimeError, Step, Task, Verdict};

/// Runs the compose apps of one device.
pub struct ComposeRuntime {
    engine: Engine,
    device: DeviceName,
    store: PathBuf,
    auth_file: Option<PathBuf>,
    record: Record,
    own: OwnChecks,
    watch: Watch,
}

impl ComposeRuntime {
    /// Nothing is connected yet: the Engine may be down now and up later.
    /// `store`: files go to `<store>/apps/<app>/<digest>/`, the list of pulled
    /// images to `<store>/images.json`.
    ///
    /// # Errors
    /// When the socket's address isn't a Unix socket's, or `store` has no
    /// absolute path.
    pub fn new(settings: &ComposeSettings, device: &DeviceName, store: &Path) -> Result<Self, RuntimeError> {
        // Engines want absolute paths.
        let store = std::path::absolute(store).map_err(|error| RuntimeError::Refused {
            object: format!("store.path {}", store.display()),
            cause: error.to_string(),
            hint: None,
        })?;
        Ok(Self {
            engine: Engine::new(settings.socket.as_deref())?,
            device: device.clone(),
            record: Record::new(&store),
            store,
            auth_file: settings.auth_file.clone(),
            own: OwnChecks::default(),
            watch: Watch::default(),
        })
    }

    fn owner<'a>(&'a self, task: &Task<'a>) -> Owner<'a> {
        Owner { fleet: task.fleet, device: &self.device, app: task.app }
    }

    /// Pins for every image of the project: those that are known, else what is
    /// on the device.
    async fn pins(&self, link: &Link, project: &Project, known: &Pins) -> Result<Pins, RuntimeError> {
        let mut pins = Pins::new();
        for image in project.services.values().flat_map(identity::images) {
            if pins.contains_key(image) {
                continue;
            }
            let id = match known.get(image) {
                Some(id) => Some(id.clone()),
                None => images::present(link, image).await?,
            };
            if let Some(id) = id {
                pins.insert(image.to_owned(), id);
            }
        }
        Ok(pins)
    }

    /// Which of a project's folders are on the disk.
    fn folders(&self, task: &Task<'_>, project: &Project) -> Result<BTreeSet<Digest>, RuntimeError> {
        let mut there = BTreeSet::new();
        for service in project.services.values() {
            if let Some(digest) = materialise::digest(service)?
                && materialise::folder(&self.store, task.app, &digest).is_dir()
            {
                there.insert(digest);
            }
        }
        Ok(there)
    }

    async fn plan_with(
        &self,
        link: &Link,
        task: &Task<'_>,
        want: &DesiredApp,
        project: &Project,
        pins: &Pins,
    ) -> Result<Plan<Action>, RuntimeError> {
        for (name, service) in &project.services {
            execute::possible(link, name, service)?;
        }
        let identities = identity::services(project, pins)?;
        let observed = observe::observe(link, self.owner(task)).await?;
        let wanted = diff::Wanted {
            app: task.app,
            desired: want,
            project,
            had: task.had.and_then(project_of),
            identities: &identities,
            folders: &self.folders(task, project)?,
        };
        diff::plan(&wanted, &observed)
    }
}

fn project_of(app: &DesiredApp) -> Option<&Project> {
    match &app.spec {
        AppSpec::Compose(project) => Some(project),
        AppSpec::Files(_) | AppSpec::Kubernetes(_) => None,
    }
}

/// The app as a compose app; `None` where this runtime has nothing to run,
/// because the app leaves or moved to another runtime.
fn wanted<'a>(task: &Task<'a>) -> Option<(&'a DesiredApp, &'a Project)> {
    task.want.and_then(|app| project_of(app).map(|project| (app, project)))
}

impl Runtime for ComposeRuntime {
    type Data = Action;

    async fn prepare(&self, task: Task<'_>) -> Result<Pins, RuntimeError> {
        let Some((want, project)) = wanted(&task) else { return Ok(Pins::new()) };
        let link = self.engine.link().await?;
        for (name, service) in &project.services {
            execute::possible(&link, name, service)?;
            // Contents that are missing are missed before anything changes.
            if let Some(digest) = materialise::digest(service)? {
                materialise::items(task.app, service, &digest, task.blobs)?;
            }
        }
        let pins = images::prepare(&link, project, task.pins, self.auth_file.as_deref(), &self.record).await?;
        // What is foreign is found now, while nothing has been touched.
        self.plan_with(&link, &task, want, project, &pins).await?;
        Ok(pins)
    }

    async fn plan(&self, task: Task<'_>) -> Result<Plan<Action>, RuntimeError> {
        let link = self.engine.link().await?;
        if let Some((want, project)) = wanted(&task) {
            let pins = self.pins(&link, project, task.pins).await?;
            return self.plan_with(&link, &task, want, project, &pins).await;
        }
        let prune = task.had.map(|had| &had.prune);
        if prune.is_some_and(|prune| !prune.enabled) {
            return Ok(Plan { steps: Vec::new(), inventory: Inventory::new() });
        }
        let keep_volumes = prune.is_none_or(|prune| prune.keep.iter().any(|kind| kind == "volumes"));
        let observed = observe::observe(&link, self.owner(&task)).await?;
        Ok(diff::leave(&observed, keep_volumes))
    }

    async fn execute(&self, task: Task<'_>, step: &Step<Action>) -> Result<(), RuntimeError> {
        let link = self.engine.link().await?;
        let pins = match wanted(&task) {
            Some((_, project)) => self.pins(&link, project, task.pins).await?,
            None => Pins::new(),
        };
        let task = Task { pins: &pins, ..task };
        let hands = Hands { link: &link, own: &self.own, owner: self.owner(&task), store: &self.store, task };
        hands.carry_out(&step.object, &step.data).await
    }

    async fn health(&self, task: Task<'_>) -> Result<Verdict, RuntimeError> {
        let Some((_, project)) = wanted(&task) else {
            return Ok(Verdict { health: Health::Missing, message: "the app is not wanted here".to_owned() });
        };
        let link = self.engine.link().await?;
        let observed = observe::observe(&link, self.owner(&task)).await?;
        health::judge(&link, &self.own, project, &observed).await
    }

    async fn changed(&self) -> Change {
        self.watch.changed(&self.engine, &self.device).await;
        Change::Object
    }

    async fn sweep(&self, keep: &[&Kept]) -> Result<(), RuntimeError> {
        let link = self.engine.link().await?;
        let containers = read::containers(&link).await?;
        let mut folders: BTreeSet<String> = containers
            .iter()
            .filter_map(|container| container.labels.as_ref().and_then(|labels| labels.get(labels::FILES)).cloned())
            .collect();
        let mut ids: BTreeSet<&str> = containers.iter().map(|it| it.image_id.as_str()).collect();
        for kept in keep {
            ids.extend(kept.pins.values().flat_map(|pins| pins.values()).map(String::as_str));
            for app in &kept.desired.apps {
                for service in project_of(app).into_iter().flat_map(|project| project.services.values()) {
                    folders.extend(materialise::digest(service)?.map(|digest| format!("{}/{digest}", app.name)));
                }
            }
        }
        let io = |error: std::io::Error| RuntimeError::Observe {
            what: format!("{}/apps", self.store.display()),
            source: Box::new(error),
        };
        materialise::sweep(&self.store, &folders).map_err(io)?;
        images::sweep(&link, &self.record, &ids).await
    }

    async fn logs(&self, task: Task<'_>, lines: usize) -> Result<Vec<String>, RuntimeError> {
        let link = self.engine.link().await?;
        let observed = observe::observe(&link, self.owner(&task)).await?;
        logs::tail(&link, &observed, lines).await
    }
}
