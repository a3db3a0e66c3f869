//! The status as a person reads it, and the exit code that it means.

use fleet::wire::status::{Condition, Health, PhaseName, Status};
use jiff::Timestamp;
use serde::Serialize;

use super::table::{Paint, Table};

/// Head, apps, conditions, what is blocked.
pub(super) fn show(status: &Status, now: Timestamp, paint: &Paint) -> String {
    let short = |id: &fleet::revision::CommitId| id.short().to_owned();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{}{value}\n", paint.dim(&format!("{name:11}"))));
    line("device", status.device.as_str());
    let suspended = if status.suspended { paint.yellow(" (suspended)") } else { String::new() };
    line("phase", &format!("{}{suspended}", paint.state(&word(&status.phase))));
    line("revision", &status.revision.as_ref().map_or_else(|| "none yet".to_owned(), short));
    line("last good", &status.last_good.as_ref().map_or_else(|| "none yet".to_owned(), short));
    if let Some(target) = status.target.as_ref().filter(|target| Some(*target) != status.revision.as_ref()) {
        line("target", &short(target));
    }
    let links = [("git", status.link.git), ("mqtt", status.link.mqtt), ("hub", status.link.hub)];
    let links: Vec<String> =
        links.iter().map(|(name, state)| format!("{name} {}", paint.state(&word(state)))).collect();
    line("links", &links.join(", "));

    let mut apps = Table::new(["APP", "RUNTIME", "SYNC", "HEALTH", "MESSAGE"]);
    for app in &status.apps {
        let name = app.name.to_string();
        apps.row([name, app.runtime.clone(), word(&app.sync), word(&app.health), app.message.clone()]);
    }
    let mut conditions = Table::new(["CONDITION", "STATUS", "REASON", "AGE", "MESSAGE"]);
    for condition in &status.conditions {
        let Condition { kind, status, reason, message, since } = condition;
        conditions.row([kind.clone(), status.to_string(), reason.clone(), age(*since, now), message.clone()]);
    }
    let mut blocked = Table::new(["BLOCKED", "REASON"]);
    for block in &status.blocked {
        blocked.row([short(&block.revision), block.reason.clone()]);
    }
    for table in [apps.show(paint), conditions.show(paint), blocked.show(paint)] {
        if !table.is_empty() {
            text.push('\n');
            text.push_str(&table);
        }
    }
    text
}

/// How long ago, in the unit that fits. A clock that was set back gives `?`.
fn age(since: Timestamp, now: Timestamp) -> String {
    let secs = now.as_second() - since.as_second();
    match secs {
        ..0 => "?".to_owned(),
        0..120 => format!("{secs}s"),
        120..7200 => format!("{}m", secs / 60),
        7200..172_800 => format!("{}h", secs / 3600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// A wire enum's own word.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The exit code of a device that came to rest (design §13).
pub(super) fn exit_code(status: &Status) -> u8 {
    let failed = |kind: &str| status.conditions.iter().find(|condition| condition.kind == kind && !condition.status);
    if let Some(refused) = failed("Verified") {
        return if refused.reason == "Malformed" { 2 } else { 3 };
    }
    if let Some(missed) = failed("Fetched") {
        return if missed.reason == "GitUnreachable" { 5 } else { 1 };
    }
    // What is on its way, or not looked at yet, has not failed.
    let sick = status.apps.iter().any(|app| matches!(app.health, Health::Degraded | Health::Missing));
    if status.phase == PhaseName::Stalled || sick { 4 } else { 0 }
}

#[cfg(test)]
mod tests {
    use fleet::wire::status::Status;
    use serde_json::{Value, json};

    use super::{exit_code, show};
    use crate::commands::table::Paint;

    fn status(changes: &Value) -> Status {
        let mut all = json!({
            "device": "store-042", "phase": "steady",
            "revision": "4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c",
            "lastGood": "4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c",
            "blocked": [], "apps": [], "conditions": [],
            "link": {"git": "up", "mqtt": "down", "hub": "unused"}
        });
        for (key, value) in changes.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_status_as_text() {
        let shown = status(&json!({
            "phase": "stalled", "suspended": true,
            "target": "aaaa0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c",
            "blocked": [{"revision": "aaaa0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c", "digest": null, "reason": "Unhealthy"}],
            "apps": [
                {"name": "pos", "runtime": "compose", "sync": "synced", "health": "healthy", "digest": null},
                {"name": "label-printer", "runtime": "files", "sync": "out-of-sync", "health": "degraded", "digest": null,
                 "message": "label.service is failed"}
            ],
            "conditions": [{"type": "Healthy", "status": false, "reason": "Unhealthy",
                            "message": "pos did not get healthy\nhint: burgee-agent logs pos",
                            "since": "2026-01-02T03:04:05Z"}]
        }));
        let want = "\
device     store-042
phase      stalled (suspended)
revision   4f1c0e2d3b5a
last good  4f1c0e2d3b5a
target     aaaa0e2d3b5a
links      git up, mqtt down, hub unused

APP            RUNTIME  SYNC         HEALTH    MESSAGE
pos            compose  synced       healthy
label-printer  files    out-of-sync  degraded  label.service is failed

CONDITION  STATUS  REASON     AGE  MESSAGE
Healthy    false   Unhealthy  3h   pos did not get healthy
                                   hint: burgee-agent logs pos

BLOCKED       REASON
aaaa0e2d3b5a  Unhealthy
";
        assert_eq!(show(&shown, "2026-01-02T06:10:00Z".parse().unwrap(), &Paint::plain()), want);
    }

    #[test]
    fn exit_codes() {
        let condition = |kind: &str, reason: &str| json!([{"type": kind, "status": false, "reason": reason, "message": "", "since": "2026-01-02T03:04:05Z"}]);
        let app = |health: &str| json!([{"name": "a", "runtime": "files", "sync": "synced", "health": health, "digest": null}]);
        let cases = [
            (json!({}), 0),
            (json!({"apps": app("healthy")}), 0),
            (json!({"apps": app("degraded")}), 4),
            (json!({"phase": "stalled"}), 4),
            (json!({"phase": "held"}), 0),
            (json!({"conditions": condition("Verified", "Unsigned")}), 3),
            (json!({"conditions": condition("Verified", "Malformed")}), 2),
            (json!({"conditions": condition("Fetched", "GitUnreachable")}), 5),
            (json!({"conditions": condition("Fetched", "SourceFailed")}), 1),
            (json!({"conditions": condition("Drifted", "Drift")}), 0),
        ];
        for (changes, want) in cases {
            assert_eq!(exit_code(&status(&changes)), want, "{changes}");
        }
    }
}
