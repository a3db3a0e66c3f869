//! Keys as files and flags say them, each with its place, merged.
//!
//! One flat map by full key: merging is insertion, later wins; `device.labels`
//! alone is merged label by label.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fleet::digest::Digest;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::keys::{self, Kind};

/// Where a value was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// A file, or a flag as it was given.
    source: Arc<str>,
    /// `None` for a flag.
    line: Option<usize>,
    /// What relative paths are relative to.
    folder: Arc<Path>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.source),
            None => write!(f, "{}", self.source),
        }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub value: T,
    pub key: &'static str,
    pub place: Place,
}

impl<T> Said<T> {
    /// The error that this value is.
    pub(super) fn wrong(&self, cause: impl Into<String>, hint: Option<&str>) -> ConfigError {
        ConfigError::Wrong {
            place: format!("{}: {}", self.place, self.key),
            cause: cause.into(),
            hint: hint.map(str::to_owned),
        }
    }

    pub(super) fn with<U>(&self, value: U) -> Said<U> {
        Said { value, key: self.key, place: self.place.clone() }
    }
}

impl Said<String> {
    /// The value as a path, taken from the folder of its file where it is relative.
    pub(super) fn path(&self) -> PathBuf {
        self.place.folder.join(&self.value)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(u64),
    Labels(BTreeMap<String, String>),
    Flag(bool),
}

/// The merged configuration, not yet validated.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    values: BTreeMap<&'static str, Said<Value>>,
    /// Files that were read, in order.
    files: Vec<PathBuf>,
    /// Passes over keys and values that this agent does not know.
    lenient: bool,
    /// Of all that was read, in order.
    print: Option<Digest>,
    /// Something that was passed over says what this device is.
    is_stranger: bool,
}

impl Inputs {
    /// Nothing yet; keys and values of a later agent will be passed over.
    pub(super) fn lenient() -> Self {
        Self { lenient: true, ..Self::default() }
    }

    /// Files that were read, in order.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Tells what was read from whatever else might be: of each text, in order.
    #[must_use]
    pub fn print(&self) -> Option<&Digest> {
        self.print.as_ref()
    }

    /// Whether what was passed over may be what chooses this device's apps: by
    /// the rest alone all of them might go.
    #[must_use]
    pub fn is_stranger(&self) -> bool {
        self.is_stranger
    }

    fn pass_over(&mut self, key: &str) {
        self.is_stranger |= key.split('.').next() == Some("device");
    }

    fn read(&mut self, text: &str) {
        let before = self.print.as_ref().map_or(&[][..], |print| print.as_bytes());
        self.print = Some(Digest::of(&[before, text.as_bytes()].concat()));
    }

    /// Adds a file's keys over those before.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: shown.clone(), source })?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let folder: Arc<Path> = absolute.parent().unwrap_or(Path::new("/")).into();
        self.add_text(&text, &shown, folder)?;
        self.files.push(path.to_owned());
        Ok(())
    }

    pub(crate) fn add_text(&mut self, text: &str, source: &str, folder: Arc<Path>) -> Result<(), ConfigError> {
        self.read(text);
        let source: Arc<str> = source.into();
        let line =
            |offset: usize| text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1;
        let table = DeTable::parse(text).map_err(|error| ConfigError::Wrong {
            place: format!("{source}:{}", line(error.span().map_or(0, |span| span.start))),
            cause: error.message().trim().replace('\n', ", "),
            hint: None,
        })?;
        let place =
            |offset| Place { source: Arc::clone(&source), line: Some(line(offset)), folder: Arc::clone(&folder) };
        self.add_table("", table.get_ref(), &place)
    }

    /// Adds a flag: `KEY=VALUE`, the value in TOML or plain text.
    pub(crate) fn add_flag(&mut self, flag: &str) -> Result<(), ConfigError> {
        self.read(flag);
        let shown = format!("--set {flag}");
        let wrong = |cause: &str| ConfigError::Wrong { place: shown.clone(), cause: cause.to_owned(), hint: None };
        let (key, text) = flag.split_once('=').ok_or_else(|| wrong("expected KEY=VALUE"))?;
        let folder: Arc<Path> =
            std::env::current_dir().map_err(|source| ConfigError::Read { path: ".".to_owned(), source })?.into();
        let place = Place { source: shown.clone().into(), line: None, folder };
        let plain = DeValue::String(text.into());
        let parsed = DeValue::parse(text).map(toml::Spanned::into_inner);
        // `--set source.branch=main` needs no second pair of quotes.
        let quoted = matches!(keys::kind(key), Some(Kind::Text | Kind::Path));
        let value = match parsed {
            Ok(value @ DeValue::String(_)) => value,
            Ok(value) if !quoted => value,
            _ => plain,
        };
        self.add_value(key, &value, place)
    }

    fn add_table(
        &mut self,
        prefix: &str,
        table: &DeTable<'_>,
        place: &impl Fn(usize) -> Place,
    ) -> Result<(), ConfigError> {
        for (name, value) in table {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            match value.get_ref() {
                DeValue::Table(inner) if keys::is_table(&key) => self.add_table(&key, inner, place)?,
                value => self.add_value(&key, value, place(name.span().start))?,
            }
        }
        Ok(())
    }

    fn add_value(&mut self, key: &str, value: &DeValue<'_>, place: Place) -> Result<(), ConfigError> {
        let Some((key, kind)) = keys::KEYS.iter().copied().find(|(name, _)| *name == key) else {
            if self.lenient {
                self.pass_over(key);
                return Ok(());
            }
            let (cause, hint) = if keys::is_table(key) {
                ("expected a table".to_owned(), Some(format!("write [{key}] on a line of its own")))
            } else {
                ("no such key".to_owned(), keys::meant(key).map(|meant| format!("did you mean {meant}?")))
            };
            return Err(ConfigError::Wrong { place: format!("{place}: {key}"), cause, hint });
        };
        let said = Said { value: (), key, place };
        let Some(value) = taken(kind, value) else {
            let wrong = said.wrong(format!("expected {}", kind.expected()), None);
            if !self.lenient {
                return Err(wrong);
            }
            self.pass_over(key);
            return Ok(());
        };
        if let (Value::Labels(new), Some(Said { value: Value::Labels(old), .. })) = (&value, self.values.get_mut(key)) {
            old.extend(new.clone());
        } else {
            self.values.insert(key, said.with(value));
        }
        Ok(())
    }

    /// What was said, a line each: `key = value  # place`. Secrets are in files
    /// that are named here; a URL may still carry one.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |(key, said): (&&str, &Said<Value>)| {
            let value = match &said.value {
                Value::Text(text) => format!("{text:?}"),
                Value::Texts(texts) => format!("{texts:?}"),
                Value::Number(number) => number.to_string(),
                Value::Labels(labels) => format!("{labels:?}"),
                Value::Flag(flag) => flag.to_string(),
            };
            format!("{key} = {value}  # {}", said.place)
        };
        self.values.iter().map(line).collect()
    }

    pub(super) fn text(&self, key: &str) -> Option<Said<String>> {
        self.values.get(key).and_then(|said| match &said.value {
            Value::Text(text) => Some(said.with(text.clone())),
            _ => None,
        })
    }

    pub(super) fn texts(&self, key: &str) -> Option<Said<Vec<String>>> {
        self.values.get(key).and_then(|said| match &said.value {
            Value::Texts(texts) => Some(said.with(texts.clone())),
            _ => None,
        })
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.values.get(key).and_then(|said| match said.value {
            Value::Number(number) => Some(number),
            _ => None,
        })
    }

    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.values.get(key).and_then(|said| match said.value {
            Value::Flag(flag) => Some(flag),
            _ => None,
        })
    }

    pub(super) fn labels(&self, key: &str) -> Option<Said<BTreeMap<String, String>>> {
        self.values.get(key).and_then(|said| match &said.value {
            Value::Labels(labels) => Some(said.with(labels.clone())),
            _ => None,
        })
    }

    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(|said| said.path())
    }
}

/// The value, if it is of that kind.
fn taken(kind: Kind, value: &DeValue<'_>) -> Option<Value> {
    let text = |value: &DeValue<'_>| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    match (kind, value) {
        (Kind::Text | Kind::Path, value) => text(value).map(Value::Text),
        (Kind::Texts | Kind::Paths, DeValue::Array(items)) => {
            items.iter().map(|item| text(item.get_ref())).collect::<Option<_>>().map(Value::Texts)
        }
        (Kind::Number(least, most), DeValue::Integer(number)) => {
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            (least..=most).contains(&number).then_some(Value::Number(number))
        }
        (Kind::Flag, DeValue::Boolean(flag)) => Some(Value::Flag(*flag)),
        (Kind::Labels, DeValue::Table(table)) => {
            let pairs = table
                .iter()
                .map(|(name, value)| Some((name.get_ref().to_string(), value.get_ref().as_str()?.to_owned())));
            pairs.collect::<Option<_>>().map(Value::Labels)
        }
        _ => None,
    }
}
