//! The keys of one mapping, each taken once and given a type. What nobody took is refused by its name.
//!
//! A mistake in one value becomes a finding and the value counts as absent, so that one pass finds them all.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use crate::compose::node::{Entry, Findings, Node, Place, Value};
use crate::compose::values;

pub(super) struct Fields<'a> {
    /// The mapping's path in the file, for messages: `services.web`.
    pub(super) what: String,
    pub(super) findings: &'a Findings,
    entries: &'a [Entry],
    taken: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    /// The keys of `node`; null is an empty mapping, anything else but a mapping a finding.
    pub(super) fn of(what: impl Into<String>, node: &'a Node, findings: &'a Findings) -> Option<Self> {
        let what = what.into();
        match &node.value {
            Value::Mapping(_) | Value::Null => {
                Some(Self { what, findings, entries: node.entries(), taken: RefCell::default() })
            }
            _ => {
                findings.error(&node.at, format!("{what}: expected a mapping, found {}", node.kind()));
                None
            }
        }
    }

    /// Refuses every key that was not taken. `x-…` is anybody's own and says nothing to burgee.
    pub(super) fn finish(self) {
        let taken = self.taken.borrow();
        for entry in self.entries {
            if !taken.contains(entry.key.as_str()) && !entry.key.starts_with("x-") {
                self.findings
                    .error(&entry.at, format!("{}: the Compose specification has no such key", self.path(&entry.key)));
            }
        }
    }

    pub(super) fn path(&self, key: &str) -> String {
        if self.what.is_empty() { key.to_owned() } else { format!("{}.{key}", self.what) }
    }

    pub(super) fn error(&self, key: &str, at: &Place, message: &str) {
        self.findings.error(at, format!("{}: {message}", self.path(key)));
    }

    /// The entry of a key; null included.
    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        self.taken.borrow_mut().insert(&entry.key);
        Some(entry)
    }

    /// The value of a key, unless it is null.
    pub(super) fn node(&self, key: &str) -> Option<&'a Node> {
        self.entry(key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// Every entry that was not taken yet and is nobody's own: for mappings whose keys are free.
    pub(super) fn rest(&self) -> Vec<&'a Entry> {
        let mut taken = self.taken.borrow_mut();
        let rest: Vec<_> = self.entries.iter().filter(|entry| !taken.contains(entry.key.as_str())).collect();
        taken.extend(rest.iter().map(|entry| entry.key.as_str()));
        rest
    }

    /// A key that a device can't honour.
    pub(super) fn refuse(&self, key: &str, why: &str, hint: &str) {
        if let Some(entry) = self.entry(key) {
            self.findings.hint(&entry.at, format!("{}: {why}", self.path(key)), hint);
        }
    }

    /// A key that changes nothing on a device, and so does no harm.
    pub(super) fn ignore(&self, key: &str, why: &str) {
        if let Some(entry) = self.entry(key) {
            self.findings.note(&entry.at, format!("{} is ignored: {why}", self.path(key)));
        }
    }

    pub(super) fn map(&self, key: &str) -> Option<Fields<'a>> {
        self.node(key).and_then(|node| Fields::of(self.path(key), node, self.findings))
    }

    /// The items of a list.
    pub(super) fn list(&self, key: &str) -> &'a [Node] {
        match self.node(key) {
            None => &[],
            Some(node) => match &node.value {
                Value::Sequence(items) => items,
                _ => {
                    self.error(key, &node.at, &format!("expected a list, found {}", node.kind()));
                    &[]
                }
            },
        }
    }

    /// A value read by `parse`, whose errors are put at its place.
    pub(super) fn parse<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.node(key)?;
        self.typed(key, node, parse)
    }

    /// As [`Fields::parse`], for a node that stands below the key.
    pub(super) fn typed<T>(&self, key: &str, node: &Node, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let Some(scalar) = node.scalar() else {
            self.error(key, &node.at, &format!("expected a single value, found {}", node.kind()));
            return None;
        };
        parse(&scalar.text).map_err(|message| self.error(key, &node.at, &message)).ok()
    }

    /// A text; an empty one counts as absent, as in Compose.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.parse(key, |text| Ok(text.to_owned())).filter(|text| !text.is_empty())
    }

    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        self.parse(key, values::switch)
    }

    pub(super) fn integer<T: TryFrom<i128>>(&self, key: &str) -> Option<T> {
        self.parse(key, values::integer)
    }

    pub(super) fn millis(&self, key: &str) -> Option<u64> {
        self.parse(key, values::millis)
    }

    /// Permission bits. A plain number is octal only with a leading zero: Compose takes another one for decimal.
    pub(super) fn mode(&self, key: &str) -> Option<u32> {
        let plain = self.node(key).and_then(Node::scalar).is_some_and(|scalar| scalar.plain);
        self.parse(key, |text| {
            if plain && !text.starts_with('0') {
                return Err(format!(
                    "{text:?} would be decimal: expected octal digits with a leading zero, such as 0440"
                ));
            }
            values::mode(text)
        })
    }

    pub(super) fn bytes(&self, key: &str) -> Option<i64> {
        self.parse(key, values::bytes)
    }

    /// A list of texts; each kept once.
    pub(super) fn texts(&self, key: &str) -> Vec<String> {
        self.unique(key, self.list(key))
    }

    /// One text or a list of them; each kept once.
    pub(super) fn text_or_texts(&self, key: &str) -> Vec<String> {
        match self.node(key) {
            Some(node) if node.scalar().is_some() => self.unique(key, std::slice::from_ref(node)),
            _ => self.texts(key),
        }
    }

    fn unique(&self, key: &str, items: &[Node]) -> Vec<String> {
        let mut texts: Vec<String> = Vec::new();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for item in items {
            match self.typed(key, item, |text| Ok(text.to_owned())) {
                Some(text) if text.is_empty() => self.error(key, &item.at, "an item is empty"),
                Some(text) if item.scalar().is_some_and(|scalar| seen.insert(&scalar.text)) => texts.push(text),
                _ => {}
            }
        }
        texts
    }

    /// A mapping of texts, or a list of `KEY=VALUE`; null is a key without a value.
    pub(super) fn dict(&self, key: &str) -> BTreeMap<String, (Option<String>, &'a Node)> {
        let mut dict = BTreeMap::new();
        let Some(node) = self.node(key) else { return dict };
        match &node.value {
            Value::Mapping(entries) => {
                for entry in entries {
                    match &entry.node.value {
                        Value::Null => {
                            dict.insert(entry.key.clone(), (None, &entry.node));
                        }
                        Value::Scalar(_) => {
                            dict.insert(entry.key.clone(), (Some(shown(&entry.node)), &entry.node));
                        }
                        _ => {
                            let message =
                                format!("expected a single value for {:?}, found {}", entry.key, entry.node.kind());
                            self.error(key, &entry.node.at, &message);
                        }
                    }
                }
            }
            Value::Sequence(items) => {
                for item in items {
                    let Some(text) = self.typed(key, item, |text| Ok(text.to_owned())) else { continue };
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (text, None),
                    };
                    dict.insert(name, (value, item));
                }
            }
            _ => {
                let message = format!("expected a mapping or a list of KEY=VALUE, found {}", node.kind());
                self.error(key, &node.at, &message);
            }
        }
        dict.retain(|name, (_, node)| {
            let sound = !name.is_empty() && !name.contains('\0');
            if !sound {
                self.error(key, &node.at, "a key is empty");
            }
            sound
        });
        dict
    }

    /// As [`Fields::dict`], with an empty text for a key without a value.
    pub(super) fn texts_by_name(&self, key: &str) -> BTreeMap<String, String> {
        self.dict(key).into_iter().map(|(name, (value, _))| (name, value.unwrap_or_default())).collect()
    }
}

/// A scalar as Compose shows it where a number may stand.
pub(super) fn shown(node: &Node) -> String {
    match node.scalar() {
        Some(scalar) if scalar.plain => values::shown(&scalar.text),
        Some(scalar) => scalar.text.clone(),
        None => String::new(),
    }
}

/// A list of names, or a mapping from names; each with the place of its name and, in a mapping, its value.
pub(super) fn named<'a>(fields: &Fields<'a>, key: &str) -> Vec<(String, &'a Place, Option<&'a Node>)> {
    match fields.node(key).map(|node| &node.value) {
        Some(Value::Mapping(entries)) => {
            entries.iter().map(|entry| (entry.key.clone(), &entry.at, Some(&entry.node))).collect()
        }
        _ => {
            let items = fields.list(key).iter();
            items
                .filter_map(|item| {
                    fields.typed(key, item, |text| Ok(text.to_owned())).map(|name| (name, &item.at, None))
                })
                .collect()
        }
    }
}
