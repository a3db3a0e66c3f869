//! Waiting for what has to come to pass, within a bound.

use std::time::{Duration, Instant};

/// Asks `look` until it gives something; panics with `what` after `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < limit, "after {} s still waiting: {what}", limit.as_secs());
        std::thread::sleep(Duration::from_millis(40));
    }
}

/// Asks `look` for the whole of `span`; panics as soon as it is true.
#[track_caller]
pub fn never(what: &str, span: Duration, mut look: impl FnMut() -> bool) {
    let start = Instant::now();
    while start.elapsed() < span {
        assert!(!look(), "it came to pass: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
