//! What every `Journal` must do, run against each of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::desired::{
    AppSpec, Blobs, DesiredApp, DesiredFile, DesiredState, DriftMode, DriftPolicy, FilesSpec, HealthPolicy, Limit,
    OnFailure, PrunePolicy,
};
use fleet::digest::Digest;
use fleet::name::AppName;
use fleet::revision::Revision;

use crate::phase::{Boots, Phase};
use crate::ports::journal::{Blocked, HistoryEntry, Journal, Kept, State};
use crate::ports::runtime::{Object, Pins};

pub(super) fn revision(number: u64) -> Revision {
    Revision { id: format!("{number:040x}").parse().unwrap(), identity: Digest::of(&number.to_be_bytes()) }
}

/// A kept state of one files app: one file that all share, one of its own.
pub(super) fn kept(number: u64, size: usize) -> (Kept, Blobs) {
    let shared: Arc<[u8]> = vec![7; size].into();
    let own: Arc<[u8]> = format!("revision {number}\n").repeat(size / 12 + 1).into_bytes().into();
    let blobs: Blobs = [shared, own].into_iter().map(|bytes| (Digest::of(&bytes), bytes)).collect();
    let files = blobs.keys().enumerate().map(|(place, content)| {
        (format!("/etc/burgee/{place}.conf"), DesiredFile { content: *content, mode: 0o644, owner: None })
    });
    let app = DesiredApp {
        name: "base".parse().unwrap(),
        depends_on: Vec::new(),
        spec: AppSpec::Files(FilesSpec { files: files.collect(), units: vec!["base.service".to_owned()] }),
        health: HealthPolicy { timeout_ms: 1000, soak_ms: 100, checks: Vec::new() },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: Vec::new() },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: Vec::new() },
        on_failure: OnFailure::Rollback,
        digest: Digest::of(b"app"),
    };
    let desired = DesiredState {
        fleet: "retail".parse().unwrap(),
        device: "store-042".parse().unwrap(),
        groups: Vec::new(),
        apps: vec![app],
        windows: Vec::new(),
        has_rollout: false,
        digest: Digest::of(&number.to_le_bytes()),
    };
    (Kept { revision: revision(number), desired, pins: pins("b") }, blobs)
}

fn pins(id: &str) -> BTreeMap<AppName, Pins> {
    BTreeMap::from([("base".parse().unwrap(), Pins::from([("image".to_owned(), id.to_owned())]))])
}

/// A state as it is some way into the life of a device: `number` is steady,
/// the one before it, too, is kept.
pub(super) fn state(number: u64) -> State {
    let at = "2026-03-04T05:06:07Z".parse().unwrap();
    let objects = (0..20).map(|n| (Object { kind: "file".to_owned(), name: format!("/etc/{n}") }, n.to_string()));
    State {
        phase: Phase::Steady { at: revision(number) },
        good: Some(revision(number)),
        before: number.checked_sub(1).map(revision),
        blocked: vec![Blocked {
            revision: revision(99),
            digest: None,
            reason: "Unhealthy".to_owned(),
            message: "unhealthy".to_owned(),
            since: at,
        }],
        inventory: BTreeMap::from([(
            "base".parse().unwrap(),
            BTreeMap::from([("files".to_owned(), objects.collect())]),
        )]),
        epoch: number,
        history: (0..number.min(50))
            .map(|n| HistoryEntry { at, revision: revision(n).id, event: "steady".to_owned(), message: String::new() })
            .collect(),
        ..State::default()
    }
}

/// Makes `number` the newest steady revision.
pub(super) fn advance(journal: &mut impl Journal, number: u64, size: usize) {
    let (kept, blobs) = kept(number, size);
    journal.commit(state(number), Some((&kept, &blobs))).unwrap();
}

/// The contract. `reopen` closes the journal and opens it again, if it can.
pub(super) fn holds<J: Journal>(mut journal: J, reopen: impl Fn(J) -> J) {
    assert_eq!(journal.state(), &State::default(), "a new journal is empty");
    assert!(journal.kept(&revision(1)).unwrap().is_none());

    // Kept beside the state, and given back whole.
    advance(&mut journal, 1, 10_000);
    journal = reopen(journal);
    assert_eq!(journal.state(), &state(1));
    assert_eq!(journal.kept(&revision(1)).unwrap(), Some(kept(1, 10_000)));
    assert!(journal.notice().is_none(), "{:?}", journal.notice());

    // A state without `keep` drops nothing that it names.
    let applying = State {
        phase: Phase::Applying {
            to: revision(2),
            back: Some(revision(1)),
            boots: Boots { id: "a-boot".to_owned(), count: 1 },
        },
        ..state(1)
    };
    let (two, blobs) = kept(2, 10_000);
    // Only what is new has to be given: the shared file is there already.
    let fresh: Blobs = blobs
        .iter()
        .filter(|(digest, _)| !kept(1, 10_000).1.contains_key(digest))
        .map(|(d, b)| (*d, Arc::clone(b)))
        .collect();
    journal.commit(applying.clone(), Some((&two, &fresh))).unwrap();
    journal.commit(State { epoch: 9, ..applying }, None).unwrap();
    journal = reopen(journal);
    assert_eq!(journal.state().epoch, 9);
    assert_eq!(journal.kept(&revision(1)).unwrap(), Some(kept(1, 10_000)));
    assert_eq!(journal.kept(&revision(2)).unwrap(), Some((two.clone(), blobs)));

    // What nothing names is not kept, and what nothing names any more goes.
    let (five, five_blobs) = kept(5, 100);
    journal.commit(State { epoch: 10, ..journal.state().clone() }, Some((&five, &five_blobs))).unwrap();
    assert!(journal.kept(&revision(5)).unwrap().is_none());
    advance(&mut journal, 3, 10_000);
    assert!(journal.kept(&revision(1)).unwrap().is_none());
    assert!(journal.kept(&revision(2)).unwrap().is_some(), "the one before last good");

    // Pins change within a revision.
    let (mut three, three_blobs) = kept(3, 10_000);
    three.pins = pins("c");
    journal.commit(state(3), Some((&three, &three_blobs))).unwrap();
    journal = reopen(journal);
    assert_eq!(journal.kept(&revision(3)).unwrap().map(|(kept, _)| kept), Some(three));

    // A kept state whose files are not given is refused, and nothing changes.
    let (six, _) = kept(6, 333);
    assert!(journal.commit(State { good: Some(revision(6)), ..state(6) }, Some((&six, &Blobs::new()))).is_err());
    assert_eq!(journal.state(), &state(3));
    journal = reopen(journal);
    assert_eq!(journal.state(), &state(3));
}
