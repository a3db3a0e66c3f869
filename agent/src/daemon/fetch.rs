//! The task that owns the source: it fetches and renders, off the loop. A tree
//! is read also while a fetch is under way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use fleet::finding::Finding;
use fleet::render::{DeviceFacts, Rendered, render};
use fleet::revision::CommitId;
use fleet::tree::{Entry, Tree, TreeError};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::context::chain;
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
    pub(crate) fn start<S: Source + 'static>(source: S, facts: DeviceFacts) -> Self {
        let (requests, mut inbox) = mpsc::channel(4);
        let source = Rc::new(source);
        tokio::task::spawn_local(async move {
            while let Some(request) = inbox.recv().await {
                match request {
                    Request::Fetch { ask, now, reply } => {
                        let source = Rc::clone(&source);
                        tokio::task::spawn_local(async move {
                            let fetched = match *ask {
                                Ask::After(after) => source.fetch(after.as_ref(), now).await,
                                Ask::Anew { before, accept } => source.anchor(before.as_ref(), &accept, now).await,
                            };
                            let _ = reply.send(fetched);
                        });
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

    /// A file of a commit that was accepted; `None`: there is none of that name.
    pub(crate) async fn file(&self, commit: &CommitId, path: &'static str) -> Result<Option<Vec<u8>>, SourceError> {
        let tree = self.tree(commit).await?;
        let commit = commit.clone();
        let read = move || match tree.entries().contains_key(path) {
            false => Ok(None),
            true => tree.read(path).map(Some).map_err(|error| unread(&commit, chain(&error))),
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| gone())?
    }

    async fn tree(&self, commit: &CommitId) -> Result<Arc<dyn Tree + Send + Sync>, SourceError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Tree { commit: commit.clone(), reply }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Renders a commit that was accepted, for this device.
    pub(crate) async fn render(&self, commit: &CommitId) -> Result<Result<Rendered, Vec<Finding>>, SourceError> {
        let tree = self.tree(commit).await?;
        let (facts, commit) = (self.facts.clone(), commit.clone());
        // Rendering reads and hashes files: not on the loop's thread.
        let work = move || {
            let seen = Watched { tree: tree.as_ref(), failed: RefCell::new(None) };
            let rendered = render(&seen, &facts, &commit);
            match (rendered, seen.failed.into_inner()) {
                // A failed read is no word on the content: the revision is not to blame.
                (Err(_), Some(cause)) => Err(unread(&commit, cause)),
                (rendered, _) => Ok(rendered),
            }
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| gone())?
    }
}

/// A tree, and whether one of its files could not be read although it is
/// there: a disk that fails, an object that is damaged.
struct Watched<'a> {
    tree: &'a dyn Tree,
    failed: RefCell<Option<String>>,
}

impl Tree for Watched<'_> {
    fn entries(&self) -> &BTreeMap<String, Entry> {
        self.tree.entries()
    }

    fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
        self.tree.read(path).inspect_err(|error| {
            let listed = self.tree.entries().contains_key(path);
            if matches!(error, TreeError::Read { .. }) || (listed && matches!(error, TreeError::Missing { .. })) {
                self.failed.borrow_mut().get_or_insert(chain(error));
            }
        })
    }
}

fn unread(commit: &CommitId, cause: String) -> SourceError {
    SourceError::Local {
        action: "read",
        thing: format!("revision {} in the local repository", commit.short()),
        transient: true,
        hint: Some(
            "look at the disk; stop the agent and remove <store>/git to have the repository fetched anew".to_owned(),
        ),
        source: cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use fleet::tree::{Entry, MemoryTree, Tree, TreeError};

    use super::Watched;

    /// Lists a file whose bytes it can't give.
    struct Damaged(MemoryTree);

    impl Tree for Damaged {
        fn entries(&self) -> &BTreeMap<String, Entry> {
            self.0.entries()
        }

        fn read(&self, path: &str) -> Result<Vec<u8>, TreeError> {
            match path {
                "burgee.yaml" => Err(TreeError::Read { path: path.to_owned(), source: "damaged".into() }),
                path => self.0.read(path),
            }
        }
    }

    #[test]
    fn a_failed_read_is_told_from_a_missing_file() {
        let tree = Damaged([("burgee.yaml", "format: 1")].into_iter().collect());
        for (path, failed) in [("apps/none.yaml", false), ("burgee.yaml", true)] {
            let seen = Watched { tree: &tree, failed: RefCell::new(None) };
            assert!(seen.read(path).is_err(), "{path}");
            assert_eq!(seen.failed.into_inner().is_some(), failed, "{path}");
        }
    }
}
