//! Manifests → objects: several documents to a file, `List`s taken apart, what
//! a server wrote left out.

use serde_json::Value;

use super::object::{Kind, Manifest};
use crate::finding::{Finding, Severity};
use crate::repo::error;
use crate::yaml::{self, Place};

/// All files of one app together may have this many bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// What a server writes into an object; pasted from `kubectl get -o yaml` it
/// would be refused or, worse, taken at its word.
const SERVERS: [&str; 6] = ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// What the files hold, and what is to be said of it.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// In the order of the files.
    pub objects: Vec<Manifest>,
    /// Warnings.
    pub notes: Vec<Finding>,
}

/// Reads the objects of several files, each with its path.
///
/// # Errors
/// Everything that is wrong in them.
pub fn read<'f>(files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Result<Manifests, Vec<Finding>> {
    let mut manifests = Manifests::default();
    let mut found = Vec::new();
    let mut size = 0;
    for (path, bytes) in files {
        size += bytes.len();
        if size > MAX_BYTES {
            let message = format!("the manifests of the app are larger than {} MiB", MAX_BYTES >> 20);
            found.push(error(path, Place::START, message));
            break;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => file(path, text, &mut manifests, &mut found),
            Err(_) => found.push(error(path, Place::START, "not UTF-8, expected YAML or JSON")),
        }
    }
    if found.is_empty() { Ok(manifests) } else { Err(found) }
}

fn file(path: &str, text: &str, manifests: &mut Manifests, found: &mut Vec<Finding>) {
    for (line, document) in documents(text) {
        let place = Place { line, column: 1 };
        match yaml::document(path, document, line) {
            Ok(Value::Null) => {}
            Ok(object) => {
                if let Err(wrong) = take(path, place, object, manifests) {
                    found.push(*wrong);
                }
            }
            Err(wrong) => found.push(wrong),
        }
    }
}

/// The documents of a file, each with the line at which it starts. A line that
/// begins with `---` is always a boundary: content is indented or quoted.
fn documents(text: &str) -> Vec<(u32, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first, mut number) = (0, 1, 0);
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        number += 1;
        let bare = line.trim_end();
        if bare == "---" || bare.starts_with("--- ") || bare.starts_with("---\t") {
            documents.push((first, &text[start..offset]));
            (start, first) = (offset, number);
        }
        offset += line.len();
    }
    documents.push((first, &text[start..]));
    documents.retain(|(_, document)| {
        document.lines().any(|line| {
            let bare = line.trim();
            !bare.is_empty() && !bare.starts_with('#') && bare != "---" && bare != "..."
        })
    });
    documents
}

fn take(path: &str, place: Place, mut object: Value, manifests: &mut Manifests) -> Result<(), Box<Finding>> {
    let wrong = |message: String| Box::new(error(path, place, message));
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    if !object.is_object() {
        return Err(wrong("a document is no object, expected `apiVersion`, `kind` and `metadata`".to_owned()));
    }
    let api_version = text(&object["apiVersion"])
        .ok_or_else(|| wrong("`apiVersion` is missing, for example `apps/v1`".to_owned()))?;
    let kind = text(&object["kind"]).ok_or_else(|| wrong("`kind` is missing, for example `Deployment`".to_owned()))?;
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = object.get_mut("items").map(Value::take)
    {
        return items.into_iter().try_for_each(|item| take(path, place, item, manifests));
    }
    let metadata = &object["metadata"];
    let Some(name) = text(&metadata["name"]) else {
        if metadata.get("generateName").is_some() {
            return Err(wrong(format!(
                "{kind} has `generateName`, expected `metadata.name`: an object is found again by its name"
            )));
        }
        return Err(wrong(format!("{kind} has no `metadata.name`")));
    };
    if name.len() > 253 || name.contains(['/', '%', ' ']) || name == "." || name == ".." {
        return Err(wrong(format!("`{name}` is no name of an object")));
    }
    let namespace = text(&metadata["namespace"]);
    for key in ["labels", "annotations"] {
        let strings = |map: &serde_json::Map<String, Value>| map.values().all(Value::is_string);
        if metadata.get(key).is_some_and(|map| !map.is_null() && !map.as_object().is_some_and(strings)) {
            return Err(wrong(format!("{kind} {name}: `metadata.{key}` has a value that is no text, expected quotes")));
        }
    }
    let mut left_out = Vec::new();
    if let Some(whole) = object.as_object_mut() {
        if whole.remove("status").is_some_and(|status| !status.is_null()) {
            left_out.push("status");
        }
        if let Some(Value::Object(metadata)) = whole.get_mut("metadata") {
            left_out.extend(
                SERVERS.iter().filter(|key| metadata.remove(**key).is_some_and(|value| !value.is_null())).copied(),
            );
        }
    }
    if !left_out.is_empty() {
        manifests.notes.push(Finding {
            severity: Severity::Warning,
            hint: Some("take it out of the manifest: the server writes it".to_owned()),
            ..error(path, place, format!("{kind} {name}: {} is left out", left_out.join(", ")))
        });
    }
    manifests.objects.push(Manifest {
        kind: Kind::of(&api_version, &kind),
        api_version,
        namespace,
        name,
        object,
        path: path.to_owned(),
        line: place.line,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Manifests, read};

    fn of(text: &str) -> Result<Manifests, String> {
        read([("a.yaml", text.as_bytes())])
            .map_err(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn documents_and_lists_become_objects() {
        let text = "# first\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: \"---\"}\n---\n---\n\
            apiVersion: v1\nkind: List\nitems:\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b, namespace: shop}}\n\
            - {apiVersion: v1, kind: Secret, metadata: {name: c}}\n...\n";
        let manifests = of(text).unwrap();
        let seen: Vec<_> =
            manifests.objects.iter().map(|it| (it.kind.to_string(), it.name.as_str(), it.line)).collect();
        assert_eq!(
            seen,
            [("ConfigMap".to_owned(), "a", 2), ("Deployment.apps".to_owned(), "b", 8), ("Secret".to_owned(), "c", 8)]
        );
        assert_eq!(manifests.objects[1].namespace.as_deref(), Some("shop"));
        let json = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "j"}}"#;
        assert_eq!(of(json).unwrap().objects[0].name, "j");
        assert!(of("---\n# nothing\n").unwrap().objects.is_empty());
    }

    #[test]
    fn what_a_server_wrote_is_left_out() {
        let text =
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, uid: u, resourceVersion: \"5\"}\nstatus: {x: 1}\n";
        let manifests = of(text).unwrap();
        assert!(manifests.objects[0].object.get("status").is_none());
        assert!(manifests.objects[0].object["metadata"].get("uid").is_none());
        assert_eq!(manifests.notes.len(), 1);
        assert!(manifests.notes[0].message.contains("status, resourceVersion, uid"), "{}", manifests.notes[0]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let cases = [
            ("kind: A\nmetadata: {name: a}\n", "a.yaml:1:1: `apiVersion` is missing"),
            ("apiVersion: v1\nmetadata: {name: a}\n", "`kind` is missing"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n", "has `generateName`"),
            ("apiVersion: v1\nkind: Pod\n", "Pod has no `metadata.name`"),
            ("---\n- a\n", "a document is no object"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\n", "no name of an object"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: 1}}\n", "`metadata.labels` has a value"),
            ("a: 1\n---\na: 1\na: 2\n", "a.yaml:4:1: "),
        ];
        for (text, want) in cases {
            let said = of(text).unwrap_err();
            assert!(said.contains(want), "{text:?}: {said}");
        }
        assert!(read([("a.yaml", vec![b' '; super::MAX_BYTES + 1].as_slice())]).is_err());
    }
}
