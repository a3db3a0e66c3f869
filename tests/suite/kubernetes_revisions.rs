//! What a revision meets on a real Kubernetes API server, on its way forth and
//! back: what can't leave, what can't be read, definitions that change, kinds
//! that are not there.

use std::time::Duration;

use harness::between::{Between, Fault};
use harness::cluster::{Cluster, Rules};
use harness::kube_stage::{Stage, config_map, deployment, widget_definition};
use harness::stage::condition;
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn value(cluster: &Cluster, space: &str, name: &str) -> Value {
    cluster.get(space, "configmap", name)["data"]["value"].clone()
}

/// Somebody makes a definition of `Widget`, which is served from then on.
fn define(cluster: &Cluster, group: &str) {
    cluster.apply(&widget_definition(group).to_string());
    let name = format!("customresourcedefinition/widgets.{group}");
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &name]);
    until("it is served", LONG, || cluster.try_kubectl(&["get", &format!("widgets.{group}")]).ok());
}

fn widget(group: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})
}

#[test]
fn what_cannot_leave_keeps_no_other_app_from_going_back() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage = Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space.clone(), &[("shop", "")], "");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    let good = stage.pushed("first");
    // One that only the failed revision has, and that may not be deleted.
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop, extra]\n");
    stage.app("extra", "");
    stage.manifest("extra", "x.yaml", &[config_map("extra", "1")]);
    stage.manifest("shop", "x.yaml", &[config_map("map", "2"), deployment("never", 1)]);
    between.set(Fault::Kept("extra"));
    let bad = stage.push("is not well");
    until("it is applied", LONG, || {
        (value(cluster, &space, "map") == "2" && value(cluster, &space, "extra") == "1").then_some(())
    });
    until("the other app is back", LONG, || (value(cluster, &space, "map") == "1").then_some(()));
    let status =
        stage.device.wait("it says what it can't undo", 30, |status| condition(status, "RolledBack").is_some());
    assert!(status["conditions"].to_string().contains("it is kept"), "{status:#}");
    assert_eq!((&status["phase"], value(cluster, &space, "extra")), (&"rolling-back".into(), "1".into()));
    between.set(Fault::None);
    stage.device.wait_stalled(&good, &bad, 60);
    assert_eq!(value(cluster, &space, "extra"), Value::Null);
}

#[test]
fn a_bad_revision_goes_back_in_its_time_where_its_pods_cannot_be_read() {
    let cluster = Cluster::shared();
    let space = cluster.namespace();
    let rules =
        json!([{"apiGroups": ["", "apps"], "resources": ["configmaps", "deployments", "namespaces"], "verbs": ["*"]}]);
    let user = cluster.user(&space, "blind", &Rules { namespaced: vec![], everywhere: Some(rules) });
    let mut stage = Stage::by(&user, &cluster.kubectl_program(), space, &[("shop", "")], "");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), deployment("web", 0)]);
    let good = stage.pushed("first");
    stage.manifest("shop", "x.yaml", &[config_map("map", "2"), deployment("web", 1)]);
    let bad = stage.push("never available");
    let status = stage.device.wait_stalled(&good, &bad, 45);
    let said = condition(&status, "Healthy").expect("why it failed")["message"].to_string();
    assert!(said.contains("Deployment.apps") && said.contains("replicas"), "its own status: {said}");
    assert!(said.contains("(its pods can't be read: pods is forbidden"), "and what is missing: {said}");
    assert_eq!(value(cluster, &stage.space, "map"), "1");
}

#[test]
fn a_bad_revision_goes_back_in_its_time_where_a_kind_cannot_be_listed() {
    let cluster = Cluster::shared();
    let between = Between::start(cluster);
    let space = cluster.namespace();
    let mut stage = Stage::by(&between.kubeconfig, &cluster.kubectl_program(), space, &[("shop", "")], "");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), deployment("web", 0)]);
    let good = stage.pushed("first");
    between.set(Fault::Unread);
    stage.manifest("shop", "x.yaml", &[config_map("map", "2"), deployment("web", 1)]);
    let bad = stage.push("not to be told");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    let said = condition(&status, "Healthy").expect("why it failed")["message"].to_string();
    assert!(said.contains("Deployment.apps") && said.contains("it can't be read: conversion failed"), "{said}");
    assert_eq!(value(cluster, &stage.space, "map"), "1");
}

#[test]
fn a_definition_changes_with_the_objects_that_need_it() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("defs", ""), ("things", "dependsOn: [defs]\n")]);
    let group = format!("{}.example.com", stage.space);
    let definition = |more: &[(&str, &str)]| {
        let mut definition = widget_definition(&group);
        let spec = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for (name, kind) in more {
            spec["properties"][name] = json!({"type": kind});
        }
        definition
    };
    stage.manifest("defs", "x.yaml", &[definition(&[])]);
    stage.manifest("things", "x.yaml", &[widget(&group, &json!({"size": 1}))]);
    let space = stage.space.clone();
    stage.pushed("first");
    let live = || cluster.get(&space, &format!("widgets.{group}"), "w")["spec"].clone();

    // By two apps, then by one: a field that the server does not know yet.
    stage.manifest("defs", "x.yaml", &[definition(&[("colour", "string")])]);
    stage.manifest("things", "x.yaml", &[widget(&group, &json!({"size": 1, "colour": "red"}))]);
    stage.pushed("a colour");
    assert_eq!(live(), json!({"size": 1, "colour": "red"}));
    let good = stage.device.status().expect("a status")["revision"].as_str().expect("steady").to_owned();

    // An object that is wrong by the new one, too, is refused in the server's words.
    stage.manifest("defs", "x.yaml", &[definition(&[("colour", "string"), ("weight", "integer")])]);
    stage.manifest("things", "x.yaml", &[widget(&group, &json!({"size": 2, "weight": "heavy"}))]);
    let bad = stage.push("a weight that is none");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    let said = status["conditions"].to_string();
    assert!(said.contains("spec.weight: expected numeric"), "{said}");
    assert_eq!(live(), json!({"size": 1, "colour": "red"}));
}

#[test]
fn an_app_whose_kind_is_gone_holds_up_no_other() {
    // Its own: an extension of the API that is down concerns whoever asks what a server knows.
    let cluster = Cluster::start();
    let spec = json!({"group": "metrics.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10, "insecureSkipTLSVerify": true, "service": {"name": "gone", "namespace": "default", "port": 443}});
    let down = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.metrics.example.com"}, "spec": spec});
    let mut stage = Stage::new(&cluster, &[("a", ""), ("b", "")]);
    let group = format!("{}.example.com", stage.space);
    define(&cluster, &group);
    stage.manifest("a", "x.yaml", &[config_map("one", "1"), config_map("two", "1")]);
    stage.manifest("b", "x.yaml", &[widget(&group, &json!({"size": 1})), config_map("b", "1")]);
    stage.pushed("first");
    // Somebody takes the definition away; the agent starts anew and learns that.
    cluster.kubectl(&["delete", "customresourcedefinition", &format!("widgets.{group}")]);
    stage.device.kill();
    stage.start();
    stage.manifest("a", "x.yaml", &[config_map("one", "1")]);
    stage.pushed("another app drops something");
    assert_eq!(cluster.get(&stage.space, "configmap", "two"), Value::Null);

    // The app itself drops what is gone with its kind, whatever else is down.
    cluster.apply(&down.to_string());
    until("the server finds it down", LONG, || {
        let found = cluster.get("default", "apiservice", "v1.metrics.example.com");
        (found["status"]["conditions"][0]["status"] == "False").then_some(())
    });
    stage.device.kill();
    stage.start();
    stage.manifest("b", "x.yaml", &[config_map("b", "2")]);
    stage.pushed("it drops its own");
    assert_eq!(value(&cluster, &stage.space, "b"), "2");
}

#[test]
fn a_device_that_has_nothing_yet_waits_for_what_it_lacks() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let group = format!("{}.example.com", stage.space);
    stage.manifest("shop", "x.yaml", &[widget(&group, &json!({"size": 1}))]);
    let first = stage.push("first");
    let status = stage.device.wait("it says what it lacks", 30, |status| condition(status, "Prepared").is_some());
    let said = condition(&status, "Prepared").expect("just seen");
    assert_eq!(said["reason"], "Refused", "{status:#}");
    assert!(said["message"].to_string().contains(&format!("has no Widget in {group}/v1")), "{status:#}");
    assert_eq!((&status["phase"], &status["blocked"]), (&"preparing".into(), &json!([])));
    define(cluster, &group);
    stage.device.wait_steady(&first, 60);
    assert_eq!(cluster.get(&stage.space, &format!("widgets.{group}"), "w")["spec"]["size"], 1);
}

#[test]
fn what_a_failed_revision_handed_over_is_handed_back() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("a", "")]);
    let space = stage.space.clone();
    let moved = || cluster.get(&space, "configmap", "moved")["metadata"].clone();
    stage.manifest("a", "x.yaml", &[config_map("kept", "1"), config_map("moved", "1")]);
    let good = stage.pushed("first");
    let uid = moved()["uid"].clone();
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [a, b]\n");
    stage.app("b", "");
    stage.manifest("a", "x.yaml", &[config_map("kept", "1")]);
    stage.manifest("b", "x.yaml", &[config_map("moved", "2"), deployment("never", 1)]);
    let bad = stage.push("to another app, which is not well");
    until("it is handed over", LONG, || (moved()["labels"]["burgee.dev/app"] == "b").then_some(()));
    stage.device.wait_stalled(&good, &bad, 60);
    assert_eq!((&moved()["uid"], &moved()["labels"]["burgee.dev/app"]), (&uid, &"a".into()));
    // The other app has left: it is the first one's to drop, or not.
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [a]\n");
    stage.manifest("a", "x.yaml", &[config_map("kept", "2"), config_map("moved", "3")]);
    stage.pushed("it stays with the first");
    assert_eq!((&moved()["uid"], value(cluster, &space, "moved")), (&uid, "3".into()));
    stage.manifest("a", "x.yaml", &[config_map("kept", "2")]);
    stage.pushed("it goes");
    assert_eq!(moved(), Value::Null);
}

#[test]
fn what_no_app_came_to_take_over_goes_when_no_app_wants_it() {
    let cluster = Cluster::shared();
    let a = "onFailure: hold\nprune: {maxDelete: 100%}\n";
    let mut stage = Stage::new(cluster, &[("a", a), ("b", "dependsOn: [a]\ndrift: {mode: report}\n")]);
    let space = stage.space.clone();
    let moved = || cluster.get(&space, "configmap", "moved")["metadata"].clone();
    stage.manifest("a", "x.yaml", &[config_map("kept", "1"), config_map("moved", "1")]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1")]);
    stage.pushed("first");
    // The one gives it away and is not well, the other waits for it.
    stage.manifest("a", "x.yaml", &[config_map("kept", "2"), deployment("never", 1)]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1"), config_map("moved", "1")]);
    let held = stage.push("half a hand-over");
    stage.device.wait("it stays there", 60, |status| status["phase"] == "stalled" && status["revision"] == held);
    assert_eq!(moved()["labels"]["burgee.dev/app"], "a");
    stage.manifest("a", "x.yaml", &[config_map("kept", "3")]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1")]);
    stage.pushed("nobody wants it");
    assert_eq!(moved(), Value::Null);
}
