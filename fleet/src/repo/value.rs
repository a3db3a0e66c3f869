//! The values that several files of format 1 share: times, shares, names of
//! labels and variables. Each is written as text and parsed by one function
//! that says, where it can't, what was expected.
//!
//! The types here exist for the JSON Schemas alone: they say which pattern the
//! text has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::tz::TimeZoneDatabase;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::problems::Problems;
use crate::desired::{Limit, Window};
use crate::yaml::{At, did_you_mean, one_of};

/// Variables by name.
pub type Vars = BTreeMap<At<String>, At<String>>;
/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// Thirty days: longer waiting is a mistake.
const MAX_DURATION_MS: u64 = 30 * 24 * 3600 * 1000;

macro_rules! schema_texts {
    ($($(#[$doc:meta])* $name:ident = $schema:tt;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub(crate) enum $name {}

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schema_texts! {
    /// `1h30m`.
    DurationText = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"};
    /// `95%`.
    PercentText = {"type": ["string", "integer"], "pattern": "^(100|[1-9]?[0-9])%?$", "minimum": 0, "maximum": 100};
    /// `3` or `10%`.
    LimitText = {"type": ["string", "integer"], "pattern": "^([0-9]+|(100|[1-9]?[0-9])%)$", "minimum": 0};
    /// `02:00`.
    TimeOfDay = {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"};
    /// `mon`.
    Day = {"enum": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]};
    /// `0644`.
    ModeText = {"type": ["string", "integer"], "pattern": "^0?[0-7]{3,4}$"};
    /// `root:root`.
    OwnerText = {"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"};
    /// Variables by name.
    VarsMap = {
        "type": "object",
        "propertyNames": {"pattern": "^(?!BURGEE_)[A-Za-z_][A-Za-z0-9_]*$"},
        "additionalProperties": {"type": ["string", "number", "boolean"]}
    };
    /// Labels by name.
    LabelsMap = {
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"},
        "additionalProperties": {"type": ["string", "number", "boolean"], "pattern": "^[A-Za-z0-9._-]{0,63}$"}
    };
    /// The name of an app, a group, a device.
    NameText = {"type": "string", "pattern": "^[a-z0-9-]{1,63}$"};
    /// A label's name.
    LabelName = {"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$"};
}

/// Milliseconds of `90s`, `3m`, `1h30m`, `500ms`, `2d`.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a duration, expected for example `30s`, `3m` or `1h30m`");
    let mut rest = text;
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
    }
    if total > MAX_DURATION_MS {
        return Err(format!("`{text}` is longer than 30 days, expected at most that"));
    }
    Ok(total)
}

/// `95%` or `95`: 0 to 100.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    match digits.parse() {
        Ok(number @ 0..=100) if digits.bytes().all(|c| c.is_ascii_digit()) => Ok(number),
        _ => Err(format!("`{text}` is not a percentage, expected 0% to 100%")),
    }
}

/// `3` is a count, `10%` a share.
pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text.ends_with('%') {
        return percent(text).map(Limit::Percent);
    }
    match text.parse() {
        Ok(count) if text.bytes().all(|c| c.is_ascii_digit()) => Ok(Limit::Count(count)),
        _ => Err(format!("`{text}` is neither a count nor a share, expected for example `3` or `10%`")),
    }
}

/// Permission bits in octal: `0644`.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(mode @ 0..=0o7777) if (3..=5).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit()) => {
            Ok(mode)
        }
        _ => Err(format!("`{text}` is not a file mode, expected octal digits, for example \"0644\"")),
    }
}

/// `user` or `user:group`, names or numbers.
pub(crate) fn owner(text: &str) -> Result<String, String> {
    let name = |part: &str| {
        let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        part.starts_with(first) && part.len() <= 64 && part.chars().all(|c| first(c) || matches!(c, '.' | '-'))
    };
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(user), None, _) if name(user) => Ok(text.to_owned()),
        (Some(user), Some(group), None) if name(user) && name(group) => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not an owner, expected for example \"root:root\" or \"1000:1000\"")),
    }
}

/// The name of a systemd unit, instance and all.
pub(crate) fn unit(text: &str) -> Result<String, String> {
    const KINDS: [&str; 9] = ["service", "socket", "timer", "path", "mount", "automount", "swap", "target", "slice"];
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_' | '.' | '\\' | '@');
    match text.rsplit_once('.') {
        Some((stem, kind)) if !stem.is_empty() && text.len() <= 255 && text.chars().all(allowed) => {
            if KINDS.contains(&kind) {
                return Ok(text.to_owned());
            }
            if matches!(kind, "container" | "kube" | "pod") {
                return Err(format!(
                    "`{text}` is a quadlet, expected the unit that systemd makes of it: `{}.service`",
                    if kind == "pod" { format!("{stem}-pod") } else { stem.to_owned() }
                ));
            }
            Err(format!(
                "`{text}` is no systemd unit, expected a name that ends in {}",
                one_of(&KINDS.map(|kind| format!(".{kind}")))
            ))
        }
        _ => Err(format!("`{text}` is no systemd unit, expected for example `pos.service`")),
    }
}

/// The name of a variable that a layer may define.
pub(crate) fn var_name(text: &str) -> Result<(), String> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    if text.starts_with("BURGEE_") {
        return Err(format!("`{text}` is built in, expected a name that does not start with BURGEE_"));
    }
    if text.starts_with(first) && text.len() <= 128 && text.chars().all(|c| first(c) || c.is_ascii_digit()) {
        return Ok(());
    }
    Err(format!("`{text}` is no variable name, expected letters, digits and `_`, the first no digit"))
}

/// The name of a label: 1 to 63 letters, digits, `.`, `_`, `-` and `/`.
pub(crate) fn label_name(text: &str) -> Result<(), String> {
    let edge = |c: char| c.is_ascii_alphanumeric();
    let allowed = |c: char| edge(c) || matches!(c, '.' | '_' | '-' | '/');
    if text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no label name, expected 1 to 63 letters, digits, `-`, `_`, `.` or `/`, a letter or digit first and last"
    ))
}

/// A label's value: up to 63 letters, digits, `.`, `_` and `-`.
pub(crate) fn label_value(text: &str) -> Result<(), String> {
    if text.len() <= 63 && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Ok(());
    }
    Err(format!("`{text}` is no label value, expected up to 63 letters, digits, `-`, `_` or `.`"))
}

/// The built-in variable that carries a label: `site-type` is `BURGEE_LABEL_SITE_TYPE`.
#[must_use]
pub fn label_variable(label: &str) -> String {
    let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("BURGEE_LABEL_{}", label.chars().map(upper).collect::<String>())
}

/// Errors for variables that no layer may define, and values that no file can carry.
pub(crate) fn check_vars(problems: &mut Problems<'_>, vars: &Vars) {
    for (name, value) in vars {
        problems.take(name, var_name);
        if value.value.contains('\0') {
            problems.error(value.place, "a NUL character, expected text");
        }
    }
}

/// When a device may apply.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WindowFile {
    /// When revisions may be applied; download is always allowed.
    pub(crate) apply: SpanFile,
}

/// A weekly span of time; it may cross midnight.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpanFile {
    /// Days on which it starts; every day where this is absent.
    #[schemars(with = "Option<Vec<Day>>")]
    pub(crate) days: Option<At<Vec<At<String>>>>,
    /// Time of day at which it starts: `"02:00"`.
    #[schemars(with = "TimeOfDay")]
    pub(crate) from: At<String>,
    /// Its length, whole minutes up to seven days: `2h`.
    #[schemars(with = "DurationText")]
    pub(crate) r#for: At<String>,
    /// An IANA time zone: `Europe/Berlin`. UTC where this is absent.
    pub(crate) tz: Option<At<String>>,
}

impl SpanFile {
    pub(crate) fn check(&self, problems: &mut Problems<'_>) -> Option<Window> {
        let days = match &self.days {
            None => Some((0..7).collect()),
            Some(days) => weekdays(problems, days),
        };
        let from_minute = problems.take(&self.from, time_of_day);
        let for_minutes = problems.take(&self.r#for, |text| {
            let ms = duration(text)?;
            match u32::try_from(ms / 60_000) {
                Ok(minutes @ 1..=10_080) if ms.is_multiple_of(60_000) => Ok(minutes),
                _ => Err(format!("`{text}` is no length of a window, expected whole minutes up to 7d")),
            }
        });
        let tz = match &self.tz {
            None => Some("UTC".to_owned()),
            Some(tz) => problems.take(tz, time_zone),
        };
        Some(Window { days: days?, from_minute: from_minute?, for_minutes: for_minutes?, tz: tz? })
    }
}

fn weekdays(problems: &mut Problems<'_>, days: &At<Vec<At<String>>>) -> Option<Vec<u8>> {
    const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let mut numbers = std::collections::BTreeSet::new();
    let mut whole = true;
    for day in &days.value {
        match (0..7).zip(DAYS).find(|(_, name)| *name == day.value) {
            Some((number, _)) => {
                numbers.insert(number);
            }
            None => {
                whole = false;
                let message = format!("`{}` is no day, expected {}", day.value, one_of(&DAYS));
                match did_you_mean(&day.value, &DAYS) {
                    Some(hint) => problems.error_with_hint(day.place, message, hint),
                    None => problems.error(day.place, message),
                }
            }
        }
    }
    if days.value.is_empty() {
        problems.error(days.place, "no day, so the window never opens; expected days, or no `days` for every day");
        return None;
    }
    whole.then(|| numbers.into_iter().collect())
}

fn time_of_day(text: &str) -> Result<u16, String> {
    let parsed = text.split_once(':').and_then(|(hour, minute)| {
        let two = |part: &str| {
            (part.len() == 2 && part.bytes().all(|c| c.is_ascii_digit())).then(|| part.parse::<u16>().ok())?
        };
        Some((two(hour)?, two(minute)?))
    });
    match parsed {
        Some((hour @ 0..24, minute @ 0..60)) => Ok(hour * 60 + minute),
        _ => Err(format!("`{text}` is no time of day, expected \"HH:MM\", for example \"02:00\"")),
    }
}

fn time_zone(text: &str) -> Result<String, String> {
    match TimeZoneDatabase::bundled().get(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("`{text}` is no time zone, expected an IANA name, for example `Europe/Berlin`")),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        duration, label_name, label_variable, limit, mode, owner, percent, time_of_day, time_zone, unit, var_name,
    };
    use crate::desired::Limit;

    fn check<T: PartialEq + std::fmt::Debug>(parse: impl Fn(&str) -> Result<T, String>, cases: &[(&str, Option<T>)]) {
        for (text, want) in cases {
            let got = parse(text);
            assert_eq!(got.as_ref().ok(), want.as_ref(), "{text:?}: {got:?}");
            if let Err(message) = got {
                assert!(message.contains("expected"), "{message}");
            }
        }
    }

    #[test]
    fn values() {
        check(
            duration,
            &[
                ("30s", Some(30_000)),
                ("1h30m", Some(5_400_000)),
                ("500ms", Some(500)),
                ("0s", Some(0)),
                ("", None),
                ("30", None),
                ("s", None),
                ("-3s", None),
                ("3 m", None),
                ("31d", None),
                ("99999999999999999999s", None),
                ("3x", None),
            ],
        );
        check(
            percent,
            &[
                ("95%", Some(95)),
                ("10", Some(10)),
                ("0%", Some(0)),
                ("101%", None),
                ("-1", None),
                ("+5%", None),
                ("x", None),
                ("1.5%", None),
            ],
        );
        check(limit, &[("50%", Some(Limit::Percent(50))), ("3", Some(Limit::Count(3))), ("+3", None), ("x", None)]);
        check(
            mode,
            &[
                ("0644", Some(0o644)),
                ("755", Some(0o755)),
                ("0o600", Some(0o600)),
                ("888", None),
                ("7", None),
                ("+644", None),
                ("170000", None),
            ],
        );
        check(
            owner,
            &[
                ("root:root", Some("root:root".to_owned())),
                ("1000", Some("1000".to_owned())),
                (":x", None),
                ("a:b:c", None),
                ("-x", None),
            ],
        );
        check(
            unit,
            &[
                ("a@b.service", Some("a@b.service".to_owned())),
                ("x.container", None),
                ("a.txt", None),
                ("x", None),
                ("../x.service", None),
                (".service", None),
            ],
        );
        check(
            var_name,
            &[("TZ", Some(())), ("_a1", Some(())), ("1a", None), ("A-B", None), ("BURGEE_X", None), ("", None)],
        );
        check(label_name, &[("site-type", Some(())), ("a/b.c", Some(())), ("-a", None), ("", None), ("a b", None)]);
        check(
            time_of_day,
            &[("02:00", Some(120)), ("23:59", Some(1439)), ("24:00", None), ("2:00", None), ("0200", None)],
        );
        check(
            time_zone,
            &[
                ("Europe/Berlin", Some("Europe/Berlin".to_owned())),
                ("UTC", Some("UTC".to_owned())),
                ("Mars/Base", None),
            ],
        );
        assert_eq!(label_variable("site-type.x"), "BURGEE_LABEL_SITE_TYPE_X");
    }
}
