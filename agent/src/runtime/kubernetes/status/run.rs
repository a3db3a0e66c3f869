//! What runs once, or now and then.

use jiff::Timestamp;
use serde_json::Value;

use super::{Status, current, failed, is_suspended, progress, suspended};
use crate::runtime::kubernetes::fields::{condition, conditions, count, number, text};
use crate::runtime::kubernetes::pods::{Severity, own_trouble};

pub(super) fn pod(object: &Value, now: Timestamp) -> Status {
    let phase = text(object, "/status/phase");
    let ready = condition(object, "Ready").is_some_and(|ready| ready.is_true());
    match phase {
        "Succeeded" => return current(),
        "Running" if ready => return current(),
        _ => {}
    }
    let trouble = own_trouble(object, now);
    match (phase, trouble) {
        ("Failed", trouble) => failed(&trouble.map_or_else(|| "failed".to_owned(), |trouble| trouble.message)),
        (_, Some(trouble)) if trouble.severity == Severity::Degraded => failed(&trouble.message),
        (_, Some(trouble)) => progress(&trouble.message),
        ("", None) => progress("not scheduled yet"),
        ("Running", None) => progress("running, but not ready"),
        (phase, None) => progress(&format!("in phase {phase}")),
    }
}

pub(super) fn job(object: &Value) -> Status {
    for condition in conditions(object).filter(|condition| condition.is_true()) {
        match condition.kind() {
            "Complete" => return current(),
            // The second is there while the rest of the pods are being ended.
            "Failed" | "FailureTarget" => {
                let words = match (condition.reason(), condition.words()) {
                    ("", "") => "failed".to_owned(),
                    ("", words) => format!("failed: {words}"),
                    (reason, words) if reason == words => format!("failed: {reason}"),
                    (reason, words) => format!("failed: {reason}: {words}"),
                };
                return failed(&words);
            }
            _ => {}
        }
    }
    if is_suspended(object) {
        return suspended("suspended");
    }
    if text(object, "/status/startTime").is_empty() {
        return progress("not started yet");
    }
    let parallel = number(object, "/spec/parallelism").unwrap_or(1);
    let want = number(object, "/spec/completions").unwrap_or(parallel);
    let mut message = format!("{} of {want} completions", count(object, "/status/succeeded"));
    let again = count(object, "/status/failed");
    if again > 0 {
        message.push_str(&format!(", {again} pods failed"));
    }
    progress(&message)
}

/// The runs are objects of their own: that the last one failed is no failure
/// of the schedule.
pub(super) fn cron_job(object: &Value) -> Status {
    if is_suspended(object) { suspended("suspended") } else { current() }
}
