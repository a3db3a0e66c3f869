//! The system's clock: the only place of the agent where time is read.

use jiff::Timestamp;

use crate::ports::clock::Clock;

/// Reads the clock of the device, set or not.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn build_date(&self) -> Timestamp {
        // The build script writes seconds; a program without is as old as time.
        env!("BURGEE_BUILT").parse().ok().and_then(|secs| Timestamp::from_second(secs).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock as _, SystemClock};

    #[test]
    fn a_build_has_a_plausible_date() {
        assert!(SystemClock.build_date() > "2020-01-01T00:00:00Z".parse().unwrap());
        assert!(SystemClock.build_date() <= SystemClock.now());
    }
}
