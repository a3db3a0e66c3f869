//! A push to a signed repository over smart HTTP becomes running containers,
//! on Docker and on Podman, by the real agent; and the device finds its own
//! way back.

use std::process::Command;
use std::time::Duration;

use harness::device::{Device, Setup};
use harness::engine::{Engine, Kind, Registry};
use harness::forge::Forge;
use harness::net::{free_port, get};
use harness::process::run;
use harness::repo::Repo;
use harness::wait::{never, until};

/// An engine, a Git host, and a device of a fleet with one app.
struct Stage {
    device: Device,
    forge: Forge,
    repo: Repo,
    engine: Engine,
    port: u16,
    _folder: tempfile::TempDir,
}

/// What the app is to look like.
#[derive(Clone, Copy)]
struct Shop {
    /// The tag of `web`'s image.
    web: &'static str,
    greeting: &'static str,
    /// Whether the healthcheck asks for a page that is there.
    good: bool,
}

const FIRST: Shop = Shop { web: "1", greeting: "hello", good: true };

impl Stage {
    fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::start(kind, &[]);
        for tag in ["1", "2", "3"] {
            engine.image(&format!("localhost/web:{tag}"), &[("www/index.html", &format!("web {tag}\n"))]);
        }
        engine.image("localhost/db:1", &[("etc/db", "db")]);
        let forge = Forge::start(folder.path());
        let repo = Repo::trusted(folder.path());
        let setup = Setup::new("store-1", &forge.url(), &repo.signer.line())
            .with(&format!("[runtime.compose]\nsocket = \"{}\"", engine.address()));
        let device = Device::new(folder.path(), &setup);
        repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop]\n");
        Self { device, forge, repo, engine, port: free_port(), _folder: folder }
    }

    fn write(&self, shop: Shop) {
        let page = if shop.good { "index.html" } else { "missing.html" };
        self.repo.write("apps/shop/app.yaml", "runtime: compose\nhealth: {timeout: 6s, soak: 500ms}\n");
        self.repo.write(
            "apps/shop/compose.yaml",
            &format!(
                r#"services:
  web:
    image: localhost/web:{web}
    command: ["httpd", "-f", "-p", "8080", "-h", "/www"]
    stop_signal: SIGKILL
    pull_policy: never
    ports: ["127.0.0.1:{port}:8080"]
    depends_on: [db]
    networks: [front]
    configs: [{{source: greeting, target: /www/greeting.txt}}]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/{page}"]
      interval: 1s
      timeout: 2s
      retries: 2
  db:
    image: localhost/db:1
    command: ["sleep", "1000000"]
    stop_signal: SIGKILL
    pull_policy: never
    networks: [front]
    volumes: ["data:/data"]
  worker:
    image: localhost/db:1
    command: ["sleep", "1000000"]
    stop_signal: SIGKILL
    pull_policy: never
    networks: [front]
networks: {{front: {{}}}}
volumes: {{data: {{}}}}
configs: {{greeting: {{content: "{greeting}\n"}}}}
"#,
                web = shop.web,
                port = self.port,
                greeting = shop.greeting,
            ),
        );
    }

    fn push(&self, message: &str) -> String {
        let id = self.repo.commit(message);
        self.repo.push(&self.forge.url(), true);
        id
    }

    fn change(&self, shop: Shop, message: &str) -> String {
        self.write(shop);
        let id = self.push(message);
        self.device.sync();
        id
    }

    /// Starts the device with the first revision.
    fn begin(&mut self) -> String {
        self.write(FIRST);
        let id = self.push("first");
        self.device.start();
        self.device.wait_steady(&id, 90);
        id
    }

    fn page(&self, path: &str) -> String {
        get(self.port, path).map(|(_, body)| body).unwrap_or_default()
    }

    /// (service, container id), of what runs.
    fn running(&self) -> Vec<(String, String)> {
        let mut found: Vec<_> = self
            .engine
            .containers()
            .iter()
            .filter(|container| container["State"] == "running")
            .map(|container| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                (text(&container["Labels"]["com.docker.compose.service"]), text(&container["Id"]))
            })
            .collect();
        found.sort();
        found
    }

    fn id_of(&self, service: &str) -> String {
        let running = self.running();
        running.iter().find(|(name, _)| name == service).unwrap_or_else(|| panic!("{service}: {running:?}")).1.clone()
    }
}

fn apply_change_prune(kind: Kind) {
    let mut stage = Stage::new(kind);
    stage.begin();
    assert_eq!(stage.page("/index.html"), "web 1\n");
    assert_eq!(stage.page("/greeting.txt"), "hello\n");
    let before = stage.running();
    assert_eq!(before.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["db", "web", "worker"]);
    let _ = stage.engine.exec(&stage.id_of("db"), &["touch", "/data/kept"]);

    // One service's image: that one alone is made anew.
    let second = stage.change(Shop { web: "2", ..FIRST }, "web 2");
    stage.device.wait_steady(&second, 60);
    assert_eq!(stage.page("/index.html"), "web 2\n");
    let after = stage.running();
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(old.0, new.0);
        assert_eq!(old.1 == new.1, old.0 != "web", "{}: recreated only if it changed", old.0);
    }

    // `docker compose` sees what burgee runs.
    if kind == Kind::Docker {
        // Debian's docker-compose is too old to read `configs.content`; names
        // and labels are all that it needs.
        let file = stage._folder.path().join("names.yaml");
        let names = "version: \"3\"\nservices: {web: {image: x}, db: {image: x}, worker: {image: x}}\n";
        std::fs::write(&file, names).expect("a file");
        let compose = |args: &[&str]| {
            run(Command::new("docker-compose")
                .args(["-p", "shop", "-f"])
                .arg(&file)
                .args(args)
                .env("DOCKER_HOST", stage.engine.address()))
        };
        let listed = compose(&["ps"]);
        assert!(["web", "db", "worker"].iter().all(|service| listed.contains(service)), "{listed}");
        compose(&["logs", "--tail", "5"]);
    }

    // The app leaves: containers and network go, the named volume stays.
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    let empty = stage.push("without the shop");
    stage.device.sync();
    stage.device.wait_steady(&empty, 60);
    until("the containers to go", Duration::from_secs(20), || stage.engine.containers().is_empty().then_some(()));
    let networks = stage.engine.request("GET", "/networks", None).to_string();
    assert!(!networks.contains("shop_front"), "{networks}");
    let volumes = stage.engine.request("GET", "/volumes", None).to_string();
    assert!(volumes.contains("shop_data"), "{volumes}");
}

#[test]
fn a_push_runs_a_change_recreates_one_service_and_removal_prunes_on_docker() {
    apply_change_prune(Kind::Docker);
}

#[test]
fn a_push_runs_a_change_recreates_one_service_and_removal_prunes_on_podman() {
    apply_change_prune(Kind::Podman);
}

fn bad_health_goes_back(kind: Kind) {
    let mut stage = Stage::new(kind);
    let good = stage.begin();
    let worker = stage.id_of("worker");
    let bad = stage.change(Shop { web: "2", good: false, ..FIRST }, "bad");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    assert_eq!(stage.page("/index.html"), "web 1\n");
    assert_eq!(stage.id_of("worker"), worker, "what did not change was not touched");
    assert!(status["conditions"].to_string().contains("web"), "{status:#}");
    assert_eq!(stage.running().len(), 3);
    assert_eq!(stage.engine.containers().len(), 3, "nothing is left over");

    stage.device.kill();
    stage.device.start();
    stage.device.wait_stalled(&good, &bad, 30);
    never("it is tried again", Duration::from_secs(4), || stage.page("/index.html") == "web 2\n");

    let fix = stage.change(Shop { web: "3", greeting: "fixed", ..FIRST }, "fix");
    stage.device.wait_steady(&fix, 60);
    assert_eq!(stage.page("/greeting.txt"), "fixed\n");
}

#[test]
fn a_failing_healthcheck_goes_back_on_docker() {
    bad_health_goes_back(Kind::Docker);
}

#[test]
fn a_failing_healthcheck_goes_back_on_podman() {
    bad_health_goes_back(Kind::Podman);
}

#[test]
fn an_image_that_is_not_there_changes_nothing() {
    let mut stage = Stage::new(Kind::Docker);
    let good = stage.begin();
    let before = stage.running();
    stage.write(Shop { web: "9", ..FIRST });
    stage.push("no such image");
    stage.device.sync();
    let status = stage.device.wait("a reason", 30, |status| {
        status["conditions"].as_array().is_some_and(|all| all.iter().any(|it| it["type"] == "Prepared"))
    });
    assert!(status["conditions"].to_string().contains("localhost/web:9"), "{status:#}");
    assert_eq!(status["revision"], *good);
    assert_eq!(stage.running(), before);
}

#[test]
fn a_taken_port_goes_back_and_says_so() {
    let mut stage = Stage::new(Kind::Docker);
    let good = stage.begin();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let (old, new) = (stage.port, taken.local_addr().expect("an address").port());
    stage.port = new;
    let bad = stage.change(FIRST, "a port that is taken");
    stage.port = old;
    let status = stage.device.wait_stalled(&good, &bad, 90);
    assert!(status["conditions"].to_string().contains(&new.to_string()), "{status:#}");
    assert_eq!(stage.page("/index.html"), "web 1\n");
    assert_eq!(stage.engine.containers().len(), 3);
}

fn offline(kind: Kind) {
    let mut stage = Stage::new(kind);
    let first = stage.begin();
    let second = stage.change(Shop { web: "2", ..FIRST }, "web 2");
    stage.device.wait_steady(&second, 60);
    stage.device.kill();
    stage.forge.down();

    // Removed by hand while the agent is away, and its tag moved.
    let web = stage.id_of("web");
    stage.engine.request("DELETE", &format!("/containers/{web}?force=true"), None);
    stage.engine.image("localhost/web:2", &[("www/index.html", "another image of that tag\n")]);
    stage.device.start();
    until("the container to be back", Duration::from_secs(40), || {
        (stage.page("/index.html") == "web 2\n").then_some(())
    });

    // And while it runs.
    let web = stage.id_of("web");
    stage.engine.request("DELETE", &format!("/containers/{web}?force=true"), None);
    until("the container to be back", Duration::from_secs(40), || {
        (stage.page("/index.html") == "web 2\n").then_some(())
    });

    let output = stage.device.call(&["rollback"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status = stage.device.wait_steady(&first, 40);
    assert_eq!(stage.page("/index.html"), "web 1\n");
    assert_eq!(status["lastGood"], *first);
}

#[test]
fn offline_it_restarts_repairs_and_rolls_back_images_included() {
    offline(Kind::Docker);
}

#[test]
fn offline_on_podman_it_restarts_repairs_and_rolls_back_images_included() {
    offline(Kind::Podman);
}

#[test]
fn kill_minus_nine_in_the_middle_of_updates_leaves_nothing_over() {
    let (updates, kills) = if std::env::var_os("BURGEE_PROVE").is_some() { (20, 5) } else { (4, 3) };
    let mut stage = Stage::new(Kind::Docker);
    let mut good = stage.begin();
    let mut page = "web 1\n".to_owned();
    let mut delay: u64 = 11;
    for update in 0..updates {
        let is_good = update % 4 != 2;
        let web = ["2", "3", "1"][update % 3];
        stage.write(Shop { web, good: is_good, ..FIRST });
        let id = stage.push(&format!("update {update}"));
        for _ in 0..kills {
            delay = (delay * 61 + 13) % 1700;
            std::thread::sleep(Duration::from_millis(delay));
            stage.device.kill();
            stage.device.start();
        }
        if is_good {
            (good, page) = (id, format!("web {web}\n"));
            stage.device.wait_steady(&good, 60);
        } else {
            stage.device.wait_stalled(&good, &id, 60);
        }
        until("the page of the newest good", Duration::from_secs(10), || {
            (stage.page("/index.html") == page).then_some(())
        });
        let left = stage.engine.containers();
        assert_eq!(left.len(), 3, "after update {update}: {:?}", stage.engine.names());
    }
}

#[test]
fn an_engine_that_restarts_in_the_middle_is_waited_for() {
    let mut stage = Stage::new(Kind::Docker);
    let first = stage.begin();
    stage.engine.stop();
    let second = stage.change(Shop { web: "2", ..FIRST }, "web 2");
    stage.device.wait("a reason", 60, |status| status["conditions"].to_string().contains("RuntimeUnreachable"));
    stage.engine.start_again();
    let status = stage.device.wait_steady(&second, 120);
    assert_eq!(status["blocked"], serde_json::json!([]), "an engine that is away is nobody's fault");
    assert_eq!(stage.page("/index.html"), "web 2\n");
    assert_ne!(first, second);
}

#[test]
fn an_engine_that_hangs_is_said_and_waited_for() {
    let mut stage = Stage::new(Kind::Docker);
    let first = stage.begin();
    stage.engine.pause();
    let second = stage.change(Shop { web: "2", ..FIRST }, "web 2");
    let status =
        stage.device.wait("a reason", 120, |status| status["conditions"].to_string().contains("RuntimeUnreachable"));
    assert_eq!(status["revision"], *first, "{status:#}");
    assert!(status["conditions"].to_string().contains("hint: "), "{status:#}");
    assert_eq!(stage.page("/index.html"), "web 1\n", "what runs is not the engine's to serve");
    stage.engine.resume();
    let status = stage.device.wait_steady(&second, 120);
    assert_eq!((&status["blocked"], &status["conditions"]), (&serde_json::json!([]), &serde_json::json!([])));
    assert_eq!(stage.page("/index.html"), "web 2\n");
}

#[test]
fn a_registry_that_is_down_is_waited_for() {
    let mut stage = Stage::new(Kind::Docker);
    let first = stage.begin();
    let mut registry = Registry::start();
    let name = registry.name("web:9");
    stage.engine.image(&name, &[("www/index.html", "web 9\n")]);
    stage.engine.push(&name);
    stage.engine.request("DELETE", &format!("/images/{name}?force=true"), None);
    registry.stop();
    stage.write(FIRST);
    let file = stage.repo.path.join("apps/shop/compose.yaml");
    let text = std::fs::read_to_string(&file).expect("the Compose file");
    let own = "localhost/web:1\n    command: [\"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/www\"]\n    stop_signal: SIGKILL\n    pull_policy: never\n";
    let pulled = own.replace("localhost/web:1", &name).replace("pull_policy: never", "pull_policy: missing");
    assert!(text.contains(own), "{text}");
    std::fs::write(&file, text.replace(own, &pulled)).expect("the Compose file");
    let second = stage.push("from a registry");
    stage.device.sync();
    let status = stage.device.wait("a reason", 60, |status| status["conditions"].to_string().contains("PullFailed"));
    let said = status["conditions"].to_string();
    assert!(said.contains(&name) && said.contains("hint: "), "{status:#}");
    assert_eq!((&status["revision"], &status["blocked"]), (&first.into(), &serde_json::json!([])));
    assert_eq!(stage.page("/index.html"), "web 1\n");
    registry.start_again();
    let status = stage.device.wait_steady(&second, 120);
    assert_eq!(status["conditions"], serde_json::json!([]));
    assert_eq!(stage.page("/index.html"), "web 9\n");
}
