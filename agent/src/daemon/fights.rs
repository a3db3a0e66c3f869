//! When repairing drift is a fight with someone, and how long the next repair
//! is held back, then. Time is given.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::Backoff;

/// Repairs of one object in a row, each soon after the last, before it counts
/// as a fight with someone.
const FIGHT: u32 = 4;
const FIGHT_WINDOW: Duration = Duration::from_secs(300);
const FIGHT_BACKOFF: Backoff = Backoff { base: Duration::from_secs(30), cap: Duration::from_secs(1800) };

/// Repairs of one object.
#[derive(Default)]
pub(crate) struct Repairs {
    in_a_row: u32,
    last: Option<Instant>,
    /// What the last one did: where a runtime knows who did it, who.
    steps: String,
}

impl Repairs {
    /// Notes a step of a repair, several of which are of the same moment.
    /// `compare`: the longest time between two compares.
    pub(crate) fn count(&mut self, now: Instant, step: &str, (seed, compare): (u64, Duration)) {
        if self.last == Some(now) {
            self.steps.push_str("; ");
            self.steps.push_str(step);
            return;
        }
        self.in_a_row = if self.is_remembered(now, (seed, compare)) { self.in_a_row + 1 } else { 1 };
        self.last = Some(now);
        step.clone_into(&mut self.steps);
    }

    /// Whether the next repair is held back because someone undoes them.
    pub(crate) fn is_held(&self, now: Instant, seed: u64) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) < self.held(seed))
    }

    /// Whether someone undoes them, held back or not: until it was quiet for as
    /// long as a repair after a pause would still count as one more.
    pub(crate) fn is_fight(&self, now: Instant, (seed, compare): (u64, Duration)) -> bool {
        self.in_a_row >= FIGHT && self.is_remembered(now, (seed, compare))
    }

    /// Whether another repair would be in a row with the last.
    pub(crate) fn is_remembered(&self, now: Instant, (seed, compare): (u64, Duration)) -> bool {
        self.last.is_some_and(|last| now.duration_since(last) < self.memory(seed, compare))
    }

    pub(crate) fn in_a_row(&self) -> u32 {
        self.in_a_row
    }

    pub(crate) fn steps(&self) -> &str {
        &self.steps
    }

    fn held(&self, seed: u64) -> Duration {
        if self.in_a_row < FIGHT { Duration::ZERO } else { FIGHT_BACKOFF.delay(self.in_a_row + 1 - FIGHT, seed) }
    }

    /// How long after the last repair another one is in a row with it. Who is
    /// content once he had his way makes no event: the next repair comes with a
    /// compare, after the pause that was kept.
    fn memory(&self, seed: u64, compare: Duration) -> Duration {
        if self.in_a_row < FIGHT { FIGHT_WINDOW } else { FIGHT_WINDOW.max(2 * self.held(seed) + compare) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Repairs;

    const COMPARE: Duration = Duration::from_secs(750);
    const BY: (u64, Duration) = (7, COMPARE);

    /// Repairs, each so many seconds after the last.
    fn after(gaps: &[u64]) -> (Repairs, Instant) {
        let (mut repairs, mut now) = (Repairs::default(), Instant::now());
        for gap in gaps {
            now += Duration::from_secs(*gap);
            repairs.count(now, "update x", BY);
        }
        (repairs, now)
    }

    #[test]
    fn a_fight_is_one_until_it_was_quiet() {
        // Seconds since the last; how many in a row, whether held back, whether a fight.
        let check = |name: &str, gaps: &[u64], later: u64, want: (u32, bool, bool)| {
            let (repairs, last) = after(gaps);
            let now = last + Duration::from_secs(later);
            let got = (repairs.in_a_row(), repairs.is_held(now, BY.0), repairs.is_fight(now, BY));
            assert_eq!(got, want, "{name}");
        };
        check("a repair", &[0], 1, (1, false, false));
        check("three soon after each other", &[0, 1, 1], 1, (3, false, false));
        check("four", &[0, 1, 1, 1], 1, (4, true, true));
        check("four, each long after the last", &[0, 400, 400, 400], 1, (1, false, false));
        check("the pause is over, the fight is not", &[0, 1, 1, 1], 100, (4, false, true));
        check("found by the next compare", &[0, 1, 1, 1, 700], 1, (5, true, true));
        check("quiet for long", &[0, 1, 1, 1], 2000, (4, false, false));
    }

    #[test]
    fn the_pause_grows_to_its_cap_for_as_long_as_the_fight_goes_on() {
        let (mut repairs, mut now) = after(&[0, 1, 1, 1]);
        let mut pauses = vec![repairs.held(BY.0)];
        for _ in 0..12 {
            // Undone at once; repaired by the first compare after the pause.
            now += COMPARE.max(repairs.held(BY.0) + COMPARE);
            repairs.count(now, "", BY);
            pauses.push(repairs.held(BY.0));
        }
        assert!(pauses[..6].is_sorted(), "{pauses:?}");
        let last = pauses.last().copied().unwrap_or_default();
        assert!(last >= Duration::from_secs(900), "it grows: {pauses:?}");
        // A new fight begins from the beginning.
        repairs.count(now + Duration::from_secs(9000), "wait x", BY);
        repairs.count(now + Duration::from_secs(9000), "create x", BY);
        assert_eq!((repairs.in_a_row(), repairs.steps()), (1, "wait x; create x"), "one repair of two steps");
    }
}
