//! Why a workload makes no progress, in its pods' own words.
//!
//! Only what pods say of themselves: events, which say more, are not kept for
//! long and are many.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::fields::{
    annotation, condition, count, elapsed, flag, group_kind, label, list, number, one_line, text, time,
};

/// Messages have at most about this many bytes.
const LIMIT: usize = 400;
/// The time that the scheduler has, as in kstatus.
const SCHEDULED: Duration = Duration::from_secs(15);
/// A sandbox that takes longer than this has a fault in its network or volumes.
const SANDBOXED: Duration = Duration::from_secs(60);
/// A container that was started again and runs for less than this is in a
/// crash loop.
const SETTLED: Duration = Duration::from_secs(60);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// It may well be mended by waiting.
    Progressing,
    /// Somebody has to do something, or luck is needed.
    Degraded,
}

/// What keeps a workload's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) severity: Severity,
    /// One line: `pod web-7d9-x2x4q: container app: ImagePullBackOff: …`.
    pub(super) message: String,
}

/// How telling a reason is; the most telling one of all pods is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It ended, and its controller has made another.
    Past,
    /// Something is under way.
    Waits,
    /// It went wrong before and may again.
    Shaky,
    /// One try of a Job failed, and there may be another.
    Tried,
    /// The pod is stuck as a whole.
    Stuck,
    /// A container is stuck.
    Broken,
}

impl Weight {
    fn severity(self) -> Severity {
        if self >= Self::Stuck { Severity::Degraded } else { Severity::Progressing }
    }
}

/// The most telling reason of the `pods`, of several the first. Pods that
/// are being deleted or have succeeded have none.
#[must_use]
pub(super) fn trouble<'a>(pods: impl IntoIterator<Item = &'a Value>, now: Timestamp) -> Option<Trouble> {
    let mut worst: Option<(Weight, &Value, String)> = None;
    for pod in pods {
        if is_leaving(pod) {
            continue;
        }
        if let Some((weight, message)) = reason(pod, now)
            && worst.as_ref().is_none_or(|(known, ..)| weight > *known)
        {
            worst = Some((weight, pod, message));
        }
    }
    worst.map(|(weight, pod, message)| Trouble {
        severity: weight.severity(),
        message: one_line(&format!("pod {}: {message}", text(pod, "/metadata/name")), LIMIT),
    })
}

/// The reason of one pod that is an app's own object, without its name.
pub(super) fn own_trouble(pod: &Value, now: Timestamp) -> Option<Trouble> {
    reason(pod, now)
        .map(|(weight, message)| Trouble { severity: weight.severity(), message: one_line(&message, LIMIT) })
}

fn reason(pod: &Value, now: Timestamp) -> Option<(Weight, String)> {
    match text(pod, "/status/phase") {
        "Succeeded" => return None,
        "Failed" => {
            let weight = match controller(pod).map(|owner| text(owner, "/kind")) {
                None => Weight::Stuck,
                Some("Job") => Weight::Tried,
                Some(_) => Weight::Past,
            };
            return Some((weight, end_of(pod)));
        }
        _ => {}
    }
    if let Some(found) = unscheduled(pod, now) {
        return Some(found);
    }
    let init = list(pod, "/status/initContainerStatuses").iter().map(|status| (true, status));
    let main = list(pod, "/status/containerStatuses").iter().map(|status| (false, status));
    let mut worst: Option<(Weight, String)> = None;
    for (is_init, status) in init.chain(main) {
        if let Some((weight, message)) = container(status, is_init, now)
            && worst.as_ref().is_none_or(|(known, _)| weight > *known)
        {
            let title = if is_init { "init container" } else { "container" };
            worst = Some((weight, format!("{title} {}: {message}", text(status, "/name"))));
        }
    }
    let whole = no_sandbox(pod, now).or_else(|| gated(pod));
    match (worst, whole) {
        (Some(one), Some(whole)) => Some(if whole.0 > one.0 { whole } else { one }),
        (one, whole) => one.or(whole),
    }
}

/// How a pod that failed as a whole came to its end.
fn end_of(pod: &Value) -> String {
    let (reason, message) = (text(pod, "/status/reason"), text(pod, "/status/message"));
    if !reason.is_empty() || !message.is_empty() {
        return join(reason, message);
    }
    for (title, field) in
        [("init container", "/status/initContainerStatuses"), ("container", "/status/containerStatuses")]
    {
        for status in list(pod, field) {
            if let Some(end) = status.pointer("/state/terminated").filter(|end| count(end, "/exitCode") != 0) {
                return format!("{title} {}: {}", text(status, "/name"), ended(end));
            }
        }
    }
    "failed".to_owned()
}

fn unscheduled(pod: &Value, now: Timestamp) -> Option<(Weight, String)> {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.is("False"))?;
    let age = time(pod, "/metadata/creationTimestamp").map(|made| elapsed(made, now));
    let stuck = scheduled.reason() == "Unschedulable" && age.is_none_or(|age| age >= SCHEDULED);
    let weight = if stuck { Weight::Stuck } else { Weight::Waits };
    Some((weight, join(scheduled.reason(), scheduled.words())))
}

/// Conditions do not say what a sandbox waits for, only for how long.
fn no_sandbox(pod: &Value, now: Timestamp) -> Option<(Weight, String)> {
    let sandbox = condition(pod, "PodReadyToStartContainers").filter(|sandbox| sandbox.is("False"))?;
    let age = elapsed(sandbox.since()?, now);
    if age < SANDBOXED || text(pod, "/status/phase") != "Pending" {
        return None;
    }
    let words = sandbox.words();
    let words = if words.is_empty() { "its network or a volume is not ready, see its events" } else { words };
    Some((Weight::Stuck, format!("no sandbox for {} s: {words}", age.as_secs())))
}

/// Somebody else has to call it ready.
fn gated(pod: &Value) -> Option<(Weight, String)> {
    let ready = condition(pod, "Ready").filter(|ready| ready.is("False"))?;
    (ready.reason() == "ReadinessGatesNotReady").then(|| (Weight::Waits, ready.words().to_owned()))
}

fn container(status: &Value, is_init: bool, now: Timestamp) -> Option<(Weight, String)> {
    let restarts = count(status, "/restartCount");
    let last = status.pointer("/lastState/terminated");
    if let Some(waiting) = status.pointer("/state/waiting") {
        let (reason, message) = (text(waiting, "/reason"), text(waiting, "/message"));
        return Some(match (reason, last) {
            ("" | "ContainerCreating" | "PodInitializing", _) => (Weight::Waits, join(reason, message)),
            // The waiting's own message is only about the pause.
            ("CrashLoopBackOff", Some(last)) => {
                (Weight::Broken, format!("{reason}: restarted {}, last {}", times(restarts), ended(last)))
            }
            // Each other reason there is names a failure.
            _ => (Weight::Broken, join(reason, message)),
        });
    }
    if let Some(end) = status.pointer("/state/terminated") {
        return (count(end, "/exitCode") != 0).then(|| (Weight::Broken, ended(end)));
    }
    let running = status.pointer("/state/running")?;
    if flag(status, "/ready") {
        return None;
    }
    if let Some(last) = last.filter(|last| restarts > 0 && count(last, "/exitCode") != 0) {
        let young = time(running, "/startedAt").is_none_or(|started| elapsed(started, now) < SETTLED);
        let weight = if young { Weight::Broken } else { Weight::Shaky };
        return Some((weight, format!("restarted {}, last {}", times(restarts), ended(last))));
    }
    let started = status.get("started") != Some(&Value::Bool(false));
    let message = match (is_init, started) {
        // One that never ends (a sidecar) is started when its probe says so.
        (true, true) if status.get("started").is_some() => return None,
        (true, _) => "still running",
        (false, true) => "not ready",
        (false, false) => "its startup probe has not passed yet",
    };
    Some((Weight::Waits, message.to_owned()))
}

/// `exited with code 137 (OOMKilled)`, and its last words.
fn ended(end: &Value) -> String {
    let mut words = format!("exited with code {}", count(end, "/exitCode"));
    let reason = text(end, "/reason");
    if !matches!(reason, "" | "Error" | "Completed") {
        words.push_str(&format!(" ({reason})"));
    }
    if let Some(signal) = number(end, "/signal").filter(|signal| *signal != 0) {
        words.push_str(&format!(", signal {signal}"));
    }
    // Where it is the log's tail, its end says most.
    match text(end, "/message").trim().lines().last() {
        Some(line) => format!("{words}: {}", line.trim()),
        None => words,
    }
}

fn times(number: i64) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}

fn join(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", "") => "waiting".to_owned(),
        (one, "") | ("", one) => one.to_owned(),
        (reason, message) if reason == message => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn is_leaving(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

/// The object's controller, as it names it.
fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"))
}

fn is_of(object: &Value, uid: &str) -> bool {
    controller(object).is_some_and(|owner| text(owner, "/uid") == uid)
}

/// Of the pods that a workload's selector found, those that tell about its
/// present state: its own, not those of another that has the same labels, and
/// for a Deployment those of its newest ReplicaSet. `replica_sets` are those
/// of the namespace or of the selector; without them the youngest pod's
/// ReplicaSet is taken for the newest.
#[must_use]
pub(super) fn which_pods_matter<'a>(workload: &Value, replica_sets: &[Value], pods: &'a [Value]) -> Vec<&'a Value> {
    let uid = text(workload, "/metadata/uid");
    let mut pods: Vec<&Value> = pods.iter().filter(|pod| !is_leaving(pod)).collect();
    match group_kind(workload) {
        ("apps", "Deployment") => {
            if replica_sets.is_empty() {
                let youngest = pods.iter().max_by_key(|pod| text(pod, "/metadata/creationTimestamp"));
                let hash = youngest.map_or("", |pod| label(pod, "pod-template-hash"));
                pods.retain(|pod| label(pod, "pod-template-hash") == hash);
                return pods;
            }
            let own = replica_sets.iter().filter(|set| is_of(set, uid));
            let newest = own.max_by_key(|set| revision(set)).map(|set| text(set, "/metadata/uid"));
            pods.retain(|pod| newest.is_some_and(|newest| is_of(pod, newest)));
        }
        ("argoproj.io", "Rollout") => {
            let hash = text(workload, "/status/currentPodHash");
            pods.retain(|pod| label(pod, "rollouts-pod-template-hash") == hash);
        }
        _ => pods.retain(|pod| is_of(pod, uid)),
    }
    pods
}

/// Going back to an older ReplicaSet gives it a new number too.
fn revision(replica_set: &Value) -> u64 {
    annotation(replica_set, "deployment.kubernetes.io/revision").parse().unwrap_or(0)
}

/// The label selector with which a workload's pods are listed. `None`: it
/// has none, or one that means every pod.
#[must_use]
pub(super) fn selector(workload: &Value) -> Option<String> {
    let labels = workload.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let mut parts: Vec<String> = labels
        .into_iter()
        .flat_map(Map::iter)
        .map(|(key, value)| value.as_str().map(|value| format!("{key}={value}")))
        .collect::<Option<_>>()?;
    for expression in list(workload, "/spec/selector/matchExpressions") {
        let key = text(expression, "/key");
        let values: Vec<&str> = list(expression, "/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            // To leave it out would select more.
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
