//! One value against what it may be.

use serde_json::{Map, Number, Value};

use super::{Fields, Schemas, Type};
use crate::kubernetes::place::Path;
use crate::yaml::{did_you_mean, one_of};

/// Something that is wrong, and where in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The path, as it is shown.
    pub(super) path: String,
    /// Whether the key is meant, rather than its value.
    pub(super) key: bool,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

/// After so many findings in one object the rest is counted.
const MAX_FOUND: usize = 20;

/// Looks through one object.
pub(super) struct Reader<'a> {
    schemas: &'a Schemas,
    path: Path,
    found: Vec<Wrong>,
    more: usize,
}

impl<'a> Reader<'a> {
    /// Everything that is wrong in an object.
    pub(super) fn read(schemas: &'a Schemas, object: &Value, wanted: &Type) -> Vec<Wrong> {
        let mut reader = Self { schemas, path: Path::default(), found: Vec::new(), more: 0 };
        reader.value(object, wanted);
        if reader.more > 0 {
            let message = format!("{} more of its fields are wrong", reader.more);
            reader.found.push(Wrong { path: String::new(), key: true, message, hint: None });
        }
        reader.found
    }

    /// `null` means "not set", wherever it stands.
    fn value(&mut self, value: &Value, wanted: &Type) {
        match (wanted, value) {
            (_, Value::Null)
            | (Type::Any, _)
            | (Type::Open, Value::Object(_))
            | (Type::Text | Type::IntOrText, Value::String(_))
            | (Type::Quantity | Type::Number, Value::Number(_))
            | (Type::Bool, Value::Bool(_)) => {}
            (Type::Named(name), _) => {
                if let Some(wanted) = self.schemas.named(name) {
                    self.value(value, wanted);
                }
            }
            (Type::Fields(fields), Value::Object(map)) => self.fields(map, fields),
            (Type::Map(inner), Value::Object(map)) => {
                for (key, value) in map {
                    let mark = self.path.key(key);
                    self.value(value, inner);
                    self.path.back(mark);
                }
            }
            (Type::List(inner), Value::Array(items)) => {
                for (at, value) in items.iter().enumerate() {
                    let mark = self.path.item(at);
                    self.value(value, inner);
                    self.path.back(mark);
                }
            }
            (Type::IntOrText, Value::Number(number)) => self.whole(number, 32),
            (Type::Whole(bits), Value::Number(number)) => self.whole(number, *bits),
            (Type::Quantity, Value::String(text)) => {
                self.form(is_quantity(text), "a quantity, for example 500m or 1Gi")
            }
            (Type::Bytes, Value::String(text)) => self.form(is_base64(text), "base64"),
            (Type::Time, Value::String(text)) => {
                self.form(text.parse::<jiff::Timestamp>().is_ok(), "a time, for example 2025-01-31T12:00:00Z");
            }
            (Type::OneOf(words), Value::String(word)) => {
                if !word.is_empty() && !words.contains(word) {
                    let message = format!("`{}` is `{word}`, expected {}", self.path, one_of(words));
                    self.say(false, message, did_you_mean(word, words));
                }
            }
            _ => {
                let message = format!("`{}` is {}, expected {}", self.path, kind(value), name(wanted));
                self.say(false, message, hint(value, wanted));
            }
        }
    }

    /// The keys of an object or of a part of one.
    fn fields(&mut self, map: &Map<String, Value>, fields: &Fields) {
        for (key, value) in map {
            let mark = self.path.key(key);
            match fields.known.get(key) {
                Some(field) => self.value(value, &field.value),
                None if fields.open => {}
                None => {
                    let known: Vec<&String> = fields.known.keys().collect();
                    self.say(true, format!("the field `{}` is unknown", self.path), did_you_mean(key, &known));
                }
            }
            self.path.back(mark);
        }
        for (key, _) in fields.known.iter().filter(|(_, field)| field.required) {
            if map.get(key).is_none_or(Value::is_null) {
                let mark = self.path.key(key);
                let message = format!("the field `{}` is missing", self.path);
                self.path.back(mark);
                self.say(true, message, None);
            }
        }
    }

    fn whole(&mut self, number: &Number, bits: u8) {
        let fits = number.as_i64().is_some_and(|number| bits == 64 || i32::try_from(number).is_ok());
        self.form(fits, if bits == 64 { "a whole number" } else { "a whole number of 32 bits" });
    }

    /// Values are not shown: they may be secrets.
    fn form(&mut self, fits: bool, wanted: &str) {
        if !fits {
            self.say(false, format!("`{}` has not the form that it needs, expected {wanted}", self.path), None);
        }
    }

    fn say(&mut self, key: bool, message: String, hint: Option<String>) {
        if self.found.len() < MAX_FOUND {
            self.found.push(Wrong { path: self.path.to_string(), key, message, hint });
        } else {
            self.more += 1;
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn name(wanted: &Type) -> &'static str {
    match wanted {
        Type::Text | Type::OneOf(_) => "text",
        Type::Bytes => "text (base64)",
        Type::Time => "text (a time)",
        Type::Quantity => "a quantity, for example 500m or 1Gi",
        Type::IntOrText => "a whole number or text",
        Type::Whole(_) => "a whole number",
        Type::Number => "a number",
        Type::Bool => "true or false",
        Type::List(_) => "a list",
        Type::Open | Type::Map(_) | Type::Fields(_) => "a mapping",
        Type::Any | Type::Named(_) => "another value",
    }
}

fn hint(value: &Value, wanted: &Type) -> Option<String> {
    let hint = match (wanted, value) {
        (Type::Text | Type::OneOf(_), Value::Number(_) | Value::Bool(_)) => "write it in quotes",
        (Type::Whole(_) | Type::Number, Value::String(text)) if text.parse::<f64>().is_ok() => {
            "write it without quotes"
        }
        (Type::Bool, Value::String(text)) if matches!(text.as_str(), "true" | "false") => "write it without quotes",
        (Type::List(_), Value::Object(_)) => "put `- ` before it: one element of a list",
        _ => return None,
    };
    Some(hint.to_owned())
}

/// As `resource.Quantity` reads it.
fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let exponent = |digits: &str| {
        let digits = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit())
    };
    number.bytes().any(|c| c.is_ascii_digit())
        && number.matches('.').count() <= 1
        && (matches!(
            suffix,
            "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
        ) || suffix.strip_prefix(['e', 'E']).is_some_and(exponent))
}

/// As Go's `encoding/json` reads bytes: line ends count for nothing.
fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    let bare: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    base64::engine::general_purpose::STANDARD.decode(bare).is_ok()
}

#[cfg(test)]
mod tests {
    use super::{is_base64, is_quantity};

    #[test]
    fn forms() {
        for good in ["1", "500m", "0.5", ".5", "1.", "1Gi", "1e3", "1E-2", "-1k", "128974848", "12E"] {
            assert!(is_quantity(good), "{good}");
        }
        for wrong in ["", "m", "1 Gi", "1GB", "1gi", "a", "1.2.3", "1e", "."] {
            assert!(!is_quantity(wrong), "{wrong}");
        }
        assert!(is_base64("aGkh\naGk=\n") && is_base64("") && !is_base64("hello!"));
    }
}
