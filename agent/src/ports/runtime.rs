//! What runs apps: the `Runtime` port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;

use fleet::desired::{Blobs, DesiredApp};
use fleet::name::{AppName, FleetName};
use fleet::revision::CommitId;
use fleet::wire::status::Health;
use serde::{Deserialize, Serialize};

use super::Reason;
use super::journal::Kept;

/// One object on the device that burgee may own, such as
/// `container/pos-web-1`, `network/pos_default`, `file//etc/pos.conf`. That
/// text is also its serialised form, so that it can be a map's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Object {
    /// `container`, `network`, `volume`, `file`, `folder`, `unit`, or a Kubernetes kind.
    pub kind: String,
    /// The name by which the runtime finds it again.
    pub name: String,
}

impl TryFrom<String> for Object {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let (kind, name) = text.split_once('/').ok_or("an object is written kind/name")?;
        Ok(Self { kind: kind.to_owned(), name: name.to_owned() })
    }
}

impl From<Object> for String {
    fn from(object: Object) -> Self {
        object.to_string()
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// The objects that burgee created for one app and owns, each with a digest
/// of what was applied (empty where the runtime keeps that itself).
pub type Inventory = BTreeMap<Object, String>;

/// What references resolved to when a revision was prepared: image reference →
/// image id. Repair and rollback create by id and never pull.
pub type Pins = BTreeMap<String, String>;

/// No object.
pub static NOTHING: BTreeSet<Object> = BTreeSet::new();

/// What a runtime is asked about: one app of one revision.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub fleet: &'a FleetName,
    pub app: &'a AppName,
    pub revision: &'a CommitId,
    /// What is to be; `None` when the app leaves the device.
    pub want: Option<&'a DesiredApp>,
    /// What the app was when it was last good (its settings for leaving).
    pub had: Option<&'a DesiredApp>,
    /// What burgee owns of this app, as journalled before any earlier step.
    pub inventory: &'a Inventory,
    pub pins: &'a Pins,
    pub blobs: &'a Blobs,
    /// All apps of the revision, this one included: what another one wants is
    /// handed over to it, not deleted.
    pub beside: &'a [DesiredApp],
    /// On the way back: from a failed revision, or on an operator's word. `had`
    /// is that revision's, then.
    pub back: bool,
    /// What was there before burgee took it over, and is given back instead of
    /// deleted should it leave now.
    pub borrowed: &'a BTreeSet<Object>,
}

/// What a step does to its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    Create,
    /// Takes over what is there already.
    Adopt,
    Update,
    Replace,
    Start,
    Restart,
    Delete,
    /// Gives back what was taken over: it stays, and is nobody's of burgee's.
    Release,
    Wait,
}

/// One action of a plan.
#[derive(Clone, Debug)]
pub struct Step<D> {
    pub verb: Verb,
    pub object: Object,
    /// What differs, for people: `image`, `environment FOO`, `missing`, …
    pub why: String,
    /// Volumes and what else holds data goes only once the revision is steady.
    pub after_steady: bool,
    /// Steps that follow each other and are of one group may be carried out at
    /// the same time; one of none is carried out alone.
    pub group: Option<u32>,
    /// What the runtime needs to carry it out.
    pub data: D,
}

/// What leads from the observed state to the desired one. Empty: nothing to do.
#[derive(Clone, Debug)]
pub struct Plan<D> {
    pub steps: Vec<Step<D>>,
    /// What is owned once every step (the later ones included) has landed.
    pub inventory: Inventory,
}

/// What may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Something that was applied: a compare is due.
    Object,
    /// Only how it is: a look at health is, soon.
    State,
}

/// Health of one app as its runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub health: Health,
    /// One sentence, empty when healthy.
    pub message: String,
}

/// A cause that knows what a person can do about it. As the source of a
/// [`RuntimeError::Step`] or [`RuntimeError::Pull`], its hint is theirs.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Hinted {
    pub message: String,
    pub hint: String,
}

/// Why a runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The engine (or init system, or API server) does not answer.
    #[error("cannot reach {engine}")]
    Unreachable {
        engine: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A download failed: registry down, no such image, no credentials.
    #[error("cannot pull {image}")]
    Pull {
        image: String,
        transient: bool,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something of that name exists and burgee did not make it.
    #[error("{object} exists and is not burgee's ({owner})")]
    Foreign { object: Object, owner: String },
    /// What is asked for cannot be done on this device.
    #[error("{object} is refused: {cause}")]
    Refused { object: String, cause: String, hint: Option<String> },
    /// A step failed.
    #[error("cannot {action} {object}")]
    Step {
        action: &'static str,
        object: Object,
        transient: bool,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The world is not what the plan saw: plan anew.
    #[error("{object} changed since the plan was made")]
    Changed { object: Object },
    /// A listing or inspection failed: never taken for an empty one.
    #[error("cannot read {what}")]
    Observe {
        what: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Reason for RuntimeError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "RuntimeUnreachable",
            Self::Pull { .. } => "PullFailed",
            Self::Foreign { .. } => "ForeignObject",
            Self::Refused { .. } => "Refused",
            Self::Step { .. } => "StepFailed",
            Self::Changed { .. } => "Changed",
            Self::Observe { .. } => "ObserveFailed",
        }
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Changed { .. } | Self::Observe { .. } => true,
            Self::Pull { transient, .. } | Self::Step { transient, .. } => *transient,
            Self::Foreign { .. } | Self::Refused { .. } => false,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => hint.clone(),
            Self::Step { object, .. } if object.kind == "unit" => Some(format!("see `journalctl -u {}`", object.name)),
            // To remove a namespace, say, is to remove all that is in it.
            Self::Foreign { object, .. } if object.kind.starts_with(char::is_uppercase) => Some(
                "`adopt: true` in app.yaml takes it over where nobody manages it; else give yours another name"
                    .to_owned(),
            ),
            Self::Foreign { object, .. } => Some(format!("remove or rename {object}, then `burgee-agent retry`")),
            Self::Unreachable { source, .. }
            | Self::Pull { source, .. }
            | Self::Step { source, .. }
            | Self::Observe { source, .. } => source.downcast_ref::<Hinted>().map(|cause| cause.hint.clone()),
            Self::Changed { .. } => None,
        }
    }
}

/// Something that runs apps of one kind. One contract test for all.
///
/// Guarantees that the daemon relies on: `prepare`, `plan` and `health` change
/// nothing that runs; `plan` on a device that is as desired gives no steps;
/// `execute` may be repeated after a crash at any instruction (a step whose
/// effect is there already succeeds); nothing that is neither in the inventory
/// nor labelled as this fleet's app is ever changed or deleted.
pub trait Runtime {
    /// What a step needs beside its description.
    type Data: Clone + fmt::Debug + Send + core::marker::Sync;

    /// Downloads all that `task.want` needs and returns what it resolved to.
    fn prepare(&self, task: Task<'_>) -> impl Future<Output = Result<Pins, RuntimeError>> + Send;

    /// Compares. Every error leaves the device alone.
    fn plan(&self, task: Task<'_>) -> impl Future<Output = Result<Plan<Self::Data>, RuntimeError>> + Send;

    /// Carries one step out. Returns when its effect is durable.
    fn execute(&self, task: Task<'_>, step: &Step<Self::Data>)
    -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Looks once.
    fn health(&self, task: Task<'_>) -> impl Future<Output = Result<Verdict, RuntimeError>> + Send;

    /// Resolves when something that burgee owns here may have changed.
    /// Cancel-safe; a hint only, the slow full compare is the daemon's.
    fn changed(&self) -> impl Future<Output = Change> + Send;

    /// Frees what no kept state needs any more (images that burgee pulled,
    /// materialised files). Best effort, called in Steady only.
    fn sweep(&self, keep: &[&Kept]) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// The last `lines` of log of one app, oldest first.
    fn logs(&self, task: Task<'_>, lines: usize) -> impl Future<Output = Result<Vec<String>, RuntimeError>> + Send;
}
