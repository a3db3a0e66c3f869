//! `allowed_signers`: who may sign, in Git's own format
//! (`ssh-keygen(1)`, ALLOWED SIGNERS), and `revoked_keys`.
//!
//! A line that burgee can't honour to the letter counts for nothing, and is a
//! finding. Principals are shown to people and never judged by: the key is
//! what was verified.

use std::collections::BTreeSet;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::finding::{Finding, Severity};

use super::key::PublicKey;
use super::refusal::{At, Refusal};

/// The keys that may sign, as `allowed_signers` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    lines: Vec<Line>,
}

/// One line that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    principal: String,
    grant: Grant,
}

/// A key and under what conditions it may sign; without principals, so that
/// two files can be compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    pub key: PublicKey,
    /// `namespaces=`: patterns; `None`: any namespace.
    pub namespaces: Option<Vec<String>>,
    /// Seconds since 1970, inclusive.
    pub valid_after: Option<i64>,
    /// Seconds since 1970, inclusive.
    pub valid_before: Option<i64>,
}

impl Grant {
    fn for_git(&self) -> bool {
        self.namespaces.as_ref().is_none_or(|patterns| matches_list("git", patterns))
    }

    fn holds(&self, time: i64) -> bool {
        self.valid_after.is_none_or(|after| time >= after) && self.valid_before.is_none_or(|before| time <= before)
    }
}

/// Who a key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The first principal of the line that holds.
    pub principal: String,
    /// `SHA256:…`
    pub fingerprint: String,
}

impl Signers {
    /// Reads an `allowed_signers` file; `path` is for the findings.
    #[must_use]
    pub fn parse(path: &str, bytes: &[u8]) -> (Self, Vec<Finding>) {
        let mut signers = Self::default();
        let mut findings = Vec::new();
        for (number, line) in (1..).zip(bytes.split(|&c| c == b'\n')) {
            let mut note = |(severity, column, message): Note, hint: Option<&str>| {
                findings.push(Finding {
                    path: path.to_owned(),
                    line: number,
                    column: u32::try_from(column + 1).unwrap_or(1),
                    severity,
                    message,
                    hint: hint.map(str::to_owned),
                });
            };
            let dead = "a line that can't be honoured whole counts for nothing";
            let Ok(text) = std::str::from_utf8(line) else {
                note((Severity::Error, 0, "the line counts for nothing: it is not UTF-8".to_owned()), Some(dead));
                continue;
            };
            match parse_line(text) {
                Ok(None) => {}
                Ok(Some((line, notes))) => {
                    signers.lines.push(line);
                    notes.into_iter().for_each(|text| note(text, Some("write the time with a Z: it is read as UTC")));
                }
                Err((column, cause)) => {
                    note((Severity::Error, column, format!("the line counts for nothing: {cause}")), Some(dead));
                }
            }
        }
        (signers, findings)
    }

    /// Whether no line counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Keys and options, so that two files compare by what they say.
    #[must_use]
    pub fn grants(&self) -> BTreeSet<&Grant> {
        self.lines.iter().map(|line| &line.grant).collect()
    }

    /// Fingerprints of all keys, in order.
    #[must_use]
    pub fn fingerprints(&self) -> BTreeSet<String> {
        self.lines.iter().map(|line| line.grant.key.fingerprint()).collect()
    }

    /// The key's owner, by any line that allows it for Git and, where `time`
    /// says so, holds then.
    ///
    /// # Errors
    /// [`Refusal::UnknownKey`], [`Refusal::KeyNotForGit`],
    /// [`Refusal::KeyExpired`] or [`Refusal::KeyNotYetValid`].
    pub fn signer(&self, key: &PublicKey, time: Option<(At, i64)>) -> Result<Signer, Refusal> {
        let fingerprint = key.fingerprint();
        let known: Vec<_> = self.lines.iter().filter(|line| line.grant.key == *key).collect();
        if known.is_empty() {
            return Err(Refusal::UnknownKey { fingerprint });
        }
        let mut for_git = known.into_iter().filter(|line| line.grant.for_git()).peekable();
        let Some(first) = for_git.peek().copied() else {
            return Err(Refusal::KeyNotForGit { fingerprint });
        };
        let Some((at, time)) = time else {
            return Ok(Signer { principal: first.principal.clone(), fingerprint });
        };
        match for_git.find(|line| line.grant.holds(time)) {
            Some(line) => Ok(Signer { principal: line.principal.clone(), fingerprint }),
            None if first.grant.valid_after.is_some_and(|after| time < after) => {
                Err(Refusal::KeyNotYetValid { fingerprint, at })
            }
            None => Err(Refusal::KeyExpired { fingerprint, at }),
        }
    }
}

type Note = (Severity, usize, String);
type Dead = (usize, String);

/// One line: nothing, or what it says and what is to be said about it.
fn parse_line(text: &str) -> Result<Option<(Line, Vec<Note>)>, Dead> {
    let is_space = |c: char| matches!(c, ' ' | '\t');
    let line = text.trim_end_matches([' ', '\t', '\r']);
    let rest = line.trim_start_matches(is_space);
    if rest.is_empty() || rest.starts_with('#') {
        return Ok(None);
    }
    let column = |rest: &str| line.len() - rest.len();

    let (principals, rest) = principals(rest).map_err(|cause| (column(rest), cause.to_owned()))?;
    let principal = principals.split(',').find(|name| !name.is_empty());
    let principal = principal.ok_or_else(|| (0, "it names no principal".to_owned()))?.to_owned();

    let mut rest = rest.trim_start_matches(is_space);
    let mut options = Options::default();
    if !is_key_type(rest.split(is_space).next().unwrap_or_default()) {
        let end = options_end(rest).ok_or_else(|| (column(rest), "a quote is not closed".to_owned()))?;
        let start = column(rest);
        options = parse_options(&rest[..end]).map_err(|(at, cause)| (start + at, cause))?;
        options.notes.iter_mut().for_each(|note| note.1 += start);
        rest = rest[end..].trim_start_matches(is_space);
    }

    let mut words = rest.split(is_space).filter(|word| !word.is_empty());
    let (kind, key) = (words.next().unwrap_or_default(), words.next());
    if kind.is_empty() {
        return Err((column(rest), "it has no key".to_owned()));
    }
    if kind != super::key::ED25519 {
        let cause = if is_key_type(kind) {
            format!("a key of type {kind}, only ssh-ed25519 is accepted")
        } else {
            format!("expected ssh-ed25519, found {kind:?}")
        };
        return Err((column(rest), cause));
    }
    let key = key.ok_or_else(|| (column(rest), "it has no key".to_owned()))?;
    let key = PublicKey::from_base64(key).map_err(|error| (column(rest), format!("its key can't be used: {error}")))?;
    let grant = Grant {
        key,
        namespaces: options.namespaces,
        valid_after: options.valid_after,
        valid_before: options.valid_before,
    };
    Ok(Some((Line { principal, grant }, options.notes)))
}

/// The principals field, unquoted, and what follows it.
fn principals(text: &str) -> Result<(&str, &str), &'static str> {
    if let Some(quoted) = text.strip_prefix('"') {
        let (inside, rest) = quoted.split_once('"').ok_or("a quote is not closed")?;
        return if rest.starts_with([' ', '\t']) { Ok((inside, rest)) } else { Err("it has no key") };
    }
    let (field, rest) = text.split_at(text.find([' ', '\t']).ok_or("it has no key")?);
    if field.contains('"') { Err("a quote stands inside its principals") } else { Ok((field, rest)) }
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "webauthn-", "rsa-"].iter().any(|prefix| word.starts_with(prefix))
}

/// Where the options end: at the first blank outside quotes.
fn options_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            ' ' | '\t' if !quoted => return Some(at),
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = c == '\\';
    }
    (!quoted).then_some(text.len())
}

#[derive(Default)]
struct Options {
    namespaces: Option<Vec<String>>,
    valid_after: Option<i64>,
    valid_before: Option<i64>,
    notes: Vec<Note>,
}

fn parse_options(text: &str) -> Result<Options, Dead> {
    let mut options = Options::default();
    let mut rest = text;
    loop {
        let at = text.len() - rest.len();
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        rest = &rest[end..];
        let mut value = || -> Result<String, Dead> {
            let quoted = rest.strip_prefix("=\"").ok_or_else(|| (at, format!("{name}= wants a quoted value")))?;
            let (value, after) = unquote(quoted).ok_or_else(|| (at, format!("the quote of {name}= is not closed")))?;
            rest = after;
            Ok(value)
        };
        let twice = || (at, format!("{name}= stands twice"));
        match name.as_str() {
            "namespaces" => {
                let patterns = value()?.split(',').map(str::to_owned).collect();
                if options.namespaces.replace(patterns).is_some() {
                    return Err(twice());
                }
            }
            "valid-after" | "valid-before" => {
                let value = value()?;
                let (time, utc) = parse_time(&value).ok_or_else(|| {
                    (at, format!("{name}={value:?} is no time: expected YYYYMMDD[Z] or YYYYMMDDHHMM[SS][Z]"))
                })?;
                if !utc {
                    let message = format!("{name}={value:?} has no Z: read as UTC, while Git reads it as local time");
                    options.notes.push((Severity::Warning, at, message));
                }
                let field = if name == "valid-after" { &mut options.valid_after } else { &mut options.valid_before };
                if field.replace(time).is_some() {
                    return Err(twice());
                }
            }
            "cert-authority" => return Err((at, "cert-authority: certificates are not accepted".to_owned())),
            _ => return Err((at, format!("the option {name:?} is unknown"))),
        }
        match rest.strip_prefix(',') {
            Some(next) if !next.is_empty() => rest = next,
            None if rest.is_empty() => break,
            _ => return Err((text.len() - rest.len(), "expected ',' and another option, or a blank".to_owned())),
        }
    }
    if let (Some(after), Some(before)) = (options.valid_after, options.valid_before)
        && before <= after
    {
        return Err((0, "valid-before= is not after valid-after=".to_owned()));
    }
    Ok(options)
}

/// Up to the closing quote, `\"` undone, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' if chars.next_if(|next| next.1 == '"').is_some() => value.push('"'),
            other => value.push(other),
        }
    }
    None
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, with or without `Z` or
/// `UTC`; in seconds, and whether it said that it is UTC.
fn parse_time(text: &str) -> Option<(i64, bool)> {
    let upper = text.to_ascii_uppercase();
    let bare = upper.strip_suffix("UTC").or_else(|| upper.strip_suffix('Z'));
    let digits = bare.unwrap_or(&upper);
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| digits.get(at..at + 2).map_or(Some(0), |two| two.parse::<i8>().ok());
    let year = digits[..4].parse::<i16>().ok()?;
    let time = DateTime::new(year, two(4)?, two(6)?, two(8)?, two(10)?, two(12)?, 0).ok()?;
    let seconds = time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    // ssh-keygen takes 0 for "not given"; a line that says it would then say nothing.
    (seconds > 0).then_some((seconds, bare.is_some()))
}

/// OpenSSH's `match_pattern_list`: a negated match wins.
fn matches_list(text: &str, patterns: &[String]) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if matches_pattern(text.as_bytes(), pattern.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= matches_pattern(text.as_bytes(), pattern.as_bytes()),
        }
    }
    matched
}

/// `*` and `?`, as in OpenSSH. Stars that follow one another count once, so
/// that a hostile pattern costs little.
fn matches_pattern(text: &[u8], pattern: &[u8]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((b'*', rest)) => {
            let rest = &rest[rest.iter().take_while(|&&c| c == b'*').count()..];
            rest.is_empty() || (0..=text.len()).any(|at| matches_pattern(&text[at..], rest))
        }
        Some((&first, rest)) => {
            text.split_first().is_some_and(|(&c, text)| (first == b'?' || first == c) && matches_pattern(text, rest))
        }
    }
}

/// Reads `revoked_keys`: public key lines. Lines with other key types are
/// fine, since such a key is never accepted anyway. Every finding is an error:
/// a revocation that says nothing must not pass for one that does.
#[must_use]
pub fn parse_revoked(path: &str, bytes: &[u8]) -> (BTreeSet<PublicKey>, Vec<Finding>) {
    let mut keys = BTreeSet::new();
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|&c| c == b'\n')) {
        let outcome = std::str::from_utf8(line).map_err(|_| "it is not UTF-8".to_owned()).and_then(|text| {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                return Ok(None);
            }
            // A line copied from allowed_signers has principals in front.
            let mut words = text.split_ascii_whitespace().skip_while(|word| !is_key_type(word));
            match (words.next(), words.next()) {
                (Some(super::key::ED25519), Some(key)) => {
                    PublicKey::from_base64(key).map(Some).map_err(|error| format!("its key can't be used: {error}"))
                }
                (Some(_), Some(_)) => Ok(None),
                _ => Err("expected a public key line: ssh-ed25519 AAAA…".to_owned()),
            }
        });
        match outcome {
            Ok(key) => keys.extend(key),
            Err(cause) => findings.push(Finding {
                path: path.to_owned(),
                line: number,
                column: 1,
                severity: Severity::Error,
                message: format!("the line revokes nothing: {cause}"),
                hint: Some("a revocation that can't be read stops everything until it is mended".to_owned()),
            }),
        }
    }
    (keys, findings)
}
