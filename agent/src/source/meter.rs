//! The watchdog of one fetch: bytes received, silence, time, and the word to
//! stop.
//!
//! Every read from a host goes through [`Meter::watch`]. What ended a fetch is
//! kept here as a [`Failure`], since the layers between wrap errors beyond
//! recognition.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// What ended a fetch, as far as the transport saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// More bytes than the limit.
    TooLarge,
    /// No byte for this long.
    Stalled(Duration),
    /// The whole fetch took longer than this.
    TooSlow(Duration),
    /// The daemon gave the fetch up.
    Cancelled,
    /// HTTP said something other than success.
    Status { code: u16, location: Option<String> },
    /// A program is not installed.
    NoProgram(&'static str),
    /// Anything else, in the words of what failed.
    Other(String),
}

/// Gives a fetch up when it is dropped.
pub(super) struct Stop {
    stopped: watch::Sender<bool>,
    interrupt: Arc<AtomicBool>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.interrupt.store(true, Ordering::Relaxed);
        self.stopped.send_replace(true);
    }
}

pub(super) struct Meter {
    received: AtomicU64,
    limit: u64,
    silence: Duration,
    patience: Duration,
    deadline: Instant,
    stopped: watch::Receiver<bool>,
    failure: Mutex<Option<Failure>>,
    /// What gix looks at between reads.
    pub(super) interrupt: Arc<AtomicBool>,
}

impl Meter {
    /// `limit` in bytes; `silence` is the longest wait for the next byte,
    /// `patience` for the whole fetch. Must be called where tokio's time runs.
    pub(super) fn new(limit: u64, silence: Duration, patience: Duration) -> (Arc<Self>, Stop) {
        let (sender, stopped) = watch::channel(false);
        let interrupt = Arc::new(AtomicBool::new(false));
        let meter = Self {
            received: AtomicU64::new(0),
            limit,
            silence,
            patience,
            deadline: Instant::now() + patience,
            stopped,
            failure: Mutex::new(None),
            interrupt: Arc::clone(&interrupt),
        };
        (Arc::new(meter), Stop { stopped: sender, interrupt })
    }

    /// Waits for `work`, but not for ever.
    pub(super) async fn watch<T, E: std::error::Error>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> io::Result<T> {
        let mut stopped = self.stopped.clone();
        let failure = tokio::select! {
            done = work => match done {
                Ok(value) => return Ok(value),
                Err(error) => Failure::Other(chain(&error)),
            },
            // A closed channel is a dropped fetch, too.
            _ = stopped.wait_for(|stopped| *stopped) => Failure::Cancelled,
            () = sleep(self.silence) => Failure::Stalled(self.silence),
            () = sleep_until(self.deadline) => Failure::TooSlow(self.patience),
        };
        Err(self.fail(failure))
    }

    /// Counts bytes that a host sent.
    pub(super) fn count(&self, bytes: usize) -> io::Result<()> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = self.received.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.limit { Err(self.fail(Failure::TooLarge)) } else { Ok(()) }
    }

    /// Notes what ended the fetch; the first word counts.
    pub(super) fn fail(&self, failure: Failure) -> io::Error {
        let text = format!("{failure:?}");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        io::Error::other(text)
    }

    /// Forgets a failure that another way is tried after; time goes on.
    pub(super) fn begin_again(&self) {
        self.received.store(0, Ordering::Relaxed);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
