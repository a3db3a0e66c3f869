//! When the source is asked next: by the timer, by a hint, by an operator.

use std::time::Duration;

use fleet::wire::status::LinkState;
use tokio::time::Instant;

use crate::retry::{Backoff, share};

const BACKOFF: Backoff = Backoff { base: Duration::from_secs(5), cap: Duration::from_secs(900) };
/// Hints coalesce to one fetch in this time.
const COALESCE: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Polling {
    poll: Duration,
    poll_connected: Duration,
    seed: u64,
    next: Instant,
    under_way: bool,
    /// Asked for while one was under way: another follows.
    again: Option<Instant>,
    last_hinted: Option<Instant>,
    failures: u32,
    answered: bool,
    up: bool,
}

impl Polling {
    /// `crashes` in a row before this start: what a host sends may be why, so
    /// that it is not asked at once.
    pub(crate) fn new(poll: Duration, poll_connected: Duration, seed: u64, crashes: Option<u32>) -> Self {
        let wait = crashes.map_or(Duration::ZERO, |crashes| BACKOFF.delay(crashes, seed));
        Self {
            poll,
            poll_connected,
            seed,
            next: Instant::now() + wait,
            under_way: false,
            again: None,
            last_hinted: None,
            failures: 0,
            answered: false,
            up: false,
        }
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.under_way && Instant::now() >= self.next
    }

    /// Neither due nor under way.
    pub(crate) fn is_idle(&self) -> bool {
        !self.under_way && Instant::now() < self.next
    }

    pub(crate) fn at(&self) -> Instant {
        if self.under_way { Instant::now() + self.poll } else { self.next }
    }

    pub(crate) fn began(&mut self) {
        self.under_way = true;
    }

    /// A fetch ended; `reached`: the host answered.
    pub(crate) fn ended(&mut self, reached: bool, mqtt_up: bool) {
        self.under_way = false;
        self.answered = true;
        self.up = reached;
        let pause = if reached {
            self.failures = 0;
            let period = if mqtt_up { self.poll_connected.max(self.poll) } else { self.poll };
            // Spread, so that a fleet that started together doesn't poll together.
            period - share(period / 10, self.seed ^ 0xF1EE7)
        } else {
            self.failures += 1;
            BACKOFF.delay(self.failures, self.seed).min(self.poll.max(BACKOFF.base))
        };
        self.next = Instant::now() + pause;
        if let Some(at) = self.again.take() {
            self.next = self.next.min(at);
        }
    }

    /// A hint: within the spread, and not more often than hints coalesce.
    pub(crate) fn hint(&mut self, spread: Duration) {
        let place = share(spread.min(self.poll), self.seed ^ 0x5EED);
        let now = Instant::now();
        let earliest = self.last_hinted.map_or(now, |last| (last + COALESCE).max(now));
        let at = earliest.max(now + place);
        if self.under_way {
            // One more afterwards, and no more of them than hints coalesce to.
            self.again = Some(self.again.map_or(now + COALESCE + place, |other| other.min(now + COALESCE + place)));
        } else if at < self.next {
            self.next = at;
            self.last_hinted = Some(at);
        }
    }

    /// An operator: now.
    pub(crate) fn now(&mut self) {
        if self.under_way {
            self.again = Some(Instant::now());
        } else {
            self.next = Instant::now();
        }
    }

    /// The link to the broker changed: a long pause may be too long now.
    pub(crate) fn relink(&mut self, mqtt_up: bool) {
        if !mqtt_up {
            self.next = self.next.min(Instant::now() + self.poll);
        }
    }

    pub(crate) fn has_answered(&self) -> bool {
        self.answered && !self.under_way
    }

    pub(crate) fn link(&self) -> LinkState {
        if self.up { LinkState::Up } else { LinkState::Down }
    }
}
