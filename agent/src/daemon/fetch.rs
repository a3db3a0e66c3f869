//! The task that owns the source: it fetches and renders, off the loop.

use std::sync::Arc;

use fleet::finding::Finding;
use fleet::render::{DeviceFacts, Rendered, render};
use fleet::revision::CommitId;
use fleet::tree::Tree;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use crate::ports::journal::Accepted;
use crate::ports::source::{Fetched, Source, SourceError};

/// Which head is wanted.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// The branch's, judged after what was accepted.
    After(Option<Accepted>),
    /// The same, judged as on a first start, at or above a commit that an
    /// operator named.
    Anew { before: Option<Accepted>, accept: CommitId },
}

/// What the task is asked.
enum Request {
    Fetch { ask: Box<Ask>, now: Timestamp, reply: oneshot::Sender<Result<Fetched, SourceError>> },
    Tree { commit: CommitId, reply: oneshot::Sender<Result<Arc<dyn Tree + Send + Sync>, SourceError>> },
}

/// A handle on the task; cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    requests: mpsc::Sender<Request>,
    facts: DeviceFacts,
}

/// The task ended, which it only does with the agent.
fn gone() -> SourceError {
    SourceError::Local {
        action: "use",
        thing: "the local repository".to_owned(),
        transient: true,
        hint: None,
        source: "the agent is stopping".into(),
    }
}

impl Fetcher {
    /// Starts the task on the current thread.
    pub(crate) fn start<S: Source + 'static>(mut source: S, facts: DeviceFacts) -> Self {
        let (requests, mut inbox) = mpsc::channel(4);
        tokio::task::spawn_local(async move {
            while let Some(request) = inbox.recv().await {
                match request {
                    Request::Fetch { ask, now, reply } => {
                        let fetched = match *ask {
                            Ask::After(after) => source.fetch(after.as_ref(), now).await,
                            Ask::Anew { before, accept } => source.anchor(before.as_ref(), &accept, now).await,
                        };
                        let _ = reply.send(fetched);
                    }
                    Request::Tree { commit, reply } => {
                        let _ = reply.send(source.tree(&commit));
                    }
                }
            }
        });
        Self { requests, facts }
    }

    /// Fetches the branch and judges its head.
    pub(crate) async fn fetch(&self, ask: Ask, now: Timestamp) -> Result<Fetched, SourceError> {
        let (reply, answer) = oneshot::channel();
        let request = Request::Fetch { ask: Box::new(ask), now, reply };
        self.requests.send(request).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Renders a commit that was accepted, for this device.
    pub(crate) async fn render(&self, commit: &CommitId) -> Result<Result<Rendered, Vec<Finding>>, SourceError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Tree { commit: commit.clone(), reply }).await.map_err(|_| gone())?;
        let tree = answer.await.map_err(|_| gone())??;
        let (facts, commit) = (self.facts.clone(), commit.clone());
        // Rendering reads and hashes files: not on the loop's thread.
        tokio::task::spawn_blocking(move || render(tree.as_ref(), &facts, &commit)).await.map_err(|_| gone())
    }
}
