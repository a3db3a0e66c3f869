//! Looking at an app from outside: the `Prober` port.

use std::future::Future;

use fleet::desired::Check;

use super::runtime::Verdict;

/// Carries out the checks of `app.yaml`.
pub trait Prober {
    /// Looks once, within a bounded time. A check that can't be carried out
    /// (not allowed, no D-Bus) is `Degraded` with the reason.
    fn probe(&self, check: &Check) -> impl Future<Output = Verdict> + Send;
}
