//! Every key that the specification's own schema knows is honoured or named: none is dropped.
//!
//! The schema is walked from its root. For each key there is a pair of files, without it and with it: either the
//! project differs, or a finding names the key. Where a key is refused or ignored, so is everything below it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::keys::{DECLARED, SERVICE};
use super::read_files;

fn schema() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/examples/compose/compose-spec.schema.json");
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("the schema is missing: {}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// The keys of a service, for other tests.
pub(super) fn service_keys() -> Vec<String> {
    schema()["$defs"]["service"]["properties"].as_object().unwrap().keys().cloned().collect()
}

/// The keys directly below a schema, references followed, every alternative taken together.
fn below(root: &Value, schema: &Value, keys: &mut BTreeMap<String, Vec<Value>>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/$defs/").unwrap();
        below(root, &root["$defs"][name], keys);
    }
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        keys.entry(key.clone()).or_default().push(value.clone());
    }
    for (pattern, value) in schema["patternProperties"].as_object().into_iter().flatten() {
        // A pattern over single values is a mapping of texts, which is one value here.
        let mut inner = BTreeMap::new();
        below(root, value, &mut inner);
        if pattern != "^x-" && !inner.is_empty() {
            keys.entry("*".to_owned()).or_default().push(value.clone());
        }
    }
    for alternative in ["oneOf", "anyOf"] {
        for value in schema[alternative].as_array().into_iter().flatten() {
            below(root, value, keys);
        }
    }
    if schema["items"].is_object() {
        below(root, &schema["items"], keys);
    }
}

/// What happens to a key: named by a finding, or seen in the project.
fn named(path: &str, without: &str, with: &str) -> Result<bool, String> {
    let files = |yaml: &str| {
        let files = [
            ("compose.yaml", yaml),
            ("x.env", "A='1'\nTAG=file"),
            ("other.yaml", "services: {o: {image: w, user: o}}"),
            ("inc.yaml", "services: {inc: {image: 'i:${TAG:-none}', volumes: ['./y:/y']}}"),
            ("y", "1"),
            ("sub/y", "2"),
        ];
        read_files(&files, &[("S", "secret")])
    };
    let base = files(without).map_err(|errors| format!("{path}: without it: {errors:#?}"))?;
    let name = path.replace(".*", "");
    let key = name.rsplit('.').next().unwrap().to_owned();
    let names = |message: &str| {
        let said = message.split(": warning: ").last().unwrap_or(message);
        // The key at the end of a path, or before one of its own children.
        said.split([' ', ':']).any(|word| word.split('.').any(|part| part == key))
    };
    match files(with) {
        Err(errors) if errors.iter().any(|error| names(error)) => Ok(true),
        Err(errors) => Err(format!("{path}: no finding names it: {errors:#?}")),
        Ok(read) if read.project != base.project => Ok(false),
        Ok(read) if read.notes.iter().any(|note| names(&note.to_string())) => Ok(true),
        Ok(_) => Err(format!("{path}: dropped in silence")),
    }
}

#[test]
fn every_key_is_honoured_or_named() {
    let schema = schema();
    let mut rows: BTreeMap<String, (String, String)> = BTreeMap::new();
    for (path, without, with) in SERVICE {
        let file = |lines: &str| {
            let image = if lines.starts_with("image:") || lines.starts_with("build:") { "" } else { "image: w, " };
            // A flow mapping may hold the lines as they are.
            format!(
                "services:\n  web: {{{image}{lines}}}\n  db: {{image: d}}\n  labelled: {{image: w, labels: [x]}}\n\
                 networks: {{front: }}\nvolumes: {{data: }}\nconfigs: {{c: {{content: x}}}}\nsecrets: {{s: {{environment: S}}}}\n"
            )
        };
        rows.insert(format!("services.*.{path}"), (file(without), file(with)));
    }
    for (path, without, with) in DECLARED {
        let file = |lines: &str| {
            let mut web = "image: w".to_owned();
            for (section, usage) in
                [("networks", "[n]"), ("volumes", "['v:/v']"), ("configs", "[k]"), ("secrets", "[t]")]
            {
                if lines.starts_with(section) {
                    web += &format!(", {section}: {usage}");
                }
            }
            format!("services: {{web: {{{web}}}}}\n{lines}\n")
        };
        rows.insert((*path).to_owned(), (file(without), file(with)));
    }
    let mut problems = Vec::new();
    let mut met = BTreeSet::new();
    let mut open = vec![(String::new(), vec![schema.clone()])];
    let mut count = 0;
    while let Some((path, schemas)) = open.pop() {
        let mut keys = BTreeMap::new();
        schemas.iter().for_each(|value| below(&schema, value, &mut keys));
        if let Some((without, with)) = rows.get(&path) {
            met.insert(path.clone());
            count += 1;
            match named(&path, without, with) {
                // What is refused or ignored takes everything below with it.
                Ok(true) => continue,
                Ok(false) => {}
                Err(problem) => problems.push(problem),
            }
        } else if keys.is_empty() {
            problems.push(format!("{path}: no sample: is it honoured?"));
        }
        for (key, values) in keys {
            open.push((if path.is_empty() { key } else { format!("{path}.{key}") }, values));
        }
    }
    for path in rows.keys().filter(|path| !met.contains(*path)) {
        problems.push(format!("{path}: the schema has no such key"));
    }
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(count > 180, "only {count} keys were met");
}

/// `docs/compose.md` lists the same keys.
#[test]
fn every_key_is_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let missing: Vec<_> = service_keys().into_iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/compose.md does not mention {missing:?}");
}
