//! How long to wait before trying a connection again.

use std::time::Duration;

use crate::retry;

/// Counts failures in a row; delays double from `first` to `most`, spread by
/// the device's seed, so that a fleet that lost its hub does not come back in
/// step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    step: retry::Backoff,
    seed: u64,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration, seed: u64) -> Self {
        Self { step: retry::Backoff { base: first, cap: most }, seed, failures: 0 }
    }

    /// The delay after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.step.delay(self.failures, self.seed)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}
