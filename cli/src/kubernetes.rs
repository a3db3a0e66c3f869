//! The table of Kubernetes' built-in kinds, for `burgee check`. It lies here
//! rather than in `fleet`, so that no device carries it.
//!
//! `cli/schema/generate.py` made it from Kubernetes' own OpenAPI (Apache-2.0,
//! copyright The Kubernetes Authors), and says how to make it anew.

use fleet::kubernetes::schema::Schemas;

use crate::failure::Failure;

const TABLE: &str = include_str!("kubernetes/table.txt");

/// Reads the table.
pub(crate) fn schemas() -> Result<Schemas, Failure> {
    Schemas::parse(TABLE)
        .map_err(|line| Failure::failed(format!("the table of Kubernetes' kinds is damaged in line {line}")))
}

#[cfg(test)]
mod tests {
    use super::schemas;

    #[test]
    fn the_table_is_whole() {
        assert_eq!(schemas().map(|schemas| schemas.version().to_owned()).ok().as_deref(), Some("v1.34.4"));
    }
}
