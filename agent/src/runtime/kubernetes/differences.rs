//! What a dry-run of an apply would change, in a few words.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde_json::Value;

use super::fields::{group_kind, one_line};

/// At most this many are told.
const MOST: usize = 16;
/// A value has at most about this many bytes.
const LIMIT: usize = 60;

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldDifference {
    /// `spec.template.spec.containers[app].image`; keys that have dots or
    /// slashes, names of list elements and indices stand in brackets.
    pub(super) path: String,
    /// What is live; empty where values are not told.
    pub(super) before: String,
    /// What an apply makes of it, or `changed`, `added`, `removed`, `reordered`.
    pub(super) after: String,
}

/// `spec.replicas: 5 → 3`, `data[password]: changed`.
impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.before.is_empty() {
            write!(f, "{}: {}", self.path, self.after)
        } else {
            write!(f, "{}: {} → {}", self.path, self.before, self.after)
        }
    }
}

/// In what the object that a dry-run answered with differs from the live one,
/// without its status and what the server counts. Empty if and only if an
/// apply changes nothing. Values that may be secret are not told.
#[must_use]
pub(super) fn differences(applied: &Value, live: &Value) -> Vec<FieldDifference> {
    let mut walk = Walk { group_kind: group_kind(applied), path: Vec::new(), found: Vec::new() };
    walk.compare(Some(live), Some(applied));
    walk.found
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Name(&'a str),
    Index(usize),
}

struct Walk<'a> {
    group_kind: (&'a str, &'a str),
    path: Vec<Part<'a>>,
    found: Vec<FieldDifference>,
}

impl<'a> Walk<'a> {
    fn compare(&mut self, before: Option<&'a Value>, after: Option<&'a Value>) {
        // To the server a null is nothing.
        let before = before.filter(|value| !value.is_null());
        let after = after.filter(|value| !value.is_null());
        if before == after || self.found.len() >= MOST || self.is_the_servers() {
            return;
        }
        match (before, after) {
            (Some(Value::Object(old)), Some(Value::Object(new))) => {
                let keys: BTreeSet<&str> = old.keys().chain(new.keys()).map(String::as_str).collect();
                for key in keys {
                    self.step(Part::Key(key), old.get(key), new.get(key));
                }
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => match (names(old), names(new)) {
                (Some(old_names), Some(new_names)) => {
                    let all: BTreeSet<&str> = old_names.iter().chain(&new_names).copied().collect();
                    for name in all {
                        let find = |names: &[&str], list: &'a [Value]| {
                            names.iter().position(|other| *other == name).and_then(|at| list.get(at))
                        };
                        self.step(Part::Name(name), find(&old_names, old), find(&new_names, new));
                    }
                    let stay = |names: &[&'a str], others: &[&'a str]| {
                        names.iter().copied().filter(|name| others.contains(name)).collect::<Vec<_>>()
                    };
                    if stay(&old_names, &new_names) != stay(&new_names, &old_names) {
                        self.tell(String::new(), "reordered".to_owned());
                    }
                }
                _ => {
                    for index in 0..old.len().max(new.len()) {
                        self.step(Part::Index(index), old.get(index), new.get(index));
                    }
                }
            },
            _ => self.leaf(before, after),
        }
    }

    fn step(&mut self, part: Part<'a>, before: Option<&'a Value>, after: Option<&'a Value>) {
        self.path.push(part);
        self.compare(before, after);
        self.path.pop();
    }

    fn leaf(&mut self, before: Option<&Value>, after: Option<&Value>) {
        let (old, new) = (word(before), word(after));
        // Equal words: what differs is beyond the bound.
        if self.is_hidden(before.or(after)) || old == new {
            let how = match (before, after) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            self.tell(String::new(), how.to_owned());
        } else {
            self.tell(old, new);
        }
    }

    fn tell(&mut self, before: String, after: String) {
        if self.found.len() < MOST {
            let path = text_of(&self.path);
            self.found.push(FieldDifference { path, before, after });
        }
    }

    fn is_the_servers(&self) -> bool {
        match self.path.as_slice() {
            [Part::Key("status")] => true,
            [Part::Key("metadata"), Part::Key(key)] => matches!(
                *key,
                "managedFields" | "resourceVersion" | "generation" | "creationTimestamp" | "uid" | "selfLink"
            ),
            _ => false,
        }
    }

    /// Whether the value may be a secret, by where it is.
    fn is_hidden(&self, value: Option<&Value>) -> bool {
        let path = self.path.as_slice();
        match (self.group_kind, path) {
            (("", "Secret" | "ConfigMap"), [Part::Key("data" | "stringData" | "binaryData"), ..])
            | (("helm.cattle.io", _), [Part::Key("spec"), Part::Key("set" | "valuesContent"), ..])
            | (_, [.., Part::Key("kubectl.kubernetes.io/last-applied-configuration")])
            | (_, [.., Part::Key("env"), Part::Name(_) | Part::Index(_), Part::Key("value")]) => return true,
            _ => {}
        }
        if path.iter().any(|part| matches!(part, Part::Key("args" | "command"))) {
            return true;
        }
        // A number or a yes is no secret.
        let Some(Part::Key(key)) = path.last() else { return false };
        let key = key.to_ascii_lowercase();
        value.is_some_and(Value::is_string)
            && (key.contains("password") || key.ends_with("token") || key.ends_with("secret"))
    }
}

/// The names of a list's elements, where each has one of its own.
fn names(list: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<&str> =
        list.iter().map(|element| element.get("name").and_then(Value::as_str)).collect::<Option<_>>()?;
    let each: BTreeSet<&&str> = names.iter().collect();
    (each.len() == names.len()).then_some(names)
}

fn text_of(path: &[Part<'_>]) -> String {
    let mut text = String::new();
    for part in path {
        let dot = if text.is_empty() { "" } else { "." };
        // Writing to a String never fails.
        let _ = match part {
            Part::Key(key) if key.is_empty() || key.contains(['.', '/', '[', ']']) => write!(text, "[{key}]"),
            Part::Key(key) => write!(text, "{dot}{key}"),
            Part::Name(name) => write!(text, "[{name}]"),
            Part::Index(index) => write!(text, "[{index}]"),
        };
    }
    text
}

fn word(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "absent".to_owned(),
        Some(Value::Object(map)) if map.is_empty() => "{}".to_owned(),
        Some(Value::Array(list)) if list.is_empty() => "[]".to_owned(),
        Some(Value::Object(_)) => "{…}".to_owned(),
        Some(Value::Array(_)) => "[…]".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "\"\"".to_owned(),
        Some(Value::String(text)) => one_line(text, LIMIT),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
#[path = "differences_tests.rs"]
mod tests;
