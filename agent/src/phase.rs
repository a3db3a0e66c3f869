//! Where the device stands on the way to one target revision.
//!
//! Pure: no clock, disk or network. The daemon reports what happened as an
//! [`Event`], journals the [`Phase`] it gets back, and only then does that
//! phase's work. Work follows from the phase alone, so waking up after a power
//! cut is the ordinary path, not a recovery path.
//!
//! **Invariants:** a revision that failed is never tried again unprompted,
//! unless there is nothing to go back to; once a step of `to` may have been
//! carried out, `back` is kept until the device is steady or back.

use fleet::desired::OnFailure;
use fleet::revision::Revision;
use fleet::wire::status::PhaseName;
use serde::{Deserialize, Serialize};

/// The journalled phase (design §5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// No revision was ever accepted; the device is as it was found.
    #[default]
    Empty,
    /// Nothing to do but watch for drift from `at`.
    Steady { at: Revision },
    /// What `to` needs is being downloaded; the device is untouched.
    Preparing { at: Option<Revision>, to: Revision },
    /// `to` is ready and waits.
    Held { at: Option<Revision>, to: Revision, why: Hold },
    /// Steps towards `to` are being carried out; `back` is the way home.
    Applying { to: Revision, back: Option<Revision>, boots: Boots },
    /// Every step landed; `to` has yet to stay healthy for the soak time.
    Probing { to: Revision, back: Option<Revision>, boots: Boots },
    /// `failed` is being undone, for as long as that takes. `asked`: an
    /// operator wanted it, so the device is steady afterwards, not stalled.
    RollingBack { failed: Revision, to: Revision, asked: bool },
    /// Waiting for a target other than `failed`. `at` is what runs; it is
    /// `failed` itself where its app says `onFailure: hold`.
    Stalled { failed: Revision, at: Option<Revision> },
}

/// What keeps a prepared revision from being applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// A group's window is shut.
    Window,
    /// The hub's release does not name it yet.
    Release,
    /// An operator suspended the device.
    Suspended,
    /// The clock is not set.
    Clock,
}

/// How many boots (not process starts) a phase has lived through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boots {
    /// The boot id that was counted last.
    pub id: String,
    /// 1 in the boot in which the phase began.
    pub count: u32,
}

impl Boots {
    /// The third time that a revision takes the device down, it has failed:
    /// the boot it began in, and three more.
    const LIMIT: u32 = 3;

    /// Begins to count in the boot `id`.
    #[must_use]
    pub fn first(id: &str) -> Self {
        Self { id: id.to_owned(), count: 1 }
    }

    fn seen(self, id: &str) -> Self {
        if self.id == id { self } else { Self { id: id.to_owned(), count: self.count + 1 } }
    }

    fn exhausted(&self) -> bool {
        self.count > Self::LIMIT
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A newly accepted revision, or one that was unblocked.
    Target(Revision),
    /// All that the target needs is on the device; what keeps it waiting.
    Prepared(Option<Hold>),
    /// The target's digest is the one that runs.
    SameDigest,
    /// Waiting can't mend the target (it doesn't render, or is refused).
    Unpreparable,
    /// What keeps the target waiting changed.
    Gate(Option<Hold>),
    /// Every step landed.
    Applied,
    /// A step failed for good.
    ApplyFailed(OnFailure),
    /// What changed was healthy for its soak time.
    Healthy,
    /// It wasn't in time.
    Unhealthy(OnFailure),
    /// A newer revision is prepared while `to` is still on its way.
    Superseded(Revision),
    /// An operator wants to go back to this.
    Rollback(Revision),
    /// The agent started, in the boot of this id.
    Started(String),
}

impl Phase {
    /// Answers `event`; one that is late or out of place changes nothing.
    /// `boot` is the running boot's id.
    #[must_use]
    pub fn next(self, event: Event, boot: &str) -> Self {
        use Event as E;
        match (self, event) {
            // A new target.
            (Self::Empty, E::Target(to)) => Self::Preparing { at: None, to },
            (Self::Steady { at }, E::Target(to)) if at != to => Self::Preparing { at: Some(at), to },
            (Self::Stalled { at, .. }, E::Target(to)) => Self::Preparing { at, to },
            (Self::Preparing { at, to: old } | Self::Held { at, to: old, .. }, E::Target(to)) if old != to => {
                Self::Preparing { at, to }
            }

            // Preparing it.
            (Self::Preparing { at, to }, E::Prepared(Some(why))) => Self::Held { at, to, why },
            (Self::Preparing { at, to }, E::Prepared(None)) | (Self::Held { at, to, .. }, E::Gate(None)) => {
                Self::Applying { to, back: at, boots: Boots::first(boot) }
            }
            (Self::Preparing { to, .. }, E::SameDigest) => Self::Steady { at: to },
            (Self::Preparing { at, to }, E::Unpreparable) => Self::Stalled { failed: to, at },
            (Self::Held { at, to, .. }, E::Gate(Some(why))) => Self::Held { at, to, why },

            // Applying it.
            (Self::Applying { to, back, boots }, E::Applied) => Self::Probing { to, back, boots },
            (Self::Probing { to, .. }, E::Healthy) => Self::Steady { at: to },
            (
                Self::Applying { to, back, .. } | Self::Probing { to, back, .. },
                E::ApplyFailed(policy) | E::Unhealthy(policy),
            ) => Self::failed(to, back, policy, boot),
            (Self::Applying { back, .. } | Self::Probing { back, .. }, E::Superseded(to)) => {
                Self::Applying { to, back, boots: Boots::first(boot) }
            }

            // A way back that is blocked is left for a newer revision.
            (Self::RollingBack { to: home, asked: false, .. }, E::Superseded(to)) => {
                Self::Applying { to, back: Some(home), boots: Boots::first(boot) }
            }

            // Going back.
            (Self::RollingBack { to, asked: true, .. }, E::Applied) => Self::Steady { at: to },
            (Self::RollingBack { failed, to, asked: false }, E::Applied) => Self::Stalled { failed, at: Some(to) },
            (
                Self::Steady { at: failed }
                | Self::Preparing { at: Some(failed), .. }
                | Self::Held { at: Some(failed), .. }
                | Self::Stalled { at: Some(failed), .. }
                | Self::Applying { to: failed, .. }
                | Self::Probing { to: failed, .. }
                | Self::RollingBack { failed, .. },
                E::Rollback(to),
            ) if failed != to => Self::RollingBack { failed, to, asked: true },

            // Waking up.
            (Self::Applying { to, back, boots }, E::Started(id)) => {
                let boots = boots.seen(&id);
                if boots.exhausted() && back.is_some() {
                    Self::failed(to, back, OnFailure::Rollback, boot)
                } else {
                    Self::Applying { to, back, boots }
                }
            }
            (Self::Probing { to, back, boots }, E::Started(id)) => {
                let boots = boots.seen(&id);
                if boots.exhausted() && back.is_some() {
                    Self::failed(to, back, OnFailure::Rollback, boot)
                } else {
                    Self::Probing { to, back, boots }
                }
            }
            (phase, _) => phase,
        }
    }

    /// Where a revision that failed leads. With nothing to go back to it is
    /// applied again (the daemon backs off).
    fn failed(to: Revision, back: Option<Revision>, policy: OnFailure, boot: &str) -> Self {
        match (policy, back) {
            (OnFailure::Hold, _) => Self::Stalled { failed: to.clone(), at: Some(to) },
            (OnFailure::Rollback, Some(back)) => Self::RollingBack { failed: to, to: back, asked: false },
            (OnFailure::Rollback, None) => Self::Applying { to, back: None, boots: Boots::first(boot) },
        }
    }

    /// The revision that runs and that drift is repaired towards, in the
    /// phases in which it is.
    #[must_use]
    pub fn at(&self) -> Option<&Revision> {
        match self {
            Self::Steady { at } => Some(at),
            Self::Preparing { at, .. } | Self::Held { at, .. } | Self::Stalled { at, .. } => at.as_ref(),
            Self::Empty | Self::Applying { .. } | Self::Probing { .. } | Self::RollingBack { .. } => None,
        }
    }

    /// The revision that the phase moves to or waits for.
    #[must_use]
    pub fn target(&self) -> Option<&Revision> {
        match self {
            Self::Preparing { to, .. }
            | Self::Held { to, .. }
            | Self::Applying { to, .. }
            | Self::Probing { to, .. }
            | Self::RollingBack { to, .. } => Some(to),
            Self::Empty | Self::Steady { .. } | Self::Stalled { .. } => None,
        }
    }

    /// Every revision that the phase names, whose kept states must stay.
    #[must_use]
    pub fn names(&self) -> Vec<&Revision> {
        match self {
            Self::Empty => Vec::new(),
            Self::Steady { at } => vec![at],
            Self::Preparing { at, to } | Self::Held { at, to, .. } => at.iter().chain([to]).collect(),
            Self::Applying { to, back, .. } | Self::Probing { to, back, .. } => back.iter().chain([to]).collect(),
            Self::RollingBack { failed, to, .. } => vec![failed, to],
            Self::Stalled { failed, at } => at.iter().chain([failed]).collect(),
        }
    }

    /// The name in status and reports.
    #[must_use]
    pub fn name(&self) -> PhaseName {
        match self {
            Self::Empty => PhaseName::Starting,
            Self::Steady { .. } => PhaseName::Steady,
            Self::Preparing { .. } => PhaseName::Preparing,
            Self::Held { .. } => PhaseName::Held,
            Self::Applying { .. } => PhaseName::Applying,
            Self::Probing { .. } => PhaseName::Probing,
            Self::RollingBack { .. } => PhaseName::RollingBack,
            Self::Stalled { .. } => PhaseName::Stalled,
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet::desired::OnFailure::{Hold as Stay, Rollback as Back};
    use fleet::digest::Digest;
    use fleet::revision::Revision;
    use proptest::prelude::*;

    use super::Event as E;
    use super::Phase::{Applying, Empty, Held, Preparing, Probing, RollingBack, Stalled, Steady};
    use super::{Boots, Event, Hold, Phase};

    const BOOT: &str = "boot-1";

    fn revision(n: u8) -> Revision {
        let Ok(id) = format!("{n:02x}").repeat(20).parse() else { unreachable!("40 hex digits") };
        Revision { id, identity: Digest::of(&[n]) }
    }

    fn boots() -> Boots {
        Boots::first(BOOT)
    }

    #[test]
    fn next_phase() {
        let [a, b, c] = [1, 2, 3].map(revision);
        let (at, back) = (Some(a.clone()), Some(a.clone()));
        let steady = Steady { at: a.clone() };
        let preparing = Preparing { at: at.clone(), to: b.clone() };
        let held = Held { at: at.clone(), to: b.clone(), why: Hold::Window };
        let applying = Applying { to: b.clone(), back: back.clone(), boots: boots() };
        let probing = Probing { to: b.clone(), back: back.clone(), boots: boots() };
        let rolling = RollingBack { failed: b.clone(), to: a.clone(), asked: false };
        let stalled = Stalled { failed: b.clone(), at: at.clone() };
        let first = Applying { to: b.clone(), back: None, boots: boots() };
        let worn = Probing { to: b.clone(), back: back.clone(), boots: Boots { id: "boot-0".into(), count: 3 } };
        let asked = RollingBack { failed: b.clone(), to: a.clone(), asked: true };
        let cases = [
            ("first start", Empty, E::Target(b.clone()), Preparing { at: None, to: b.clone() }),
            ("a target is prepared", steady.clone(), E::Target(b.clone()), preparing.clone()),
            ("already at it", steady.clone(), E::Target(a.clone()), steady.clone()),
            ("a shut window holds", preparing.clone(), E::Prepared(Some(Hold::Window)), held.clone()),
            ("an open one doesn't", preparing.clone(), E::Prepared(None), applying.clone()),
            ("it opens", held.clone(), E::Gate(None), applying.clone()),
            ("a newer target while held", held, E::Target(c.clone()), Preparing { at: at.clone(), to: c.clone() }),
            ("the same digest moves forward", preparing.clone(), E::SameDigest, Steady { at: b.clone() }),
            ("what can't be prepared stalls", preparing, E::Unpreparable, stalled.clone()),
            ("every step landed", applying.clone(), E::Applied, probing.clone()),
            ("soaked", probing.clone(), E::Healthy, Steady { at: b.clone() }),
            ("bad health goes home", probing.clone(), E::Unhealthy(Back), rolling.clone()),
            ("hold stays", probing.clone(), E::Unhealthy(Stay), Stalled { failed: b.clone(), at: Some(b.clone()) }),
            ("a failed step goes home", applying.clone(), E::ApplyFailed(Back), rolling.clone()),
            ("nowhere to go: again", first.clone(), E::ApplyFailed(Back), first),
            ("rollback keeps trying", rolling.clone(), E::ApplyFailed(Back), rolling.clone()),
            ("home again", rolling, E::Applied, stalled.clone()),
            ("home as asked", asked.clone(), E::Applied, steady.clone()),
            ("an operator goes back", Steady { at: b.clone() }, E::Rollback(a.clone()), asked),
            ("a fix starts afresh", stalled, E::Target(c.clone()), Preparing { at, to: c.clone() }),
            (
                "superseded keeps the way home",
                probing.clone(),
                E::Superseded(c.clone()),
                Applying { to: c, back, boots: boots() },
            ),
            ("a restart resumes", applying.clone(), E::Started(BOOT.into()), applying),
            (
                "the third time down has failed",
                worn,
                E::Started(BOOT.into()),
                RollingBack { failed: b, to: a, asked: false },
            ),
            ("late events change nothing", steady.clone(), E::Healthy, steady),
        ];
        for (name, from, event, want) in cases {
            assert_eq!(from.next(event, BOOT), want, "{name}");
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        let target = || (1u8..6).prop_map(revision);
        let policy = || prop_oneof![Just(Back), Just(Stay)];
        let hold = || prop_oneof![Just(None), Just(Some(Hold::Window)), Just(Some(Hold::Suspended))];
        prop_oneof![
            target().prop_map(E::Target),
            hold().prop_map(E::Prepared),
            Just(E::SameDigest),
            Just(E::Unpreparable),
            hold().prop_map(E::Gate),
            Just(E::Applied),
            policy().prop_map(E::ApplyFailed),
            Just(E::Healthy),
            policy().prop_map(E::Unhealthy),
            target().prop_map(E::Superseded),
            (0u8..9).prop_map(|n| E::Started(format!("boot-{n}"))),
        ]
    }

    proptest! {
        /// Once something was steady, there is always a way home or a place to be.
        #[test]
        fn never_lost(events in prop::collection::vec(event(), 0..60)) {
            let mut phase = Phase::Steady { at: revision(0) };
            for event in events {
                phase = phase.next(event, BOOT);
                let home = match &phase {
                    Applying { back, .. } | Probing { back, .. } => back.is_some(),
                    RollingBack { .. } => true,
                    other => other.at().is_some(),
                };
                prop_assert!(home, "{phase:?}");
            }
        }
    }
}
