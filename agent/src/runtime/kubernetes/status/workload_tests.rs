use super::State::{Current, Failed, InProgress, Suspended};
use super::tests::check;

#[test]
fn deployments() {
    let check = |spec: &str, status: &str, state, message: &str| {
        let rest =
            format!("{{metadata: {{generation: 2}}, spec: {{{spec}}}, status: {{observedGeneration: 2, {status}}}}}");
        check("Deployment.apps/v1", &rest, state, message);
    };
    let spec = "replicas: 3, progressDeadlineSeconds: 600";
    let done = "conditions: [{type: Progressing, status: 'True', reason: NewReplicaSetAvailable}, {type: Available, status: 'True'}]";
    let all = "replicas: 3, updatedReplicas: 3, availableReplicas: 3, readyReplicas: 3";
    check(spec, &format!("{all}, {done}"), Current, "");
    check(spec, "unavailableReplicas: 3", InProgress, "0 of 3 replicas created");
    check(spec, &format!("replicas: 3, updatedReplicas: 1, {done}"), InProgress, "1 of 3 replicas updated");
    check(spec, &format!("replicas: 5, updatedReplicas: 3, {done}"), InProgress, "2 old replicas have yet to end");
    check(
        spec,
        &format!("replicas: 3, updatedReplicas: 3, availableReplicas: 1, readyReplicas: 1, {done}"),
        InProgress,
        "1 of 3 replicas available",
    );
    check(
        spec,
        &format!("replicas: 3, updatedReplicas: 3, availableReplicas: 3, readyReplicas: 2, {done}"),
        InProgress,
        "2 of 3 replicas ready",
    );
    check(
        spec,
        &format!(
            "{all}, conditions: [{{type: Progressing, status: 'True', reason: ReplicaSetUpdated}}, {{type: Available, status: 'True'}}]"
        ),
        InProgress,
        "its new ReplicaSet is not available yet",
    );
    check("replicas: 3", &format!("{all}, conditions: [{{type: Available, status: 'True'}}]"), Current, "");
    check(
        "replicas: 3",
        &format!("{all}, conditions: [{{type: Available, status: 'False'}}]"),
        InProgress,
        "not available yet",
    );
    check(
        spec,
        "replicas: 3, updatedReplicas: 3, availableReplicas: 2, conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]",
        Failed,
        "no progress within 600 s: 2 of 3 replicas available",
    );
    check("replicas: 0, progressDeadlineSeconds: 600", done, Current, "");
    check("paused: true", "", Suspended, "its rollout is paused");
    let refused = |since: &str| {
        format!(
            "conditions: [{{type: ReplicaFailure, status: 'True', reason: FailedCreate, lastTransitionTime: '{since}', message: 'pods \"web-\" is forbidden: exceeded quota'}}]"
        )
    };
    let words = "a pod could not be created: pods \"web-\" is forbidden: exceeded quota";
    check(spec, &refused("2026-05-01T10:00:50Z"), InProgress, words);
    check(spec, &refused("2026-05-01T10:00:20Z"), Failed, words);
    // The clock was set back.
    check(spec, &refused("2026-05-02T10:00:00Z"), InProgress, words);
}

#[test]
fn not_seen_at_all() {
    for kind in [
        "Deployment.apps/v1",
        "StatefulSet.apps/v1",
        "DaemonSet.apps/v1",
        "ReplicaSet.apps/v1",
        "PodDisruptionBudget.policy/v1",
    ] {
        check(
            kind,
            "{metadata: {generation: 1}, spec: {replicas: 0}, status: {replicas: 0}}",
            InProgress,
            "its controller has not seen it yet",
        );
    }
}

#[test]
fn replica_sets() {
    let kind = "ReplicaSet.apps/v1";
    let all = "replicas: 2, fullyLabeledReplicas: 2, availableReplicas: 2, readyReplicas: 2";
    check(kind, &format!("{{spec: {{replicas: 2}}, status: {{{all}}}}}"), Current, "");
    check(kind, &format!("{{spec: {{replicas: 3}}, status: {{{all}}}}}"), InProgress, "2 of 3 replicas labelled");
    check(kind, &format!("{{spec: {{replicas: 1}}, status: {{{all}}}}}"), InProgress, "1 replicas have yet to end");
    check(
        kind,
        "{spec: {replicas: 2}, status: {fullyLabeledReplicas: 2, availableReplicas: 1}}",
        InProgress,
        "1 of 2 replicas available",
    );
    check(
        kind,
        &format!(
            "{{spec: {{replicas: 2}}, status: {{{all}, conditions: [{{type: ReplicaFailure, status: 'True', message: 'no'}}]}}}}"
        ),
        InProgress,
        "a pod could not be created: no",
    );
}

#[test]
fn stateful_sets() {
    let check = |spec: &str, status: &str, state, message: &str| {
        check(
            "StatefulSet.apps/v1",
            &format!("{{spec: {{replicas: 3, {spec}}}, status: {{{status}}}}}"),
            state,
            message,
        );
    };
    let all =
        "replicas: 3, readyReplicas: 3, currentReplicas: 3, updatedReplicas: 3, currentRevision: b, updateRevision: b";
    check("", all, Current, "");
    check("", "replicas: 1", InProgress, "1 of 3 replicas created");
    check("", "replicas: 3, readyReplicas: 2", InProgress, "2 of 3 replicas ready");
    check("", "replicas: 4, readyReplicas: 4", InProgress, "1 replicas have yet to end");
    check("", "replicas: 3, readyReplicas: 3, currentReplicas: 1", InProgress, "1 of 3 replicas current");
    check(
        "",
        "replicas: 3, readyReplicas: 3, currentReplicas: 3, currentRevision: a, updateRevision: b",
        InProgress,
        "its new revision is not rolled out yet",
    );
    // What the server makes of a plain RollingUpdate.
    let rolling = "updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0}}";
    check(rolling, all, Current, "");
    check(rolling, "replicas: 3, readyReplicas: 3, updatedReplicas: 2", InProgress, "2 of 3 replicas updated");
    let part = "updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}";
    check(part, "replicas: 3, readyReplicas: 3, updatedReplicas: 0", InProgress, "0 of 1 replicas updated");
    check(part, "replicas: 3, readyReplicas: 3, updatedReplicas: 1", Current, "updated down to partition 2");
    let beyond = "updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 9}}";
    check(beyond, "replicas: 3, readyReplicas: 3", Current, "updated down to partition 9");
    let by_hand = "updateStrategy: {type: OnDelete}";
    check(
        by_hand,
        "replicas: 3, readyReplicas: 3, currentRevision: a, updateRevision: b",
        Current,
        "pods are updated when somebody deletes them",
    );
    check(by_hand, "replicas: 3, readyReplicas: 0", InProgress, "0 of 3 replicas ready");
}

#[test]
fn daemon_sets() {
    let kind = "DaemonSet.apps/v1";
    let check = |spec: &str, status: &str, state, message: &str| {
        check(kind, &format!("{{spec: {{{spec}}}, status: {{{status}}}}}"), state, message);
    };
    let old = "desiredNumberScheduled: 1, currentNumberScheduled: 1, numberAvailable: 1, numberReady: 1";
    check("", &format!("{old}, updatedNumberScheduled: 1"), Current, "");
    check("", old, InProgress, "0 of 1 pods updated");
    check("updateStrategy: {type: OnDelete}", old, Current, "");
    check("", "", InProgress, "its controller has not counted its nodes yet");
    check("", "desiredNumberScheduled: 1", InProgress, "0 of 1 pods scheduled");
    check("", "desiredNumberScheduled: 0", Current, "no node wants a pod of it");
    check(
        "",
        "desiredNumberScheduled: 2, currentNumberScheduled: 2, updatedNumberScheduled: 2, numberAvailable: 1",
        InProgress,
        "1 of 2 pods available",
    );
}
