//! Data on standard output, and nothing but data.

use std::io::Write;

use serde::Serialize;

use crate::Done;
use crate::failure::Failure;

/// Bytes as they are.
pub(crate) fn bytes(bytes: &[u8]) -> Done {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::Output)
}

/// A text as it is.
pub(crate) fn text(text: &str) -> Done {
    bytes(text.as_bytes())
}

/// A value as indented JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Done {
    let mut json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::failed(format!("cannot write the answer as JSON: {error}")))?;
    json.push('\n');
    text(&json)
}

/// A value as YAML.
pub(crate) fn yaml<T: Serialize>(value: &T) -> Done {
    let yaml = serde_saphyr::to_string(value)
        .map_err(|error| Failure::failed(format!("cannot write the answer as YAML: {error}")))?;
    text(&yaml)
}
