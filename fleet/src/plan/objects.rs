//! The differences between the Kubernetes objects of two rendered apps: which
//! objects, and which of their fields.
//!
//! Values that may be secrets are not shown: those of a Secret, and those of
//! environment variables. What a kustomization makes of its files only the
//! device's `kubectl` knows; there the files stay what is compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::Kind;
use super::diff::Change;
use crate::desired::{AppSpec, Blobs, DesiredApp};
use crate::digest::Digest;
use crate::kubernetes::place::Path;
use crate::kubernetes::{ObjectId, manifest};

/// Longer values are named by their digest.
const MAX_SHOWN: usize = 80;

/// An app and its files' contents.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) app: &'a DesiredApp,
    pub(super) blobs: &'a Blobs,
}

/// Which objects come, go and change; `None` where that is not known.
pub(super) fn changes(before: Option<Side<'_>>, after: Side<'_>) -> Option<Vec<Change>> {
    let new = objects(after)?;
    let old = match before {
        Some(before) => objects(before)?,
        None => BTreeMap::new(),
    };
    let mut changes = Vec::new();
    let ids: BTreeSet<&ObjectId> = old.keys().chain(new.keys()).collect();
    for id in ids {
        match (old.get(id), new.get(id)) {
            (None, _) => changes.push(whole(id, Kind::Added)),
            (_, None) => changes.push(whole(id, Kind::Removed)),
            (Some(old), Some(new)) => {
                let secret = id.kind.is("", "Secret");
                let mut walker = Walker { id, secret, path: Path::default(), changes: &mut changes };
                walker.value(old, new);
            }
        }
    }
    Some(changes)
}

/// The objects of an app, as far as they can be known.
fn objects(side: Side<'_>) -> Option<BTreeMap<ObjectId, Value>> {
    let AppSpec::Kubernetes(spec) = &side.app.spec else { return None };
    if spec.kustomize {
        return None;
    }
    let files = spec.files.iter().filter_map(|(path, digest)| Some((path.as_str(), &side.blobs.get(digest)?[..])));
    let mut objects = BTreeMap::new();
    let read = manifest::each(files, |manifest, _| {
        objects.insert(manifest.id(spec.namespace.as_deref()), manifest.object);
    });
    read.is_ok().then_some(objects)
}

fn whole(id: &ObjectId, change: Kind) -> Change {
    Change { path: id.to_string(), change, before: None, after: None }
}

struct Walker<'a> {
    id: &'a ObjectId,
    secret: bool,
    path: Path,
    changes: &'a mut Vec<Change>,
}

impl Walker<'_> {
    fn value(&mut self, old: &Value, new: &Value) {
        if old == new {
            return;
        }
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => self.mapping(old, new),
            (Value::Array(old), Value::Array(new)) => self.list(old, new),
            _ => self.say(old, new),
        }
    }

    fn mapping(&mut self, old: &Map<String, Value>, new: &Map<String, Value>) {
        let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let mark = self.path.key(key);
            self.value(old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null));
            self.path.back(mark);
        }
    }

    /// Elements by their name, where all have one: a container that comes
    /// first does not make the others differ. Else by their place.
    fn list(&mut self, old: &[Value], new: &[Value]) {
        match (named(old), named(new)) {
            (Some(old), Some(new)) => {
                let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
                for name in names {
                    let mark = self.path.element(name);
                    self.value(
                        old.get(name).copied().unwrap_or(&Value::Null),
                        new.get(name).copied().unwrap_or(&Value::Null),
                    );
                    self.path.back(mark);
                }
            }
            _ => {
                for at in 0..old.len().max(new.len()) {
                    let mark = self.path.item(at);
                    self.value(old.get(at).unwrap_or(&Value::Null), new.get(at).unwrap_or(&Value::Null));
                    self.path.back(mark);
                }
            }
        }
    }

    fn say(&mut self, old: &Value, new: &Value) {
        let change = match (old, new) {
            (Value::Null, _) => Kind::Added,
            (_, Value::Null) => Kind::Removed,
            _ => Kind::Changed,
        };
        let hidden = self.hidden();
        let shown = |value: &Value| if hidden { None } else { show(value) };
        let path = format!("{} {}", self.id, self.path);
        self.changes.push(Change { path, change, before: shown(old), after: shown(new) });
    }

    /// Whether a value here may be a secret.
    fn hidden(&self) -> bool {
        let path = self.path.as_str();
        let text =
            |part: &str| path == part || path.starts_with(&format!("{part}.")) || path.starts_with(&format!("{part}["));
        // The annotation in which `kubectl apply` keeps a whole object is one of them.
        (self.secret && (text("data") || text("stringData") || text("metadata.annotations")))
            || path.split(['.', '[']).any(|part| part == "env")
    }
}

/// Elements by their `name`, where each has one of its own.
fn named(list: &[Value]) -> Option<BTreeMap<&str, &Value>> {
    let named: BTreeMap<&str, &Value> =
        list.iter().filter_map(|value| Some((value.get("name")?.as_str()?, value))).collect();
    (named.len() == list.len()).then_some(named)
}

/// A value in a few words. A mapping or list that comes or goes whole is not
/// shown: it may have anything in it.
fn show(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => None,
        Value::String(text) if text.len() > MAX_SHOWN || text.contains('\n') => {
            Some(format!("text {}", Digest::of(text.as_bytes()).short()))
        }
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::between;

    fn plan(before: &str, after: &str) -> Vec<String> {
        let tree = |text| {
            [
                ("burgee.yaml", "format: 1\nfleet: retail\n"),
                ("groups/all.yaml", "selector: {matchLabels: {region: eu}}\napps: [web]\n"),
                ("apps/web/app.yaml", "runtime: kubernetes\nnamespace: shop\n"),
                ("apps/web/kubernetes/a.yaml", text),
            ]
        };
        let plan = between(&tree(before), &tree(after)).unwrap().to_string();
        plan.lines().filter_map(|line| line.strip_prefix("      ")).map(str::to_owned).collect()
    }

    #[test]
    fn objects_and_fields_are_named() {
        let keep = "{apiVersion: v1, kind: ConfigMap, metadata: {name: keep}}\n---\n";
        let one = |body: &str| format!("{keep}{body}\n");
        let deployment = |replicas: &str, containers: &str| {
            one(&format!(
                "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: web}}, spec: {{replicas: {replicas}, template: {{spec: {{containers: [{containers}]}}}}}}}}"
            ))
        };
        let secret = |data: &str| one(&format!("{{apiVersion: v1, kind: Secret, metadata: {{name: s}}, {data}}}"));
        let at = "Deployment.apps/shop/web spec.template.spec.containers";
        let cases = [
            (keep.to_owned(), secret("data: {a: aGk=}"), vec!["+ Secret/shop/s".to_owned()]),
            (secret("data: {a: aGk=}"), keep.to_owned(), vec!["- Secret/shop/s".to_owned()]),
            (
                secret("data: {a: aGk=}, stringData: {b: hidden}"),
                secret("data: {a: aGs=, c: aGs=}, stringData: {b: other}"),
                vec![
                    "~ Secret/shop/s data.a".to_owned(),
                    "+ Secret/shop/s data.c".to_owned(),
                    "~ Secret/shop/s stringData.b".to_owned(),
                ],
            ),
            (
                deployment("1", "{name: web, image: \"web:1\"}"),
                deployment("2", "{name: first, image: x}, {name: web, image: \"web:2\"}"),
                vec![
                    "~ Deployment.apps/shop/web spec.replicas: 1 → 2".to_owned(),
                    format!("+ {at}[first]"),
                    format!("~ {at}[web].image: web:1 → web:2"),
                ],
            ),
            (
                deployment("1", "{name: web, env: [{name: A, value: hidden}], args: [a]}"),
                deployment("1", "{name: web, env: [{name: A, value: other}, {name: B, value: x}], args: [a, b]}"),
                vec![
                    format!("+ {at}[web].args[1]: b"),
                    format!("~ {at}[web].env[A].value"),
                    format!("+ {at}[web].env[B]"),
                ],
            ),
            // The same objects in another order, and in other words.
            (
                format!("{keep}{{apiVersion: v1, kind: ConfigMap, metadata: {{name: x}}, data: {{a: b}}}}\n"),
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shop}\ndata:\n  a: \"b\"\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: keep\n".to_owned(),
                vec!["+ ConfigMap/shop/x metadata.namespace: shop".to_owned()],
            ),
        ];
        for (before, after, want) in cases {
            assert_eq!(plan(&before, &after), want, "{after}");
        }
    }
}
