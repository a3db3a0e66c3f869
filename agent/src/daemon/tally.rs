//! Counters for `/metrics`: they only rise while the agent runs.

use std::cell::Cell;

use crate::metrics::Counter;

/// See the module.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) fetches: Cell<u64>,
    pub(crate) refused: Cell<u64>,
    pub(crate) failed: Cell<u64>,
    pub(crate) rollbacks: Cell<u64>,
    pub(crate) repairs: Cell<u64>,
    pub(crate) commands_refused: Cell<u64>,
}

/// One more.
pub(crate) fn add(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Tally {
    /// With what the uplink counts: reports given up, messages refused.
    pub(crate) fn counters(&self, dropped: u64, refused: u64) -> Vec<Counter> {
        let one = |name, help, value: u64| Counter { name, help, value };
        vec![
            one("fetches", "Fetches of the fleet repository.", self.fetches.get()),
            one("heads_refused", "Heads that trust refused.", self.refused.get()),
            one("revisions_failed", "Revisions that failed on this device.", self.failed.get()),
            one("rollbacks", "Rollbacks that were carried out.", self.rollbacks.get()),
            one("drift_repairs", "Repairs of drift.", self.repairs.get()),
            one("commands_refused", "Commands that were refused as replays.", self.commands_refused.get()),
            one("messages_refused", "Messages in the hub's name that were not its own, or not for now.", refused),
            one("reports_dropped", "Reports given up because the spool was full.", dropped),
        ]
    }
}
