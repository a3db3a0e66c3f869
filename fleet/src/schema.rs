//! JSON Schemas of the files of format 1, for editors, generated from the
//! types that the files are parsed with.
//!
//! A schema says less than `burgee check` does: names that have to exist,
//! cycles and paths are not its business.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use crate::repo::app::AppFile;
use crate::repo::files::{DeviceFile, FleetFile, GroupFile};
use crate::repo::rollout::RolloutFile;
use crate::trust::policy::Policy;

/// The schema of one kind of file.
#[derive(Clone, Debug)]
pub struct FileSchema {
    /// `burgee`, `app`, `group`, `device`, `rollout` or `policy`.
    pub name: &'static str,
    /// Which files it is for, as a pattern over the repository.
    pub files: &'static str,
    /// JSON Schema, draft 7: what editors understand.
    pub schema: Value,
}

impl FileSchema {
    /// The schema as it is shipped: indented JSON with a newline at its end.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{:#}\n", self.schema)
    }
}

/// The schemas of all files.
#[must_use]
pub fn all() -> Vec<FileSchema> {
    vec![
        one::<FleetFile>("burgee", "burgee.yaml"),
        one::<AppFile>("app", "apps/*/app.yaml"),
        one::<GroupFile>("group", "groups/*.yaml"),
        one::<DeviceFile>("device", "devices/*.yaml"),
        one::<RolloutFile>("rollout", "rollouts/*.yaml"),
        one::<Policy>("policy", "trust/policy.yaml"),
    ]
}

fn one<T: JsonSchema>(name: &'static str, files: &'static str) -> FileSchema {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), files.into());
    FileSchema { name, files, schema: schema.to_value() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::all;
    use crate::tree::MemoryTree;
    use crate::trust::policy::Policy;

    /// `BURGEE_WRITE_SCHEMAS=1 cargo test -p burgee-fleet schemas` writes them anew.
    #[test]
    fn the_shipped_schemas_are_those_of_the_types() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        let write = std::env::var_os("BURGEE_WRITE_SCHEMAS").is_some();
        for schema in all() {
            let path = folder.join(format!("{}.json", schema.name));
            if write {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(&path, schema.text()).unwrap();
            }
            let shipped = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                shipped == schema.text(),
                "{} is out of date: run BURGEE_WRITE_SCHEMAS=1 cargo test -p burgee-fleet schemas",
                path.display()
            );
        }
    }

    #[test]
    fn unknown_keys_are_refused_by_every_schema() {
        for schema in all() {
            assert_eq!(schema.schema["additionalProperties"], false, "{}", schema.name);
            assert!(schema.schema["title"].as_str().is_some_and(|title| title.ends_with(".yaml")), "{}", schema.name);
        }
    }

    const REFERENCE: &str = include_str!("../../docs/fleet-repository.md");

    #[test]
    fn the_reference_names_every_key() {
        fn keys(value: &Value, found: &mut BTreeSet<String>) {
            match value {
                Value::Object(map) => {
                    for (key, inner) in map {
                        if let (true, Value::Object(properties)) = (key == "properties", inner) {
                            found.extend(properties.keys().cloned());
                        }
                        keys(inner, found);
                    }
                }
                Value::Array(list) => list.iter().for_each(|inner| keys(inner, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        all().iter().for_each(|schema| keys(&schema.schema, &mut found));
        let said =
            |key: &String| ["`{}`", ".{}`", "`{}."].iter().any(|form| REFERENCE.contains(&form.replace("{}", key)));
        let missing: Vec<_> = found.iter().filter(|key| !said(key)).collect();
        assert!(found.len() > 50 && missing.is_empty(), "{missing:?}");
    }

    /// The examples of the reference are one repository, as far as its own files go.
    #[test]
    fn the_examples_of_the_reference_are_right() {
        let blocks = REFERENCE.split("```yaml\n# ").skip(1).filter_map(|block| block.split_once("```"));
        let mut files: Vec<(String, String)> = blocks
            .map(|(block, _)| {
                let (path, _) = block.split_once('\n').unwrap();
                (path.to_owned(), format!("# {block}"))
            })
            .collect();
        assert_eq!(files.len(), 8);
        let policy = files.pop().unwrap();
        assert!(Policy::parse(&policy.0, policy.1.as_bytes()).is_ok());
        for (path, text) in [
            ("apps/base/files/etc/base.conf", "tz=${TZ}\n"),
            ("apps/base/files/base.service", "[Service]\n"),
            ("apps/pos/compose.yaml", "services: {pos: {image: \"pos:1\", environment: {LOG: \"${LOG}\"}}}\n"),
            ("apps/shelf/kubernetes/shelf.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: shelf}}\n"),
            ("apps/label-printer/app.yaml", "runtime: compose\n"),
            ("apps/label-printer/compose.yaml", "services: {printer: {image: \"printer:1\"}}\n"),
        ] {
            files.push((path.to_owned(), text.to_owned()));
        }
        let tree: MemoryTree = files.into_iter().collect();
        let found: Vec<_> = crate::repo::check(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["apps/shelf/app.yaml:1:1: warning: no device gets the app `shelf`"]);
    }
}
