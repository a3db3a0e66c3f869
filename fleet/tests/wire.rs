//! Golden files of every message, per version. A file of a released version is
//! never edited: what it says must still be read, today's writer must say the
//! same, and a reader must pass over fields that it does not know.
//!
//! `BLESS=1 cargo test -p burgee-fleet --test wire` writes files that are missing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;
use std::path::Path;

use ed25519_dalek::SigningKey;
use fleet::wire::ack::Ack;
use fleet::wire::api::{
    CommandsAnswer, EnrollBody, ErrorAnswer, HubKeyAnswer, RefusedReport, ReportsAnswer, ReportsBody,
};
use fleet::wire::command::{Act, Command};
use fleet::wire::enroll::{EnrollRequest, EnrollResponse, EnrollState, refusal};
use fleet::wire::jws::{self, Kind};
use fleet::wire::key::PublicKey;
use fleet::wire::notify::Notify;
use fleet::wire::release::{Release, RolloutRelease, StageRelease};
use fleet::wire::report::{Answer, Event, Logs, Outcome, Place, Report, ReportBody, Run};
use fleet::wire::status::{AppStatus, BlockedStatus, Condition, Health, Link, LinkState, PhaseName, Status, Sync};
use fleet::wire::token::{Audience, DeviceToken};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

fn commit(digit: &str) -> fleet::revision::CommitId {
    digit.repeat(40).parse().unwrap()
}

/// Adds a field to every object, as a later version would.
fn from_the_future(value: &mut Value, path: &str) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map.iter_mut() {
                from_the_future(inner, &format!("{path}.{name}"));
            }
            // Maps by name (labels, stages, rollouts) and variants of an enum are no structs.
            let last = path.rsplit('.').next().unwrap_or_default();
            if !matches!(last, "labels" | "stages" | "rollouts" | "body" | "act") {
                map.insert("laterField".to_owned(), Value::String("ignored".to_owned()));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| from_the_future(item, path)),
        _ => {}
    }
}

fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, message: &T) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(format!("{name}.json"));
    let text = serde_json::to_string_pretty(message).unwrap() + "\n";
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(text, golden, "{name}: the writer says something else than its golden file");
    assert_eq!(&serde_json::from_str::<T>(&golden).unwrap(), message, "{name}: the reader");
    let mut later: Value = serde_json::from_str(&golden).unwrap();
    from_the_future(&mut later, "");
    assert_eq!(&serde_json::from_value::<T>(later).unwrap(), message, "{name}: a later writer's fields");
}

fn report(body: ReportBody, after: Option<Place>) -> Report {
    Report {
        fleet: "retail".parse().unwrap(),
        device: "store-042".parse().unwrap(),
        epoch: 3,
        counter: 17,
        after,
        run: None,
        at: at(0),
        body,
    }
}

fn status() -> Status {
    Status {
        device: "store-042".parse().unwrap(),
        phase: PhaseName::RollingBack,
        revision: Some(commit("a")),
        last_good: Some(commit("b")),
        target: Some(commit("c")),
        blocked: vec![BlockedStatus { revision: commit("d"), digest: None, reason: "Unhealthy".to_owned() }],
        apps: vec![AppStatus {
            name: "pos".parse().unwrap(),
            runtime: "compose".to_owned(),
            sync: Sync::OutOfSync,
            health: Health::Degraded,
            digest: Some(fleet::digest::Digest::of(b"pos")),
            message: "container pos-web-1 exited with 1".to_owned(),
        }],
        conditions: vec![Condition {
            kind: "Healthy".to_owned(),
            status: false,
            reason: "Unhealthy".to_owned(),
            message: "web is not healthy".to_owned(),
            since: at(-60),
        }],
        link: Link { git: LinkState::Up, mqtt: LinkState::Down, hub: LinkState::Unused },
        suspended: false,
        agent: "0.1.0".to_owned(),
    }
}

fn command(act: Act) -> Command {
    Command {
        fleet: "retail".parse().unwrap(),
        device: "store-042".parse().unwrap(),
        sequence: 1_780_000_000_123,
        issued: at(0),
        expires: at(300),
        act,
    }
}

fn ack() -> Ack {
    Ack {
        fleet: "retail".parse().unwrap(),
        device: "store-042".parse().unwrap(),
        epoch: 3,
        counter: 17,
        at: at(1),
        sequence: 1_780_000_000_124,
        run: None,
        known: None,
        twin: None,
    }
}

fn enroll() -> EnrollRequest {
    EnrollRequest {
        fleet: Some("retail".parse().unwrap()),
        name: "store-042".parse().unwrap(),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        key: PublicKey::from(key(2).verifying_key()),
        token: "join-token".to_owned(),
        at: at(0),
        nonce: "bm9uY2U".to_owned(),
        agent: "0.1.0".to_owned(),
    }
}

#[test]
fn reports() {
    check("report-status", &report(ReportBody::Status(Box::new(status())), None));
    let event =
        Event { revision: Some(commit("a")), event: "rolled-back".to_owned(), message: "web is sick".to_owned() };
    check("report-event", &report(ReportBody::Event(event), Some(Place { epoch: 3, counter: 16 })));
    let logs = Logs { command: 1_780_000_000_123, app: "pos".to_owned(), lines: vec!["one".to_owned()] };
    check("report-logs", &report(ReportBody::Logs(logs), None));
    let answer = Answer { command: 1_780_000_000_123, outcome: Outcome::Refused, message: "nothing failed".to_owned() };
    check("report-answer", &report(ReportBody::Answer(answer), None));
    check("status", &status());
    let event = Event { revision: None, event: "steady".to_owned(), message: String::new() };
    let run = Run { id: "0123456789abcdef".to_owned(), machine: Some("fedc".to_owned()), heard: 1_780_000_000_124 };
    check("report-run", &Report { run: Some(run), ..report(ReportBody::Event(event), None) });
}

#[test]
fn commands() {
    let logs = Act::Logs { app: "pos".parse().unwrap(), lines: 100 };
    let acts = [
        ("sync", Act::Sync),
        ("suspend", Act::Suspend),
        ("resume", Act::Resume),
        ("retry", Act::Retry),
        ("rollback", Act::Rollback),
        ("logs", logs),
    ];
    for (name, act) in acts {
        check(&format!("command-{name}"), &command(act));
    }
}

#[test]
fn acks_releases_notifies() {
    check("ack", &ack());
    let run = Some("0123456789abcdef".to_owned());
    check("ack-run", &Ack { run, known: Some(Place { epoch: 4, counter: 2 }), twin: Some(at(-60)), ..ack() });
    check("notify", &Notify { spread_secs: 30, branch: Some("main".to_owned()), commit: Some("a".repeat(40)) });
    assert_eq!(serde_json::from_str::<Notify>("{}").unwrap(), Notify::default());
    let stage = StageRelease { revision: commit("a"), identity: fleet::digest::Digest::of(b"the signed payload") };
    let rollout = RolloutRelease { stages: [("canary".to_owned(), stage)].into() };
    check(
        "release",
        &Release {
            fleet: "retail".parse().unwrap(),
            sequence: 1_780_000_000_125,
            issued: at(0),
            expires: at(86_400),
            rollouts: [("retail-eu".parse().unwrap(), rollout)].into(),
        },
    );
}

#[test]
fn tokens() {
    for (name, audience) in [("hub", Audience::Hub), ("mqtt", Audience::Mqtt), ("git", Audience::Git)] {
        let token = DeviceToken::new("retail".parse().unwrap(), "store-042".parse().unwrap(), audience, at(0));
        check(&format!("token-{name}"), &token);
    }
}

#[test]
fn enrolment() {
    check("enroll-request", &enroll());
    let response = EnrollResponse {
        state: EnrollState::Accepted,
        fleet: Some("retail".parse().unwrap()),
        hub_key: Some(PublicKey::from(key(1).verifying_key())),
        mqtt: Some("mqtts://hub.example.com:8883".to_owned()),
        trust: Some("ops@example.com ssh-ed25519 AAAA\n".to_owned()),
        labels: [("region".to_owned(), "eu".to_owned())].into(),
        message: None,
        reason: None,
        retry_secs: None,
    };
    check("enroll-accepted", &response);
    let lobby = EnrollResponse {
        state: EnrollState::Lobby,
        fleet: None,
        hub_key: None,
        mqtt: None,
        trust: None,
        labels: [].into(),
        message: Some("an operator has yet to accept the device".to_owned()),
        reason: None,
        retry_secs: Some(15),
    };
    check("enroll-lobby", &lobby);
    let refused = EnrollResponse {
        state: EnrollState::Refused,
        message: Some("the token is used up".to_owned()),
        retry_secs: None,
        ..lobby
    };
    check("enroll-refused", &refused);
    let why = EnrollResponse { reason: Some(refusal::TOKEN.to_owned()), ..refused };
    check("enroll-refused-why", &why);

    let request = enroll();
    assert_eq!(EnrollRequest::open(&request.prove(&key(2)).unwrap()).unwrap(), request);
    assert!(EnrollRequest::open(&request.prove(&key(3)).unwrap()).is_err(), "proves another key than it names");
}

#[test]
fn api() {
    check("enroll-body", &EnrollBody { proof: "a.b.c".to_owned() });
    check("reports-body", &ReportsBody { reports: vec!["a.b.c".to_owned()] });
    let refused = vec![RefusedReport { index: 1, reason: "Replayed".to_owned() }];
    check("reports-answer", &ReportsAnswer { ack: Some("a.b.c".to_owned()), refused });
    check("commands-answer", &CommandsAnswer { commands: vec!["a.b.c".to_owned()] });
    let key = PublicKey::from(key(1).verifying_key());
    check("hub-key-answer", &HubKeyAnswer { key, fingerprint: key.fingerprint() });
    check("error-answer", &ErrorAnswer { reason: "Refused".to_owned(), message: "the key is revoked".to_owned() });
}

/// Ed25519 is deterministic, so the signed bytes have golden files, too.
#[test]
fn signed() {
    fn one<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, kind: Kind, value: &T, seed: u8) {
        let text = jws::sign(kind, value, &key(seed)).unwrap();
        check(name, &text);
        assert_eq!(&jws::verify::<T>(kind, &text, &key(seed).verifying_key()).unwrap(), value);
    }
    let event = Event { revision: None, event: "steady".to_owned(), message: String::new() };
    one("signed-report", Kind::Report, &report(ReportBody::Event(event), None), 2);
    one("signed-command", Kind::Command, &command(Act::Sync), 1);
    one("signed-ack", Kind::Ack, &ack(), 1);
    one("signed-enroll", Kind::Enroll, &enroll(), 2);
}
