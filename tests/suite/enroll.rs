//! `burgee-agent enroll` as a function, against a hub that the test speaks for:
//! accepted, the lobby, refused, and who may sign content.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::commands::enroll;
use agent::config::settings::{
    ComposeSettings, ControlSettings, DeviceSettings, FilesSettings, HealthSettings, KubernetesSettings, Limits,
    Settings, SourceSettings, StoreSettings, UpdateSettings,
};
use agent::ports::clock::Clock;
use agent::uplink::{enrolment, key_path};
use ed25519_dalek::SigningKey;
use fleet::wire::api::EnrollBody;
use fleet::wire::enroll::{EnrollRequest, EnrollResponse, EnrollState};
use fleet::wire::key::PublicKey;
use harness::http::Server;
use harness::net::free_port;
use jiff::Timestamp;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea";
const FINGERPRINT: &str = "SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8";

struct Noon;

impl Clock for Noon {
    fn now(&self) -> Timestamp {
        "2026-06-01T12:00:00Z".parse().expect("a time")
    }

    fn build_date(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

fn accepted(hub: &SigningKey) -> EnrollResponse {
    EnrollResponse {
        state: EnrollState::Accepted,
        fleet: Some("retail".parse().expect("a name")),
        hub_key: Some(PublicKey::from(hub.verifying_key())),
        mqtt: Some("mqtts://hub.example.com:8883".to_owned()),
        trust: Some(format!("ops@example.com {KEY}\n")),
        labels: [].into(),
        message: None,
        reason: None,
        retry_secs: None,
    }
}

fn lobby() -> EnrollResponse {
    let empty = EnrollResponse { fleet: None, hub_key: None, mqtt: None, trust: None, ..accepted(&hub_key(1)) };
    EnrollResponse { state: EnrollState::Lobby, retry_secs: Some(1), ..empty }
}

fn hub_key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

struct Stage {
    folder: tempfile::TempDir,
    settings: Settings,
    server: Server,
    /// What the hub will say, the last one for ever.
    answers: Arc<Mutex<Vec<EnrollResponse>>>,
    requests: Arc<Mutex<Vec<EnrollRequest>>>,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let settings = Settings {
            device: DeviceSettings {
                name: "store-1".parse().expect("a name"),
                made_from: None,
                labels: [("ring".to_owned(), "canary".to_owned())].into(),
            },
            source: SourceSettings {
                url: "file:///nowhere".to_owned(),
                branch: "main".to_owned(),
                poll: Duration::from_secs(300),
                poll_connected: Duration::from_secs(3600),
                trust: path("etc/allowed_signers"),
                revoked: path("etc/revoked_keys"),
                floor: None,
                token_file: None,
                username: None,
                ssh_key_file: None,
                known_hosts_file: None,
                ca_file: None,
                proxy: None,
                limits: Limits::default(),
            },
            compose: ComposeSettings { socket: None, auth_file: None },
            kubernetes: KubernetesSettings { kubeconfig: None },
            files: FilesSettings { root: path("root"), allow: Vec::new() },
            health: HealthSettings { exec: Vec::new() },
            hub: None,
            mqtt: None,
            update: UpdateSettings { enabled: true, limit: Duration::from_secs(600), ca_file: None, proxy: None },
            store: StoreSettings { path: path("store") },
            control: ControlSettings { socket: path("agent.sock") },
            metrics: None,
            passed_over: None,
        };
        std::fs::write(path("given"), format!("# who signs\nops@example.com {KEY}\n")).expect("a file");
        let answers: Arc<Mutex<Vec<EnrollResponse>>> = Arc::default();
        let requests: Arc<Mutex<Vec<EnrollRequest>>> = Arc::default();
        let (saying, asked) = (answers.clone(), requests.clone());
        let server = Server::start(0, move |request| {
            assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/api/v1/agent/enroll"));
            let body: EnrollBody = serde_json::from_slice(&request.body).expect("a body");
            asked.lock().expect("no panic").push(EnrollRequest::open(&body.proof).expect("a proof"));
            let mut answers = saying.lock().expect("no panic");
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            (200, serde_json::to_string(&answer).expect("JSON"))
        });
        Self { folder, settings, server, answers, requests }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn enroll(&self, answers: &[EnrollResponse], more: &[&str]) -> i32 {
        *self.answers.lock().expect("no panic") = answers.to_vec();
        let url = self.server.url();
        let fixed = ["--hub", &url, "--token", "secret"];
        let args = fixed.iter().chain(more).map(OsString::from);
        enroll::run(args, &self.settings, &Noon)
    }

    fn trust(&self) -> Option<String> {
        std::fs::read_to_string(&self.settings.source.trust).ok()
    }
}

#[test]
fn accepted_and_again() {
    let stage = Stage::new();
    let given = stage.path("given");
    let args = ["--trust", given.to_str().expect("UTF-8"), "--fleet", "retail"];
    assert_eq!(stage.enroll(&[accepted(&hub_key(1))], &args), 0);
    let store = &stage.settings.store.path;
    let made = enrolment(store).expect("readable").expect("enrolled");
    assert_eq!((made.fleet.as_str(), made.device.as_str()), ("retail", "store-1"));
    assert_eq!(made.hub_key, PublicKey::from(hub_key(1).verifying_key()));
    assert_eq!(made.mqtt.as_deref(), Some("mqtts://hub.example.com:8883"));
    assert_eq!(stage.trust(), std::fs::read_to_string(&given).ok(), "the operator's file, byte for byte");
    for path in [key_path(store), agent::uplink::enrolment_path(store)] {
        assert_eq!(std::fs::metadata(path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    assert_eq!(stage.enroll(&[accepted(&hub_key(1))], &args), 0, "again does no harm");
    let requests = stage.requests.lock().expect("no panic").clone();
    assert_eq!(requests[0].key, requests[1].key, "the key stays");
    assert_ne!(requests[0].nonce, requests[1].nonce);
    assert_eq!((requests[0].token.as_str(), requests[0].labels["ring"].as_str()), ("secret", "canary"));

    // Somebody else answers under the hub's address.
    assert_eq!(stage.enroll(&[accepted(&hub_key(2))], &args), 3);
    assert_eq!(enrolment(store).expect("readable"), Some(made));
    let args = [&args[..], &["--new-hub-key"]].concat();
    assert_eq!(stage.enroll(&[accepted(&hub_key(2))], &args), 0, "unless the operator says so");
}

#[test]
fn the_lobby() {
    let stage = Stage::new();
    let given = stage.path("given");
    let args = ["--trust", given.to_str().expect("UTF-8")];
    assert_eq!(stage.enroll(&[lobby()], &[&args[..], &["--no-wait"]].concat()), 0);
    assert_eq!(enrolment(&stage.settings.store.path).expect("readable"), None);
    assert_eq!(stage.enroll(&[lobby(), lobby(), accepted(&hub_key(1))], &args), 0);
    assert!(enrolment(&stage.settings.store.path).expect("readable").is_some());
    let keys: Vec<_> = stage.requests.lock().expect("no panic").iter().map(|request| request.key).collect();
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]));
}

#[test]
fn refused() {
    let stage = Stage::new();
    let given = stage.path("given");
    let args = ["--trust", given.to_str().expect("UTF-8")];
    let no =
        EnrollResponse { state: EnrollState::Refused, message: Some("the token is used up".to_owned()), ..lobby() };
    assert_eq!(stage.enroll(&[no], &args), 1);
    assert_eq!(stage.enroll(&[accepted(&hub_key(1))], &[&args[..], &["--fleet", "other"]].concat()), 3);
    assert_eq!(stage.enroll(&[EnrollResponse { hub_key: None, ..accepted(&hub_key(1)) }], &args), 1);
    assert_eq!(enrolment(&stage.settings.store.path).expect("readable"), None);
    assert_eq!(stage.trust(), None);
    let gone = format!("http://127.0.0.1:{}", free_port());
    let args = ["--hub", &gone, "--token", "secret", "--trust", given.to_str().expect("UTF-8")].map(OsString::from);
    assert_eq!(enroll::run(args, &stage.settings, &Noon), 5);
}

#[test]
fn the_root_is_the_operators() {
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let case = |name: &str, before: Option<&str>, args: &[&str], want: (i32, Option<&str>)| {
        let stage = Stage::new();
        if let Some(before) = before {
            std::fs::create_dir_all(stage.path("etc")).expect("a folder");
            std::fs::write(&stage.settings.source.trust, before).expect("a file");
        }
        let got = (stage.enroll(&[accepted(&hub_key(1))], args), stage.trust());
        assert_eq!((got.0, got.1.as_deref()), want, "{name}");
    };
    let offered = format!("ops@example.com {KEY}\n");
    let mine = format!("me {KEY}\n");
    case("nobody said anything", None, &[], (3, None));
    case("the fingerprint that the operator knows", None, &["--trust-fingerprint", FINGERPRINT], (0, Some(&offered)));
    case("another fingerprint", None, &["--trust-fingerprint", other], (3, None));
    case(
        "one more than the hub has",
        None,
        &["--trust-fingerprint", FINGERPRINT, "--trust-fingerprint", other],
        (3, None),
    );
    case("a file that is in its place", Some(&mine), &[], (0, Some(&mine)));
    case("an empty file in its place", Some("# none\n"), &[], (3, Some("# none\n")));
    case("a fingerprint that is none", None, &["--trust-fingerprint", "abc"], (2, None));
    case("a file that is missing", None, &["--trust", "/nonexistent"], (1, None));
    case("an option that is none", None, &["--root"], (2, None));
}

#[test]
fn a_token_is_not_sent_in_the_clear() {
    let stage = Stage::new();
    let args = ["--hub", "http://192.0.2.1", "--token", "secret"].map(OsString::from);
    assert_eq!(enroll::run(args, &stage.settings, &Noon), 2);
}
