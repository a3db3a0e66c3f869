//! What the fields of an object may be: for built-in kinds from a table of one
//! Kubernetes version, for others from the definitions in the repository.
//!
//! The table itself is not here: whoever checks brings it ([`Schemas::parse`]),
//! so that no device carries it. Nothing here is asked on a device; what its
//! server knows decides there.

mod definition;
mod fields;
pub(crate) mod inspect;
mod table;

use std::collections::BTreeMap;

pub(crate) use self::definition::{Definitions, collect};

/// The built-in kinds of one Kubernetes version.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    /// `v1.34.4`.
    version: String,
    /// By `apiVersion` and `kind`.
    kinds: BTreeMap<(String, String), BuiltIn>,
    types: BTreeMap<String, Type>,
}

/// A built-in kind of one `apiVersion`.
#[derive(Clone, Debug)]
pub(crate) struct BuiltIn {
    pub(crate) namespaced: bool,
    /// Among the types.
    pub(crate) name: String,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    /// Anything.
    Any,
    /// A mapping of any keys.
    Open,
    Text,
    /// Text that is base64.
    Bytes,
    /// Text that is a time of RFC 3339.
    Time,
    /// `500m`, `1Gi`, or a number.
    Quantity,
    IntOrText,
    /// A whole number of so many bits.
    Whole(u8),
    Number,
    Bool,
    /// One of these words; empty text counts as not set.
    OneOf(Vec<String>),
    List(Box<Type>),
    /// A mapping whose values are alike.
    Map(Box<Type>),
    Fields(Fields),
    /// One of the table's types.
    Named(String),
}

/// A mapping of known keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Fields {
    pub(crate) known: BTreeMap<String, Field>,
    /// Whether other keys are kept, too.
    pub(crate) open: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Field {
    pub(crate) required: bool,
    pub(crate) value: Type,
}

impl Schemas {
    /// Reads the table that `cli/schema/generate.py` writes.
    ///
    /// # Errors
    /// The number of the line that has not its form.
    pub fn parse(text: &str) -> Result<Self, usize> {
        table::parse(text)
    }

    /// The Kubernetes version that the table was made from.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn kind(&self, api_version: &str, kind: &str) -> Option<&BuiltIn> {
        self.kinds.get(&(api_version.to_owned(), kind.to_owned()))
    }

    /// The `apiVersion`s that have a kind, the most settled one first.
    pub(crate) fn versions_of(&self, kind: &str) -> Vec<&str> {
        let mut versions: Vec<&str> =
            self.kinds.keys().filter(|(_, name)| name == kind).map(|(api, _)| api.as_str()).collect();
        versions.sort_by_key(|api| (api.contains("alpha"), api.contains("beta"), std::cmp::Reverse(*api)));
        versions
    }

    /// The kinds of an `apiVersion`.
    pub(crate) fn kinds_of(&self, api_version: &str) -> Vec<&str> {
        self.kinds.keys().filter(|(api, _)| api == api_version).map(|(_, kind)| kind.as_str()).collect()
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Type> {
        self.types.get(name)
    }
}
