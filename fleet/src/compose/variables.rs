//! A service's environment and labels, with the files that they may come from.

use std::collections::BTreeMap;

use crate::compose::dotenv::{self, Format};
use crate::compose::fields::Fields;
use crate::compose::files::resolve;
use crate::compose::node::{Node, Value};
use crate::compose::top::{Top, is_reserved, labels};
use crate::finding::{Finding, Severity};

/// `env_file`s in their order, and `environment` over them. A name alone takes its value from the variables.
pub(super) fn environment(fields: &Fields<'_>, top: &Top<'_>) -> BTreeMap<String, String> {
    let mut environment = BTreeMap::new();
    let one = fields.node("env_file").filter(|node| node.scalar().is_some());
    for item in one.map_or_else(|| fields.list("env_file"), std::slice::from_ref) {
        environment.extend(env_file(fields, item, top));
    }
    for (name, (value, node)) in fields.dict("environment") {
        match value.or_else(|| node.at.source.scope.get(&name).map(str::to_owned)) {
            Some(value) => environment.insert(name, value),
            None => environment.remove(&name),
        };
    }
    environment
}

fn env_file(fields: &Fields<'_>, item: &Node, top: &Top<'_>) -> BTreeMap<String, String> {
    let (mut node, mut format, mut required) = (item, Format::Compose, true);
    if matches!(item.value, Value::Mapping(_)) {
        let Some(file) = Fields::of(fields.path("env_file"), item, fields.findings) else { return BTreeMap::new() };
        format = file
            .parse("format", |format| match format {
                "" => Ok(Format::Compose),
                "raw" => Ok(Format::Raw),
                _ => Err(format!("{format:?} is not known: expected raw")),
            })
            .unwrap_or(format);
        required = file.switch("required").unwrap_or(true);
        let path = file.node("path");
        if path.is_none() {
            file.error("path", &item.at, "is missing");
        }
        file.finish();
        let Some(path) = path else { return BTreeMap::new() };
        node = path;
    }
    variables(fields, "env_file", node, format, required, top)
}

/// The variables of a file of the repository.
fn variables(
    fields: &Fields<'_>,
    key: &str,
    node: &Node,
    format: Format,
    required: bool,
    top: &Top<'_>,
) -> BTreeMap<String, String> {
    let path = fields.typed(key, node, |text| {
        if text.starts_with('/') {
            return Err(format!("{text:?} is outside of the repository, where it can't be verified"));
        }
        resolve(&node.at.source.dir, text)
    });
    let Some(path) = path else { return BTreeMap::new() };
    if !top.files.exists(&path) {
        if required {
            let message = format!("{}: {path} is not in the repository", fields.path(key));
            fields.findings.hint(&node.at, message, "commit the file, or say required: false");
        }
        return BTreeMap::new();
    }
    let Some(text) = top.files.text(&path, Some(&node.at)) else { return BTreeMap::new() };
    match dotenv::parse(&text, &node.at.source.scope, format) {
        Ok(variables) => variables,
        Err(error) => {
            fields.findings.add(Finding {
                path,
                line: error.line,
                column: error.column,
                severity: Severity::Error,
                message: error.message,
                hint: None,
            });
            BTreeMap::new()
        }
    }
}

/// `label_file`s in their order, and `labels` over them.
pub(super) fn all_labels(fields: &Fields<'_>, top: &Top<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let one = fields.node("label_file").filter(|node| node.scalar().is_some());
    for item in one.map_or_else(|| fields.list("label_file"), std::slice::from_ref) {
        all.extend(variables(fields, "label_file", item, Format::Compose, true, top));
    }
    if let (Some(name), Some(node)) = (all.keys().find(|name| is_reserved(name)), fields.node("label_file")) {
        fields.error("label_file", &node.at, &format!("label {name} is one that only burgee itself may set"));
    }
    all.extend(labels(fields, "labels"));
    all
}
