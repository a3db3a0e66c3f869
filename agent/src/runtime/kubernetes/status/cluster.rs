//! Network, storage, and what belongs to the cluster itself.

use serde_json::Value;

use super::{Status, current, failed, noted, progress, unseen};
use crate::runtime::kubernetes::fields::{annotation, condition, conditions, group_kind, list, text};

pub(super) fn service(object: &Value) -> Status {
    if text(object, "/spec/type") != "LoadBalancer" {
        return current();
    }
    if text(object, "/spec/clusterIP").is_empty() {
        return progress("has no cluster address yet");
    }
    if list(object, "/status/loadBalancer/ingress").is_empty() {
        return progress("its load balancer has no address yet");
    }
    current()
}

/// Not waited for: many controllers never write an address there.
pub(super) fn ingress(object: &Value) -> Status {
    if list(object, "/status/loadBalancer/ingress").is_empty() { noted("no address yet") } else { current() }
}

/// Whether a claim is unbound, so that its status needs the StorageClasses.
#[must_use]
pub(in super::super) fn waits_for_storage(object: &Value) -> bool {
    group_kind(object) == ("", "PersistentVolumeClaim") && text(object, "/status/phase") != "Bound"
}

/// A claim that no pod uses yet may stay unbound for good; one whose class
/// binds at once may not.
pub(super) fn claim(object: &Value, classes: Option<&[Value]>) -> Status {
    match text(object, "/status/phase") {
        "Bound" => return current(),
        "Lost" => return failed(&format!("its volume {} is gone", text(object, "/spec/volumeName"))),
        _ => {}
    }
    // Set by the scheduler when it places the first pod.
    let node = annotation(object, "volume.kubernetes.io/selected-node");
    if !node.is_empty() {
        return progress(&format!("its volume on {node} is not there yet"));
    }
    let volume = text(object, "/spec/volumeName");
    if !volume.is_empty() {
        return progress(&format!("not bound to {volume} yet"));
    }
    let name = object.pointer("/spec/storageClassName").and_then(Value::as_str);
    if name == Some("") {
        return progress("no volume fits it yet, and it asks for no StorageClass to make one");
    }
    // Should it matter after all, the pods that use it say so.
    let Some(classes) = classes else { return noted("not bound; its StorageClass is not known") };
    let class = classes.iter().find(|class| match name {
        Some(name) => text(class, "/metadata/name") == name,
        None => annotation(class, "storageclass.kubernetes.io/is-default-class") == "true",
    });
    match (class, name) {
        (Some(class), _) if text(class, "/volumeBindingMode") == "WaitForFirstConsumer" => {
            noted("waits for the first pod that uses it")
        }
        (Some(class), _) => progress(&format!("StorageClass {} has made no volume yet", text(class, "/metadata/name"))),
        (None, Some(name)) => progress(&format!("there is no StorageClass {name}")),
        (None, None) => progress("names no StorageClass, and there is no default one"),
    }
}

pub(super) fn volume(object: &Value) -> Status {
    match text(object, "/status/phase") {
        "Bound" | "Available" => current(),
        "Released" => noted("its claim is gone"),
        "Failed" => failed(&format!("could not be reclaimed: {}", text(object, "/status/message"))),
        _ => progress("not available yet"),
    }
}

pub(super) fn namespace(object: &Value) -> Status {
    match text(object, "/status/phase") {
        "Active" => current(),
        _ => progress("not active yet"),
    }
}

pub(super) fn definition(object: &Value) -> Status {
    for condition in conditions(object) {
        match condition.kind() {
            "NamesAccepted" if condition.is("False") => {
                return failed(&format!("its names are not accepted: {}", condition.words()));
            }
            "Established" if condition.is_true() => return current(),
            "Established" if condition.is("False") && condition.reason() != "Installing" => {
                return failed(&format!("not established: {}", condition.words()));
            }
            _ => {}
        }
    }
    progress("not established yet")
}

pub(super) fn api_service(object: &Value) -> Status {
    match condition(object, "Available") {
        Some(available) if available.is_true() => current(),
        Some(available) => progress(&format!("not available: {}", available.words())),
        None => progress("not available yet"),
    }
}

pub(super) fn disruption_budget(object: &Value) -> Status {
    if let Some(status) = unseen(object) {
        return status;
    }
    match condition(object, "DisruptionAllowed") {
        Some(allowed) if allowed.reason() == "SyncFailed" => noted(allowed.words()),
        _ => current(),
    }
}

/// That it does not scale (no metrics yet, replicas 0) is no failure: the
/// workload keeps the replicas it has.
pub(super) fn autoscaler(object: &Value) -> Status {
    let idle = conditions(object)
        .find(|condition| matches!(condition.kind(), "AbleToScale" | "ScalingActive") && condition.is("False"));
    idle.map_or_else(current, |idle| noted(idle.words()))
}
