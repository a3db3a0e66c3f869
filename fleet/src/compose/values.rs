//! Single values of a Compose file: text to switch, number, duration, size, words. Errors say what was expected.

/// A size in bytes: `512`, `64k`, `1.5G`, `2gb`, `1GiB`; units are powers of 1024.
pub(super) fn bytes(text: &str) -> Result<i64, String> {
    let expected = || format!("{text:?} is not a size: expected a number of bytes, or one with a unit (b, k, m, g, t)");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return Err(expected()),
    };
    scaled(number, 1024_i128.pow(power)).and_then(|bytes| i64::try_from(bytes).ok()).ok_or_else(expected)
}

/// A share of processors in billionths: `0.5` is 500,000,000.
pub(super) fn nano_cpus(text: &str) -> Result<i64, String> {
    scaled(text.trim(), 1_000_000_000)
        .and_then(|nano| i64::try_from(nano).ok())
        .ok_or_else(|| format!("{text:?} is not a number of processors: expected for example 0.5 or 2"))
}

/// A duration in milliseconds, rounded up: `1m30s`, `1.5h`, `500ms`.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    nanos(text)
        .and_then(|nanos| u64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos % 1_000_000 > 0)).ok())
        .ok_or_else(|| format!("{text:?} is not a duration: expected for example 500ms, 30s, 1m30s or 2h"))
}

/// A duration in microseconds, or a plain number of them.
pub(super) fn micros(text: &str) -> Result<i64, String> {
    text.trim()
        .parse()
        .ok()
        .or_else(|| nanos(text).and_then(|nanos| i64::try_from(nanos / 1_000).ok()))
        .ok_or_else(|| format!("{text:?} is not a time: expected microseconds, or a duration such as 950ms"))
}

fn nanos(text: &str) -> Option<i128> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        total = total.checked_add(scaled(number, scale)?)?;
        rest = tail;
    }
    Some(total)
}

/// A decimal number times `scale`, cut off below one; exact, with no floating point.
fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit()) && text.len() <= 18;
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) {
        return None;
    }
    let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(scale)?;
    if !part.is_empty() {
        let power = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        total = total.checked_add(part.parse::<i128>().ok()?.checked_mul(scale)? / power)?;
    }
    Some(total)
}

/// `true` or `false`, and the older words for them.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Ok(true),
        "false" | "no" | "off" | "n" | "0" => Ok(false),
        _ => Err(format!("{text:?} is not a switch: expected true or false")),
    }
}

/// A whole number: decimal, `0x…`, `0o…`.
pub(super) fn integer<T: TryFrom<i128>>(text: &str) -> Result<T, String> {
    whole(text.trim())
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{text:?} is not a whole number that is possible here"))
}

fn whole(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let number = if let Some(hex) = digits.strip_prefix("0x") {
        i128::from_str_radix(hex, 16).ok()?
    } else if let Some(octal) = digits.strip_prefix("0o") {
        i128::from_str_radix(octal, 8).ok()?
    } else if digits.starts_with(|c: char| c.is_ascii_digit()) {
        // A whole number may be the value of a variable such as "2.0".
        let digits = digits.strip_suffix(".0").unwrap_or(digits);
        digits.parse().ok()?
    } else {
        return None;
    };
    Some(sign * number)
}

/// Permission bits: octal with or without its mark, as Compose reads them.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    let digits = text.trim().trim_start_matches("0o");
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777 && !digits.starts_with('+'))
        .ok_or_else(|| format!("{text:?} are no permissions: expected octal digits such as 0440"))
}

/// Words as a shell would split them: quotes and backslashes, nothing else.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    let open = |quote: char| format!("{text:?} can't be split into words: no closing {quote}");
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(open('\'')),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                            Some('\n') => {}
                            Some(c) => word.extend(['\\', c]),
                            None => return Err(open('"')),
                        },
                        Some(c) => word.push(c),
                        None => return Err(open('"')),
                    }
                }
            }
            '\\' => match chars.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(format!("{text:?} can't be split into words: it ends with a backslash")),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// A plain scalar of a mapping that may hold numbers, as Compose shows it: `1.10` is 1.1, `0x10` is 16, `TRUE` is true.
/// Compose reads such values as numbers, so that the device has to do the same.
pub(super) fn shown(text: &str) -> String {
    match text {
        "true" | "True" | "TRUE" => return "true".to_owned(),
        "false" | "False" | "FALSE" => return "false".to_owned(),
        ".inf" | ".Inf" | ".INF" | "+.inf" => return "+Inf".to_owned(),
        "-.inf" | "-.Inf" | "-.INF" => return "-Inf".to_owned(),
        ".nan" | ".NaN" | ".NAN" => return "NaN".to_owned(),
        _ => {}
    }
    let unsigned = text.trim_start_matches(['-', '+']);
    if text.len() - unsigned.len() > 1 || !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return text.to_owned();
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    let radix = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(|number| format!("{sign}{number}"));
    let plain = unsigned.replace('_', "");
    let number = if let Some(hex) = plain.strip_prefix("0x").or(plain.strip_prefix("0X")) {
        radix(hex, 16)
    } else if let Some(octal) = plain.strip_prefix("0o").or(plain.strip_prefix("0O")) {
        radix(octal, 8)
    } else if let Some(binary) = plain.strip_prefix("0b").or(plain.strip_prefix("0B")) {
        radix(binary, 2)
    } else if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|c| c.is_ascii_digit()) {
        radix(&plain, 8).or_else(|| float(&plain).map(|float| format!("{sign}{float}")))
    } else if plain.bytes().all(|c| c.is_ascii_digit()) {
        plain.parse::<u64>().ok().map(|number| format!("{sign}{number}")).or_else(|| float(&plain))
    } else {
        float(&plain).map(|float| format!("{sign}{float}"))
    };
    number.unwrap_or_else(|| text.to_owned())
}

/// A float in its shortest form, with an exponent where Go's `%v` has one.
fn float(text: &str) -> Option<String> {
    let form = |c: u8| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-');
    if !text.bytes().all(form) || !text.bytes().any(|c| c.is_ascii_digit()) {
        return None;
    }
    let number: f64 = text.parse().ok()?;
    if !number.is_finite() {
        return None;
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    if number != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return Some(format!("{digits}e{sign}{:02}", exponent.abs()));
    }
    Some(format!("{number}"))
}

#[cfg(test)]
mod tests {
    use super::{bytes, integer, micros, millis, mode, nano_cpus, shown, switch, words};

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("512", Some(512)),
            ("64k", Some(65_536)),
            ("1.5G", Some(1_610_612_736)),
            ("2gb", Some(2 << 30)),
            ("1 GiB", Some(1 << 30)),
            ("100B", Some(100)),
            ("", None),
            (".", None),
            ("-1", None),
            ("1x", None),
            ("1.2.3m", None),
            ("9999999t", None),
            ("99999999999999999999", None),
        ];
        for (text, want) in cases {
            assert_eq!(bytes(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        let cases = [
            ("500ms", Some(500)),
            ("10s", Some(10_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("2d", Some(172_800_000)),
            ("1us", Some(1)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("10", None),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1s ", Some(1000)),
            ("1x", None),
            ("999999999999999999h", None),
        ];
        for (text, want) in cases {
            assert_eq!(millis(text).ok(), want, "{text:?}");
        }
        assert_eq!(micros("950ms"), Ok(950_000));
        assert_eq!(micros("1000"), Ok(1000));
        assert!(micros("soon").is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
        assert_eq!(nano_cpus("2"), Ok(2_000_000_000));
        assert_eq!(nano_cpus(".25"), Ok(250_000_000));
        assert!(nano_cpus("half").is_err());
        assert_eq!(integer::<u16>("80"), Ok(80));
        assert_eq!(integer::<i64>("-1"), Ok(-1));
        assert_eq!(integer::<i64>("0x10"), Ok(16));
        for text in ["65536", "-1", "", "1.5", "a"] {
            assert!(integer::<u16>(text).is_err(), "{text:?}");
        }
        assert_eq!((mode("0440"), mode("440"), mode("0o755")), (Ok(0o440), Ok(0o440), Ok(0o755)));
        assert!(mode("888").is_err() && mode("").is_err() && mode("77777").is_err());
        assert_eq!((switch("yes"), switch("False")), (Ok(true), Ok(false)));
        assert!(switch("").is_err() && switch("maybe").is_err());
    }

    #[test]
    fn split_words() {
        let cases: [(&str, Option<&[&str]>); 9] = [
            ("", Some(&[])),
            ("  a  b ", Some(&["a", "b"])),
            ("sh -c 'echo \"$HOME\"'", Some(&["sh", "-c", "echo \"$HOME\""])),
            (r#"a\ b "c \"d\" \n" ''"#, Some(&["a b", r#"c "d" \n"#, ""])),
            ("a'b'\"c\"d", Some(&["abcd"])),
            ("x | y && z; $(q)", Some(&["x", "|", "y", "&&", "z;", "$(q)"])),
            ("'open", None),
            ("\"open", None),
            ("end\\", None),
        ];
        for (text, want) in cases {
            let want = want.map(|words| words.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(words(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn numbers_as_compose_shows_them() {
        let cases = [
            ("1.10", "1.1"),
            ("5432", "5432"),
            ("-7", "-7"),
            ("0x10", "16"),
            ("0755", "493"),
            ("0o755", "493"),
            ("1_000", "1000"),
            ("1e3", "1000"),
            ("1e30", "1e+30"),
            ("0.00001", "1e-05"),
            ("1.0", "1"),
            ("TRUE", "true"),
            ("yes", "yes"),
            ("1.2.3", "1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10s", "10s"),
            ("-", "-"),
            (".", "."),
            ("2020-01-01", "2020-01-01"),
            ("99999999999999999999", "1e+20"),
            ("1234567.5", "1.2345675e+06"),
            ("089", "89"),
            ("--5", "--5"),
        ];
        for (text, want) in cases {
            assert_eq!(shown(text), want, "{text:?}");
        }
    }
}
