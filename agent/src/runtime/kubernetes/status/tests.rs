use jiff::Timestamp;
use serde_json::Value;

use super::State::{Current, Failed, InProgress, Suspended, Terminating};
use super::{Related, State, job_of, status, waits_for_storage};
use crate::runtime::kubernetes::fields::yaml;

const NOW: &str = "2026-05-01T10:01:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// `kind` as `Deployment.apps/v1`; `rest` is the flow map of all other fields.
#[track_caller]
fn check_with(kind: &str, rest: &str, related: Related<'_>, state: State, message: &str) {
    let (kind, version) = kind.split_once('.').unwrap_or((kind, "v1"));
    let mut object = yaml(rest);
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    let found = status(&object, related, now());
    assert_eq!((found.state, found.message.as_str()), (state, message), "{kind} {rest}");
}

#[track_caller]
pub(super) fn check(kind: &str, rest: &str, state: State, message: &str) {
    check_with(kind, rest, Related::default(), state, message);
}

#[test]
fn every_kind() {
    let any = "Widget.example.com/v1";
    check(any, "{metadata: {name: a}}", Current, "");
    check("ConfigMap", "{data: {a: b}}", Current, "");
    check(any, "{metadata: {deletionTimestamp: '2026-05-01T10:00:00Z'}}", Terminating, "is being deleted");
    check(
        any,
        "{metadata: {deletionTimestamp: '2026-05-01T10:00:00Z', finalizers: [a/b, c/d]}}",
        Terminating,
        "is being deleted and waits for a/b, c/d",
    );
    check(
        any,
        "{metadata: {generation: 3}, status: {observedGeneration: 2, conditions: [{type: Ready, status: 'True'}]}}",
        InProgress,
        "its controller has seen generation 2, not yet 3",
    );
    let with = |conditions: &str| {
        format!("{{metadata: {{generation: 3}}, status: {{observedGeneration: 3, conditions: [{conditions}]}}}}")
    };
    let ready = "{type: Ready, status: 'True', message: Fine}";
    let not_ready = "{type: Ready, status: 'False', reason: NoDisk, message: 'no disk\n left'}";
    let stalled = "{type: Stalled, status: 'True', reason: BadSpec, message: cannot parse x}";
    let reconciling = "{type: Reconciling, status: 'True', reason: Busy}";
    check(any, &with(ready), Current, "");
    check(any, &with(not_ready), InProgress, "not ready: no disk left");
    check(any, &with("{type: Ready, status: Unknown, reason: Waits}"), InProgress, "not ready: Waits");
    check(any, &with(&format!("{not_ready}, {stalled}")), Failed, "cannot parse x");
    check(any, &with(&format!("{ready}, {reconciling}")), InProgress, "Busy");
    check(any, &with(&format!("{stalled}, {reconciling}")), Failed, "cannot parse x");
    check(any, &with(&format!("{reconciling}, {stalled}")), InProgress, "Busy");
    check(any, &with("{type: Stalled, status: 'False'}, {type: Reconciling, status: 'False'}"), Current, "");
    check(
        any,
        "{metadata: {generation: 3}, status: {conditions: [{type: Ready, status: 'True', observedGeneration: 2}]}}",
        InProgress,
        "its Ready is of generation 2, not yet of 3",
    );
    check(
        any,
        "{spec: {suspend: true}, status: {conditions: [{type: Ready, status: 'False'}]}}",
        Suspended,
        "suspended",
    );
    // What has not the expected form is not there.
    check(any, "{metadata: {generation: x}, status: {conditions: 7, observedGeneration: [1]}}", Current, "");
}

#[test]
fn pods() {
    check("Pod", "{status: {phase: Succeeded}}", Current, "");
    check("Pod", "{status: {phase: Running, conditions: [{type: Ready, status: 'True'}]}}", Current, "");
    check(
        "Pod",
        "{status: {phase: Running, conditions: [{type: Ready, status: 'False'}]}}",
        InProgress,
        "running, but not ready",
    );
    check("Pod", "{}", InProgress, "not scheduled yet");
    check("Pod", "{status: {phase: Unknown}}", InProgress, "in phase Unknown");
    check("Pod", "{status: {phase: Failed}}", Failed, "failed");
    check(
        "Pod",
        "{status: {phase: Failed, reason: Evicted, message: 'The node was low on resource: memory. '}}",
        Failed,
        "Evicted: The node was low on resource: memory.",
    );
    check(
        "Pod",
        "{status: {phase: Running, containerStatuses: [{name: app, restartCount: 4, state: {waiting: {reason: CrashLoopBackOff, message: back-off 40s}}, lastState: {terminated: {exitCode: 137, reason: OOMKilled}}}]}}",
        Failed,
        "container app: CrashLoopBackOff: restarted 4 times, last exited with code 137 (OOMKilled)",
    );
    let unschedulable = |made: &str| {
        format!(
            "{{metadata: {{creationTimestamp: '{made}'}}, status: {{phase: Pending, conditions: [{{type: PodScheduled, status: 'False', reason: Unschedulable, message: '0/1 nodes are available'}}]}}}}"
        )
    };
    let words = "Unschedulable: 0/1 nodes are available";
    check("Pod", &unschedulable("2026-05-01T10:00:50Z"), InProgress, words);
    check("Pod", &unschedulable("2026-05-01T10:00:45Z"), Failed, words);
}

#[test]
fn jobs() {
    let kind = "Job.batch/v1";
    check(kind, "{}", InProgress, "not started yet");
    check(kind, "{status: {startTime: a, active: 1}}", InProgress, "0 of 1 completions");
    check(
        kind,
        "{spec: {completions: 5}, status: {startTime: a, succeeded: 2, failed: 1}}",
        InProgress,
        "2 of 5 completions, 1 pods failed",
    );
    check(kind, "{status: {startTime: a, succeeded: 1, conditions: [{type: Complete, status: 'True'}]}}", Current, "");
    check(
        kind,
        "{status: {startTime: a, conditions: [{type: Failed, status: 'True', reason: BackoffLimitExceeded, message: Job has reached the specified backoff limit}]}}",
        Failed,
        "failed: BackoffLimitExceeded: Job has reached the specified backoff limit",
    );
    check(
        kind,
        "{status: {conditions: [{type: FailureTarget, status: 'True', reason: DeadlineExceeded}]}}",
        Failed,
        "failed: DeadlineExceeded",
    );
    check(kind, "{spec: {suspend: true}}", Suspended, "suspended");
    check(kind, "{spec: {suspend: true}, status: {conditions: [{type: Complete, status: 'True'}]}}", Current, "");
    check("CronJob.batch/v1", "{spec: {suspend: false}, status: {lastScheduleTime: a}}", Current, "");
    check("CronJob.batch/v1", "{spec: {suspend: true}}", Suspended, "suspended");
}

#[test]
fn network() {
    check("Service", "{spec: {clusterIP: 10.0.0.1}}", Current, "");
    check("Service", "{spec: {type: LoadBalancer}}", InProgress, "has no cluster address yet");
    check(
        "Service",
        "{spec: {type: LoadBalancer, clusterIP: 10.0.0.1}, status: {loadBalancer: {}}}",
        InProgress,
        "its load balancer has no address yet",
    );
    check(
        "Service",
        "{spec: {type: LoadBalancer, clusterIP: 10.0.0.1}, status: {loadBalancer: {ingress: [{ip: 192.168.1.2}]}}}",
        Current,
        "",
    );
    check("Service.serving.knative.dev/v1", "{spec: {type: LoadBalancer}}", Current, "");
    check("Ingress.networking.k8s.io/v1", "{}", Current, "no address yet");
    check("Ingress.networking.k8s.io/v1", "{status: {loadBalancer: {ingress: [{ip: 192.168.1.2}]}}}", Current, "");
}

#[test]
fn claims() {
    let kind = "PersistentVolumeClaim";
    let classes = [
        yaml(
            "{metadata: {name: local-path, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}}, volumeBindingMode: WaitForFirstConsumer}",
        ),
        yaml("{metadata: {name: nfs}, volumeBindingMode: Immediate}"),
    ];
    let check = |rest: &str, classes, state, message: &str| {
        check_with(kind, rest, Related { storage_classes: classes, job: None }, state, message);
    };
    let all = Some(&classes[..]);
    check("{status: {phase: Bound}}", None, Current, "");
    check("{spec: {volumeName: pv1}, status: {phase: Lost}}", all, Failed, "its volume pv1 is gone");
    let pending = |class: &str| format!("{{spec: {{{class}}}, status: {{phase: Pending}}}}");
    check(&pending("storageClassName: local-path"), all, Current, "waits for the first pod that uses it");
    check(&pending(""), all, Current, "waits for the first pod that uses it");
    check(&pending("storageClassName: nfs"), all, InProgress, "StorageClass nfs has made no volume yet");
    check(&pending("storageClassName: fast"), all, InProgress, "there is no StorageClass fast");
    check(&pending(""), Some(&classes[1..]), InProgress, "names no StorageClass, and there is no default one");
    check(&pending("storageClassName: local-path"), None, Current, "not bound; its StorageClass is not known");
    check(
        &pending("storageClassName: ''"),
        all,
        InProgress,
        "no volume fits it yet, and it asks for no StorageClass to make one",
    );
    check(&pending("storageClassName: nfs, volumeName: pv1"), all, InProgress, "not bound to pv1 yet");
    check(
        "{metadata: {annotations: {volume.kubernetes.io/selected-node: edge-1}}, spec: {storageClassName: local-path}, status: {phase: Pending}}",
        all,
        InProgress,
        "its volume on edge-1 is not there yet",
    );
    let claim = |phase: &str| yaml(&format!("{{apiVersion: v1, kind: {kind}, status: {{phase: {phase}}}}}"));
    assert!(waits_for_storage(&claim("Pending")));
    assert!(!waits_for_storage(&claim("Bound")));
}

#[test]
fn the_cluster_itself() {
    check("PersistentVolume", "{status: {phase: Available}}", Current, "");
    check("PersistentVolume", "{status: {phase: Pending}}", InProgress, "not available yet");
    check("PersistentVolume", "{status: {phase: Released}}", Current, "its claim is gone");
    check(
        "PersistentVolume",
        "{status: {phase: Failed, message: no such plugin}}",
        Failed,
        "could not be reclaimed: no such plugin",
    );
    check("Namespace", "{status: {phase: Active}}", Current, "");
    check("Namespace", "{}", InProgress, "not active yet");
    check(
        "Namespace",
        "{metadata: {deletionTimestamp: a}, status: {phase: Terminating, conditions: [{type: NamespaceContentRemaining, status: 'True', message: 'Some resources are remaining: widgets.example.com has 1 resource instances'}]}}",
        Terminating,
        "is being deleted: Some resources are remaining: widgets.example.com has 1 resource instances",
    );
    let definition = |conditions: &str, state, message: &str| {
        check(
            "CustomResourceDefinition.apiextensions.k8s.io/v1",
            &format!("{{status: {{conditions: [{conditions}]}}}}"),
            state,
            message,
        );
    };
    definition("", InProgress, "not established yet");
    definition("{type: NamesAccepted, status: 'True'}, {type: Established, status: 'True'}", Current, "");
    definition(
        "{type: NamesAccepted, status: 'True'}, {type: Established, status: 'False', reason: Installing}",
        InProgress,
        "not established yet",
    );
    definition(
        "{type: NamesAccepted, status: 'False', message: '\"Widget\" is already in use'}, {type: Established, status: 'False', reason: NotAccepted}",
        Failed,
        "its names are not accepted: \"Widget\" is already in use",
    );
    definition("{type: Established, status: 'False', reason: NotAccepted, message: no}", Failed, "not established: no");
    let service = "APIService.apiregistration.k8s.io/v1";
    check(service, "{status: {conditions: [{type: Available, status: 'True', reason: Local}]}}", Current, "");
    check(service, "{}", InProgress, "not available yet");
    check(
        service,
        "{status: {conditions: [{type: Available, status: 'False', reason: MissingEndpoints}]}}",
        InProgress,
        "not available: MissingEndpoints",
    );
    let budget = "PodDisruptionBudget.policy/v1";
    check(
        budget,
        "{metadata: {generation: 1}, status: {observedGeneration: 1, conditions: [{type: DisruptionAllowed, status: 'False', reason: InsufficientPods}]}}",
        Current,
        "",
    );
    check(
        budget,
        "{status: {conditions: [{type: DisruptionAllowed, status: 'False', reason: SyncFailed, message: found no controllers}]}}",
        Current,
        "found no controllers",
    );
    let scaler = "HorizontalPodAutoscaler.autoscaling/v2";
    check(
        scaler,
        "{status: {conditions: [{type: AbleToScale, status: 'True'}, {type: ScalingActive, status: 'True'}]}}",
        Current,
        "",
    );
    check(
        scaler,
        "{status: {conditions: [{type: ScalingActive, status: 'False', reason: FailedGetResourceMetric, message: no metrics}]}}",
        Current,
        "no metrics",
    );
}

#[test]
fn helm_charts() {
    let kind = "HelmChart.helm.cattle.io/v1";
    let job = |made: &str, status: &str| {
        yaml(&format!(
            "{{apiVersion: batch/v1, kind: Job, metadata: {{creationTimestamp: '{made}'}}, status: {{startTime: a, {status}}}}}"
        ))
    };
    let check = |rest: &str, job: Option<Value>, state, message: &str| {
        check_with(kind, rest, Related { job: job.as_ref(), storage_classes: None }, state, message);
    };
    let complete = "conditions: [{type: Complete, status: 'True'}]";
    let failed = "conditions: [{type: Failed, status: 'True', reason: BackoffLimitExceeded}]";
    let chart = "{metadata: {creationTimestamp: '2026-05-01T09:00:00Z'}, status: {jobName: helm-install-traefik}}";
    check("{}", None, InProgress, "its install Job has not been made yet");
    check(chart, None, InProgress, "its Job helm-install-traefik does not exist");
    check(chart, Some(job("2026-05-01T09:00:01Z", complete)), Current, "");
    let held = yaml(
        "{apiVersion: batch/v1, kind: Job, metadata: {creationTimestamp: '2026-05-01T09:00:01Z'}, spec: {suspend: true}}",
    );
    check(chart, Some(held), InProgress, "its Job helm-install-traefik is not let run yet");
    check(
        chart,
        Some(job("2026-05-01T09:00:01Z", "active: 1")),
        InProgress,
        "Job helm-install-traefik: 0 of 1 completions",
    );
    check(
        chart,
        Some(job("2026-05-01T09:00:01Z", failed)),
        Failed,
        "Job helm-install-traefik: failed: BackoffLimitExceeded",
    );
    check(
        "{status: {conditions: [{type: JobCreated, status: 'False'}, {type: Failed, status: 'True', reason: Unsupported version, message: Only Helm v3 charts are supported}]}}",
        None,
        Failed,
        "Only Helm v3 charts are supported",
    );
    // Changed a moment ago: the Job that is complete is the former one.
    let changed = |at: &str| {
        format!(
            "{{metadata: {{managedFields: [{{manager: burgee, time: '{at}', fieldsV1: {{f:spec: {{f:version: {{}}}}}}}}, {{manager: helm-controller, subresource: status, time: '2026-05-01T10:00:59Z', fieldsV1: {{f:status: {{}}}}}}]}}, status: {{jobName: j}}}}"
        )
    };
    let former = job("2026-05-01T09:00:01Z", complete);
    check(&changed("2026-05-01T10:00:55Z"), Some(former.clone()), InProgress, "its change has not been picked up yet");
    check(&changed("2026-05-01T10:00:55Z"), Some(job("2026-05-01T10:00:56Z", complete)), Current, "");
    // A change that made no new Job.
    check(&changed("2026-05-01T10:00:40Z"), Some(former.clone()), Current, "");

    let named = yaml(
        "{apiVersion: helm.cattle.io/v1, kind: HelmChart, metadata: {namespace: kube-system}, status: {jobName: j}}",
    );
    assert_eq!(job_of(&named), Some(("kube-system", "j")));
    assert_eq!(job_of(&yaml("{apiVersion: v1, kind: Pod, status: {jobName: j}}")), None);
}

#[test]
fn other_custom_resources() {
    let rollout = |status: &str, state, message: &str| {
        check(
            "Rollout.argoproj.io/v1alpha1",
            &format!("{{metadata: {{generation: 4}}, status: {{{status}}}}}"),
            state,
            message,
        );
    };
    rollout("observedGeneration: '4', phase: Healthy", Current, "");
    rollout("observedGeneration: '3', phase: Healthy", InProgress, "its controller has seen generation 3, not yet 4");
    rollout("observedGeneration: 7f9c4d, phase: Healthy", Current, "");
    rollout(
        "observedGeneration: '4', phase: Progressing, message: more replicas need to be updated",
        InProgress,
        "more replicas need to be updated",
    );
    rollout(
        "observedGeneration: '4', phase: Degraded, message: 'ProgressDeadlineExceeded: timed out'",
        Failed,
        "ProgressDeadlineExceeded: timed out",
    );
    rollout("observedGeneration: '4', phase: Paused, message: CanaryPauseStep", Suspended, "CanaryPauseStep");
    rollout("", InProgress, "its controller has not seen it yet");
    check(
        "Rollout.argoproj.io/v1alpha1",
        "{spec: {paused: true}, status: {phase: Healthy}}",
        Suspended,
        "its rollout is paused",
    );
    let sealed = |status: &str, state, message: &str| {
        check("SealedSecret.bitnami.com/v1alpha1", &format!("{{status: {{{status}}}}}"), state, message);
    };
    sealed("conditions: [{type: Synced, status: 'True'}]", Current, "");
    sealed(
        "conditions: [{type: Synced, status: 'False', message: no key could decrypt secret (a)}]",
        Failed,
        "not unsealed: no key could decrypt secret (a)",
    );
    sealed("", InProgress, "not unsealed yet");
}
