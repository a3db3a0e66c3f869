//! A device in short, and the parts that test apps are made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::config::settings::ComposeSettings;
use agent::ports::Reason;
use agent::ports::runtime::{Inventory, Pins, Plan, Runtime, RuntimeError, Step, Task, Verdict};
use agent::runtime::compose::{Action, ComposeRuntime};
use fleet::compose::model::{
    Attachment, Condition, Dependency, Healthcheck, Network, Port, Project, RepoFile, Restart, Service,
};
use fleet::desired::{AppSpec, Blobs, DesiredApp, DriftMode, DriftPolicy, HealthPolicy, Limit, OnFailure, PrunePolicy};
use fleet::digest::Digest;
use fleet::name::{AppName, DeviceName, FleetName};
use fleet::revision::CommitId;
use fleet::wire::status::Health;
use harness::engine::{Engine, Kind};

/// What the daemon does with a runtime, in short.
pub struct Device {
    pub address: String,
    pub runtime: ComposeRuntime,
    pub store: tempfile::TempDir,
    pub auth_file: Option<std::path::PathBuf>,
    pub fleet: FleetName,
    pub app: AppName,
    pub revision: CommitId,
    pub had: Option<DesiredApp>,
    pub inventory: Inventory,
    pub pins: Pins,
    pub blobs: Blobs,
}

impl Device {
    pub fn new(engine: &Engine) -> Self {
        Self::at(&engine.address())
    }

    pub fn at(address: &str) -> Self {
        let store = tempfile::tempdir().unwrap();
        Self {
            runtime: runtime(address, store.path(), None),
            address: address.to_owned(),
            store,
            auth_file: None,
            fleet: "shop".parse().unwrap(),
            app: "pos".parse().unwrap(),
            revision: "1".repeat(40).parse().unwrap(),
            had: None,
            inventory: Inventory::new(),
            pins: Pins::new(),
            blobs: Blobs::new(),
        }
    }

    /// The agent dies and starts again.
    pub fn restart(&mut self) {
        self.runtime = runtime(&self.address, self.store.path(), self.auth_file.clone());
    }

    pub fn file(&mut self, bytes: &str, mode: u32) -> RepoFile {
        let content = Digest::of(bytes.as_bytes());
        self.blobs.insert(content, Arc::from(bytes.as_bytes()));
        RepoFile { content, mode, secret: false }
    }

    pub fn task<'a>(&'a self, want: Option<&'a DesiredApp>) -> Task<'a> {
        Task {
            fleet: &self.fleet,
            app: &self.app,
            revision: &self.revision,
            want,
            had: self.had.as_ref(),
            inventory: &self.inventory,
            pins: &self.pins,
            blobs: &self.blobs,
            beside: &[],
            back: false,
            borrowed: &agent::ports::runtime::NOTHING,
        }
    }

    pub async fn plan(&self, want: Option<&DesiredApp>) -> Result<Plan<Action>, RuntimeError> {
        self.runtime.plan(self.task(want)).await
    }

    /// Prepares, plans and executes; returns the steps as text.
    pub async fn apply(&mut self, want: &DesiredApp) -> Result<Vec<String>, RuntimeError> {
        self.pins = Pins::new();
        self.pins = self.runtime.prepare(self.task(Some(want))).await?;
        let steps = self.repair(want).await?;
        self.had = Some(want.clone());
        Ok(steps)
    }

    /// Plans and executes with the pins that there are.
    pub async fn repair(&mut self, want: &DesiredApp) -> Result<Vec<String>, RuntimeError> {
        let plan = self.plan(Some(want)).await?;
        for step in &plan.steps {
            self.runtime.execute(self.task(Some(want)), step).await?;
        }
        self.inventory = plan.inventory.clone();
        Ok(plan.steps.iter().map(show).collect())
    }

    pub async fn remove(&mut self) -> Vec<String> {
        let plan = self.plan(None).await.unwrap();
        for step in &plan.steps {
            self.runtime.execute(self.task(None), step).await.unwrap();
        }
        plan.steps.iter().map(show).collect()
    }

    pub async fn health(&self, want: &DesiredApp) -> Verdict {
        self.runtime.health(self.task(Some(want))).await.unwrap()
    }

    pub async fn until(&self, want: &DesiredApp, health: Health) -> Verdict {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let verdict = self.health(want).await;
            if verdict.health == health {
                return verdict;
            }
            assert!(Instant::now() < deadline, "still {verdict:?}, wanted {health:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn assert_done(&self, want: &DesiredApp) {
        let steps: Vec<String> = self.plan(Some(want)).await.unwrap().steps.iter().map(show).collect();
        assert_eq!(steps, [""; 0], "a plan after a full apply has no steps");
    }
}

pub fn runtime(address: &str, store: &std::path::Path, auth_file: Option<std::path::PathBuf>) -> ComposeRuntime {
    let settings = ComposeSettings { socket: Some(address.to_owned()), auth_file };
    let device: DeviceName = "store-1".parse().unwrap();
    ComposeRuntime::new(&settings, &device, store).unwrap()
}

pub fn show(step: &Step<Action>) -> String {
    format!("{:?} {}: {}", step.verb, step.object, step.why)
}

pub fn sentence(error: &RuntimeError) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source} | {}", error.hint().unwrap_or_default())
}

pub fn app(project: Project) -> DesiredApp {
    DesiredApp {
        name: "pos".parse().unwrap(),
        depends_on: vec![],
        spec: AppSpec::Compose(Box::new(project)),
        health: HealthPolicy { timeout_ms: 30_000, soak_ms: 1000, checks: vec![] },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: vec![] },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: vec!["volumes".to_owned()] },
        on_failure: OnFailure::Rollback,
        digest: Digest::of(b""),
    }
}

pub fn project(services: Vec<(&str, Service)>) -> Project {
    let network = Network { name: "pos_default".to_owned(), ..Network::default() };
    Project {
        name: "pos".to_owned(),
        services: services.into_iter().map(|(name, it)| (name.to_owned(), it)).collect(),
        networks: [("default".to_owned(), network)].into(),
        volumes: BTreeMap::new(),
    }
}

pub fn project_mut(app: &mut DesiredApp) -> &mut Project {
    match &mut app.spec {
        AppSpec::Compose(project) => project,
        _ => unreachable!(),
    }
}

pub fn service_mut<'a>(app: &'a mut DesiredApp, name: &str) -> &'a mut Service {
    project_mut(app).services.get_mut(name).unwrap()
}

pub fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// A service on the default network that stops at once.
pub fn service(image: &str, command: &[&str]) -> Service {
    Service {
        image: image.to_owned(),
        replicas: 1,
        command: Some(words(command)),
        networks: [("default".to_owned(), Attachment::default())].into(),
        restart: Restart::UnlessStopped,
        stop_grace_period_ms: Some(0),
        ..Service::default()
    }
}

pub fn sleeper(image: &str) -> Service {
    service(image, &["sleep", "10000"])
}

pub fn depends(on: &str, condition: Condition) -> BTreeMap<String, Dependency> {
    [(on.to_owned(), Dependency { condition, restart: false, required: true })].into()
}

pub fn publish(port: u16) -> Vec<Port> {
    vec![Port { target: 80, protocol: "tcp".to_owned(), host_ip: None, published: Some(port.to_string()) }]
}

pub fn check(test: &str) -> Option<Healthcheck> {
    Some(Healthcheck {
        test: Some(words(&["CMD-SHELL", test])),
        interval_ms: Some(1000),
        timeout_ms: Some(5000),
        retries: Some(2),
        ..Healthcheck::default()
    })
}

pub const ONE: &str = "registry.test/web:1";
pub const TWO: &str = "registry.test/web:2";

/// An engine with two images.
pub fn engine(kind: Kind) -> Engine {
    let engine = Engine::start(kind, &[]);
    engine.image(ONE, &[("www/version", "one")]);
    engine.image(TWO, &[("www/version", "two")]);
    engine
}

pub fn id(engine: &Engine, name: &str) -> String {
    let names = engine.names();
    names.iter().find(|it| it.0 == name).unwrap_or_else(|| panic!("no {name} in {names:?}")).1.clone()
}
