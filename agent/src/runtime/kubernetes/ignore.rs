//! `drift.ignore`: fields that belong to somebody else.

use serde_json::{Map, Value};

use super::managed::{is_applied, pointer_tokens};

/// One step into a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Key(String),
    Index(usize),
}

/// Makes `desired` agree with `live` at each of the JSON pointers, so that
/// applying it changes nothing there: the live value takes the desired one's
/// place, and where there is none the desired one goes.
///
/// What only `live` has stays out of `desired`, for to apply it would be to
/// own it; except where burgee owns it already, for to leave it out would be
/// to remove it. An index counts in the desired list, and finds the live
/// element of the same `name` where elements have one. Pointers to what
/// identifies the object, to no part of it, or that are none, do nothing.
/// Labels that burgee needs are to be put on afterwards.
pub(super) fn transplant(desired: &mut Value, live: &Value, pointers: &[String]) {
    let mut removals = Vec::new();
    for pointer in pointers {
        let Some(tokens) = pointer_tokens(pointer).filter(|tokens| !is_identity(tokens)) else { continue };
        let Some(Pair { steps, desired: wanted, live: found }) = pair(desired, live, &tokens) else { continue };
        match (wanted.is_some(), found) {
            (true, None) => removals.push(steps),
            (true, Some(value)) => put(desired, &steps, value.clone()),
            (false, Some(value)) if is_applied(live, &tokens) => put(desired, &steps, value.clone()),
            (false, _) => {}
        }
    }
    // From behind, so that no removal moves what a later one means.
    removals.sort();
    removals.dedup();
    for steps in removals.iter().rev() {
        remove(desired, steps);
    }
}

fn is_identity(tokens: &[String]) -> bool {
    match tokens {
        [] => true,
        [first] => matches!(first.as_str(), "apiVersion" | "kind" | "metadata"),
        [first, second, ..] => {
            first == "metadata"
                && matches!(
                    second.as_str(),
                    "name"
                        | "namespace"
                        | "uid"
                        | "managedFields"
                        | "resourceVersion"
                        | "generation"
                        | "creationTimestamp"
                )
        }
    }
}

/// What one pointer means in both objects.
struct Pair<'a> {
    steps: Vec<Step>,
    desired: Option<&'a Value>,
    live: Option<&'a Value>,
}

fn pair<'a>(desired: &'a Value, live: &'a Value, tokens: &[String]) -> Option<Pair<'a>> {
    let mut at = Pair { steps: Vec::new(), desired: Some(desired), live: Some(live) };
    for token in tokens {
        // Where nothing is desired, the live object shows what a token means.
        at = match at.desired.or(at.live)? {
            Value::Array(_) => {
                let index = index(token)?;
                at.steps.push(Step::Index(index));
                let element = item(at.desired, index);
                let live = match element.and_then(name) {
                    Some(own) => at.live.and_then(Value::as_array)?.iter().find(|other| name(other) == Some(own)),
                    None => item(at.live, index),
                };
                Pair { steps: at.steps, desired: element, live }
            }
            Value::Object(_) => {
                at.steps.push(Step::Key(token.clone()));
                let field = |value: Option<&'a Value>| value.and_then(Value::as_object)?.get(token);
                Pair { desired: field(at.desired), live: field(at.live), steps: at.steps }
            }
            _ => return None,
        };
    }
    Some(at)
}

fn item(list: Option<&Value>, index: usize) -> Option<&Value> {
    list.and_then(Value::as_array)?.get(index)
}

fn name(element: &Value) -> Option<&str> {
    element.get("name").and_then(Value::as_str)
}

/// As RFC 6901 has it: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    plain.then(|| token.parse().ok()).flatten()
}

/// Makes the objects on the way where they are missing, never elements.
fn put(target: &mut Value, steps: &[Step], value: Value) {
    let Some((first, rest)) = steps.split_first() else {
        *target = value;
        return;
    };
    let below = match (first, target) {
        (Step::Index(index), Value::Array(list)) => list.get_mut(*index),
        (Step::Key(key), Value::Object(map)) if map.contains_key(key) || is_object_path(rest) => {
            Some(map.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())))
        }
        _ => None,
    };
    if let Some(below) = below {
        put(below, rest, value);
    }
}

fn is_object_path(steps: &[Step]) -> bool {
    steps.iter().all(|step| matches!(step, Step::Key(_)))
}

fn remove(target: &mut Value, steps: &[Step]) {
    let Some((first, rest)) = steps.split_first() else { return };
    match (first, target) {
        (Step::Key(key), Value::Object(map)) if rest.is_empty() => {
            map.remove(key);
        }
        (Step::Index(index), Value::Array(list)) if rest.is_empty() && *index < list.len() => {
            list.remove(*index);
        }
        (Step::Key(key), Value::Object(map)) => {
            if let Some(below) = map.get_mut(key) {
                remove(below, rest);
            }
        }
        (Step::Index(index), Value::Array(list)) => {
            if let Some(below) = list.get_mut(*index) {
                remove(below, rest);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kubernetes::fields::yaml;

    fn check(name: &str, desired: &str, live: &str, pointers: &[&str], want: &str) {
        let mut made = yaml(desired);
        let pointers: Vec<String> = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        transplant(&mut made, &yaml(live), &pointers);
        assert_eq!(made, yaml(want), "{name}");
    }

    #[test]
    fn live_values_take_their_place() {
        check(
            "a value",
            "{spec: {replicas: 3, paused: false}}",
            "{spec: {replicas: 5, paused: true}}",
            &["/spec/replicas"],
            "{spec: {replicas: 5, paused: false}}",
        );
        check("none live", "{spec: {replicas: 3}}", "{spec: {}}", &["/spec/replicas"], "{spec: {}}");
        check("no parent live", "{spec: {a: {b: 1}}}", "{spec: {a: 7}}", &["/spec/a/b"], "{spec: {a: {}}}");
        check("only live", "{spec: {}}", "{spec: {replicas: 5}}", &["/spec/replicas"], "{spec: {}}");
        check(
            "only live, but burgee's",
            "{metadata: {name: a}}",
            "{metadata: {name: a, annotations: {a/b: x}, managedFields: [{manager: burgee, operation: Apply, fieldsV1: {f:metadata: {f:annotations: {f:a/b: {}}}}}]}}",
            &["/metadata/annotations/a~1b", "/metadata/annotations/c"],
            "{metadata: {name: a, annotations: {a/b: x}}}",
        );
        check(
            "escapes",
            "{metadata: {annotations: {a/b: '1', c~d: '1', ~1: '1'}}}",
            "{metadata: {annotations: {a/b: '2', c~d: '2', ~1: '2'}}}",
            &["/metadata/annotations/a~1b", "/metadata/annotations/c~0d", "/metadata/annotations/~01"],
            "{metadata: {annotations: {a/b: '2', c~d: '2', ~1: '2'}}}",
        );
        check("a whole map", "{data: {a: x}}", "{data: {a: y, b: z}}", &["/data"], "{data: {a: y, b: z}}");
    }

    #[test]
    fn lists() {
        check(
            "by name, not by place",
            "{c: [{name: app, image: 'a:1'}]}",
            "{c: [{name: proxy, image: 'p:9'}, {name: app, image: 'a:2'}]}",
            &["/c/0/image"],
            "{c: [{name: app, image: 'a:2'}]}",
        );
        check(
            "that name is not live",
            "{c: [{name: app, image: a}]}",
            "{c: [{name: b, image: b}]}",
            &["/c/0"],
            "{c: []}",
        );
        check("by place", "{args: [a, b, c]}", "{args: [x, y, z]}", &["/args/1"], "{args: [a, y, c]}");
        check(
            "live is shorter",
            "{args: [a, b, c, d]}",
            "{args: [x]}",
            &["/args/1", "/args/2", "/args/1"],
            "{args: [a, d]}",
        );
        check("live is longer", "{args: [a]}", "{args: [x, y]}", &["/args/1"], "{args: [a]}");
        check("live is none", "{args: [a]}", "{args: {0: x}}", &["/args/0"], "{args: []}");
        for wrong in ["/args/-", "/args/01", "/args/+0", "/args/a", "/args/99999999999999999999", "/args/"] {
            check(wrong, "{args: [a]}", "{args: [x]}", &[wrong], "{args: [a]}");
        }
        check(
            "elements are never made",
            "{c: [{name: a}]}",
            "{c: [{name: a}, {name: b, x: 1}]}",
            &["/c/1/x"],
            "{c: [{name: a}]}",
        );
    }

    #[test]
    fn identity_stays() {
        let desired = "{apiVersion: v1, kind: A, metadata: {name: a, namespace: n}, spec: 1}";
        let live = "{apiVersion: v2, kind: B, metadata: {name: b, namespace: m, uid: u}, spec: 2}";
        let pointers =
            ["", "/apiVersion", "/kind", "/metadata", "/metadata/name", "/metadata/namespace", "/metadata/uid", "spec"];
        check("identity", desired, live, &pointers, desired);
    }
}
