//! One fetch, on a blocking thread: ask for the head, get what is needed,
//! judge, and get more history where the rules ask for it.
//!
//! Depth 1 first, then only what is new since the accepted commit. The rules
//! never know how deep the local repository is: they say which commit they
//! miss ([`Stop::Missing`]), and it is deepened until they have it, the host
//! has no more, or the limit is met.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use fleet::digest::Digest;
use fleet::revision::CommitId;
use fleet::trust::refusal::Refusal;
use fleet::trust::{Mark, Refused, Root, Rules, Stop, Verdict, judge, judge_anew, mark_at, signer_at};
use gix::ObjectId;
use gix::protocol::transport::client::blocking_io::Transport;
use jiff::Timestamp;
use reqwest::header::HeaderValue;
use tokio::runtime::Handle;

use crate::ports::source::{Fetched, SourceError};

use super::address::Address;
use super::http::AgentHttp;
use super::judging::{AtHand, accepted, commit_id, object_id, refusal};
use super::local::{self, Local};
use super::meter::{Failure, Meter};
use super::session::{Depth, Session, Spawned, over_http, over_pipes, spawn};
use super::tree;
use super::trouble::{Trouble, incomplete};
use super::{Shared, Verified, Work, error, object_limit, signed_by};

/// The first clone's depth.
const ONE: NonZeroU32 = NonZeroU32::MIN;
/// By how much history is deepened first; four times as much each time after.
const DEEPEN: u32 = 15;
/// With this many packs, the local repository is made anew.
const MANY_PACKS: usize = 20;

/// After what a head is judged.
pub(super) enum After {
    /// A first start.
    Nothing,
    Mark(Box<Mark>),
    /// A first start on the operator's word.
    Anew {
        accept: CommitId,
        before: Option<Box<Mark>>,
    },
    /// For `verify`: a first start, or a commit that is taken for accepted.
    Verify(Option<CommitId>),
}

/// What came of it.
pub(super) enum Found {
    Port(Fetched),
    Verified(Verified),
}

/// A head that was given up for want of history, and what it was judged by.
#[derive(Clone)]
pub(super) struct GaveUp {
    head: ObjectId,
    after: Option<Digest>,
    root: Digest,
    refused: Refused,
}

/// An open conversation and the child that holds it.
struct Talk {
    session: Session,
    spawned: Option<Spawned>,
}

pub(super) struct Fetch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) work: &'a mut Work,
    pub(super) meter: Arc<Meter>,
    pub(super) runtime: Handle,
    pub(super) root: Root,
    pub(super) now: Timestamp,
}

impl Fetch<'_> {
    pub(super) fn run(&mut self, after: &After) -> Result<Found, SourceError> {
        match self.attempt(after) {
            // Once: what can't be read here may well be whole at the host.
            Err(Trouble::Damaged(_, bad)) => {
                tracing::warn!(
                    cause = super::meter::chain(&bad),
                    "the local repository is damaged: it is set aside and fetched anew"
                );
                self.work.local = None;
                local::set_aside(&self.shared.folder).map_err(error::local)?;
                self.attempt(after).map_err(|trouble| trouble.into_error())
            }
            other => other.map_err(|trouble| trouble.into_error()),
        }
    }

    fn attempt(&mut self, after: &After) -> Result<Found, Trouble> {
        if let Some(local) = &self.work.local {
            // What a fetch that was given up left behind would fail this one.
            local::clear(&local.folder).map_err(error::local)?;
        }
        let mut talk = self.connect()?;
        let branch = &self.shared.settings.branch;
        let head = match talk.session.head(branch) {
            Ok(Some(head)) => head,
            Ok(None) => {
                return Err(Trouble::Said(SourceError::Unreachable {
                    remote: format!("branch {branch} of {}", self.shared.settings.url),
                    hint: Some("push the branch, or see source.branch".to_owned()),
                    source: Box::new(error::Cause("the host has no such branch")),
                }));
            }
            Err(failed) => return Err(self.broken(talk, &failed).into()),
        };
        let mark = match after {
            After::Mark(mark) => Some(&**mark),
            _ => None,
        };
        if mark
            .is_some_and(|mark| Some(&mark.revision.id) == commit_id(&head).as_ref() && mark.root == self.root.digest())
            // A repository that was lost since is fetched anew.
            && self.work.local.as_ref().is_some_and(|local| local.packs.has(&head))
        {
            self.compact(talk, head);
            return Ok(Found::Port(Fetched::Same));
        }
        let id = commit_id(&head).ok_or_else(|| {
            Trouble::Said(error::local_failure("read", "the head", error::Cause("it is no commit id")))
        })?;
        self.prepare(&talk.session)?;
        self.get_head(talk, head, mark.and_then(|mark| object_id(&mark.revision.id)))?;
        if let After::Verify(Some(after)) = after {
            self.get_accepted(after);
        }
        self.settle(after, &id, head)
    }

    /// Judges, and deepens until the rules have what they need.
    fn settle(&mut self, after: &After, id: &CommitId, head: ObjectId) -> Result<Found, Trouble> {
        let after_identity = match after {
            After::Mark(mark) => Some(mark.revision.identity),
            _ => None,
        };
        if let Some(gave_up) = self.work.gave_up.clone()
            && gave_up.head == head
            && gave_up.after == after_identity
            && gave_up.root == self.root.digest()
        {
            return Err(refusal(gave_up.refused).into());
        }
        let (mut step, mut asked) = (DEEPEN, u64::from(DEEPEN));
        loop {
            let missing = match self.judge(after, id)? {
                Ok(found) => return Ok(found),
                Err(missing) => missing,
            };
            let limit = self.shared.settings.limits.commits;
            let more = asked <= limit.saturating_add(u64::from(DEEPEN)) && self.deepen(head, step)?;
            if !more {
                // A commit that `verify` was told of, and that is nowhere below the head.
                let refused = match after {
                    After::Verify(Some(accepted)) if *accepted == missing => {
                        Refusal::Rewound { accepted: accepted.clone() }
                    }
                    _ if asked > limit => {
                        Refusal::TooManyCommits { limit: usize::try_from(limit).unwrap_or(usize::MAX) }
                    }
                    _ => Refusal::ShallowHistory { missing },
                };
                let hint = refused.hint();
                let refused = Refused { commit: id.clone(), refusal: refused, hint };
                self.work.gave_up =
                    Some(GaveUp { head, after: after_identity, root: self.root.digest(), refused: refused.clone() });
                return Err(refusal(refused).into());
            }
            step = step.saturating_mul(4);
            asked = asked.saturating_add(u64::from(step));
        }
    }

    /// One judgement; the inner error is the commit that is missing.
    fn judge(&self, after: &After, id: &CommitId) -> Result<Result<Found, CommitId>, Trouble> {
        let settings = &self.shared.settings;
        let local = self.local()?;
        let commits = AtHand { packs: Arc::clone(&local.packs), limits: &settings.limits };
        let rules = Rules {
            root: &self.root,
            floor: self.shared.floor.as_ref(),
            now: self.now.as_second(),
            build: self.shared.build_date.as_second(),
            max_commits: usize::try_from(settings.limits.commits).unwrap_or(usize::MAX),
        };
        let mut known = None;
        let verdict = match after {
            After::Nothing | After::Verify(None) => judge(&commits, &rules, id, None),
            After::Mark(mark) => judge(&commits, &rules, id, Some(&**mark)),
            After::Anew { accept, before } => judge_anew(&commits, &rules, id, accept, before.as_deref()),
            After::Verify(Some(accepted)) => mark_at(&commits, &self.root, accepted).and_then(|mark| {
                let verdict = judge(&commits, &rules, id, Some(&mark));
                known = Some(mark);
                verdict
            }),
        };
        match verdict {
            Ok(Verdict::Same) => Ok(Ok(match known {
                Some(mark) => Found::Verified(self.same(&mark, id, &local.packs)?),
                None => Found::Port(Fetched::Same),
            })),
            Ok(Verdict::ClockUnset) => Ok(Ok(Found::Port(Fetched::ClockUnset { head: id.clone() }))),
            Ok(Verdict::New(mark, findings)) => {
                let object = object_id(id).ok_or_else(|| Trouble::absent(id))?;
                tree::open(&local.packs, &object, &settings.limits)
                    .map_err(|bad| Trouble::Tree(id.clone(), bad).sorted())?;
                for finding in findings {
                    tracing::warn!(%finding, "a line of trust/allowed_signers counts for less than it says");
                }
                Ok(Ok(Found::Port(Fetched::New(Box::new(accepted(*mark))))))
            }
            Err(Stop::Missing(missing)) => Ok(Err(missing)),
            Err(Stop::Refused(refused)) => Err(refusal(*refused).into()),
            Err(Stop::Read(bad)) => Err(Trouble::Tree(id.clone(), bad).sorted()),
        }
    }

    /// An accepted head, asked for by `verify`: who signed it.
    fn same(&self, mark: &Mark, id: &CommitId, packs: &super::packs::Packs) -> Result<Verified, Trouble> {
        let raw = AtHand { packs: Arc::new(packs.clone()), limits: &self.shared.settings.limits };
        let raw = fleet::trust::Commits::raw(&raw, id).map_err(|bad| Trouble::Tree(id.clone(), bad).sorted())?;
        let signer = raw.and_then(|raw| signer_at(mark, &self.root, id, &raw).ok());
        let signer = signer.as_ref().or_else(|| signed_by(mark));
        Ok(Verified::Holds {
            revision: id.clone(),
            principal: signer.map(|signer| signer.principal.clone()).unwrap_or_default(),
            fingerprint: signer.map(|signer| signer.fingerprint.clone()).unwrap_or_default(),
        })
    }

    fn local(&self) -> Result<&Local, Trouble> {
        let gone =
            || Trouble::Said(error::local_failure("open", "the local repository", error::Cause("it is not there")));
        self.work.local.as_ref().ok_or_else(gone)
    }

    /// A local repository of the host's hash.
    fn prepare(&mut self, session: &Session) -> Result<(), Trouble> {
        let folder = &self.shared.folder;
        if self.work.local.as_ref().is_some_and(|local| local.packs.hash != session.hash) {
            tracing::warn!("the host has changed its hash: the local repository is set aside");
            self.work.local = None;
        }
        if self.work.local.is_none() {
            local::set_aside(folder).map_err(error::local)?;
            let local = Local::init(folder, session.hash, object_limit(&self.shared.settings)).map_err(error::local)?;
            self.shared.publish(&local);
            self.work.local = Some(local);
        }
        Ok(())
    }

    /// Fetches the head, if it is not here yet.
    fn get_head(&mut self, talk: Talk, head: ObjectId, accepted: Option<ObjectId>) -> Result<(), Trouble> {
        let packs = Arc::clone(&self.local()?.packs);
        if packs.has(&head) {
            return Ok(());
        }
        match accepted.filter(|id| packs.has(id)) {
            None => {
                self.receive(talk, head, &BTreeSet::new(), Depth::Exactly(ONE))?;
            }
            Some(accepted) => {
                let done = self.receive(talk, head, &BTreeSet::from([accepted]), Depth::SinceHere);
                // A host that doesn't know our commit (we may hold a twin) sends all its history.
                if done.is_err() && self.meter.failure() == Some(Failure::TooLarge) {
                    self.meter.begin_again();
                    let talk = self.connect()?;
                    self.receive(talk, head, &BTreeSet::new(), Depth::Exactly(ONE))?;
                } else {
                    done?;
                }
            }
        }
        if self.local()?.packs.has(&head) { Ok(()) } else { Err(Trouble::Said(incomplete(head))) }
    }

    /// Asks for the commit that `verify --after` names; a host may refuse.
    fn get_accepted(&mut self, after: &CommitId) {
        let absent =
            |id: &ObjectId| self.local().is_ok_and(|local| local.packs.hash == id.kind() && !local.packs.has(id));
        if let Some(id) = object_id(after).filter(absent)
            && let Ok(talk) = self.connect()
            && self.receive(talk, id, &BTreeSet::new(), Depth::Exactly(ONE)).is_err()
        {
            tracing::debug!(commit = %after, "the host does not give the commit by its id: looking below the head");
            self.meter.begin_again();
        }
    }

    /// Fetches more history; `false`: the host has no more.
    fn deepen(&mut self, head: ObjectId, by: u32) -> Result<bool, Trouble> {
        let talk = self.connect()?;
        self.receive(talk, head, &BTreeSet::from([head]), Depth::More(by))
    }

    /// Whether the host sent any object.
    fn receive(
        &mut self,
        mut talk: Talk,
        want: ObjectId,
        have: &BTreeSet<ObjectId>,
        depth: Depth,
    ) -> Result<bool, Trouble> {
        let limit = object_limit(&self.shared.settings);
        let local = self.local()?;
        match talk.session.receive(local, &self.meter, want, have, depth, limit) {
            Ok(received) => {
                drop(talk);
                let Some((index, data)) = received.pack else {
                    return Ok(false);
                };
                let shared = self.shared;
                let Some(local) = self.work.local.as_mut() else {
                    return Ok(false);
                };
                local.add(&index, &data).map_err(error::local)?;
                local.point_at(&want).map_err(error::local)?;
                shared.publish(local);
                Ok(true)
            }
            Err(failed) => Err(self.broken(talk, &failed).into()),
        }
    }

    fn connect(&self) -> Result<Talk, Trouble> {
        let settings = &self.shared.settings;
        let failed = |error: &gix::Error, complaint: &str| {
            let pack_mib = settings.limits.pack_mib;
            Trouble::Said(error::conversation(&settings.url, pack_mib, self.meter.failure(), error, complaint))
        };
        let (transport, spawned): (Box<dyn Transport>, _) = match &self.shared.address {
            Address::Http { url, .. } => {
                let http = self.http(url)?;
                (over_http(http, url).map_err(|error| failed(&error, ""))?, None)
            }
            Address::Ssh { .. } | Address::File { .. } => {
                let programs = self.shared.address.programs(settings);
                let (spawned, pipes) = spawn(&programs, &self.runtime, &self.meter)
                    .map_err(|error| failed(&gix::Error::from_error(error), ""))?;
                (over_pipes(pipes, &settings.url), Some(spawned))
            }
        };
        match Session::open(transport) {
            Ok(session) => Ok(Talk { session, spawned }),
            Err(error) => {
                let complaint = spawned.map(Spawned::complaint).unwrap_or_default();
                Err(failed(&error, &complaint))
            }
        }
    }

    fn http(&self, url: &str) -> Result<AgentHttp, Trouble> {
        let settings = &self.shared.settings;
        let unusable = || Trouble::Said(error::setting("source.url", url, None, error::Cause("it is no URL")));
        let authorization = match &settings.token_file {
            None => None,
            Some(path) => {
                let failed = |source: io::Error| SourceError::Local {
                    action: "read",
                    thing: path.display().to_string(),
                    transient: true,
                    hint: Some("see source.token_file".to_owned()),
                    source: source.into(),
                };
                let token = std::fs::read_to_string(path).map_err(failed)?;
                let token = token.trim();
                let text = match &settings.username {
                    Some(user) => {
                        use base64::Engine as _;
                        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
                        format!("Basic {both}")
                    }
                    None => format!("Bearer {token}"),
                };
                let mut value = HeaderValue::try_from(text).map_err(|error| failed(io::Error::other(error)))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(AgentHttp {
            client: self.shared.client.clone().ok_or_else(unusable)?,
            runtime: self.runtime.clone(),
            meter: Arc::clone(&self.meter),
            authorization,
            origin: url.parse().map_err(|_| unusable())?,
            moved_to: None,
        })
    }

    /// Ends a conversation that failed.
    fn broken(&self, talk: Talk, failed: &gix::Error) -> SourceError {
        let Talk { session, spawned } = talk;
        // Its pipes first, so that the child ends and its complaint is whole.
        drop(session);
        let complaint = spawned.map(Spawned::complaint).unwrap_or_default();
        let settings = &self.shared.settings;
        error::conversation(&settings.url, settings.limits.pack_mib, self.meter.failure(), failed, &complaint)
    }

    /// Makes a local repository of many packs anew, from the accepted head that
    /// the host serves right now. What is here stays until the new one is whole.
    fn compact(&mut self, talk: Talk, head: ObjectId) {
        let count = self.work.local.as_ref().map_or(0, |local| local.packs.count());
        if count < MANY_PACKS || count <= self.work.compact_failed_at {
            return;
        }
        if let Err(trouble) = self.compact_now(talk, head) {
            let cause = trouble.into_error();
            tracing::warn!(cause = super::meter::chain(&cause), "the local repository could not be made anew");
            self.work.compact_failed_at = count;
        } else {
            self.work.compact_failed_at = 0;
            tracing::info!(packs = count, "the local repository was made anew");
        }
    }

    fn compact_now(&mut self, mut talk: Talk, head: ObjectId) -> Result<(), Trouble> {
        let limit = object_limit(&self.shared.settings);
        let (folder, fresh) = (&self.shared.folder, local::beside(&self.shared.folder, ".new"));
        let mut new = Local::init(&fresh, talk.session.hash, limit).map_err(error::local)?;
        let received = talk
            .session
            .receive(&new, &self.meter, head, &BTreeSet::new(), Depth::Exactly(ONE), limit)
            .map_err(|failed| self.broken(talk, &failed))?;
        let (index, data) = received.pack.ok_or_else(|| Trouble::Said(incomplete(head)))?;
        new.add(&index, &data).map_err(error::local)?;
        new.point_at(&head).map_err(error::local)?;
        let id = commit_id(&head).ok_or_else(|| Trouble::Said(incomplete(head)))?;
        tree::open(&new.packs, &head, &self.shared.settings.limits).map_err(|bad| Trouble::Tree(id, bad).sorted())?;
        local::swap(&fresh, folder).map_err(error::local)?;
        let opened = Local::open(folder, limit).map_err(error::local)?;
        if let Some(local) = &opened {
            self.shared.publish(local);
        }
        self.work.local = opened;
        Ok(())
    }
}
