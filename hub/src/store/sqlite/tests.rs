//! The store's promises, on a real file.

use fleet::wire::report::{Answer, Event, Report, ReportBody, Run};
use jiff::{Timestamp, ToSpan};

use super::SqliteStore;
use super::devices::{HEALTH, PHASES, REVISIONS, SIZES, SYNC};
use crate::axes::LinkAxis;
use crate::store::{
    Device, DeviceFilter, DeviceState, Enrolled, NewCommand, NewDevice, NewToken, Outcome, Place, Store, Taken,
    TokenUse,
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + secs).expect("a time")
}

async fn open() -> (tempfile::TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("hub.db")).await.expect("opens");
    (folder, store)
}

fn new_device(name: &str, key: u8) -> NewDevice {
    NewDevice {
        name: name.parse().expect("a name"),
        key: [key; 32],
        state: DeviceState::Accepted,
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        token: "t".to_owned(),
        now: at(0),
    }
}

fn event(device: &str, epoch: u64, counter: u64, secs: i64) -> Report {
    Report {
        fleet: "f".parse().expect("a name"),
        device: device.parse().expect("a name"),
        epoch,
        counter,
        after: None,
        run: None,
        at: at(secs),
        body: ReportBody::Event(Event { revision: None, event: format!("e{epoch}.{counter}"), message: String::new() }),
    }
}

fn status(device: &str, epoch: u64, counter: u64, phase: &str) -> Report {
    serde_json::from_value(serde_json::json!({
        "fleet": "f", "device": device, "epoch": epoch, "counter": counter, "at": at(1),
        "body": {"status": {"device": device, "phase": phase, "revision": "a".repeat(40), "lastGood": "a".repeat(40),
            "blocked": [], "apps": [], "conditions": [], "link": {"git": "up", "mqtt": "up", "hub": "up"}}}}))
    .expect("a report")
}

async fn get(store: &SqliteStore, name: &str) -> Device {
    store.device(&name.parse().expect("a name")).await.expect("reads").expect("is there")
}

#[tokio::test]
async fn a_name_belongs_to_its_key_until_removed() {
    let (_folder, store) = open().await;
    assert_eq!(store.enroll(&new_device("d", 1)).await.expect("enrols"), Enrolled::Done);
    assert_eq!(store.enroll(&new_device("d", 1)).await.expect("again"), Enrolled::Done);
    assert_eq!(store.enroll(&new_device("d", 2)).await.expect("another key"), Enrolled::NameTaken);
    let owner = Enrolled::KeyOf("d".parse().expect("a name"));
    assert_eq!(store.enroll(&new_device("e", 1)).await.expect("another's key"), owner);
    assert_eq!(get(&store, "d").await.key, [1; 32]);
    store.store(&[status("d", 1, 1, "steady")], at(1)).await.expect("stores");

    let name = "d".parse().expect("a name");
    assert!(store.set_state(&name, DeviceState::Removed, at(2)).await.expect("removes"));
    assert!(!store.set_state(&name, DeviceState::Accepted, at(2)).await.expect("stays removed"));
    assert_eq!(store.enroll(&new_device("e", 1)).await.expect("nobody's key"), Enrolled::Done);
    assert_eq!(store.enroll(&new_device("d", 2)).await.expect("enrols anew"), Enrolled::Done);
    let device = get(&store, "d").await;
    assert_eq!((device.key, device.status.is_none(), device.last_seen), ([2; 32], true, None));
}

#[tokio::test]
async fn each_place_once_and_old_news_hide_nothing() {
    let (folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    let name = "d".parse().expect("a name");
    let batch = [event("d", 1, 1, 10), status("d", 1, 5, "steady"), event("d", 1, 1, 10), status("d", 1, 3, "held")];
    let taken = store.store(&batch, at(20)).await.expect("stores");
    assert_eq!(taken.taken, [Taken::New, Taken::New, Taken::Duplicate, Taken::New]);
    assert_eq!(taken.acks[0].place, Place { epoch: 1, counter: 5 });
    assert_eq!(get(&store, "d").await.sync.as_str(), "synced", "the older status came later");

    store.close().await;
    let store = SqliteStore::open(&folder.path().join("hub.db")).await.expect("opens again");
    let again = store.store(&batch[..1], at(21)).await.expect("stores");
    assert_eq!(again.taken, [Taken::Duplicate]);
    assert!(again.acks[0].sequence > taken.acks[0].sequence);

    // What is dropped by age is still known to have been there; the last events stay.
    assert_eq!(store.expire(at(30)).await.expect("expires"), 2);
    assert_eq!(store.entries(&name, 10).await.expect("lists").len(), 1);
    let late = [event("d", 1, 1, 10), event("d", 1, 4, 10), event("d", 1, 6, 10), event("d", 2, 1, 10)];
    let taken = store.store(&late, at(31)).await.expect("stores");
    assert_eq!(taken.taken, [Taken::Duplicate, Taken::Duplicate, Taken::New, Taken::New]);
}

fn by(run: &str, heard: u64, report: Report) -> Report {
    Report { run: Some(Run { id: run.to_owned(), machine: Some("ab".to_owned()), heard }), ..report }
}

#[tokio::test]
async fn two_runs_that_live_are_told_from_one_that_ended() {
    let (_folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    let twin =
        async |now: i64| get(&store, "d").await.twin.filter(|twin| twin.seen >= at(now - 5400)).map(|twin| twin.since);
    let say = async |run: &str, heard, epoch, counter, secs| {
        let stored = store.store(&[by(run, heard, event("d", epoch, counter, secs))], at(secs)).await.expect("stores");
        assert_eq!(stored.taken, [Taken::New], "{run} {epoch} {counter}: no report is lost");
        let ack = stored.acks.into_iter().next().expect("an acknowledgement");
        assert_eq!((ack.run.as_str(), ack.place), (run, Place { epoch, counter }), "it is the run's own");
        (ack.sequence, ack.known, ack.twin)
    };
    let (first, ..) = say("aa", 0, 1, 1, 10).await;
    // Started again; what the run before had sent comes late.
    let (_, known, _) = say("bb", 0, 2, 1, 20).await;
    assert_eq!(known, Place { epoch: 2, counter: 1 });
    say("aa", first, 1, 2, 30).await;
    // Set back to the first epoch: the same places, other words, a third run.
    let (heard, known, _) = say("cc", 0, 1, 1, 40).await;
    assert_eq!(known, Place { epoch: 2, counter: 1 }, "what comes next has to lie behind it");
    say("cc", heard, 3, 1, 45).await;
    assert_eq!(twin(45).await, None);

    // The second one lives: it has heard what was said after the third began.
    let (heard, ..) = say("bb", 0, 2, 2, 50).await;
    assert_eq!(twin(50).await, None, "one late report proves nothing");
    let (.., told) = say("bb", heard, 2, 3, 60).await;
    assert_eq!((told, twin(60).await), (Some(at(60)), Some(at(60))));
    let (.., told) = say("cc", heard, 3, 2, 70).await;
    assert_eq!(told, Some(at(60)), "both are told");
    assert_eq!(store.counts(at(0)).await.expect("counts").copied, 1);
    let runs = store.runs(&"d".parse().expect("a name")).await.expect("lists");
    assert_eq!(runs.iter().map(|run| run.run.as_str()).collect::<Vec<_>>(), ["cc", "bb", "aa"]);

    // One falls silent: the notice goes by itself, and at once by a person's word.
    let (.., told) = say("cc", heard, 3, 3, 60 + 5401).await;
    assert_eq!(told, None);
    say("bb", heard, 2, 4, 60 + 5402).await;
    assert!(twin(60 + 5402).await.is_some(), "and back");
    assert!(store.forget_runs(&"d".parse().expect("a name")).await.expect("forgets"));
    assert_eq!(twin(60 + 5402).await, None);
}

#[tokio::test]
async fn a_late_status_of_an_ended_run_hides_nothing() {
    let (_folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    let shown = async || get(&store, "d").await.status.map(|status| crate::axes::phase(status.phase));
    let say = async |run: &str, heard, epoch, counter, phase: &str| {
        let report = by(run, heard, status("d", epoch, counter, phase));
        store.store(&[report], at(1)).await.expect("stores").acks[0].sequence
    };
    say("aa", 0, 5, 9, "held").await;
    assert_eq!(shown().await, Some("held"));
    // Set back, so that it counts from before; it began later all the same.
    say("bb", 0, 2, 1, "steady").await;
    assert_eq!(shown().await, Some("steady"));
    let heard = say("aa", 0, 5, 10, "stalled").await;
    assert_eq!(shown().await, Some("steady"), "late");
    say("aa", heard, 5, 11, "stalled").await;
    assert_eq!(shown().await, Some("stalled"), "it lives: the last word is shown");
}

#[tokio::test]
async fn what_is_missing_holds_the_acknowledgement() {
    let (_folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    let after =
        |counter, before| Report { after: Some(Place { epoch: 1, counter: before }), ..event("d", 1, counter, 1) };
    let third = after(3, 2);
    let stored = store.store(&[event("d", 1, 1, 1), third.clone()], at(5)).await.expect("stores");
    assert_eq!(stored.taken, [Taken::New, Taken::New]);
    assert_eq!(stored.acks[0].place.counter, 1, "the second never came");
    let stored = store.store(&[after(2, 1), third], at(6)).await.expect("stores");
    assert_eq!(stored.taken, [Taken::New, Taken::Duplicate]);
    assert_eq!(stored.acks[0].place.counter, 3);
}

#[tokio::test]
async fn events_are_listed_by_the_devices_own_time() {
    let (_folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    store.store(&[event("d", 1, 2, 50), event("d", 1, 1, 99), event("d", 2, 1, 10)], at(100)).await.expect("stores");
    let entries = store.entries(&"d".parse().expect("a name"), 2).await.expect("lists");
    let got: Vec<_> = entries.iter().map(|entry| (entry.place.counter, entry.at, entry.received)).collect();
    assert_eq!(got, [(1, at(99), at(100)), (2, at(50), at(100))]);
}

#[tokio::test]
async fn tokens_are_used_up() {
    let (_folder, store) = open().await;
    let token = |id: &str, uses| NewToken {
        id: id.to_owned(),
        hash: [id.as_bytes()[0]; 32],
        uses,
        labels: [].into(),
        lobby: false,
        created: at(0),
        expires: at(60),
    };
    for (id, uses) in [("a", Some(1)), ("b", None)] {
        store.add_token(&token(id, uses)).await.expect("adds");
    }
    let (first, second) = tokio::join!(store.use_token("a", at(1)), store.use_token("a", at(1)));
    let mut both = [first.expect("uses"), second.expect("uses")];
    both.sort_by_key(|taken| *taken != TokenUse::Taken);
    assert_eq!(both, [TokenUse::Taken, TokenUse::UsedUp]);
    store.unuse_token("a").await.expect("gives back");
    assert_eq!(store.use_token("a", at(1)).await.expect("uses"), TokenUse::Taken);
    assert_eq!(store.use_token("b", at(60)).await.expect("late"), TokenUse::Expired);
    assert!(store.revoke_token("b", at(2)).await.expect("revokes"));
    assert_eq!(store.use_token("b", at(3)).await.expect("revoked"), TokenUse::Revoked);
    assert_eq!(store.use_token("c", at(3)).await.expect("unknown"), TokenUse::Unknown);
    assert!(store.token(&[b'a'; 32]).await.expect("finds").is_some());
}

#[tokio::test]
async fn sequences_only_grow_and_only_the_first_answer_counts() {
    let (_folder, store) = open().await;
    store.enroll(&new_device("d", 1)).await.expect("enrols");
    let name = "d".parse().expect("a name");
    let ms = u64::try_from(at(0).as_millisecond()).expect("positive");
    assert_eq!(store.sequence(&name, at(0)).await.expect("first"), Some(ms));
    assert_eq!(store.sequence(&name, at(0)).await.expect("same clock"), Some(ms + 1));
    assert_eq!(store.sequence(&name, at(-9)).await.expect("clock went back"), Some(ms + 2));
    assert_eq!(store.sequence(&"x".parse().expect("a name"), at(0)).await.expect("unknown"), None);

    let command = NewCommand {
        device: name.clone(),
        sequence: ms,
        act: "sync".to_owned(),
        jws: "j".to_owned(),
        issued: at(0),
        expires: at(0).checked_add(1.minute()).expect("a time"),
    };
    store.add_command(&command).await.expect("adds");
    assert_eq!(store.open_commands(None, 0, at(1)).await.expect("open").len(), 1);
    assert_eq!(store.open_commands(Some(&name), ms, at(1)).await.expect("after").len(), 0);
    assert_eq!(store.open_commands(None, 0, at(60)).await.expect("expired").len(), 0);
    let answer = |counter, outcome, message: &str| Report {
        body: ReportBody::Answer(Answer { command: ms, outcome, message: message.to_owned() }),
        ..event("d", 1, counter, 1)
    };
    let answers = [answer(1, Outcome::Done, "taken on"), answer(2, Outcome::Refused, "again")];
    store.store(&answers, at(2)).await.expect("stores");
    let stored = store.command(&name, ms).await.expect("reads").expect("is there");
    assert_eq!((stored.outcome, stored.message.as_str()), (Some(Outcome::Done), "taken on"));
}

#[tokio::test]
async fn counts_and_filters() {
    let (_folder, store) = open().await;
    for (name, key) in [("till-1", 1), ("till-2", 2), ("kiosk-1", 3), ("100", 4)] {
        store.enroll(&new_device(name, key)).await.expect("enrols");
    }
    store.set_state(&"100".parse().expect("a name"), DeviceState::Lobby, at(0)).await.expect("lobby");
    store.store(&[status("till-1", 1, 1, "steady")], at(100)).await.expect("stores");
    store.store(&[status("till-2", 1, 1, "stalled")], at(10)).await.expect("stores");
    let counts = store.counts(at(50)).await.expect("counts");
    assert_eq!((counts.accepted, counts.lobby), (3, 1));
    assert_eq!((counts.heard, counts.silent, counts.unheard), (1, 1, 1));
    assert_eq!(counts.revisions[0].count, 2);

    let base = || DeviceFilter { state: Some(DeviceState::Accepted), ..DeviceFilter::default() };
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        ("all", base(), 3),
        ("part of a name", DeviceFilter { search: text("till"), ..base() }, 2),
        ("a wildcard is a letter", DeviceFilter { search: text("ti%1"), ..base() }, 0),
        ("a label", DeviceFilter { search: text("region=eu"), ..base() }, 3),
        ("another label", DeviceFilter { search: text("region=us"), ..base() }, 0),
        ("a phase", DeviceFilter { phase: text("stalled"), ..base() }, 1),
        ("a revision's start", DeviceFilter { revision: text("aaaa"), ..base() }, 2),
        ("silent", DeviceFilter { link: Some((LinkAxis::Silent, at(50))), ..base() }, 1),
        ("never heard", DeviceFilter { link: Some((LinkAxis::Unheard, at(50))), ..base() }, 1),
    ];
    for (name, filter, want) in cases {
        assert_eq!(store.count(&filter).await.expect("counts"), want, "{name}");
        assert_eq!(store.devices(&filter).await.expect("lists").len() as u64, want, "{name}");
    }
    let page = DeviceFilter { limit: 1, offset: 1, ..base() };
    assert_eq!(store.devices(&page).await.expect("lists")[0].name.as_str(), "till-1");
}

#[tokio::test]
async fn what_was_stored_before_there_were_runs_still_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path().join("hub.db")).create_if_missing(true);
    let pool = sqlx::sqlite::SqlitePool::connect_with(options).await.expect("opens");
    let run = async |sql: &'static str| sqlx::raw_sql(sql).execute(&pool).await.map(drop).expect("runs");
    run(include_str!("../../../migrations/0001_hub.sql")).await;
    run("INSERT INTO devices (name, key, state, labels, enrolled, changed, acked_epoch, acked_counter, status_epoch, \
         status_counter) VALUES ('d', zeroblob(32), 'accepted', '{}', 0, 0, 3, 2, 3, 2)")
    .await;
    run("INSERT INTO reports VALUES ('d', 3, 1, 0, 0, 'event', NULL), ('d', 3, 2, 0, 0, 'status', NULL)").await;
    run(include_str!("../../../migrations/0002_runs.sql")).await;

    let store = SqliteStore { pool };
    let stored = store.store(&[event("d", 3, 1, 9), event("d", 3, 3, 9)], at(1)).await.expect("stores");
    assert_eq!(stored.taken, [Taken::Duplicate, Taken::New]);
    assert_eq!((stored.acks[0].place, stored.acks[0].run.as_str()), (Place { epoch: 3, counter: 3 }, ""));
    // The agent is updated: its run begins, and is no twin of what was before.
    let updated = by("aa", 0, event("d", 4, 1, 9));
    let stored = store.store(&[updated, by("aa", 0, status("d", 4, 2, "steady"))], at(2)).await.expect("stores");
    assert_eq!(stored.taken, [Taken::New, Taken::New]);
    assert_eq!(stored.acks[0].known, Place { epoch: 4, counter: 2 });
    let device = get(&store, "d").await;
    assert!(device.status.is_some() && device.twin.is_none());
}

/// What a page asks for over and over is answered by an index: in the table
/// lies each device's whole status.
#[tokio::test]
async fn counts_read_an_index_alone() {
    let (_folder, store) = open().await;
    let plan = async |sql: &str| {
        let sql = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(sql).bind(1).fetch_all(&store.pool).await.expect("a plan");
        rows.into_iter().map(|(.., step)| step).collect::<Vec<String>>().join("; ")
    };
    for sql in [SIZES, PHASES, SYNC, HEALTH, REVISIONS] {
        let steps = plan(sql).await;
        assert!(steps.contains("COVERING INDEX devices_axes"), "{sql}: {steps}");
    }
    let copied = "SELECT * FROM devices WHERE state = 'accepted' AND twin_seen >= ? ORDER BY name LIMIT 5";
    let steps = plan(copied).await;
    assert!(steps.contains("INDEX devices_copied") && !steps.contains("TEMP B-TREE"), "{steps}");
    let list = "SELECT * FROM devices WHERE state = 'accepted' ORDER BY name LIMIT ?";
    let steps = plan(list).await;
    assert!(steps.contains("INDEX devices_state") && !steps.contains("TEMP B-TREE"), "{steps}");
}
