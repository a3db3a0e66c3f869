//! Accepting a head: the seven rules of design §4 but the last, which is about
//! the tree and is held where trees are read ([`super::names`]).
//!
//! Pure: commits come through [`Commits`], times come in. What is not at hand
//! is asked for by [`Stop::Missing`].

use std::collections::BTreeSet;

use crate::finding::Finding;
use crate::revision::{CommitId, Revision};

use super::commit::{Commit, Links, committed_at, subject_of};
use super::force::{ALLOWED_SIGNERS, Force, Mark, POLICY, REVOKED_KEYS, Root};
use super::policy::{Policy, Require};
use super::refusal::{At, Refusal};
use super::signers::{Signer, Signers, parse_revoked};
use super::walk::{Commits, Reached, Refused, Stop, Walk};

/// A day, in seconds: how far clocks may be apart.
const DAY: i64 = 24 * 60 * 60;

/// What a head is judged by, beside the accepted one.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub root: &'a Root,
    /// agent.toml's floor.
    pub floor: Option<&'a CommitId>,
    /// The device's clock, seconds since 1970.
    pub now: i64,
    /// When this program was built: a clock before that is not set.
    pub build: i64,
    /// How many commits may be looked at.
    pub max_commits: usize,
}

/// What becomes of a head that no rule refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is the accepted revision, or a twin of it.
    Same,
    /// It may be accepted; the findings are lines of its `trust/` that count
    /// for nothing.
    New(Box<Mark>, Vec<Finding>),
    /// It can only be judged once the clock is set.
    ClockUnset,
}

/// Judges `head` after the accepted `after`; `None`: a first start. Where the
/// device's root changed since, it anchors anew, and still after `after`.
///
/// # Errors
/// The refusal; or a commit that is needed and not at hand.
pub fn judge<C: Commits>(
    commits: &C,
    rules: &Rules<'_>,
    head: &CommitId,
    after: Option<&Mark>,
) -> Result<Verdict, Stop<C::Error>> {
    let walk = Walk::new(commits, rules.max_commits);
    let judge = Judge { walk: &walk, rules, head };
    let Some(after) = after else {
        let (chain, force) = judge.anchor()?;
        return judge.accept(&chain, force, None, None);
    };
    let same = walk.links(head)?.identity == after.revision.identity;
    let same_root = after.root == rules.root.digest();
    if same && same_root {
        return Ok(Verdict::Same);
    }
    let chain = judge.descent(after)?;
    if same_root {
        return judge.accept(&chain, Force::at(after, rules.root), Some(after), None);
    }
    let (chain, mut force) = judge.anchor()?;
    force.revoked.extend(after.revoked.iter().copied());
    judge.accept(&chain, force, Some(after), None)
}

/// Judges `head` on the operator's word that history was rewritten: a first
/// start, but at or above `accept`, which becomes the floor. What `before`
/// remembers of revoked keys stays.
///
/// # Errors
/// As [`judge`].
pub fn judge_anew<C: Commits>(
    commits: &C,
    rules: &Rules<'_>,
    head: &CommitId,
    accept: &CommitId,
    before: Option<&Mark>,
) -> Result<Verdict, Stop<C::Error>> {
    let walk = Walk::new(commits, rules.max_commits);
    let judge = Judge { walk: &walk, rules, head };
    let (chain, mut force) = judge.anchor()?;
    force.revoked.extend(before.iter().flat_map(|mark| mark.revoked.iter().copied()));
    judge.accept(&chain, force, None, Some(accept))
}

/// The mark at a commit that is taken for accepted without being judged:
/// what `verify --after` stands on.
///
/// # Errors
/// When its `trust/` is malformed or it is not at hand.
pub fn mark_at<C: Commits>(commits: &C, root: &Root, id: &CommitId) -> Result<Mark, Stop<C::Error>> {
    let walk = Walk::new(commits, 1);
    let refused = |refusal| Stop::refused(id, refusal);
    let raw = walk.raw(id)?;
    let links = Links::read(&raw).map_err(refused)?;
    let mut force = Force::root(root);
    force.apply(&commits.folder(id).map_err(Stop::Read)?).map_err(refused)?;
    Ok(Mark {
        revision: Revision { id: id.clone(), identity: links.identity },
        files: force.files,
        folder: force.folder,
        revoked: force.revoked,
        above: force.policy.floor.iter().cloned().collect(),
        floor: force.policy.floor,
        committed_at: committed_at(id, &raw).map_err(refused)?,
        signer: Signer { principal: String::new(), fingerprint: String::new() },
        subject: subject_of(&raw),
        root: root.digest(),
    })
}

/// Who signed a commit, by the signers in force at `mark`, whatever the dates say.
///
/// # Errors
/// When it is not signed by one of them.
pub fn signer_at(mark: &Mark, root: &Root, id: &CommitId, raw: &[u8]) -> Result<Signer, Refusal> {
    let commit = Commit::read(id, raw)?;
    commit.verify()?;
    Force::at(mark, root).signer(&commit.signature.key, root, None)
}

/// The journalled floor, and every floor that the head is at or above.
type Floors = (Option<CommitId>, BTreeSet<CommitId>);

struct Judge<'a, C> {
    walk: &'a Walk<'a, C>,
    rules: &'a Rules<'a>,
    head: &'a CommitId,
}

impl<C: Commits> Judge<'_, C> {
    /// Rule 2: the chain from the accepted revision, oldest first.
    fn descent(&self, after: &Mark) -> Result<Vec<CommitId>, Stop<C::Error>> {
        let rewound = || Stop::refused(self.head, Refusal::Rewound { accepted: after.revision.id.clone() });
        // An older head is told without fetching the history below it.
        let head = self.walk.links(self.head)?;
        let older = Walk::new(self.walk.commits, self.rules.max_commits);
        if head.identity != after.revision.identity
            && matches!(older.known_ancestor(&after.revision.id, head.identity), Ok(true))
        {
            return Err(rewound());
        }
        self.walk.chain(self.head, after.revision.identity)?.ok_or_else(rewound)
    }

    /// First start: the newest commit that the root vouches for, as a chain
    /// from there, with what is in force at it.
    fn anchor(&self) -> Result<(Vec<CommitId>, Force), Stop<C::Error>> {
        let mut line = Vec::new();
        let mut tried = BTreeSet::new();
        let mut at = Some(self.head.clone());
        while let Some(id) = at {
            let links = self.walk.links(&id)?;
            line.push(id.clone());
            tried.insert(id.clone());
            if let Some(force) = self.vouched(&id)? {
                line.reverse();
                return Ok((line, force));
            }
            at = links.parents.first().cloned();
        }
        // Not on the first-parent line: anywhere below the head, nearest first.
        let mut queue: std::collections::VecDeque<_> = line.into_iter().collect();
        while let Some(id) = queue.pop_front() {
            for parent in &self.walk.links(&id)?.parents {
                if !tried.insert(parent.clone()) {
                    continue;
                }
                if let Some(force) = self.vouched(parent)? {
                    let identity = self.walk.links(parent)?.identity;
                    let chain = self.walk.chain(self.head, identity)?;
                    return Ok((chain.unwrap_or_else(|| vec![self.head.clone()]), force));
                }
                queue.push_back(parent.clone());
            }
        }
        let refusal = match self.signed(self.head, &Force::root(self.rules.root), Some(At::Commit))? {
            Ok(_) => Refusal::NoAnchor,
            Err(refusal) => refusal,
        };
        let keys = self.rules.root.fingerprints().into_iter().collect::<Vec<_>>().join(", ");
        let hint = format!(
            "on a first start, a commit that agrees with the device's own trust file must be signed by a key of it ({keys}); if the keys were rotated since, that file is old"
        );
        Err(Stop::Refused(Box::new(Refused { commit: self.head.clone(), refusal, hint: Some(hint) })))
    }

    /// Whether the root vouches for a commit, and what is in force there then.
    fn vouched(&self, id: &CommitId) -> Result<Option<Force>, Stop<C::Error>> {
        let root = self.rules.root;
        let mut force = Force::root(root);
        if self.signed(id, &force, Some(At::Commit))?.is_err() {
            return Ok(None);
        }
        let folder = self.walk.commits.folder(id).map_err(Stop::Read)?;
        if folder.digest.is_some() {
            let Some(signers) = folder.files.get(ALLOWED_SIGNERS) else {
                return Ok(None);
            };
            let (signers, _) = Signers::parse(ALLOWED_SIGNERS, signers);
            let revoked = folder.files.get(REVOKED_KEYS).map(|bytes| parse_revoked(REVOKED_KEYS, bytes));
            let (revoked, _) = revoked.unwrap_or_default();
            let key = self.commit(id)?.signature.key;
            if signers.grants() != root.signers.grants() || revoked.contains(&key) {
                return Ok(None);
            }
        }
        match force.apply(&folder) {
            Ok(()) => Ok(Some(force)),
            Err(refusal) if id == self.head => Err(Stop::refused(id, refusal)),
            // Below the head, a commit that no device could have accepted is no anchor.
            Err(_) => Ok(None),
        }
    }

    /// Rules 3 to 6 along `chain`, which begins with what is taken as accepted.
    fn accept(
        &self,
        chain: &[CommitId],
        mut force: Force,
        after: Option<&Mark>,
        accept: Option<&CommitId>,
    ) -> Result<Verdict, Stop<C::Error>> {
        // Where the anchor is the head, it is judged by the root itself.
        let mut before = Force { revoked: force.revoked.clone(), ..Force::root(self.rules.root) };
        let mut reached = chain.first().cloned().map(Reached::of);
        for pair in chain.windows(2) {
            let [predecessor, id] = pair else { continue };
            let folder = self.walk.commits.folder(id).map_err(Stop::Read)?;
            before = force.clone();
            let every = before.policy.require == Require::EveryCommit;
            let changes = folder.digest != before.folder;
            if changes || every || id == self.head {
                self.signed(id, &before, Some(At::Commit))?.map_err(|refusal| Stop::refused(id, refusal))?;
            }
            if let (true, Some(reached)) = (every, reached.as_mut()) {
                self.side_branches(id, predecessor, &before, reached)?;
            }
            if let Some(reached) = reached.as_mut() {
                reached.add(id.clone());
            }
            if changes {
                let date =
                    |id: &CommitId| committed_at(id, &self.walk.raw(id)?).map_err(|refusal| Stop::refused(id, refusal));
                if date(id)? < date(predecessor)? - DAY {
                    return Err(Stop::refused(id, Refusal::BackDated));
                }
                match force.apply(&folder) {
                    Err(refusal) if id == self.head => return Err(Stop::refused(id, refusal)),
                    _ => {}
                }
            }
        }
        self.head_rules(&before, force, after, accept)
    }

    /// Rule 4's second half: what `id` reaches and its predecessor doesn't.
    fn side_branches(
        &self,
        id: &CommitId,
        predecessor: &CommitId,
        force: &Force,
        reached: &mut Reached,
    ) -> Result<(), Stop<C::Error>> {
        let mut stack: Vec<_> =
            self.walk.links(id)?.parents.iter().filter(|parent| *parent != predecessor).cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            if !seen.insert(id.clone()) {
                continue;
            }
            // Keeps pace with the side branch, so that the fork is mostly known by the time it is met.
            reached.step(self.walk)?;
            let links = self.walk.links(&id)?;
            if reached.has(links.identity) {
                continue;
            }
            match self.signed(&id, force, Some(At::Commit))? {
                Ok(_) => stack.extend(links.parents.iter().cloned()),
                Err(_) if reached.reaches(self.walk, links.identity)? => {}
                Err(refusal) => return Err(Stop::refused(&id, refusal)),
            }
        }
        seen.into_iter().for_each(|id| reached.add(id));
        Ok(())
    }

    /// Rules 4 to 6 for the head itself.
    fn head_rules(
        &self,
        before: &Force,
        force: Force,
        after: Option<&Mark>,
        accept: Option<&CommitId>,
    ) -> Result<Verdict, Stop<C::Error>> {
        let Rules { root, now, build, .. } = *self.rules;
        let refused = |refusal| Stop::refused(self.head, refusal);
        let links = self.walk.links(self.head)?;
        let commit = self.commit(self.head)?;
        let same = after.is_some_and(|after| after.revision.identity == links.identity);
        let (floor, above) = self.floors(&force, after, accept)?;

        let unset = now < build || after.is_some_and(|after| now < after.committed_at - DAY);
        // The accepted head is judged anew only for who signed it: rule 1, "whatever the dates say now".
        let time = (!same).then_some((At::Now, now));
        if time.is_some() && unset {
            return Ok(Verdict::ClockUnset);
        }
        if !same && commit.committed_at > now.saturating_add(DAY) {
            return Err(refused(Refusal::FutureDated));
        }
        let signer = before.signer(&commit.signature.key, root, time).map_err(refused)?;
        let mark = Mark {
            revision: Revision { id: self.head.clone(), identity: links.identity },
            files: force.files,
            folder: force.folder,
            revoked: force.revoked,
            floor,
            above,
            committed_at: commit.committed_at,
            signer,
            subject: commit.subject,
            root: root.digest(),
        };
        Ok(Verdict::New(Box::new(mark), force.findings))
    }

    /// Rule 6: the floor that is journalled from here on, and all that the head
    /// is known to be at or above.
    fn floors(&self, force: &Force, after: Option<&Mark>, accept: Option<&CommitId>) -> Result<Floors, Stop<C::Error>> {
        // Rule 2 has held: what the accepted revision is above, the head is, too.
        let mut above = after.map(|mark| mark.above.clone()).unwrap_or_default();
        let mut journalled = accept.or(after.and_then(|mark| mark.floor.as_ref())).cloned();
        let mut meets = |floor: &CommitId| -> Result<bool, Stop<C::Error>> {
            let met = above.contains(floor) || self.walk.descends(self.head, floor)?;
            if met {
                above.insert(floor.clone());
            }
            Ok(met)
        };
        let in_force = force.policy.floor.as_ref();
        for floor in journalled.iter().chain(self.rules.floor).chain(in_force) {
            if !meets(floor)? {
                return Err(Stop::refused(self.head, Refusal::BelowFloor { floor: floor.clone() }));
            }
        }
        for floor in force.floors.iter().chain(in_force) {
            if journalled.as_ref() == Some(floor) || !meets(floor)? {
                continue;
            }
            let forward = match &journalled {
                Some(old) => self.walk.descends(floor, old)?,
                None => true,
            };
            if forward {
                journalled = Some(floor.clone());
            }
        }
        Ok((journalled, above))
    }

    fn commit(&self, id: &CommitId) -> Result<Commit, Stop<C::Error>> {
        Commit::read(id, &self.walk.raw(id)?).map_err(|refusal| Stop::refused(id, refusal))
    }

    /// Whether a commit is signed by a key in force, valid at its own date
    /// where `at` says so. The inner result is the rules' word.
    fn signed(&self, id: &CommitId, force: &Force, at: Option<At>) -> Result<Result<Signer, Refusal>, Stop<C::Error>> {
        let raw = self.walk.raw(id)?;
        Ok(Commit::read(id, &raw).and_then(|commit| {
            commit.verify()?;
            force.signer(&commit.signature.key, self.rules.root, at.map(|at| (at, commit.committed_at)))
        }))
    }
}

/// The policy that a file says, for those who only want to look.
#[must_use]
pub fn policy_of(mark: &Mark) -> Policy {
    mark.files.get(POLICY).and_then(|text| Policy::parse(POLICY, text.as_bytes()).ok()).unwrap_or_default()
}
