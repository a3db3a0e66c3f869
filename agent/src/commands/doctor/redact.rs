//! Takes secrets out of text: those that are known by value, and what looks
//! like one. Pure.
//!
//! Rather too much than too little: what is taken out reads `[redacted]`.

const GONE: &str = "[redacted]";
/// A shorter value would take half of every text with it.
const SHORTEST: usize = 6;
/// What is behind such a word and `=` or `:` is a secret.
const WORDS: [&str; 14] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "authorization",
    "credential",
    "private_key",
    "access_key",
    // Of addresses that were signed.
    "signature",
    "sig",
];
const KEY_BEGIN: &str = "-----BEGIN ";
const KEY_END: &str = "-----END ";

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// Learns a secret's value, and each of its lines.
    pub(super) fn learn(&mut self, secret: &str) {
        for value in std::iter::once(secret).chain(secret.lines()).map(str::trim) {
            // As it is, without quotes around it, and as either stands in JSON.
            for value in [value, value.trim_matches(['"', '\''])] {
                if value.len() >= SHORTEST {
                    let escaped = serde_json::to_string(value).unwrap_or_default();
                    let escaped = escaped.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
                    self.secrets.extend(escaped.map(str::to_owned));
                    self.secrets.push(value.to_owned());
                }
            }
        }
    }

    /// The text without secrets.
    pub(super) fn clean(&mut self, text: &str) -> String {
        // A long one first: another may be a part of it.
        self.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        self.secrets.dedup();
        let mut text = private_keys(text);
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), GONE);
            }
        }
        text.split_inclusive('\n').map(|line| assignments(&words(&userinfo(line)))).collect()
    }
}

fn private_keys(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(KEY_BEGIN) {
        out.push_str(&rest[..start]);
        let behind = &rest[start..];
        let end = behind.find(KEY_END).map_or(behind.len(), |end| {
            let tail = &behind[end + KEY_END.len()..];
            let close = tail.find("-----").map_or(tail.len(), |close| close + 5);
            end + KEY_END.len() + close
        });
        let block = &behind[..end];
        let head = block.lines().next().unwrap_or_default();
        out.push_str(if head.contains("PRIVATE KEY") || head.len() == block.len() { GONE } else { block });
        rest = &behind[end..];
    }
    out.push_str(rest);
    out
}

/// `https://user:password@host` → `https://[redacted]@host`.
fn userinfo(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, behind) = rest.split_at(at + 3);
        out.push_str(before);
        let end = behind.find(|c: char| "/?#\"'<> \n".contains(c)).unwrap_or(behind.len());
        let authority = &behind[..end];
        match authority.rsplit_once('@') {
            // `git@host` says who, and nothing secret.
            Some((user, _)) if !user.contains(':') && user.len() < SHORTEST => out.push_str(authority),
            Some((_, host)) => {
                out.push_str(GONE);
                out.push('@');
                out.push_str(host);
            }
            None => out.push_str(authority),
        }
        rest = &behind[end..];
    }
    out.push_str(rest);
    out
}

/// Join tokens, signed tokens, and what follows `Bearer` and the like.
fn words(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.+/=~".contains(c);
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    let mut before = String::new();
    while !rest.is_empty() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(end);
        let signed = word.starts_with("eyJ") && word.matches('.').count() == 2;
        let bearer = matches!(before.to_ascii_lowercase().as_str(), "bearer" | "basic" | "--token" | "--password");
        let secret = !word.is_empty() && (word.starts_with("bjt_") || signed || (bearer && word.len() >= SHORTEST));
        out.push_str(if secret { GONE } else { word });
        if !word.is_empty() {
            word.clone_into(&mut before);
        }
        let next = tail.chars().next().map_or(0, char::len_utf8);
        out.push_str(&tail[..next]);
        rest = &tail[next..];
    }
    out
}

/// `password: x`, `"token": "x"`, `?secret=x&…`.
fn assignments(line: &str) -> String {
    let lower = line.to_ascii_lowercase();
    let mut cuts: Vec<(usize, usize)> = Vec::new();
    for word in WORDS {
        let mut from = 0;
        while let Some(at) = lower[from..].find(word).map(|at| from + at) {
            from = at + word.len();
            if let Some(cut) = value_behind(line, from) {
                cuts.push(cut);
            }
        }
    }
    cuts.sort_unstable();
    let mut out = String::with_capacity(line.len());
    let mut done = 0;
    for (start, end) in cuts {
        if start >= done {
            out.push_str(&line[done..start]);
            out.push_str(GONE);
            done = end;
        }
    }
    out.push_str(&line[done..]);
    out
}

/// Where the value is that is given to the word which ends at `from`.
fn value_behind(line: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &line[from..];
    let rest_trimmed = rest.trim_start_matches('s').trim_start_matches(['"', '\'', ' ']);
    let rest_trimmed = rest_trimmed.strip_prefix([':', '='])?;
    let behind = rest_trimmed.trim_start_matches([' ', '"', '\'', '\\']);
    let start = line.len() - behind.len();
    let quoted = rest_trimmed.trim_start().starts_with(['"', '\'']);
    let stops = if quoted { "\"'\n" } else { "\"' ,;&\n" };
    let end = behind.find(|c: char| stops.contains(c)).unwrap_or(behind.len());
    (end > 0 && !behind.starts_with(GONE)).then_some((start, start + end))
}

#[cfg(test)]
mod tests {
    use super::Redactor;

    #[test]
    fn secrets_are_taken_out_and_the_rest_stays() {
        let mut redactor = Redactor::default();
        redactor.learn("hunter2-of-the-till\nsecond \"line\"");
        redactor.learn("ab");
        let mut check = |text: &str, want: &str| assert_eq!(redactor.clean(text), want, "{text}");
        check("said hunter2-of-the-till!", "said [redacted]!");
        check("{\"m\":\"second \\\"line\\\"\"}", "{\"m\":\"[redacted]\"}");
        check("ab stays", "ab stays");
        check("https://me:pa@git.example.com/x.git: 404", "https://[redacted]@git.example.com/x.git: 404");
        check("ssh://git@host/x", "ssh://git@host/x");
        check("https://ghp_0123456789@host/x", "https://[redacted]@host/x");
        check("https://host/a@b", "https://host/a@b");
        check("token bjt_AbC-9_x was", "token [redacted] was");
        check("a eyJhbGciOi.eyJzdWIi.c2ln b", "a [redacted] b");
        check("Authorization: Bearer abcdef123", "Authorization: [redacted] [redacted]");
        check("password=geheim&x=1", "password=[redacted]&x=1");
        check("https://x/a?sv=1&sig=Zm9v%3D&se=2: 403", "https://x/a?sv=1&sig=[redacted]&se=2: 403");
        check("X-Amz-Signature=abc, design: x", "X-Amz-Signature=[redacted], design: x");
        check("{\"db_password\": \"ge heim\", \"a\": 1}", "{\"db_password\": \"[redacted]\", \"a\": 1}");
        check("PASSWORD: geheim", "PASSWORD: [redacted]");
        check("token_file = \"/etc/burgee/join-token\"", "token_file = \"/etc/burgee/join-token\"");
        check("hub.token_file is not set", "hub.token_file is not set");
        check("x\n-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY-----\ny\n", "x\n[redacted]\ny\n");
        check(
            "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n",
        );
        check("größe: 3, naïve@ünïcode ☂", "größe: 3, naïve@ünïcode ☂");
    }
}
