//! The compose runtime against real engines: Docker and Podman, and a registry.

mod compose_app;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use agent::ports::Reason;
use agent::ports::journal::Kept;
use agent::ports::runtime::{Pins, Runtime, RuntimeError, Verb};
use compose_app::*;
use fleet::compose::model::{
    Attachment, Condition, Mode, Mount, MountSource, Network, Port, PullPolicy, Restart, Service, UpdateConfig, Volume,
    VolumesFrom,
};
use fleet::desired::{DesiredApp, DesiredState, Limit, PrunePolicy};
use fleet::digest::Digest;
use fleet::revision::Revision;
use fleet::wire::status::Health;
use harness::engine::{Engine, Kind, Registry, free_port, get};

/// db (volume, healthcheck), web (config, port, after db), migrate (a job).
fn three_services(device: &mut Device, port: u16) -> DesiredApp {
    let page = device.file("hello from a config", 0o444);
    let mut db = service(ONE, &["sh", "-c", "echo data > /data/x; exec sleep 10000"]);
    db.healthcheck = check("test -f /data/x");
    db.mounts = vec![Mount {
        target: "/data".to_owned(),
        read_only: false,
        source: MountSource::Volume { key: "data".to_owned(), nocopy: false, subpath: None, labels: BTreeMap::new() },
    }];
    let mut web = service(ONE, &["httpd", "-f", "-p", "80", "-h", "/www"]);
    web.depends_on = depends("db", Condition::Healthy);
    web.ports = publish(port);
    web.mounts = vec![Mount {
        target: "/www/index.html".to_owned(),
        read_only: true,
        source: MountSource::Content { name: "config page".to_owned(), file: page, uid: None, gid: None },
    }];
    let mut migrate = service(ONE, &["sh", "-c", "echo migrated"]);
    migrate.restart = Restart::No;
    migrate.depends_on = depends("db", Condition::Healthy);
    let mut project = project(vec![("db", db), ("web", web), ("migrate", migrate)]);
    project.volumes.insert("data".to_owned(), Volume { name: "pos_data".to_owned(), ..Volume::default() });
    app(project)
}

async fn lifecycle(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let port = free_port();
    let mut want = three_services(&mut device, port);

    let steps = device.apply(&want).await.unwrap();
    let first_start = steps.iter().position(|step| step.starts_with("Start")).unwrap();
    let last_create = steps.iter().rposition(|step| step.starts_with("Create container")).unwrap();
    assert!(last_create < first_start, "{steps:#?}");
    device.until(&want, Health::Healthy).await;
    assert_eq!(get(port), "hello from a config");
    device.assert_done(&want).await;
    let labels = &engine.request("GET", "/containers/pos-web-1/json", None)["Config"]["Labels"];
    assert_eq!(labels["com.docker.compose.project"], "pos");
    assert_eq!(labels["com.docker.compose.oneoff"], "False");
    if kind == Kind::Docker {
        compose_ps(&engine);
    }
    let log = device.runtime.logs(device.task(Some(&want)), 10).await.unwrap();
    assert!(log.contains(&"migrate-1 | migrated".to_owned()), "{log:?}");

    // One image changes: that container alone is made anew.
    let before = engine.names();
    service_mut(&mut want, "web").image = TWO.to_owned();
    let steps = device.apply(&want).await.unwrap();
    assert!(steps.iter().any(|step| step == "Replace container/pos-web-1: image"), "{steps:#?}");
    let after = engine.names();
    for ((name, old, _), (_, new, _)) in before.iter().zip(&after) {
        assert_eq!(old != new, name == "pos-web-1", "{name}");
    }
    assert_eq!(engine.exec("pos-web-1", &["cat", "/www/version"]), "two");
    device.assert_done(&want).await;

    // Drift: stopped, removed, and removed with its files.
    engine.request("POST", "/containers/pos-db-1/stop?t=0", None);
    engine.request("DELETE", "/containers/pos-web-1?force=true", None);
    assert_eq!(device.health(&want).await.health, Health::Degraded);
    std::fs::remove_dir_all(device.store.path().join("apps")).unwrap();
    device.repair(&want).await.unwrap();
    device.until(&want, Health::Healthy).await;
    assert_eq!(get(port), "hello from a config");
    device.assert_done(&want).await;

    // A service leaves; then the app. Its volume stays.
    project_mut(&mut want).services.remove("migrate");
    let steps = device.apply(&want).await.unwrap();
    assert_eq!(steps, ["Delete container/pos-migrate-1: no longer wanted"]);
    let steps = device.remove().await;
    assert_eq!(steps.last().map(String::as_str), Some("Delete network/pos_default: the app left"), "{steps:#?}");
    assert_eq!(engine.names(), []);
    assert_eq!(engine.request("GET", "/volumes/pos_data", None)["Name"], "pos_data");
    assert_eq!(device.remove().await, [""; 0]);
    device.runtime.sweep(&[]).await.unwrap();
    assert_eq!(std::fs::read_dir(device.store.path().join("apps")).unwrap().count(), 0);
    // Images that burgee did not pull are not its to remove.
    engine.request("GET", &format!("/images/{TWO}/json"), None);
}

/// Debian's docker-compose sees what burgee runs.
fn compose_ps(engine: &Engine) {
    let dir = tempfile::tempdir().unwrap();
    let file = "services: {db: {image: x}, web: {image: x}, migrate: {image: x}}\nversion: '3.8'\n";
    std::fs::write(dir.path().join("docker-compose.yml"), file).unwrap();
    let run = |args: &[&str]| {
        let output = std::process::Command::new("docker-compose")
            .args(["-p", "pos"])
            .args(args)
            .current_dir(dir.path())
            .env("DOCKER_HOST", engine.address())
            .output()
            .expect("docker-compose is installed");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let ps = run(&["ps"]);
    assert!(ps.contains("pos-web-1") && ps.contains("pos-db-1") && ps.contains("Up (healthy)"), "{ps}");
    let logs = run(&["logs", "--no-color", "migrate"]);
    assert!(logs.contains("migrated"), "{logs}");
}

#[tokio::test]
async fn lifecycle_on_docker() {
    lifecycle(Kind::Docker).await;
}

#[tokio::test]
async fn lifecycle_on_podman() {
    lifecycle(Kind::Podman).await;
}

/// As many keys as an engine on this machine can do.
fn many_keys(device: &mut Device, kind: Kind) -> DesiredApp {
    let secret = device.file("hush", 0o400);
    let conf = device.file("a=1", 0o644);
    let mut all = sleeper(ONE);
    all.environment = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "x y".to_owned())].into();
    all.labels = [("com.example.role".to_owned(), "all".to_owned())].into();
    all.user = Some("0:0".to_owned());
    all.working_dir = Some("/tmp".to_owned());
    all.hostname = Some("till".to_owned());
    all.init = (kind == Kind::Docker && std::path::Path::new("/usr/bin/docker-init").exists()).then_some(true);
    all.tty = true;
    all.read_only = true;
    all.restart = Restart::OnFailure { max_retries: Some(3) };
    all.stop_signal = Some("SIGKILL".to_owned());
    all.expose = vec!["9000".to_owned(), "9001/udp".to_owned()];
    all.ports = vec![Port {
        target: 80,
        protocol: "tcp".to_owned(),
        host_ip: Some("127.0.0.1".to_owned()),
        published: Some(free_port().to_string()),
    }];
    all.cap_add = vec!["NET_ADMIN".to_owned()];
    all.cap_drop = vec!["MKNOD".to_owned()];
    all.extra_hosts = vec!["printer:10.0.0.9".to_owned()];
    all.dns = vec!["10.0.0.53".to_owned()];
    all.sysctls = [("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())].into();
    let limit = |name: &str, soft, hard| (name.to_owned(), fleet::compose::model::Ulimit { soft, hard });
    all.ulimits = [limit("nofile", 1024, 2048), limit("nproc", 1000, 2000)].into();
    all.shm_size = Some(8 << 20);
    all.security_opt = vec!["no-new-privileges".to_owned()];
    all.group_add = vec!["42".to_owned()];
    all.oom_score_adj = Some(100);
    all.resources.memory = Some(64 << 20);
    all.resources.pids = Some(100);
    all.healthcheck = check("true");
    all.logging = Some(fleet::compose::model::Logging {
        driver: Some(if kind == Kind::Docker { "json-file" } else { "k8s-file" }.to_owned()),
        options: [("max-size".to_owned(), "1m".to_owned())].into(),
    });
    all.networks.insert(
        "back".to_owned(),
        Attachment { aliases: vec!["cash".to_owned()], priority: 10, ..Attachment::default() },
    );
    let mount = |target: &str, read_only, source| Mount { target: target.to_owned(), read_only, source };
    let host = device.store.path().join("made by the engine");
    all.mounts = vec![
        mount("/scratch", false, MountSource::Tmpfs { size: Some(1 << 20), mode: Some(0o1777), options: vec![] }),
        mount("/cache", false, MountSource::Anonymous { nocopy: false }),
        mount(
            "/srv",
            false,
            MountSource::Bind {
                path: host.display().to_string(),
                create_host_path: true,
                propagation: None,
                selinux: None,
                recursive: None,
            },
        ),
        mount(
            "/etc/all",
            true,
            MountSource::Repository {
                path: "apps/pos/conf".to_owned(),
                folder: true,
                selinux: None,
                files: [("all.conf".to_owned(), conf)].into(),
            },
        ),
        mount(
            "/run/secrets/key",
            true,
            MountSource::Content {
                name: "secret key".to_owned(),
                file: secret,
                uid: Some("7".to_owned()),
                gid: Some("8".to_owned()),
            },
        ),
        mount(
            "/data",
            false,
            MountSource::Volume { key: "data".to_owned(), nocopy: true, subpath: None, labels: BTreeMap::new() },
        ),
    ];
    let mut side = sleeper(ONE);
    side.networks.clear();
    side.network_mode = Some(Mode::Service("all".to_owned()));
    side.pid = Some(Mode::Service("all".to_owned()));
    side.volumes_from = vec![VolumesFrom { source: Mode::Service("all".to_owned()), read_only: true }];
    let mut many = sleeper(ONE);
    many.replicas = 3;
    many.depends_on = depends("all", Condition::Healthy);
    let mut project = project(vec![("all", all), ("side", side), ("many", many)]);
    let back = Network {
        name: "pos_back".to_owned(),
        internal: true,
        labels: [("x".to_owned(), "y".to_owned())].into(),
        ..Network::default()
    };
    project.networks.insert("back".to_owned(), back);
    project.volumes.insert("data".to_owned(), Volume { name: "pos_data".to_owned(), ..Volume::default() });
    app(project)
}

async fn keys(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let mut want = many_keys(&mut device, kind);
    device.apply(&want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));
    device.until(&want, Health::Healthy).await;
    device.assert_done(&want).await;
    let run = |command: &[&str]| engine.exec("pos-all-1", command).trim().to_owned();
    assert_eq!(run(&["cat", "/etc/all/all.conf"]), "a=1");
    assert_eq!(run(&["stat", "-c", "%a %u %g", "/run/secrets/key"]), "400 7 8");
    assert_eq!(run(&["sh", "-c", "echo $A-$B"]), "1-x y");
    assert_eq!(run(&["cat", "/etc/hostname"]), "till");
    let networks = &engine.request("GET", "/containers/pos-all-1/json", None)["NetworkSettings"]["Networks"];
    assert_eq!(networks.as_object().map(serde_json::Map::len), Some(2));
    // What shares a namespace with a container that is made anew is made anew.
    run(&["touch", "/cache/kept"]);
    service_mut(&mut want, "all").environment.insert("A".to_owned(), "2".to_owned());
    let before = engine.names();
    let steps = device.apply(&want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));
    assert!(steps.contains(&"Replace container/pos-all-1: environment A".to_owned()), "{steps:#?}");
    let after = engine.names();
    for ((name, old, _), (_, new, _)) in before.iter().zip(&after) {
        assert_eq!(old == new, name.starts_with("pos-many"), "{name}");
    }
    assert_eq!(run(&["ls", "/cache"]), "kept", "anonymous volumes are taken over");
    device.assert_done(&want).await;
    device.remove().await;
    assert_eq!(engine.names(), []);
    let volumes = engine.request("GET", "/volumes", None);
    assert_eq!(volumes["Volumes"].as_array().map(Vec::len), Some(1), "{volumes}");
}

#[tokio::test]
async fn many_keys_on_docker() {
    keys(Kind::Docker).await;
}

#[tokio::test]
async fn many_keys_on_podman() {
    keys(Kind::Podman).await;
}

/// The agent dies after any number of steps; the next one finishes.
async fn interrupted(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let shape = |image: &str, subnet_option: &str| {
        let mut first = sleeper(image);
        first.update = UpdateConfig { start_first: true, ..UpdateConfig::default() };
        let mut side = sleeper(image);
        side.networks.clear();
        side.network_mode = Some(Mode::Service("base".to_owned()));
        let mut base = sleeper(ONE);
        base.environment.insert("IMAGE".to_owned(), image.to_owned());
        let mut netted = sleeper(ONE);
        netted.networks = [("odd".to_owned(), Attachment::default())].into();
        let mut many = sleeper(image);
        many.replicas = 2;
        let mut project =
            project(vec![("first", first), ("side", side), ("base", base), ("netted", netted), ("many", many)]);
        project.networks.insert(
            "odd".to_owned(),
            Network {
                name: "pos_odd".to_owned(),
                labels: [("generation".to_owned(), subnet_option.to_owned())].into(),
                ..Network::default()
            },
        );
        app(project)
    };
    let (old, new) = (shape(ONE, "1"), shape(TWO, "2"));
    device.apply(&old).await.unwrap();
    let mut towards = [&new, &old].into_iter().cycle();
    let mut crash_after = 0;
    loop {
        let want = towards.next().unwrap();
        device.pins = Pins::new();
        device.pins = device.runtime.prepare(device.task(Some(want))).await.unwrap();
        let plan = device.plan(Some(want)).await.unwrap();
        for step in plan.steps.iter().take(crash_after) {
            device.runtime.execute(device.task(Some(want)), step).await.unwrap();
        }
        device.restart();
        device.repair(want).await.unwrap_or_else(|error| panic!("after {crash_after}: {}", sentence(&error)));
        device.assert_done(want).await;
        let names: Vec<String> = engine.names().into_iter().map(|(name, _, state)| format!("{name} {state}")).collect();
        let wanted = ["base-1", "first-1", "many-1", "many-2", "netted-1", "side-1"];
        assert_eq!(names, wanted.map(|name| format!("pos-{name} running")), "after {crash_after}");
        device.had = Some(want.clone());
        if crash_after > plan.steps.len() {
            break;
        }
        crash_after += 1;
    }
    assert!(crash_after > 10, "the update had {crash_after} steps");
}

#[tokio::test]
async fn interrupted_on_docker() {
    interrupted(Kind::Docker).await;
}

#[tokio::test]
async fn interrupted_on_podman() {
    interrupted(Kind::Podman).await;
}

#[tokio::test]
async fn a_container_made_by_half_is_replaced() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let want = app(project(vec![("web", sleeper(ONE))]));
    device.apply(&want).await.unwrap();
    // As if the agent had died between create and connect.
    let body = serde_json::json!({"Container": "pos-web-1"});
    engine.request("POST", "/networks/pos_default/disconnect", Some(&body));
    let steps = device.repair(&want).await.unwrap();
    assert!(steps[0].ends_with("not on network pos_default"), "{steps:#?}");
    device.assert_done(&want).await;
    assert_eq!(engine.names().len(), 1);
}

#[tokio::test]
async fn what_is_not_ours_is_named_and_left_alone() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let mut want = app(project(vec![("web", sleeper(ONE))]));
    project_mut(&mut want)
        .volumes
        .insert("data".to_owned(), Volume { name: "pos_data".to_owned(), ..Volume::default() });
    let image = serde_json::json!({"Image": ONE, "Cmd": ["sleep", "100"]});
    engine.request("POST", "/containers/create?name=pos-web-1", Some(&image));
    let foreign = |error: RuntimeError, object: &str| {
        assert!(matches!(error, RuntimeError::Foreign { .. }) && error.to_string().contains(object), "{error}");
    };
    foreign(device.apply(&want).await.unwrap_err(), "container/pos-web-1");
    engine.request("POST", "/containers/pos-web-1/rename?name=other", None);
    engine.request("POST", "/networks/create", Some(&serde_json::json!({"Name": "pos_default"})));
    foreign(device.apply(&want).await.unwrap_err(), "network/pos_default");
    engine.request("DELETE", "/networks/pos_default", None);
    engine.request("POST", "/volumes/create", Some(&serde_json::json!({"Name": "pos_data"})));
    foreign(device.apply(&want).await.unwrap_err(), "volume/pos_data");
    engine.request("DELETE", "/volumes/pos_data", None);
    assert_eq!(engine.names().len(), 1, "nothing was made meanwhile");
    device.apply(&want).await.unwrap();
    device.remove().await;
    assert_eq!(engine.names().len(), 1, "what isn't ours stays");
}

async fn taken_port(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let mut want = app(project(vec![("web", service(ONE, &["httpd", "-f", "-p", "80", "-h", "/www"]))]));
    device.apply(&want).await.unwrap();
    let good = want.clone();
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    service_mut(&mut want, "web").ports = publish(listener.local_addr().unwrap().port());
    let error = device.apply(&want).await.unwrap_err();
    let text = sentence(&error);
    assert!(matches!(error, RuntimeError::Step { action: "start", .. }), "{text}");
    assert!(text.contains("another program or container holds the port"), "{text}");
    assert_ne!(device.health(&want).await.health, Health::Healthy);
    // Back to what ran before, by id.
    device.repair(&good).await.unwrap();
    device.assert_done(&good).await;
    device.until(&good, Health::Healthy).await;
    assert_eq!(engine.names().len(), 1);
}

#[tokio::test]
async fn a_taken_port_on_docker() {
    taken_port(Kind::Docker).await;
}

#[tokio::test]
async fn a_taken_port_on_podman() {
    taken_port(Kind::Podman).await;
}

async fn pulls(kind: Kind) {
    let mut registry = Registry::start();
    let engine = Engine::start(kind, &[registry.port]);
    let mut device = Device::new(&engine);
    let image = registry.name("web:1");
    let first = engine.image(&image, &[("www/version", "one")]);
    engine.push(&image);
    engine.request("DELETE", &format!("/images/{image}?force=true"), None);
    let second = engine.image(&image, &[("www/version", "two")]);
    engine.push(&image);
    engine.request("DELETE", &format!("/images/{image}?force=true"), None);

    // No such tag; registry down: nothing changes, and it says why.
    let mut want = app(project(vec![("web", sleeper(&registry.name("web:none")))]));
    let error = device.apply(&want).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Pull { transient: true, .. }), "{error}");
    assert!(sentence(&error).contains("push that tag"), "{}", sentence(&error));
    service_mut(&mut want, "web").image = image.clone();
    registry.stop();
    let error = device.apply(&want).await.unwrap_err();
    assert!(error.is_transient() && sentence(&error).contains("see whether registry"), "{}", sentence(&error));
    assert_eq!(engine.names(), []);
    service_mut(&mut want, "web").pull_policy = PullPolicy::Never;
    let error = device.apply(&want).await.unwrap_err();
    assert!(sentence(&error).contains("pull_policy is never"), "{}", sentence(&error));
    service_mut(&mut want, "web").pull_policy = PullPolicy::Missing;

    registry.start_again();
    device.apply(&want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));
    let pinned = device.pins[&image].clone();
    assert!(pinned == second || kind == Kind::Podman && pinned != first, "{pinned}");

    // The tag moves. Repair goes by id and asks no registry; `always` asks it.
    engine.request("POST", &format!("/images/{pinned}/tag?repo={}&tag=kept", registry.name("web")), None);
    let third = engine.image(&image, &[("www/version", "three")]);
    engine.push(&image);
    engine.request("DELETE", "/containers/pos-web-1?force=true", None);
    device.repair(&want).await.unwrap();
    assert_eq!(engine.exec("pos-web-1", &["cat", "/www/version"]), "two");
    let known = device.pins.clone();
    service_mut(&mut want, "web").pull_policy = PullPolicy::Always;
    let again = device.runtime.prepare(device.task(Some(&want))).await.unwrap();
    assert_eq!(again, known, "what is pinned and present is not pulled again");
    device.assert_done(&want).await;
    device.apply(&want).await.unwrap();
    assert_ne!(device.pins[&image], pinned);
    assert_eq!(engine.exec("pos-web-1", &["cat", "/www/version"]), "three");

    // Only what burgee pulled goes, and only once nothing keeps it.
    engine.request("DELETE", &format!("/images/{}", registry.name("web:kept")), None);
    let there = |id: &str| {
        engine.try_request("GET", &format!("/images/{id}/json"), "", b"").is_some_and(|(status, _)| status == 200)
    };
    if there(&pinned) {
        let kept = kept(&want, known);
        device.runtime.sweep(&[&kept]).await.unwrap();
        assert!(there(&pinned), "spared for rollback");
        device.runtime.sweep(&[]).await.unwrap();
        assert!(!there(&pinned), "no longer needed");
    }
    device.remove().await;
    device.runtime.sweep(&[]).await.unwrap();
    assert!(there(&third), "made on this device, not pulled by burgee");

    // A registry that asks for credentials gets those of the file.
    registry.guard();
    engine.request("DELETE", &format!("/images/{third}?force=true"), None);
    let error = device.apply(&want).await.unwrap_err();
    assert!(sentence(&error).contains("runtime.compose.auth_file"), "{}", sentence(&error));
    let auth = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", Registry::USER, Registry::PASSWORD))
    };
    let file = device.store.path().join("config.json");
    std::fs::write(&file, format!(r#"{{"auths": {{"127.0.0.1:{}": {{"auth": "{auth}"}}}}}}"#, registry.port)).unwrap();
    device.auth_file = Some(file);
    device.restart();
    device.apply(&want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));

    // Credential helpers are programs.
    let file = device.store.path().join("config.json");
    std::fs::write(&file, r#"{"credsStore":"pass"}"#).unwrap();
    device.auth_file = Some(file);
    device.restart();
    let error = device.apply(&want).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Refused { .. }) && error.to_string().contains("credsStore"), "{error}");
}

fn kept(app: &DesiredApp, pins: Pins) -> Kept {
    Kept {
        revision: Revision { id: "1".repeat(40).parse().unwrap(), identity: Digest::of(b"") },
        desired: DesiredState {
            fleet: "shop".parse().unwrap(),
            device: "store-1".parse().unwrap(),
            groups: vec![],
            apps: vec![app.clone()],
            windows: vec![],
            has_rollout: false,
            digest: Digest::of(b""),
        },
        pins: [(app.name.clone(), pins)].into(),
    }
}

#[tokio::test]
async fn pulls_on_docker() {
    pulls(Kind::Docker).await;
}

#[tokio::test]
async fn pulls_on_podman() {
    pulls(Kind::Podman).await;
}

async fn verdicts(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let mut want = app(project(vec![("web", sleeper(ONE))]));
    let mut judge = async |want: &mut DesiredApp, change: fn(&mut Service), health, text: &str| {
        let service = service_mut(want, "web");
        *service = sleeper(ONE);
        change(service);
        device.apply(want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));
        let verdict = device.until(want, health).await;
        assert!(verdict.message.contains(text), "{verdict:?}");
    };
    judge(&mut want, |_| (), Health::Healthy, "").await;
    judge(
        &mut want,
        |it| it.healthcheck = check("echo out of paper; false"),
        Health::Degraded,
        "web: healthcheck failing: out of paper",
    )
    .await;
    judge(
        &mut want,
        |it| it.command = Some(words(&["sh", "-c", "echo no database; sleep 0.3; exit 3"])),
        Health::Degraded,
        "no database",
    )
    .await;
    judge(
        &mut want,
        |it| {
            it.restart = Restart::No;
            it.command = Some(words(&["sh", "-c", "echo giving up; exit 4"]));
        },
        Health::Degraded,
        "web: exited with code 4: giving up",
    )
    .await;
    judge(
        &mut want,
        |it| {
            it.restart = Restart::OnFailure { max_retries: None };
            it.command = Some(words(&["true"]));
        },
        Health::Healthy,
        "",
    )
    .await;
    device.assert_done(&want).await;
}

#[tokio::test]
async fn verdicts_on_docker() {
    verdicts(Kind::Docker).await;
}

#[tokio::test]
async fn verdicts_on_podman() {
    verdicts(Kind::Podman).await;
}

#[tokio::test]
async fn an_update_rolls_replica_by_replica() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let mut web = sleeper(ONE);
    web.replicas = 2;
    web.update = UpdateConfig { monitor_ms: Some(300), delay_ms: Some(200), ..UpdateConfig::default() };
    let mut want = app(project(vec![("web", web)]));
    device.apply(&want).await.unwrap();
    service_mut(&mut want, "web").image = TWO.to_owned();
    let steps = device.apply(&want).await.unwrap();
    let verbs: Vec<&str> = steps.iter().map(|step| step.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["Replace", "Replace", "Replace", "Start", "Wait", "Replace", "Start", "Wait"], "{steps:#?}");
    // One that crashes ends the update with the other replica untouched.
    let kept = id(&engine, "pos-web-2");
    service_mut(&mut want, "web").command = Some(words(&["false"]));
    let error = device.apply(&want).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Step { action: "update", .. }), "{}", sentence(&error));
    assert_eq!(id(&engine, "pos-web-2"), kept);
    // Unless failure_action says to go on.
    service_mut(&mut want, "web").update.failure_action = fleet::compose::model::FailureAction::Continue;
    device.apply(&want).await.unwrap();
    // Start-first: the former container runs until the new one is healthy.
    let web = service_mut(&mut want, "web");
    *web = sleeper(ONE);
    web.update.start_first = true;
    web.healthcheck = check("true");
    device.apply(&want).await.unwrap();
    service_mut(&mut want, "web").image = TWO.to_owned();
    let steps = device.apply(&want).await.unwrap();
    let verbs: Vec<&str> = steps.iter().map(|step| step.split(' ').next().unwrap()).collect();
    assert_eq!(verbs, ["Replace", "Start", "Wait", "Replace", "Start"], "{steps:#?}");
    device.assert_done(&want).await;
    // A job that fails keeps its dependents from starting.
    let mut job = service(ONE, &["false"]);
    job.restart = Restart::No;
    let mut after = sleeper(ONE);
    after.depends_on = depends("job", Condition::CompletedSuccessfully);
    let want = app(project(vec![("job", job), ("after", after)]));
    let error = device.apply(&want).await.unwrap_err();
    assert!(sentence(&error).contains("it exited with code 1"), "{}", sentence(&error));
    assert!(engine.names().contains(&("pos-after-1".to_owned(), id(&engine, "pos-after-1"), "created".to_owned())));
}

#[tokio::test]
async fn names_and_ports_can_be_swapped() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let (one, two) = (free_port(), free_port());
    let shape = |a: u16, b: u16, names: [&str; 2]| {
        let server = |port, name: &str| {
            let mut it = service(ONE, &["httpd", "-f", "-p", "80", "-h", "/www"]);
            it.ports = publish(port);
            it.container_name = Some(name.to_owned());
            it
        };
        app(project(vec![("a", server(a, names[0])), ("b", server(b, names[1]))]))
    };
    device.apply(&shape(one, two, ["till-x", "till-y"])).await.unwrap();
    let want = shape(two, one, ["till-y", "till-x"]);
    device.apply(&want).await.unwrap_or_else(|error| panic!("{}", sentence(&error)));
    device.assert_done(&want).await;
    assert_eq!(engine.names().iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["till-x", "till-y"]);
}

#[tokio::test]
async fn an_engine_that_restarts_hangs_or_is_away() {
    let mut engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let want = app(project(vec![("web", sleeper(ONE))]));
    device.apply(&want).await.unwrap();
    let watched = runtime(&device.address, device.store.path(), None);
    // What happened until the stream of events came is unknown: one look, then nothing.
    tokio::time::timeout(Duration::from_secs(20), watched.changed()).await.expect("the stream is new");
    assert!(tokio::time::timeout(Duration::from_secs(1), watched.changed()).await.is_err(), "nothing happened");

    engine.stop();
    let error = device.plan(Some(&want)).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Unreachable { .. }) && error.hint().is_some(), "{}", sentence(&error));
    engine.start_again();
    tokio::time::timeout(Duration::from_secs(30), watched.changed()).await.expect("the engine is back");
    device.repair(&want).await.unwrap();
    device.until(&want, Health::Healthy).await;

    engine.pause();
    let begun = Instant::now();
    let error = device.plan(Some(&want)).await.unwrap_err();
    assert!(sentence(&error).contains("no answer within 20 s"), "{}", sentence(&error));
    assert!(begun.elapsed() < Duration::from_secs(25));
    engine.resume();
    device.assert_done(&want).await;
}

async fn events(kind: Kind) {
    let engine = engine(kind);
    let mut device = Device::new(&engine);
    let mut web = sleeper(ONE);
    web.healthcheck = check("true");
    let want = app(project(vec![("web", web)]));
    device.apply(&want).await.unwrap();
    device.until(&want, Health::Healthy).await;
    let watched = runtime(&device.address, device.store.path(), None);
    let heard = async |secs| tokio::time::timeout(Duration::from_secs(secs), watched.changed()).await.is_ok();
    while heard(5).await {}
    assert!(!heard(4).await, "healthchecks that pass wake nobody");
    // Cancelling loses nothing: the event comes while nobody waits.
    engine.request("POST", "/containers/pos-web-1/kill", None);
    assert!(heard(10).await, "it was killed");
    while heard(1).await {}
    device.repair(&want).await.unwrap();
    assert!(heard(10).await, "it was started");
    while heard(1).await {}
    engine.request("DELETE", "/containers/pos-web-1?force=true", None);
    assert!(heard(10).await, "it was removed");
    // What belongs to others is none of its business.
    while heard(1).await {}
    let body = serde_json::json!({"Image": ONE, "Cmd": ["true"]});
    engine.request("POST", "/containers/create?name=other", Some(&body));
    engine.request("POST", "/containers/other/start", None);
    assert!(!heard(2).await);
}

#[tokio::test]
async fn events_on_docker() {
    events(Kind::Docker).await;
}

#[tokio::test]
async fn events_on_podman() {
    events(Kind::Podman).await;
}

#[tokio::test]
async fn no_engine_at_all() {
    let device = Device::at("unix:///nonexistent/engine.sock");
    let want = app(project(vec![("web", sleeper(ONE))]));
    let error = device.plan(Some(&want)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert_eq!(error.reason(), "RuntimeUnreachable");
}

#[tokio::test]
async fn what_this_engine_can_not_do_is_refused_by_name() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let mut web = sleeper(ONE);
    web.healthcheck = check("true");
    web.healthcheck.as_mut().unwrap().start_interval_ms = Some(1000);
    let error = device.apply(&app(project(vec![("web", web)]))).await.unwrap_err();
    assert!(error.to_string().contains("healthcheck.start_interval needs Engine API 1.44"), "{error}");
    assert_eq!(engine.names(), []);
}

#[tokio::test]
async fn prune_settings_are_kept() {
    let engine = engine(Kind::Docker);
    let mut device = Device::new(&engine);
    let mut want = app(project(vec![("a", sleeper(ONE)), ("b", sleeper(ONE))]));
    project_mut(&mut want)
        .volumes
        .insert("data".to_owned(), Volume { name: "pos_data".to_owned(), ..Volume::default() });
    device.apply(&want).await.unwrap();
    want.prune.enabled = false;
    project_mut(&mut want).services.remove("b");
    assert_eq!(device.apply(&want).await.unwrap(), [""; 0]);
    assert_eq!(engine.names().len(), 2);
    // Without `keep: [volumes]`, volumes go, but only once the revision is steady.
    want.prune = PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: vec![] };
    project_mut(&mut want).volumes.clear();
    let plan = device.plan(Some(&want)).await.unwrap();
    let volumes: Vec<bool> =
        plan.steps.iter().filter(|step| step.object.kind == "volume").map(|step| step.after_steady).collect();
    assert_eq!(volumes, [true]);
    assert!(plan.steps.iter().all(|step| step.verb == Verb::Delete));
    device.apply(&want).await.unwrap();
    assert_eq!(engine.names().len(), 1);
}
