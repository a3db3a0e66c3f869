//! How long to wait before the next try. Pure: attempts in, time out.

use std::time::Duration;

/// Exponential back-off with a stable jitter, so that a fleet that failed
/// together does not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// Before the second try.
    pub base: Duration,
    /// Never longer than this.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 is the first), between
    /// half of the step and the whole of it. `seed` differs per device.
    #[must_use]
    pub fn delay(&self, failures: u32, seed: u64) -> Duration {
        let step = self.base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.cap);
        step / 2 + share(step / 2, seed ^ u64::from(failures))
    }
}

/// A stable share of `span`, drawn by `seed`.
#[must_use]
pub fn share(span: Duration, seed: u64) -> Duration {
    // SplitMix64's finalizer: enough to spread neighbouring seeds.
    let mut mixed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    let thousandth = u32::try_from((mixed ^ (mixed >> 31)) % 1000).unwrap_or(0);
    span / 1000 * thousandth
}

/// A device's seed: from its name, so that its place is the same every time.
#[must_use]
pub fn seed(name: &str) -> u64 {
    let digest = fleet::digest::Digest::of(name.as_bytes());
    digest.as_bytes().iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, seed, share};

    #[test]
    fn delays_grow_and_stay_below_the_cap() {
        let backoff = Backoff { base: Duration::from_secs(2), cap: Duration::from_secs(60) };
        for (failures, low, high) in [(1, 1, 2), (2, 2, 4), (5, 16, 32), (9, 30, 60), (400, 30, 60)] {
            let delay = backoff.delay(failures, seed("store-042"));
            assert!((low..=high).contains(&delay.as_secs()), "{failures}: {delay:?}");
        }
    }

    #[test]
    fn shares_are_stable_and_spread() {
        let span = Duration::from_secs(100);
        let shares: Vec<_> = (0..100).map(|n| share(span, seed(&format!("store-{n}"))).as_secs()).collect();
        assert_eq!(share(span, seed("store-7")).as_secs(), shares[7]);
        let low = shares.iter().filter(|share| **share < 50).count();
        assert!((30..=70).contains(&low), "{low} of 100 in the lower half");
    }
}
