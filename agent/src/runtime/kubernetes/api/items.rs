//! Takes the elements out of `{…, "items": […]}` while it arrives, so that no
//! page of a list is ever in memory as a whole.
//!
//! What stands around the items is kept and read at the end as JSON with an
//! empty list: an answer that was cut off, or is no list, does not pass.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The largest element: etcd takes 1.5 MiB by default, the server 3.
const ITEM_LIMIT: usize = 8 << 20;
/// The largest surroundings.
const AROUND_LIMIT: usize = 64 << 10;

/// Why this is no list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoList {
    #[error("an item or what surrounds the items is too large")]
    TooLarge,
    #[error("the items of a list are no objects")]
    NoObjects,
    #[error("an item can't be read: {0}")]
    Item(String),
    #[error("it is cut off, or no list: {0}")]
    Malformed(String),
}

/// What stands around the items.
#[derive(Debug, Deserialize)]
pub(super) struct Around {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    /// Go writes `null` for an empty list here and there, but the key is there.
    #[serde(rename = "items", deserialize_with = "empty")]
    _items: (),
}

fn empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    Option::<[IgnoredAny; 0]>::deserialize(deserializer).map(drop)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// Splits the answer at its items.
#[derive(Default)]
pub(super) struct Items {
    around: Vec<u8>,
    item: Vec<u8>,
    depth: u32,
    in_items: bool,
    in_string: bool,
    escaped: bool,
    /// Where the last string at depth 1 starts in `around`.
    word: usize,
    /// The last key at depth 1 is `items`.
    at_items: bool,
}

impl Items {
    /// Takes the next piece; `each` gets every element that it completes.
    pub(super) fn feed(
        &mut self,
        piece: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<(), NoList>,
    ) -> Result<(), NoList> {
        for &byte in piece {
            if self.in_items && self.depth > 2 {
                self.item.push(byte);
                self.inside(byte);
                if self.depth == 2 {
                    each(&self.item)?;
                    self.item.clear();
                }
                if self.item.len() > ITEM_LIMIT {
                    return Err(NoList::TooLarge);
                }
            } else if self.in_items {
                match byte {
                    b'{' => {
                        self.item.push(byte);
                        self.depth = 3;
                    }
                    b']' => {
                        self.in_items = false;
                        self.depth = 1;
                        self.around.push(byte);
                    }
                    b',' | b' ' | b'\n' | b'\r' | b'\t' => {}
                    _ => return Err(NoList::NoObjects),
                }
            } else {
                self.outside(byte);
                if self.around.len() > AROUND_LIMIT {
                    return Err(NoList::TooLarge);
                }
            }
        }
        Ok(())
    }

    /// What stood around the items, once everything has arrived.
    pub(super) fn end(self) -> Result<Around, NoList> {
        serde_json::from_slice(&self.around).map_err(|error| NoList::Malformed(error.to_string()))
    }

    fn outside(&mut self, byte: u8) {
        let was_string = self.in_string;
        if self.depth == 1 && !was_string {
            match byte {
                b'"' => self.word = self.around.len(),
                b':' => self.at_items = self.around.get(self.word..).is_some_and(|word| word.starts_with(b"\"items\"")),
                b',' => self.at_items = false,
                _ => {}
            }
        }
        self.around.push(byte);
        self.inside(byte);
        if byte == b'[' && !was_string && self.depth == 2 && self.at_items {
            self.in_items = true;
        }
    }

    fn inside(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Items, NoList};

    /// Split everywhere, and fed byte by byte and as a whole.
    fn split(text: &str, size: usize) -> Result<(Vec<String>, String, String), NoList> {
        let mut items = Items::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            items.feed(piece, &mut |item| {
                found.push(String::from_utf8_lossy(item).into_owned());
                Ok(())
            })?;
        }
        let around = items.end()?;
        Ok((found, around.metadata.resource_version, around.metadata.next))
    }

    #[test]
    fn items_are_taken_out() {
        let check = |text: &str, want: &[&str], next: &str| {
            for size in [1, 2, 7, 1000] {
                let (found, version, continued) = split(text, size).unwrap();
                assert_eq!(found, want, "{text} by {size}");
                assert_eq!((version.as_str(), continued.as_str()), ("7", next));
            }
        };
        check(r#"{"kind":"List","metadata":{"resourceVersion":"7"},"items":[]}"#, &[], "");
        check(r#"{"kind":"List","metadata":{"resourceVersion":"7"},"items":null}"#, &[], "");
        check(
            r#"{"items": [ {"a":"]}\"{","items":[{}]} , {"b":{"c":[1]}}], "metadata":{"continue":"x","resourceVersion":"7"}}"#,
            &[r#"{"a":"]}\"{","items":[{}]}"#, r#"{"b":{"c":[1]}}"#],
            "x",
        );
        check(
            r#"{"metadata":{"resourceVersion":"7","x":{"items":[1,2]}},"kind":"items","y":["items"],"items":[{}]}"#,
            &["{}"],
            "",
        );
    }

    #[test]
    fn what_is_cut_off_or_no_list_does_not_pass() {
        let whole = r#"{"kind":"List","metadata":{"resourceVersion":"7"},"items":[{"a":1},{"b":2}]}"#;
        for end in 0..whole.len() {
            assert!(split(&whole[..end], 1000).is_err(), "{}", &whole[..end]);
        }
        for wrong in [
            "",
            "{}",
            "[]",
            "404 page not found",
            r#"{"kind":"List","metadata":{"resourceVersion":"7"}}"#,
            r#"{"items":[1]}"#,
            r#"{"items":["a"]}"#,
            r#"{"items":{}}"#,
            r#"{"items":[]} {"items":[]}"#,
        ] {
            assert!(split(wrong, 3).is_err(), "{wrong}");
        }
    }
}
