//! Why a workload makes no progress, by its pods' own words: pure.

use serde_json::Value;

/// What a pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// It is not going to pass by itself.
    pub(super) is_lasting: bool,
    /// One sentence.
    pub(super) message: String,
}

const LONG: usize = 300;
/// Reasons for waiting that pass by themselves.
const PASSING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The label selector of a workload's pods, as a query has it.
pub(super) fn selector(workload: &Value) -> Option<String> {
    if !matches!(
        workload["kind"].as_str()?,
        "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" | "Rollout"
    ) {
        return None;
    }
    let selector = &workload["spec"]["selector"];
    let mut parts = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values: Vec<&str> =
            expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        parts.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// The worst that these pods say; the newest goes first, older ones may belong
/// to what is being replaced.
pub(super) fn trouble(pods: &[Value]) -> Option<Trouble> {
    let mut newest: Vec<&Value> = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect();
    newest.sort_by_key(|pod| std::cmp::Reverse(pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default()));
    let mut found: Vec<Trouble> = newest.into_iter().filter_map(one).collect();
    let lasting = found.iter().position(|trouble| trouble.is_lasting);
    (!found.is_empty()).then(|| found.swap_remove(lasting.unwrap_or(0)))
}

fn one(pod: &Value) -> Option<Trouble> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let said = |is_lasting, words: String| {
        let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let line: String = line.chars().take(LONG).collect();
        Some(Trouble { is_lasting, message: format!("pod {name}: {line}") })
    };
    let status = &pod["status"];
    if status["phase"] == "Failed" {
        let words = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
        return said(true, format!("failed: {} {}", words("reason"), words("message")));
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for container in status[list].as_array().into_iter().flatten() {
            let of = container["name"].as_str().unwrap_or_default();
            let waiting = &container["state"]["waiting"];
            let reason = waiting["reason"].as_str().unwrap_or_default();
            let message = waiting["message"].as_str().unwrap_or_default();
            let ended = &container["lastState"]["terminated"];
            if reason == "CrashLoopBackOff" {
                let code = ended["exitCode"].as_i64().unwrap_or_default();
                let why = ended["reason"].as_str().filter(|why| *why != "Error").unwrap_or_default();
                return said(true, format!("container {of}: {reason}: exited with code {code} {why}"));
            }
            if !reason.is_empty() && !PASSING.contains(&reason) {
                return said(true, format!("container {of}: {reason}: {message}"));
            }
            let now = &container["state"]["terminated"];
            if let Some(code) = now["exitCode"].as_i64().filter(|code| *code != 0) {
                return said(false, format!("container {of}: exited with code {code}"));
            }
        }
    }
    let conditions = status["conditions"].as_array().into_iter().flatten();
    for condition in conditions {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            let words = condition["message"].as_str().unwrap_or_default();
            return said(false, format!("not scheduled: {words}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{selector, trouble};

    fn pod(name: &str, made: &str, status: Value) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": made}, "status": status})
    }

    #[test]
    fn what_pods_say() {
        let waiting = |reason: &str, message: &str| json!({"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason, "message": message}}, "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        let cases = [
            (
                waiting("ImagePullBackOff", "Back-off pulling image \"x\""),
                Some((true, "pod a: container app: ImagePullBackOff: Back-off pulling image \"x\"")),
            ),
            (
                waiting("CrashLoopBackOff", "back-off"),
                Some((true, "pod a: container app: CrashLoopBackOff: exited with code 137 OOMKilled")),
            ),
            (waiting("ContainerCreating", ""), None),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "disk\npressure"}),
                Some((true, "pod a: failed: Evicted disk pressure")),
            ),
            (
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]}),
                Some((false, "pod a: not scheduled: 0/1 nodes are available")),
            ),
            (json!({"phase": "Running"}), None),
        ];
        for (status, want) in cases {
            let got = trouble(&[pod("a", "2026-01-01T00:00:00Z", status.clone())]);
            let got = got.as_ref().map(|it| (it.is_lasting, it.message.as_str()));
            assert_eq!(got, want, "{status}");
        }
        let pods = [
            pod("old", "2026-01-01T00:00:00Z", waiting("ErrImagePull", "")),
            pod("new", "2026-01-02T00:00:00Z", waiting("InvalidImageName", "")),
        ];
        assert!(trouble(&pods).unwrap().message.starts_with("pod new"));
    }

    #[test]
    fn selectors() {
        let deployment = json!({"kind": "Deployment", "spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "Exists"}]}}});
        assert_eq!(selector(&deployment).as_deref(), Some("app=web,tier in (a,b),x"));
        assert_eq!(selector(&json!({"kind": "Service", "spec": {"selector": {"app": "web"}}})), None);
    }
}
