//! What every runtime promises behind the `Runtime` port, held against each on
//! the real thing: an engine, a file system, an API server.
//!
//! The daemon's part (journalling before the first step, planning anew) is done
//! here as it does it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::config::settings::{ComposeSettings, FilesSettings, KubernetesSettings};
use agent::ports::Reason;
use agent::ports::runtime::{Inventory, Pins, Plan, Runtime, RuntimeError, Task, Verb};
use agent::runtime::compose::ComposeRuntime;
use agent::runtime::files::FilesRuntime;
use agent::runtime::kubernetes::KubernetesRuntime;
use fleet::compose::model::{Attachment, Network, Project, Restart, Service};
use fleet::desired::{
    AppSpec, Blobs, DesiredApp, DesiredFile, DriftMode, DriftPolicy, FilesSpec, HealthPolicy, KubernetesSpec, Limit,
    OnFailure, PrunePolicy,
};
use fleet::digest::Digest;
use fleet::name::{AppName, FleetName};
use fleet::revision::CommitId;
use fleet::wire::status::Health;
use harness::cluster::Cluster;
use harness::engine::{Engine, Kind};
use serde_json::json;

/// Name and content of each part of an app.
type Parts<'a> = &'a [(&'a str, &'a str)];

/// What a runtime acts on, as somebody sees it who is not the runtime.
trait World {
    type Runtime: Runtime;

    /// The runtime of an agent that has just started.
    fn runtime(&self) -> Self::Runtime;
    /// An app of these parts; contents are `one` or `two`.
    fn spec(&self, parts: Parts<'_>) -> (AppSpec, Blobs);
    /// Everything that is there, by the names of [`World::spec`].
    fn there(&self) -> BTreeMap<String, String>;
    /// Somebody takes a part away.
    fn take(&self, part: &str);
    /// Somebody makes something of a part's name.
    fn put(&self, part: &str);
}

/// The daemon, in short.
struct Device<'a, W: World> {
    world: &'a W,
    runtime: W::Runtime,
    fleet: FleetName,
    app: AppName,
    revision: CommitId,
    inventory: Inventory,
    pins: Pins,
    had: Option<DesiredApp>,
}

impl<'a, W: World> Device<'a, W> {
    fn new(world: &'a W) -> Self {
        Self {
            runtime: world.runtime(),
            world,
            fleet: "retail".parse().expect("a name"),
            app: "pos".parse().expect("a name"),
            revision: "1".repeat(40).parse().expect("an id"),
            inventory: Inventory::new(),
            pins: Pins::new(),
            had: None,
        }
    }

    fn want(&self, parts: Parts<'_>) -> (DesiredApp, Blobs) {
        let (spec, blobs) = self.world.spec(parts);
        let app = DesiredApp {
            name: self.app.clone(),
            depends_on: Vec::new(),
            spec,
            health: HealthPolicy { timeout_ms: 30_000, soak_ms: 0, checks: Vec::new() },
            drift: DriftPolicy { mode: DriftMode::Correct, ignore: Vec::new() },
            prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(100), keep: vec!["volumes".to_owned()] },
            on_failure: OnFailure::Rollback,
            digest: Digest::of(format!("{parts:?}").as_bytes()),
        };
        (app, blobs)
    }

    fn task<'t>(&'t self, want: Option<&'t DesiredApp>, blobs: &'t Blobs) -> Task<'t> {
        let Self { fleet, app, revision, inventory, pins, had, .. } = self;
        Task {
            fleet,
            app,
            revision,
            want,
            had: had.as_ref(),
            inventory,
            pins,
            blobs,
            beside: want.map_or(&[], std::slice::from_ref),
            back: false,
            borrowed: &agent::ports::runtime::NOTHING,
        }
    }

    async fn plan(&self, parts: Option<Parts<'_>>) -> Result<Plan<<W::Runtime as Runtime>::Data>, RuntimeError> {
        let made = parts.map(|parts| self.want(parts));
        let none = Blobs::new();
        let task = self.task(made.as_ref().map(|(app, _)| app), made.as_ref().map_or(&none, |(_, blobs)| blobs));
        self.runtime.plan(task).await
    }

    /// Carries out the first `steps` of a plan, each `times` times. What they
    /// will own is in the inventory before the first.
    async fn carry_out(
        &mut self,
        parts: Option<Parts<'_>>,
        plan: &Plan<<W::Runtime as Runtime>::Data>,
        steps: usize,
        times: usize,
    ) -> Result<(), RuntimeError> {
        let owned = self.inventory.clone();
        self.inventory.extend(plan.inventory.clone());
        let made = parts.map(|parts| self.want(parts));
        let none = Blobs::new();
        let task = self.task(made.as_ref().map(|(app, _)| app), made.as_ref().map_or(&none, |(_, blobs)| blobs));
        let mut failed = None;
        'steps: for step in plan.steps.iter().take(steps) {
            for _ in 0..times {
                if let Err(error) = self.runtime.execute(task, step).await {
                    failed = Some((step, error));
                    break 'steps;
                }
            }
        }
        let Some((step, error)) = failed else { return Ok(()) };
        // What could not be made is not ours.
        if step.verb == Verb::Create && !owned.contains_key(&step.object) {
            self.inventory.remove(&step.object);
        }
        Err(error)
    }

    /// All of it: the number of steps.
    async fn apply(&mut self, parts: Option<Parts<'_>>, times: usize) -> Result<usize, RuntimeError> {
        if let Some(parts) = parts {
            let (app, blobs) = self.want(parts);
            self.pins = Pins::new();
            self.pins = self.runtime.prepare(self.task(Some(&app), &blobs)).await?;
        }
        let plan = self.plan(parts).await?;
        self.carry_out(parts, &plan, usize::MAX, times).await?;
        self.inventory = plan.inventory.clone();
        self.had = parts.map(|parts| self.want(parts).0);
        Ok(plan.steps.len())
    }

    async fn health(&self, parts: Parts<'_>) -> Health {
        let (app, blobs) = self.want(parts);
        self.runtime.health(self.task(Some(&app), &blobs)).await.expect("a verdict").health
    }

    async fn until_healthy(&self, parts: Parts<'_>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.health(parts).await != Health::Healthy {
            assert!(Instant::now() < deadline, "it does not become healthy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

const ONE: Parts<'static> = &[("a", "one"), ("b", "one")];
/// One part changes, one goes, one comes.
const TWO: Parts<'static> = &[("a", "two"), ("c", "two")];

fn map(parts: Parts<'_>) -> BTreeMap<String, String> {
    parts.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

/// The contract.
async fn holds<W: World>(world: &W) {
    // To look, to plan and to prepare change nothing.
    let mut device = Device::new(world);
    let (app, blobs) = device.want(ONE);
    device.pins = device.runtime.prepare(device.task(Some(&app), &blobs)).await.expect("prepared");
    assert!(!device.plan(Some(ONE)).await.expect("a plan").steps.is_empty());
    assert_ne!(device.health(ONE).await, Health::Healthy);
    assert_eq!(world.there(), BTreeMap::new());

    // From nothing, there and back, each step twice; and then nothing is left to do.
    for parts in [ONE, TWO, ONE] {
        assert!(device.apply(Some(parts), 2).await.expect("applied") > 0);
        assert_eq!(world.there(), map(parts));
        assert_eq!(device.plan(Some(parts)).await.expect("a plan").steps.len(), 0, "{parts:?}");
        device.until_healthy(parts).await;
        // Also for an agent that has just started.
        device.runtime = world.runtime();
        assert_eq!(device.plan(Some(parts)).await.expect("a plan").steps.len(), 0, "{parts:?}");
    }

    // What somebody takes away is missed, and comes back.
    world.take("b");
    device.runtime = world.runtime();
    assert_ne!(device.health(ONE).await, Health::Healthy);
    assert!(device.apply(Some(ONE), 1).await.expect("repaired") > 0);
    assert_eq!(world.there(), map(ONE));

    // An agent that dies between two steps goes on, or back, from what it finds.
    let steps = device.plan(Some(TWO)).await.expect("a plan").steps.len();
    for cut in 0..=steps {
        let (app, blobs) = device.want(TWO);
        device.pins = device.runtime.prepare(device.task(Some(&app), &blobs)).await.expect("prepared");
        let plan = device.plan(Some(TWO)).await.expect("a plan");
        device.carry_out(Some(TWO), &plan, cut, 1).await.expect("some steps");
        device.runtime = world.runtime();
        for parts in if cut % 2 == 0 { &[TWO, ONE][..] } else { &[ONE][..] } {
            device.apply(Some(parts), 1).await.expect("made good");
            assert_eq!(world.there(), map(parts), "cut after {cut} of {steps}");
        }
    }

    // The app leaves, and all that is its own.
    device.apply(None, 2).await.expect("left");
    assert_eq!((world.there(), device.inventory.len()), (BTreeMap::new(), 0));
    assert_eq!(device.plan(None).await.expect("a plan").steps.len(), 0);

    // What is not its own is named and left alone, whether it was there before or came in between.
    let plan = device.plan(Some(ONE)).await.expect("a plan");
    world.put("b");
    let there = world.there();
    let error = device.carry_out(Some(ONE), &plan, usize::MAX, 1).await.expect_err("somebody was quicker");
    assert!(matches!(error, RuntimeError::Changed { .. } | RuntimeError::Foreign { .. }), "{error:?}");
    assert_eq!(world.there().get("b"), there.get("b"));
    device.runtime = world.runtime();
    let error = device.plan(Some(ONE)).await.expect_err("it is somebody's");
    assert!(matches!(error, RuntimeError::Foreign { .. }) && error.hint().is_some(), "{error:?}");
    // Nor does it go when the app does.
    let plan = device.plan(None).await.expect("a plan");
    assert!(plan.steps.iter().all(|step| matches!(step.verb, Verb::Delete | Verb::Wait)), "{:?}", plan.steps);
    device.apply(None, 1).await.expect("left");
    assert_eq!(world.there(), there);
}

struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, part: &str) -> PathBuf {
        self.0.path().join("root/etc/app").join(part)
    }
}

impl World for Files {
    type Runtime = FilesRuntime;

    fn runtime(&self) -> FilesRuntime {
        let settings = FilesSettings { root: self.0.path().join("root"), allow: vec!["/etc/app".into()] };
        let device = "store-1".parse().expect("a name");
        FilesRuntime::new(&settings, &device, &self.0.path().join("store")).expect("a runtime")
    }

    fn spec(&self, parts: Parts<'_>) -> (AppSpec, Blobs) {
        let mut blobs = Blobs::new();
        let files = parts.iter().map(|(name, content)| {
            let digest = Digest::of(content.as_bytes());
            blobs.insert(digest, Arc::from(content.as_bytes()));
            (format!("/etc/app/{name}"), DesiredFile { content: digest, mode: 0o644, owner: None })
        });
        let files = files.collect();
        (AppSpec::Files(FilesSpec { files, units: Vec::new() }), blobs)
    }

    fn there(&self) -> BTreeMap<String, String> {
        let Ok(entries) = std::fs::read_dir(self.path("")) else { return BTreeMap::new() };
        let read = |entry: std::fs::DirEntry| {
            let content = std::fs::read_to_string(entry.path()).expect("a file");
            (entry.file_name().into_string().expect("a name"), content)
        };
        entries.map(|entry| read(entry.expect("an entry"))).collect()
    }

    fn take(&self, part: &str) {
        std::fs::remove_file(self.path(part)).expect("a file");
    }

    fn put(&self, part: &str) {
        std::fs::create_dir_all(self.path("")).expect("a folder");
        std::fs::write(self.path(part), "somebody's").expect("a file");
    }
}

#[tokio::test]
async fn files() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir_all(folder.path().join("root/etc")).expect("a folder");
    holds(&Files(folder)).await;
}

struct Containers {
    engine: Engine,
    store: tempfile::TempDir,
}

impl Containers {
    fn start(kind: Kind) -> Self {
        let engine = Engine::start(kind, &[]);
        for content in ["one", "two"] {
            engine.image(&format!("registry.test/{content}:1"), &[("www/content", content)]);
        }
        Self { engine, store: tempfile::tempdir().expect("a folder") }
    }
}

impl World for Containers {
    type Runtime = ComposeRuntime;

    fn runtime(&self) -> ComposeRuntime {
        let settings = ComposeSettings { socket: Some(self.engine.address()), auth_file: None };
        let device = "store-1".parse().expect("a name");
        ComposeRuntime::new(&settings, &device, self.store.path()).expect("a runtime")
    }

    fn spec(&self, parts: Parts<'_>) -> (AppSpec, Blobs) {
        let service = |content: &str| Service {
            image: format!("registry.test/{content}:1"),
            replicas: 1,
            command: Some(["sleep", "10000"].map(str::to_owned).into()),
            networks: [("default".to_owned(), Attachment::default())].into(),
            restart: Restart::UnlessStopped,
            stop_grace_period_ms: Some(0),
            ..Service::default()
        };
        let network = Network { name: "pos_default".to_owned(), ..Network::default() };
        let project = Project {
            name: "pos".to_owned(),
            services: parts.iter().map(|(name, content)| ((*name).to_owned(), service(content))).collect(),
            networks: [("default".to_owned(), network)].into(),
            volumes: BTreeMap::new(),
        };
        (AppSpec::Compose(Box::new(project)), Blobs::new())
    }

    fn there(&self) -> BTreeMap<String, String> {
        let part = |name: &str| name.trim_start_matches("pos-").trim_end_matches("-1").to_owned();
        let content = |name: &str, state: &str| match state {
            "running" => self.engine.exec(name, &["cat", "/www/content"]),
            other => other.to_owned(),
        };
        self.engine.names().iter().map(|(name, _, state)| (part(name), content(name, state))).collect()
    }

    fn take(&self, part: &str) {
        self.engine.request("DELETE", &format!("/containers/pos-{part}-1?force=true"), None);
    }

    fn put(&self, part: &str) {
        let body = json!({"Image": "registry.test/two:1", "Cmd": ["sleep", "10000"]});
        self.engine.request("POST", &format!("/containers/create?name=pos-{part}-1"), Some(&body));
    }
}

#[tokio::test]
async fn compose_on_docker() {
    holds(&Containers::start(Kind::Docker)).await;
}

#[tokio::test]
async fn compose_on_podman() {
    holds(&Containers::start(Kind::Podman)).await;
}

struct Objects {
    cluster: &'static Cluster,
    space: String,
    store: tempfile::TempDir,
}

impl World for Objects {
    type Runtime = KubernetesRuntime;

    fn runtime(&self) -> KubernetesRuntime {
        let settings = KubernetesSettings { kubeconfig: Some(self.cluster.kubeconfig()) };
        KubernetesRuntime::new(&settings, self.store.path())
    }

    fn spec(&self, parts: Parts<'_>) -> (AppSpec, Blobs) {
        let text: Vec<String> = parts
            .iter()
            .map(|(name, content)| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"content": content}})
                    .to_string()
            })
            .collect();
        let text = text.join("\n---\n");
        let digest = Digest::of(text.as_bytes());
        let spec = KubernetesSpec {
            namespace: Some(self.space.clone()),
            create_namespace: false,
            adopt: false,
            replace: Vec::new(),
            kustomize: false,
            files: [("all.yaml".to_owned(), digest)].into(),
        };
        (AppSpec::Kubernetes(spec), [(digest, Arc::from(text.as_bytes()))].into())
    }

    fn there(&self) -> BTreeMap<String, String> {
        let path = r#"{range .items[*]}{.metadata.name}={.data.content}{"\n"}{end}"#;
        let text = self.cluster.kubectl(&["get", "configmaps", "-n", &self.space, "-o", &format!("jsonpath={path}")]);
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        pairs.filter(|(name, _)| *name != "kube-root-ca.crt").map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn take(&self, part: &str) {
        self.cluster.kubectl(&["delete", "configmap", part, "-n", &self.space]);
    }

    fn put(&self, part: &str) {
        self.cluster.kubectl(&["create", "configmap", part, "-n", &self.space, "--from-literal=content=somebody's"]);
    }
}

#[tokio::test]
async fn kubernetes() {
    let cluster = Cluster::shared();
    let space = cluster.namespace();
    holds(&Objects { cluster, space, store: tempfile::tempdir().expect("a folder") }).await;
}
