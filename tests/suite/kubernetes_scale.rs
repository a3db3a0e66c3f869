//! What the Kubernetes runtime costs the API server and the device: requests,
//! counted by a server in between, and memory, where there is much to apply.

use std::time::Duration;

use harness::between::Between;
use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map};
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
}
