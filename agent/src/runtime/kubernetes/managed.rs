//! Who owns which field: `metadata.managedFields` (`fieldsV1`).

use serde_json::{Map, Value, json};

use super::api::MANAGER;
use super::fields::{list, text};
use super::owner::{APP, DIGEST, FLEET, MANAGED_BY};

/// The manager, other than burgee, that owns the field at `path`; of several
/// the one that wrote last. `managed_fields` is the list in an object's
/// metadata, `path` a JSON pointer or a
/// [`FieldDifference`](super::differences::FieldDifference)'s path.
#[must_use]
pub(super) fn owner_of_field(managed_fields: &Value, path: &str) -> Option<String> {
    let path = if path.starts_with('/') { pointer_tokens(path)? } else { path_tokens(path) };
    let entries = list(managed_fields, "").iter();
    let others = entries.filter(|entry| text(entry, "/manager") != MANAGER && is_in(entry, &path));
    others.max_by_key(|entry| text(entry, "/time")).map(|entry| text(entry, "/manager").to_owned())
}

/// Whether burgee has applied the field at `path` to this object.
pub(super) fn is_applied(object: &Value, path: &[String]) -> bool {
    list(object, "/metadata/managedFields")
        .iter()
        .any(|entry| text(entry, "/manager") == MANAGER && text(entry, "/operation") == "Apply" && is_in(entry, path))
}

/// Who writes as `kubectl apply` does without `--server-side`.
const CLIENT_SIDE: [&str; 2] = ["kubectl-client-side-apply", "kubectl-last-applied"];

/// The list of managers once `kubectl apply` has handed over to burgee what it
/// applied on the client's side: then a field that burgee's manifest doesn't
/// have goes with the next apply, instead of staying for ever as the field of
/// somebody who doesn't come back. `None` where there is nothing to hand over.
/// What others wrote (`kubectl edit`, controllers) stays theirs.
#[must_use]
pub(super) fn handed_over(managed_fields: &Value) -> Option<Value> {
    let is_given = |entry: &Value| {
        CLIENT_SIDE.contains(&text(entry, "/manager"))
            && text(entry, "/operation") == "Update"
            && text(entry, "/subresource").is_empty()
    };
    let is_ours = |entry: &Value| {
        text(entry, "/manager") == MANAGER
            && text(entry, "/operation") == "Apply"
            && text(entry, "/subresource").is_empty()
    };
    let (given, mut kept): (Vec<&Value>, Vec<&Value>) = list(managed_fields, "").iter().partition(|it| is_given(it));
    let newest = given.iter().max_by_key(|entry| text(entry, "/time"))?;
    let ours = kept.iter().position(|entry| is_ours(entry)).map(|at| kept.remove(at));
    let mut merged = (*newest).clone();
    merged["manager"] = MANAGER.into();
    merged["operation"] = "Apply".into();
    for entry in given.iter().copied().chain(ours) {
        unite(&mut merged["fieldsV1"], &entry["fieldsV1"]);
    }
    Some(kept.into_iter().cloned().chain([merged]).collect())
}

/// The JSON patch that takes burgee's marks and its name off an object. Its
/// fields stay as they are, and are nobody's who was not there beside burgee.
#[must_use]
pub(super) fn given_back(live: &Value) -> Value {
    let mut patch = Vec::new();
    for (part, keys) in [("labels", &[MANAGED_BY, FLEET, APP][..]), ("annotations", &[DIGEST])] {
        let there = keys.iter().filter(|key| live["metadata"][part].get(**key).is_some());
        patch.extend(there.map(|key| {
            let path = format!("/metadata/{part}/{}", key.replace('~', "~0").replace('/', "~1"));
            json!({"op": "remove", "path": path})
        }));
    }
    let all = list(live, "/metadata/managedFields");
    let mut others: Vec<Value> = all.iter().filter(|entry| text(entry, "/manager") != MANAGER).cloned().collect();
    if others.len() < all.len() {
        if others.is_empty() {
            // The server takes an empty list for none given; this empties it.
            others.push(json!({}));
        }
        patch.push(json!({"op": "replace", "path": "/metadata/managedFields", "value": others}));
    }
    patch.into()
}

/// Adds the fields of one set to another.
fn unite(all: &mut Value, more: &Value) {
    let (Some(all), Some(more)) = (all.as_object_mut(), more.as_object()) else { return };
    for (key, below) in more {
        unite(all.entry(key.clone()).or_insert_with(|| Value::Object(Map::new())), below);
    }
}

/// The tokens of a JSON pointer (RFC 6901); `None` if it is none.
pub(super) fn pointer_tokens(pointer: &str) -> Option<Vec<String>> {
    if pointer.is_empty() {
        return Some(Vec::new());
    }
    let tokens = pointer.strip_prefix('/')?.split('/');
    Some(tokens.map(|token| token.replace("~1", "/").replace("~0", "~")).collect())
}

/// The parts of `spec.containers[app].image`, `metadata.annotations[a.b/c]`.
fn path_tokens(path: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (token, after) = inner.split_once(']').unwrap_or((inner, ""));
            tokens.push(token.to_owned());
            rest = after;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            let (token, after) = rest.split_at(end);
            if !token.is_empty() {
                tokens.push(token.to_owned());
            }
            rest = after.strip_prefix('.').unwrap_or(after);
        }
    }
    tokens
}

fn is_in(entry: &Value, path: &[String]) -> bool {
    // One that owns nothing has no fields here; further down that means all.
    entry.get("fieldsV1").and_then(Value::as_object).is_some_and(|fields| !fields.is_empty() && owns(fields, path))
}

/// `f:` is a field, `k:` an element of a list by its keys, `v:` one by its
/// value, `i:` one by its place; nothing below means the whole.
fn owns(node: &Map<String, Value>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    if node.is_empty() {
        return true;
    }
    let below = |child: &Value| child.as_object().is_some_and(|child| owns(child, rest));
    if let Some(child) = node.get(&format!("f:{first}")) {
        return below(child);
    }
    let mut any = false;
    for (key, child) in node {
        match fits(key, first) {
            Fit::Yes => return below(child),
            Fit::Maybe => any |= below(child),
            Fit::No => {}
        }
    }
    any
}

enum Fit {
    Yes,
    /// The key names its element otherwise than the path does.
    Maybe,
    No,
}

fn fits(key: &str, token: &str) -> Fit {
    let is_place = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
    let Some((mark, key)) = key.split_once(':') else { return Fit::No };
    if mark == "i" {
        return if key == token { Fit::Yes } else { Fit::No };
    }
    match (mark, serde_json::from_str(key)) {
        ("k", Ok(Value::Object(keys))) => match keys.get("name").and_then(Value::as_str) {
            Some(name) if name == token => Fit::Yes,
            Some(_) if !is_place => Fit::No,
            _ => Fit::Maybe,
        },
        ("v", Ok(value)) if value.as_str() == Some(token) => Fit::Yes,
        ("v", Ok(_)) if is_place => Fit::Maybe,
        _ => Fit::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::kubernetes::fields::yaml;

    #[test]
    fn owners() {
        let managed = yaml(
            r#"
- manager: burgee
  operation: Apply
  time: "2026-05-01T10:00:00Z"
  fieldsV1:
    f:spec: {f:replicas: {}, f:template: {f:spec: {f:containers: {'k:{"name":"app"}': {.: {}, f:image: {}, f:name: {}}}}}}
- manager: kube-controller-manager
  operation: Update
  subresource: scale
  time: "2026-05-01T11:00:00Z"
  fieldsV1: {f:spec: {f:replicas: {}}}
- manager: kubectl-edit
  operation: Update
  time: "2026-05-01T10:30:00Z"
  fieldsV1:
    f:metadata: {f:annotations: {.: {}, f:example.com/note: {}}, f:finalizers: {.: {}, 'v:"example.com/keep"': {}}}
    f:spec:
      f:replicas: {}
      f:selector: {}
      f:template:
        f:spec:
          f:containers:
            'k:{"name":"sidecar"}':
              .: {}
              f:image: {}
              f:ports: {.: {}, 'k:{"containerPort":80,"protocol":"TCP"}': {.: {}, f:containerPort: {}}}
              f:args: {}
- manager: nothing
  operation: Update
  time: "2026-05-01T12:00:00Z"
  fieldsV1: {}
"#,
        );
        let check = |path: &str, want: Option<&str>| {
            assert_eq!(owner_of_field(&managed, path).as_deref(), want, "{path}");
        };
        // The last of two.
        check("spec.replicas", Some("kube-controller-manager"));
        check("/spec/replicas", Some("kube-controller-manager"));
        // Its own is no fight.
        check("spec.template.spec.containers[app].image", None);
        check("spec.template.spec.containers[sidecar].image", Some("kubectl-edit"));
        check("spec.template.spec.containers[sidecar].args[1]", Some("kubectl-edit"));
        check("spec.template.spec.containers[sidecar].ports[http].containerPort", Some("kubectl-edit"));
        check("/spec/template/spec/containers/1/image", Some("kubectl-edit"));
        check("spec.template.spec.containers[sidecar].env[A].value", None);
        check("metadata.annotations[example.com/note]", Some("kubectl-edit"));
        check("/metadata/annotations/example.com~1note", Some("kubectl-edit"));
        check("metadata.annotations[example.com/other]", None);
        check("metadata.finalizers[0]", Some("kubectl-edit"));
        check("metadata.finalizers[example.com/keep]", Some("kubectl-edit"));
        check("metadata.finalizers[example.com/other]", None);
        // Owned as a whole.
        check("spec.selector.app", Some("kubectl-edit"));
        check("spec.template", Some("kubectl-edit"));
        check("spec.paused", None);
        assert_eq!(owner_of_field(&Value::Null, "spec"), None);
    }

    #[test]
    fn what_kubectl_applied_is_handed_over() {
        let managed = yaml(
            r#"
- {manager: kubectl-client-side-apply, operation: Update, time: "2026-01-01T00:00:00Z", apiVersion: v1, fieldsV1: {f:data: {f:old: {}, f:value: {}}}}
- {manager: kubectl-client-side-apply, operation: Update, time: "2026-01-02T00:00:00Z", apiVersion: v1, fieldsV1: {f:data: {f:new: {}}}}
- {manager: kubectl-edit, operation: Update, time: "2026-01-03T00:00:00Z", fieldsV1: {f:data: {f:mine: {}}}}
- {manager: burgee, operation: Apply, fieldsV1: {f:data: {f:value: {}, f:own: {}}}}
- {manager: kubectl-client-side-apply, operation: Update, subresource: status, fieldsV1: {f:status: {}}}
"#,
        );
        let got = handed_over(&managed).unwrap();
        let managers: Vec<&str> = list(&got, "").iter().map(|entry| text(entry, "/manager")).collect();
        assert_eq!(managers, ["kubectl-edit", "kubectl-client-side-apply", "burgee"]);
        let ours = &got[2];
        assert_eq!((text(ours, "/operation"), text(ours, "/time")), ("Apply", "2026-01-02T00:00:00Z"));
        assert_eq!(ours["fieldsV1"], yaml("f:data: {f:old: {}, f:value: {}, f:new: {}, f:own: {}}"));
        assert_eq!(handed_over(&got), None);
        assert_eq!(handed_over(&Value::Null), None);
    }

    #[test]
    fn what_is_given_back_bears_no_mark() {
        let live = yaml(
            r#"
metadata:
  labels: {app: web, app.kubernetes.io/managed-by: burgee, burgee.dev/fleet: retail, burgee.dev/app: shop}
  annotations: {note: x, burgee.dev/digest: d}
  managedFields: [{manager: kubectl-edit, operation: Update}, {manager: burgee, operation: Apply}]
"#,
        );
        let want = yaml(
            r#"
- {op: remove, path: /metadata/labels/app.kubernetes.io~1managed-by}
- {op: remove, path: /metadata/labels/burgee.dev~1fleet}
- {op: remove, path: /metadata/labels/burgee.dev~1app}
- {op: remove, path: /metadata/annotations/burgee.dev~1digest}
- {op: replace, path: /metadata/managedFields, value: [{manager: kubectl-edit, operation: Update}]}
"#,
        );
        assert_eq!(given_back(&live), want);
        let alone = yaml("metadata: {managedFields: [{manager: burgee, operation: Apply}]}");
        assert_eq!(given_back(&alone), yaml("[{op: replace, path: /metadata/managedFields, value: [{}]}]"));
        assert_eq!(given_back(&yaml("metadata: {labels: {app: web}}")), yaml("[]"));
    }

    #[test]
    fn pointers() {
        let check = |pointer: &str, want: Option<&[&str]>| {
            let tokens = pointer_tokens(pointer);
            assert_eq!(
                tokens.as_ref().map(|tokens| tokens.iter().map(String::as_str).collect()),
                want.map(<[_]>::to_vec)
            );
        };
        check("", Some(&[]));
        check("/a/b~1c/~01/0", Some(&["a", "b/c", "~1", "0"]));
        check("/", Some(&[""]));
        check("a/b", None);
    }
}
