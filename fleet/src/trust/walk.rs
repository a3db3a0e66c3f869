//! Walking history: paths, ancestry, and what one commit adds to another.
//!
//! Only parents and identities are looked at here; nothing is judged. A commit
//! that is not there is [`Stop::Missing`]: the source fetches deeper and asks
//! again, so that the rules never know how deep a clone is.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::digest::Digest;
use crate::revision::CommitId;

use super::commit::Links;
use super::force::Folder;
use super::refusal::Refusal;

/// The commits that are at hand.
pub trait Commits {
    /// Why one can't be read.
    type Error;

    /// The raw commit, its id recomputed; `None` where it is not at hand.
    ///
    /// # Errors
    /// When reading failed. A failed read is never `None`.
    fn raw(&self, id: &CommitId) -> Result<Option<Vec<u8>>, Self::Error>;

    /// `trust/` of a commit that is at hand.
    ///
    /// # Errors
    /// When reading failed.
    fn folder(&self, id: &CommitId) -> Result<Folder, Self::Error>;
}

/// A commit and why it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub commit: CommitId,
    pub refusal: Refusal,
    /// The next step for a person, where there is one.
    pub hint: Option<String>,
}

/// Why there is no verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop<E> {
    Refused(Box<Refused>),
    /// This commit is needed and not at hand.
    Missing(CommitId),
    Read(E),
}

impl<E> Stop<E> {
    pub(super) fn refused(commit: &CommitId, refusal: Refusal) -> Self {
        let hint = refusal.hint();
        Self::Refused(Box::new(Refused { commit: commit.clone(), refusal, hint }))
    }
}

/// A bounded view of history.
pub(super) struct Walk<'a, C> {
    pub(super) commits: &'a C,
    limit: usize,
    seen: RefCell<BTreeMap<CommitId, Rc<Links>>>,
}

impl<'a, C: Commits> Walk<'a, C> {
    pub(super) fn new(commits: &'a C, limit: usize) -> Self {
        Self { commits, limit, seen: RefCell::new(BTreeMap::new()) }
    }

    /// The raw commit, which must be at hand.
    pub(super) fn raw(&self, id: &CommitId) -> Result<Vec<u8>, Stop<C::Error>> {
        self.commits.raw(id).map_err(Stop::Read)?.ok_or_else(|| Stop::Missing(id.clone()))
    }

    /// Parents and identity.
    pub(super) fn links(&self, id: &CommitId) -> Result<Rc<Links>, Stop<C::Error>> {
        if let Some(links) = self.seen.borrow().get(id) {
            return Ok(Rc::clone(links));
        }
        if self.seen.borrow().len() >= self.limit {
            return Err(Stop::refused(id, Refusal::TooManyCommits { limit: self.limit }));
        }
        let links = Links::read(&self.raw(id)?).map_err(|refusal| Stop::refused(id, refusal))?;
        let links = Rc::new(links);
        self.seen.borrow_mut().insert(id.clone(), Rc::clone(&links));
        Ok(links)
    }

    /// Whether the identity is `from` or an ancestor of it, among the commits
    /// that are at hand.
    pub(super) fn known_ancestor(&self, from: &CommitId, identity: Digest) -> Result<bool, Stop<C::Error>> {
        let mut reached = Reached::of(from.clone());
        while reached.step(self)? {
            if reached.identities.contains(&identity) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether `from` is, or descends from, the commit `target` (or a twin).
    pub(super) fn descends(&self, from: &CommitId, target: &CommitId) -> Result<bool, Stop<C::Error>> {
        let twin = match self.commits.raw(target).map_err(Stop::Read)? {
            Some(raw) => Links::read(&raw).ok().map(|links| links.identity),
            None => None,
        };
        let found = self.shortest(from, |id, links| id == target || Some(links.identity) == twin)?;
        Ok(found.is_some())
    }

    /// The chain from the commit with `identity` to `head`, both included,
    /// oldest first: the first-parent line where that reaches it, else a
    /// shortest path. `None`: `head` does not descend from it.
    pub(super) fn chain(&self, head: &CommitId, identity: Digest) -> Result<Option<Vec<CommitId>>, Stop<C::Error>> {
        let Some(shortest) = self.shortest(head, |_, links| links.identity == identity)? else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let mut at = Some(head.clone());
        while let Some(id) = at {
            let links = match self.links(&id) {
                // Within the bound, the line does not reach it.
                Err(Stop::Refused(_)) => break,
                other => other?,
            };
            line.push(id);
            if links.identity == identity {
                line.reverse();
                return Ok(Some(line));
            }
            at = links.parents.first().cloned();
        }
        Ok(Some(shortest))
    }

    /// The nearest commit that `is_target`, and the way to `head`, oldest first.
    fn shortest(
        &self,
        head: &CommitId,
        is_target: impl Fn(&CommitId, &Links) -> bool,
    ) -> Result<Option<Vec<CommitId>>, Stop<C::Error>> {
        let mut child: BTreeMap<CommitId, Option<CommitId>> = BTreeMap::from([(head.clone(), None)]);
        let mut queue = VecDeque::from([head.clone()]);
        let mut missing = None;
        while let Some(id) = queue.pop_front() {
            let links = match self.links(&id) {
                Err(Stop::Missing(id)) => {
                    missing.get_or_insert(id);
                    continue;
                }
                other => other?,
            };
            if is_target(&id, &links) {
                let mut path = vec![id];
                while let Some(Some(next)) = path.last().and_then(|id| child.get(id)) {
                    path.push(next.clone());
                }
                return Ok(Some(path));
            }
            for parent in &links.parents {
                if !child.contains_key(parent) {
                    child.insert(parent.clone(), Some(id.clone()));
                    queue.push_back(parent.clone());
                }
            }
        }
        missing.map_or(Ok(None), |id| Err(Stop::Missing(id)))
    }
}

/// What a set of commits reaches, found out step by step.
pub(super) struct Reached {
    identities: BTreeSet<Digest>,
    queue: VecDeque<CommitId>,
    queued: BTreeSet<CommitId>,
    missing: Option<CommitId>,
}

impl Reached {
    pub(super) fn of(id: CommitId) -> Self {
        let mut reached =
            Self { identities: BTreeSet::new(), queue: VecDeque::new(), queued: BTreeSet::new(), missing: None };
        reached.add(id);
        reached
    }

    pub(super) fn add(&mut self, id: CommitId) {
        if self.queued.insert(id.clone()) {
            self.queue.push_back(id);
        }
    }

    /// Looks at one more commit; `false` where none is left.
    pub(super) fn step<C: Commits>(&mut self, walk: &Walk<'_, C>) -> Result<bool, Stop<C::Error>> {
        let Some(id) = self.queue.pop_front() else {
            return Ok(false);
        };
        match walk.links(&id) {
            Ok(links) => {
                self.identities.insert(links.identity);
                links.parents.iter().cloned().for_each(|parent| self.add(parent));
            }
            Err(Stop::Missing(id)) => {
                self.missing.get_or_insert(id);
            }
            Err(stop) => return Err(stop),
        }
        Ok(true)
    }

    /// Whether it is known to be reached by now.
    pub(super) fn has(&self, identity: Digest) -> bool {
        self.identities.contains(&identity)
    }

    /// Whether it is reached at all.
    pub(super) fn reaches<C: Commits>(&mut self, walk: &Walk<'_, C>, identity: Digest) -> Result<bool, Stop<C::Error>> {
        while !self.has(identity) {
            if !self.step(walk)? {
                return self.missing.clone().map_or(Ok(false), |id| Err(Stop::Missing(id)));
            }
        }
        Ok(true)
    }
}
