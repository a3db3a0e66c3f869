//! Calls into sled that may panic on a damaged file.
//!
//! sled 0.34 asserts where it should refuse. A panic inside [`guarded`] comes
//! back as text and prints nothing; every other panic is as loud as before.
//! In a build that ends with a panic nothing comes back; there
//! [`super::look`] finds at the next start what ended it.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}
static HOOK: Once = Once::new();

/// Runs `work`; the message of its panic is the error.
///
/// What `work` touched must not be used again after an error: it may be half
/// changed. (The journal drops the database then.)
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    // The hook is wrapped once and asks the thread that panics, because
    // swapping hooks to and fro would race with other threads.
    HOOK.call_once(|| {
        if cfg!(panic = "abort") {
            // Nobody will be told by an error: the panic is as loud as any.
            return;
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
    let was = QUIET.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    QUIET.set(was);
    outcome.map_err(|payload| {
        payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "a panic without a message".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(guarded(|| 7), Ok(7));
        let number = 3;
        assert_eq!(guarded(|| assert!(number < 3, "number is {number}")), Err("number is 3".to_owned()));
    }
}
