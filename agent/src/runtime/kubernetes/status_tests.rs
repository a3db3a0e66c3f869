//! How objects stand, by case.

use fleet::kubernetes::Kind;
use serde_json::{Value, json};

use super::{State, has_status, status};

fn check(name: &str, object: &Value, state: State, message: &str) {
    let got = status(object);
    assert_eq!((got.state, got.message.as_str()), (state, message), "{name}");
}

fn workload(kind: &str, spec: Value, status: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"generation": 2}, "spec": spec, "status": status})
}

fn conditions(list: &[(&str, &str, &str, &str)]) -> Value {
    list.iter()
        .map(|(kind, status, reason, message)| json!({"type": kind, "status": status, "reason": reason, "message": message}))
        .collect()
}

#[test]
fn deployments() {
    let of = |status: Value| workload("Deployment", json!({"replicas": 3}), status);
    check("new", &of(json!({})), State::InProgress, "not looked at by its controller yet");
    check(
        "unseen",
        &of(json!({"observedGeneration": 1})),
        State::InProgress,
        "its controller has not seen the last change yet",
    );
    check(
        "rolling",
        &of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1})),
        State::InProgress,
        "1 of 3 replicas updated",
    );
    check(
        "old ones stop",
        &of(json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3})),
        State::InProgress,
        "1 replicas of before still stop",
    );
    check(
        "not available",
        &of(json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 1})),
        State::InProgress,
        "1 of 3 replicas available",
    );
    let whole = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3});
    check("whole", &of(whole.clone()), State::Current, "");
    let stuck = conditions(&[("Progressing", "False", "ProgressDeadlineExceeded", "timed out")]);
    check(
        "stuck",
        &of(json!({"observedGeneration": 2, "conditions": stuck})),
        State::Failed,
        "ProgressDeadlineExceeded: timed out",
    );
    check("paused", &workload("Deployment", json!({"paused": true}), whole), State::Suspended, "paused");
    check(
        "none asked for",
        &workload("Deployment", json!({"replicas": 0}), json!({"observedGeneration": 2})),
        State::Current,
        "",
    );
}

#[test]
fn other_workloads() {
    let set = |status: Value| workload("StatefulSet", json!({"replicas": 2}), status);
    check(
        "set, not ready",
        &set(json!({"observedGeneration": 2, "readyReplicas": 1})),
        State::InProgress,
        "1 of 2 replicas ready",
    );
    check(
        "set, old revision",
        &set(
            json!({"observedGeneration": 2, "readyReplicas": 2, "replicas": 2, "updatedReplicas": 1, "currentRevision": "a", "updateRevision": "b"}),
        ),
        State::InProgress,
        "1 of 2 replicas updated",
    );
    let on_delete = workload("StatefulSet", json!({"updateStrategy": {"type": "OnDelete"}}), json!({}));
    check("set, on delete", &on_delete, State::Current, "");
    let partition = workload(
        "StatefulSet",
        json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}}),
        json!({"observedGeneration": 2, "readyReplicas": 3, "replicas": 3, "updatedReplicas": 1}),
    );
    check("set, partition", &partition, State::Current, "");
    let daemons = |status: Value| workload("DaemonSet", json!({}), status);
    check(
        "daemons",
        &daemons(
            json!({"observedGeneration": 2, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1}),
        ),
        State::InProgress,
        "1 of 2 pods available",
    );
    check(
        "no node for it",
        &daemons(json!({"observedGeneration": 2, "desiredNumberScheduled": 0})),
        State::Current,
        "",
    );
    let job =
        |spec: Value, status: Value| json!({"apiVersion": "batch/v1", "kind": "Job", "spec": spec, "status": status});
    check("job runs", &job(json!({}), json!({"active": 1})), State::InProgress, "0 of 1 pods succeeded");
    check(
        "job done",
        &job(json!({}), json!({"conditions": conditions(&[("Complete", "True", "", "")])})),
        State::Current,
        "",
    );
    let failed = conditions(&[("Failed", "True", "BackoffLimitExceeded", "too often")]);
    check(
        "job failed",
        &job(json!({}), json!({"conditions": failed})),
        State::Failed,
        "BackoffLimitExceeded: too often",
    );
    check("job suspended", &job(json!({"suspend": true}), json!({})), State::Suspended, "suspended");
    let pod = |status: Value| json!({"apiVersion": "v1", "kind": "Pod", "status": status});
    check("pod waits", &pod(json!({"phase": "Pending"})), State::InProgress, "not started yet");
    check("pod ran", &pod(json!({"phase": "Succeeded"})), State::Current, "");
    check(
        "pod is ready",
        &pod(json!({"phase": "Running", "conditions": conditions(&[("Ready", "True", "", "")])})),
        State::Current,
        "",
    );
}

#[test]
fn other_kinds() {
    let of = |version: &str, kind: &str, spec: Value, status: Value| json!({"apiVersion": version, "kind": kind, "spec": spec, "status": status});
    let cases = [
        (
            "balancer",
            of("v1", "Service", json!({"type": "LoadBalancer"}), json!({})),
            State::InProgress,
            "no address from a load balancer yet",
        ),
        ("service", of("v1", "Service", json!({}), json!({})), State::Current, ""),
        (
            "claim lost",
            of("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Lost"})),
            State::Failed,
            "its volume is lost",
        ),
        ("claim waits", of("v1", "PersistentVolumeClaim", json!({}), json!({"phase": "Pending"})), State::Current, ""),
        ("cron", of("batch/v1", "CronJob", json!({}), json!({})), State::Current, ""),
        (
            "definition",
            of(
                "apiextensions.k8s.io/v1",
                "CustomResourceDefinition",
                json!({}),
                json!({"conditions": conditions(&[("NamesAccepted", "False", "Conflict", "taken")])}),
            ),
            State::Failed,
            "its names are not accepted: Conflict: taken",
        ),
        (
            "service of the API",
            of(
                "apiregistration.k8s.io/v1",
                "APIService",
                json!({}),
                json!({"conditions": conditions(&[("Available", "False", "Missing", "gone")])}),
            ),
            State::InProgress,
            "not available: Missing: gone",
        ),
        (
            "chart",
            of("helm.cattle.io/v1", "HelmChart", json!({}), json!({"jobName": "install"})),
            State::InProgress,
            "its chart is being installed",
        ),
        (
            "rollout",
            of("argoproj.io/v1alpha1", "Rollout", json!({}), json!({"phase": "Degraded", "message": "bad"})),
            State::Failed,
            "bad",
        ),
        (
            "sealed",
            of(
                "bitnami.com/v1alpha1",
                "SealedSecret",
                json!({}),
                json!({"conditions": conditions(&[("Synced", "False", "", "no key")])}),
            ),
            State::Failed,
            "no key",
        ),
        ("anything", of("x.io/v1", "Thing", json!({}), json!({})), State::Current, ""),
        (
            "not ready",
            of("x.io/v1", "Thing", json!({}), json!({"conditions": conditions(&[("Ready", "False", "Why", "so")])})),
            State::InProgress,
            "not ready: Why: so",
        ),
        (
            "stalled",
            of("x.io/v1", "Thing", json!({}), json!({"conditions": conditions(&[("Stalled", "True", "Why", "so")])})),
            State::Failed,
            "Why: so",
        ),
        (
            "leaving",
            json!({"kind": "Pod", "metadata": {"deletionTimestamp": "now"}}),
            State::Terminating,
            "it is being deleted",
        ),
    ];
    for (name, object, state, message) in cases {
        check(name, &object, state, message);
    }
    let argo = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"generation": 3}, "status": {"observedGeneration": "2", "phase": "Healthy"}});
    check("a generation as text", &argo, State::InProgress, "its controller has not seen the last change yet");
    assert!(has_status(&Kind::of("apps/v1", "Deployment")) && has_status(&Kind::of("x.io/v1", "Thing")));
    assert!(
        !has_status(&Kind::of("v1", "ConfigMap")) && !has_status(&Kind::of("rbac.authorization.k8s.io/v1", "Role"))
    );
}
