//! Manifests → objects: several documents to a file, `List`s taken apart, what
//! a server wrote left out.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::names;
use super::object::{Kind, Manifest};
use crate::finding::{Finding, Severity};
use crate::repo::error;
use crate::yaml::{self, Place};

/// All files of one app together may have this many bytes.
pub const MAX_BYTES: usize = 16 << 20;
/// What a server writes into an object; pasted from `kubectl get -o yaml` it
/// would be refused or, worse, taken at its word.
const SERVERS: [&str; 6] = ["managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink"];

/// A `List` may lie in a `List` so many times.
const MAX_LISTS: usize = 8;

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
    let mut objects = Vec::new();
    let notes = each(files, |manifest, _| objects.push(manifest))?;
    Ok(Manifests { objects, notes })
}

/// Hands out the objects of several files one by one, so that a file is held
/// only while it is read; with each the way to it within its document, through
/// the `items` of lists. The answer is warnings.
///
/// # Errors
/// Everything that is wrong in them.
pub(crate) fn each<'f>(
    files: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    take: impl FnMut(Manifest, &[usize]),
) -> Result<Vec<Finding>, Vec<Finding>> {
    let mut reader = Reader { take, within: Vec::new(), notes: Vec::new(), found: Vec::new() };
    let mut size = 0_usize;
    for (path, bytes) in files {
        size = size.saturating_add(bytes.len());
        if size > MAX_BYTES {
            let message = format!("with this file the app's manifests have {size} bytes, the limit is {MAX_BYTES}");
            reader.found.push(error(path, Place::START, message));
            break;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => reader.file(path, text),
            Err(_) => reader.found.push(error(path, Place::START, "not UTF-8, expected YAML or JSON")),
        }
    }
    if reader.found.is_empty() { Ok(reader.notes) } else { Err(reader.found) }
}

/// The documents of a file, each with the line at which it starts. A line that
/// begins with `---` is always a boundary: content is indented or quoted.
pub(crate) fn documents(text: &str) -> Vec<(u32, &str)> {
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

struct Reader<F> {
    take: F,
    within: Vec<usize>,
    notes: Vec<Finding>,
    found: Vec<Finding>,
}

impl<F: FnMut(Manifest, &[usize])> Reader<F> {
    fn file(&mut self, path: &str, text: &str) {
        for (line, document) in documents(text) {
            match yaml::document(path, document, line) {
                Ok(object) => self.object(path, line, object),
                Err(wrong) => match json_values(document, line) {
                    None => self.found.push(wrong),
                    Some(values) => {
                        for (line, value) in values {
                            match yaml::document(path, value, line) {
                                Ok(object) => self.object(path, line, object),
                                Err(wrong) => self.found.push(wrong),
                            }
                        }
                    }
                },
            }
        }
    }

    /// One object, or those of a list, wherever they lie in it.
    fn object(&mut self, path: &str, line: u32, mut object: Value) {
        if object.is_null() {
            return;
        }
        if let Some((items, api_version, kind)) = list(&mut object) {
            if self.within.len() >= MAX_LISTS {
                self.refuse(path, line, "lists are nested too deep".to_owned(), None);
                return;
            }
            for (at, mut item) in items.into_iter().enumerate() {
                if let Value::Object(item) = &mut item {
                    // A typed list (`DeploymentList`) may leave it to its own name.
                    if let Some(kind) = kind.strip_suffix("List").filter(|kind| !kind.is_empty()) {
                        item.entry("apiVersion").or_insert_with(|| api_version.clone());
                        item.entry("kind").or_insert_with(|| kind.into());
                    }
                }
                self.within.push(at);
                self.object(path, line, item);
                self.within.pop();
            }
            return;
        }
        match named(&object) {
            Err((message, hint)) => self.refuse(path, line, message, hint),
            Ok((api_version, kind, namespace, name)) => {
                let left_out = strip(&mut object);
                if !left_out.is_empty() {
                    let message = format!("{} {name}: {} is left out", kind.kind, left_out.join(", "));
                    let hint = "take it out of the manifest: the server writes it".to_owned();
                    let place = Place { line, column: 1 };
                    self.notes.push(Finding {
                        severity: Severity::Warning,
                        hint: Some(hint),
                        ..error(path, place, message)
                    });
                }
                whole_numbers(&mut object);
                let path = path.to_owned();
                (self.take)(Manifest { api_version, kind, namespace, name, object, path, line }, &self.within);
            }
        }
    }

    fn refuse(&mut self, path: &str, line: u32, message: String, hint: Option<String>) {
        let inside: String = self.within.iter().map(|at| format!("items[{at}]: ")).collect();
        self.found.push(Finding { hint, ..error(path, Place { line, column: 1 }, format!("{inside}{message}")) });
    }
}

/// JSON values one behind the other, as `kubectl` takes them, each with the
/// line at which it starts; `None` where a text is something else.
fn json_values(text: &str, first: u32) -> Option<Vec<(u32, &str)>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut values = Vec::new();
    // Only their ends are looked for: what they hold is read under the limits for YAML.
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    loop {
        let start = stream.byte_offset();
        let start = start + text.get(start..)?.len() - text.get(start..)?.trim_start().len();
        match stream.next() {
            None => return (values.len() > 1).then_some(values),
            Some(Err(_)) => return None,
            Some(Ok(_)) => {
                let line = first.saturating_add(Place::of_offset(text, start).line - 1);
                values.push((line, text.get(start..stream.byte_offset())?));
            }
        }
    }
}

/// The objects of a `List`, with its `apiVersion` and `kind`.
fn list(object: &mut Value) -> Option<(Vec<Value>, Value, String)> {
    let kind = object["kind"].as_str().filter(|kind| kind.ends_with("List"))?.to_owned();
    let api_version = object["apiVersion"].clone();
    match object.get_mut("items")?.take() {
        Value::Array(items) => Some((items, api_version, kind)),
        Value::Null => Some((Vec::new(), api_version, kind)),
        other => {
            object["items"] = other;
            None
        }
    }
}

type Wrong = (String, Option<String>);

/// What names an object: `apiVersion`, kind, namespace and name.
fn named(object: &Value) -> Result<(String, Kind, Option<String>, String), Wrong> {
    if !object.is_object() {
        return Err(("no object, expected `apiVersion`, `kind` and `metadata`".to_owned(), None));
    }
    let text = |value: &Value, path: &str| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err((format!("`{path}` is no text, expected text"), Some("write it in quotes".to_owned()))),
    };
    let api_version = text(&object["apiVersion"], "apiVersion")?
        .ok_or_else(|| ("`apiVersion` is missing, for example `apps/v1`".to_owned(), None))?;
    let kind = text(&object["kind"], "kind")?
        .ok_or_else(|| ("`kind` is missing, for example `Deployment`".to_owned(), None))?;
    let metadata = &object["metadata"];
    let Some(name) = text(&metadata["name"], "metadata.name")? else {
        if !metadata["generateName"].is_null() {
            let message = format!("{kind} has `metadata.generateName`, expected `metadata.name`");
            return Err((message, Some("give it a name: an object is found again by it".to_owned())));
        }
        return Err((format!("{kind} has no `metadata.name`"), None));
    };
    let namespace = text(&metadata["namespace"], "metadata.namespace")?;
    let strings = |map: &serde_json::Map<String, Value>| map.values().all(|value| value.is_string() || value.is_null());
    for key in ["labels", "annotations"] {
        if !metadata[key].is_null() && !metadata[key].as_object().is_some_and(strings) {
            let message = format!("{kind} {name}: `metadata.{key}` has a value that is no text, expected text");
            return Err((message, Some("write numbers, true and false in quotes".to_owned())));
        }
    }
    let kind = Kind::of(&api_version, &kind);
    let mut wrong = names::wrong(&kind, &name);
    if let (None, Some(namespace)) = (&wrong, &namespace) {
        wrong = names::wrong_label(namespace).map(|wanted| format!("`{namespace}` is no namespace, expected {wanted}"));
    }
    match wrong {
        Some(message) => Err((format!("{} {name}: {message}", kind.kind), None)),
        None => Ok((api_version, kind, namespace, name)),
    }
}

/// Takes out what a server wrote; the answer names it.
fn strip(object: &mut Value) -> Vec<&'static str> {
    let mut left_out = Vec::new();
    let Some(whole) = object.as_object_mut() else { return left_out };
    if whole.remove("status").is_some_and(|status| !status.is_null()) {
        left_out.push("status");
    }
    if let Some(Value::Object(metadata)) = whole.get_mut("metadata") {
        let given = |key: &&&str| metadata.remove(**key).is_some_and(|value| !value.is_null());
        left_out.extend(SERVERS.iter().filter(given).copied());
    }
    left_out
}

/// `1e3` and `5.0` are the whole numbers that `kubectl` makes of them: JSON
/// has no other way to write them, and fields of whole numbers take no others.
fn whole_numbers(value: &mut Value) {
    /// Beyond this not every whole number can be told from its neighbour.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= EXACT) {
                #[expect(clippy::cast_possible_truncation, reason = "whole, and within the bounds of an i64")]
                let whole = float as i64;
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
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
        let lines: Vec<_> =
            of(&format!("{json}\n\n{json} {json}\n")).unwrap().objects.iter().map(|it| it.line).collect();
        assert_eq!(lines, [1, 3, 3]);
        let typed = "{apiVersion: v1, kind: ConfigMapList, items: [{metadata: {name: t}}]}";
        assert!(of(typed).unwrap().objects[0].kind.is("", "ConfigMap"));
        assert!(of("{apiVersion: v1, kind: List, items: }").unwrap().objects.is_empty());
        let own = "{apiVersion: a.b/v1, kind: AllowList, metadata: {name: l}, items: 3}";
        assert_eq!(of(own).unwrap().objects[0].object["items"], 3);
        assert!(of("---\n# nothing\n").unwrap().objects.is_empty());
    }

    #[test]
    fn values_are_those_that_kubectl_reads() {
        let cases = [
            ("0644", "420"),
            ("0o17", "15"),
            ("yes", "true"),
            ("Off", "false"),
            ("1e3", "1000"),
            ("5.0", "5"),
            ("0.5", "0.5"),
            ("~", "null"),
            ("1:30", "\"1:30\""),
            ("2020-01-01", "\"2020-01-01\""),
            ("'5'", "\"5\""),
            ("1_000", "1000"),
            ("[&a {x: 1}, {<<: *a, y: 2}]", "[{\"x\":1},{\"x\":1,\"y\":2}]"),
        ];
        for (text, want) in cases {
            let manifests = of(&format!("{{apiVersion: a.b/v1, kind: A, metadata: {{name: a}}, v: {text}}}")).unwrap();
            assert_eq!(manifests.objects[0].object["v"].to_string(), want, "{text}");
        }
    }

    #[test]
    fn ten_megabytes_are_read_and_more_is_refused() {
        let one = |n: usize| {
            format!(
                "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\ndata:\n  x: |\n    {}\n",
                "a".repeat(90_000)
            )
        };
        let many: String = (0..110).map(one).collect();
        assert!(many.len() > 9_500_000 && of(&many).unwrap().objects.len() == 110);
        let large: String = (0..190).map(one).collect();
        let said = read([("a.yaml", large.as_bytes())]).unwrap_err();
        assert!(said[0].message.contains("the limit is 16777216"), "{}", said[0]);
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
            ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a-}\n", "has `metadata.generateName`"),
            ("apiVersion: v1\nkind: Pod\n", "Pod has no `metadata.name`"),
            ("---\n- a\n", "a.yaml:1:1: no object, expected"),
            (
                "\n---\n{apiVersion: v1, kind: List, items: [{kind: A}]}\n",
                "a.yaml:2:1: items[0]: `apiVersion` is missing",
            ),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n", "`metadata.name` is no text"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: Web}\n", "Pod Web: `Web` is no name of a Pod, expected"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: A}\n", "`A` is no namespace"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}\n", "`a/b` is no name"),
            ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: 1}}\n", "`metadata.labels` has a value"),
            ("a: 1\n---\na: 1\na: 2\n", "a.yaml:4:1: "),
        ];
        for (text, want) in cases {
            let said = of(text).unwrap_err();
            assert!(said.contains(want), "{text:?}: {said}");
        }
        assert!(read([("a.yaml", vec![b' '; super::MAX_BYTES + 1].as_slice())]).is_err());
        // No way around the limits, with a second value neither.
        let deep = format!("{{\"x\": {}{}}}\n", "[".repeat(100), "]".repeat(100));
        let row = |level: usize| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 10].join(", "));
        let bomb = format!("a0: &a0 [x]\n{}", (1..9).map(row).collect::<String>());
        for text in [deep.clone(), format!("{{}}\n{deep}"), bomb] {
            let said = of(&text).unwrap_err();
            assert!(said.contains("limit"), "{said}");
        }
    }
}
