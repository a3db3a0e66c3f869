//! Push to changed container, beside the same work done straight on the
//! Engine API and beside `docker-compose up -d`.

use std::process::Command;
use std::time::{Duration, Instant};

use harness::device::{Device, Setup};
use harness::engine::{Engine, Kind};
use harness::forge::Forge;
use harness::net::{free_port, get};
use harness::process::run;
use harness::repo::Repo;
use serde_json::json;

use crate::table::Table;

const ROUNDS: usize = 7;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Waits for the page to say `text`; the time since `start` in seconds.
fn answered(port: u16, text: &str, start: Instant) -> f64 {
    loop {
        if get(port, "/index.html").is_some_and(|(_, body)| body == text) {
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
        "sync → changed container answers",
        agent,
        "s",
        None,
        "median of 7, three services, one changed; agent on loopback HTTP",
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

fn by_agent(engine: &Engine, table: &mut Table) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let forge = Forge::start(folder.path());
    let repo = Repo::trusted(folder.path());
    let port = free_port();
    repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop]\n");
    repo.write("apps/shop/app.yaml", "runtime: compose\nhealth: {timeout: 20s, soak: 100ms}\n");
    repo.write("apps/shop/compose.yaml", &compose(port, 0));
    let first = repo.commit("first");
    repo.push(&forge.url(), true);
    let setup = Setup::new("store-1", &forge.url(), &repo.signer.line())
        .with(&format!("[runtime.compose]\nsocket = \"{}\"\n", engine.address()));
    let mut device = Device::new(folder.path(), &setup);
    device.start();
    device.wait_steady(&first, 60);
    let mut times = Vec::new();
    for tag in 1..=ROUNDS {
        repo.write("apps/shop/compose.yaml", &compose(port, tag));
        let id = repo.commit("next");
        repo.push(&forge.url(), true);
        let start = Instant::now();
        device.sync();
        times.push(answered(port, &format!("web {tag}\n"), start));
        device.wait_steady(&id, 60);
    }
    let pid = device.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent runs");
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    table.add("peak RSS, eight revisions of three containers", peak.expect("a figure") / 1024.0, "MiB", None, "VmHWM");
    repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    let empty = repo.commit("empty");
    repo.push(&forge.url(), true);
    device.sync();
    device.wait_steady(&empty, 60);
    median(times)
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
