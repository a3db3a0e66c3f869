//! What keeps a number of pods running.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::{Status, current, failed, noted, progress, suspended, unseen};
use crate::runtime::kubernetes::fields::{condition, count, elapsed, flag, number, text};

/// A pod that is refused for this long is not refused by chance (a quota,
/// admission, a service account that does not exist).
const REFUSED: Duration = Duration::from_secs(30);

fn wanted(object: &Value) -> i64 {
    number(object, "/spec/replicas").unwrap_or(1)
}

/// Pods that could not even be created, with the server's words.
fn refused(object: &Value, now: Timestamp) -> Option<Status> {
    let failure = condition(object, "ReplicaFailure").filter(|failure| failure.is_true())?;
    let message = format!("a pod could not be created: {}", failure.words());
    let long = failure.since().is_some_and(|since| elapsed(since, now) >= REFUSED);
    Some(if long { failed(&message) } else { progress(&message) })
}

pub(super) fn deployment(object: &Value, now: Timestamp) -> Status {
    if flag(object, "/spec/paused") {
        return suspended("its rollout is paused");
    }
    if let Some(status) = unseen(object) {
        return status;
    }
    let lacking = lacking(object);
    let progressing = condition(object, "Progressing");
    if progressing.is_some_and(|progressing| progressing.reason() == "ProgressDeadlineExceeded") {
        let limit = number(object, "/spec/progressDeadlineSeconds").unwrap_or(600);
        let lacking = lacking.unwrap_or_else(|| "not available".to_owned());
        return failed(&format!("no progress within {limit} s: {lacking}"));
    }
    if let Some(lacking) = lacking {
        return refused(object, now).unwrap_or_else(|| progress(&lacking));
    }
    // Without a deadline the controller says nothing about progress.
    let unlimited = number(object, "/spec/progressDeadlineSeconds").is_none_or(|limit| limit == i64::from(i32::MAX));
    let done = progressing
        .is_some_and(|progressing| progressing.is_true() && progressing.reason() == "NewReplicaSetAvailable");
    if !unlimited && !done {
        return progress("its new ReplicaSet is not available yet");
    }
    if !condition(object, "Available").is_some_and(|available| available.is_true()) {
        return progress("not available yet");
    }
    current()
}

fn lacking(object: &Value) -> Option<String> {
    let want = wanted(object);
    let have = count(object, "/status/replicas");
    let updated = count(object, "/status/updatedReplicas");
    let available = count(object, "/status/availableReplicas");
    let ready = count(object, "/status/readyReplicas");
    if want > have {
        Some(format!("{have} of {want} replicas created"))
    } else if want > updated {
        Some(format!("{updated} of {want} replicas updated"))
    } else if have > want {
        Some(format!("{} old replicas have yet to end", have - want))
    } else if updated > available {
        Some(format!("{available} of {updated} replicas available"))
    } else if want > ready {
        Some(format!("{ready} of {want} replicas ready"))
    } else {
        None
    }
}

pub(super) fn replica_set(object: &Value, now: Timestamp) -> Status {
    if let Some(status) = unseen(object).or_else(|| refused(object, now)) {
        return status;
    }
    let want = wanted(object);
    let have = count(object, "/status/replicas");
    for (field, word) in [
        ("/status/fullyLabeledReplicas", "labelled"),
        ("/status/availableReplicas", "available"),
        ("/status/readyReplicas", "ready"),
    ] {
        let number = count(object, field);
        if want > number {
            return progress(&format!("{number} of {want} replicas {word}"));
        }
    }
    if have > want {
        return progress(&format!("{} replicas have yet to end", have - want));
    }
    current()
}

pub(super) fn stateful_set(object: &Value) -> Status {
    if let Some(status) = unseen(object) {
        return status;
    }
    let want = wanted(object);
    let have = count(object, "/status/replicas");
    let ready = count(object, "/status/readyReplicas");
    let updated = count(object, "/status/updatedReplicas");
    if want > have {
        return progress(&format!("{have} of {want} replicas created"));
    }
    if want > ready {
        return progress(&format!("{ready} of {want} replicas ready"));
    }
    if have > want {
        return progress(&format!("{} replicas have yet to end", have - want));
    }
    if text(object, "/spec/updateStrategy/type") == "OnDelete" {
        return noted("pods are updated when somebody deletes them");
    }
    // The server puts a partition of 0 where there is none.
    if let Some(partition) = number(object, "/spec/updateStrategy/rollingUpdate/partition") {
        let due = want - partition;
        return match updated < due {
            true => progress(&format!("{updated} of {due} replicas updated")),
            false if partition > 0 => noted(&format!("updated down to partition {partition}")),
            false => current(),
        };
    }
    let current_replicas = count(object, "/status/currentReplicas");
    if want > current_replicas {
        return progress(&format!("{current_replicas} of {want} replicas current"));
    }
    if text(object, "/status/currentRevision") != text(object, "/status/updateRevision") {
        return progress("its new revision is not rolled out yet");
    }
    current()
}

pub(super) fn daemon_set(object: &Value) -> Status {
    if let Some(status) = unseen(object) {
        return status;
    }
    let Some(want) = number(object, "/status/desiredNumberScheduled") else {
        return progress("its controller has not counted its nodes yet");
    };
    let by_hand = text(object, "/spec/updateStrategy/type") == "OnDelete";
    for (field, word) in [
        ("/status/currentNumberScheduled", "scheduled"),
        ("/status/updatedNumberScheduled", "updated"),
        ("/status/numberAvailable", "available"),
        ("/status/numberReady", "ready"),
    ] {
        let number = count(object, field);
        if want > number && !(by_hand && word == "updated") {
            return progress(&format!("{number} of {want} pods {word}"));
        }
    }
    if want == 0 { noted("no node wants a pod of it") } else { current() }
}
