//! What a tree may hold within the paths of format 1 (design §4, rule 7).
//!
//! Pure: one entry at a time. Walking trees is the source's work.

/// What a Git tree entry is, by its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Folder,
    File {
        executable: bool,
    },
    Link,
    Submodule,
    /// A mode that Git itself would not write.
    Other,
}

/// The paths of format 1, at the top of the tree.
const FILES: [&[u8]; 1] = [b"burgee.yaml"];
const FOLDERS: [&[u8]; 5] = [b"trust", b"apps", b"groups", b"devices", b"rollouts"];

/// Whether a top-level name is one of format 1; the rest is not looked at.
#[must_use]
pub fn is_format_path(name: &[u8]) -> bool {
    FILES.contains(&name) || FOLDERS.contains(&name)
}

/// Checks one entry's name and kind.
///
/// # Errors
/// What is wrong with it, for a sentence that begins with its path.
pub fn check_entry(name: &[u8], kind: EntryKind) -> Result<&str, &'static str> {
    match kind {
        EntryKind::Folder | EntryKind::File { .. } => {}
        EntryKind::Link => return Err("is a symbolic link"),
        EntryKind::Submodule => return Err("is a submodule"),
        EntryKind::Other => return Err("has a mode other than 644 or 755"),
    }
    let text = std::str::from_utf8(name).map_err(|_| "has a name that is not UTF-8")?;
    if text.is_empty() {
        return Err("has an empty name");
    }
    if matches!(text, "." | "..") {
        return Err("has a name that leads out of its folder");
    }
    if text.contains('/') {
        return Err("has a slash in its name");
    }
    if text.contains('\\') {
        return Err("has a backslash in its name");
    }
    if text.chars().any(char::is_control) {
        return Err("has a control character in its name");
    }
    if is_dot_git(text) {
        return Err("is a spelling of .git");
    }
    Ok(text)
}

/// `.git` as any file system may read it: in any case, with characters that
/// HFS+ ignores, as NTFS's short name, with NTFS streams, dots and blanks.
fn is_dot_git(name: &str) -> bool {
    let ignorable = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let folded: String = name.chars().filter(|c| !ignorable(c)).flat_map(char::to_lowercase).collect();
    let base = folded.split(':').next().unwrap_or_default().trim_end_matches([' ', '.']);
    base == ".git" || base.strip_prefix("git~").is_some_and(|n| !n.is_empty() && n.bytes().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: EntryKind = EntryKind::File { executable: false };

    #[test]
    fn entries() {
        let cases: &[(&[u8], EntryKind, Option<&str>)] = &[
            (b"compose.yaml", FILE, None),
            (b"run.sh", EntryKind::File { executable: true }, None),
            (".gitignore".as_bytes(), FILE, None),
            ("caf\u{e9}".as_bytes(), FILE, None),
            (b"x", EntryKind::Link, Some("symbolic link")),
            (b"x", EntryKind::Submodule, Some("submodule")),
            (b"x", EntryKind::Other, Some("mode")),
            (b"..", EntryKind::Folder, Some("leads out")),
            (b".", EntryKind::Folder, Some("leads out")),
            (b"", FILE, Some("empty")),
            (b"a/b", FILE, Some("slash")),
            (b"a\\b", FILE, Some("backslash")),
            (b"a\nb", FILE, Some("control")),
            (b"a\x7fb", FILE, Some("control")),
            (b"a\xffb", FILE, Some("UTF-8")),
            (b".git", EntryKind::Folder, Some(".git")),
            (b".GiT", FILE, Some(".git")),
            (b".git. .", FILE, Some(".git")),
            (b".git::$INDEX_ALLOCATION", FILE, Some(".git")),
            (b"GIT~1", FILE, Some(".git")),
            (".g\u{200c}it".as_bytes(), FILE, Some(".git")),
        ];
        for (name, kind, want) in cases {
            let got = check_entry(name, *kind).err();
            assert_eq!(got.is_some(), want.is_some(), "{:?}: {got:?}", String::from_utf8_lossy(name));
            assert!(want.is_none_or(|want| got.is_some_and(|got| got.contains(want))), "{got:?}");
        }
    }
}
