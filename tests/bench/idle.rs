//! Size, memory, and what an idle device costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use harness::bins::bin;
use harness::device::{Device, Setup};
use harness::forge::Forge;
use harness::hub::Hub;
use harness::process::run;
use harness::repo::Repo;

use crate::table::Table;

/// A number out of a file of `/proc`, by its label; in the file's unit.
fn proc_figure(pid: u32, file: &str, label: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).expect("the process runs");
    let line = text.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label} in {file}"));
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// Processor time of the process and the children it waited for, in seconds.
fn cpu(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = text.rsplit(')').next().expect("fields").split_whitespace().collect();
    fields[11..15].iter().filter_map(|word| word.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Counts what passes through to `port`, in both directions.
fn counting_proxy(port: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (here, count) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(other) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (mut from, mut to) in [(stream.try_clone(), other.try_clone()), (Ok(other), Ok(stream))]
                .map(|(a, b)| (a.expect("a"), b.expect("b")))
            {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(read) = from.read(&mut buffer) {
                        if read == 0 || to.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                        counter.fetch_add(read as u64, Ordering::Relaxed);
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (here, count)
}

pub(crate) fn measure(table: &mut Table) {
    for (name, budget) in [("burgee-agent", Some(8.0)), ("burgee-hub", None), ("burgee", None)] {
        let size = std::fs::metadata(bin(name)).expect("the shipped program").len();
        table.add(
            &format!("{name}, binary"),
            size as f64 / 1e6,
            "MB",
            budget,
            "profile dist, glibc, stripped; this machine's target",
        );
    }
    first_fetch(table);
    idle(table);
}

/// Peak memory of a first fetch of 3,000 files and their rendering.
fn first_fetch(table: &mut Table) {
    let folder = tempfile::tempdir().expect("a folder");
    let forge = Forge::start(folder.path());
    let repo = Repo::trusted(folder.path());
    repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web]\n");
    repo.write(
        "apps/web/app.yaml",
        "runtime: files\nfiles:\n  - {from: etc/, to: /etc/web/}\nhealth: {timeout: 5s, soak: 100ms}\n",
    );
    for file in 0..3000 {
        let app = if file < 100 { "web" } else { "other" };
        repo.write(&format!("apps/{app}/files/etc/{file}.conf"), &format!("file {file}\n").repeat(60));
    }
    repo.write("apps/other/app.yaml", "runtime: files\nfiles:\n  - {from: etc/, to: /etc/other/}\n");
    let head = repo.commit("3000 files");
    repo.push(&forge.url(), true);
    let mut device = Device::new(folder.path(), &Setup::new("store-1", &forge.url(), &repo.signer.line()));
    device.start();
    device.wait_steady(&head, 120);
    let peak = proc_figure(device.pid(), "status", "VmHWM:") / 1024.0;
    table.add(
        "peak RSS, first fetch of 3,000 files, 100 of them rendered and applied",
        peak,
        "MiB",
        Some(16.0),
        "VmHWM after steady, plain HTTP",
    );
}

/// An idle device with a hub, over MQTT.
fn idle(table: &mut Table) {
    let folder = tempfile::tempdir().expect("a folder");
    let hub = Hub::start("");
    let forge = Forge::start(folder.path());
    let repo = Repo::trusted(folder.path());
    repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
    repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web]\n");
    repo.write(
        "apps/web/app.yaml",
        "runtime: files\nfiles:\n  - {from: etc/, to: /etc/web/}\nhealth: {timeout: 5s, soak: 100ms}\n",
    );
    for file in 0..100 {
        repo.write(&format!("apps/web/files/etc/{file}.conf"), &format!("file {file}\n").repeat(60));
    }
    let head = repo.commit("100 files");
    repo.push(&forge.url(), true);
    let (git, git_bytes) = counting_proxy(forge.port);
    let (mqtt, mqtt_bytes) = counting_proxy(hub.mqtt_port());
    let setup = Setup::new("store-1", &format!("http://127.0.0.1:{git}/fleet.git"), &repo.signer.line())
        .with(&format!("[hub]\nurl = \"{}\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{mqtt}\"\n", hub.url()));
    let mut device = Device::new(folder.path(), &setup);
    let trust = device.folder.join("allowed_signers").display().to_string();
    let token = hub.token(&["--uses", "1"]);
    run(&mut device.command(&["enroll", "--hub", &hub.url(), "--token", &token, "--trust", &trust]));
    device.start();
    device.wait_steady(&head, 60);
    device.wait("MQTT", 30, |status| status["link"]["mqtt"] == "up");
    // Started anew: what a first fetch left in the heap is not idle's.
    device.stop();
    device.start();
    device.wait("MQTT", 30, |status| status["link"]["mqtt"] == "up" && status["phase"] == "steady");
    std::thread::sleep(Duration::from_secs(20));

    let pid = device.pid();
    let pss = proc_figure(pid, "smaps_rollup", "Pss:") / 1024.0;
    table.add(
        "idle PSS, MQTT connected, after a restart at 100 objects",
        pss,
        "MiB",
        Some(7.5),
        "smaps_rollup; MQTT without TLS on loopback",
    );
    let anonymous = proc_figure(pid, "smaps_rollup", "Pss_Anon:") / 1024.0;
    table.add("of which anonymous", anonymous, "MiB", None, "smaps_rollup");

    let before = git_bytes.load(Ordering::Relaxed);
    device.sync();
    std::thread::sleep(Duration::from_secs(3));
    let poll = git_bytes.load(Ordering::Relaxed) - before;
    table.add("no-op poll", poll as f64, "bytes", Some(4096.0), "through a counting proxy, plain HTTP, no TLS");

    let (written, busy, sent) = (proc_figure(pid, "io", "write_bytes:"), cpu(pid), mqtt_bytes.load(Ordering::Relaxed));
    let minutes = 4;
    std::thread::sleep(Duration::from_secs(60 * minutes));
    let per_minute = 1.0 / minutes as f64;
    let how = "over four minutes, steady";
    table.add(
        "bytes written to disk while idle",
        proc_figure(pid, "io", "write_bytes:") - written,
        "bytes",
        Some(0.0),
        how,
    );
    table.add("idle CPU", (cpu(pid) - busy) * per_minute, "s/min", Some(0.05), how);
    let traffic = (mqtt_bytes.load(Ordering::Relaxed) - sent) as f64 * 60.0 * per_minute / 1000.0;
    table.add(
        "idle MQTT payload, scaled to an hour",
        traffic,
        "KB/h",
        Some(12.0),
        "payload of the stream, four minutes scaled; no TLS, no TCP headers",
    );
}
