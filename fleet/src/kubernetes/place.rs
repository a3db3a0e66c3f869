//! Where in its document a value stands: by the path that messages show, so
//! that a finding about `spec.replicas` points at that line.
//!
//! Only for documents that something is wrong with; no value is looked at.

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Parser, Span, StrInput};

use crate::yaml::Place;

/// The way to a value: `spec.containers[0].image`, `metadata.labels["a.b/c"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Path {
    text: String,
}

/// A longer path's beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(usize);

impl Path {
    /// Into a key; [`Path::back`] with the answer leads out again.
    pub(crate) fn key(&mut self, key: &str) -> Mark {
        let mark = Mark(self.text.len());
        let plain = !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-'));
        if !plain {
            self.text.push_str(&format!("[{key:?}]"));
            return mark;
        }
        if !self.text.is_empty() {
            self.text.push('.');
        }
        self.text.push_str(key);
        mark
    }

    /// Into an element of a list.
    pub(crate) fn item(&mut self, at: usize) -> Mark {
        let mark = Mark(self.text.len());
        self.text.push_str(&format!("[{at}]"));
        mark
    }

    /// Into an element that is known by its name.
    pub(crate) fn element(&mut self, name: &str) -> Mark {
        let mark = Mark(self.text.len());
        self.text.push_str(&format!("[{name}]"));
        mark
    }

    pub(crate) fn back(&mut self, mark: Mark) {
        self.text.truncate(mark.0);
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The places of one document. What comes by an alias or a merge is not among
/// them: the place around it is taken.
#[derive(Debug)]
pub(crate) struct Places {
    first: u32,
    known: HashMap<String, (Place, Place)>,
}

impl Places {
    /// The places of a document that starts at the line `first` of its file.
    /// What can't be read has none, and was refused before.
    pub(crate) fn of(document: &str, first: u32) -> Self {
        let options = granit_parser::options! { emit_comments: false };
        let mut walker = Walker {
            events: Parser::new_from_str_with_options(document, options),
            first,
            path: Path::default(),
            known: HashMap::new(),
        };
        while let Some((event, span)) = walker.next() {
            match event {
                Event::StreamStart | Event::DocumentStart(..) => {}
                event => {
                    let start = walker.place(&span);
                    walker.value(&event, start, start, 0);
                    break;
                }
            }
        }
        Self { first, known: walker.known }
    }

    /// The key of a value, or the element of a list.
    pub(crate) fn key(&self, path: &str) -> Place {
        self.nearest(path).map_or(Place { line: self.first, column: 1 }, |(key, _)| key)
    }

    /// The value itself.
    pub(crate) fn value(&self, path: &str) -> Place {
        self.nearest(path).map_or(Place { line: self.first, column: 1 }, |(_, value)| value)
    }

    fn nearest(&self, path: &str) -> Option<(Place, Place)> {
        let mut path = path;
        loop {
            if let Some(places) = self.known.get(path) {
                return Some(*places);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }
}

/// Deeper than this no document is read at all.
const MAX_DEPTH: usize = 128;

struct Walker<'a> {
    events: Parser<'a, StrInput<'a>>,
    first: u32,
    path: Path,
    known: HashMap<String, (Place, Place)>,
}

impl<'a> Walker<'a> {
    fn next(&mut self) -> Option<(Event<'a>, Span)> {
        self.events.next_event()?.ok()
    }

    fn place(&self, span: &Span) -> Place {
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place {
            line: narrow(span.start.line()).max(1).saturating_add(self.first - 1),
            column: narrow(span.start.col()).saturating_add(1),
        }
    }

    /// Notes a value and all within it; `None` where the document breaks off.
    fn value(&mut self, event: &Event<'a>, key: Place, start: Place, depth: usize) -> Option<()> {
        self.known.insert(self.path.as_str().to_owned(), (key, start));
        if depth > MAX_DEPTH {
            return None;
        }
        match event {
            Event::SequenceStart(..) => {
                for at in 0.. {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let start = self.place(&span);
                    let mark = self.path.item(at);
                    self.value(&event, start, start, depth + 1)?;
                    self.path.back(mark);
                }
            }
            Event::MappingStart(..) => loop {
                let (event, span) = self.next()?;
                let name = match &event {
                    Event::MappingEnd => break,
                    Event::Scalar(name, ..) => name.to_string(),
                    _ => return None,
                };
                let key = self.place(&span);
                let (event, span) = self.next()?;
                let start = self.place(&span);
                let mark = self.path.key(&name);
                self.value(&event, key, start, depth + 1)?;
                self.path.back(mark);
            },
            _ => {}
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Places};

    #[test]
    fn values_are_found_by_the_path_that_is_shown() {
        let text = "---\n# a\nkind: Pod\nspec:\n  list:\n  - name: x\n    a.b/c: [1, {d: e}]\n  more: &m {in: 1}\n  twin: *m\n";
        let places = Places::of(text, 10);
        let cases = [
            ("kind", (12, 1), (12, 7)),
            ("spec.list[0]", (15, 5), (15, 5)),
            ("spec.list[0].name", (15, 5), (15, 11)),
            ("spec.list[0][\"a.b/c\"][1].d", (16, 17), (16, 20)),
            ("spec.twin.in", (18, 3), (18, 9)),
            ("spec.nothing.there", (13, 1), (14, 3)),
            ("other", (12, 1), (12, 1)),
        ];
        for (path, key, value) in cases {
            let at = |place: crate::yaml::Place| (place.line, place.column);
            assert_eq!((at(places.key(path)), at(places.value(path))), (key, value), "{path}");
        }
    }

    #[test]
    fn a_path_is_written_as_one_reads_it() {
        let mut path = Path::default();
        path.key("metadata");
        path.key("labels");
        let mark = path.key("app.kubernetes.io/name");
        assert_eq!(path.to_string(), "metadata.labels[\"app.kubernetes.io/name\"]");
        path.back(mark);
        path.item(2);
        assert_eq!(path.as_str(), "metadata.labels[2]");
    }
}
