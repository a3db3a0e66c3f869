//! The API server that other suites rely on: that it is a real one.

use std::time::Duration;

use harness::cluster::{Cluster, Rules};
use harness::{net, wait};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn deployment(namespace: &str, name: &str, image: &str) -> String {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "web", "image": image, "imagePullPolicy": "Never",
                        "command": ["/bin/sh", "-c", "echo up; exec httpd -f -p 8080 -h /www"],
                        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
    .to_string()
}

#[test]
fn server_side_apply_knows_its_managers() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    let map = |value: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": namespace},
            "data": {"colour": value},
        })
        .to_string()
    };
    cluster.apply(&map("green"));
    let found = cluster.get(&namespace, "configmap", "settings");
    assert_eq!(found["data"]["colour"], "green");
    cluster.kubectl(&["label", "configmap", "settings", "--namespace", &namespace, "by=hand"]);
    cluster.apply(&map("blue"));
    let found = cluster.get(&namespace, "configmap", "settings");
    assert_eq!(found["data"]["colour"], "blue");
    assert_eq!(found["metadata"]["labels"]["by"], "hand");
    // What another manager owns is a conflict.
    let patch = r#"{"data": {"colour": "red"}}"#;
    cluster.kubectl(&["patch", "configmap", "settings", "--namespace", &namespace, "--field-manager=x", "-p", patch]);
    let refused = std::panic::catch_unwind(|| cluster.apply(&map("blue"))).expect_err("a conflict");
    assert!(refused.downcast_ref::<String>().expect("a text").contains("conflict"), "{refused:?}");
    assert_eq!(cluster.get(&namespace, "configmap", "missing"), Value::Null);
}

#[test]
fn controllers_act() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    cluster.apply(&deployment(&namespace, "web", "localhost/web:1"));
    wait::until("a ReplicaSet and its Pod", LONG, || {
        let found = cluster.kubectl(&["get", "replicaset,pod", "--namespace", &namespace, "-o", "name"]);
        (found.contains("replicaset.apps/web-") && found.contains("pod/web-")).then_some(())
    });
    // Owners, finalizers and the namespace's own end are controllers' work, too.
    cluster.kubectl(&["delete", "deployment", "web", "--namespace", &namespace, "--cascade=foreground"]);
    assert_eq!(cluster.kubectl(&["get", "replicaset,pod", "--namespace", &namespace, "-o", "name"]), "");
    cluster.kubectl(&["delete", "namespace", &namespace]);
}

#[test]
fn a_token_may_do_what_its_rules_say() {
    let cluster = Cluster::shared();
    let namespace = cluster.namespace();
    let reads = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]);
    let rules = Rules { namespaced: vec![(namespace.clone(), reads)], everywhere: None };
    let user = cluster.user(&namespace, "reader", &rules);
    let maps = cluster.kubectl_as(&user, &["get", "configmaps", "-o", "name"]).expect("allowed");
    assert_eq!(maps.trim(), "configmap/kube-root-ca.crt");
    for refused in [&["get", "secrets"][..], &["create", "configmap", "x"], &["get", "configmaps", "-n", "default"]] {
        let said = cluster.kubectl_as(&user, refused).expect_err("refused");
        assert!(said.to_lowercase().contains("forbidden"), "{said}");
    }
    assert!(cluster.ca().starts_with("-----BEGIN CERTIFICATE-----"));
}

#[test]
fn kubectl_renders_kustomizations() {
    let cluster = Cluster::shared();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("kustomization.yaml"), "configMapGenerator: [{name: a, literals: [k=v]}]\n")
        .expect("written");
    let rendered = cluster.kubectl(&["kustomize", folder.path().to_str().expect("a path")]);
    assert!(rendered.contains("kind: ConfigMap") && rendered.contains("k: v"), "{rendered}");
}

#[test]
fn data_outlives_the_api_server() {
    let mut cluster = Cluster::start();
    let namespace = cluster.namespace();
    let port: u16 = cluster.address().rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    cluster.apply(&deployment(&namespace, "web", "localhost/web:1"));
    let uid = cluster.get(&namespace, "deployment", "web")["metadata"]["uid"].clone();
    cluster.stop_api();
    assert!(!net::answers(port));
    let said = cluster.try_kubectl(&["get", "deployments", "--namespace", &namespace]).expect_err("nobody answers");
    assert!(said.contains("refused"), "{said}");
    cluster.start_api();
    assert_eq!(cluster.get(&namespace, "deployment", "web")["metadata"]["uid"], uid);
    cluster.kill_api();
    assert!(!net::answers(port));
    cluster.start_api();
    assert_eq!(cluster.get(&namespace, "deployment", "web")["metadata"]["uid"], uid);
    cluster.pause_api();
    assert!(net::answers(port));
    let said = cluster.try_kubectl(&["--request-timeout=1s", "get", "namespaces"]).expect_err("no answer");
    assert!(said.contains("imeout") || said.contains("deadline"), "{said}");
    cluster.resume_api();
    assert_eq!(cluster.get(&namespace, "deployment", "web")["metadata"]["uid"], uid);
    // The controllers found their way back.
    cluster.kubectl(&["scale", "deployment", "web", "--replicas=2", "--namespace", &namespace]);
    wait::until("two Pods", LONG, || {
        let pods = cluster.kubectl(&["get", "pods", "--namespace", &namespace, "-o", "name"]);
        (pods.lines().count() == 2).then_some(())
    });
}

#[test]
fn pods_run_on_a_node() {
    let cluster = Cluster::shared_with_node();
    let namespace = cluster.namespace();
    cluster.image("localhost/web:1", &[("www/index.html", "one")]);
    cluster.apply(&deployment(&namespace, "web", "localhost/web:1"));
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s", "--namespace", &namespace]);
    assert_eq!(cluster.kubectl(&["logs", "deployment/web", "--namespace", &namespace]), "up\n");
    let inside = ["exec", "deployment/web", "--namespace", &namespace, "--", "cat", "/www/index.html"];
    assert_eq!(cluster.kubectl(&inside), "one");
    // One that never becomes ready is seen as such.
    cluster.apply(&deployment(&namespace, "lost", "localhost/missing:1"));
    wait::until("the image to be missed", LONG, || {
        let pods = cluster.kubectl(&["get", "pods", "--namespace", &namespace]);
        pods.contains("ErrImageNeverPull").then_some(())
    });
    cluster.kubectl(&["delete", "namespace", &namespace]);
}
