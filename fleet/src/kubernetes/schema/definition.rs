//! CustomResourceDefinitions in the repository → what their kinds may hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Field, Fields, Type};
use crate::kubernetes::{Kind, Manifest};

/// A kind that a definition brings.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) namespaced: bool,
    /// By version; `None` where the definition says nothing of its fields.
    pub(crate) versions: BTreeMap<String, Option<Type>>,
}

/// The definitions of a repository, by kind.
pub(crate) type Definitions = BTreeMap<Kind, Definition>;

/// Adds what the definitions among these objects say. What is wrong in one is
/// found when it is checked as the object that it is.
pub(crate) fn collect(manifests: &[Manifest], definitions: &mut Definitions) {
    for manifest in manifests.iter().filter(|it| it.kind.is("apiextensions.k8s.io", "CustomResourceDefinition")) {
        let spec = &manifest.object["spec"];
        let (Some(group), Some(kind)) = (spec["group"].as_str(), spec["names"]["kind"].as_str()) else { continue };
        let namespaced = spec["scope"].as_str() != Some("Cluster");
        let mut versions = BTreeMap::new();
        for version in spec["versions"].as_array().into_iter().flatten() {
            let Some(name) = version["name"].as_str().filter(|_| version["served"] != false) else { continue };
            let schema = &version["schema"]["openAPIV3Schema"];
            versions.insert(name.to_owned(), schema.is_object().then(|| whole(schema)));
        }
        let kind = Kind { group: group.to_owned(), kind: kind.to_owned() };
        definitions.insert(kind, Definition { namespaced, versions });
    }
}

/// The whole object: what every object has is added.
fn whole(schema: &Value) -> Type {
    let mut whole = of(schema);
    if let Type::Fields(fields) = &mut whole {
        embedded(fields);
    }
    whole
}

/// An object within an object has these, whether the schema says so or not.
fn embedded(fields: &mut Fields) {
    for (name, value) in
        [("apiVersion", Type::Text), ("kind", Type::Text), ("metadata", Type::Named("meta.v1.ObjectMeta".to_owned()))]
    {
        fields.known.insert(name.to_owned(), Field { required: false, value });
    }
    if let Some(status) = fields.known.get_mut("status") {
        *status = Field { required: false, value: Type::Any };
    }
}

/// A structural schema. Bounds, patterns and rules are for the server.
fn of(schema: &Value) -> Type {
    let set = |key: &str| schema[key] == true;
    if set("x-kubernetes-int-or-string") {
        return Type::IntOrText;
    }
    match schema["type"].as_str() {
        Some("object") => mapping(schema),
        Some("array") => Type::List(Box::new(of(&schema["items"]))),
        Some("string") => match schema["enum"].as_array() {
            // Not empty text, that is: for an own kind it is a value like others.
            Some(words) if words.iter().all(|word| word.as_str().is_some_and(|word| !word.is_empty())) => {
                Type::OneOf(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            }
            _ => Type::Text,
        },
        Some("integer") => Type::Whole(if schema["format"] == "int32" { 32 } else { 64 }),
        Some("number") => Type::Number,
        Some("boolean") => Type::Bool,
        _ => Type::Any,
    }
}

fn mapping(schema: &Value) -> Type {
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let Some(properties) = schema["properties"].as_object() else {
        return match &schema["additionalProperties"] {
            Value::Object(_) if !open => Type::Map(Box::new(of(&schema["additionalProperties"]))),
            _ => Type::Open,
        };
    };
    let required: BTreeSet<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let known = properties
        .iter()
        .map(|(name, schema)| {
            // The server puts a default in before it looks for what is missing.
            let required = required.contains(name.as_str()) && schema.get("default").is_none();
            (name.clone(), Field { required, value: of(schema) })
        })
        .collect();
    let mut fields = Fields { known, open };
    if schema["x-kubernetes-embedded-resource"] == true {
        embedded(&mut fields);
    }
    Type::Fields(fields)
}
