//! The differences between two rendered apps, as a flat list of paths.
//!
//! Generic over the JSON of the types, so that a field that is added to a
//! runtime's model shows up here by itself. Values of environment variables
//! are not shown: they may be secrets.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Kind;
use crate::desired::{AppSpec, DesiredApp, DesiredState};
use crate::digest::Digest;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// `services.web.image`.
    pub path: String,
    /// Added, removed or changed.
    pub change: Kind,
    /// The former value; absent where there was none, or it is not to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// The new value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What changes from one app to the other.
pub(super) fn app(before: &DesiredApp, after: &DesiredApp) -> Vec<Change> {
    let mut changes = Vec::new();
    let kinds = (before.spec.runtime(), after.spec.runtime());
    if kinds.0 != kinds.1 {
        changes.push(change("runtime", Some(kinds.0.to_owned()), Some(kinds.1.to_owned())));
    }
    walk("", &shape(before), &shape(after), &mut changes);
    changes
}

/// What an app is made of that was not there before.
pub(super) fn added(app: &DesiredApp) -> Vec<Change> {
    let whole = shape(app);
    let mut changes = Vec::new();
    for key in ["services", "networks", "volumes", "files", "units"] {
        if let Some(value) = whole.get(key) {
            let nothing = if value.is_object() { json!({}) } else { Value::Null };
            walk(key, &nothing, value, &mut changes);
        }
    }
    changes
}

/// What changes for the device beside its apps.
pub(super) fn state(before: Option<&DesiredState>, after: &DesiredState) -> Vec<Change> {
    let shape = |state: &DesiredState| {
        let windows: Vec<_> = state
            .windows
            .iter()
            .map(|window| {
                let days: Vec<_> =
                    window.days.iter().map(|day| DAYS.get(usize::from(*day)).copied().unwrap_or("?")).collect();
                let (hour, minute) = (window.from_minute / 60, window.from_minute % 60);
                format!("{} {hour:02}:{minute:02} for {}m {}", days.join(","), window.for_minutes, window.tz)
            })
            .collect();
        json!({"groups": state.groups, "windows": windows, "rollout": state.has_rollout})
    };
    let mut changes = Vec::new();
    if let Some(before) = before {
        walk("", &shape(before), &shape(after), &mut changes);
    }
    changes
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// An app as one JSON object: its spec, and beside it how it is judged.
fn shape(app: &DesiredApp) -> Value {
    let spec = match &app.spec {
        AppSpec::Compose(project) => serde_json::to_value(project),
        AppSpec::Files(files) => serde_json::to_value(files),
        AppSpec::Kubernetes(objects) => serde_json::to_value(objects),
    };
    let mut whole = match spec {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let rest = json!({
        "dependsOn": app.depends_on,
        "health": app.health,
        "drift": app.drift,
        "prune": app.prune,
        "onFailure": app.on_failure,
    });
    if let Value::Object(rest) = rest {
        whole.extend(rest);
    }
    Value::Object(whole)
}

fn change(path: &str, before: Option<String>, after: Option<String>) -> Change {
    let kind = match (&before, &after) {
        (None, _) => Kind::Added,
        (_, None) => Kind::Removed,
        _ => Kind::Changed,
    };
    let secret = path.split('.').any(|part| part == "environment");
    let shown = |value: Option<String>| value.filter(|_| !secret);
    Change { path: path.to_owned(), change: kind, before: shown(before), after: shown(after) }
}

fn walk(path: &str, before: &Value, after: &Value, changes: &mut Vec<Change>) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            for key in keys {
                let name = key.strip_suffix("_ms").unwrap_or(key);
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                let side = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                walk(&path, &written(key, side(old)), &written(key, side(new)), changes);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.iter().chain(new).any(Value::is_object) => {
            let (gone, come) = (missing(old, new), missing(new, old));
            for before in &gone {
                // A mount that only changed is one line, not one that goes and one that comes.
                let after = come.iter().find(|after| same_place(before, after)).and_then(|after| show(after));
                changes.push(change(path, show(before), after));
            }
            for after in come.iter().filter(|after| !gone.iter().any(|before| same_place(before, after))) {
                changes.push(change(path, None, show(after)));
            }
        }
        _ => match (show(before), show(after)) {
            (None, None) => {}
            (old, new) => changes.push(change(path, old, new)),
        },
    }
}

/// The values of one list that the other lacks.
fn missing<'v>(of: &'v [Value], from: &[Value]) -> Vec<&'v Value> {
    of.iter().filter(|value| !from.contains(value)).collect()
}

/// Whether two elements of a list are for the same place in the container.
fn same_place(one: &Value, other: &Value) -> bool {
    let place = |value: &Value| value.get("target").filter(|target| target.is_string()).cloned();
    place(one).is_some_and(|target| place(other) == Some(target))
}

/// Times and file modes as people write them.
fn written(key: &str, value: Value) -> Value {
    if let Some(mode) = value.as_u64().filter(|_| key == "mode") {
        return Value::String(format!("{mode:04o}"));
    }
    let Some(ms) = value.as_u64().filter(|_| key.ends_with("_ms")) else { return value };
    Value::String(match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    })
}

/// A value in a few words; `None` for what means "not set".
fn show(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) if text.is_empty() => None,
        Value::String(text) if text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) => {
            Some(text[..12].to_owned())
        }
        Value::String(text) => Some(text.clone()),
        Value::Array(list) if list.is_empty() => None,
        Value::Array(list) => Some(format!("[{}]", list.iter().filter_map(show).collect::<Vec<_>>().join(", "))),
        Value::Object(map) if map.is_empty() => None,
        Value::Object(map) => Some(summary(map).unwrap_or_else(|| value.to_string())),
        other => Some(other.to_string()),
    }
}

/// The digest, in short, of the files that come with a mount.
fn contents(inner: &Value) -> Option<String> {
    let digest = |file: &Value| file.get("content").and_then(Value::as_str).map(str::to_owned);
    if let Some(file) = inner.get("file") {
        return digest(file)?.get(..12).map(str::to_owned);
    }
    let files = inner.get("files")?.as_object()?;
    let mut digests = files.values().filter_map(digest);
    match files.len() {
        0 => None,
        1 => digests.next()?.get(..12).map(str::to_owned),
        _ => Some(Digest::of(serde_json::to_string(files).ok()?.as_bytes()).short()),
    }
}

/// What names an object best: a service's image, a port, a mount, a file's content.
fn summary(map: &Map<String, Value>) -> Option<String> {
    let text = |key: &str| map.get(key).and_then(Value::as_str);
    if let Some(image) = text("image").filter(|_| map.contains_key("command")) {
        return Some(image.to_owned());
    }
    if let Some(content) = text("content") {
        let mode = map.get("mode").and_then(Value::as_u64).map_or(String::new(), |mode| format!(" mode {mode:04o}"));
        return Some(format!("{}{mode}", content.get(..12).unwrap_or(content)));
    }
    if let (Some(target), Some(protocol)) = (map.get("target").and_then(Value::as_u64), text("protocol")) {
        let host = text("host_ip").map_or(String::new(), |host| format!("{host}:"));
        let published = text("published").map_or(String::new(), |port| format!("{port}:"));
        return Some(format!("{host}{published}{target}/{protocol}"));
    }
    if let (Some(target), Some(source)) = (text("target"), map.get("source")) {
        let (kind, inner) = match source {
            Value::Object(source) => source.iter().next().map(|(kind, inner)| (kind.as_str(), inner))?,
            other => (other.as_str()?, other),
        };
        let from = ["path", "key", "name"].iter().find_map(|key| inner.get(key)?.as_str()).unwrap_or(kind);
        let read_only = map.get("read_only").and_then(Value::as_bool).unwrap_or(false);
        let content = contents(inner).map_or(String::new(), |digest| format!(" ({digest})"));
        return Some(format!("{from}:{target}{}{content}", if read_only { ":ro" } else { "" }));
    }
    if map.contains_key("external") {
        return text("name").map(str::to_owned);
    }
    None
}
