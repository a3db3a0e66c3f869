//! Every key that `agent.toml` may have, and the nearest one to a misspelt one.

/// What a key's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Absolute, or relative to the folder of the file that says it.
    Path,
    Texts,
    Paths,
    /// From the first to the second, both included.
    Number(u64, u64),
    /// A table of text.
    Labels,
    /// `true` or `false`.
    Flag,
}

impl Kind {
    /// For error messages: `expected …`.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Text => "text in quotes".to_owned(),
            Self::Path => "a path in quotes".to_owned(),
            Self::Texts => "a list of text: [\"…\"]".to_owned(),
            Self::Paths => "a list of paths: [\"/…\"]".to_owned(),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Labels => "a table of text: { key = \"value\" }".to_owned(),
            Self::Flag => "true or false".to_owned(),
        }
    }
}

const DAY: u64 = 86_400;

/// Every key, by its full name.
pub const KEYS: [(&str, Kind); 37] = [
    ("device.name", Kind::Text),
    ("device.labels", Kind::Labels),
    ("source.url", Kind::Text),
    ("source.branch", Kind::Text),
    ("source.poll_secs", Kind::Number(1, DAY)),
    ("source.poll_connected_secs", Kind::Number(1, 7 * DAY)),
    ("source.trust", Kind::Path),
    ("source.revoked", Kind::Path),
    ("source.floor", Kind::Text),
    ("source.token_file", Kind::Path),
    ("source.username", Kind::Text),
    ("source.ssh_key_file", Kind::Path),
    ("source.known_hosts_file", Kind::Path),
    ("source.ca_file", Kind::Path),
    ("source.proxy", Kind::Text),
    ("source.limits.pack_mib", Kind::Number(1, 65_536)),
    ("source.limits.blob_mib", Kind::Number(1, 1024)),
    ("source.limits.files", Kind::Number(1, 1_000_000)),
    ("source.limits.commits", Kind::Number(1, 1_000_000)),
    ("source.limits.depth", Kind::Number(1, 1024)),
    ("runtime.compose.socket", Kind::Text),
    ("runtime.compose.auth_file", Kind::Path),
    ("runtime.kubernetes.kubeconfig", Kind::Path),
    ("runtime.files.root", Kind::Path),
    ("runtime.files.allow", Kind::Paths),
    ("health.exec", Kind::Paths),
    ("hub.url", Kind::Text),
    ("hub.ca_file", Kind::Path),
    ("hub.token_file", Kind::Path),
    ("mqtt.url", Kind::Text),
    ("mqtt.ca_file", Kind::Path),
    ("update.enabled", Kind::Flag),
    ("update.limit_secs", Kind::Number(10, DAY)),
    ("update.ca_file", Kind::Path),
    ("store.path", Kind::Path),
    ("control.socket", Kind::Path),
    ("metrics.listen", Kind::Text),
];

/// What a full key is, if it is one.
#[must_use]
pub fn kind(key: &str) -> Option<Kind> {
    KEYS.iter().find(|(name, _)| *name == key).map(|(_, kind)| *kind)
}

/// Whether keys lie below `prefix`.
#[must_use]
pub fn is_table(prefix: &str) -> bool {
    KEYS.iter().any(|(name, _)| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.')))
}

/// The key that was probably meant: the nearest by name, or the one of that
/// last part in another table.
#[must_use]
pub fn meant(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let elsewhere = || KEYS.iter().map(|(name, _)| *name).find(|name| name.rsplit('.').next() == Some(last));
    nearest(key, KEYS.iter().map(|(name, _)| *name)).or_else(elsewhere)
}

/// The candidate that differs from `word` in few enough letters to be meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = 1 + word.len() / 5;
    let near = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    near.min().filter(|(distance, _)| *distance <= allowed).map(|(_, candidate)| candidate)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{meant, nearest};

    #[test]
    fn the_key_that_was_meant() {
        let cases = [
            ("source.ulr", Some("source.url")),
            ("source.poll_sec", Some("source.poll_secs")),
            ("source.pollsecs", Some("source.poll_secs")),
            ("devices.name", Some("device.name")),
            ("source.kubeconfig", Some("runtime.kubernetes.kubeconfig")),
            ("flavour.of.ice", None),
        ];
        for (key, want) in cases {
            assert_eq!(meant(key), want, "{key}");
        }
        assert_eq!(nearest("stauts", ["status", "sync"]), Some("status"));
        assert_eq!(nearest("x", ["status", "sync"]), None);
    }
}
