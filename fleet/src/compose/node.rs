//! A tree of YAML values, each with the place that it was written at, and the list of what is wrong with them.
//!
//! A node keeps its place through aliases, merges, `extends` and `include`, so that a message always points at the
//! line that has to change. Not here: how text becomes a tree (`yaml`), and what the values mean.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::finding::{Finding, Severity};
use crate::vars::Scope;

/// One file that was read, with what its values are read against.
#[derive(Debug)]
pub(super) struct Source {
    /// Path from the repository's root.
    pub(super) path: String,
    /// The folder that its relative paths start from, from the repository's root.
    pub(super) dir: String,
    /// Its text.
    pub(super) text: String,
    /// The variables that it may name.
    pub(super) scope: Rc<Scope>,
}

/// Where something is written.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) source: Rc<Source>,
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
}

/// What an override file does to the value below it (`!reset`, `!override`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tag {
    None,
    Reset,
    Override,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) tag: Tag,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Scalar {
    pub(super) text: String,
    /// Written without quotes and free of variables: a number may be meant.
    pub(super) plain: bool,
    /// Its bytes in the source.
    pub(super) range: (usize, usize),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) node: Node,
}

impl Node {
    /// A quoted text at the place of something else: what a short form stands for.
    pub(super) fn text(at: &Place, text: impl Into<String>) -> Self {
        let value = Value::Scalar(Scalar { text: text.into(), plain: false, range: (0, 0) });
        Self { at: at.clone(), tag: Tag::None, value }
    }

    pub(super) fn new(at: &Place, value: Value) -> Self {
        Self { at: at.clone(), tag: Tag::None, value }
    }

    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.value, Value::Null)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of a mapping, unless it is null.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|entry| entry.key == key).map(|entry| &entry.node).filter(|node| !node.is_null())
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    /// What it costs to copy it: bytes of text and a fixed part for each node.
    pub(super) fn cost(&self) -> usize {
        const EACH: usize = 64;
        EACH + match &self.value {
            Value::Null => 0,
            Value::Scalar(scalar) => scalar.text.len(),
            Value::Sequence(items) => items.iter().map(Self::cost).sum(),
            Value::Mapping(entries) => entries.iter().map(|entry| entry.key.len() + entry.node.cost()).sum(),
        }
    }

    /// Whether two say the same, wherever they stand.
    pub(super) fn same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
            (Value::Sequence(a), Value::Sequence(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.same(b)),
            (Value::Mapping(a), Value::Mapping(b)) => {
                a.len() == b.len() && a.iter().all(|a| b.iter().any(|b| a.key == b.key && a.node.same(&b.node)))
            }
            _ => false,
        }
    }
}

/// What one `read` may cost, so that a few lines can't become gigabytes.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<usize>,
    files: Cell<usize>,
}

/// Bytes of text, and 64 for each node, after aliases, merges and `extends`.
pub(super) const MAX_COST: usize = 8 << 20;
/// Compose files of one app.
pub(super) const MAX_FILES: usize = 100;

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: Cell::new(MAX_COST), files: Cell::new(MAX_FILES) }
    }

    /// Takes `cost`; false when it is used up.
    pub(super) fn spend(&self, cost: usize) -> bool {
        let left = self.left.get().checked_sub(cost);
        self.left.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Whether nothing is left: whoever goes on would only copy for nothing.
    pub(super) fn exhausted(&self) -> bool {
        self.left.get() == 0
    }

    /// Counts one more file; false when there are too many.
    pub(super) fn file(&self) -> bool {
        let left = self.files.get().checked_sub(1);
        self.files.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: RefCell<Vec<Finding>>,
}

impl Findings {
    pub(super) fn error(&self, at: &Place, message: impl Into<String>) {
        self.push(at, Severity::Error, message.into(), None);
    }

    pub(super) fn hint(&self, at: &Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(at, Severity::Error, message.into(), Some(hint.into()));
    }

    pub(super) fn note(&self, at: &Place, message: impl Into<String>) {
        self.push(at, Severity::Warning, message.into(), None);
    }

    fn push(&self, at: &Place, severity: Severity, message: String, hint: Option<String>) {
        self.add(Finding { path: at.source.path.clone(), line: at.line, column: at.column, severity, message, hint });
    }

    pub(super) fn add(&self, finding: Finding) {
        self.list.borrow_mut().push(finding);
    }

    pub(super) fn failed(&self) -> bool {
        self.list.borrow().iter().any(|finding| finding.severity == Severity::Error)
    }

    /// Errors and notes, in order of place, each once: an alias may repeat a mistake many times.
    pub(super) fn split(self) -> (Vec<Finding>, Vec<Finding>) {
        let mut list = self.list.into_inner();
        list.sort();
        list.dedup();
        list.into_iter().partition(|finding| finding.severity == Severity::Error)
    }
}
