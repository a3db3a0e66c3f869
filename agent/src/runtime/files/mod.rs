//! The files runtime: plain files, systemd units and quadlets.
//!
//! `observe` looks, `diff` decides (pure), `execute` carries out; `write` and
//! `place` hold what must stay true of the disk, `marks` what must be known
//! across a power cut. What a unit's files say is not read here, and no
//! template is rendered here: `fleet` did that.
//!
//! Changed means: a file of the app was created, updated (content, mode or
//! owner, drift that is repaired included) or deleted. Each unit of the app is
//! then restarted, and that survives a power cut anywhere in between.

mod diff;
mod execute;
mod logs;
mod marks;
mod observe;
mod owner;
mod place;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet::desired::{AppSpec, DesiredApp, FilesSpec};
use fleet::digest::Digest;
use fleet::name::{AppName, DeviceName};
use fleet::revision::CommitId;
use fleet::wire::status::Health;

use crate::config::settings::FilesSettings;
use crate::ports::journal::Kept;
use crate::ports::runtime::{Change, Pins, Plan, Runtime, RuntimeError, Step, Task, Verdict};
use crate::systemd::{Systemd, SystemdError};
pub use diff::Act;
use diff::{Found, Neighbour, Seen, Want, WantFile, owned};
use marks::MarkStore;
use owner::Names;
use place::{Place, Walked};
use watch::Watch;

/// Several changes at once are one hint.
const DEBOUNCE: Duration = Duration::from_millis(250);

const UNIT_TYPES: [&str; 8] = ["service", "socket", "timer", "path", "mount", "automount", "target", "slice"];

/// Delivers files below one root and drives the system's units.
#[derive(Debug)]
pub struct FilesRuntime {
    place: Place,
    marks: MarkStore,
    systemd: Systemd,
    watch: Watch,
    /// A change was seen and not yet told: `changed` may be cancelled.
    dirty: AtomicBool,
    /// What each app was last asked for, for what apps do to each other.
    known: Mutex<BTreeMap<AppName, Known>>,
}

#[derive(Debug)]
struct Known {
    revision: CommitId,
    wanted: BTreeSet<String>,
    owned: BTreeSet<String>,
    folders: BTreeSet<String>,
    units: BTreeSet<String>,
}

impl FilesRuntime {
    /// Changes nothing on disk. `_device` is taken as every runtime takes it:
    /// what lies on a device's own disk needs no label that says whose it is.
    ///
    /// # Errors
    /// When `settings` names a path that is not absolute.
    pub fn new(settings: &FilesSettings, _device: &DeviceName, store: &Path) -> Result<Self, RuntimeError> {
        Ok(Self {
            place: Place::new(&settings.root, &settings.allow, store)?,
            marks: MarkStore::new(store),
            systemd: Systemd::default(),
            watch: Watch::default(),
            dirty: AtomicBool::new(false),
            known: Mutex::default(),
        })
    }

    /// What the app is to be, judged as far as no disk is needed.
    fn want(&self, task: Task<'_>) -> Result<Option<Want>, RuntimeError> {
        let Some(app) = task.want else { return Ok(None) };
        let spec = spec(app)?;
        let names = match spec.files.values().any(|file| file.owner.is_some()) {
            true => Names::read(self.place.root())?,
            false => Names::default(),
        };
        let mut files = BTreeMap::new();
        for (path, file) in &spec.files {
            self.place.check(path)?;
            let owner = names.resolve(path, file.owner.as_deref())?;
            files.insert(path.clone(), WantFile { content: file.content, mode: file.mode & 0o7777, owner });
        }
        for unit in &spec.units {
            check_unit(unit)?;
        }
        if !spec.units.is_empty() && !has_systemd() {
            return Err(RuntimeError::Refused {
                object: format!("unit/{}", spec.units[0]),
                cause: "this device does not run systemd".to_owned(),
                hint: Some("deliver the app's files without `units:` here, or to devices with systemd only".to_owned()),
            });
        }
        let digest = Digest::of_json(&spec.files)
            .map_err(|error| RuntimeError::Observe { what: "the desired files".to_owned(), source: Box::new(error) })?;
        Ok(Some(Want { files, units: spec.units.clone(), digest }))
    }

    async fn observe(&self, task: Task<'_>, want: Option<&Want>) -> Result<Seen, RuntimeError> {
        let observe = |what: &str, source: std::io::Error| RuntimeError::Observe {
            what: what.to_owned(),
            source: Box::new(source),
        };
        for path in owned(task.inventory, "file") {
            // The text of a journalled path is trusted no more than a fresh one.
            if !want.is_some_and(|want| want.files.contains_key(path)) {
                self.place.check(path)?;
            }
        }
        let mut units = BTreeMap::new();
        for name in want.iter().flat_map(|want| &want.units) {
            let unit = self.systemd.unit(name).await.map_err(unreadable)?;
            units.insert(name.clone(), unit);
        }
        let had = task.had.and_then(|app| spec(app).ok()).map(|spec| spec.files.keys().cloned().collect());
        Ok(Seen {
            files: observe::files(&self.place, want, task.inventory, task.blobs).await?,
            folders: observe::folders(&self.place, task.inventory)?,
            units,
            marks: self.marks.read(task.app).map_err(|error| observe("the marks of started units", error))?,
            systemd: has_systemd(),
            had: had.unwrap_or_default(),
            boot: marks::boot_id().map_err(|error| observe("the id of this boot", error))?,
            neighbours: self.neighbours(task),
            shared: self.shared(task),
        })
    }

    /// Notes what `task` is about.
    fn learn(&self, task: Task<'_>, want: Option<&Want>) {
        let known = Known {
            revision: task.revision.clone(),
            wanted: want.iter().flat_map(|want| want.files.keys().cloned()).collect(),
            owned: owned(task.inventory, "file").map(str::to_owned).collect(),
            folders: owned(task.inventory, "folder").map(str::to_owned).collect(),
            units: want.iter().flat_map(|want| want.units.iter().cloned()).collect(),
        };
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(task.app.clone(), known);
    }

    fn neighbours(&self, task: Task<'_>) -> BTreeMap<String, Neighbour> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut neighbours = BTreeMap::new();
        for (app, known) in known.iter().filter(|(app, _)| *app != task.app) {
            let current = known.revision == *task.revision;
            for path in known.owned.iter().chain(current.then_some(&known.wanted).into_iter().flatten()) {
                let claims = current && known.wanted.contains(path);
                let neighbour: &mut Neighbour =
                    neighbours.entry(path.clone()).or_insert_with(|| Neighbour { app: app.clone(), claims });
                neighbour.claims |= claims;
            }
        }
        neighbours
    }

    fn shared(&self, task: Task<'_>) -> BTreeSet<String> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let others = known.iter().filter(|(app, _)| *app != task.app);
        others.flat_map(|(_, known)| known.folders.iter().cloned()).collect()
    }

    /// Watches what the apps that were seen are about.
    async fn watch(&self) {
        let mut folders = watch::Folders::new();
        let mut units = BTreeSet::new();
        for known in self.known.lock().unwrap_or_else(PoisonError::into_inner).values() {
            units.extend(known.units.iter().cloned());
            for path in &known.wanted {
                let path = self.place.on_disk(path);
                if let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) {
                    folders.entry(folder.to_owned()).or_default().insert(name.to_owned());
                }
            }
        }
        self.watch.set(folders);
        if let Err(error) = self.systemd.watch(&units).await {
            tracing::warn!(%error, "units are not watched, their drift waits for the full compare");
        }
    }

    /// The units that burgee started in this boot with these files.
    fn started(&self, task: Task<'_>, files: Digest) -> Result<BTreeMap<String, marks::Start>, RuntimeError> {
        let read = || Ok((marks::boot_id()?, self.marks.read(task.app)?.started));
        let (boot, mut started) = read().map_err(|error: std::io::Error| RuntimeError::Observe {
            what: "the marks of started units".to_owned(),
            source: Box::new(error),
        })?;
        started.retain(|_, start| start.files == files && start.boot == boot);
        Ok(started)
    }

    fn spec_of<'a>(task: Task<'a>) -> Result<Option<&'a FilesSpec>, RuntimeError> {
        task.want.map(spec).transpose()
    }
}

impl Runtime for FilesRuntime {
    type Data = Act;

    /// There is nothing to download; what no waiting mends is found here.
    async fn prepare(&self, task: Task<'_>) -> Result<Pins, RuntimeError> {
        self.learn(task, self.want(task)?.as_ref());
        self.plan(task).await?;
        let spec = Self::spec_of(task)?;
        if let Some(file) =
            spec.iter().flat_map(|spec| spec.files.values()).find(|file| !task.blobs.contains_key(&file.content))
        {
            return Err(RuntimeError::Observe {
                what: format!("the files of app {}", task.app),
                source: format!("blob {} is missing", file.content.short()).into(),
            });
        }
        Ok(Pins::new())
    }

    async fn plan(&self, task: Task<'_>) -> Result<Plan<Act>, RuntimeError> {
        let want = self.want(task)?;
        self.learn(task, want.as_ref());
        let seen = self.observe(task, want.as_ref()).await?;
        let plan = diff::plan(want.as_ref(), task.inventory, &seen)?;
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get_mut(task.app) {
            known.folders.extend(owned(&plan.inventory, "folder").map(str::to_owned));
        }
        self.watch().await;
        Ok(plan)
    }

    async fn execute(&self, task: Task<'_>, step: &Step<Act>) -> Result<(), RuntimeError> {
        let want = self.want(task)?;
        self.carry_out(task, want.as_ref(), step).await?;
        if matches!(step.data, Act::Write { fresh: true, .. }) {
            // Its folder may be new.
            self.watch().await;
        }
        Ok(())
    }

    async fn health(&self, task: Task<'_>) -> Result<Verdict, RuntimeError> {
        let mut worst = Verdict { health: Health::Healthy, message: String::new() };
        let Some(spec) = Self::spec_of(task)? else { return Ok(worst) };
        for path in spec.files.keys() {
            let found = observe::look(&self.place, path, None)
                .map_err(|error| RuntimeError::Observe { what: path.clone(), source: Box::new(error) })?;
            if !matches!(found, Found::File { .. }) {
                worsen(&mut worst, Verdict { health: Health::Missing, message: format!("{path} is missing") });
            }
        }
        let started = match spec.units.is_empty() {
            true => BTreeMap::new(),
            false => self.started(task, digest(spec)?)?,
        };
        for name in &spec.units {
            let unit = self.systemd.unit(name).await.map_err(unreadable)?;
            worsen(&mut worst, unit.verdict(started.contains_key(name)));
        }
        Ok(worst)
    }

    async fn changed(&self) -> Change {
        loop {
            if !self.dirty.load(Ordering::Relaxed) {
                tokio::select! {
                    // Takes no event.
                    () = self.watch.readable() => {}
                    // What it takes is kept in `dirty`, with no await in between.
                    () = self.systemd.changed() => self.dirty.store(true, Ordering::Relaxed),
                }
            }
            // Cancelled here, the next call comes straight back to it.
            tokio::time::sleep(DEBOUNCE).await;
            let files = self.watch.drain();
            if self.dirty.swap(false, Ordering::Relaxed) || files {
                return Change::Object;
            }
        }
    }

    async fn sweep(&self, keep: &[&Kept]) -> Result<(), RuntimeError> {
        let observe = |what: &str, source: std::io::Error| RuntimeError::Observe {
            what: what.to_owned(),
            source: Box::new(source),
        };
        let apps = || keep.iter().flat_map(|kept| &kept.desired.apps);
        self.marks
            .retain(|name| apps().any(|app| app.name.as_str() == name))
            .map_err(|error| observe("the marks of started units", error))?;
        let mut seen = BTreeSet::new();
        for path in apps().filter_map(|app| spec(app).ok()).flat_map(|spec| spec.files.keys()) {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if self.place.check(path).is_ok()
                && seen.insert(folder)
                && let Walked::Folder(folder) = self.place.walk(path).map_err(|error| observe(path, error))?
            {
                write::clean(folder).map_err(|error| observe(path, error.into()))?;
            }
        }
        Ok(())
    }

    async fn logs(&self, task: Task<'_>, lines: usize) -> Result<Vec<String>, RuntimeError> {
        match Self::spec_of(task)? {
            Some(spec) if !spec.units.is_empty() => logs::read(&spec.units, lines).await,
            _ => Err(RuntimeError::Refused {
                object: format!("the log of app {}", task.app),
                cause: "it has files only; what runs and logs are units".to_owned(),
                hint: None,
            }),
        }
    }
}

fn has_systemd() -> bool {
    Systemd::is_booted()
}

fn unreadable(error: SystemdError) -> RuntimeError {
    RuntimeError::Unreachable { engine: "systemd over D-Bus".to_owned(), source: Box::new(error) }
}

fn spec(app: &DesiredApp) -> Result<&FilesSpec, RuntimeError> {
    match &app.spec {
        AppSpec::Files(spec) => Ok(spec),
        other => Err(RuntimeError::Refused {
            object: format!("app {}", app.name),
            cause: format!("it is of runtime {}, not files", other.runtime()),
            hint: None,
        }),
    }
}

/// Over all that is delivered.
fn digest(spec: &FilesSpec) -> Result<Digest, RuntimeError> {
    Digest::of_json(&spec.files)
        .map_err(|error| RuntimeError::Observe { what: "the desired files".to_owned(), source: Box::new(error) })
}

/// A unit's name as `systemd.unit(5)` has it; templates are run by instance.
fn check_unit(name: &str) -> Result<(), RuntimeError> {
    if name == "burgee-agent.service" {
        // The restart would end before it is noted, and come again.
        return Err(RuntimeError::Refused {
            object: format!("unit/{name}"),
            cause: "the agent can't restart itself as part of an app".to_owned(),
            hint: Some("leave burgee-agent.service out of `units:`".to_owned()),
        });
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let holds = name.len() < 256
        && name.chars().all(plain)
        && name.rsplit_once('.').is_some_and(|(stem, kind)| {
            !stem.is_empty() && !stem.starts_with('@') && !stem.ends_with('@') && UNIT_TYPES.contains(&kind)
        });
    if holds {
        return Ok(());
    }
    Err(RuntimeError::Refused {
        object: format!("unit/{name}"),
        cause: "that is no name of a unit".to_owned(),
        hint: Some(format!("expected NAME.TYPE, with a type of {}", UNIT_TYPES.join(", "))),
    })
}

fn worsen(worst: &mut Verdict, verdict: Verdict) {
    let rank = |health: Health| match health {
        Health::Healthy => 0,
        Health::Suspended | Health::Unknown => 1,
        Health::Progressing => 2,
        Health::Degraded => 3,
        Health::Missing => 4,
    };
    if rank(verdict.health) > rank(worst.health) {
        *worst = verdict;
    }
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
