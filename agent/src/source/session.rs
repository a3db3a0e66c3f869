//! One conversation with a host: handshake, the branch's head, one pack.
//!
//! Only the one branch is asked for, by its whole name; tags and other refs
//! never are. What to fetch is the caller's word; nothing is judged here.

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use gix::ObjectId;
use gix::hash::Kind as Hash;
use gix::odb::pack::Bundle;
use gix::odb::pack::bundle::write::Options as WriteOptions;
use gix::progress::Discard;
use gix::protocol::fetch::negotiate::{Action, Round, one_round};
use gix::protocol::fetch::{Arguments, Context, Options, Response, Shallow, Tags};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::transport::client::blocking_io::Transport;
use gix::protocol::transport::client::blocking_io::http::Transport as HttpTransport;
use gix::protocol::transport::client::git::ConnectMode;
use gix::protocol::transport::client::git::blocking_io::Connection;
use gix::protocol::transport::{Protocol, Service};
use gix::protocol::{Handshake, LsRefsCommand, SendFlushOnDrop};

use super::http::AgentHttp;
use super::local::Local;
use super::meter::Meter;
use super::process::{self, Pipes};

/// How much history to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// This many commits from the head.
    Exactly(NonZeroU32),
    /// This many more than there are.
    More(u32),
    /// What is new since the commits that are here.
    SinceHere,
}

/// An open conversation.
pub(super) struct Session {
    transport: SendFlushOnDrop<Box<dyn Transport>>,
    handshake: Handshake,
    /// Of the repository, as the handshake names it.
    pub(super) hash: Hash,
}

/// What a fetch brought.
pub(super) struct Received {
    /// Index and data of the new pack; `None`: the host sent no object.
    pub(super) pack: Option<(PathBuf, PathBuf)>,
}

fn agent() -> gix::protocol::command::Feature {
    ("agent", Some(concat!("git/burgee-", env!("CARGO_PKG_VERSION")).to_owned()))
}

/// Over smart HTTP.
pub(super) fn over_http(http: AgentHttp, url: &str) -> gix::Result<Box<dyn Transport>> {
    let url = gix::url::parse(url)?;
    Ok(Box::new(HttpTransport::new_http(http, url, Protocol::V2, false)))
}

/// Over a child's pipes.
pub(super) fn over_pipes((output, input): Pipes, url: &str) -> Box<dyn Transport> {
    let none = None::<(&str, Option<u16>)>;
    let connection = Connection::new(output, input, Protocol::V2, "", none, ConnectMode::Process, false);
    Box::new(connection.custom_url(Some(url.into())))
}

/// Re-exported, so that only this room knows how a child is started.
pub(super) use process::{Spawned, spawn};

impl Session {
    pub(super) fn open(transport: Box<dyn Transport>) -> gix::Result<Self> {
        let mut transport = SendFlushOnDrop::new(transport, false);
        // Credentials are sent with the first request, or not at all.
        let no_credentials = |_| Ok(None);
        let handshake = gix::protocol::handshake(
            &mut transport.inner,
            Service::UploadPack,
            no_credentials,
            Vec::new(),
            &mut Discard,
        )?;
        let hash = match handshake
            .capabilities
            .capability("object-format")
            .and_then(|format| format.value().map(|value| value.to_string()))
        {
            Some(format) => format.parse().map_err(|_| {
                gix::Error::from_error(io::Error::other(format!("the host names an unknown object format: {format}")))
            })?,
            None => Hash::Sha1,
        };
        Ok(Self { transport, handshake, hash })
    }

    /// The branch's head; `None`: the host has no such branch.
    pub(super) fn head(&mut self, branch: &str) -> gix::Result<Option<ObjectId>> {
        let name = format!("refs/heads/{branch}");
        let refs = match self.handshake.refs.take() {
            Some(refs) => refs,
            None => {
                let mut prefixes = RefPrefixes::new();
                prefixes.extend([name.as_str().into()]);
                LsRefsCommand::new(Some(prefixes), &self.handshake.capabilities, agent()).invoke_blocking(
                    &mut self.transport.inner,
                    &mut Discard,
                    false,
                )?
            }
        };
        let head = refs.iter().find_map(|found| match found {
            Ref::Direct { full_ref_name, object } | Ref::Symbolic { full_ref_name, object, .. }
                if *full_ref_name == name =>
            {
                Some(*object)
            }
            _ => None,
        });
        Ok(head)
    }

    /// Fetches `want` into `local`, telling the host that `have` is here.
    pub(super) fn receive(
        &mut self,
        local: &Local,
        meter: &Arc<Meter>,
        want: ObjectId,
        have: &BTreeSet<ObjectId>,
        depth: Depth,
        limit: usize,
    ) -> gix::Result<Received> {
        let shallow = match depth {
            Depth::Exactly(commits) => Shallow::DepthAtRemote(commits),
            Depth::More(commits) => Shallow::Deepen(commits),
            Depth::SinceHere => Shallow::NoChange,
        };
        let options = Options {
            shallow_file: local.shallow_file(),
            shallow: &shallow,
            tags: Tags::None,
            reject_shallow_remote: false,
        };
        let context = Context {
            handshake: &mut self.handshake,
            transport: &mut self.transport.inner,
            user_agent: agent(),
            trace_packetlines: false,
        };
        let write = WriteOptions { thread_limit: Some(1), alloc_limit_bytes: Some(limit), ..WriteOptions::default() };
        let (hash, folder, bases) = (local.packs.hash, local.pack_folder(), Arc::clone(&local.packs));
        let mut written = None;
        gix::protocol::fetch(
            &mut Ask { want, have },
            |reader, progress, interrupt| {
                let outcome =
                    Bundle::write_to_directory(reader, Some(&folder), progress, interrupt, Some(bases), hash, write)?;
                written = Some(outcome);
                Ok(true)
            },
            Discard,
            &meter.interrupt,
            context,
            options,
        )?;
        let pack = written.and_then(|outcome| {
            if let Some(keep) = &outcome.keep_path {
                // Keeps stock Git's gc off the pack for a moment; nobody runs one here.
                let _ = std::fs::remove_file(keep);
            }
            Some((outcome.index_path?, outcome.data_path?))
        });
        Ok(Received { pack })
    }
}

/// Asks for one commit, in one round: what is here is known for certain, so
/// there is nothing to negotiate.
struct Ask<'a> {
    want: ObjectId,
    have: &'a BTreeSet<ObjectId>,
}

impl gix::protocol::fetch::Negotiate for Ask<'_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::Result<Action> {
        Ok(Action::MustNegotiate { remote_ref_target_known: vec![false] })
    }

    fn add_wants(&mut self, arguments: &mut Arguments, _known: &[bool]) -> bool {
        arguments.want(self.want);
        true
    }

    fn one_round(
        &mut self,
        _state: &mut one_round::State,
        arguments: &mut Arguments,
        _previous: Option<&Response>,
    ) -> gix::Result<(Round, bool)> {
        self.have.iter().for_each(|id| arguments.have(id));
        let round = Round {
            haves_sent: self.have.len(),
            in_vain: 0,
            haves_to_send: self.have.len(),
            previous_response_had_at_least_one_in_common: false,
        };
        Ok((round, true))
    }
}
