//! What leads from the objects that are there to those that are wanted: pure.
//!
//! What leaves goes first, in the reverse of the order of kinds; then each
//! object in its order, those of one rank together. A definition is waited for
//! before what it defines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet::desired::{DesiredApp, PrunePolicy};
use fleet::kubernetes::{Kind, ObjectId};
use serde_json::Value;

use super::api::{Meta, Resource};
use super::objects::{Claims, Wanted, id_of, is_definition, named};
use super::order::{is_custom, removal_rank};
use super::owner::{APP, FLEET, MANAGED_BY, PRUNE};
use crate::ports::runtime::{Inventory, Object, Plan, RuntimeError, Step, Verb};

/// A version that no object has: the server's own first writes are later. A
/// server-side apply that names it makes an object, and conflicts with one that
/// is there; nothing else of the API's is both an apply and a creation alone.
const NO_VERSION: &str = "1";

/// What a step does on the server.
#[derive(Clone, Debug)]
pub enum Action {
    /// Applies an object; the body is JSON.
    Apply {
        id: ObjectId,
        resource: Resource,
        body: Arc<str>,
        /// Of its mark: by that it is known where it was applied already.
        digest: String,
        /// It is not there: the body makes the server refuse one that is.
        fresh: bool,
        /// Nobody managed it but who made it: what `kubectl apply` made is
        /// taken over with all its fields.
        adopted: bool,
        /// Its kind may be deleted and made anew where a field is immutable.
        replace: bool,
    },
    /// Takes burgee's marks off the object of that uid: it is nobody's then.
    Release { id: ObjectId, resource: Resource, uid: String },
    /// Deletes the object of that uid. `finishes`: somebody who may go next has
    /// something to finish for it, and gets a while.
    Delete { id: ObjectId, resource: Resource, uid: String, finishes: bool },
    /// Waits until an object that is on its way out is gone.
    AwaitGone { id: ObjectId, resource: Resource, uid: String },
    /// Waits until a definition is served.
    AwaitServed { id: ObjectId, resource: Resource },
}

/// How a wanted object stands.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    Missing,
    /// Somebody else's; in words.
    Foreign(String),
    /// There, and to be taken over.
    Adopted(Meta),
    /// Somebody else's, and used as it is.
    Theirs,
    /// As it is wanted.
    Same,
    /// Ours; what differs, in words.
    Differs(Meta, String),
    /// On its way out.
    Leaving(Meta),
}

/// Everything that a plan is made from.
pub(super) struct Scene<'a> {
    pub(super) app: &'a str,
    pub(super) fleet: &'a str,
    pub(super) wanted: &'a [Wanted],
    /// By place in `wanted`.
    pub(super) standing: &'a [Standing],
    pub(super) inventory: &'a Inventory,
    /// What of the inventory is still there and not wanted; with where it is found.
    pub(super) left: &'a BTreeMap<ObjectId, (Resource, Meta)>,
    /// What the other apps of the revision want.
    pub(super) claims: &'a Claims,
    /// All apps of the revision.
    pub(super) beside: &'a [DesiredApp],
    pub(super) prune: &'a PrunePolicy,
    pub(super) replace: &'a [String],
    /// What was there before burgee: given back, not deleted.
    pub(super) borrowed: &'a BTreeSet<Object>,
    /// Of [`going`], what holds something that does not go with it.
    pub(super) held: &'a BTreeMap<ObjectId, Held>,
}

/// How long something that should go stays for what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is nobody's of burgee's from here on.
    ForGood,
    /// It stays burgee's, and is looked at again.
    ForNow,
}

/// What a plan would delete, with where it is found.
pub(super) type Going<'a> = BTreeMap<&'a ObjectId, &'a (Resource, Meta)>;

/// The plan.
///
/// # Errors
/// When a wanted object is somebody else's.
pub(super) fn plan(scene: &Scene<'_>) -> Result<Plan<Action>, RuntimeError> {
    for (wanted, standing) in scene.wanted.iter().zip(scene.standing) {
        if let Standing::Foreign(owner) = standing {
            return Err(RuntimeError::Foreign { object: named(&wanted.id), owner: owner.clone() });
        }
    }
    let mut inventory = Inventory::new();
    let mut steps = removals(scene);
    let held = scene.held.iter().filter(|(_, held)| **held == Held::ForNow).map(|(id, _)| id);
    let late = scene.left.iter().filter(|(id, (_, meta))| lingers(scene, id, meta)).map(|(id, _)| id);
    for id in held.chain(late).map(named) {
        if let Some(digest) = scene.inventory.get(&id) {
            inventory.insert(id, digest.clone());
        }
    }
    let mut added = Vec::new();
    for (wanted, standing) in scene.wanted.iter().zip(scene.standing) {
        if !matches!(standing, Standing::Theirs) {
            inventory.insert(named(&wanted.id), wanted.digest.clone());
        }
        additions(scene, wanted, standing, &mut added);
    }
    // Within a rank: what has to be gone first, the objects, what has to be served.
    added.sort_by_key(|step| step.group);
    steps.extend(added);
    Ok(Plan { steps, inventory })
}

/// What becomes of something that is owned and no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not ours (any more), or on its way out: nothing is done.
    Nothing,
    GivenBack,
    Goes,
}

fn fate(scene: &Scene<'_>, id: &ObjectId, meta: &Meta) -> Fate {
    let label = |key: &str| meta.labels.get(key).map(String::as_str);
    let ours = label(MANAGED_BY) == Some("burgee") && label(FLEET) == Some(scene.fleet);
    // Wanted, handed over, or somebody's by now: nothing to delete, and no longer this app's.
    let wanted = scene.wanted.iter().any(|it| it.id == *id) || scene.claims.contains_key(id);
    // One that is marked as an app's that is here is that app's to delete, by its own settings.
    let is_here = |app: &str| app != scene.app && scene.beside.iter().any(|other| other.name.as_str() == app);
    if wanted || !ours || label(APP).is_none_or(is_here) || meta.is_deleting {
        return Fate::Nothing;
    }
    if scene.borrowed.contains(&named(id)) {
        return Fate::GivenBack;
    }
    let marked = meta.annotations.get(PRUNE).is_some_and(|value| value == "disabled");
    if marked || is_kept(&id.kind, scene.prune) { Fate::Nothing } else { Fate::Goes }
}

/// What stays this app's though it does not want it: what finalizers may hold
/// for a while, and what another app is to take over and has not yet.
fn lingers(scene: &Scene<'_>, id: &ObjectId, meta: &Meta) -> bool {
    let label = |key: &str| meta.labels.get(key).map(String::as_str);
    let own = [(MANAGED_BY, "burgee"), (FLEET, scene.fleet), (APP, scene.app)];
    let goes = || meta.is_deleting || fate(scene, id, meta) == Fate::Goes;
    own.iter().all(|(key, value)| label(key) == Some(value))
        && (scene.claims.contains_key(id) || (finishes(&id.kind, meta) && goes()))
}

/// Whether somebody, an operator that runs beside it as a rule, finishes what
/// an object stands for before it is gone.
pub(super) fn finishes(kind: &Kind, meta: &Meta) -> bool {
    meta.has_finalizers && is_custom(kind)
}

/// What is owned and still there, by what becomes of it.
fn left<'a>(scene: &Scene<'a>, fates: &[Fate]) -> Going<'a> {
    let owned: BTreeSet<ObjectId> = scene.inventory.keys().filter_map(id_of).collect();
    let left =
        scene.left.iter().filter(|(id, (_, meta))| owned.contains(*id) && fates.contains(&fate(scene, id, meta)));
    left.collect()
}

/// What would be deleted if nothing but itself mattered.
pub(super) fn going<'a>(scene: &Scene<'a>) -> Going<'a> {
    left(scene, &[Fate::Goes])
}

fn removals(scene: &Scene<'_>) -> Vec<Step<Action>> {
    let mut leaving: Vec<_> = left(scene, &[Fate::GivenBack, Fate::Goes]).into_iter().collect();
    leaving.retain(|(id, _)| !scene.held.contains_key(*id));
    leaving.sort_by_key(|(id, (resource, _))| (removal_rank(&id.kind, resource.namespaced), std::cmp::Reverse(*id)));
    leaving.into_iter().map(|(id, (resource, meta))| removal(scene, id, resource, meta)).collect()
}

fn removal(scene: &Scene<'_>, id: &ObjectId, resource: &Resource, meta: &Meta) -> Step<Action> {
    let object = named(id);
    let given_back = scene.borrowed.contains(&object);
    let finishes = finishes(&id.kind, meta);
    let (id, resource, uid) = (id.clone(), resource.clone(), meta.uid.clone());
    let group = Some(removal_rank(&id.kind, resource.namespaced).into());
    if given_back {
        let why = "it was there before burgee".to_owned();
        let data = Action::Release { id, resource, uid };
        return Step { verb: Verb::Release, object, why, after_steady: false, group, data };
    }
    Step {
        verb: Verb::Delete,
        object,
        why: "no longer wanted".to_owned(),
        after_steady: holds_data(&id.kind),
        group,
        data: Action::Delete { id, resource, uid, finishes },
    }
}

/// What `prune.keep` names stays, and is nobody's from then on.
fn is_kept(kind: &Kind, prune: &PrunePolicy) -> bool {
    let keeps = |word: &str| prune.keep.iter().any(|kept| kept == word);
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "PersistentVolumeClaim") => keeps("pvcs"),
        ("", "PersistentVolume") => keeps("volumes"),
        ("", "Namespace") => keeps("namespaces"),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => keeps("crds"),
        _ => false,
    }
}

/// What others are made in, or by.
fn is_ground(kind: &Kind) -> bool {
    kind.is("", "Namespace") || is_definition(kind)
}

/// With these goes what they hold: only once the device is steady.
fn holds_data(kind: &Kind) -> bool {
    matches!(
        (kind.group.as_str(), kind.kind.as_str()),
        ("", "PersistentVolumeClaim" | "PersistentVolume" | "Namespace")
            | ("apiextensions.k8s.io", "CustomResourceDefinition")
    )
}

/// The first group of what is added: none of what leaves has it, too.
const ADDED: u32 = 1 << 16;

/// The places that one rank has: gone, applied, served.
const PLACES: u32 = 3;

fn additions(scene: &Scene<'_>, wanted: &Wanted, standing: &Standing, steps: &mut Vec<Step<Action>>) {
    // What is on its way out may take as long as the rest lets it: a claim goes
    // with the last pod that has it. Only what others need first can't be last.
    let is_last = matches!(standing, Standing::Leaving(_)) && !is_ground(&wanted.id.kind);
    let rank = if is_last { u16::MAX } else { wanted.rank };
    let group = |place: u32| Some(ADDED + u32::from(rank) * PLACES + place);
    let (verb, why, uid) = match standing {
        Standing::Same | Standing::Foreign(_) | Standing::Theirs => return,
        Standing::Missing => (Verb::Create, "missing".to_owned(), None),
        Standing::Adopted(meta) => (Verb::Adopt, "nobody claims it".to_owned(), Some(&meta.uid)),
        Standing::Differs(meta, why) => (Verb::Update, why.clone(), Some(&meta.uid)),
        Standing::Leaving(meta) => {
            steps.push(Step {
                verb: Verb::Wait,
                object: named(&wanted.id),
                why: "it is being deleted".to_owned(),
                after_steady: false,
                group: group(0),
                data: Action::AwaitGone {
                    id: wanted.id.clone(),
                    resource: wanted.resource.clone(),
                    uid: meta.uid.clone(),
                },
            });
            (Verb::Create, "deleted by somebody".to_owned(), None)
        }
    };
    let body = match uid {
        // One that was made anew meanwhile is not the one that was judged.
        Some(uid) => with(&wanted.object, "uid", uid),
        None => creating(&wanted.object),
    };
    steps.push(Step {
        verb,
        object: named(&wanted.id),
        why,
        after_steady: false,
        group: group(1),
        data: Action::Apply {
            id: wanted.id.clone(),
            resource: wanted.resource.clone(),
            body: body.into(),
            digest: wanted.digest.clone(),
            fresh: uid.is_none(),
            adopted: matches!(standing, Standing::Adopted(_)),
            replace: scene.replace.contains(&wanted.id.kind.kind),
        },
    });
    if is_definition(&wanted.id.kind) {
        steps.push(Step {
            verb: Verb::Wait,
            object: named(&wanted.id),
            why: "until it is served".to_owned(),
            after_steady: false,
            group: group(2),
            data: Action::AwaitServed { id: wanted.id.clone(), resource: wanted.resource.clone() },
        });
    }
}

/// The body that makes an object where there is none, and nothing else.
pub(super) fn creating(object: &Value) -> String {
    with(object, "resourceVersion", NO_VERSION)
}

fn with(object: &Value, key: &str, value: &str) -> String {
    let mut object = object.clone();
    // The manifest has a name, so it has metadata.
    object["metadata"][key] = value.into();
    object.to_string()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
