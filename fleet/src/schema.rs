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

/// The schema of one kind of file.
#[derive(Clone, Debug)]
pub struct FileSchema {
    /// `burgee`, `app`, `group`, `device` or `rollout`.
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
    ]
}

fn one<T: JsonSchema>(name: &'static str, files: &'static str) -> FileSchema {
    let schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<T>();
    FileSchema { name, files, schema: schema.to_value() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::all;

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
}
