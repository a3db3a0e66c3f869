//! Workloads: what runs pods.

use serde_json::Value;

use super::{State, Status, condition, text};

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

/// How many are asked for; one where nothing is said.
fn asked(object: &Value) -> i64 {
    object["spec"]["replicas"].as_i64().unwrap_or(1)
}

fn observed(object: &Value) -> bool {
    object["status"]["observedGeneration"].is_i64()
}

pub(super) fn deployment(object: &Value) -> Status {
    let status = &object["status"];
    if let Some((false, words)) = condition(object, "Progressing") {
        return Status::failed(words);
    }
    if let Some((true, words)) = condition(object, "ReplicaFailure") {
        return Status::failed(words);
    }
    if object["spec"]["paused"] == true {
        return Status::new(State::Suspended, "paused");
    }
    if !observed(object) {
        return Status::progress("not looked at by its controller yet");
    }
    let (want, updated) = (asked(object), number(&status["updatedReplicas"]));
    if updated < want {
        return Status::progress(format!("{updated} of {want} replicas updated"));
    }
    if number(&status["replicas"]) > updated {
        let old = number(&status["replicas"]) - updated;
        return Status::progress(format!("{old} replicas of before still stop"));
    }
    let available = number(&status["availableReplicas"]);
    if available < want {
        return Status::progress(format!("{available} of {want} replicas available"));
    }
    let ready = number(&status["readyReplicas"]);
    if ready < want {
        return Status::progress(format!("{ready} of {want} replicas ready"));
    }
    Status::current()
}

pub(super) fn stateful_set(object: &Value) -> Status {
    let status = &object["status"];
    if object["spec"]["updateStrategy"]["type"] == "OnDelete" {
        return Status::current();
    }
    if !observed(object) {
        return Status::progress("not looked at by its controller yet");
    }
    let want = asked(object);
    let ready = number(&status["readyReplicas"]);
    if ready < want {
        return Status::progress(format!("{ready} of {want} replicas ready"));
    }
    if number(&status["replicas"]) > want {
        return Status::progress("replicas of before still stop".to_owned());
    }
    let partition = number(&object["spec"]["updateStrategy"]["rollingUpdate"]["partition"]);
    let updated = number(&status["updatedReplicas"]);
    if partition > 0 {
        if updated < want - partition {
            return Status::progress(format!("{updated} of {} replicas updated", want - partition));
        }
        return Status::current();
    }
    if status["currentRevision"] != status["updateRevision"] {
        return Status::progress(format!("{updated} of {want} replicas updated"));
    }
    Status::current()
}

pub(super) fn daemon_set(object: &Value) -> Status {
    let status = &object["status"];
    if !observed(object) {
        return Status::progress("not looked at by its controller yet");
    }
    let want = number(&status["desiredNumberScheduled"]);
    for (key, word) in
        [("updatedNumberScheduled", "updated"), ("numberAvailable", "available"), ("numberReady", "ready")]
    {
        // With OnDelete, pods of before stay on purpose.
        if key == "updatedNumberScheduled" && object["spec"]["updateStrategy"]["type"] == "OnDelete" {
            continue;
        }
        let are = number(&status[key]);
        if are < want {
            return Status::progress(format!("{are} of {want} pods {word}"));
        }
    }
    Status::current()
}

pub(super) fn replica_set(object: &Value) -> Status {
    if let Some((true, words)) = condition(object, "ReplicaFailure") {
        return Status::failed(words);
    }
    if !observed(object) {
        return Status::progress("not looked at by its controller yet");
    }
    let want = asked(object);
    let available = number(&object["status"]["availableReplicas"]);
    if available < want {
        return Status::progress(format!("{available} of {want} replicas available"));
    }
    Status::current()
}

pub(super) fn pod(object: &Value) -> Status {
    match object["status"]["phase"].as_str() {
        Some("Succeeded") => Status::current(),
        Some("Failed") => {
            Status::failed(format!("failed: {}", text(&object["status"]["message"])).trim_end_matches(": "))
        }
        Some("Running") => match condition(object, "Ready") {
            Some((true, _)) => Status::current(),
            _ => Status::progress("not ready"),
        },
        _ => Status::progress("not started yet"),
    }
}

pub(super) fn job(object: &Value) -> Status {
    if let Some((true, words)) = condition(object, "Failed") {
        return Status::failed(words);
    }
    if condition(object, "Complete").is_some_and(|(done, _)| done) {
        return Status::current();
    }
    if object["spec"]["suspend"] == true {
        return Status::new(State::Suspended, "suspended");
    }
    // kstatus counts a job that runs as current; a revision is judged by whether
    // it succeeds.
    Status::progress(format!(
        "{} of {} pods succeeded",
        number(&object["status"]["succeeded"]),
        object["spec"]["completions"].as_i64().unwrap_or(1)
    ))
}
