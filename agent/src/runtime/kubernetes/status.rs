//! How one object stands, by the rules that its kind is known by (kstatus:
//! sigs.k8s.io/cli-utils `pkg/kstatus`), and by general ones for the rest. Pure.

mod workloads;

use fleet::kubernetes::Kind;
use serde_json::Value;

/// See [`status`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: State,
    /// In a few words; empty where it is as it should be.
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Current,
    InProgress,
    Failed,
    Terminating,
    /// Somebody paused it, on purpose.
    Suspended,
}

impl Status {
    fn new(state: State, message: impl Into<String>) -> Self {
        Self { state, message: message.into() }
    }

    fn current() -> Self {
        Self::new(State::Current, "")
    }

    fn progress(message: impl Into<String>) -> Self {
        Self::new(State::InProgress, message)
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(State::Failed, message)
    }
}

/// Kinds of the core that have no status worth asking for: there is well.
const PLAIN: [&str; 8] =
    ["ConfigMap", "Secret", "ServiceAccount", "LimitRange", "ResourceQuota", "Endpoints", "Event", "PodTemplate"];
/// Groups of which the same is true.
const PLAIN_GROUPS: [&str; 7] = [
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "admissionregistration.k8s.io",
    "coordination.k8s.io",
    "storage.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
];

/// Whether an object of a kind can be there and not be well.
pub(super) fn has_status(kind: &Kind) -> bool {
    let plain = (kind.group.is_empty() && PLAIN.contains(&kind.kind.as_str()))
        || PLAIN_GROUPS.contains(&kind.group.as_str())
        || kind.is("networking.k8s.io", "NetworkPolicy")
        || kind.is("networking.k8s.io", "IngressClass");
    !plain
}

/// How an object stands.
pub(super) fn status(object: &Value) -> Status {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return Status::new(State::Terminating, "it is being deleted");
    }
    let group = Kind::of(object["apiVersion"].as_str().unwrap_or_default(), "").group;
    let kind = object["kind"].as_str().unwrap_or_default();
    if let Some(judged) = unobserved(object) {
        return judged;
    }
    match (group.as_str(), kind) {
        ("apps", "Deployment") => workloads::deployment(object),
        ("apps", "StatefulSet") => workloads::stateful_set(object),
        ("apps", "DaemonSet") => workloads::daemon_set(object),
        ("apps", "ReplicaSet") => workloads::replica_set(object),
        ("", "Pod") => workloads::pod(object),
        ("batch", "Job") => workloads::job(object),
        ("batch", "CronJob") if object["spec"]["suspend"] == true => Status::new(State::Suspended, "suspended"),
        ("batch", "CronJob") => Status::current(),
        ("", "Service") => service(object),
        ("", "PersistentVolumeClaim") => claim(object),
        ("", "PersistentVolume") if object["status"]["phase"] == "Failed" => {
            Status::failed(text(&object["status"]["message"]))
        }
        ("", "Namespace" | "PersistentVolume") => Status::current(),
        ("networking.k8s.io", "Ingress") | ("autoscaling", "HorizontalPodAutoscaler") => Status::current(),
        ("policy", "PodDisruptionBudget") => budget(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => wants(object, "Available"),
        ("helm.cattle.io", "HelmChart") => chart(object),
        ("argoproj.io", "Rollout") => rollout(object),
        ("bitnami.com", "SealedSecret") => match condition(object, "Synced") {
            Some((false, message)) => Status::failed(message),
            Some((true, _)) => Status::current(),
            None => Status::progress("not unsealed yet"),
        },
        _ => general(object),
    }
}

/// A controller that has not seen the last change knows nothing of it.
fn unobserved(object: &Value) -> Option<Status> {
    let generation = object["metadata"]["generation"].as_i64()?;
    let seen = &object["status"]["observedGeneration"];
    // Argo writes it as text.
    let seen = seen.as_i64().or_else(|| seen.as_str()?.parse().ok())?;
    (seen < generation).then(|| Status::progress("its controller has not seen the last change yet"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A condition by its type: whether it is true (`Unknown` is neither), and its words.
fn condition(object: &Value, kind: &str) -> Option<(bool, String)> {
    let conditions = object["status"]["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let words = match (text(&found["reason"]), text(&found["message"])) {
        (reason, message) if message.is_empty() => reason,
        (reason, message) if reason.is_empty() => message,
        (reason, message) => format!("{reason}: {message}"),
    };
    match found["status"].as_str()? {
        "True" => Some((true, words)),
        "False" => Some((false, words)),
        _ => None,
    }
}

fn wants(object: &Value, kind: &str) -> Status {
    match condition(object, kind) {
        Some((true, _)) => Status::current(),
        Some((false, words)) => Status::progress(format!("not {}: {words}", kind.to_lowercase())),
        None => Status::progress(format!("not {} yet", kind.to_lowercase())),
    }
}

/// Any other object: by what most controllers say.
fn general(object: &Value) -> Status {
    if let Some((true, words)) = condition(object, "Stalled") {
        return Status::failed(words);
    }
    if let Some((true, words)) = condition(object, "Reconciling") {
        return Status::progress(words);
    }
    let ready = object["status"]["conditions"]
        .as_array()
        .and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    match ready.map(|ready| ready["status"].as_str().unwrap_or_default()) {
        None | Some("True") => Status::current(),
        Some(_) => {
            let words = condition(object, "Ready").map_or_else(String::new, |(_, words)| words);
            Status::progress(format!("not ready: {words}"))
        }
    }
}

fn service(object: &Value) -> Status {
    let waits = object["spec"]["type"] == "LoadBalancer"
        && object["status"]["loadBalancer"]["ingress"].as_array().is_none_or(Vec::is_empty);
    if waits { Status::progress("no address from a load balancer yet") } else { Status::current() }
}

/// A claim that waits for its first pod is as it should be: nobody needs it yet.
fn claim(object: &Value) -> Status {
    match object["status"]["phase"].as_str() {
        Some("Bound") => Status::current(),
        Some("Lost") => Status::failed("its volume is lost"),
        // Whether its class binds at once is not known here; a pod that can't
        // start because of it says so itself.
        _ => Status::current(),
    }
}

fn budget(object: &Value) -> Status {
    match condition(object, "DisruptionAllowed") {
        Some((false, words)) if words.starts_with("SyncFailed") => Status::failed(words),
        _ => Status::current(),
    }
}

fn definition(object: &Value) -> Status {
    if let Some((false, words)) = condition(object, "NamesAccepted") {
        return Status::failed(format!("its names are not accepted: {words}"));
    }
    wants(object, "Established")
}

/// By its own conditions, where k3s writes them; else its job is looked at.
fn chart(object: &Value) -> Status {
    if let Some((true, words)) = condition(object, "Failed") {
        return Status::failed(words);
    }
    if object["status"]["jobName"].as_str().is_some_and(|name| !name.is_empty()) {
        return Status::progress("its chart is being installed");
    }
    Status::progress("not looked at by the chart controller yet")
}

fn rollout(object: &Value) -> Status {
    let words = text(&object["status"]["message"]);
    match object["status"]["phase"].as_str() {
        Some("Healthy") => Status::current(),
        Some("Degraded") => Status::failed(words),
        Some("Paused") => Status::new(State::Suspended, format!("paused {words}").trim_end()),
        Some(phase) => Status::progress(format!("{phase} {words}").trim_end()),
        None => Status::progress("not looked at by its controller yet"),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
