//! What an object's own fields say about it: kstatus, as `cli-utils`, Flux
//! and `kubectl wait` know it, and what edge devices need beside it.
//!
//! On purpose otherwise than in kstatus:
//! - a workload that its controller has not looked at yet is in progress, also
//!   where `observedGeneration` is still absent;
//! - a Job is in progress until it is complete, so that what depends on it
//!   waits, and a migration that fails fails its revision;
//! - a Pod that failed has failed;
//! - with `updateStrategy: OnDelete` only the update is not waited for;
//! - a claim that waits for its first pod is current;
//! - a LoadBalancer without address is in progress;
//! - what is paused or suspended is said to be so.

mod cluster;
mod custom;
mod run;
mod workload;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod workload_tests;

use jiff::Timestamp;
use serde_json::Value;

use super::fields::{conditions, flag, group_kind, list, number, one_line, text};

pub(super) use self::cluster::waits_for_storage;
pub(super) use self::custom::job_of;

/// Messages have at most about this many bytes.
const LIMIT: usize = 300;

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The world is as the object says.
    Current,
    /// It is getting there.
    InProgress,
    /// It will not get there by itself, as far as its controller knows.
    Failed,
    /// It is being deleted.
    Terminating,
    /// It says itself that nothing is to happen.
    Suspended,
}

/// An object's state and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: State,
    /// One line; empty if there is nothing to say. It may be there on
    /// [`State::Current`] too.
    pub(super) message: String,
}

/// Other objects that some kinds can't be judged without.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Related<'a> {
    /// The Job that [`job_of`] names, if it exists.
    pub(super) job: Option<&'a Value>,
    /// Every StorageClass, for which [`waits_for_storage`] asks; `None`: not read.
    pub(super) storage_classes: Option<&'a [Value]>,
}

/// The status of an object as the server sends it.
#[must_use]
pub(super) fn status(object: &Value, related: Related<'_>, now: Timestamp) -> Status {
    if let Some(status) = generic(object) {
        return status;
    }
    match group_kind(object) {
        ("apps", "Deployment") => workload::deployment(object, now),
        ("apps", "StatefulSet") => workload::stateful_set(object),
        ("apps", "DaemonSet") => workload::daemon_set(object),
        ("apps", "ReplicaSet") => workload::replica_set(object, now),
        ("", "Pod") => run::pod(object, now),
        ("batch", "Job") => run::job(object),
        ("batch", "CronJob") => run::cron_job(object),
        ("", "Service") => cluster::service(object),
        ("", "PersistentVolumeClaim") => cluster::claim(object, related.storage_classes),
        ("", "PersistentVolume") => cluster::volume(object),
        ("", "Namespace") => cluster::namespace(object),
        ("networking.k8s.io", "Ingress") => cluster::ingress(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => cluster::definition(object),
        ("apiregistration.k8s.io", "APIService") => cluster::api_service(object),
        ("policy", "PodDisruptionBudget") => cluster::disruption_budget(object),
        ("autoscaling", "HorizontalPodAutoscaler") => cluster::autoscaler(object),
        ("helm.cattle.io", "HelmChart") => custom::helm_chart(object, related.job, now),
        ("argoproj.io", "Rollout") => custom::rollout(object),
        ("bitnami.com", "SealedSecret") => custom::sealed_secret(object),
        _ => custom::by_ready(object),
    }
}

/// What holds for every kind. `None`: the kind's own rules decide.
fn generic(object: &Value) -> Option<Status> {
    if !text(object, "/metadata/deletionTimestamp").is_empty() {
        return Some(terminating(object));
    }
    if let (Some(want), Some(seen)) = (number(object, "/metadata/generation"), observed_generation(object))
        && want != seen
    {
        return Some(progress(&format!("its controller has seen generation {seen}, not yet {want}")));
    }
    // By kstatus the first of the two that is true counts.
    conditions(object).filter(|condition| condition.is_true()).find_map(|condition| match condition.kind() {
        "Reconciling" => Some(progress(condition.words())),
        "Stalled" => Some(failed(condition.words())),
        _ => None,
    })
}

/// Argo writes it as text (and once wrote a hash there, which says nothing).
fn observed_generation(object: &Value) -> Option<i64> {
    match object.pointer("/status/observedGeneration")? {
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
}

fn terminating(object: &Value) -> Status {
    // A namespace says what it still contains.
    let rest = conditions(object).find(|condition| {
        condition.is_true() && matches!(condition.kind(), "NamespaceFinalizersRemaining" | "NamespaceContentRemaining")
    });
    let finalizers: Vec<&str> = list(object, "/metadata/finalizers").iter().filter_map(Value::as_str).collect();
    let message = match rest {
        Some(rest) => format!("is being deleted: {}", rest.words()),
        None if finalizers.is_empty() => "is being deleted".to_owned(),
        None => format!("is being deleted and waits for {}", finalizers.join(", ")),
    };
    make(State::Terminating, &message)
}

fn make(state: State, message: &str) -> Status {
    Status { state, message: one_line(message, LIMIT) }
}

fn current() -> Status {
    make(State::Current, "")
}

/// Current, with something worth knowing.
fn noted(message: &str) -> Status {
    make(State::Current, message)
}

fn progress(message: &str) -> Status {
    make(State::InProgress, message)
}

fn failed(message: &str) -> Status {
    make(State::Failed, message)
}

fn suspended(message: &str) -> Status {
    make(State::Suspended, message)
}

/// Whether a controller that always writes `observedGeneration` has not
/// looked at the object at all.
fn unseen(object: &Value) -> Option<Status> {
    let unseen = number(object, "/metadata/generation").is_some() && observed_generation(object).is_none();
    unseen.then(|| progress("its controller has not seen it yet"))
}

/// `spec.suspend`.
fn is_suspended(object: &Value) -> bool {
    flag(object, "/spec/suspend")
}
