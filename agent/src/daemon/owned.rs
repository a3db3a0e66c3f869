//! What an app owns, as it is journalled before its first step and after its
//! last: a power cut leaves nothing behind that nobody owns.

use std::collections::{BTreeMap, BTreeSet};

use fleet::name::AppName;

use super::context::{Context, Parts};
use crate::phase::Phase;
use crate::ports::journal::{Adoption, JournalError};
use crate::ports::runtime::{Inventory, Object, Plan, RuntimeError, Step, Verb};

/// What is owned when the plan has landed: its inventory, and what stays
/// because its deletion was left out.
pub(super) fn settled_inventory<D>(plan: &Plan<D>, left_out: &BTreeSet<Object>, owned: &Inventory) -> Inventory {
    let mut inventory = plan.inventory.clone();
    for object in left_out {
        if let Some(digest) = owned.get(object) {
            inventory.entry(object.clone()).or_insert_with(|| digest.clone());
        }
    }
    inventory
}

/// What is journalled with an inventory: whether steps are about to be made,
/// and what `prune.maxDelete` withholds.
pub(super) enum Mark {
    Begun(Begun),
    Settled(BTreeSet<Object>),
}

/// What is known before the first step.
#[derive(Default)]
pub(super) struct Begun {
    pub(super) withheld: BTreeSet<Object>,
    /// What is there already and is taken over.
    pub(super) adopted: BTreeSet<Object>,
    /// What is made: nobody's before.
    pub(super) made: BTreeSet<Object>,
}

impl Begun {
    pub(super) fn of<D>(steps: &[Step<D>], withheld: BTreeSet<Object>) -> Self {
        let by = |verb| steps.iter().filter(|step| step.verb == verb).map(|step| step.object.clone()).collect();
        Self { withheld, adopted: by(Verb::Adopt), made: by(Verb::Create) }
    }
}

pub(super) fn own<P: Parts>(
    context: &Context<P>,
    app: &AppName,
    runtime: &str,
    inventory: Inventory,
    mark: Mark,
) -> Result<(), JournalError> {
    context.commit(None, |state| {
        let moving = matches!(state.phase, Phase::Applying { .. } | Phase::RollingBack { .. });
        let withheld = match mark {
            Mark::Begun(begun) => {
                // Repairing drift is no step towards a revision.
                if moving {
                    state.touched.insert(app.clone());
                }
                let trial = matches!(state.phase, Phase::Applying { .. });
                let adoption = if trial { Adoption::Trial } else { Adoption::Settled };
                state.adopted.retain(|object, _| !begun.made.contains(object));
                state.adopted.extend(begun.adopted.into_iter().map(|object| (object, adoption)));
                begun.withheld
            }
            Mark::Settled(withheld) => withheld,
        };
        if withheld.is_empty() {
            state.withheld.remove(app);
        } else {
            state.withheld.insert(app.clone(), withheld);
        }
        if inventory.is_empty() {
            if let Some(by_runtime) = state.inventory.get_mut(app) {
                by_runtime.remove(runtime);
                if by_runtime.is_empty() {
                    state.inventory.remove(app);
                }
            }
        } else {
            let by_runtime: &mut BTreeMap<String, Inventory> = state.inventory.entry(app.clone()).or_default();
            by_runtime.insert(runtime.to_owned(), inventory);
        }
    })
}

/// A step that can't be journalled isn't made: for the runtime's caller that
/// is a failure to look, which waiting mends.
pub(super) fn journal(error: JournalError) -> RuntimeError {
    RuntimeError::Observe { what: "the journal".to_owned(), source: Box::new(error) }
}
