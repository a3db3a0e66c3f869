//! What goes when something leaves a Kubernetes device, and what has to stay:
//! what others made, what holds data, and what somebody else has in it.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map, deployment};
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// An object of the core, in a namespace.
fn core(kind: &str, space: &str, name: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": space, "labels": {"by": "hand"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn claim(space: &str, name: &str) -> Value {
    let spec = json!({"storageClassName": "", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    core("PersistentVolumeClaim", space, name, &json!({"spec": spec}))
}

#[test]
fn what_was_there_before_is_given_back_on_the_way_back() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("ours", "1")]);
    let good = stage.pushed("first");

    let port = json!({"spec": {"ports": [{"port": 80}]}});
    let theirs = [
        core("ConfigMap", &space, "map", &json!({"data": {"value": "theirs"}})),
        core("Service", &space, "web", &port),
        claim(&space, "data"),
    ];
    let uids: Vec<Value> = theirs
        .iter()
        .map(|object| {
            cluster.apply(&object.to_string());
            cluster.get(
                &space,
                object["kind"].as_str().expect("a kind"),
                object["metadata"]["name"].as_str().expect("a name"),
            )
        })
        .map(|found| found["metadata"]["uid"].clone())
        .collect();
    let as_it_was = |when: &str| {
        for (object, uid) in theirs.iter().zip(&uids) {
            let (kind, name) =
                (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str().expect("a name"));
            let found = cluster.get(&space, kind, name);
            assert_eq!(found["metadata"]["uid"], *uid, "{when}: {kind} {name} is the same object");
            assert_eq!(found["metadata"]["deletionTimestamp"], Value::Null, "{when}: {kind} {name}");
            assert_eq!(
                found["metadata"]["labels"],
                json!({"by": "hand"}),
                "{when}: {kind} {name} bears no mark of ours"
            );
        }
    };

    // A revision takes them over and fails: they stay, the rest goes.
    let adopting = |stage: &Stage, more: &[Value]| {
        stage.app("shop", "adopt: true\nprune: {maxDelete: 100%}\nhealth: {timeout: 5s, soak: 100ms}\n");
        let mut all = vec![config_map("ours", "2"), theirs[0].clone(), theirs[1].clone()];
        all.extend_from_slice(more);
        stage.manifest("shop", "x.yaml", &all);
    };
    adopting(&stage, &[theirs[2].clone(), config_map("made", "1"), deployment("never", 1)]);
    let bad = stage.push("adopts, and fails");
    stage.device.wait_stalled(&good, &bad, 90);
    as_it_was("after the rollback");
    assert_eq!(cluster.get(&space, "configmap", "made"), Value::Null, "what the revision itself made is gone");
    // A later compare has nothing to clean up either.
    stage.device.sync();
    assert_eq!(cluster.get(&space, "configmap", "ours")["data"]["value"], "1");
    as_it_was("after another compare");

    // One that is good has them; an operator goes back behind it.
    adopting(&stage, &[config_map("made", "1")]);
    stage.pushed("adopts");
    assert_eq!(cluster.get(&space, "configmap", "map")["metadata"]["labels"]["burgee.dev/app"], "shop");
    let output = stage.device.call(&["rollback"]);
    assert!(output.status.success(), "{output:?}");
    until("it is back", LONG, || (cluster.get(&space, "configmap", "made") == Value::Null).then_some(()));
    until("it is at rest", LONG, || (stage.device.status()?["revision"] == good.as_str()).then_some(()));
    as_it_was("after an operator's rollback");

    // What a good revision had goes like anything else when a commit drops it.
    adopting(&stage, &[config_map("made", "2")]);
    stage.pushed("adopts again");
    stage.manifest("shop", "x.yaml", &[config_map("ours", "2")]);
    stage.pushed("drops them");
    assert_eq!(cluster.get(&space, "configmap", "map"), Value::Null);
}
