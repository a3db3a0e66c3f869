//! Reading objects, from the packs of the local repository alone.
//!
//! Everything that was fetched lies in packs that are whole in themselves;
//! there are no loose objects, alternates, replacement refs or grafts to look
//! at, and none are. Each object's hash is recomputed when it is read (SHA-1
//! with collision detection), so a disk that lies is noticed like a host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::hash::Kind as Hash;
use gix::objs::{Data, Kind};
use gix::odb::pack::data::decode::entry::ResolvedBase as EntryBase;
use gix::odb::pack::data::decode::header::ResolvedBase as HeaderBase;
use gix::odb::pack::{Bundle, cache};
use gix::zlib::Inflate;

/// An object that is there and can't be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ObjectError {
    #[error("object {id} can't be read")]
    Decode {
        id: ObjectId,
        #[source]
        source: gix::Error,
    },
    #[error("object {id} is a {found}, expected a {expected}")]
    Kind { id: ObjectId, found: Kind, expected: Kind },
    #[error("object {id} has another content than its id says")]
    Hash { id: ObjectId },
    #[error("object {id} is {size} bytes, the limit is {limit}")]
    TooLarge { id: ObjectId, size: u64, limit: u64 },
    #[error("pack {path} can't be opened")]
    Open {
        path: PathBuf,
        #[source]
        source: gix::Error,
    },
}

/// The packs of one local repository, as of one moment.
#[derive(Clone)]
pub(super) struct Packs {
    pub(super) hash: Hash,
    /// No object larger than this is decoded, in bytes.
    limit: usize,
    /// Newest last.
    bundles: Vec<Arc<Bundle>>,
}

impl Packs {
    pub(super) fn empty(hash: Hash, limit: usize) -> Self {
        Self { hash, limit, bundles: Vec::new() }
    }

    /// Adds the pack whose index is at `path`.
    pub(super) fn add(&mut self, path: &Path) -> Result<(), ObjectError> {
        let open = |source| ObjectError::Open { path: path.to_owned(), source };
        let Bundle { pack, index } = Bundle::at(path, self.hash).map_err(open)?;
        let pack = pack.with_alloc_limit_bytes(Some(self.limit));
        self.bundles.push(Arc::new(Bundle { pack, index }));
        Ok(())
    }

    pub(super) fn count(&self) -> usize {
        self.bundles.len()
    }

    pub(super) fn has(&self, id: &ObjectId) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &ObjectId) -> Option<(&Bundle, u32)> {
        self.bundles.iter().rev().find_map(|bundle| Some((&**bundle, bundle.index.lookup(id)?)))
    }

    /// Kind and size of an object, without its content; `None`: not there.
    pub(super) fn header(&self, id: &ObjectId) -> Result<Option<(Kind, u64)>, ObjectError> {
        let Some((bundle, at)) = self.find(id) else {
            return Ok(None);
        };
        let decode = |source| ObjectError::Decode { id: *id, source };
        let entry = bundle.pack.entry(bundle.index.pack_offset_at_index(at)).map_err(decode)?;
        let base = |id: &gix::oid| {
            let at = bundle.index.lookup(id);
            let entry = at.map(|at| bundle.pack.entry(bundle.index.pack_offset_at_index(at))).transpose()?;
            Ok(entry.map(HeaderBase::InPack))
        };
        let header = bundle.pack.decode_header(entry, &mut Inflate::default(), &base).map_err(decode)?;
        Ok(Some((header.kind, header.object_size)))
    }

    /// An object's bytes; `None`: not there.
    ///
    /// # Errors
    /// When it is of another kind, larger than `limit`, or damaged.
    pub(super) fn read(&self, id: &ObjectId, expected: Kind, limit: u64) -> Result<Option<Vec<u8>>, ObjectError> {
        let Some((found, size)) = self.header(id)? else {
            return Ok(None);
        };
        if size > limit {
            return Err(ObjectError::TooLarge { id: *id, size, limit });
        }
        let Some((_, bytes)) = self.decode(id)? else {
            return Ok(None);
        };
        let hash = gix::objs::compute_hash(self.hash, found, &bytes)
            .map_err(|source| ObjectError::Decode { id: *id, source })?;
        // Damage first: a disk can turn a commit into a tag, too.
        if hash != *id {
            return Err(ObjectError::Hash { id: *id });
        }
        if found == expected { Ok(Some(bytes)) } else { Err(ObjectError::Kind { id: *id, found, expected }) }
    }

    fn decode(&self, id: &ObjectId) -> Result<Option<(Kind, Vec<u8>)>, ObjectError> {
        let Some((bundle, at)) = self.find(id) else {
            return Ok(None);
        };
        let decode = |source| ObjectError::Decode { id: *id, source };
        let entry = bundle.pack.entry(bundle.index.pack_offset_at_index(at)).map_err(decode)?;
        let base = |id: &gix::oid, _: &mut Vec<u8>| {
            let at = bundle.index.lookup(id);
            let entry = at.map(|at| bundle.pack.entry(bundle.index.pack_offset_at_index(at))).transpose()?;
            Ok(entry.map(EntryBase::InPack))
        };
        let mut bytes = Vec::new();
        let done = bundle
            .pack
            .decode_entry(entry, &mut bytes, &mut Inflate::default(), &base, &mut cache::Never)
            .map_err(decode)?;
        Ok(Some((done.kind, bytes)))
    }
}

/// What a thin pack's deltas stand on.
impl gix::objs::Find for Packs {
    fn try_find<'a>(&self, id: &gix::oid, buffer: &'a mut Vec<u8>) -> gix::Result<Option<Data<'a>>> {
        let found = self.decode(&id.to_owned()).map_err(gix::Error::from_error)?;
        Ok(found.map(|(kind, bytes)| {
            *buffer = bytes;
            Data { kind, data: buffer, object_hash: self.hash }
        }))
    }
}
