//! How long to wait before trying a connection again.

use std::time::Duration;

/// Doubles from `first` to `most`; each delay is drawn from its upper half, so
/// that a fleet that lost its hub does not come back in step.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, failures: 0 }
    }

    /// The delay after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let delay = self.first.saturating_mul(1 << self.failures.min(20)).min(self.most);
        self.failures = self.failures.saturating_add(1);
        jittered(delay, random())
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

fn jittered(delay: Duration, random: u32) -> Duration {
    let half = delay / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

/// Without entropy there is no jitter; that is no reason not to connect.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, jittered};

    #[test]
    fn grows_to_its_limit() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
        for limit in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let delay = backoff.next();
            assert!(delay <= Duration::from_secs(limit) && delay >= Duration::from_secs(limit) / 2, "{delay:?}");
        }
        for _ in 0..100 {
            backoff.next();
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }

    #[test]
    fn jitter_is_the_upper_half() {
        let ten = Duration::from_secs(10);
        assert_eq!(jittered(ten, 0), Duration::from_secs(5));
        assert_eq!(jittered(ten, u32::MAX), ten);
    }
}
