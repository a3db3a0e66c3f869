use jiff::Timestamp;
use serde_json::Value;

use super::Severity::{Degraded, Progressing};
use super::{Severity, selector, trouble, which_pods_matter};
use crate::runtime::kubernetes::fields::yaml;

fn now() -> Timestamp {
    "2026-05-01T10:01:00Z".parse().unwrap()
}

/// `pods` is a YAML list, in which pods without a name are `web-1`.
#[track_caller]
fn check(pods: &str, want: Option<(Severity, &str)>) {
    let mut pods = yaml(pods);
    for pod in pods.as_array_mut().unwrap() {
        if pod["metadata"]["name"].is_null() {
            pod["metadata"]["name"] = "web-1".into();
        }
    }
    let found = trouble(pods.as_array().unwrap(), now());
    assert_eq!(found.as_ref().map(|found| (found.severity, found.message.as_str())), want);
}

/// A pod whose one container has this status.
fn pod(container: &str) -> String {
    format!("[{{status: {{phase: Pending, containerStatuses: [{{name: app, {container}}}]}}}}]")
}

#[test]
fn waiting() {
    check("[]", None);
    let waiting =
        |reason: &str, message: &str| pod(&format!("state: {{waiting: {{reason: {reason}, message: '{message}'}}}}"));
    check(
        &waiting("ImagePullBackOff", "Back-off pulling image \"ghcr.io/a/b:1\""),
        Some((Degraded, "pod web-1: container app: ImagePullBackOff: Back-off pulling image \"ghcr.io/a/b:1\"")),
    );
    for reason in
        ["ErrImagePull", "InvalidImageName", "CreateContainerConfigError", "CreateContainerError", "RunContainerError"]
    {
        check(&waiting(reason, "no"), Some((Degraded, &format!("pod web-1: container app: {reason}: no"))));
    }
    check(&waiting("ContainerCreating", ""), Some((Progressing, "pod web-1: container app: ContainerCreating")));
    check(&pod("state: {waiting: {}}"), Some((Progressing, "pod web-1: container app: waiting")));
    // A registry's answer may have many lines.
    let long = format!("rpc error:\n\n  {}", "x".repeat(1000));
    let found = trouble(yaml(&waiting("ErrImagePull", &long)).as_array().unwrap(), now()).unwrap();
    assert!(found.message.len() < 420 && found.message.ends_with('…') && !found.message.contains('\n'), "{found:?}");
}

#[test]
fn crashes() {
    let crash = |restarts: u32, end: &str| {
        pod(&format!(
            "restartCount: {restarts}, state: {{waiting: {{reason: CrashLoopBackOff, message: back-off 5m0s restarting}}}}, lastState: {{terminated: {{{end}}}}}"
        ))
    };
    check(
        &crash(5, "exitCode: 1, reason: Error"),
        Some((Degraded, "pod web-1: container app: CrashLoopBackOff: restarted 5 times, last exited with code 1")),
    );
    check(
        &crash(1, "exitCode: 137, reason: OOMKilled"),
        Some((
            Degraded,
            "pod web-1: container app: CrashLoopBackOff: restarted once, last exited with code 137 (OOMKilled)",
        )),
    );
    check(
        &crash(2, r#"exitCode: 128, reason: StartError, message: "a\nexec: \"/nope\": no such file\n""#),
        Some((
            Degraded,
            "pod web-1: container app: CrashLoopBackOff: restarted 2 times, last exited with code 128 (StartError): exec: \"/nope\": no such file",
        )),
    );
    check(
        &pod("state: {waiting: {reason: CrashLoopBackOff, message: back-off 10s}}"),
        Some((Degraded, "pod web-1: container app: CrashLoopBackOff: back-off 10s")),
    );
    check(&pod("state: {terminated: {exitCode: 3}}"), Some((Degraded, "pod web-1: container app: exited with code 3")));
    check(&pod("state: {terminated: {exitCode: 0, reason: Completed}}"), None);
    let again = |started: &str| {
        pod(&format!(
            "ready: false, restartCount: 2, state: {{running: {{startedAt: '{started}'}}}}, lastState: {{terminated: {{exitCode: 1, reason: Error}}}}"
        ))
    };
    let words = "pod web-1: container app: restarted 2 times, last exited with code 1";
    check(&again("2026-05-01T10:00:30Z"), Some((Degraded, words)));
    check(&again("2026-05-01T09:59:30Z"), Some((Progressing, words)));
}

#[test]
fn running() {
    check(&pod("ready: true, started: true, state: {running: {}}"), None);
    check(
        &pod("ready: false, started: true, state: {running: {}}"),
        Some((Progressing, "pod web-1: container app: not ready")),
    );
    check(
        &pod("ready: false, started: false, state: {running: {}}"),
        Some((Progressing, "pod web-1: container app: its startup probe has not passed yet")),
    );
    check(
        "[{status: {phase: Running, conditions: [{type: Ready, status: 'False', reason: ReadinessGatesNotReady, message: gate a is not true}], containerStatuses: [{name: app, ready: true, state: {running: {}}}]}}]",
        Some((Progressing, "pod web-1: gate a is not true")),
    );
}

#[test]
fn init_containers() {
    let init = |init: &str| {
        format!(
            "[{{status: {{phase: Pending, initContainerStatuses: [{init}], containerStatuses: [{{name: app, state: {{waiting: {{reason: PodInitializing}}}}}}]}}}}]"
        )
    };
    check(
        &init(
            "{name: migrate, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 2}}}",
        ),
        Some((
            Degraded,
            "pod web-1: init container migrate: CrashLoopBackOff: restarted 3 times, last exited with code 2",
        )),
    );
    check(
        &init("{name: migrate, state: {terminated: {exitCode: 1}}}"),
        Some((Degraded, "pod web-1: init container migrate: exited with code 1")),
    );
    check(
        &init("{name: wait, ready: false, started: false, state: {running: {}}}"),
        Some((Progressing, "pod web-1: init container wait: still running")),
    );
    // One is done, and a sidecar runs.
    check(
        &init(
            "{name: a, ready: true, state: {terminated: {exitCode: 0}}}, {name: b, ready: false, started: true, state: {running: {}}}",
        ),
        Some((Progressing, "pod web-1: container app: PodInitializing")),
    );
}

#[test]
fn whole_pods() {
    let unscheduled = |reason: &str, made: &str| {
        format!(
            "[{{metadata: {{creationTimestamp: '{made}'}}, status: {{phase: Pending, conditions: [{{type: PodScheduled, status: 'False', reason: {reason}, message: '0/1 nodes are available: 1 Insufficient memory.'}}]}}}}]"
        )
    };
    let words = "pod web-1: Unschedulable: 0/1 nodes are available: 1 Insufficient memory.";
    check(&unscheduled("Unschedulable", "2026-05-01T10:00:55Z"), Some((Progressing, words)));
    check(&unscheduled("Unschedulable", "2026-05-01T10:00:00Z"), Some((Degraded, words)));
    check(
        &unscheduled("SchedulingGated", "2026-05-01T10:00:00Z"),
        Some((Progressing, "pod web-1: SchedulingGated: 0/1 nodes are available: 1 Insufficient memory.")),
    );
    let sandbox = |since: &str| {
        format!(
            "[{{status: {{phase: Pending, conditions: [{{type: PodReadyToStartContainers, status: 'False', lastTransitionTime: '{since}'}}], containerStatuses: [{{name: app, state: {{waiting: {{reason: ContainerCreating}}}}}}]}}}}]"
        )
    };
    check(&sandbox("2026-05-01T10:00:30Z"), Some((Progressing, "pod web-1: container app: ContainerCreating")));
    check(
        &sandbox("2026-05-01T09:59:00Z"),
        Some((Degraded, "pod web-1: no sandbox for 120 s: its network or a volume is not ready, see its events")),
    );
    let failed = |owner: &str| {
        format!(
            "{{metadata: {{name: old, ownerReferences: [{owner}]}}, status: {{phase: Failed, reason: Evicted, message: low on memory}}}}"
        )
    };
    check(&format!("[{}]", failed("")), Some((Degraded, "pod old: Evicted: low on memory")));
    check(
        &format!("[{}]", failed("{kind: ReplicaSet, controller: true}")),
        Some((Progressing, "pod old: Evicted: low on memory")),
    );
    // The pod that took its place says more; a Job's next try does not.
    let creating =
        "{status: {phase: Pending, containerStatuses: [{name: app, state: {waiting: {reason: ContainerCreating}}}]}}";
    check(
        &format!("[{}, {creating}]", failed("{kind: ReplicaSet, controller: true}")),
        Some((Progressing, "pod web-1: container app: ContainerCreating")),
    );
    check(
        &format!("[{creating}, {}]", failed("{kind: Job, controller: true}")),
        Some((Progressing, "pod old: Evicted: low on memory")),
    );
    check(
        "[{status: {phase: Failed, containerStatuses: [{name: main, state: {terminated: {exitCode: 1, reason: Error}}}]}}]",
        Some((Degraded, "pod web-1: container main: exited with code 1")),
    );
}

#[test]
fn the_most_telling_pod() {
    let pod = |name: &str, more: &str, container: &str| {
        format!(
            "{{metadata: {{name: {name}, {more}}}, status: {{phase: Running, containerStatuses: [{{name: app, {container}}}]}}}}"
        )
    };
    let fine = pod("a", "", "ready: true, state: {running: {}}");
    let slow = pod("b", "", "ready: false, state: {running: {}}");
    let sick = pod("c", "", "state: {waiting: {reason: ErrImagePull}}");
    let worse = pod("d", "", "state: {waiting: {reason: ErrImagePull}}");
    let leaving = pod("e", "deletionTimestamp: '2026-05-01T10:00:00Z'", "state: {waiting: {reason: ErrImagePull}}");
    check(&format!("[{fine}, {leaving}]"), None);
    check(&format!("[{fine}, {slow}]"), Some((Progressing, "pod b: container app: not ready")));
    check(&format!("[{leaving}, {slow}, {sick}, {worse}]"), Some((Degraded, "pod c: container app: ErrImagePull")));
}

#[track_caller]
fn check_matter(workload: &str, sets: &str, pods: &str, want: &[&str]) {
    let (workload, sets, pods) = (yaml(workload), yaml(sets), yaml(pods));
    let found = which_pods_matter(&workload, sets.as_array().unwrap(), pods.as_array().unwrap());
    let found: Vec<&str> =
        found.iter().filter_map(|pod| pod.pointer("/metadata/name").and_then(Value::as_str)).collect();
    assert_eq!(found, want);
}

#[test]
fn pods_that_matter() {
    let deployment = "{apiVersion: apps/v1, kind: Deployment, metadata: {uid: d1}}";
    let set = |uid: &str, owner: &str, revision: u32| {
        format!(
            "{{metadata: {{uid: {uid}, annotations: {{deployment.kubernetes.io/revision: '{revision}'}}, ownerReferences: [{{uid: {owner}, controller: true}}]}}}}"
        )
    };
    let pod = |name: &str, owner: &str, hash: &str, made: u32| {
        format!(
            "{{metadata: {{name: {name}, creationTimestamp: '2026-05-01T10:00:{made:02}Z', labels: {{pod-template-hash: {hash}}}, ownerReferences: [{{uid: {owner}, controller: true}}]}}}}"
        )
    };
    let pods = format!(
        "[{}, {}, {}, {{metadata: {{name: gone, deletionTimestamp: a, ownerReferences: [{{uid: s2, controller: true}}]}}}}, {{metadata: {{name: bare}}}}]",
        pod("old", "s1", "h1", 1),
        pod("new", "s2", "h2", 9),
        pod("foreign", "s9", "h9", 5),
    );
    let sets = format!("[{}, {}, {}]", set("s1", "d1", 9), set("s2", "d1", 10), set("s9", "d9", 11));
    check_matter(deployment, &sets, &pods, &["new"]);
    // Gone back: the older ReplicaSet has a newer number.
    let back = format!("[{}, {}]", set("s1", "d1", 11), set("s2", "d1", 10));
    check_matter(deployment, &back, &pods, &["old"]);
    // None of its own yet.
    check_matter(deployment, &format!("[{}]", set("s9", "d9", 1)), &pods, &[]);
    // Not listed: the youngest pod tells.
    check_matter(deployment, "[]", &pods, &["new"]);
    check_matter("{apiVersion: apps/v1, kind: StatefulSet, metadata: {uid: s1}}", "[]", &pods, &["old"]);
    check_matter("{apiVersion: batch/v1, kind: Job, metadata: {uid: none}}", "[]", &pods, &[]);
    check_matter(
        "{apiVersion: argoproj.io/v1alpha1, kind: Rollout, status: {currentPodHash: x}}",
        "[]",
        "[{metadata: {name: a, labels: {rollouts-pod-template-hash: x}}}, {metadata: {name: b, labels: {rollouts-pod-template-hash: y}}}]",
        &["a"],
    );
}

#[test]
fn selectors() {
    let check = |spec: &str, want: Option<&str>| {
        assert_eq!(selector(&yaml(&format!("{{spec: {{{spec}}}}}"))).as_deref(), want, "{spec}");
    };
    check(
        "selector: {matchLabels: {app: web, app.kubernetes.io/part-of: shop}}",
        Some("app=web,app.kubernetes.io/part-of=shop"),
    );
    check(
        "selector: {matchLabels: {app: web}, matchExpressions: [{key: a, operator: In, values: [x, y]}, {key: b, operator: NotIn, values: [z]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}",
        Some("app=web,a in (x,y),b notin (z),c,!d"),
    );
    check("selector: {matchExpressions: [{key: c, operator: Exists}]}", Some("c"));
    // What would select too much selects nothing.
    check("selector: {}", None);
    check("", None);
    check("selector: {matchLabels: {app: web}, matchExpressions: [{key: c, operator: Near}]}", None);
    check("selector: {matchLabels: {app: 7}}", None);
}
