//! Custom resources: those whose ways are known, and all others.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::run::job as job_status;
use super::{State, Status, current, failed, is_suspended, make, progress, suspended};
use crate::runtime::kubernetes::fields::{condition, elapsed, flag, group_kind, list, number, text, time};

/// Helm's controller makes a new Job for a changed chart within this time; a
/// change that needs no new Job has none after it either.
const PICKED_UP: Duration = Duration::from_secs(15);

/// `Ready` decides, where there is one.
pub(super) fn by_ready(object: &Value) -> Status {
    let Some(ready) = condition(object, "Ready") else {
        return if is_suspended(object) { suspended("suspended") } else { current() };
    };
    if let (Some(seen), Some(want)) = (ready.generation(), number(object, "/metadata/generation"))
        && seen < want
    {
        return progress(&format!("its Ready is of generation {seen}, not yet of {want}"));
    }
    if is_suspended(object) {
        return suspended("suspended");
    }
    if ready.is_true() { current() } else { progress(&format!("not ready: {}", ready.words())) }
}

/// Namespace and name of the Job that a HelmChart's status needs.
#[must_use]
pub(in super::super) fn job_of(object: &Value) -> Option<(&str, &str)> {
    let name = text(object, "/status/jobName");
    let is_chart = group_kind(object) == ("helm.cattle.io", "HelmChart");
    (is_chart && !name.is_empty()).then(|| (text(object, "/metadata/namespace"), name))
}

/// k3s installs a chart with a Job. Its newer versions copy a failure of that
/// Job to the chart; its success has to be looked for.
pub(super) fn helm_chart(object: &Value, job: Option<&Value>, now: Timestamp) -> Status {
    let changed = spec_changed(object);
    let fresh = |made: Option<Timestamp>| {
        changed.is_some_and(|changed| {
            elapsed(changed, now) < PICKED_UP && made.is_none_or(|made| elapsed(made, changed) > Duration::ZERO)
        })
    };
    if let Some(failure) = condition(object, "Failed").filter(|failure| failure.is_true()) {
        // Of what was there before the change, maybe.
        return match fresh(failure.since().or_else(|| job.and_then(|job| time(job, "/metadata/creationTimestamp")))) {
            true => progress("its change has not been picked up yet"),
            false => failed(failure.words()),
        };
    }
    let Some((_, name)) = job_of(object) else { return progress("its install Job has not been made yet") };
    let Some(job) = job else { return progress(&format!("its Job {name} does not exist")) };
    if !text(job, "/metadata/deletionTimestamp").is_empty() || fresh(time(job, "/metadata/creationTimestamp")) {
        return progress("its change has not been picked up yet");
    }
    let status = job_status(job);
    match status.state {
        State::Current => current(),
        // Its controller makes it so, and lets it run a moment later: nobody paused anything.
        State::Suspended => progress(&format!("its Job {name} is not let run yet")),
        state => make(state, &format!("Job {name}: {}", status.message)),
    }
}

/// When somebody last changed the specification, by the server's clock.
fn spec_changed(object: &Value) -> Option<Timestamp> {
    let entries = list(object, "/metadata/managedFields").iter();
    let entries = entries.filter(|entry| {
        text(entry, "/subresource").is_empty() && entry.pointer("/fieldsV1/f:spec").is_some_and(Value::is_object)
    });
    entries.filter_map(|entry| time(entry, "/time")).max().or_else(|| time(object, "/metadata/creationTimestamp"))
}

/// Argo Rollouts.
pub(super) fn rollout(object: &Value) -> Status {
    let message = text(object, "/status/message");
    let words = |otherwise: &str| if message.is_empty() { otherwise.to_owned() } else { message.to_owned() };
    match text(object, "/status/phase") {
        _ if flag(object, "/spec/paused") => suspended("its rollout is paused"),
        "Healthy" => current(),
        "Paused" => suspended(&words("paused")),
        "Degraded" => failed(&words("degraded")),
        "" => progress("its controller has not seen it yet"),
        phase => progress(&words(phase)),
    }
}

pub(super) fn sealed_secret(object: &Value) -> Status {
    match condition(object, "Synced") {
        Some(synced) if synced.is_true() => current(),
        Some(synced) if synced.is("False") => failed(&format!("not unsealed: {}", synced.words())),
        _ => progress("not unsealed yet"),
    }
}
