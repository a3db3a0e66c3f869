//! Fields of objects: those that drift may change, and what differs, in words.

use serde_json::Value;

/// What a server writes, or what applying itself changes.
const SERVERS: [&str; 6] = ["managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"];
/// More differences are counted, not named.
const NAMED: usize = 4;
const LONG: usize = 60;

/// Puts the live value in place of the desired one at each JSON pointer, so
/// that applying the object does not change it there.
pub(super) fn transplant(desired: &mut Value, live: &Value, pointers: &[String]) {
    for pointer in pointers {
        match live.pointer(pointer) {
            Some(value) => put(desired, pointer, value.clone()),
            None => remove(desired, pointer),
        }
    }
}

fn parent<'v>(value: &'v mut Value, pointer: &str) -> Option<(&'v mut Value, String)> {
    let (parent, key) = pointer.rsplit_once('/')?;
    Some((value.pointer_mut(parent)?, key.replace("~1", "/").replace("~0", "~")))
}

fn put(desired: &mut Value, pointer: &str, live: Value) {
    match parent(desired, pointer) {
        Some((Value::Object(map), key)) => {
            map.insert(key, live);
        }
        Some((Value::Array(list), key)) => {
            if let Some(place) = key.parse::<usize>().ok().and_then(|at| list.get_mut(at)) {
                *place = live;
            }
        }
        // What the manifest has nothing of is not ours to own.
        _ => {}
    }
}

fn remove(desired: &mut Value, pointer: &str) {
    if let Some((Value::Object(map), key)) = parent(desired, pointer) {
        map.remove(&key);
    }
}

/// In what an applied object would differ from the live one; empty: in nothing.
pub(super) fn differences(applied: &Value, live: &Value) -> Vec<String> {
    let secret = live["kind"] == "Secret";
    let mut found = Vec::new();
    walk(String::new(), &bare(applied), &bare(live), secret, &mut found);
    let more = found.len().saturating_sub(NAMED);
    found.truncate(NAMED);
    if more > 0 {
        found.push(format!("{more} more"));
    }
    found
}

fn bare(object: &Value) -> Value {
    let mut bare = object.clone();
    if let Value::Object(map) = &mut bare {
        map.remove("status");
        if let Some(Value::Object(metadata)) = map.get_mut("metadata") {
            SERVERS.iter().for_each(|key| drop(metadata.remove(*key)));
        }
    }
    bare
}

fn walk(path: String, applied: &Value, live: &Value, secret: bool, found: &mut Vec<String>) {
    if applied == live {
        return;
    }
    match (applied, live) {
        (Value::Object(new), Value::Object(old)) => {
            let keys: std::collections::BTreeSet<&String> = new.keys().chain(old.keys()).collect();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
                walk(inner, &side(new), &side(old), secret, found);
            }
        }
        (Value::Array(new), Value::Array(old)) if new.len() == old.len() => {
            for (at, (new, old)) in new.iter().zip(old).enumerate() {
                let name = new["name"].as_str().map_or_else(|| at.to_string(), str::to_owned);
                walk(format!("{path}[{name}]"), new, old, secret, found);
            }
        }
        _ if secret && (path.starts_with("data") || path.starts_with("stringData")) => found.push(path),
        (new, old) => found.push(format!("{path} is {}, not {}", short(old), short(new))),
    }
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "absent".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= LONG {
        return text;
    }
    format!("{}…", text.chars().take(LONG).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{differences, transplant};

    #[test]
    fn ignored_fields_stay_as_they_are() {
        let live = json!({"spec": {"replicas": 5, "template": {"spec": {"containers": [{"image": "b"}]}}}, "metadata": {"annotations": {"a/b": "x"}}});
        let cases = [
            ("/spec/replicas", json!({"spec": {"replicas": 3}}), json!({"spec": {"replicas": 5}})),
            ("/spec/paused", json!({"spec": {"paused": true}}), json!({"spec": {}})),
            (
                "/metadata/annotations/a~1b",
                json!({"metadata": {"annotations": {}}}),
                json!({"metadata": {"annotations": {"a/b": "x"}}}),
            ),
            ("/metadata/annotations/a~1b", json!({"metadata": {}}), json!({"metadata": {}})),
            (
                "/spec/template/spec/containers/0/image",
                json!({"spec": {"template": {"spec": {"containers": [{"image": "a"}]}}}}),
                json!({"spec": {"template": {"spec": {"containers": [{"image": "b"}]}}}}),
            ),
            (
                "/spec/template/spec/containers/0",
                json!({"spec": {"template": {"spec": {"containers": []}}}}),
                json!({"spec": {"template": {"spec": {"containers": []}}}}),
            ),
        ];
        for (pointer, mut desired, want) in cases {
            transplant(&mut desired, &live, &[pointer.to_owned()]);
            assert_eq!(desired, want, "{pointer}");
        }
    }

    #[test]
    fn differences_in_words() {
        let live = json!({"kind": "Deployment", "metadata": {"generation": 2, "labels": {"a": "1"}}, "spec": {"replicas": 5, "c": [{"name": "x", "image": "b"}]}, "status": {"x": 1}});
        let applied = json!({"kind": "Deployment", "metadata": {"generation": 3, "labels": {"a": "1"}}, "spec": {"replicas": 3, "c": [{"name": "x", "image": "a"}]}});
        assert_eq!(differences(&applied, &live), ["spec.c[x].image is \"b\", not \"a\"", "spec.replicas is 5, not 3"]);
        assert!(differences(&live, &live).is_empty());
        let secret = |value: &str| json!({"kind": "Secret", "data": {"password": value}});
        assert_eq!(differences(&secret("YQ=="), &secret("Yg==")), ["data.password"]);
    }
}
