//! Reads fields of objects as the server sends them. What is absent, or not
//! of its type, is empty: a rule must not fail on an object it did not expect.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

/// The text at `pointer`; empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// A count, of which 0 is usually left out.
pub(super) fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or(0)
}

pub(super) fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

pub(super) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// The annotation or label map's value under `key`, which may contain `/`.
pub(super) fn entry<'a>(object: &'a Value, pointer: &str, key: &str) -> &'a str {
    object.pointer(pointer).and_then(|map| map.get(key)).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn annotation<'a>(object: &'a Value, key: &str) -> &'a str {
    entry(object, "/metadata/annotations", key)
}

pub(super) fn label<'a>(object: &'a Value, key: &str) -> &'a str {
    entry(object, "/metadata/labels", key)
}

/// Group and kind, the group empty for the core group.
pub(super) fn group_kind(object: &Value) -> (&str, &str) {
    let group = text(object, "/apiVersion").split_once('/').map_or("", |(group, _)| group);
    (group, text(object, "/kind"))
}

/// How long ago, by a clock that may have been set back.
pub(super) fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    now.duration_since(since).try_into().unwrap_or_default()
}

/// One of `status.conditions`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition<'a>(&'a Value);

impl<'a> Condition<'a> {
    pub(super) fn kind(self) -> &'a str {
        text(self.0, "/type")
    }

    pub(super) fn is(self, status: &str) -> bool {
        text(self.0, "/status") == status
    }

    pub(super) fn is_true(self) -> bool {
        self.is("True")
    }

    pub(super) fn reason(self) -> &'a str {
        text(self.0, "/reason")
    }

    pub(super) fn since(self) -> Option<Timestamp> {
        time(self.0, "/lastTransitionTime")
    }

    /// The generation that it speaks of, where it says so.
    pub(super) fn generation(self) -> Option<i64> {
        number(self.0, "/observedGeneration")
    }

    /// Its message, else its reason.
    pub(super) fn words(self) -> &'a str {
        let message = text(self.0, "/message").trim();
        if message.is_empty() { self.reason() } else { message }
    }
}

pub(super) fn conditions(object: &Value) -> impl Iterator<Item = Condition<'_>> {
    list(object, "/status/conditions").iter().map(Condition)
}

pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<Condition<'a>> {
    conditions(object).find(|condition| condition.kind() == kind)
}

/// White space made single, and at most `limit` bytes.
pub(super) fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > limit {
            line.truncate(line.floor_char_boundary(limit));
            line.push('…');
            break;
        }
    }
    line
}

/// Test objects are written as YAML, in which `y` is a word.
#[cfg(test)]
pub(super) fn yaml(text: &str) -> Value {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded() {
        let check = |text: &str, limit, want: &str| assert_eq!(one_line(text, limit), want, "{text:?}");
        check(" a\n\tb ", 10, "a b");
        check("", 10, "");
        check("0123456789", 10, "0123456789");
        check("01234 6789a b", 10, "01234 6789…");
        check("aßßß", 4, "aß…");
    }
}
