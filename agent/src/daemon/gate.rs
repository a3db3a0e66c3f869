//! What keeps a prepared revision waiting, and whether the clock is set.

use fleet::desired::DesiredState;
use jiff::{SignedDuration, Timestamp};

use super::context::{Context, Parts};
use crate::phase::Hold;
use crate::ports::clock::Clock as _;
use crate::window;

/// The clock counts as set when it is neither before the build, nor more than
/// a day before the accepted commit (design §4, rule 5).
pub(crate) fn clock_is_set<P: Parts>(context: &Context<P>, now: Timestamp) -> bool {
    let accepted = context.journal_accepted_at();
    let day = SignedDuration::from_hours(24);
    now >= context.clock.build_date() && accepted.is_none_or(|at| now.checked_add(day).is_ok_and(|later| later >= at))
}

/// What keeps `desired` waiting now; `None`: nothing does.
pub(crate) fn gate<P: Parts>(context: &Context<P>, desired: &DesiredState) -> Option<Hold> {
    let now = context.now();
    if context.state().suspended.is_some() {
        return Some(Hold::Suspended);
    }
    if desired.windows.is_empty() {
        return None;
    }
    if !clock_is_set(context, now) {
        return Some(Hold::Clock);
    }
    (!window::open(&desired.windows, now)).then_some(Hold::Window)
}

/// What a person reads about it.
pub(crate) fn explain(hold: Hold) -> (&'static str, &'static str) {
    match hold {
        Hold::Window => ("WindowShut", "a new revision is ready and waits for its groups' window to open"),
        Hold::Release => ("NotReleased", "a new revision is ready and waits for the hub's release"),
        Hold::Suspended => {
            ("Suspended", "a new revision is ready and waits: the device is suspended\nhint: `burgee-agent resume`")
        }
        Hold::Clock => {
            ("ClockUnset", "a new revision is ready and waits: the clock is not set\nhint: check the time service")
        }
    }
}
