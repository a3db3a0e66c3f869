//! What both copies of the journal hold, and how it becomes bytes.
//!
//! A root (generation, state, names of the kept states) over objects that are
//! named by the SHA-256 of their content. **Invariants:** nothing is read back
//! that its checksum does not vouch for; a newer format is told from damage
//! and is refused, never guessed at.

use std::collections::{BTreeMap, BTreeSet};

use fleet::digest::Digest;
use fleet::revision::Revision;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ports::journal::{Kept, State};

/// The format that this agent writes. An agent on trial writes before it has
/// proved itself, and the one before it must read that when it comes back
/// (docs/decisions/0027). So what is new is a field with a default, which an
/// older agent passes over; the format is raised only where that would be
/// wrong, and only after a release that can read both.
pub(super) const FORMAT: u8 = 1;

/// One committed state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Root {
    /// Rises with every commit; 0 means that there never was one.
    pub generation: u64,
    pub state: State,
    pub kept: Vec<KeptRef>,
}

/// Where a kept state lies: the digest of its JSON. Its blobs lie under their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptRef {
    pub revision: Revision,
    pub object: Digest,
}

/// A kept state's objects, without their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptObjects {
    pub at: KeptRef,
    pub blobs: BTreeSet<Digest>,
}

/// Why bytes are no record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Whole, but of a later format.
    Newer(u32),
    /// Not what was written.
    Damaged(&'static str),
}

/// Every revision that the state needs the kept state of.
pub(super) fn named(state: &State) -> Vec<&Revision> {
    let mut named: Vec<&Revision> = state.good.iter().chain(&state.before).collect();
    named.extend(state.phase.names());
    named
}

/// The objects of several kept states.
pub(super) fn objects<'a>(kept: impl IntoIterator<Item = &'a KeptObjects>) -> BTreeSet<Digest> {
    kept.into_iter().flat_map(|kept| kept.blobs.iter().copied().chain([kept.at.object])).collect()
}

/// A kept state's JSON and the blobs that it names.
pub(super) fn read_kept(bytes: &[u8]) -> Option<(Kept, BTreeSet<Digest>)> {
    let kept: Kept = serde_json::from_slice(bytes).ok()?;
    let blobs = kept.blobs();
    Some((kept, blobs))
}

/// The state's fields as JSON, each an object of its own in the database, so
/// that a commit writes only those that changed.
pub(super) fn fields(state: &State) -> Result<BTreeMap<String, Vec<u8>>, serde_json::Error> {
    // By way of the text: the code that reads and writes it is there already.
    let Value::Object(map) = serde_json::from_slice(&serde_json::to_vec(state)?)? else {
        return Ok(BTreeMap::new());
    };
    map.into_iter().map(|(name, value)| Ok((name, serde_json::to_vec(&value)?))).collect()
}

/// The inverse of [`fields`].
pub(super) fn from_fields(fields: &BTreeMap<String, Vec<u8>>) -> Result<State, serde_json::Error> {
    let map: Map<String, Value> = fields
        .iter()
        .map(|(name, bytes)| Ok((name.clone(), serde_json::from_slice(bytes)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    serde_json::from_slice(&serde_json::to_vec(&map)?)
}

/// Puts version and checksum before a payload: `[version][sha256][payload]`.
/// The checksum covers version and key, too: a record in another's place is
/// not taken for it.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(SEAL + payload.len());
    record.push(FORMAT);
    record.extend_from_slice(checksum(FORMAT, key, payload).as_bytes());
    record.extend_from_slice(payload);
    record
}

/// Bytes that [`seal`] adds.
pub(super) const SEAL: usize = 33;

/// The payload of a record, if it is whole.
pub(super) fn unseal<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let (&[version, ref sum @ ..], payload) =
        record.split_first_chunk::<SEAL>().ok_or(Unreadable::Damaged("a record is too short"))?;
    if checksum(version, key, payload).as_bytes() != sum {
        return Err(Unreadable::Damaged("a record's checksum is wrong"));
    }
    if version > FORMAT {
        return Err(Unreadable::Newer(version.into()));
    }
    Ok(payload)
}

fn checksum(version: u8, key: &[u8], payload: &[u8]) -> Digest {
    let mut bytes = Vec::with_capacity(key.len() + payload.len() + 5);
    bytes.push(version);
    bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(payload);
    Digest::of(&bytes)
}

/// The database's root record: fields and kept states by the digest of their
/// objects. Stays below a value's size limit: a dozen fields, four kept states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Index {
    pub generation: u64,
    pub fields: BTreeMap<String, Digest>,
    pub kept: Vec<KeptRef>,
}

#[derive(Serialize)]
struct SlotOut<'a> {
    state: &'a State,
    kept: &'a [KeptRef],
}

#[derive(Deserialize)]
struct SlotIn {
    state: State,
    kept: Vec<KeptRef>,
}

const MAGIC: &str = "burgee-journal";

/// A slot of the second copy: one header line, then JSON.
pub(super) fn write_slot(root: &Root) -> Result<(String, Vec<u8>), serde_json::Error> {
    let payload = serde_json::to_vec(&SlotOut { state: &root.state, kept: &root.kept })?;
    let place = format!("{MAGIC} format={FORMAT} generation={}", root.generation);
    let sum = slot_checksum(&place, &payload);
    Ok((format!("{place} sha256={sum}\n"), payload))
}

/// The inverse of [`write_slot`].
pub(super) fn read_slot(bytes: &[u8]) -> Result<Root, Unreadable> {
    let damaged = Unreadable::Damaged;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(damaged("a slot has no header"))?;
    let (header, payload) = (&bytes[..end], &bytes[end + 1..]);
    let header = std::str::from_utf8(header).map_err(|_| damaged("a slot's header is no text"))?;
    let (place, sum) = header.rsplit_once(" sha256=").ok_or(damaged("a slot has no checksum"))?;
    if slot_checksum(place, payload).to_string() != sum {
        return Err(damaged("a slot's checksum is wrong"));
    }
    let numbers = place.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(" format="));
    let (format, generation) =
        numbers.and_then(|rest| rest.split_once(" generation=")).ok_or(damaged("a slot's header is not one"))?;
    let format: u32 = format.parse().map_err(|_| damaged("a slot's format is no number"))?;
    if format > FORMAT.into() {
        return Err(Unreadable::Newer(format));
    }
    let generation = generation.parse().map_err(|_| damaged("a slot's generation is no number"))?;
    let slot: SlotIn = serde_json::from_slice(payload).map_err(|_| damaged("a slot's state can't be read"))?;
    Ok(Root { generation, state: slot.state, kept: slot.kept })
}

fn slot_checksum(place: &str, payload: &[u8]) -> Digest {
    checksum(FORMAT, place.as_bytes(), payload)
}

#[cfg(test)]
mod tests {
    use super::super::contract::state;
    use super::{FORMAT, Root, Unreadable, checksum, read_slot, seal, unseal, write_slot};

    #[test]
    fn a_flipped_bit_is_noticed_everywhere() {
        let record = seal(b"key", b"payload");
        assert_eq!(unseal(b"key", &record), Ok(&b"payload"[..]));
        assert!(unseal(b"kez", &record).is_err());
        let (header, payload) = write_slot(&Root { generation: 7, ..Root::default() }).unwrap();
        let slot = [header.as_bytes(), &payload].concat();
        assert_eq!(read_slot(&slot).unwrap().generation, 7);
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unseal(b"key", &bad), Err(Unreadable::Damaged(_))), "bit {bit}");
        }
        for bit in 0..slot.len() * 8 {
            let mut bad = slot.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read_slot(&bad), Err(Unreadable::Damaged(_))), "bit {bit}");
        }
        for length in 0..slot.len() {
            assert!(read_slot(&slot[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn what_a_later_agent_adds_is_passed_over() {
        let root = Root { generation: 7, state: state(3), kept: Vec::new() };
        let (_, payload) = write_slot(&root).unwrap();
        let mut slot: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let places = ["", "/state", "/state/blocked/0", "/state/history/0", "/state/phase/steady"];
        for place in places {
            slot.pointer_mut(place).unwrap_or_else(|| panic!("{place} in {payload:?}"))["added"] = true.into();
        }
        let payload = serde_json::to_vec(&slot).unwrap();
        let place = format!("burgee-journal format={FORMAT} generation=7");
        let header = format!("{place} sha256={}\n", super::slot_checksum(&place, &payload));
        assert_eq!(read_slot(&[header.as_bytes(), &payload].concat()).unwrap(), root);

        let mut fields = super::fields(&root.state).unwrap();
        fields.insert("added".to_owned(), b"[1]".to_vec());
        assert_eq!(super::from_fields(&fields).unwrap(), root.state);
    }

    #[test]
    fn a_newer_format_is_not_taken_for_damage() {
        let mut record = vec![FORMAT + 1];
        record.extend_from_slice(checksum(FORMAT + 1, b"key", b"new").as_bytes());
        record.extend_from_slice(b"new");
        assert_eq!(unseal(b"key", &record), Err(Unreadable::Newer(u32::from(FORMAT) + 1)));

        let place = "burgee-journal format=9 generation=3";
        let slot = format!("{place} sha256={}\n{{}}", super::slot_checksum(place, b"{}"));
        assert_eq!(read_slot(slot.as_bytes()).unwrap_err(), Unreadable::Newer(9));
    }
}
