//! Size, memory, and what an idle device costs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use harness::bins::bin;
use harness::device::{Device, Setup};
use harness::forge::Forge;
use harness::repo::Repo;

use crate::stage::Stage;
use crate::table::Table;

/// A number out of a file of `/proc`, by its label; in the file's unit.
pub(crate) fn proc_figure(pid: u32, file: &str, label: &str) -> f64 {
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

/// The shipped programs.
pub(crate) fn sizes(table: &mut Table) {
    for (name, budget) in [("burgee-agent", Some(8.0)), ("burgee-hub", None), ("burgee", None)] {
        let size = std::fs::metadata(bin(name)).expect("the shipped program").len();
        table.add(
            &format!("{name}, binary"),
            size as f64 / 1e6,
            "MB",
            budget,
            "as it is shipped: static against musl, stripped",
        );
    }
}

pub(crate) fn measure(table: &mut Table) {
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

/// An idle device with a hub, over MQTT with TLS.
fn idle(table: &mut Table) {
    let mut files = vec![
        ("groups/all.yaml".to_owned(), "selector: {matchLabels: {role: test}}\napps: [web]\n".to_owned()),
        (
            "apps/web/app.yaml".to_owned(),
            "runtime: files\nfiles:\n  - {from: etc/, to: /etc/web/}\nhealth: {timeout: 5s, soak: 100ms}\n".to_owned(),
        ),
    ];
    files.extend((0..100).map(|file| (format!("apps/web/files/etc/{file}.conf"), format!("file {file}\n").repeat(60))));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let mut stage = Stage::new(&files, "");
    // Started anew: what a first fetch left in the heap is not idle's.
    stage.device.stop();
    stage.device.start();
    let connected = |status: &serde_json::Value| status["link"]["mqtt"] == "up" && status["phase"] == "steady";
    stage.device.wait("MQTT", 30, connected);
    std::thread::sleep(Duration::from_secs(20));

    let pid = stage.device.pid();
    let pss = proc_figure(pid, "smaps_rollup", "Pss:") / 1024.0;
    table.add(
        "idle PSS, MQTT over TLS connected, after a restart at 100 objects",
        pss,
        "MiB",
        Some(7.5),
        "smaps_rollup; Mosquitto on loopback",
    );
    let anonymous = proc_figure(pid, "smaps_rollup", "Pss_Anon:") / 1024.0;
    table.add("of which anonymous", anonymous, "MiB", None, "smaps_rollup");

    let before = stage.git.load(Ordering::Relaxed);
    stage.device.sync();
    std::thread::sleep(Duration::from_secs(3));
    let poll = stage.git.load(Ordering::Relaxed) - before;
    table.add("no-op poll", poll as f64, "bytes", Some(4096.0), "through a counting proxy, plain HTTP, no TLS");

    let sent = stage.mqtt.load(Ordering::Relaxed);
    let (written, busy) = (proc_figure(pid, "io", "write_bytes:"), cpu(pid));
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
    let traffic = (stage.mqtt.load(Ordering::Relaxed) - sent) as f64 * 60.0 * per_minute / 1000.0;
    table.add(
        "idle MQTT traffic, scaled to an hour",
        traffic,
        "KB/h",
        Some(12.0),
        "bytes of the TLS stream both ways, four minutes scaled; TCP headers not counted",
    );
}
