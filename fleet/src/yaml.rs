//! Reads the YAML files of format 1 into types, with the place of everything.
//!
//! One file, one type, unknown and repeated keys refused, and every error said
//! with line, column and what was expected. What a value *means* is for the
//! room of its file ([`crate::repo`]); here it only has to have the right form.

use std::borrow::Cow;
use std::cmp::Ordering;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Error, Location, Options, Spanned};

use crate::finding::{Finding, Severity};

/// A file of format 1 may have this many bytes.
pub const MAX_BYTES: usize = 256 << 10;
/// Lists and mappings may be nested this deep.
pub const MAX_DEPTH: usize = 32;
/// A file may have this many values, those that aliases repeat included.
pub const MAX_NODES: usize = 20_000;
/// A file may have this many aliases.
pub const MAX_ALIASES: usize = 200;

/// A document of a manifest may have this many values: 10 MB of them.
pub const MAX_MANIFEST_NODES: usize = 500_000;

/// A place in a file; both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The file as a whole.
    pub const START: Self = Self { line: 1, column: 1 };

    /// The place of the byte at `offset` in `text`.
    #[must_use]
    pub fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line: narrow(line as u64), column: narrow(column as u64) }
    }
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self { line: narrow(location.line()).max(1), column: narrow(location.column()).max(1) }
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A value and where it stands. Compared by value alone.
#[derive(Clone, Debug)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it stands (the alias, where it came by one).
    pub place: Place,
}

impl<T> At<T> {
    /// The same place with another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), place: self.place }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { value, place: referenced.into() })
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: PartialOrd> PartialOrd for At<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for At<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Reads one file of one document.
///
/// # Errors
/// One finding: the first thing that has not the form of a `T`.
pub fn parse<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T, Finding> {
    if bytes.len() > MAX_BYTES {
        return Err(finding(
            path,
            Place::START,
            format!("the file has {} bytes, the limit for a file of format 1 is {MAX_BYTES}", bytes.len()),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
        finding(path, Place::of_offset(&before, before.len()), "not UTF-8 here, expected UTF-8 text".to_owned())
    })?;
    serde_saphyr::from_str_with_options(text, options()).map_err(|error| explain(path, &error))
}

/// Whether `text` is YAML at all, of any shape and any number of documents.
///
/// # Errors
/// One finding, with the place.
pub fn well_formed(path: &str, text: &str) -> Result<(), Finding> {
    let mut options = options();
    options.budget = serde_saphyr::budget! { max_depth: 64, max_nodes: 250_000, max_documents: 1_000 };
    serde_saphyr::from_str_multiple_with_options::<serde::de::IgnoredAny, Vec<_>>(text, options)
        .map(drop)
        .map_err(|error| explain(path, &error))
}

/// One document of a manifest, of any shape; it starts at `line` of its file.
/// Larger than files of format 1 may be.
///
/// # Errors
/// One finding, with the place in the file.
pub fn document(path: &str, text: &str, line: u32) -> Result<serde_json::Value, Finding> {
    let mut options = options();
    options.budget = serde_saphyr::budget! {
        max_depth: 64,
        max_nodes: MAX_MANIFEST_NODES,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
        flow_nesting_limit: 64,
        max_events: 4 * MAX_MANIFEST_NODES,
    };
    options.alias_limits.max_total_replayed_events = MAX_MANIFEST_NODES;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let found = explain(path, &error);
        Finding { line: found.line + line.saturating_sub(1), ..found }
    })
}

fn options() -> Options {
    let mut options = Options::default();
    options.budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_aliases: MAX_ALIASES,
        max_anchors: MAX_ALIASES,
        flow_nesting_limit: MAX_DEPTH,
        max_events: 4 * MAX_NODES,
    };
    options.alias_limits.max_total_replayed_events = MAX_NODES;
    options.alias_limits.max_replay_stack_depth = 8;
    options.legacy_octal_numbers = true;
    options.with_snippet = false;
    options
}

fn finding(path: &str, place: Place, message: String) -> Finding {
    Finding {
        path: path.to_owned(),
        line: place.line,
        column: place.column,
        severity: Severity::Error,
        message,
        hint: None,
    }
}

fn explain(path: &str, error: &Error) -> Finding {
    let place = error.location().map_or(Place::START, Place::from);
    let (message, hint) = words(error);
    Finding { hint, ..finding(path, place, message) }
}

/// What is wrong and what was expected, in the words of the format rather than
/// of the parser.
fn words(error: &Error) -> (String, Option<String>) {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => words(error),
        Error::SerdeUnknownField { field, expected, .. } => {
            (format!("unknown key `{field}`, expected {}", one_of(expected)), did_you_mean(field, expected))
        }
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            (format!("unknown value `{variant}`, expected {}", one_of(expected)), did_you_mean(variant, expected))
        }
        Error::SerdeMissingField { field, .. } => (format!("the key `{field}` is missing"), None),
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            (format!("the key `{key}` stands here a second time, expected it once"), None)
        }
        Error::DuplicateMappingKey { key: None, .. } => ("a key stands here a second time".to_owned(), None),
        Error::Unexpected { expected, .. } => (format!("expected {}", plain(expected)), None),
        Error::InvalidScalar { ty, .. } => (format!("expected {}", plain(ty)), None),
        Error::NullIntoString { .. } => {
            ("no value, expected text".to_owned(), Some("write \"\" for empty text".to_owned()))
        }
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => ("expected a word".to_owned(), None),
        Error::Eof { .. } => ("the file is empty, expected a mapping (key: value)".to_owned(), None),
        Error::MultipleDocuments { .. } => ("a second YAML document, expected one in a file".to_owned(), None),
        Error::SerdeInvalidType { unexpected, expected, .. }
        | Error::SerdeInvalidValue { unexpected, expected, .. } => (format!("{unexpected}, expected {expected}"), None),
        Error::Message { msg, .. } => (msg.clone(), None),
        Error::Budget { breach, .. } => (
            format!("a limit of YAML is reached ({})", spaced(&format!("{breach:?}"))),
            Some(format!("a file may nest {MAX_DEPTH} deep and have {MAX_NODES} values and {MAX_ALIASES} aliases")),
        ),
        Error::AliasReplayLimitExceeded { max_total_replayed_events, .. } => {
            (format!("aliases repeat more than {max_total_replayed_events} values, the limit of YAML is reached"), None)
        }
        Error::AliasReplayStackDepthExceeded { max_depth, .. } => {
            (format!("aliases are nested more than {max_depth} deep, the limit of YAML is reached"), None)
        }
        other => {
            let text = other.to_string();
            let text = text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]);
            (format!("not readable as YAML: {text}"), None)
        }
    }
}

/// `Depth { depth: 33 }` as `Depth depth 33`: the parser's names, without its syntax.
fn spaced(debug: &str) -> String {
    debug
        .chars()
        .filter(|c| !matches!(c, '{' | '}' | ':'))
        .collect::<String>()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn plain(expected: &str) -> Cow<'static, str> {
    match expected {
        "string scalar" => "text".into(),
        "sequence start" => "a list".into(),
        "mapping start" => "a mapping (key: value)".into(),
        "boolean" => "true or false".into(),
        "u8" | "u16" | "u32" | "u64" => "a whole number from 0".into(),
        "i32" | "i64" => "a whole number".into(),
        other => other.to_owned().into(),
    }
}

/// `` `a` `` or `` one of `a`, `b` ``.
pub(crate) fn one_of<T: AsRef<str>>(words: &[T]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{}`", word.as_ref())).collect();
    match quoted.as_slice() {
        [one] => one.clone(),
        many => format!("one of {}", many.join(", ")),
    }
}

/// A hint with the nearest of `known`, where one is near enough to be a slip.
pub(crate) fn did_you_mean<T: AsRef<str>>(word: &str, known: &[T]) -> Option<String> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|known| (distance(&word.to_lowercase(), &known.as_ref().to_lowercase()), known.as_ref()))
        .filter(|(far, _)| *far <= limit)
        .min()
        .map(|(_, known)| format!("did you mean `{known}`?"))
}

/// Insertions, deletions, substitutions and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(80).collect(), b.chars().take(80).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above: &[usize] = &rows[i - 1];
            let mut least = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + usize::from(a[i - 1] != b[j - 1]));
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::{At, MAX_BYTES, Place, did_you_mean, parse, well_formed};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Sample {
        name: Option<At<String>>,
        count: Option<At<u16>>,
        on: Option<bool>,
        list: Option<Vec<At<String>>>,
        mode: Option<Mode>,
        inner: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        Correct,
        Report,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        must: String,
    }

    #[test]
    fn errors_name_place_and_expectation() {
        let cases = [
            (
                "name: x\nnmae: y\n",
                "2:1: unknown key `nmae`, expected one of `name`, `count`, `on`, `list`, `mode`, `inner`",
            ),
            ("inner:\n  other: 1\n", "2:3: unknown key `other`, expected `must`"),
            ("inner: {}\n", "1:8: the key `must` is missing"),
            ("name: a\nname: b\n", "2:1: the key `name` stands here a second time, expected it once"),
            ("name: [a]\n", "1:7: expected text"),
            ("list: a\n", "1:7: expected a list"),
            ("inner: a\n", "1:8: expected a mapping (key: value)"),
            ("list: [a, ~]\n", "1:11: no value, expected text"),
            ("count: many\n", "1:8: expected a whole number from 0"),
            ("count: 70000\n", "1:8: expected a whole number from 0"),
            ("on: maybe\n", "1:5: expected true or false"),
            ("mode: corect\n", "1:7: unknown value `corect`, expected one of `correct`, `report`"),
            ("mode: [x]\n", "1:7: expected a word"),
            ("- a\n", "1:1: expected a mapping (key: value)"),
            ("name: a\n---\nname: b\n", "3:1: a second YAML document, expected one in a file"),
            ("name: \"a\n", "1:7: not readable as YAML: unclosed quote"),
            ("name: *a\n", "1:7: not readable as YAML: alias references unknown anchor"),
        ];
        for (text, want) in cases {
            let found = parse::<Sample>("f", text.as_bytes()).map(drop).unwrap_err();
            assert_eq!(found.to_string(), format!("f:{want}"), "{text:?}");
        }
        let deep = format!("list: {}{}\n", "[".repeat(40), "]".repeat(40));
        assert!(parse::<Sample>("f", deep.as_bytes()).is_err());
        assert!(parse::<Sample>("f", &vec![b'#'; MAX_BYTES + 1]).unwrap_err().message.contains("limit"));
        assert_eq!(parse::<Sample>("f", b"name: a\xff\n").unwrap_err().column, 8);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let row = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        assert!(well_formed("f", &bomb).is_err());
    }

    #[test]
    fn values_keep_their_spelling_and_place() {
        let sample: Sample =
            parse("f", b"name: 1.10\nlist: [0644, yes]\ncount: 3\non: true\nmode: report\ninner: {must: a}\n").unwrap();
        let name = sample.name.unwrap();
        assert_eq!((name.value.as_str(), name.place), ("1.10", Place { line: 1, column: 7 }));
        let list = sample.list.unwrap();
        assert_eq!((list[1].value.as_str(), list[1].place), ("yes", Place { line: 2, column: 14 }));
        assert!(sample.on.unwrap() && sample.count.unwrap().value == 3);
        assert!(matches!(sample.mode, Some(Mode::Report)) && sample.inner.unwrap().must == "a");
    }

    #[test]
    fn nearest() {
        let known = ["dependsOn", "health", "onFailure"];
        for (word, want) in [("dependson", Some("dependsOn")), ("helath", Some("health")), ("zzz", None)] {
            assert_eq!(did_you_mean(word, &known), want.map(|want| format!("did you mean `{want}`?")));
        }
    }
}
