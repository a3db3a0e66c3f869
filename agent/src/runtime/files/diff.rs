//! From what is wanted and what was seen to the steps between. Pure.
//!
//! Order: units that leave stop, files and folders that leave go, files are
//! written, units are enabled, systemd reads what changed, units (re)start.

use std::collections::{BTreeMap, BTreeSet};

use fleet::digest::Digest;
use fleet::name::AppName;

use super::marks::Marks;
use super::owner::Owner;
use crate::ports::runtime::{Inventory, Object, Plan, RuntimeError, Step, Verb};
use crate::systemd::unit::Unit;

/// Inventory value of a unit that ran, enabled, before burgee came: it is
/// restarted with its app's files and otherwise left alone.
const FOUND: &str = "found";

/// What a step is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Stop and disable a unit that leaves.
    Leave { unit: String },
    /// Remove a file.
    Unlink { path: String },
    /// Remove a folder that burgee made, if it is empty.
    Rmdir { path: String },
    /// Write a file; `fresh`: there is none yet.
    Write { path: String, content: Digest, mode: u32, owner: (u32, u32), fresh: bool },
    /// Make a unit start at boot; `again`: its `[Install]` may have changed.
    Enable { unit: String, again: bool },
    /// `daemon-reload`.
    Reload,
    /// Start a unit.
    Start { unit: String },
    /// Restart a unit.
    Restart { unit: String },
}

/// What an app is to be, owners resolved.
#[derive(Clone, Debug)]
pub(super) struct Want {
    pub(super) files: BTreeMap<String, WantFile>,
    pub(super) units: Vec<String>,
    /// Over all of `files`.
    pub(super) digest: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WantFile {
    pub(super) content: Digest,
    pub(super) mode: u32,
    pub(super) owner: Owner,
}

/// One path as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sight {
    pub(super) found: Found,
    /// Whether systemd reads what is there.
    pub(super) unit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, and these folders on the way are missing, too.
    Nothing { missing: Vec<String> },
    /// A file; no digest where its size alone tells that it differs.
    File { digest: Option<Digest>, mode: u32, owner: Owner },
    /// A link, folder or device node.
    Other(&'static str),
    /// A part of the way is a link.
    BehindLink { at: String, to: String },
    /// A part of the way is a file.
    BehindFile { at: String },
}

/// What else was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Every path that is wanted or owned.
    pub(super) files: BTreeMap<String, Sight>,
    /// Owned folders that exist: the paths of what is in them.
    pub(super) folders: BTreeMap<String, BTreeSet<String>>,
    /// The wanted units.
    pub(super) units: BTreeMap<String, Unit>,
    pub(super) marks: Marks,
    /// The kernel's id of this boot.
    pub(super) boot: String,
    /// Whether the device runs systemd.
    pub(super) systemd: bool,
    /// What this app delivered when it was last good: burgee's, also where
    /// another app took it over since.
    pub(super) had: BTreeSet<String>,
    /// Paths that other apps own, or claim at this revision.
    pub(super) neighbours: BTreeMap<String, Neighbour>,
    /// Folders that other apps made; whoever leaves last removes them.
    pub(super) shared: BTreeSet<String>,
}

/// Another app's word on a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) app: AppName,
    /// It wants the path at the revision that is being planned.
    pub(super) claims: bool,
}

pub(super) fn file(path: &str) -> Object {
    Object { kind: "file".to_owned(), name: path.to_owned() }
}

pub(super) fn folder(path: &str) -> Object {
    Object { kind: "folder".to_owned(), name: path.to_owned() }
}

pub(super) fn unit(name: &str) -> Object {
    Object { kind: "unit".to_owned(), name: name.to_owned() }
}

fn step(verb: Verb, object: Object, why: impl Into<String>, data: Act) -> Step<Act> {
    Step { verb, object, why: why.into(), after_steady: false, group: None, data }
}

/// The names of one kind in an inventory.
pub(super) fn owned<'a>(inventory: &'a Inventory, kind: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
    inventory.keys().filter(move |object| object.kind == kind).map(|object| object.name.as_str())
}

/// The plan. `want` is `None` when the app leaves.
pub(super) fn plan(want: Option<&Want>, inventory: &Inventory, seen: &Seen) -> Result<Plan<Act>, RuntimeError> {
    let nothing = Want { files: BTreeMap::new(), units: Vec::new(), digest: Digest::of(b"") };
    let want = want.unwrap_or(&nothing);
    let mut after = Inventory::new();

    // Without systemd none of them can run.
    let mut steps = if seen.systemd { leaving_units(want, inventory) } else { Vec::new() };
    let removals = leaving_files(want, inventory, seen);
    let gone: BTreeSet<&str> = removals.iter().map(|step| step.object.name.as_str()).collect();
    let (folders, emptied) = leaving_folders(want, inventory, seen, &gone);
    let writes = files(want, inventory, seen, &gone, &emptied, &mut after)?;
    after.extend(folders);

    let files_change = !removals.is_empty() || !writes.is_empty();
    let unit_files_change =
        removals.iter().chain(&writes).any(|step| seen.files.get(&step.object.name).is_some_and(|sight| sight.unit));
    let leave = !steps.is_empty();
    steps.extend(removals);
    // Deepest first: a name that others begin with sorts before them.
    steps.extend(
        emptied.iter().rev().map(|path| {
            step(Verb::Delete, folder(path), "empty and made by burgee", Act::Rmdir { path: path.clone() })
        }),
    );
    steps.extend(writes);

    let stale = unit_files_change || seen.marks.reload;
    let enables = enables(want, seen, stale)?;
    if seen.systemd && (stale || leave || !enables.is_empty()) {
        steps.extend(enables);
        let manager = Object { kind: "systemd".to_owned(), name: "manager".to_owned() };
        steps.push(step(Verb::Update, manager, "unit files changed", Act::Reload));
    }
    steps.extend(starts(want, seen, files_change));
    for name in &want.units {
        let value = inventory.get(&unit(name)).cloned().unwrap_or_else(|| ownership(name, want, seen).to_owned());
        after.insert(unit(name), value);
    }
    Ok(Plan { steps, inventory: after })
}

fn leaving_units(want: &Want, inventory: &Inventory) -> Vec<Step<Act>> {
    owned(inventory, "unit")
        .filter(|name| !want.units.iter().any(|wanted| wanted == name))
        .filter(|name| inventory.get(&unit(name)).is_none_or(|value| value != FOUND))
        .map(|name| step(Verb::Delete, unit(name), "no longer wanted", Act::Leave { unit: name.to_owned() }))
        .collect()
}

fn leaving_files(want: &Want, inventory: &Inventory, seen: &Seen) -> Vec<Step<Act>> {
    owned(inventory, "file")
        .filter(|path| !want.files.contains_key(*path))
        // It moved to another app.
        .filter(|path| !seen.neighbours.get(*path).is_some_and(|neighbour| neighbour.claims))
        .filter(|path| match seen.files.get(*path).map(|sight| &sight.found) {
            Some(Found::File { .. } | Found::Other("a link")) => true,
            // Gone already, or somebody put there what burgee never makes.
            _ => false,
        })
        .map(|path| step(Verb::Delete, file(path), "no longer wanted", Act::Unlink { path: path.to_owned() }))
        .collect()
}

/// The folders that stay owned, and those that go, outermost first.
fn leaving_folders(
    want: &Want,
    inventory: &Inventory,
    seen: &Seen,
    gone: &BTreeSet<&str>,
) -> (Inventory, BTreeSet<String>) {
    let mut stay = Inventory::new();
    let mut emptied = BTreeSet::new();
    let shared = seen.shared.iter().filter(|path| want.files.keys().any(|file| is_below(file, path)));
    stay.extend(shared.map(|path| (folder(path), String::new())));
    for path in owned(inventory, "folder").rev() {
        if want.files.keys().any(|file| is_below(file, path)) {
            stay.insert(folder(path), String::new());
        } else if seen
            .folders
            .get(path)
            .is_some_and(|inside| inside.iter().all(|one| gone.contains(one.as_str()) || emptied.contains(one)))
        {
            emptied.insert(path.to_owned());
        }
    }
    (stay, emptied)
}

fn is_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn files(
    want: &Want,
    inventory: &Inventory,
    seen: &Seen,
    gone: &BTreeSet<&str>,
    emptied: &BTreeSet<String>,
    after: &mut Inventory,
) -> Result<Vec<Step<Act>>, RuntimeError> {
    let mut steps = Vec::new();
    for (path, wanted) in &want.files {
        let object = file(path);
        let Some(sight) = seen.files.get(path) else {
            return Err(RuntimeError::Changed { object });
        };
        let neighbour = seen.neighbours.get(path);
        if let Some(neighbour) = neighbour.filter(|neighbour| neighbour.claims) {
            return Err(RuntimeError::Refused {
                object: object.to_string(),
                cause: format!("app {} delivers it, too", neighbour.app),
                hint: Some("let one app deliver each file".to_owned()),
            });
        }
        let ours = inventory.contains_key(&object) || neighbour.is_some() || seen.had.contains(path);
        let (verb, why) = match &sight.found {
            Found::Nothing { missing } => {
                after.extend(missing.iter().map(|path| (folder(path), String::new())));
                (Some(Verb::Create), "missing".to_owned())
            }
            // That part leaves before this one comes.
            Found::BehindFile { at } if gone.contains(at.as_str()) => {
                let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
                let new = parents.filter(|parent| *parent == at || is_below(parent, at));
                after.extend(new.map(|path| (folder(path), String::new())));
                (Some(Verb::Create), "missing".to_owned())
            }
            Found::BehindFile { at } => return Err(foreign(at, "a file on the way")),
            Found::BehindLink { at, to } => {
                return Err(RuntimeError::Refused {
                    object: object.to_string(),
                    cause: format!("{at} is a link (to {to}), and links are not followed"),
                    hint: Some("give the path that the link leads to".to_owned()),
                });
            }
            Found::Other("a folder") if emptied.contains(path) => (Some(Verb::Create), "a folder".to_owned()),
            Found::Other("a link") if ours => (Some(Verb::Update), "a link took its place".to_owned()),
            Found::Other(what) => return Err(foreign(path, what)),
            Found::File { digest, mode, owner } => {
                let mut differs = Vec::new();
                if *digest != Some(wanted.content) {
                    differs.push("content");
                }
                if *mode != wanted.mode & 0o7777 {
                    differs.push("mode");
                }
                if *owner != wanted.owner {
                    differs.push("owner");
                }
                match differs.is_empty() {
                    // Also where burgee did not make it: it is adopted.
                    true => (None, String::new()),
                    false if ours => (Some(Verb::Update), differs.join(", ")),
                    false => return Err(foreign(path, &format!("owner {}:{}, mode {mode:04o}", owner.0, owner.1))),
                }
            }
        };
        if let Some(verb) = verb {
            let WantFile { content, mode, owner } = wanted.clone();
            let fresh = verb == Verb::Create;
            steps.push(step(verb, object.clone(), why, Act::Write { path: path.clone(), content, mode, owner, fresh }));
        }
        after.insert(object, wanted.content.to_string());
    }
    Ok(steps)
}

fn foreign(path: &str, what: &str) -> RuntimeError {
    RuntimeError::Foreign { object: file(path), owner: what.to_owned() }
}

fn enables(want: &Want, seen: &Seen, stale: bool) -> Result<Vec<Step<Act>>, RuntimeError> {
    let mut steps = Vec::new();
    for name in &want.units {
        let state = seen.units.get(name).map_or("", |unit| unit.file_state.as_str());
        if state.starts_with("masked") {
            return Err(RuntimeError::Refused {
                object: unit(name).to_string(),
                cause: "it is masked on this device".to_owned(),
                hint: Some(format!("`systemctl unmask {name}`, then `burgee-agent retry`")),
            });
        }
        // Generated units can't be enabled: their source says when they start.
        let again = stale && delivers(want, seen, name);
        if again || state == "disabled" {
            let why = if again { "its unit file changed" } else { "disabled" };
            steps.push(step(Verb::Create, unit(name), why, Act::Enable { unit: name.clone(), again }));
        }
    }
    Ok(steps)
}

fn starts(want: &Want, seen: &Seen, files_change: bool) -> Vec<Step<Act>> {
    // A socket comes before what it activates, whatever the order in app.yaml.
    let (sockets, others): (Vec<_>, Vec<_>) = want.units.iter().partition(|name| name.ends_with(".socket"));
    let mut steps = Vec::new();
    for name in sockets.into_iter().chain(others) {
        let state = seen.units.get(name);
        let up = state.is_some_and(Unit::is_up);
        // An app of units alone has nothing that a restart could bring in.
        let start = seen.marks.started.get(name);
        let current = !files_change && (want.files.is_empty() || start.is_some_and(|start| start.files == want.digest));
        let here = start.is_some_and(|start| start.boot == seen.boot);
        let unmet = state.is_some_and(|unit| !unit.condition && unit.active == "inactive");
        let why =
            if files_change { "a file of its app changed" } else { "not restarted since its app's files changed" };
        if up && !current {
            steps.push(step(Verb::Restart, unit(name), why, Act::Restart { unit: name.clone() }));
        } else if !up && !(current && (unmet || state.is_some_and(|unit| unit.is_done(here)))) {
            let why = state.map_or_else(|| "unknown".to_owned(), Unit::state);
            steps.push(step(Verb::Start, unit(name), why, Act::Start { unit: name.clone() }));
        }
    }
    steps
}

/// Whether one of the app's files is the unit file of `name` itself.
fn delivers(want: &Want, seen: &Seen, name: &str) -> bool {
    let template = name.split_once('@').and_then(|(stem, rest)| {
        let (_, suffix) = rest.rsplit_once('.')?;
        Some(format!("{stem}@.{suffix}"))
    });
    unit_files(want, seen).any(|path| {
        let file = super::place::name(path);
        file == name || Some(file) == template.as_deref()
    })
}

fn unit_files<'a>(want: &'a Want, seen: &'a Seen) -> impl Iterator<Item = &'a str> {
    let read = |path: &&String| seen.files.get(*path).is_some_and(|sight| sight.unit);
    want.files.keys().filter(read).map(String::as_str)
}

/// The service that quadlet generates from a file.
fn generated(path: &str) -> Option<String> {
    let (stem, kind) = super::place::name(path).rsplit_once('.')?;
    match kind {
        "container" | "kube" => Some(format!("{stem}.service")),
        "volume" | "network" | "image" | "pod" | "build" => Some(format!("{stem}-{kind}.service")),
        _ => None,
    }
}

fn ownership(name: &str, want: &Want, seen: &Seen) -> &'static str {
    let ours =
        delivers(want, seen, name) || unit_files(want, seen).any(|path| generated(path).as_deref() == Some(name));
    match seen.units.get(name) {
        Some(unit) if !ours && unit.is_up() && unit.file_state != "disabled" => FOUND,
        Some(unit) if !ours && unit.file_state.starts_with("enabled") => FOUND,
        _ => "",
    }
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
