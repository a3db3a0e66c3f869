//! A thousand objects in twenty apps on a real API server, beside `kubectl` on
//! the same files.

use std::time::{Duration, Instant};

use harness::cluster::Cluster;
use harness::device::{Device, Setup};
use harness::forge::Forge;
use harness::process::output;
use harness::repo::Repo;

use crate::table::Table;

const APPS: usize = 20;
const OBJECTS: usize = 50;

/// One app's manifests; `value` in the first of them.
fn manifests(app: usize, namespace: &str, value: &str) -> String {
    let object = |n: usize| {
        let value = if n == 0 { value } else { "1" };
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: app-{app}-{n}, namespace: {namespace}}}\ndata: {{value: \"{value}\", text: \"{}\"}}\n",
            "some text of a configuration ".repeat(8)
        )
    };
    (0..OBJECTS).map(object).collect::<Vec<_>>().join("---\n")
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

pub(crate) fn measure(table: &mut Table) {
    let cluster = Cluster::start();
    let by_kubectl = by_kubectl(&cluster);
    let by_agent = by_agent(&cluster, table);
    let how = "20 apps of 50 ConfigMaps, one run, a fresh API server; kubectl on the same files";
    for (what, ours, theirs) in
        [("first apply", by_agent.0, by_kubectl.0), ("apply with one change", by_agent.2, by_kubectl.2)]
    {
        table.add(&format!("1,000 objects, {what}: the agent, from `sync` to steady"), ours, "s", None, how);
        table.add(&format!("1,000 objects, {what}: kubectl apply --server-side"), theirs, "s", None, how);
    }
    table.add("1,000 objects, nothing changed: kubectl apply --server-side", by_kubectl.1, "s", None, how);
    table.add("1,000 objects, nothing changed: kubectl diff", by_kubectl.3, "s", None, how);
    table.add("1,000 objects, nothing changed: the agent's plan, watches warm", by_agent.1, "s", None, how);
    table.add("plan ÷ kubectl diff", by_agent.1 / by_kubectl.3, "×", Some(0.5), "the command's own start subtracted");
}

/// First, unchanged, one change, diff.
fn by_kubectl(cluster: &Cluster) -> (f64, f64, f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let namespace = cluster.namespace();
    let write = |value: &str| {
        for app in 0..APPS {
            let text = manifests(app, &namespace, if app == 0 { value } else { "1" });
            std::fs::write(folder.path().join(format!("{app}.yaml")), text).expect("a manifest");
        }
    };
    let files = folder.path().display().to_string();
    let apply = || drop(cluster.kubectl(&["apply", "--server-side", "-f", &files]));
    write("1");
    let first = seconds(apply);
    let unchanged = seconds(apply);
    let diff = seconds(|| drop(cluster.kubectl(&["diff", "--server-side", "-f", &files])));
    write("2");
    let changed = seconds(apply);
    cluster.kubectl(&["delete", "namespace", &namespace, "--wait=false"]);
    (first, unchanged, changed, diff)
}

/// First, unchanged, one change.
fn by_agent(cluster: &Cluster, table: &mut Table) -> (f64, f64, f64) {
    let folder = tempfile::tempdir().expect("a folder");
    let namespace = cluster.namespace();
    let forge = Forge::start(folder.path());
    let repo = Repo::trusted(folder.path());
    let names: Vec<String> = (0..APPS).map(|app| format!("app-{app}")).collect();
    repo.write(
        "groups/all.yaml",
        &format!("selector: {{matchLabels: {{role: test}}}}\napps: [{}]\n", names.join(", ")),
    );
    for (app, name) in names.iter().enumerate() {
        repo.write(&format!("apps/{name}/app.yaml"), "runtime: kubernetes\nhealth: {timeout: 60s, soak: 0s}\n");
        repo.write(&format!("apps/{name}/kubernetes/all.yaml"), &manifests(app, &namespace, "1"));
    }
    let first_head = repo.commit("first");
    repo.push(&forge.url(), true);
    let setup = Setup::new("store-1", &forge.url(), &repo.signer.line())
        .with(&format!("[runtime.kubernetes]\nkubeconfig = \"{}\"\n", cluster.kubeconfig().display()));
    let mut device = Device::new(folder.path(), &setup);
    device.start();
    let first = seconds(|| drop(device.wait_steady(&first_head, 300)));
    std::thread::sleep(Duration::from_secs(3));
    let diff = |device: &Device| {
        let run = |args: &[&str]| {
            seconds(|| {
                let out = output(&mut device.command(args));
                assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
            })
        };
        let mut whole: Vec<f64> = (0..7).map(|_| run(&["diff"])).collect();
        let mut start: Vec<f64> = (0..7).map(|_| run(&["status"])).collect();
        whole.sort_by(f64::total_cmp);
        start.sort_by(f64::total_cmp);
        (whole[3] - start[3]).max(0.0)
    };
    let unchanged = diff(&device);
    repo.write("apps/app-0/kubernetes/all.yaml", &manifests(0, &namespace, "2"));
    let next = repo.commit("next");
    repo.push(&forge.url(), true);
    let changed = seconds(|| {
        device.sync();
        device.wait_steady(&next, 120);
    });
    let status = std::fs::read_to_string(format!("/proc/{}/status", device.pid())).expect("the agent runs");
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    table.add("peak RSS at 1,000 Kubernetes objects", peak.expect("a figure") / 1024.0, "MiB", Some(24.0), "VmHWM");
    (first, unchanged, changed)
}
