//! Push to changed container, beside the same work done straight on the
//! Engine API and beside `docker-compose up -d`.

use std::process::Command;
use std::time::{Duration, Instant};

use harness::device::Device;
use harness::engine::{Engine, Kind};
use harness::net::{free_port, get_within};
use harness::process::run;
use serde_json::json;

use crate::stage::Stage;
use crate::table::Table;

const ROUNDS: usize = 7;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Waits for the page to say `text`; the time since `start` in seconds.
fn answered(port: u16, text: &str, start: Instant) -> f64 {
    loop {
        // A first packet that comes before the container's network is up is
        // repeated after a second: the next try is quicker.
        if get_within(port, "/index.html", Duration::from_millis(50)).is_some_and(|(_, body)| body == text) {
            return start.elapsed().as_secs_f64();
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{text:?} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn compose(port: u16, tag: usize) -> String {
    format!(
        "version: \"3\"\nservices:\n  web:\n    image: localhost/web:{tag}\n    command: [httpd, -f, -p, \"8080\", -h, /www]\n    stop_signal: SIGKILL\n    ports: [\"127.0.0.1:{port}:8080\"]\n  db:\n    image: localhost/web:0\n    command: [sleep, \"1000000\"]\n    stop_signal: SIGKILL\n  worker:\n    image: localhost/web:0\n    command: [sleep, \"1000000\"]\n    stop_signal: SIGKILL\n"
    )
}

pub(crate) fn measure(table: &mut Table) {
    let engine = Engine::start(Kind::Docker, &[]);
    for tag in 0..=ROUNDS {
        engine.image(&format!("localhost/web:{tag}"), &[("www/index.html", &format!("web {tag}\n"))]);
    }
    let agent = by_agent(&engine, table);
    let api = by_api(&engine);
    let (changed, unchanged) = by_compose(&engine);
    table.add(
        "MQTT notify → changed container answers",
        agent,
        "s",
        None,
        "median of 7, three services, one changed; from the moment that a connected client publishes",
    );
    table.add("the same stop, remove, create, start on the Engine API", api, "s", None, "median of 7, in the same run");
    table.add("agent ÷ Engine API", agent / api, "×", Some(1.15), "medians");
    table.add(
        "`docker-compose up -d`, one service changed",
        changed,
        "s",
        None,
        "median of 7, Debian's docker-compose",
    );
    table.add("`docker-compose up -d`, nothing changed", unchanged, "s", None, "median of 7");
}

/// From the notify to the answer, and a reconcile with nothing to do.
fn by_agent(engine: &Engine, table: &mut Table) -> f64 {
    let port = free_port();
    let files = [
        ("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop]\n"),
        ("apps/shop/app.yaml", "runtime: compose\nhealth: {timeout: 20s, soak: 100ms}\n"),
        ("apps/shop/compose.yaml", &compose(port, 0)),
    ];
    let socket = format!("[runtime.compose]\nsocket = \"{}\"\n", engine.address());
    let stage = Stage::new(&files, &socket);
    let mut notify = stage.broker.publisher("burgee/v1/retail/notify");
    let mut times = Vec::new();
    for tag in 1..=ROUNDS {
        stage.repo.write("apps/shop/compose.yaml", &compose(port, tag));
        let id = stage.push("next");
        // Hints within ten seconds are one.
        std::thread::sleep(Duration::from_secs(11));
        let start = Instant::now();
        notify.publish("{}");
        times.push(answered(port, &format!("web {tag}\n"), start));
        stage.device.wait_steady(&id, 60);
    }
    table.add(
        "no change, three containers: reconcile",
        unchanged(&stage.device),
        "ms",
        Some(20.0),
        "median of 7 `burgee-agent diff`, the command's own start subtracted",
    );
    let pid = stage.device.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    table.add("peak RSS, eight revisions of three containers", peak.expect("a figure") / 1024.0, "MiB", None, "VmHWM");
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    let empty = stage.push("empty");
    stage.device.sync();
    stage.device.wait_steady(&empty, 60);
    median(times)
}

/// A full compare without a difference, in milliseconds: `diff` observes and
/// plans every app, and finds nothing.
fn unchanged(device: &Device) -> f64 {
    let time = |args: &[&str]| {
        let start = Instant::now();
        let output = device.call(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        start.elapsed().as_secs_f64() * 1000.0
    };
    let whole = median((0..ROUNDS).map(|_| time(&["diff"])).collect());
    let start = median((0..ROUNDS).map(|_| time(&["status"])).collect());
    (whole - start).max(0.0)
}

fn by_api(engine: &Engine) -> f64 {
    let port = free_port();
    let create = |tag: usize| {
        let body = json!({
            "Image": format!("localhost/web:{tag}"),
            "Cmd": ["httpd", "-f", "-p", "8080", "-h", "/www"],
            "StopSignal": "SIGKILL",
            "ExposedPorts": {"8080/tcp": {}},
            "HostConfig": {"PortBindings": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": port.to_string()}]}, "NetworkMode": "bench"},
        });
        engine.request("POST", "/containers/create?name=bench", Some(&body));
        engine.request("POST", "/containers/bench/start", None);
    };
    engine.request("POST", "/networks/create", Some(&json!({"Name": "bench"})));
    create(0);
    answered(port, "web 0\n", Instant::now());
    let mut times = Vec::new();
    for tag in 1..=ROUNDS {
        let start = Instant::now();
        engine.request("POST", "/containers/bench/stop", None);
        engine.request("DELETE", "/containers/bench", None);
        create(tag);
        times.push(answered(port, &format!("web {tag}\n"), start));
    }
    engine.request("DELETE", "/containers/bench?force=true", None);
    engine.request("DELETE", "/networks/bench", None);
    median(times)
}

fn by_compose(engine: &Engine) -> (f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let port = free_port();
    let file = folder.path().join("docker-compose.yml");
    let up = |args: &[&str]| {
        run(Command::new("docker-compose")
            .args(["-p", "bench", "-f"])
            .arg(&file)
            .args(args)
            .env("DOCKER_HOST", engine.address()));
    };
    std::fs::write(&file, compose(port, 0)).expect("a file");
    up(&["up", "-d"]);
    let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
    for tag in 1..=ROUNDS {
        std::fs::write(&file, compose(port, tag)).expect("a file");
        let start = Instant::now();
        up(&["up", "-d"]);
        changed.push(answered(port, &format!("web {tag}\n"), start));
        let start = Instant::now();
        up(&["up", "-d"]);
        unchanged.push(start.elapsed().as_secs_f64());
    }
    up(&["down"]);
    (median(changed), median(unchanged))
}
