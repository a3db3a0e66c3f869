//! The device loop on a real Kubernetes API server: a day of it, whose objects
//! are whose, what the server refuses, and what faults leave behind.

use std::time::Duration;

use harness::between::{Between, Fault};
use harness::cluster::Cluster;
use harness::engine::{Engine, Kind};
use harness::kube_stage::{Stage, config_map, deployment, widget_definition};
use harness::net::free_port;
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_days_story() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    let get = |kind: &str, name: &str| cluster.get(&space, kind, name);

    // Apply: objects in their order, marked as ours.
    stage.manifest("shop", "all.yaml", &[config_map("settings", "1"), deployment("web", 0)]);
    stage.pushed("first");
    let map = get("configmap", "settings");
    assert_eq!(map["data"]["value"], "1");
    assert_eq!(map["metadata"]["labels"]["app.kubernetes.io/managed-by"], "burgee");
    assert_eq!(map["metadata"]["labels"]["burgee.dev/app"], "shop");
    assert_eq!(map["metadata"]["labels"]["burgee.dev/fleet"], "retail");
    let uid = get("deployment", "web")["metadata"]["uid"].clone();

    // Change: what differs is written, what doesn't is not.
    let version = get("deployment", "web")["metadata"]["resourceVersion"].clone();
    stage.manifest("shop", "all.yaml", &[config_map("settings", "2"), deployment("web", 0)]);
    stage.pushed("second");
    assert_eq!(get("configmap", "settings")["data"]["value"], "2");
    assert_eq!(get("deployment", "web")["metadata"]["resourceVersion"], version, "it was not touched");

    // Drift by kubectl is repaired: a field, labels, an object.
    cluster.kubectl(&["-n", &space, "patch", "configmap", "settings", "-p", r#"{"data":{"value":"drifted"}}"#]);
    until("the field is repaired", LONG, || (get("configmap", "settings")["data"]["value"] == "2").then_some(()));
    cluster.kubectl(&["-n", &space, "scale", "deployment", "web", "--replicas=3"]);
    until("the replicas are repaired", LONG, || (get("deployment", "web")["spec"]["replicas"] == 0).then_some(()));
    cluster.kubectl(&["-n", &space, "delete", "configmap", "settings"]);
    until("the object is back", LONG, || (get("configmap", "settings")["data"]["value"] == "2").then_some(()));
    // What nobody asked for and is not ours to judge stays.
    cluster.kubectl(&["-n", &space, "label", "configmap", "settings", "by=hand"]);
    let _ = stage.device.call(&["sync"]);
    assert_eq!(get("configmap", "settings")["metadata"]["labels"]["by"], "hand");
    assert_eq!(get("deployment", "web")["metadata"]["uid"], uid, "repaired, not made anew");

    // Prune: only what left, only ours.
    cluster.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": space}})
            .to_string(),
    );
    stage.manifest("shop", "all.yaml", &[config_map("settings", "2"), config_map("extra", "x"), deployment("web", 0)]);
    stage.pushed("third");
    stage.manifest("shop", "all.yaml", &[config_map("settings", "2"), deployment("web", 0)]);
    let good = stage.pushed("fourth");
    assert_eq!(get("configmap", "extra"), Value::Null);
    assert_eq!(get("configmap", "foreign")["metadata"]["name"], "foreign");

    // A failed rollout goes back by itself: nothing runs pods here, so one
    // replica is never available.
    stage.manifest(
        "shop",
        "all.yaml",
        &[config_map("settings", "bad"), config_map("only-bad", "x"), deployment("web", 1)],
    );
    let bad = stage.push("bad");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    let said = status["conditions"].to_string();
    assert!(said.contains("Deployment.apps") && said.contains("replicas"), "{said}");
    assert_eq!(get("configmap", "settings")["data"]["value"], "2");
    assert_eq!(get("configmap", "only-bad"), Value::Null, "what only the failed revision had is gone");
    assert_eq!(get("deployment", "web")["spec"]["replicas"], 0);

    // Offline: the Git host is gone, the agent starts anew, holds and repairs.
    stage.forge.down();
    stage.device.kill();
    cluster.kubectl(&["-n", &space, "delete", "configmap", "settings"]);
    stage.start();
    until("what was deleted meanwhile is back", LONG, || {
        (get("configmap", "settings")["data"]["value"] == "2").then_some(())
    });
    stage.forge.up();

    // The app leaves: its objects go, what is foreign stays.
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    stage.pushed("leaves");
    assert_eq!(get("configmap", "settings"), Value::Null);
    assert_eq!(get("deployment", "web"), Value::Null);
    assert_eq!(get("configmap", "foreign")["metadata"]["name"], "foreign");
}

#[test]
fn a_definition_and_what_it_defines_come_in_one_revision() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("defs", ""), ("things", "dependsOn: [defs]\n")]);
    let group = format!("{}.example.com", stage.space);
    stage.manifest("defs", "crd.yaml", &[widget_definition(&group)]);
    let widget =
        json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}});
    stage.manifest("things", "w.yaml", &[widget]);
    stage.pushed("both");
    let kind = format!("widgets.{group}");
    assert_eq!(cluster.get(&stage.space, &kind, "w")["spec"]["size"], 3);
    // An object of a definition is drift like any other.
    cluster.kubectl(&["-n", &stage.space, "patch", &kind, "w", "--type=merge", "-p", r#"{"spec":{"size":9}}"#]);
    until("it is repaired", LONG, || (cluster.get(&stage.space, &kind, "w")["spec"]["size"] == 3).then_some(()));
    // Somebody takes the definition away, and all objects with it: both come back.
    let name = format!("widgets.{group}");
    cluster.kubectl(&["delete", "customresourcedefinition", &name]);
    until("the definition and its object are back", Duration::from_secs(120), || {
        let found = cluster.try_kubectl(&["-n", &stage.space, "get", &kind, "w", "-o", "jsonpath={.spec.size}"]);
        (found.as_deref() == Ok("3")).then_some(())
    });
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    stage.pushed("leaves");
    until("the definition goes once steady", LONG, || {
        (cluster.get("", "customresourcedefinition", &name) == Value::Null).then_some(())
    });
}

#[test]
fn an_object_is_handed_over_from_app_to_app() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("a", ""), ("b", "")]);
    stage.manifest("a", "x.yaml", &[config_map("kept", "1"), config_map("moved", "1")]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1")]);
    stage.pushed("first");
    let uid = cluster.get(&stage.space, "configmap", "moved")["metadata"]["uid"].clone();
    stage.manifest("a", "x.yaml", &[config_map("kept", "1")]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1"), config_map("moved", "1")]);
    stage.pushed("moved");
    let moved = cluster.get(&stage.space, "configmap", "moved");
    assert_eq!(moved["metadata"]["uid"], uid, "handed over, not made anew");
    assert_eq!(moved["metadata"]["labels"]["burgee.dev/app"], "b");
    // And it is the new app's to prune.
    stage.manifest("b", "x.yaml", &[config_map("other", "1")]);
    stage.pushed("gone");
    assert_eq!(cluster.get(&stage.space, "configmap", "moved"), Value::Null);
}

#[test]
fn what_is_not_ours_is_named_and_left_alone_unless_it_may_be_taken_over() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("ours", "1")]);
    let good = stage.pushed("first");
    let foreign = |labels: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": space, "labels": labels}, "data": {"value": "theirs"}}).to_string()
    };
    cluster.apply(&foreign(json!({"app.kubernetes.io/managed-by": "Helm"})));
    stage.manifest("shop", "x.yaml", &[config_map("ours", "2"), config_map("theirs", "burgee")]);
    let refused = stage.push("wants theirs");
    let status = stage.device.wait_stalled(&good, &refused, 60);
    let said = status["conditions"].to_string();
    assert!(said.contains("ConfigMap") && said.contains("managed by Helm"), "{said}");
    assert!(said.contains("hint: `adopt: true` in app.yaml takes it over") && !said.contains("remove"), "{said}");
    assert_eq!(cluster.get(&space, "configmap", "ours")["data"]["value"], "1", "nothing was changed");
    assert_eq!(cluster.get(&space, "configmap", "theirs")["data"]["value"], "theirs");
    // `adopt` takes what nobody manages, and nothing else.
    stage.app("shop", "adopt: true\n");
    let refused = stage.push("adopt");
    stage.device.wait_stalled(&good, &refused, 60);
    cluster.kubectl(&["-n", &space, "label", "configmap", "theirs", "app.kubernetes.io/managed-by-"]);
    let _ = stage.device.call(&["retry"]);
    stage.device.wait_steady(&refused, 60);
    assert_eq!(cluster.get(&space, "configmap", "theirs")["data"]["value"], "burgee");
}

#[test]
fn what_the_server_refuses_changes_nothing_and_is_said_in_its_words() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    let job = |image: &str| json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"suspend": true, "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": image}]}}}});
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), job("a:1")]);
    stage.app("shop", "health: {timeout: 5s, soak: 100ms}\n");
    let first = stage.push("first");
    // A suspended job is nobody's success; the revision has nothing to go back to.
    let _ = first;
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let good = stage.pushed("without the job");

    let refusals: [(&str, Vec<Value>, &str); 5] = [
        (
            "a kind that the server does not know",
            vec![json!({"apiVersion": "no.example.com/v1", "kind": "Nothing", "metadata": {"name": "x"}})],
            "has no Nothing in no.example.com/v1",
        ),
        (
            "a version that is gone",
            vec![json!({"apiVersion": "extensions/v1beta1", "kind": "Ingress", "metadata": {"name": "x"}})],
            "has no Ingress in extensions/v1beta1",
        ),
        (
            "an invalid object",
            vec![
                json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 99999}]}}),
            ],
            "99999",
        ),
        (
            "an unknown field",
            vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "dataa": {}})],
            "dataa",
        ),
        (
            "a namespace that nobody brings",
            vec![json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "shpo"}})],
            "there is no namespace shpo\\nhint: put `createNamespace: true`",
        ),
    ];
    for (what, objects, words) in refusals {
        let mut all = vec![config_map("map", "changed")];
        all.extend(objects);
        stage.manifest("shop", "x.yaml", &all);
        let bad = stage.push(what);
        let status = stage.device.wait_stalled(&good, &bad, 60);
        let said = status["conditions"].to_string();
        assert!(said.contains(words), "{what}: {said}");
        assert_eq!(cluster.get(&space, "configmap", "map")["data"]["value"], "1", "{what}: nothing was changed");
    }
    // Immutable: refused, unless its kind may be made anew.
    let immutable = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "fixed"}, "immutable": true, "data": {"value": value}});
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), immutable("1")]);
    let good = stage.pushed("immutable");
    let uid = cluster.get(&space, "configmap", "fixed")["metadata"]["uid"].clone();
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), immutable("2")]);
    let bad = stage.push("immutable changes");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("immutable"), "{status}");
    stage.app("shop", "health: {timeout: 5s, soak: 100ms}\nreplace: [ConfigMap]\n");
    stage.pushed("may be replaced");
    let fixed = cluster.get(&space, "configmap", "fixed");
    assert_eq!(fixed["data"]["value"], "2");
    assert_ne!(fixed["metadata"]["uid"], uid);
    assert!(stage.device.is_alive());
}

#[test]
fn secrets_show_nowhere() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"password": value}});
    stage.manifest("shop", "s.yaml", &[secret("first-hush")]);
    stage.pushed("first");
    cluster.kubectl(&["-n", &stage.space, "patch", "secret", "s", "-p", r#"{"stringData":{"password":"drift-hush"}}"#]);
    until("drift is repaired", LONG, || stage.device.log().contains("drift repaired").then_some(()));
    stage.manifest("shop", "s.yaml", &[secret("second-hush")]);
    let good = stage.pushed("second");
    // One that the server refuses: it quotes what it does not like.
    let refused = |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
    let mut shown = String::new();
    for data in [json!({"password": "third-hush"}), json!({"password": {"hush": "hush"}})] {
        stage.manifest("shop", "s.yaml", &[refused(data)]);
        let bad = stage.push("refused");
        stage.device.wait_stalled(&good, &bad, 60);
        for args in [&["status", "-o", "json"][..], &["status"], &["diff"], &["history"]] {
            shown.push_str(&String::from_utf8_lossy(&stage.device.call(args).stdout));
        }
    }
    shown.push_str(&stage.device.log());
    for value in ["hush", "Zmlyc3QtaHVzaA", "ZHJpZnQtaHVzaA", "c2Vjb25kLWh1c2g"] {
        assert!(!shown.contains(value), "{value} is shown");
    }
}

#[test]
fn drift_that_may_be_is_left_and_fights_are_named() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "drift: {ignore: [/spec/replicas]}\n")]);
    stage.manifest("shop", "x.yaml", &[deployment("web", 0), config_map("map", "1")]);
    stage.pushed("first");
    cluster.kubectl(&["-n", &stage.space, "scale", "deployment", "web", "--replicas=2"]);
    // A change beside it is repaired, the replicas are not.
    cluster.kubectl(&["-n", &stage.space, "patch", "deployment", "web", "-p", r#"{"spec":{"minReadySeconds":7}}"#]);
    stage.manifest("shop", "x.yaml", &[deployment("web", 0), config_map("map", "2")]);
    stage.push("second");
    until("the change comes through", LONG, || {
        (cluster.get(&stage.space, "configmap", "map")["data"]["value"] == "2").then_some(())
    });
    assert_eq!(cluster.get(&stage.space, "deployment", "web")["spec"]["replicas"], 2);
    // Somebody who keeps changing a field is named with it, and burgee backs off.
    let status = until("the fight is told", Duration::from_secs(120), || {
        let patch = r#"{"data":{"value":"mine"}}"#;
        cluster.kubectl(&["-n", &stage.space, "patch", "configmap", "map", "--field-manager=stubborn", "-p", patch]);
        std::thread::sleep(Duration::from_millis(700));
        let status = stage.device.status()?;
        status["conditions"].to_string().contains("DriftFighting").then_some(status)
    });
    let said = status["conditions"].to_string();
    assert!(said.contains("data.value") && said.contains("stubborn"), "{said}");
}

#[test]
fn compose_and_kubernetes_move_and_go_back_together() {
    let cluster = Cluster::shared();
    let engine = Engine::start(Kind::Docker, &[]);
    for tag in ["1", "2"] {
        engine.image(&format!("localhost/web:{tag}"), &[("www/index.html", &format!("web {tag}\n"))]);
    }
    let port = free_port();
    let socket = format!("[runtime.compose]\nsocket = \"{}\"\n", engine.address());
    let mut stage = Stage::with(cluster, &[("shop", "")], &socket);
    let compose = |tag: &str, check: &str| {
        format!(
            "services:\n  web:\n    image: localhost/web:{tag}\n    command: [httpd, -f, -p, \"8080\", -h, /www]\n    stop_signal: SIGKILL\n    ports: [\"127.0.0.1:{port}:8080\"]\n    healthcheck: {{test: [CMD, {check}], interval: 300ms, retries: 2}}\n"
        )
    };
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop, till]\n");
    stage
        .repo
        .write("apps/till/app.yaml", "runtime: compose\ndependsOn: [shop]\nhealth: {timeout: 20s, soak: 300ms}\n");
    stage.repo.write("apps/till/compose.yaml", &compose("1", "\"true\""));
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let good = stage.pushed("both");
    let page = || harness::net::get(port, "/index.html").map(|(_, body)| body);
    assert_eq!(page().as_deref(), Some("web 1\n"));
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.repo.write("apps/till/compose.yaml", &compose("2", "\"false\""));
    let bad = stage.push("bad till");
    let map = || cluster.get(&stage.space, "configmap", "map")["data"]["value"].clone();
    until("the map moves with it", LONG, || (map() == "2").then_some(()));
    stage.device.wait_stalled(&good, &bad, 90);
    assert_eq!(cluster.get(&stage.space, "configmap", "map")["data"]["value"], "1", "it went back with the till");
    until("the till is back", LONG, || (page().as_deref() == Some("web 1\n")).then_some(()));
}

#[test]
fn public_examples_apply_unchanged() {
    let cluster = Cluster::shared();
    let examples = harness::bins::examples().join("kubernetes");
    for example in ["guestbook", "cassandra", "podinfo"] {
        let mut stage = Stage::new(cluster, &[("example", "onFailure: hold\n")]);
        for entry in std::fs::read_dir(examples.join(example)).expect("an example").map(|entry| entry.expect("a file"))
        {
            let text = std::fs::read_to_string(entry.path()).expect("a manifest");
            let name = entry.file_name().into_string().expect("a name");
            stage.repo.write(&format!("apps/example/kubernetes/{name}"), &text);
        }
        let head = stage.push(example);
        // Applied: nothing runs pods here, so that it does not become healthy.
        stage.device.wait(&format!("{example} is applied"), 60, |status| {
            status["revision"] == head.as_str()
                && matches!(status["phase"].as_str(), Some("probing" | "stalled" | "steady"))
        });
        let status = stage.device.status().expect("a status");
        assert!(!status["conditions"].to_string().contains("\"Applied\""), "{example}: {status:#}");
        let ours = cluster.kubectl(&[
            "-n",
            &stage.space,
            "get",
            "service,deployment,statefulset",
            "-l",
            "burgee.dev/app=example",
            "-o",
            "name",
        ]);
        assert!(ours.lines().count() >= 2, "{example}: {ours}");
    }
}

#[test]
fn an_api_server_that_is_away_is_waited_for() {
    // Its own: it is stopped.
    let mut cluster = Cluster::start();
    let mut stage = Stage::new(&cluster, &[("shop", "")]);
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    // Down at boot: it waits, and touches nothing.
    let space = stage.space.clone();
    cluster.stop_api();
    let first = stage.push("first");
    let status = stage.device.wait("it says what it waits for", 30, |status| {
        status["conditions"].to_string().contains("cannot reach the API server")
    });
    assert!(status["conditions"].to_string().contains("see whether k3s"), "{status:#}");
    cluster.start_api();
    stage.device.wait_steady(&first, 60);

    // Down while steady: nothing is pruned or blamed; back, drift is repaired.
    cluster.stop_api();
    std::thread::sleep(Duration::from_secs(3));
    let status = stage.device.status().expect("the agent answers");
    assert_eq!(status["phase"], "steady", "{status:#}");
    cluster.start_api();
    cluster.kubectl(&["-n", &space, "patch", "configmap", "map", "-p", r#"{"data":{"value":"drifted"}}"#]);
    until("drift is seen by the new watch", Duration::from_secs(90), || {
        (cluster.get(&space, "configmap", "map")["data"]["value"] == "1").then_some(())
    });

    // Restarted in the middle of an apply: it resumes.
    let many: Vec<Value> = (0..150).map(|n| config_map(&format!("map-{n}"), "2")).collect();
    stage.manifest("shop", "x.yaml", &many);
    let second = stage.push("many");
    until("it is under way", LONG, || stage.device.log().contains("ConfigMap/").then_some(()));
    cluster.kill_api();
    std::thread::sleep(Duration::from_secs(2));
    cluster.start_api();
    stage.device.wait_steady(&second, 120);
    let count =
        cluster.kubectl(&["-n", &space, "get", "configmap", "-l", "burgee.dev/app=shop", "-o", "name"]).lines().count();
    assert_eq!(count, 150);
}

#[test]
fn a_server_that_has_lost_its_sight_loses_nothing() {
    let cluster = Cluster::shared();
    let faults = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage = Stage::by(&faults.kubeconfig, &cluster.kubectl_program(), space, &[("shop", "")], "");
    let maps = |names: &[&str]| names.iter().map(|name| config_map(name, "1")).collect::<Vec<_>>();
    stage.manifest("shop", "x.yaml", &maps(&["a", "b", "c"]));
    stage.pushed("first");
    for fault in [Fault::Error, Fault::EmptyList] {
        faults.set(fault);
        stage.device.kill();
        // While the agent is away, an object that is to go; lists that lie meanwhile.
        stage.start();
        stage.manifest("shop", "x.yaml", &maps(&["a", "b"]));
        stage.push("c goes");
        if fault == Fault::Error {
            let status = stage.device.wait("it says what it can't read", 30, |status| {
                status["conditions"].to_string().contains("cannot read the objects of this fleet")
            });
            assert_eq!(status["blocked"].to_string(), "[]", "no revision is to blame: {status:#}");
            assert_eq!(cluster.get(&stage.space, "configmap", "c")["data"]["value"], "1", "nothing is pruned");
        } else {
            // By name it is still there, and asked for by name it goes.
            until("c is gone", LONG, || (cluster.get(&stage.space, "configmap", "c") == Value::Null).then_some(()));
        }
        for name in ["a", "b"] {
            assert_eq!(cluster.get(&stage.space, "configmap", name)["data"]["value"], "1", "{fault:?}");
        }
        faults.set(Fault::None);
        stage.manifest("shop", "x.yaml", &maps(&["a", "b", "c"]));
        stage.pushed("c is back");
        assert_eq!(cluster.get(&stage.space, "configmap", "c")["data"]["value"], "1", "{fault:?}");
    }
}

#[test]
fn kill_minus_nine_at_any_step_of_an_apply_of_two_hundred_objects() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "prune: {maxDelete: 100%}\n")]);
    cluster.apply(
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "foreign", "namespace": stage.space}})
            .to_string(),
    );
    let rounds = if std::env::var_os("BURGEE_PROVE").is_some() { 20 } else { 4 };
    let (mut seed, mut fell) = (7u64, 0);
    for round in 0..rounds {
        // A third of the names change with each round: objects of several ranks come, change and go.
        let objects: Vec<Value> = (0..200)
            .map(|n| {
                let (name, value) = (format!("m-{}", if n % 3 == 0 { n + 1000 * round } else { n }), round.to_string());
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": {"value": value}}});
                if n % 4 == 3 { account } else { config_map(&name, &value) }
            })
            .collect();
        stage.manifest("shop", "x.yaml", &objects);
        let before = stage.device.log().len();
        let head = stage.push(&format!("round {round}"));
        let since = |stage: &Stage, what: &str| stage.device.log()[before..].matches(what).count();
        for _ in 0..3 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // After that many steps more.
            let steps = since(&stage, "\"message\":\"step\"") + 4 + (seed >> 33) as usize % 45;
            let over = |stage: &Stage| since(stage, "\"to\":\"Probing\"") > 0;
            until("it has made so many steps", LONG, || {
                (over(&stage) || since(&stage, "\"message\":\"step\"") >= steps).then_some(())
            });
            stage.device.kill();
            fell += usize::from(!over(&stage));
            stage.start();
        }
        stage.device.wait_steady(&head, 120);
        let found = |kind: &str| -> Value {
            let text = cluster.kubectl(&["-n", &stage.space, "get", kind, "-l", "burgee.dev/app=shop", "-o", "json"]);
            serde_json::from_str(&text).expect("JSON")
        };
        let (maps, accounts) = (found("configmap"), found("serviceaccount"));
        let (maps, accounts) = (maps["items"].as_array().expect("items"), accounts["items"].as_array().expect("items"));
        let expected = round.to_string();
        assert_eq!((maps.len(), accounts.len()), (150, 50), "round {round}: nothing is missing, nothing orphaned");
        assert!(maps.iter().all(|item| item["data"]["value"].as_str() == Some(expected.as_str())), "round {round}");
        let value = |item: &Value| item["metadata"]["annotations"]["value"].as_str() == Some(expected.as_str());
        assert!(accounts.iter().all(value), "round {round}");
        assert_eq!(cluster.get(&stage.space, "configmap", "foreign")["metadata"]["name"], "foreign");
    }
    assert!(fell >= 2 * rounds, "only {fell} of {} kills fell into an apply", 3 * rounds);
}
