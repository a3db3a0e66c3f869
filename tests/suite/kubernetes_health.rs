//! Health on a real Kubernetes: pods that run on a node, and custom resources
//! whose ways are known. No controller of theirs runs here: what it would write
//! into a status, kubectl does.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map};
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

fn web(image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "web", "image": image, "imagePullPolicy": "IfNotPresent",
                        "command": ["/bin/sh", "-c", "echo up; exec httpd -f -p 8080 -h /www"],
                        "readinessProbe": {"httpGet": {"path": "/index.html", "port": 8080}, "periodSeconds": 1},
                    }],
                },
            },
        },
    })
}

#[test]
fn pods_that_run_and_an_image_that_does_not_exist() {
    let cluster = Cluster::shared_with_node();
    cluster.image("localhost/web:1", &[("www/index.html", "one")]);
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 25s, soak: 1s}\n")]);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[web("localhost/web:1"), config_map("map", "1")]);
    let good = stage.pushed("first");
    let status = stage.device.wait("it is healthy", 30, |status| status["apps"][0]["health"] == "healthy");
    assert_eq!(status["apps"][0]["message"], Value::Null, "{status:#}");
    let serves = || cluster.kubectl(&["exec", "deployment/web", "-n", &space, "--", "cat", "/www/index.html"]);
    assert_eq!(serves(), "one");
    let pods =
        || cluster.kubectl(&["get", "pods", "-n", &space, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.uid}"]);
    let before = pods();
    let logs = stage.device.call(&["logs", "shop"]);
    assert!(String::from_utf8_lossy(&logs.stdout).contains("up"), "{logs:?}");

    // Nobody has the image: said by the pod, long before the time-out.
    stage.manifest("shop", "x.yaml", &[web("localhost/missing:1"), config_map("map", "2")]);
    let bad = stage.push("no such image");
    let words = |said: &str| {
        said.contains("Deployment.apps")
            && said.contains("container web: ")
            && (said.contains("ImagePullBackOff: ") || said.contains("ErrImagePull: "))
            && said.contains("localhost/missing:1")
    };
    let status = stage.device.wait("it is degraded, in the pod's words", 24, |status| {
        status["apps"][0]["health"] == "degraded" && words(&status["apps"][0]["message"].to_string())
    });
    assert_eq!(status["phase"], "probing", "before its time is over: {status:#}");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(words(&status["conditions"].to_string()), "{status:#}");
    // The old pods serve as before: they were never away.
    until("the new pod is gone", LONG, || (pods() == before).then_some(()));
    assert_eq!(serves(), "one");
    assert_eq!(cluster.get(&space, "configmap", "map")["data"]["value"], "1");
}

/// A definition as its project has it, as far as burgee looks: any fields, and
/// a status of its own.
fn definition(group: &str, version: &str, plural: &str, kind: &str) -> String {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{
                "name": version, "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}},
            }],
        },
    })
    .to_string()
}

/// What a controller would write.
fn says(cluster: &Cluster, space: &str, kind: &str, name: &str, status: &Value) {
    let patch = json!({"status": status}).to_string();
    until("the object is there", LONG, || {
        cluster
            .try_kubectl(&["patch", kind, name, "-n", space, "--subresource=status", "--type=merge", "-p", &patch])
            .ok()
    });
}

#[test]
fn rollouts_and_sealed_secrets_are_judged_by_their_own_words() {
    let cluster = Cluster::shared_with_node();
    cluster.apply(&definition("argoproj.io", "v1alpha1", "rollouts", "Rollout"));
    cluster.apply(&definition("bitnami.com", "v1alpha1", "sealedsecrets", "SealedSecret"));
    for name in ["rollouts.argoproj.io", "sealedsecrets.bitnami.com"] {
        cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            &format!("customresourcedefinition/{name}"),
            "--timeout=30s",
        ]);
    }
    let object = |kind: &str, version: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, "spec": spec});
    let rollout = |replicas: u32| object("Rollout", "argoproj.io/v1alpha1", json!({"replicas": replicas}));
    let sealed =
        |text: &str| object("SealedSecret", "bitnami.com/v1alpha1", json!({"encryptedData": {"password": text}}));
    let unsealed = |yes: bool| {
        let status = if yes { "True" } else { "False" };
        json!({"observedGeneration": 1, "conditions": [{"type": "Synced", "status": status, "message": "no key could decrypt secret (password)"}]})
    };
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 12s, soak: 300ms}\n")]);
    let space = stage.space.clone();

    // Not seen by a controller is not well; well is what it says.
    stage.manifest("shop", "x.yaml", &[rollout(1), sealed("AgB1")]);
    let good = stage.push("first");
    let status =
        stage.device.wait("it waits for the controllers", 40, |status| status["apps"][0]["health"] == "progressing");
    assert_eq!(status["phase"], "probing", "{status:#}");
    says(cluster, &space, "rollouts.argoproj.io", "x", &json!({"phase": "Healthy", "observedGeneration": "1"}));
    says(cluster, &space, "sealedsecrets.bitnami.com", "x", &unsealed(true));
    stage.device.wait_steady(&good, 60);

    // Degraded, in the controller's words.
    stage.manifest("shop", "x.yaml", &[rollout(2), sealed("AgB1")]);
    let bad = stage.push("a bad rollout");
    until("it is applied", LONG, || {
        (cluster.get(&space, "rollouts.argoproj.io", "x")["spec"]["replicas"] == 2).then_some(())
    });
    says(
        cluster,
        &space,
        "rollouts.argoproj.io",
        "x",
        &json!({"phase": "Degraded", "message": "ProgressDeadlineExceeded: web-7d", "observedGeneration": "2"}),
    );
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("ProgressDeadlineExceeded: web-7d"), "{status:#}");
    assert_eq!(cluster.get(&space, "rollouts.argoproj.io", "x")["spec"]["replicas"], 1);
    says(
        cluster,
        &space,
        "rollouts.argoproj.io",
        "x",
        &json!({"phase": "Healthy", "message": "", "observedGeneration": "3"}),
    );

    stage.manifest("shop", "x.yaml", &[rollout(1), sealed("broken")]);
    let bad = stage.push("a secret that nobody can open");
    until("it is applied", LONG, || {
        (cluster.get(&space, "sealedsecrets.bitnami.com", "x")["spec"]["encryptedData"]["password"] == "broken")
            .then_some(())
    });
    says(
        cluster,
        &space,
        "sealedsecrets.bitnami.com",
        "x",
        &json!({"observedGeneration": 2, "conditions": unsealed(false)["conditions"]}),
    );
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("no key could decrypt secret"), "{status:#}");
}

#[test]
fn a_helm_chart_is_as_well_as_its_job() {
    let cluster = Cluster::shared_with_node();
    cluster.image("localhost/helm:1", &[]);
    cluster.apply(&definition("helm.cattle.io", "v1", "helmcharts", "HelmChart"));
    cluster.kubectl(&[
        "wait",
        "--for=condition=Established",
        "customresourcedefinition/helmcharts.helm.cattle.io",
        "--timeout=30s",
    ]);
    let chart = |version: &str| json!({"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": "db"}, "spec": {"chart": "db", "version": version}});
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 30s, soak: 300ms}\n")]);
    let space = stage.space.clone();
    // As k3s's controller does: a Job by this name, made anew for each change,
    // that is let run when Kubernetes knows it.
    let phase = |stage: &Stage| stage.device.status().expect("a status")["phase"].clone();
    let install = |stage: &Stage, command: &str| {
        let _ = cluster.try_kubectl(&["delete", "job", "helm-install-db", "-n", &space, "--wait=true"]);
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "helm-install-db", "namespace": space},
            "spec": {"suspend": true, "backoffLimit": 0, "template": {"spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "helm", "image": "localhost/helm:1", "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", command]}],
            }}},
        });
        cluster.apply(&job.to_string());
        says(cluster, &space, "helmcharts.helm.cattle.io", "db", &json!({"jobName": "helm-install-db"}));
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(phase(stage), "probing", "that nothing was installed yet is no health");
        cluster.kubectl(&[
            "patch",
            "job",
            "helm-install-db",
            "-n",
            &space,
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":false}}"#,
        ]);
    };
    let version = || cluster.get(&space, "helmcharts.helm.cattle.io", "db")["spec"]["version"].clone();

    stage.manifest("shop", "x.yaml", &[chart("1")]);
    let good = stage.push("first");
    until("it is applied", LONG, || (version() == "1").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(phase(&stage), "probing", "no Job, no health");
    install(&stage, "sleep 2; true");
    stage.device.wait_steady(&good, 60);

    stage.manifest("shop", "x.yaml", &[chart("2")]);
    let bad = stage.push("second");
    until("it is applied", LONG, || (version() == "2").then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    install(&stage, "echo INSTALLATION FAILED; exit 1");
    let status = stage.device.wait_stalled(&good, &bad, 90);
    let said = status["conditions"].to_string();
    assert!(said.contains("HelmChart.helm.cattle.io") && said.contains("Job helm-install-db"), "{said}");
    assert_eq!(version(), "1");
}

#[test]
fn a_claim_is_as_well_as_its_storage_class_lets_it_be() {
    let cluster = Cluster::shared_with_node();
    for (name, mode) in [("first-pod", "WaitForFirstConsumer"), ("at-once", "Immediate")] {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": "example.com/none", "volumeBindingMode": mode});
        cluster.apply(&class.to_string());
    }
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 3s, soak: 300ms}\n")]);
    let claim = |name: &str, class: &str| json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}});
    stage.manifest("shop", "x.yaml", &[claim("data", "first-pod")]);
    let good = stage.pushed("one that waits for a pod is well");
    for (class, words) in
        [("nowhere", "there is no StorageClass nowhere"), ("at-once", "StorageClass at-once has made no volume yet")]
    {
        stage.manifest("shop", "x.yaml", &[claim("data", "first-pod"), claim(class, class)]);
        let bad = stage.push(class);
        let status = stage.device.wait_stalled(&good, &bad, 60);
        assert!(status["conditions"].to_string().contains(words), "{status:#}");
    }
}

#[test]
fn every_kind_of_workload_is_as_well_as_its_pods() {
    let cluster = Cluster::shared_with_node();
    cluster.image("localhost/web:1", &[("www/index.html", "one")]);
    let mut stage = Stage::new(cluster, &[("shop", "health: {timeout: 40s, soak: 1s}\n")]);
    let pods = |name: &str, command: &str, restart: &str| {
        json!({
            "metadata": {"labels": {"app": name}},
            "spec": {
                "terminationGracePeriodSeconds": 1, "restartPolicy": restart,
                "containers": [{"name": "c", "image": "localhost/web:1", "imagePullPolicy": "IfNotPresent", "command": ["/bin/sh", "-c", command]}],
            },
        })
    };
    let with = |api: &str, kind: &str, name: &str, mut spec: Value| {
        if spec["selector"] == "own" {
            spec["selector"] = json!({"matchLabels": {"app": name}});
        }
        json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec})
    };
    let job = |name: &str, command: &str| {
        with("batch/v1", "Job", name, json!({"backoffLimit": 0, "template": pods(name, command, "Never")}))
    };
    let all = [
        with(
            "apps/v1",
            "StatefulSet",
            "set",
            json!({"serviceName": "set", "selector": "own", "template": pods("set", "exec sleep 600", "Always")}),
        ),
        with(
            "apps/v1",
            "DaemonSet",
            "every",
            json!({"selector": "own", "template": pods("every", "exec sleep 600", "Always")}),
        ),
        with("policy/v1", "PodDisruptionBudget", "set", json!({"minAvailable": 1, "selector": "own"})),
        with(
            "networking.k8s.io/v1",
            "Ingress",
            "way",
            json!({"defaultBackend": {"service": {"name": "set", "port": {"number": 80}}}}),
        ),
        job("once", "exit 0"),
    ];
    stage.manifest("shop", "x.yaml", &all);
    let good = stage.pushed("all of them");
    let names = ["statefulset/set", "daemonset/every", "job/once"];
    let ready = |path: &str, name: &str| {
        cluster.kubectl(&["-n", &stage.space, "get", name, "-o", &format!("jsonpath={{{path}}}")])
    };
    assert_eq!(ready(".status.readyReplicas", names[0]), "1");
    assert_eq!(ready(".status.numberReady", names[1]), "1");
    assert_eq!(ready(".status.succeeded", names[2]), "1");
    for (bad, words) in [
        (job("fails", "exit 3"), "Job.batch"),
        (
            with(
                "apps/v1",
                "StatefulSet",
                "sick",
                json!({"serviceName": "sick", "selector": "own", "template": pods("sick", "exit 3", "Always")}),
            ),
            "StatefulSet.apps",
        ),
    ] {
        stage.app("shop", "health: {timeout: 8s, soak: 1s}\n");
        stage.manifest("shop", "x.yaml", &[&all[..], &[bad]].concat());
        let head = stage.push(words);
        let status = stage.device.wait_stalled(&good, &head, 90);
        assert!(status["conditions"].to_string().contains(words), "{status:#}");
    }
}

/// An extension of the API whose server nobody runs, or one that needs none.
fn extension(group: &str, service: Option<&str>) -> Value {
    let mut spec = json!({"group": group, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10});
    if let Some(service) = service {
        spec["service"] = json!({"name": service, "namespace": "default", "port": 443});
        spec["insecureSkipTLSVerify"] = json!(true);
    }
    let name = format!("v1.{group}");
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec})
}

#[test]
fn an_extension_of_the_api_is_as_well_as_the_server_finds_it() {
    // One that is down stands in the way of whoever asks what a server knows.
    let cluster = Cluster::start();
    cluster.apply(&extension("metrics.example.com", Some("gone")).to_string());
    until("the server finds it down", LONG, || {
        let found = cluster.get("default", "apiservice", "v1.metrics.example.com");
        (found["status"]["conditions"][0]["status"] == "False").then_some(())
    });
    // Somebody else's does not concern us.
    let mut stage = Stage::new(&cluster, &[("shop", "")]);
    stage.manifest("shop", "x.yaml", &[config_map("map", "1"), config_map("more", "1")]);
    stage.pushed("first");
    stage.manifest("shop", "x.yaml", &[config_map("map", "2"), extension("local.example.com", None)]);
    let second = stage.pushed("one that needs no server");
    assert_eq!(cluster.get(&stage.space, "configmap", "more"), Value::Null);
    let status = stage.device.wait("it is healthy", 30, |status| status["apps"][0]["health"] == "healthy");
    assert_eq!(status["apps"][0]["message"], Value::Null, "{status:#}");

    // Our own, whose server is not there: not healthy in time, in the server's words.
    stage.manifest("shop", "x.yaml", &[config_map("map", "3"), extension("own.example.com", Some("missing"))]);
    let third = stage.push("one whose server is missing");
    let status = stage.device.wait_stalled(&second, &third, 60);
    let conditions = status["conditions"].to_string();
    assert!(conditions.contains("v1.own.example.com") && conditions.contains("service/missing in"), "{status:#}");
    assert_eq!(cluster.get(&stage.space, "configmap", "map")["data"]["value"], "2");
    assert_eq!(cluster.get("default", "apiservice", "v1.own.example.com"), Value::Null);
    assert_ne!(cluster.get("default", "apiservice", "v1.local.example.com"), Value::Null);
}
