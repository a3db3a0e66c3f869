//! YAML 1.2 text to a tree of located nodes: anchors, aliases and `<<` resolved, duplicate keys refused, size and depth
//! bounded. Variables are not put in here, and no value is given a type.

use std::collections::HashMap;
use std::rc::Rc;

use granit_parser::{Event, Marker, Options, Parser, ScalarStyle, Span, StrInput};

use crate::compose::node::{Budget, Entry, MAX_COST, Node, Place, Scalar, Source, Tag, Value};
use crate::finding::{Finding, Severity};

/// Values nested deeper than this are refused.
const MAX_DEPTH: usize = 64;

/// Every document of `source`.
///
/// # Errors
/// What stopped the reading, with its place.
pub(super) fn parse(source: &Rc<Source>, budget: &Budget) -> Result<Vec<Node>, Finding> {
    let options: Options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let text = source.text.as_str();
    let mut reader =
        Reader { source, budget, events: Parser::new_from_str_with_options(text, options), anchors: HashMap::new() };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) | Event::DocumentEnd | Event::StreamStart => {}
            event => {
                reader.anchors.retain(|_, _| false);
                documents.push(reader.node(event, span, 0)?);
            }
        }
    }
    Ok(documents)
}

struct Reader<'a> {
    source: &'a Rc<Source>,
    budget: &'a Budget,
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
}

impl<'a> Reader<'a> {
    fn place(&self, mark: &Marker) -> Place {
        Place {
            source: Rc::clone(self.source),
            line: u32::try_from(mark.line()).unwrap_or(u32::MAX).max(1),
            column: u32::try_from(mark.col()).unwrap_or(u32::MAX).saturating_add(1),
        }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, Finding> {
        match self.events.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                let at = self.place(error.marker());
                Err(finding(&at, format!("not valid YAML: {}", error.info())))
            }
        }
    }

    fn some(&mut self, after: &Place) -> Result<(Event<'a>, Span), Finding> {
        self.next()?.ok_or_else(|| finding(after, "not valid YAML: it ends within a value".to_owned()))
    }

    fn spend(&self, at: &Place, cost: usize) -> Result<(), Finding> {
        if self.budget.spend(cost) {
            return Ok(());
        }
        let limit = MAX_COST >> 20;
        Err(finding(at, format!("too large: with aliases, merges and extends the files grow past {limit} MiB")))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Finding> {
        let at = self.place(&span.start);
        if depth > MAX_DEPTH {
            return Err(finding(&at, format!("values are nested more than {MAX_DEPTH} deep")));
        }
        let anchor = event.anchor_id().filter(|id| *id > 0);
        let (tag, core) = self.tag(&event, &at)?;
        let value = match event {
            Event::Scalar(text, style, ..) => {
                self.spend(&at, 64 + text.len())?;
                let plain = style == ScalarStyle::Plain && core.as_deref() != Some("str");
                if plain && is_null(&text) {
                    Value::Null
                } else {
                    let range = span.byte_range().map_or((0, 0), |range| (range.start, range.end));
                    Value::Scalar(Scalar { text: text.into_owned(), plain, range })
                }
            }
            Event::SequenceStart(..) => {
                self.spend(&at, 64)?;
                let mut items = Vec::new();
                loop {
                    match self.some(&at)? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
                Value::Sequence(items)
            }
            Event::MappingStart(..) => {
                self.spend(&at, 64)?;
                Value::Mapping(self.mapping(&at, depth)?)
            }
            Event::Alias(id) => {
                let target = self.anchors.get(&id);
                let Some(target) = target else {
                    return Err(finding(&at, "an alias within the value that it names".to_owned()));
                };
                let target = target.clone();
                self.spend(&at, target.cost())?;
                return Ok(target);
            }
            _ => return Err(finding(&at, "not valid YAML: expected a value".to_owned())),
        };
        let node = Node { at, tag, value };
        if let Some(id) = anchor {
            self.spend(&node.at, node.cost())?;
            self.anchors.insert(id, node.clone());
        }
        Ok(node)
    }

    fn mapping(&mut self, at: &Place, depth: usize) -> Result<Vec<Entry>, Finding> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merges: Vec<Node> = Vec::new();
        let mut seen: HashMap<String, Place> = HashMap::new();
        loop {
            let (event, span) = self.some(at)?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key_at = self.place(&span.start);
            let key = match self.node(event, span, depth + 1)?.value {
                Value::Scalar(scalar) => scalar.text,
                // A key that reads like null is still a text.
                Value::Null => span.slice(&self.source.text).unwrap_or_default().to_owned(),
                _ => return Err(finding(&key_at, "a key has to be a single value".to_owned())),
            };
            if let Some(first) = seen.insert(key.clone(), key_at.clone()) {
                return Err(finding(&key_at, format!("key {key:?} is given twice, first in line {}", first.line)));
            }
            let (event, span) = self.some(&key_at)?;
            let node = self.node(event, span, depth + 1)?;
            if merge {
                merges.push(node);
            } else {
                entries.push(Entry { key, at: key_at, node });
            }
        }
        for merge in merges {
            let at = merge.at.clone();
            let maps = match merge.value {
                Value::Mapping(_) => vec![merge],
                Value::Sequence(items) => items,
                _ => Vec::new(),
            };
            if maps.is_empty() || maps.iter().any(|map| !matches!(map.value, Value::Mapping(_))) {
                return Err(finding(&at, "<<: expected a mapping, or a list of mappings".to_owned()));
            }
            // What is written in the mapping itself, or in an earlier one of the list, stays.
            for map in maps {
                let Value::Mapping(merged) = map.value else { continue };
                for entry in merged {
                    if seen.insert(entry.key.clone(), entry.at.clone()).is_none() {
                        entries.push(entry);
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What a tag asks for, and the name of a tag of YAML's own schema.
    fn tag(&self, event: &Event<'a>, at: &Place) -> Result<(Tag, Option<String>), Finding> {
        let Some(tag) = event.tag() else { return Ok((Tag::None, None)) };
        if let Some(core) = tag.core_suffix() {
            return match core {
                "str" | "int" | "float" | "bool" | "null" | "map" | "seq" | "merge" => {
                    Ok((Tag::None, Some(core.to_owned())))
                }
                _ => Err(finding(at, format!("tag !!{core} is not known here"))),
            };
        }
        match (tag.handle(), tag.suffix()) {
            ("!", "reset") => Ok((Tag::Reset, None)),
            ("!", "override") => Ok((Tag::Override, None)),
            ("" | "!", "" | "!") => Ok((Tag::None, Some("str".to_owned()))),
            _ => Err(finding(at, format!("tag {} is not known here: expected !reset or !override", tag.original()))),
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn finding(at: &Place, message: String) -> Finding {
    Finding {
        path: at.source.path.clone(),
        line: at.line,
        column: at.column,
        severity: Severity::Error,
        message,
        hint: None,
    }
}
