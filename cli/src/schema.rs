//! `burgee schema`: the JSON Schemas, for editors.

use std::fs;
use std::path::Path;

use crate::Done;
use crate::failure::Failure;
use crate::output;

pub(crate) fn run(name: Option<&str>, out: Option<&Path>) -> Done {
    let schemas = fleet::schema::all();
    if let Some(folder) = out {
        fs::create_dir_all(folder).map_err(|source| Failure::io("make", folder, &source))?;
        for schema in schemas {
            let path = folder.join(format!("{}.json", schema.name));
            fs::write(&path, schema.text()).map_err(|source| Failure::io("write", &path, &source))?;
        }
        return Ok(());
    }
    match name {
        None => schemas.iter().try_for_each(|schema| output::text(&format!("{}\t{}\n", schema.name, schema.files))),
        Some(name) => {
            schemas.iter().filter(|schema| schema.name == name).try_for_each(|schema| output::text(&schema.text()))
        }
    }
}
