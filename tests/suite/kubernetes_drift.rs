//! Drift on a real Kubernetes API server that is hard to see, or to repair: a
//! server that is away when the agent starts, marks that are gone, a fight
//! beside it.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map, deployment};
use harness::stage::condition;
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// A device whose app `shop` has these objects, applied.
fn shop(cluster: &Cluster, objects: &[Value]) -> Stage {
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    stage.manifest("shop", "x.yaml", objects);
    stage.pushed("first");
    stage
}

fn patch(cluster: &Cluster, space: &str, map: &str, patch: &Value) {
    cluster.kubectl(&["-n", space, "patch", "configmap", map, "--type=merge", "-p", &patch.to_string()]);
}

#[test]
fn drift_is_repaired_soon_after_the_server_of_a_starting_agent_is_back() {
    // Its own: it is stopped.
    let mut cluster = Cluster::start();
    let mut stage = shop(&cluster, &[config_map("map", "1")]);
    let space = stage.space.clone();
    stage.device.kill();
    patch(&cluster, &space, "map", &json!({"data": {"value": "drifted"}}));
    cluster.stop_api();
    stage.start();
    let status = stage.device.wait("it can't look", 30, |status| condition(status, "Observed").is_some());
    assert_eq!(status["phase"], "steady", "{status:#}");
    // Long enough for some compares to have come to nothing.
    std::thread::sleep(Duration::from_secs(10));
    cluster.start_api();
    until("it is repaired by itself", Duration::from_secs(45), || {
        (cluster.get(&space, "configmap", "map")["data"]["value"] == "1").then_some(())
    });
    stage.device.wait("it says so", 30, |status| status["apps"][0]["sync"] == "synced");
}

#[test]
fn what_is_burgees_stays_so_without_a_mark_and_with_an_owner() {
    let cluster = Cluster::shared();
    let mut stage = shop(cluster, &[config_map("map", "1")]);
    let space = stage.space.clone();
    let get = || cluster.get(&space, "configmap", "map");
    for label in ["burgee.dev/app", "burgee.dev/fleet", "app.kubernetes.io/managed-by"] {
        let before = get()["metadata"]["labels"][label].clone();
        cluster.kubectl(&["-n", &space, "label", "configmap", "map", &format!("{label}-")]);
        until(&format!("{label} is put back"), LONG, || (get()["metadata"]["labels"][label] == before).then_some(()));
    }
    let boss = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "boss", "namespace": space}});
    cluster.apply(&boss.to_string());
    let uid = cluster.get(&space, "configmap", "boss")["metadata"]["uid"].clone();
    let owners = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "boss", "uid": uid, "controller": true}]);
    patch(cluster, &space, "map", &json!({"metadata": {"ownerReferences": owners}, "data": {"value": "drifted"}}));
    until("drift is repaired all the same", LONG, || (get()["data"]["value"] == "1").then_some(()));
    stage.manifest("shop", "x.yaml", &[config_map("map", "2")]);
    stage.pushed("second");
    assert_eq!((&get()["data"]["value"], &get()["metadata"]["ownerReferences"]), (&"2".into(), &owners));
}

#[test]
fn a_fight_over_one_object_leaves_no_other_unrepaired() {
    let cluster = Cluster::shared();
    let stage = shop(cluster, &[config_map("map", "1"), deployment("web", 0)]);
    let space = stage.space.clone();
    let fight = || patch(cluster, &space, "map", &json!({"data": {"value": "mine"}}));
    until("the fight is told", Duration::from_secs(120), || {
        fight();
        std::thread::sleep(Duration::from_millis(700));
        condition(&stage.device.status()?, "DriftFighting").map(|_| ())
    });
    fight();
    cluster.kubectl(&["-n", &space, "delete", "deployment", "web"]);
    until("what is deleted beside it is back", Duration::from_secs(15), || {
        (cluster.get(&space, "deployment", "web") != Value::Null).then_some(())
    });
    assert_eq!(cluster.get(&space, "configmap", "map")["data"]["value"], "mine", "that is held back");
    let status = stage.device.wait("it says so", 30, |status| status["apps"][0]["sync"] == "out-of-sync");
    assert!(status["apps"][0]["message"].to_string().contains("data.value: changed"), "{status:#}");
}
