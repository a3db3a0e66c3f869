//! Puts together what `status` prints and a report carries. Three axes, never
//! merged: sync, health, link.

use fleet::wire::status::{BlockedStatus, Link, LinkState, Status, Sync};

use super::context::{Context, Parts};
use crate::phase::Phase;
use crate::ports::journal::State;

/// The status as of now.
pub(crate) fn status<P: Parts>(context: &Context<P>, links: Link) -> Status {
    let state = context.state();
    let mut apps: Vec<_> = context.observed.borrow().values().cloned().collect();
    // Steady, but not looked at yet, tells of the revision before.
    let unseen = matches!(state.phase, Phase::Steady { .. }) && !context.is_observed();
    if unseen || matches!(state.phase, Phase::Applying { .. } | Phase::RollingBack { .. }) {
        apps.iter_mut().for_each(|app| app.sync = Sync::Updating);
    }
    let blocked = state.blocked.iter().map(|blocked| BlockedStatus {
        revision: blocked.revision.id.clone(),
        digest: blocked.digest,
        reason: blocked.reason.clone(),
    });
    let mut conditions: Vec<_> = context.conditions.borrow().values().cloned().collect();
    if let Some(notice) = context.journal_notice() {
        conditions.push(fleet::wire::status::Condition {
            kind: "StoreWhole".to_owned(),
            status: false,
            reason: "Mended".to_owned(),
            message: notice,
            since: context.started,
        });
    }
    Status {
        device: context.device.name.clone(),
        phase: state.phase.name(),
        revision: runs(&state),
        last_good: state.good.as_ref().map(|revision| revision.id.clone()),
        target: state.phase.target().or(kept_from(&state)).map(|revision| revision.id.clone()),
        blocked: blocked.collect(),
        apps,
        conditions,
        link: links,
        suspended: state.suspended.is_some(),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The accepted revision, where something (a failure, an operator) keeps the
/// device from it.
fn kept_from(state: &State) -> Option<&fleet::revision::Revision> {
    let accepted = state.accepted.as_ref().map(|accepted| &accepted.revision)?;
    (state.phase.at() != Some(accepted)).then_some(accepted)
}

/// The revision that runs or is being moved to.
fn runs(state: &State) -> Option<fleet::revision::CommitId> {
    let revision = match &state.phase {
        Phase::Applying { to, .. } | Phase::Probing { to, .. } | Phase::RollingBack { to, .. } => Some(to),
        phase => phase.at(),
    };
    revision.map(|revision| revision.id.clone())
}

/// Links before anything was tried.
pub(crate) fn unused() -> Link {
    Link { git: LinkState::Down, mqtt: LinkState::Unused, hub: LinkState::Unused }
}
