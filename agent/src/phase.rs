//! Where the device stands on the way to one target revision.

use fleet::revision::Revision;
use serde::{Deserialize, Serialize};

/// The journalled phase (design §5).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
    /// `failed` is being undone, for as long as that takes.
    RollingBack { failed: Revision, to: Revision },
    /// Waiting for a target other than `failed`. `at` is what runs.
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
#[serde(deny_unknown_fields)]
pub struct Boots {
    /// The boot id that was counted last.
    pub id: String,
    /// 1 in the boot in which the phase began.
    pub count: u32,
}
