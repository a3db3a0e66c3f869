//! Variables and their interpolation, exactly as Compose does it.
//!
//! `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?error}`, `${VAR?error}`, `${VAR:+other}`,
//! `${VAR+other}`, all of them nested, and `$$` for a dollar. One rule is stricter than Compose's: a variable that is
//! undefined and has no default is an error, never an empty text.
//!
//! Not here: which layer defines a variable (that is rendering), and which values of a file are interpolated.

use std::collections::BTreeMap;

/// Nested expressions deeper than this are refused.
const MAX_DEPTH: usize = 32;

/// A text that grows past this many bytes is refused.
const MAX_BYTES: usize = 4 << 20;

/// The variables that a text may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    defined: BTreeMap<String, String>,
    possible: BTreeMap<String, String>,
}

impl Scope {
    /// A scope of variables, by name.
    #[must_use]
    pub fn new(defined: BTreeMap<String, String>) -> Self {
        Self { defined, possible: BTreeMap::new() }
    }

    /// The value of a variable that is defined.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.defined.get(name).map(String::as_str)
    }

    /// The same scope with one variable defined, or defined anew.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.defined.insert(name.into(), value.into());
        self
    }

    /// The same scope on top of `lowest`: what is defined stays as it is.
    #[must_use]
    pub fn over(mut self, lowest: BTreeMap<String, String>) -> Self {
        for (name, value) in lowest {
            self.defined.entry(name).or_insert(value);
        }
        self
    }

    /// The same scope with variables that some layer *could* define, each with a sample value. A sample stands in only
    /// where the variable would be an error otherwise; a default goes before it. For `burgee check` alone.
    #[must_use]
    pub fn with_possible(mut self, possible: BTreeMap<String, String>) -> Self {
        self.possible.extend(possible);
        self
    }

    /// The names and values of everything defined, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.defined.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn sample(&self, name: &str) -> Option<&str> {
        self.possible.get(name).map(String::as_str)
    }
}

/// Why a text can't be interpolated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct VarError {
    /// Byte offset in the text, of the dollar sign.
    pub offset: usize,
    /// The variable's name; empty where what follows the dollar sign is none.
    pub name: String,
    /// What is wrong.
    pub message: String,
}

/// `text` with its variables put in.
///
/// # Errors
/// When a variable is undefined and has no default, a required one is missing, or an expression is malformed.
pub fn interpolate(text: &str, scope: &Scope) -> Result<String, VarError> {
    if !text.contains('$') {
        return Ok(text.to_owned());
    }
    let mut reader = Reader { text, at: 0, scope: Some(scope), names: Vec::new() };
    let mut out = String::with_capacity(text.len());
    reader.word(&mut out, true, 0)?;
    Ok(out)
}

/// The variables that `text` names, with the byte offset of each, defaults that are not taken included. What is
/// malformed ends the list: [`interpolate`] says what is wrong there.
#[must_use]
pub fn names(text: &str) -> Vec<(usize, String)> {
    let mut reader = Reader { text, at: 0, scope: None, names: Vec::new() };
    // A malformed rest is not this function's to report.
    drop(reader.word(&mut String::new(), false, 0));
    reader.names
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    scope: Option<&'a Scope>,
    names: Vec<(usize, String)>,
}

/// What stands between a braced variable's name and its closing brace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operator {
    Default,
    Required,
    Other,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Reads up to the end of the text (depth 0) or to the closing brace, which stays. What is not `live` is read for
    /// its form alone.
    fn word(&mut self, out: &mut String, live: bool, depth: usize) -> Result<(), VarError> {
        loop {
            let rest = self.rest();
            let stop = rest.find(|c| c == '$' || (c == '}' && depth > 0)).unwrap_or(rest.len());
            if live {
                out.push_str(&rest[..stop]);
            }
            self.at += stop;
            if out.len() > MAX_BYTES {
                return Err(error(self.at, "", format!("grows past {MAX_BYTES} bytes with its variables put in")));
            }
            if !rest[stop..].starts_with('$') {
                return Ok(());
            }
            self.expression(out, live, depth)?;
        }
    }

    /// Reads one expression; `at` is at its dollar sign.
    fn expression(&mut self, out: &mut String, live: bool, depth: usize) -> Result<(), VarError> {
        let start = self.at;
        let after = &self.rest()[1..];
        if after.starts_with('$') {
            self.at += 2;
            if live {
                out.push('$');
            }
            return Ok(());
        }
        let braced = after.starts_with('{');
        self.at += if braced { 2 } else { 1 };
        let name = name_at(self.rest());
        if name.is_empty() {
            let message = "'$' begins no variable: expected $NAME, ${NAME}, or $$ for a dollar sign".to_owned();
            return Err(error(start, "", message));
        }
        self.at += name.len();
        self.names.push((start, name.to_owned()));
        let value = self.scope.and_then(|scope| scope.get(name));
        if !braced {
            return self.put(out, live, start, name, value);
        }
        let rest = self.rest();
        let (not_empty, operator) = match rest.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let operator = match operator.chars().next() {
            Some('-') => Operator::Default,
            Some('?') => Operator::Required,
            Some('+') => Operator::Other,
            Some('}') if !not_empty => {
                self.at += 1;
                return self.put(out, live, start, name, value);
            }
            _ => return Err(malformed(start, name)),
        };
        if depth >= MAX_DEPTH {
            return Err(error(start, name, format!("variables are nested more than {MAX_DEPTH} deep")));
        }
        self.at += if not_empty { 2 } else { 1 };
        let set = value.filter(|value| !(not_empty && value.is_empty()));
        let sample = self.scope.and_then(|scope| scope.sample(name));
        let takes_word = match operator {
            Operator::Default => set.is_none(),
            Operator::Required => set.is_none() && sample.is_none(),
            Operator::Other => set.is_some(),
        };
        let mut word = String::new();
        self.word(&mut word, live && takes_word, depth + 1)?;
        if !self.rest().starts_with('}') {
            return Err(malformed(start, name));
        }
        self.at += 1;
        if !live {
            return Ok(());
        }
        match operator {
            Operator::Default => out.push_str(set.unwrap_or(&word)),
            Operator::Other => out.push_str(&word),
            Operator::Required => match set.or(sample) {
                Some(value) => out.push_str(value),
                None if word.is_empty() => {
                    return Err(error(start, name, format!("variable {name} is required and has no value")));
                }
                None => {
                    return Err(error(start, name, format!("variable {name} is required and has no value: {word}")));
                }
            },
        }
        Ok(())
    }

    fn put(&self, out: &mut String, live: bool, start: usize, name: &str, value: Option<&str>) -> Result<(), VarError> {
        if !live {
            return Ok(());
        }
        match value.or_else(|| self.scope.and_then(|scope| scope.sample(name))) {
            Some(value) => {
                out.push_str(value);
                Ok(())
            }
            None => Err(error(start, name, format!("variable {name} is not defined and has no default"))),
        }
    }
}

fn malformed(start: usize, name: &str) -> VarError {
    let message = format!(
        "the expression with variable {name} is malformed: expected ${{{name}}}, or one of :- - :? ? :+ + after the name, and a closing '}}'"
    );
    error(start, name, message)
}

fn error(offset: usize, name: &str, message: String) -> VarError {
    VarError { offset, name: name.to_owned(), message }
}

/// The name that `text` begins with; empty where it begins with none.
fn name_at(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let end = text.find(|c: char| !(c == '_' || c.is_ascii_alphanumeric())).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{ProptestConfig, any, proptest};

    use super::{Scope, interpolate, names};

    fn scope() -> Scope {
        let defined = [("A", "a"), ("EMPTY", ""), ("b_2", "B"), ("MONEY", "$A")];
        Scope::new(defined.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
            .with_possible(BTreeMap::from([("MAYBE".to_owned(), "sample".to_owned())]))
    }

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(interpolate(text, &scope()).as_deref(), Ok(want), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, offset: usize, name: &str, message: &str) {
        let error = interpolate(text, &scope()).unwrap_err();
        assert_eq!((error.offset, error.name.as_str(), error.message.as_str()), (offset, name, message), "{text}");
    }

    #[test]
    fn values() {
        check("", "");
        check("plain } text {", "plain } text {");
        check("$A ${A} $b_2", "a a B");
        check("$A.x ${A}A", "a.x aA");
        check("$$A $$ $${A}", "$A $ ${A}");
        check("ü$A€", "üa€");
        // A value is put in as it is; it is not read again.
        check("$MONEY", "$A");
        check("$EMPTY${EMPTY}", "");
    }

    #[test]
    fn operators() {
        check("${A:-x}${A-x}${EMPTY:-x}${EMPTY-x}${NONE:-x}${NONE-x}", "aaxxx");
        check("${A:?x}${A?x}${EMPTY?x}", "aa");
        check("${A:+x}${A+x}|${EMPTY:+x}${EMPTY+x}|${NONE:+x}${NONE+x}", "xx|x|");
        check("${NONE:-}${NONE-}", "");
        check("${NONE:-a:-b-c?d}", "a:-b-c?d");
        check("${NONE:-http://h:80/?q=1}", "http://h:80/?q=1");
        // Only `${` nests; the first brace closes, as in Compose.
        check("${NONE:-{x}}", "{x}");
    }

    #[test]
    fn nesting() {
        check("${NONE:-${ALSO:-${A}}}", "a");
        check("${NONE:-<$A>}", "<a>");
        check("${NONE:-$$x}", "$x");
        check("${A:+${b_2}}", "B");
        // What is not taken is not evaluated.
        check("${A:-${NONE}}", "a");
        check("${A:-${NONE:?why}}", "a");
        check("${NONE:+${ALSO}}", "");
    }

    #[test]
    fn possible_variables() {
        check("$MAYBE ${MAYBE} ${MAYBE:?x} ${MAYBE?x}", "sample sample sample sample");
        check("${MAYBE:-default} ${MAYBE+set}", "default ");
    }

    #[test]
    fn errors() {
        refused("é $NONE", 3, "NONE", "variable NONE is not defined and has no default");
        refused("${NONE}", 0, "NONE", "variable NONE is not defined and has no default");
        refused("${A:-x}${X:-${NONE}}", 12, "NONE", "variable NONE is not defined and has no default");
        refused("${NONE:?set it to $A}", 0, "NONE", "variable NONE is required and has no value: set it to a");
        refused("${NONE?}", 0, "NONE", "variable NONE is required and has no value");
        refused("${EMPTY:?no}", 0, "EMPTY", "variable EMPTY is required and has no value: no");
        for text in ["$", "$1", "$(x)", "${", "${}", "${ A}", "$}", "$ ", "${1}", "$é"] {
            refused(text, 0, "", "'$' begins no variable: expected $NAME, ${NAME}, or $$ for a dollar sign");
        }
        for text in ["${A", "${A }", "${A!}", "${A:}", "${A:x}", "${A:-", "${A:-${A}"] {
            let error = interpolate(text, &scope()).unwrap_err();
            assert!(error.message.contains("malformed"), "{text}: {error}");
        }
        let deep = format!("{}{}", "${N:-".repeat(100), "}".repeat(100));
        assert!(interpolate(&deep, &scope()).unwrap_err().message.contains("nested"));
        let large = Scope::default().with("L", "x".repeat(1 << 20));
        assert!(interpolate(&"$L ".repeat(10), &large).unwrap_err().message.contains("grows past"));
    }

    #[test]
    fn layers_and_names() {
        let scope = scope().over(BTreeMap::from([("A".into(), "low".into()), ("LOW".into(), "l".into())]));
        assert_eq!((scope.get("A"), scope.get("LOW"), scope.get("MAYBE")), (Some("a"), Some("l"), None));
        let found: Vec<_> = names("$A ${B:-$C} $$D ${E").into_iter().map(|(at, name)| format!("{at}{name}")).collect();
        assert_eq!(found, ["0A", "3B", "8C", "16E"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn never_panics(text in "([$a-z{}:?+-]|\\PC|\\$\\{A:?[-?+])*", value in any::<String>()) {
            let scope = scope().with("a", value);
            drop(interpolate(&text, &scope));
            drop(names(&text));
        }

        #[test]
        fn text_without_dollars_stays(text in "[^$]*") {
            assert_eq!(interpolate(&text, &scope()), Ok(text));
        }
    }
}
