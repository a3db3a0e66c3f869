//! How a later file goes over an earlier one, and a service over the one that it extends.
//!
//! Mappings are merged by key, lists appended, single values replaced, with the exceptions of the Compose
//! specification: commands are replaced, what can be a list or a mapping is merged by name, and an item of a list that
//! says something about the same target replaces the earlier one. `!reset` removes, `!override` replaces.

use std::collections::HashMap;

use crate::compose::interpolation::is_own;
use crate::compose::mounts;
use crate::compose::node::{Entry, Findings, Node, Tag, Value};
use crate::compose::ports;

/// How two values at one path become one.
#[derive(Clone, Copy)]
enum Rule {
    /// By what the values are.
    Plain,
    /// The later one.
    Replace,
    /// `KEY=VALUE` items or a mapping, by key.
    Dict,
    /// Names or a mapping, by name.
    Names,
    /// One text or a list, appended.
    Texts,
    /// Lists, by what an item says.
    Keyed(fn(&Node) -> String),
    /// Replaced, unless both name the same driver.
    Logging,
}

/// The rule for a path below the root; `*` stands for a free name.
fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, rest @ ..] => match rest {
            ["command" | "entrypoint" | "build"] | ["healthcheck", "test"] => Rule::Replace,
            ["environment" | "annotations" | "labels" | "sysctls"] | ["deploy", "labels"] => Rule::Dict,
            ["depends_on" | "networks" | "models"] => Rule::Names,
            ["dns" | "dns_search" | "label_file"] => Rule::Texts,
            ["tmpfs"] => Rule::Keyed(|node| before_colon(&text(node))),
            ["env_file"] => Rule::Keyed(|node| field_or_text(node, "path")),
            ["extra_hosts"] => Rule::Keyed(text),
            ["ports"] => Rule::Keyed(ports::identity),
            ["volumes"] => Rule::Keyed(mounts::target),
            ["configs"] => Rule::Keyed(|node| mounts::file_target(node, "/")),
            ["secrets"] => Rule::Keyed(|node| mounts::file_target(node, "/run/secrets/")),
            ["devices"] => Rule::Keyed(device_target),
            ["blkio_config", _] => Rule::Keyed(|node| field_or_text(node, "path")),
            ["logging"] => Rule::Logging,
            _ => Rule::Plain,
        },
        ["networks" | "volumes" | "configs" | "secrets", _, "labels"] => Rule::Dict,
        ["networks", _, "ipam", "config"] => Rule::Keyed(|node| field_or_text(node, "subnet")),
        _ => Rule::Plain,
    }
}

/// `over` on top of `base`, both at `path`; none where `over` is a reset.
pub(super) fn merge(base: Node, over: Node, path: &[&str], findings: &Findings) -> Option<Node> {
    match over.tag {
        Tag::Reset => return None,
        Tag::Override => return Some(Node { tag: Tag::None, ..over }),
        Tag::None => {}
    }
    // Null says nothing: only a tag removes.
    if over.is_null() {
        return Some(base);
    }
    if base.is_null() {
        return Some(over);
    }
    let rule = rule(path);
    let (base, over) = match rule {
        Rule::Replace => return Some(over),
        Rule::Dict => (by_name(base, true), by_name(over, true)),
        Rule::Names => (by_name(base, false), by_name(over, false)),
        Rule::Texts => (listed(base), listed(over)),
        Rule::Keyed(_) if path.last() == Some(&"extra_hosts") => (hosts(base), hosts(over)),
        Rule::Keyed(_) => (listed(base), listed(over)),
        Rule::Logging if differ(&base, &over, "driver") => return Some(over),
        Rule::Logging | Rule::Plain => (base, over),
    };
    let (at, tag) = (over.at.clone(), base.tag);
    let value = match (base.value, over.value) {
        (Value::Mapping(base), Value::Mapping(over)) => {
            Value::Mapping(mappings(base, over, path, matches!(rule, Rule::Dict), findings))
        }
        (Value::Sequence(base), Value::Sequence(over)) => {
            let key = if let Rule::Keyed(key) = rule { key } else { text };
            Value::Sequence(sequences(base, over, key, path, findings))
        }
        (_, over @ Value::Scalar(_)) | (Value::Scalar(_), over) => over,
        (base, over) => {
            let base = Node::new(&at, base);
            let over = Node::new(&at, over);
            let message = format!("{}: {} can't be merged over {}", path.join("."), over.kind(), base.kind());
            findings.hint(&at, message, "put !override before it to replace what is there");
            return Some(base);
        }
    };
    Some(Node { at, tag, value })
}

fn mappings(base: Vec<Entry>, over: Vec<Entry>, path: &[&str], dict: bool, findings: &Findings) -> Vec<Entry> {
    let mut places: HashMap<String, usize> =
        base.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    let mut merged: Vec<Option<Entry>> = base.into_iter().map(Some).collect();
    for entry in over {
        let at = places.get(&entry.key).copied();
        let Some((at, old)) = at.and_then(|at| merged[at].take().map(|old| (at, old))) else {
            if entry.node.tag != Tag::Reset {
                places.insert(entry.key.clone(), merged.len());
                merged.push(Some(entry));
            }
            continue;
        };
        let mut below = path.to_vec();
        below.push(&entry.key);
        // In a mapping of variables, a name without a value is an answer of its own. What is x-… is replaced.
        let node = if (dict && entry.node.tag == Tag::None) || is_own(&entry.key, path.len()) {
            Some(entry.node)
        } else {
            merge(old.node, entry.node, &below, findings)
        };
        merged[at] = node.map(|node| Entry { key: old.key, at: entry.at, node });
    }
    merged.into_iter().flatten().collect()
}

fn sequences(
    mut base: Vec<Node>,
    over: Vec<Node>,
    key: fn(&Node) -> String,
    path: &[&str],
    findings: &Findings,
) -> Vec<Node> {
    // Only against the earlier file: two items of one file that clash are a mistake to be seen.
    let places: HashMap<String, usize> = base.iter().enumerate().map(|(at, item)| (key(item), at)).collect();
    for item in over {
        let item_key = key(&item);
        match places.get(&item_key).copied().filter(|_| !item_key.is_empty()) {
            Some(at) if matches!(path, ["networks", _, "ipam", "config"]) => {
                let old = base[at].clone();
                base[at] = merge(old, item, &[], findings).unwrap_or_else(|| Node::text(&base[at].at, ""));
            }
            Some(at) => base[at] = item,
            None => base.push(item),
        }
    }
    base
}

/// A list of names or of `KEY=VALUE` as the mapping that it stands for.
fn by_name(node: Node, split: bool) -> Node {
    let Value::Sequence(items) = node.value else { return node };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Some(scalar) = item.scalar() else {
            // Left as it is: reading it says what is wrong.
            entries.push(Entry { key: String::new(), at: item.at.clone(), node: item });
            continue;
        };
        let (key, value) = match scalar.text.split_once('=').filter(|_| split) {
            Some((key, value)) => (key.to_owned(), Node::text(&item.at, value)),
            None => (scalar.text.clone(), Node::new(&item.at, Value::Null)),
        };
        entries.push(Entry { key, at: item.at.clone(), node: value });
    }
    // Of two that say something about one name, the later stands.
    let last: HashMap<String, usize> = entries.iter().enumerate().map(|(at, entry)| (entry.key.clone(), at)).collect();
    let entries = entries.into_iter().enumerate();
    let entries = entries.filter(|(at, entry)| last.get(&entry.key) == Some(at)).map(|(_, entry)| entry).collect();
    Node { at: node.at, tag: node.tag, value: Value::Mapping(entries) }
}

/// One value as the list of it.
fn listed(node: Node) -> Node {
    if node.scalar().is_none() {
        return node;
    }
    let (at, tag) = (node.at.clone(), node.tag);
    Node { at, tag, value: Value::Sequence(vec![Node { tag: Tag::None, ..node }]) }
}

/// A mapping of hosts as the list of `host=address`.
fn hosts(node: Node) -> Node {
    let Value::Mapping(entries) = node.value else { return listed(node) };
    let mut items = Vec::new();
    for entry in entries {
        let addresses = match entry.node.value {
            Value::Sequence(addresses) => addresses,
            _ => vec![entry.node],
        };
        for address in addresses {
            items.push(Node::text(&address.at, format!("{}={}", entry.key, text(&address))));
        }
    }
    Node { at: node.at, tag: node.tag, value: Value::Sequence(items) }
}

fn differ(base: &Node, over: &Node, key: &str) -> bool {
    match (base.get(key), over.get(key)) {
        (Some(base), Some(over)) => !base.same(over),
        _ => false,
    }
}

fn text(node: &Node) -> String {
    node.scalar().map(|scalar| scalar.text.clone()).unwrap_or_default()
}

fn field_or_text(node: &Node, key: &str) -> String {
    node.get(key).map_or_else(|| text(node), text)
}

fn before_colon(text: &str) -> String {
    text.split(':').next().unwrap_or_default().to_owned()
}

fn device_target(node: &Node) -> String {
    if let Some(target) = node.get("target") {
        return text(target);
    }
    let short = field_or_text(node, "source");
    let mut parts = short.split(':');
    let source = parts.next().unwrap_or_default();
    parts.next().unwrap_or(source).to_owned()
}

/// Takes the tags out of what nothing was merged into: there is nothing to reset or to override.
pub(super) fn settle(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.value {
        Value::Sequence(items) => {
            items.retain(|item| item.tag != Tag::Reset);
            items.iter_mut().for_each(settle);
        }
        Value::Mapping(entries) => {
            entries.retain(|entry| entry.node.tag != Tag::Reset);
            entries.iter_mut().for_each(|entry| settle(&mut entry.node));
        }
        _ => {}
    }
}
