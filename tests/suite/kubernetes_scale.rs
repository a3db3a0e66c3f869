//! What the Kubernetes runtime costs the API server and the device: requests,
//! counted by a server in between, and memory, where there is much to apply.

use std::time::{Duration, Instant};

use harness::between::{Between, Fault};
use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map, deployment, widget_definition};
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// Those of a method whose path has this in it.
fn count(asked: &[String], method: &str, part: &str) -> usize {
    asked.iter().filter(|line| line.starts_with(&format!("{method} ")) && line.contains(part)).count()
}

#[test]
fn requests_are_as_many_as_there_is_to_do() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage =
        Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space, &[("shop", ""), ("till", "")], "");
    let objects = |app: &str, value: &str| -> Vec<Value> {
        (0..60)
            .map(|n| match n % 2 {
                0 => config_map(&format!("{app}-{n}"), value),
                _ => json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": format!("{app}-{n}")}}),
            })
            .collect()
    };
    for app in ["shop", "till"] {
        stage.manifest(app, "all.yaml", &objects(app, "1"));
    }
    stage.pushed("first");

    // The first time: each object is tried and applied once; kinds are listed, not objects asked for.
    let first = between.asked();
    assert_eq!(count(&first, "PATCH", "dryRun=All"), 120, "{first:#?}");
    assert_eq!(count(&first, "PATCH", "fieldManager"), 240, "{first:#?}");
    assert!(
        count(&first, "GET", "") <= 24,
        "{:#?}",
        first.iter().filter(|line| line.starts_with("GET")).collect::<Vec<_>>()
    );

    // Nothing changed, watches warm: nothing is asked.
    std::thread::sleep(Duration::from_secs(2));
    let before = between.asked().len();
    for _ in 0..3 {
        assert!(stage.device.call(&["sync"]).status.success());
        assert!(stage.device.call(&["diff"]).status.success());
    }
    let since = between.asked().split_off(before);
    assert_eq!(since, Vec::<String>::new(), "a reconcile with nothing to do asks nothing");

    // One object changes: it is tried and applied.
    let mut changed = objects("shop", "1");
    changed[0] = config_map("shop-0", "2");
    stage.manifest("shop", "all.yaml", &changed);
    stage.pushed("one changes");
    let since = between.asked().split_off(before);
    assert_eq!((since.len(), count(&since, "PATCH", "/configmaps/shop-0")), (2, 2), "{since:#?}");

    // An agent that starts anew lists each kind, and for each app what it has
    // of it; nothing is tried, objects are not asked for one by one.
    stage.device.kill();
    let before = between.asked().len();
    stage.start();
    stage.device.wait("it has compared", 60, |status| {
        status["apps"].as_array().is_some_and(|apps| apps.len() == 2 && apps.iter().all(|app| app["sync"] == "synced"))
    });
    // The former agent's watches end only now.
    let mut since = between.asked().split_off(before);
    since.retain(|line| !line.contains("watch=true"));
    assert_eq!(count(&since, "PATCH", ""), 0, "{since:#?}");
    let lists = since.iter().filter(|line| line.contains("labelSelector")).count();
    assert!(lists <= 2 + 2 * 2 && since.len() <= lists + 2, "{since:#?}");

    // Watches that broke off: each kind is listed at most once more, objects never.
    let before = between.asked().len();
    between.set(Fault::None);
    std::thread::sleep(Duration::from_secs(8));
    assert!(stage.device.call(&["diff"]).status.success());
    let since = between.asked().split_off(before);
    let asked: Vec<&String> = since.iter().filter(|line| !line.contains("watch=true")).collect();
    assert!(asked.len() <= 2, "{asked:#?}");
    // And they are back: drift is seen.
    cluster.kubectl(&["-n", &stage.space, "delete", "configmap", "till-0"]);
    until("it is repaired", LONG, || {
        (cluster.get(&stage.space, "configmap", "till-0")["data"]["value"] == "1").then_some(())
    });
}

#[test]
fn a_status_that_never_rests_is_looked_at_now_and_then() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage = Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space, &[("shop", "")], "");
    let space = stage.space.clone();
    stage.manifest("shop", "all.yaml", &[deployment("web", 0), config_map("map", "1")]);
    stage.pushed("first");
    std::thread::sleep(Duration::from_secs(2));
    let before = between.asked().len();
    let began = Instant::now();
    for beat in 0..12 {
        let patch = format!(
            "{{\"status\":{{\"conditions\":[{{\"type\":\"Beat\",\"status\":\"True\",\"reason\":\"N{beat}\"}}]}}}}"
        );
        cluster.kubectl(&[
            "-n",
            &space,
            "patch",
            "deployment",
            "web",
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
        std::thread::sleep(Duration::from_millis(400));
    }
    let since = between.asked().split_off(before);
    // A look lists the Deployments, their ReplicaSets and their Pods. Ten
    // seconds or more lie between two; where the first falls is chance.
    let looks = usize::try_from(began.elapsed().as_secs() / 10).expect("a few") + 1;
    assert!(count(&since, "GET", "/deployments?") <= looks, "a look now and then: {since:#?}");
    assert!(since.len() <= 3 * looks && count(&since, "PATCH", "") == 0, "and no compare: {since:#?}");
    // What does matter is seen at once all the same.
    cluster.kubectl(&["-n", &space, "scale", "deployment", "web", "--replicas=2"]);
    until("drift is repaired", Duration::from_secs(8), || {
        (cluster.get(&space, "deployment", "web")["spec"]["replicas"] == 0).then_some(())
    });
}

#[test]
fn the_kinds_of_an_app_that_left_are_not_watched_for_ever() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage =
        Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space, &[("shop", ""), ("things", "")], "");
    // A kind that nobody else has.
    let group = format!("{}.example.com", stage.space);
    cluster.apply(&widget_definition(&group).to_string());
    until("it is served", LONG, || cluster.try_kubectl(&["get", &format!("widgets.{group}")]).ok());
    let widget = json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}});
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    stage.manifest("things", "x.yaml", &[widget]);
    stage.pushed("both");
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop]\n");
    stage.pushed("one leaves");
    // A revision later nothing leads back to it any more.
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.pushed("another");
    stage.device.sync();
    std::thread::sleep(Duration::from_secs(2));
    // Watches that break off are begun anew; a request is told of when it ends.
    between.set(Fault::None);
    std::thread::sleep(Duration::from_secs(5));
    let before = between.asked().len();
    between.set(Fault::None);
    let since = between.asked().split_off(before);
    assert!(count(&since, "GET", "/configmaps?") > 0, "what is still there is watched: {since:#?}");
    assert_eq!(count(&since, "GET", "/widgets"), 0, "{since:#?}");
}

/// The largest that a process was, in MiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a figure");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

#[test]
fn ten_megabytes_of_manifests() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "prune: {maxDelete: 100%}\n")]);
    let large = |n: usize, round: &str| {
        let text = format!("{round} {n} some text of a configuration\n").repeat(8000);
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("large-{n}")}, "data": {"text": text}})
    };
    stage.manifest("shop", "small.yaml", &[config_map("small", "1")]);
    stage.pushed("small");
    let small = peak(stage.device.pid());
    for round in ["a", "b"] {
        for n in 0..40 {
            stage.manifest("shop", &format!("{n}.yaml"), &[large(n, round)]);
        }
        let head = stage.push(&format!("ten megabytes, {round}"));
        stage.device.wait_steady(&head, 120);
    }
    let found = cluster.get(&stage.space, "configmap", "large-39");
    assert!(found["data"]["text"].as_str().is_some_and(|text| text.starts_with("b 39") && text.len() > 250_000));
    let full = peak(stage.device.pid());
    println!("peak RSS: {small} MiB with one object, {full} MiB with 10 MiB of them");
    assert!(full < small + 96, "{small} MiB, then {full} MiB");

    // One file is too large: the limit is named, nothing is changed.
    let good = stage.device.status().expect("a status")["revision"].as_str().expect("steady").to_owned();
    let all: Vec<Value> = (0..5).map(|n| large(n, "c")).collect();
    stage.manifest("shop", "0.yaml", &all);
    let bad = stage.push("a file of more than a megabyte");
    let status = stage.device.wait("it is refused", 60, |status| status["conditions"].to_string().contains("blob_mib"));
    assert!(status["conditions"].to_string().contains("apps/shop/kubernetes/0.yaml"), "{status:#}");
    assert_eq!(status["revision"], *good, "{bad} was not taken");
    // And the server's own limit, in its words.
    std::fs::remove_file(stage.repo.path.join("apps/shop/kubernetes/0.yaml")).expect("a file");
    stage.manifest("shop", "1.yaml", &[json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large-1", "annotations": {"note": "x".repeat(300_000)}}})]);
    let bad = stage.push("an annotation that is too long");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("may not be more than 262144 bytes"), "{status:#}");
    assert_eq!(cluster.get(&stage.space, "configmap", "large-1")["metadata"]["annotations"]["note"], Value::Null);
}
