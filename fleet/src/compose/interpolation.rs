//! Variables put into the scalars of a tree, and the place of one that is missing.

use std::rc::Rc;

use crate::compose::node::{Findings, Node, Place, Scalar, Value};
use crate::vars::{self, VarError};

/// Puts variables into every scalar below `node`, which is `level` deep. What is `x-…` at the top, or in what is declared
/// there, is anybody's own; deeper, such a key is a name like any other.
pub(super) fn interpolate(node: &mut Node, level: usize, folder: &str, findings: &Findings) {
    let at = node.at.clone();
    match &mut node.value {
        Value::Null => {}
        Value::Scalar(scalar) if scalar.text.contains('$') => match vars::interpolate(&scalar.text, &at.source.scope) {
            Ok(text) => {
                scalar.text = text;
                scalar.plain = false;
            }
            Err(error) => {
                let place = within(&at, scalar, error.offset);
                match hint(&error, folder) {
                    Some(hint) => findings.hint(&place, error.message, hint),
                    None => findings.error(&place, error.message),
                }
                // One finding is enough: the value counts as absent.
                node.value = Value::Null;
            }
        },
        Value::Scalar(_) => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| interpolate(item, level + 1, folder, findings)),
        Value::Mapping(entries) => {
            for entry in entries.iter_mut().filter(|entry| !is_own(&entry.key, level)) {
                interpolate(&mut entry.node, level + 1, folder, findings);
            }
        }
    }
}

/// Whether a key of a mapping that is `level` deep is anybody's own.
pub(super) fn is_own(key: &str, level: usize) -> bool {
    matches!(level, 0 | 2) && key.starts_with("x-")
}

fn hint(error: &VarError, folder: &str) -> Option<String> {
    match error.name.as_str() {
        "" => None,
        "PWD" => Some("the app's folder is ./".to_owned()),
        "HOME" | "USER" | "UID" | "GID" => Some("an agent has no home and no login: write the value out".to_owned()),
        name => Some(format!(
            "define {name} under vars: in burgee.yaml, app.yaml, a group or a device, or in {folder}/.env"
        )),
    }
}

/// The place of a byte of a scalar's text: its dollar signs are counted, as escapes and folding move everything else.
fn within(at: &Place, scalar: &Scalar, offset: usize) -> Place {
    let raw = at.source.text.get(scalar.range.0..scalar.range.1).unwrap_or_default();
    let before = scalar.text.get(..offset).unwrap_or_default().matches('$').count();
    let same = raw.matches('$').count() == scalar.text.matches('$').count();
    let Some((found, _)) = raw.match_indices('$').nth(before).filter(|_| same) else { return at.clone() };
    let before = &raw[..found];
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let line = at.line.saturating_add(number(before.matches('\n').count()));
    let column = match before.rsplit_once('\n') {
        Some((_, last)) => number(last.chars().count()).saturating_add(1),
        None => at.column.saturating_add(number(before.chars().count())),
    };
    Place { source: Rc::clone(&at.source), line, column }
}
