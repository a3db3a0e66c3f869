//! `.env` and `env_file`: `NAME=value` lines by Compose's rules.
//!
//! `#` begins a comment at the start of a line or after a space; `export` is allowed; single quotes keep everything;
//! double quotes know `\n`, `\r`, `\t`, `\\`, `\"` and `\$`; quoted values may span lines; a name alone takes its value
//! from the variables. Unquoted and double-quoted values are interpolated: against the variables, then against the
//! lines above.

use std::collections::BTreeMap;

use crate::vars::{self, Scope};

/// Why a file of variables can't be read, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    /// From 1.
    pub(super) line: u32,
    /// In characters, from 1.
    pub(super) column: u32,
    pub(super) message: String,
}

/// How values are read (`env_file`'s `format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Compose,
    /// Every value is what stands behind the first `=`.
    Raw,
}

/// The variables of `text`, the last of a name winning.
pub(super) fn parse(text: &str, scope: &Scope, format: Format) -> Result<BTreeMap<String, String>, Malformed> {
    let mut reader = Reader { text, at: 0, scope, known: scope.clone(), format, found: BTreeMap::new() };
    // An editor may have put a byte order mark in front.
    if text.starts_with('\u{feff}') {
        reader.at = '\u{feff}'.len_utf8();
    }
    while reader.statement()? {}
    Ok(reader.found)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    scope: &'a Scope,
    /// The scope, and under it what was found.
    known: Scope,
    format: Format,
    found: BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn malformed(&self, at: usize, message: impl Into<String>) -> Malformed {
        let before = self.text.get(..at).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
        Malformed {
            line: number(before.matches('\n').count()),
            column: number(before[start..].chars().count()),
            message: message.into(),
        }
    }

    /// Reads one statement; false at the end.
    fn statement(&mut self) -> Result<bool, Malformed> {
        let rest = self.rest();
        let Some(start) = rest.find(|c: char| !c.is_whitespace()) else { return Ok(false) };
        self.at += start;
        let line_end = self.rest().find('\n').map_or(self.text.len(), |end| self.at + end);
        if self.rest().starts_with('#') {
            self.at = line_end;
            return Ok(true);
        }
        let line = self.text.get(self.at..line_end).unwrap_or_default();
        if self.format == Format::Compose
            && let Some(tail) = line.strip_prefix("export").filter(|tail| tail.starts_with([' ', '\t']))
        {
            self.at += line.len() - tail.trim_start().len();
        }
        let name_at = self.at;
        let line = self.text.get(self.at..line_end).unwrap_or_default();
        let separators: &[char] = if self.format == Format::Compose { &['=', ':'] } else { &['='] };
        let (name, value_at) = match line.find(separators) {
            Some(end) => (line[..end].trim(), Some(self.at + end + 1)),
            None => (line.trim(), None),
        };
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() {
            return Err(self.malformed(name_at, "a name is missing: expected NAME=value"));
        }
        if let Some(wrong) = name.chars().find(|c| !allowed(*c)) {
            return Err(self.malformed(name_at, format!("a name holds {wrong:?}: expected NAME=value")));
        }
        let Some(value_at) = value_at else {
            self.at = line_end;
            if let Some(value) = self.scope.get(name) {
                self.found.insert(name.to_owned(), value.to_owned());
            }
            return Ok(true);
        };
        self.at = value_at;
        let value = if self.format == Format::Raw {
            let value = self.text.get(value_at..line_end).unwrap_or_default();
            self.at = line_end;
            value.strip_suffix('\r').unwrap_or(value).to_owned()
        } else {
            self.value(line_end)?
        };
        if self.scope.get(name).is_none() {
            self.known = std::mem::take(&mut self.known).with(name, value.clone());
        }
        self.found.insert(name.to_owned(), value);
        Ok(true)
    }

    fn value(&mut self, line_end: usize) -> Result<String, Malformed> {
        let line = self.text.get(self.at..line_end).unwrap_or_default();
        self.at += line.len() - line.trim_start().len();
        match self.rest().chars().next().filter(|_| self.at < line_end) {
            Some(quote @ ('"' | '\'')) => self.quoted(quote),
            _ => {
                let line = self.text.get(self.at..line_end).unwrap_or_default();
                let start = self.at;
                self.at = line_end;
                if line.starts_with('#') {
                    return Ok(String::new());
                }
                let end = line.find(" #").or_else(|| line.find("\t#")).unwrap_or(line.len());
                self.interpolate(start, line[..end].trim_end())
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<String, Malformed> {
        let start = self.at;
        let mut value = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        loop {
            let Some((offset, c)) = chars.next() else {
                return Err(self.malformed(start, format!("a value is not closed: expected another {quote}")));
            };
            if c == quote {
                self.at += offset + 1;
                break;
            }
            if c == '\\' {
                match (quote, chars.next()) {
                    (_, None) => {}
                    ('\'', Some((_, '\''))) => value.push('\''),
                    ('"', Some((_, escaped))) => match escaped {
                        'n' => value.push('\n'),
                        'r' => value.push('\r'),
                        't' => value.push('\t'),
                        '\\' | '"' => value.push(escaped),
                        // Interpolation below makes it one dollar.
                        '$' => value.push_str("$$"),
                        other => value.extend(['\\', other]),
                    },
                    (_, Some((_, other))) => value.extend(['\\', other]),
                }
            } else {
                value.push(c);
            }
        }
        let line_end = self.rest().find('\n').map_or(self.text.len(), |end| self.at + end);
        let tail = self.text.get(self.at..line_end).unwrap_or_default().trim_start();
        if !tail.is_empty() && !tail.starts_with('#') {
            return Err(self.malformed(self.at, "text behind a quoted value: expected the end of the line"));
        }
        self.at = line_end;
        if quote == '"' { self.interpolate(start, &value) } else { Ok(value) }
    }

    fn interpolate(&self, at: usize, value: &str) -> Result<String, Malformed> {
        if !value.contains('$') {
            return Ok(value.to_owned());
        }
        // The offset is exact where nothing was escaped before it, which is nearly always.
        vars::interpolate(value, &self.known).map_err(|error| self.malformed(at + error.offset, error.message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{any, proptest};

    use super::{Format, parse};
    use crate::vars::Scope;

    fn scope() -> Scope {
        Scope::new(BTreeMap::from([("A".to_owned(), "outer".to_owned())]))
    }

    #[track_caller]
    fn check(text: &str, want: &[(&str, &str)]) {
        let want = want.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(text, &scope(), Format::Compose), Ok(want), "{text}");
    }

    #[test]
    fn values() {
        check("", &[]);
        check("# only\n\n  # comments", &[]);
        check("B=1\nC = two words \nexport D=3\r\nE=", &[("B", "1"), ("C", "two words"), ("D", "3"), ("E", "")]);
        check("\u{feff}B=1", &[("B", "1")]);
        check("B: 1\nC:2", &[("B", "1"), ("C", "2")]);
        check("B=a#b # comment\nC=#none", &[("B", "a#b"), ("C", "")]);
        check(
            "B='a $A # \\n'\nC=\"a\\tb\\\\ \\\"q\\\" $A \\$A\"",
            &[("B", "a $A # \\n"), ("C", "a\tb\\ \"q\" outer $A")],
        );
        check("B=\"one\ntwo\" # c\nC='it\\'s'", &[("B", "one\ntwo"), ("C", "it's")]);
        check("B=${A}x\nC=$B${NONE:-d}", &[("B", "outerx"), ("C", "outerxd")]);
        check("A\nNONE\nB=1\nB=2", &[("A", "outer"), ("B", "2")]);
        check("B=a=b", &[("B", "a=b")]);
    }

    #[test]
    fn raw() {
        let found = parse("B=\"$x\" # no\r\nC='", &scope(), Format::Raw).unwrap();
        assert_eq!(found["B"], "\"$x\" # no");
        assert_eq!(found["C"], "'");
    }

    #[test]
    fn errors() {
        let cases = [
            ("B=1\n=2", (2, 1), "a name is missing: expected NAME=value"),
            ("B=1\n  a b=2", (2, 3), "a name holds ' ': expected NAME=value"),
            ("B='open\nC=1", (1, 3), "a value is not closed: expected another '"),
            ("B='x' y", (1, 6), "text behind a quoted value: expected the end of the line"),
            ("\nB=pass$word", (2, 7), "variable word is not defined and has no default"),
        ];
        for (text, place, message) in cases {
            let error = parse(text, &scope(), Format::Compose).unwrap_err();
            assert_eq!(((error.line, error.column), error.message.as_str()), (place, message), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "([A-Z=:'\"\\\\#$ \n{}]|\\PC)*", raw in any::<bool>()) {
            drop(parse(&text, &scope(), if raw { Format::Raw } else { Format::Compose }));
        }
    }
}
