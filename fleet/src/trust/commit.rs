//! Raw commit objects.
//!
//! Two readings. [`Links`] is lenient: history may hold commits that no rule
//! looks at, and the walk only wants parents and identity. [`Commit`] is
//! strict: it is what a signature is judged on.
//!
//! **Invariant:** the signed payload is the raw commit without its signature
//! header, and a revision's identity is that payload's digest, so twins (the
//! armor wrapped anew, the header moved) are one revision.

use crate::digest::Digest;
use crate::revision::CommitId;

use super::refusal::Refusal;
use super::sshsig::Signature;

/// The largest commit that a signature is judged on, in bytes.
pub const MAX_COMMIT: usize = 64 * 1024;

/// What the walk needs of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    pub parents: Vec<CommitId>,
    pub identity: Digest,
}

/// A signed commit, well-formed; its signature has yet to be verified.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The committer's date, seconds since 1970.
    pub committed_at: i64,
    /// The message's first line.
    pub subject: String,
    pub signature: Signature,
    payload: Vec<u8>,
}

/// One header with its continuation lines, as a slice of the raw commit.
struct Header<'a> {
    name: &'a [u8],
    /// From the name to the last line's LF.
    whole: &'a [u8],
}

impl Header<'_> {
    fn is_signature(&self) -> bool {
        self.name.starts_with(b"gpgsig")
    }

    /// Continuation lines joined by LF, without the final one.
    fn value(&self) -> Vec<u8> {
        let value = self.whole.get(self.name.len() + 1..).unwrap_or_default();
        let value = value.strip_suffix(b"\n").unwrap_or(value);
        let mut lines = value.split(|&c| c == b'\n');
        let mut unfolded = lines.next().unwrap_or_default().to_vec();
        for line in lines {
            unfolded.push(b'\n');
            unfolded.extend_from_slice(line.strip_prefix(b" ").unwrap_or(line));
        }
        unfolded
    }
}

/// The headers, and what follows them (from the blank line's LF on).
fn split(raw: &[u8]) -> (Vec<Header<'_>>, &[u8]) {
    let mut headers: Vec<Header<'_>> = Vec::new();
    let mut at = 0;
    let mut begin = 0;
    while at < raw.len() && raw[at] != b'\n' {
        let end = raw[at..].iter().position(|&c| c == b'\n').map_or(raw.len(), |lf| at + lf + 1);
        match headers.last_mut() {
            Some(last) if raw[at] == b' ' => last.whole = &raw[begin..end],
            _ => {
                begin = at;
                let line = &raw[at..end];
                let name = line.split(|&c| c == b' ' || c == b'\n').next().unwrap_or_default();
                headers.push(Header { name, whole: line });
            }
        }
        at = end;
    }
    (headers, &raw[at..])
}

fn payload(headers: &[Header<'_>], rest: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for header in headers.iter().filter(|header| !header.is_signature()) {
        payload.extend_from_slice(header.whole);
    }
    payload.extend_from_slice(rest);
    payload
}

fn id(text: &[u8]) -> Option<CommitId> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

impl Links {
    /// Parents and identity of a raw commit.
    ///
    /// # Errors
    /// When a `parent` header names no full commit id.
    pub fn read(raw: &[u8]) -> Result<Self, Refusal> {
        let (headers, rest) = split(raw);
        let parents = headers
            .iter()
            .filter(|header| header.name == b"parent")
            .map(|header| id(&header.value()).ok_or(Refusal::MalformedCommit { what: "a parent is no commit id" }))
            .collect::<Result<_, _>>()?;
        Ok(Self { parents, identity: Digest::of(&payload(&headers, rest)) })
    }
}

impl Commit {
    /// Reads the signed commit `id`. The caller has recomputed the id.
    ///
    /// # Errors
    /// The refusal that names what is not as it must be.
    pub fn read(id: &CommitId, raw: &[u8]) -> Result<Self, Refusal> {
        if raw.len() > MAX_COMMIT {
            return Err(Refusal::CommitTooLarge { size: raw.len(), limit: MAX_COMMIT });
        }
        if raw.contains(&0) {
            return Err(Refusal::CommitHoldsNul);
        }
        let (headers, rest) = split(raw);
        let committed_at = check_headers(id, &headers)?;
        let signatures: Vec<_> = headers.iter().filter(|header| header.is_signature()).collect();
        let [signature] = signatures[..] else {
            return Err(match signatures.len() {
                0 => Refusal::Unsigned,
                count => Refusal::SeveralSignatures { count },
            });
        };
        let expected = if id.as_str().len() == 40 { "gpgsig" } else { "gpgsig-sha256" };
        if signature.name != expected.as_bytes() {
            let found = String::from_utf8_lossy(&signature.name[..signature.name.len().min(64)]).into_owned();
            return Err(Refusal::WrongSignatureHeader { found, expected });
        }
        let signature = Signature::from_armor(&signature.value())?;
        Ok(Self { committed_at, subject: subject(rest), signature, payload: payload(&headers, rest) })
    }

    /// Whether the signature is the key's. Whose key it is, is another matter.
    ///
    /// # Errors
    /// [`Refusal::BadSignature`].
    pub fn verify(&self) -> Result<(), Refusal> {
        self.signature.verify(&self.payload)
    }
}

/// The committer's date of a raw commit, signed or not.
///
/// # Errors
/// When the headers are not those of a commit.
pub fn committed_at(id: &CommitId, raw: &[u8]) -> Result<i64, Refusal> {
    check_headers(id, &split(raw).0)
}

/// The message's first line of a raw commit.
#[must_use]
pub fn subject_of(raw: &[u8]) -> String {
    subject(split(raw).1)
}

fn subject(rest: &[u8]) -> String {
    let message = rest.strip_prefix(b"\n").unwrap_or(rest);
    let line = message.split(|&c| c == b'\n').find(|line| !line.is_empty()).unwrap_or_default();
    String::from_utf8_lossy(line).chars().filter(|c| !c.is_control()).take(200).collect()
}

/// `tree`, then `parent`s, `author` and `committer`, once each and first, as
/// `git fsck` asks; returns the committer's date.
fn check_headers(id: &CommitId, headers: &[Header<'_>]) -> Result<i64, Refusal> {
    let malformed = |what| Refusal::MalformedCommit { what };
    let is_id = |value: &[u8]| self::id(value).is_some_and(|found| found.as_str().len() == id.as_str().len());
    let mut headers = headers.iter().peekable();
    if !headers.next().is_some_and(|header| header.name == b"tree" && is_id(&header.value())) {
        return Err(malformed("it does not begin with its tree"));
    }
    while let Some(parent) = headers.next_if(|header| header.name == b"parent") {
        if !is_id(&parent.value()) {
            return Err(malformed("a parent is no commit id of this repository's hash"));
        }
    }
    // A signature that was moved up front makes a twin, nothing worse.
    let mut headers = headers.filter(|header| !header.is_signature());
    if headers.next().is_none_or(|header| header.name != b"author") {
        return Err(malformed("its author does not follow its parents"));
    }
    let Some(committer) = headers.next().filter(|header| header.name == b"committer") else {
        return Err(malformed("its committer does not follow its author"));
    };
    if headers.any(|header| matches!(header.name, b"tree" | b"parent" | b"author" | b"committer")) {
        return Err(malformed("a header is repeated"));
    }
    date(&committer.value()).ok_or(malformed("its committer's date can't be read"))
}

/// The date of `Name <mail> SECONDS ±HHMM`.
fn date(person: &[u8]) -> Option<i64> {
    let end = person.iter().rposition(|&c| c == b'>')?;
    let text = std::str::from_utf8(person.get(end + 1..)?).ok()?;
    let (seconds, zone) = text.strip_prefix(' ')?.split_once(' ')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let zone_is_one = zone.len() == 5 && zone.starts_with(['+', '-']) && digits(&zone[1..]);
    if !digits(seconds) || !zone_is_one {
        return None;
    }
    let seconds = seconds.parse().ok()?;
    jiff::Timestamp::from_second(seconds).ok().map(|_| seconds)
}
