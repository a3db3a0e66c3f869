//! The device loop on a real Kubernetes API server where something is wrong
//! around the objects: webhooks, clocks, other managers, limits.

use std::time::Duration;

use harness::between::{Between, Fault};
use harness::clock::{EPOCH, RIGHT, set, told};
use harness::cluster::{Cluster, Rules};
use harness::kube_stage::{Stage, config_map};
use harness::net::forward;
use harness::stage::condition;
use harness::wait::{never, until};
use harness::webhook::Webhook;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// A device whose app `shop` has these objects, applied; the commit.
fn shop(objects: &[Value]) -> (&'static Cluster, Stage, String) {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    stage.manifest("shop", "x.yaml", objects);
    let good = stage.pushed("first");
    (cluster, stage, good)
}

/// The one value of a map.
fn value(cluster: &Cluster, space: &str, name: &str) -> Value {
    cluster.get(space, "configmap", name)["data"]["value"].clone()
}

/// A device of one app that reaches the server by way of faults.
fn by_way_of(cluster: &'static Cluster) -> (Between, Stage) {
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let stage = Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space, &[("shop", "")], "");
    (between, stage)
}

/// Refuses some values: one at once, one only when it is meant.
fn house_rules(request: &Value) -> Option<&'static str> {
    match request["object"]["data"]["value"].as_str() {
        Some("ugly") => Some("no ugly values in this house"),
        Some("treacherous") if request["dryRun"] != true => Some("on second thoughts: no"),
        _ => None,
    }
}

#[test]
fn a_webhook_that_refuses_is_quoted_and_nothing_is_lost() {
    let (cluster, mut stage, good) = shop(&[config_map("a", "1"), config_map("b", "1")]);
    let space = stage.space.clone();
    let value = |name: &str| value(cluster, &space, name);
    let _webhook = Webhook::start(cluster, &space, house_rules);

    // Refused where it is tried: nothing was changed.
    stage.manifest("shop", "x.yaml", &[config_map("a", "2"), config_map("b", "ugly"), config_map("c", "1")]);
    let bad = stage.push("ugly");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("no ugly values in this house"), "{status:#}");
    assert_eq!((value("a"), value("b"), value("c")), ("1".into(), "1".into(), Value::Null));

    // Refused when it is meant: what was applied before it goes back.
    stage.manifest("shop", "x.yaml", &[config_map("a", "2"), config_map("b", "treacherous"), config_map("c", "1")]);
    let bad = stage.push("treacherous");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    assert!(status["conditions"].to_string().contains("on second thoughts: no"), "{status:#}");
    assert_eq!((value("a"), value("b"), value("c")), ("1".into(), "1".into(), Value::Null));
}

#[test]
fn a_webhook_that_is_down_is_waited_for() {
    let (cluster, mut stage, _) = shop(&[config_map("a", "1")]);
    let space = stage.space.clone();
    let value = |name: &str| value(cluster, &space, name);
    let mut webhook = Webhook::start(cluster, &space, house_rules);
    webhook.down();
    stage.manifest("shop", "x.yaml", &[config_map("a", "2"), config_map("b", "1")]);
    let next = stage.push("next");
    let status = stage
        .device
        .wait("it says what fails", 40, |status| status["conditions"].to_string().contains("failed calling webhook"));
    assert!(status["conditions"].to_string().contains("connection refused"), "{status:#}");
    assert_eq!(status["blocked"], json!([]), "no revision is to blame");
    never("it changes something", Duration::from_secs(2), || value("a") != "1" || value("b") != Value::Null);
    webhook.up();
    stage.device.wait_steady(&next, 90);
    assert_eq!((value("a"), value("b")), ("2".into(), "1".into()));
}

#[test]
fn an_api_certificate_that_is_not_valid_yet_is_waited_for() {
    let (cluster, mut stage, good) = shop(&[config_map("a", "1"), config_map("b", "1")]);
    let space = stage.space.clone();
    let value = |name: &str| value(cluster, &space, name);
    let drift = || cluster.kubectl(&["-n", &space, "patch", "configmap", "a", "-p", r#"{"data":{"value":"drifted"}}"#]);

    // In 1970 by its clock, with nothing new: once it is set, drift is repaired by itself.
    stage.device.kill();
    drift();
    set(&stage.device, EPOCH);
    stage.start_with(told);
    stage.device.wait("it can't look", 40, |status| condition(status, "Observed").is_some());
    set(&stage.device, RIGHT);
    until("drift is repaired", LONG, || (value("a") == "1").then_some(()));
    stage.device.kill();

    // Once more; meanwhile the objects drift, and one is to go.
    drift();
    stage.manifest("shop", "x.yaml", &[config_map("a", "1")]);
    let next = stage.repo.commit("b goes");
    stage.repo.push(&stage.forge.url(), true);
    set(&stage.device, EPOCH);
    stage.start_with(told);
    stage.device.sync();
    let status = stage.device.wait("it says what is wrong", 40, |status| {
        condition(status, "Observed").is_some() && condition(status, "ClockSet").is_some()
    });
    let said = condition(&status, "Observed").expect("just seen");
    assert_eq!(said["reason"], "RuntimeUnreachable");
    let words = said["message"].to_string();
    assert!(words.contains("certificate is not valid yet by this device's clock"), "{words}");
    assert!(words.contains("hint: check the time service"), "{words}");
    assert_eq!((&status["phase"], &status["revision"]), (&"steady".into(), &Value::from(good.as_str())));
    assert_eq!(status["blocked"], json!([]));
    never("it touches something", Duration::from_secs(4), || value("a") != "drifted" || value("b") != "1");
    assert!(stage.device.log().contains("\"1970-01-02T"), "it was not seen by that clock");

    set(&stage.device, RIGHT);
    stage.device.sync();
    let status = stage.device.wait_steady(&next, 90);
    until("drift is repaired and b is gone", LONG, || (value("a") == "1" && value("b") == Value::Null).then_some(()));
    assert!(condition(&status, "ClockSet").is_none(), "{status:#}");
    stage.device.wait("nothing is left to say", 30, |status| status["conditions"] == json!([]));
}

#[test]
fn what_appears_between_the_look_and_the_first_apply_is_not_overwritten() {
    let cluster = Cluster::shared();
    let (between, mut stage) = by_way_of(cluster);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("ours", "1")]);
    let good = stage.pushed("first");
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": space}, "data": {"other": "theirs"}});
    cluster.apply(&theirs.to_string());
    // As if it had come a moment later: no look shows it.
    between.set(Fault::Hidden("theirs"));
    stage.manifest("shop", "x.yaml", &[config_map("ours", "1"), config_map("theirs", "burgee")]);
    let refused = stage.push("wants theirs");
    until("it is about to be made", LONG, || stage.device.log().contains("ConfigMap/").then_some(()));
    let untouched = || {
        let found = cluster.get(&space, "configmap", "theirs");
        found["data"] == json!({"other": "theirs"}) && found["metadata"]["labels"] == Value::Null
    };
    never("it is written", Duration::from_secs(8), || !untouched());
    assert!(stage.device.log().contains("planning anew"), "{}", stage.device.log());
    // Once it can be seen, it is named.
    between.set(Fault::None);
    let status = stage.device.wait_stalled(&good, &refused, 120);
    assert!(status["conditions"].to_string().contains("is not burgee's (written by test)"), "{status:#}");
    assert!(untouched());
}

#[test]
fn a_field_that_another_manager_took_is_taken_back_and_its_own_are_left() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "drift: {mode: report}\n")]);
    let space = stage.space.clone();
    let get = || cluster.get(&space, "configmap", "map");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    stage.pushed("first");
    let taken = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map", "namespace": space}, "data": {"value": "taken", "more": "theirs"}});
    let file = stage.device.folder.join("taken.json");
    std::fs::write(&file, taken.to_string()).expect("a file");
    let file = file.display().to_string();
    cluster.kubectl(&["apply", "--server-side", "--force-conflicts", "--field-manager=thief", "-f", &file]);
    // Reported with who did it; only reported.
    let status = stage.device.wait("it is told", 60, |status| status["apps"][0]["sync"] == "out-of-sync");
    let said = status["apps"][0]["message"].to_string();
    assert!(said.contains("data.value: changed, by thief"), "{said}");
    assert_eq!(get()["data"]["value"], "taken");
    // A new revision takes the field back, by force, and leaves what is not its own.
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.pushed("second");
    assert_eq!(get()["data"], json!({"value": "2", "more": "theirs"}));
}

#[test]
fn what_kubectl_applied_is_adopted_with_all_its_fields() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "adopt: true\n")]);
    let space = stage.space.clone();
    let get = || cluster.get(&space, "configmap", "map");
    let former = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "map", "namespace": space, "labels": {"old": "yes"}}, "data": {"value": "kubectl", "old": "x"}});
    let file = stage.device.folder.join("former.json");
    std::fs::write(&file, former.to_string()).expect("a file");
    cluster.kubectl(&["apply", "-f", &file.display().to_string()]);
    cluster.kubectl(&[
        "-n",
        &space,
        "patch",
        "configmap",
        "map",
        "--field-manager=controller",
        "-p",
        r#"{"data":{"more":"theirs"}}"#,
    ]);
    let uid = get()["metadata"]["uid"].clone();
    stage.manifest("shop", "x.yaml", &[config_map("map", "burgee")]);
    stage.pushed("adopt");
    let map = get();
    assert_eq!(
        map["data"],
        json!({"value": "burgee", "more": "theirs"}),
        "kubectl's own field is gone, the controller's is not"
    );
    assert_eq!((&map["metadata"]["labels"]["old"], &map["metadata"]["uid"]), (&Value::Null, &uid));
    assert_eq!(map["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"], Value::Null);
}

#[test]
fn a_busy_server_is_asked_again_and_a_namespace_too_many_is_passed_by() {
    let cluster = Cluster::shared();
    let (between, mut stage) = by_way_of(cluster);
    let space = stage.space.clone();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": space, "namespace": space}, "rules": []});
    let maps = |value: &str| -> Vec<Value> {
        (0..12).map(|n| config_map(&format!("map-{n}"), value)).chain([role.clone()]).collect()
    };
    stage.manifest("shop", "x.yaml", &maps("1"));
    stage.pushed("first");
    assert_eq!(cluster.get("", "clusterrole", &space)["metadata"]["labels"]["burgee.dev/app"], "shop");
    for (fault, value, status) in [(Fault::Busy, "2", " 503"), (Fault::TooMany, "3", " 429")] {
        between.set(fault);
        stage.manifest("shop", "x.yaml", &maps(value));
        stage.pushed(value);
        let refused = between.asked().iter().filter(|line| line.ends_with(status)).count();
        assert!(refused > 0, "it was never busy: {fault:?}");
        // Within the requests: no pass failed for it.
        let log = stage.device.log();
        assert!(!log.contains("planning anew") && !log.contains("trying again later"), "{log}");
        assert_eq!(cluster.get(&space, "configmap", "map-11")["data"]["value"], value);
    }
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    between.set(Fault::None);
    stage.pushed("leaves");
    assert_eq!(cluster.get("", "clusterrole", &space), Value::Null);
}

#[test]
fn a_server_that_hangs_under_a_watch_hides_no_drift() {
    let cluster = Cluster::shared();
    let (between, mut stage) = by_way_of(cluster);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    stage.pushed("first");
    // It takes connections, and nobody takes them from it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    between.set(Fault::WatchHangs(silent.local_addr().expect("its address").port()));
    cluster.kubectl(&["-n", &space, "patch", "configmap", "map", "-p", r#"{"data":{"value":"drifted"}}"#]);
    until("drift is seen all the same", Duration::from_secs(100), || {
        (cluster.get(&space, "configmap", "map")["data"]["value"] == "1").then_some(())
    });
}

#[test]
fn a_certificate_of_another_name_is_taken_where_the_kubeconfig_says_so() {
    let cluster = Cluster::shared();
    // Reached by an address that the server's certificate does not name.
    let port = cluster.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let reached = forward("127.0.0.2", port);
    let text = cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.2:{reached}"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    let mut stage = Stage::by(&path, &cluster.kubectl_program(), cluster.namespace(), &[("shop", "")], "");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let first = stage.push("first");
    stage.device.wait("it is refused", 30, |status| {
        status["conditions"].to_string().contains("certificate not valid for name")
    });
    config["clusters"][0]["cluster"]["tls-server-name"] = json!("kubernetes.default");
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    stage.device.wait_steady(&first, 60);
    assert_eq!(cluster.get(&stage.space, "configmap", "map")["data"]["value"], "1");
}

#[test]
fn an_agent_that_dies_while_it_probes_sees_what_is_there() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 3s, soak: 4s}\n")]);
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    stage.pushed("first");
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    let head = stage.push("second");
    stage.device.wait("it probes", 30, |status| status["phase"] == "probing");
    stage.device.kill();
    stage.start();
    let status = stage.device.status().expect("a status");
    assert_eq!(status["phase"], "probing", "it was too late: {status:#}");
    stage.device.wait_steady(&head, 30);
    assert_eq!(cluster.get(&stage.space, "configmap", "map")["data"]["value"], "2");
}

#[test]
fn a_warm_agent_takes_an_empty_list_for_no_truth() {
    let cluster = Cluster::shared();
    let (between, mut stage) = by_way_of(cluster);
    stage.manifest("shop", "x.yaml", &[config_map("a", "1"), config_map("b", "1")]);
    stage.pushed("first");
    let health = |stage: &Stage| stage.device.status().map(|status| status["apps"][0]["health"].clone());
    until("it is healthy", LONG, || (health(&stage)? == "healthy").then_some(()));
    let lists = || between.asked().iter().filter(|line| line.contains("/configmaps?limit=")).count();
    let before = lists();
    // Where its watch was is forgotten, and what it lists anew is empty.
    between.set(Fault::Forgetful);
    until("it has listed anew", LONG, || (lists() > before).then_some(()));
    never("it takes that for the truth", Duration::from_secs(5), || health(&stage).is_some_and(|it| it == "missing"));
    between.set(Fault::None);
    until("it is healthy again", Duration::from_secs(90), || {
        stage.device.sync();
        (health(&stage)? == "healthy").then_some(())
    });
    assert!(!stage.device.log().contains("\"step\",\"app\":\"shop\",\"verb\":\"Delete\""));
}

#[test]
fn apps_that_find_a_kind_cold_list_and_watch_it_once() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let apps = ["a", "b", "c", "d", "e"].map(|app| (app, "health: {timeout: 3s, soak: 4s}\n"));
    let mut stage = Stage::by(&between.kubeconfig, &cluster.kubectl_program(), cluster.namespace(), &apps, "");
    for (app, _) in apps {
        stage.manifest(app, "x.yaml", &[config_map(app, "1")]);
    }
    let head = stage.push("first");
    stage.device.wait("it probes", 30, |status| status["phase"] == "probing");
    stage.device.kill();
    let before = between.asked().len();
    stage.start();
    stage.device.wait("it probes again", 30, |status| status["phase"] == "probing");
    stage.device.wait_steady(&head, 30);
    let since = between.asked().split_off(before);
    let lists: Vec<&String> =
        since.iter().filter(|line| line.contains("/configmaps?limit=") && !line.contains("namespaces")).collect();
    // All of the fleet's once; later, with content, those of an app by itself.
    let whole = lists.iter().filter(|line| !line.contains("burgee.dev%2Fapp")).count();
    assert_eq!(whole, 1, "{since:#?}");
}

#[test]
fn what_hangs_in_deletion_holds_up_nobody_else() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", ""), ("till", "")]);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("stuck", "1"), config_map("map", "1")]);
    stage.manifest("till", "x.yaml", &[config_map("till", "1")]);
    stage.pushed("first");
    let finalizers = |list: &str| {
        let patch = format!("{{\"metadata\":{{\"finalizers\":{list}}}}}");
        cluster.kubectl(&["-n", &space, "patch", "configmap", "stuck", "--type=merge", "-p", &patch]);
    };
    finalizers(r#"["example.com/wait"]"#);
    cluster.kubectl(&["-n", &space, "delete", "configmap", "stuck", "--wait=false"]);
    let status = stage
        .device
        .wait("it says what it waits for", 30, |status| status["apps"].to_string().contains("stuck is being deleted"));
    assert_eq!(status["apps"][0]["sync"], "out-of-sync", "{status:#}");
    // Drift beside it is repaired, and another app's change comes through.
    cluster.kubectl(&["-n", &space, "patch", "configmap", "map", "-p", r#"{"data":{"value":"drifted"}}"#]);
    until("what drifted beside it is repaired", Duration::from_secs(20), || {
        (value(cluster, &space, "map") == "1").then_some(())
    });
    stage.manifest("till", "x.yaml", &[config_map("till", "2")]);
    let head = stage.push("the till changes");
    stage.device.wait_steady(&head, 30);
    assert_eq!(value(cluster, &space, "till"), "2");
    // Let go, it is made anew.
    finalizers("[]");
    until("it is back", Duration::from_secs(30), || {
        let found = cluster.get(&space, "configmap", "stuck");
        (found["data"]["value"] == "1" && found["metadata"]["deletionTimestamp"] == Value::Null).then_some(())
    });
}

#[test]
fn a_revision_is_not_blocked_for_what_it_leaves_or_gives_up() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", ""), ("till", "")]);
    let space = stage.space.clone();
    let port = 30000 + std::process::id() % 2700;
    let service = |name: &str| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]}});
    stage.manifest("shop", "x.yaml", &[config_map("theirs", "1")]);
    stage.manifest("till", "x.yaml", &[config_map("till", "1"), service("old")]);
    stage.pushed("first");
    // Somebody lets another tool have an object of an app that does not change.
    cluster.kubectl(&[
        "-n",
        &space,
        "label",
        "--overwrite",
        "configmap",
        "theirs",
        "app.kubernetes.io/managed-by=Helm",
    ]);
    stage.manifest("till", "x.yaml", &[config_map("till", "2"), service("old")]);
    stage.pushed("the till changes");
    assert_eq!(value(cluster, &space, "till"), "2");
    // A port moves from one object to another.
    stage.manifest("till", "x.yaml", &[config_map("till", "2"), service("new")]);
    stage.pushed("the port moves");
    assert_eq!(cluster.get(&space, "service", "new")["spec"]["ports"][0]["nodePort"], port);
    assert_eq!(cluster.get(&space, "service", "old"), Value::Null);
}

#[test]
fn a_token_file_is_read_anew_and_a_right_that_is_missing_is_hinted_at() {
    let cluster = Cluster::shared();
    let space = cluster.namespace();
    let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let everywhere = |rules: &Value| Rules { namespaced: vec![], everywhere: Some(rules.clone()) };
    let token = |path: &std::path::Path| {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(path).expect("a kubeconfig")).expect("JSON");
        (config["users"][0]["user"]["token"].as_str().expect("a token").to_owned(), config)
    };
    let few = json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}]);
    let (weak, mut config) = token(&cluster.user(&space, "weak", &everywhere(&few)));
    let (strong, _) = token(&cluster.user(&space, "strong", &everywhere(&all)));
    let folder = tempfile::tempdir().expect("a folder");
    let (file, path) = (folder.path().join("token"), folder.path().join("kubeconfig"));
    std::fs::write(&file, weak).expect("a token");
    config["users"][0]["user"] = json!({"tokenFile": file});
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    let mut stage = Stage::by(&path, &cluster.kubectl_program(), space, &[("shop", "")], "");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let first = stage.push("first");
    let status =
        stage.device.wait("it is refused", 30, |status| status["conditions"].to_string().contains("forbidden"));
    assert!(status["conditions"].to_string().contains("(RBAC)"), "{status:#}");
    // Another one is in the file by the time that the server takes this one no longer.
    std::fs::write(&file, strong).expect("a token");
    cluster.kubectl(&["-n", &stage.space, "delete", "serviceaccount", "weak"]);
    stage.device.wait_steady(&first, 90);
    assert_eq!(value(cluster, &stage.space, "map"), "1");
}
