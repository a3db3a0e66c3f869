//! A real `burgee-hub` in a folder of its own, and devices that speak to it
//! with the project's own messages but none of the agent's code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::ack::Ack;
use fleet::wire::api::{COMMANDS, CommandsAnswer, ENROLL, EnrollBody, REPORTS, ReportsAnswer, ReportsBody};
use fleet::wire::enroll::{EnrollRequest, EnrollResponse};
use fleet::wire::jws::{self, Kind};
use fleet::wire::key::PublicKey;
use fleet::wire::report::{Event, Report, ReportBody};
use fleet::wire::status::Status;
use fleet::wire::token::{Audience, DeviceToken};
use fleet::wire::topics;
use jiff::{SignedDuration, Timestamp};
use rumqttc::{AsyncClient, Event as MqttEvent, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::bins::bin;
use crate::process::{Running, output};
use crate::wait::until;

/// The time; tests run with a clock that is right.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the clock of the tests")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Asks until it is so; panics after a quarter of a minute.
pub async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came to pass: {what}");
}

/// A hub that is ended with the test.
pub struct Hub {
    folder: TempDir,
    process: Option<Running>,
    addresses: Value,
}

impl Hub {
    /// Starts one on free ports. `extra` is added to its configuration.
    #[must_use]
    pub fn start(extra: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut hub = Self { folder, process: None, addresses: Value::Null };
        hub.configure("listen = \"127.0.0.1:0\"\n[mqtt]\nlisten = \"127.0.0.1:0\"\n", extra);
        hub.up();
        hub
    }

    /// As [`Hub::start`], with everything but `data` and `fleet` in `text`.
    #[must_use]
    pub fn start_with(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut hub = Self { folder, process: None, addresses: Value::Null };
        hub.configure(text, "");
        hub.up();
        hub
    }

    fn configure(&self, top: &str, extra: &str) {
        let data = self.folder.path().join("data");
        let text = format!("data = {:?}\nfleet = \"retail\"\n{top}\n{extra}\n", data.display().to_string());
        std::fs::write(self.config(), text).expect("writes the configuration");
    }

    /// The folder of this hub, for files that its configuration names.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("hub.toml")
    }

    /// Starts it (again) and waits until it is ready.
    pub fn up(&mut self) {
        let file = self.folder.path().join("data/addresses.json");
        let _ = std::fs::remove_file(&file);
        let mut command = Command::new(bin("burgee-hub"));
        command.arg("--config").arg(self.config()).arg("serve");
        self.process = Some(Running::start(&mut command, &self.log()));
        let log = self.log();
        let process = self.process.as_mut().expect("it was started");
        self.addresses = until("the hub serves", Duration::from_secs(60), || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.is_alive(), "the hub ended:\n{}", said());
            serde_json::from_str(&std::fs::read_to_string(&file).ok()?).ok()
        });
        until("the hub is ready", Duration::from_secs(60), || {
            let (status, _) = crate::net::get(self.port(), "/readyz")?;
            (status == 200).then_some(())
        });
    }

    /// SIGTERM; the exit code.
    pub fn down(&mut self) -> Option<i32> {
        self.process.take().and_then(|mut process| process.stop(Duration::from_secs(20)))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("hub.log")
    }

    /// Everything it logged.
    #[must_use]
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Of the running process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").pid()
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.addresses["http"].as_str().expect("an address").to_owned()
    }

    /// Of HTTP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Of MQTT.
    #[must_use]
    pub fn mqtt_port(&self) -> u16 {
        let address = self.addresses["mqttListen"].as_str().expect("MQTT is on");
        address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Runs its command line; whatever comes of it.
    #[must_use]
    pub fn cli(&self, arguments: &[&str]) -> Output {
        output(Command::new(bin("burgee-hub")).arg("--config").arg(self.config()).args(arguments))
    }

    /// Runs its command line; what it printed on stdout.
    #[track_caller]
    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// GET, body alone; panics unless 200.
    #[track_caller]
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        let (status, body) = crate::net::get(self.port(), path).expect("the hub answers");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A sample of `/metrics`; 0 where there is none.
    #[must_use]
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// How often the hub refused for `reason`.
    #[must_use]
    pub fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("burgee_hub_refused_total{{kind=\"{reason}\"}}"))
    }

    /// A new join token.
    #[track_caller]
    #[must_use]
    pub fn token(&self, arguments: &[&str]) -> String {
        let printed = self.done(&[&["token", "create"], arguments].concat());
        let token = printed.trim_end().to_owned();
        assert_eq!(printed, format!("{token}\n"), "the token alone is on stdout");
        token
    }

    /// A device that has enrolled.
    pub async fn device(&self, name: &str) -> Device {
        let mut device = Device::new(self, name);
        let answer = device.enroll(&self.token(&["--uses", "1"])).await;
        device.hub_key = Some(answer.hub_key.unwrap_or_else(|| panic!("not accepted: {:?}", answer.message)));
        device
    }
}

/// What devices speak HTTP by.
#[must_use]
pub fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().expect("a client")
}

/// A device made of messages.
pub struct Device {
    pub name: DeviceName,
    pub fleet: FleetName,
    pub key: SigningKey,
    /// Where it sends to; with a path of [`fleet::wire::api`] behind it.
    pub url: String,
    pub mqtt_port: Option<u16>,
    /// As it learned when it enrolled.
    pub hub_key: Option<PublicKey>,
    pub labels: std::collections::BTreeMap<String, String>,
    client: reqwest::Client,
    counter: AtomicU64,
}

impl Device {
    /// One that has not enrolled.
    #[must_use]
    pub fn new(hub: &Hub, name: &str) -> Self {
        Self::by(hub, name, &client())
    }

    /// The same, which speaks by `client`: for more than there are clients for.
    #[must_use]
    pub fn by(hub: &Hub, name: &str, client: &reqwest::Client) -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("random bytes");
        Self {
            name: name.parse().expect("a name"),
            fleet: "retail".parse().expect("a name"),
            key: SigningKey::from_bytes(&seed),
            url: hub.url(),
            mqtt_port: hub.addresses["mqttListen"].as_str().map(|_| hub.mqtt_port()),
            hub_key: None,
            labels: [].into(),
            client: client.clone(),
            counter: AtomicU64::new(0),
        }
    }

    /// What the hub answers to a request to join.
    pub async fn enroll(&self, token: &str) -> EnrollResponse {
        let request = EnrollRequest {
            fleet: None,
            name: self.name.clone(),
            labels: self.labels.clone(),
            key: PublicKey::from(self.key.verifying_key()),
            token: token.to_owned(),
            at: now(),
            nonce: "n".to_owned(),
            agent: "test".to_owned(),
        };
        let body = EnrollBody { proof: request.prove(&self.key).expect("signs") };
        let answer = self.client.post(format!("{}{ENROLL}", self.url)).json(&body).send().await.expect("answers");
        let status = answer.status();
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"))
    }

    /// A token of this device.
    #[must_use]
    pub fn bearer(&self, audience: Audience, at: Timestamp) -> String {
        let token = DeviceToken::new(self.fleet.clone(), self.name.clone(), audience, at);
        jws::sign(Kind::Token, &token, &self.key).expect("signs")
    }

    /// The next report.
    #[must_use]
    pub fn report(&self, body: ReportBody) -> Report {
        Report {
            fleet: self.fleet.clone(),
            device: self.name.clone(),
            epoch: 1,
            counter: self.counter.fetch_add(1, Ordering::Relaxed) + 1,
            after: None,
            run: None,
            at: now(),
            body,
        }
    }

    /// An event as the next report.
    #[must_use]
    pub fn event(&self, event: &str, message: &str) -> Report {
        self.report(ReportBody::Event(Event { revision: None, event: event.to_owned(), message: message.to_owned() }))
    }

    /// A status as the next report.
    #[must_use]
    pub fn status(&self, status: Status) -> Report {
        self.report(ReportBody::Status(Box::new(status)))
    }

    /// Signed by this device.
    #[must_use]
    pub fn sign(&self, report: &Report) -> String {
        jws::sign(Kind::Report, report, &self.key).expect("signs")
    }

    /// Status and answer to signed reports over HTTP.
    pub async fn post(&self, reports: &[String]) -> (u16, ReportsAnswer) {
        let body = ReportsBody { reports: reports.to_vec() };
        let request = self.client.post(format!("{}{REPORTS}", self.url)).json(&body);
        let answer = request.bearer_auth(self.bearer(Audience::Hub, now())).send().await.expect("answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or_default())
    }

    /// The acknowledgement in an answer, if its signature is the hub's.
    #[must_use]
    pub fn ack(&self, text: &str) -> Ack {
        let key = self.hub_key.as_ref().expect("it enrolled");
        jws::verify(Kind::Ack, text, key.verifying()).expect("the hub's signature")
    }

    /// Open commands over HTTP, signatures verified.
    pub async fn commands(&self, after: u64) -> Vec<fleet::wire::command::Command> {
        let request = self.client.get(format!("{}{COMMANDS}?after={after}", self.url));
        let answer = request.bearer_auth(self.bearer(Audience::Hub, now())).send().await.expect("answers");
        let answer: CommandsAnswer = answer.json().await.expect("commands");
        let key = self.hub_key.as_ref().expect("it enrolled");
        answer
            .commands
            .iter()
            .map(|text| jws::verify(Kind::Command, text, key.verifying()).expect("the hub's signature"))
            .collect()
    }

    /// An MQTT connection with this device's token, subscribed to `topics`.
    pub async fn mqtt(&self, topics: &[String]) -> Mqtt {
        let user = self.name.to_string();
        let id = topics::client_id(&self.fleet, &self.name);
        let password = self.bearer(Audience::Mqtt, now());
        let port = self.mqtt_port.expect("MQTT is on");
        Mqtt::connect(port, &id, &user, &password, topics).await.expect("the broker lets it in")
    }
}

/// A status of a device that runs `at`.
#[must_use]
pub fn status(device: &str, phase: &str, at: char, good: char, apps: &[(&str, &str, &str)]) -> Status {
    let id = |digit: char| digit.to_string().repeat(40);
    serde_json::from_value(json!({
        "device": device, "phase": phase, "revision": id(at), "lastGood": id(good), "blocked": [],
        "apps": apps.iter().map(|(name, sync, health)| json!({
            "name": name, "runtime": "compose", "sync": sync, "health": health, "digest": null})).collect::<Vec<_>>(),
        "conditions": [], "link": {"git": "up", "mqtt": "up", "hub": "up"}, "agent": "0.1.0"}))
    .expect("a status")
}

/// An MQTT connection of a test.
pub struct Mqtt {
    pub client: AsyncClient,
    messages: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Mqtt {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Mqtt {
    /// Connects and subscribes; an error if the broker won't have it.
    ///
    /// # Errors
    /// What the broker, or the network, said.
    pub async fn connect(port: u16, id: &str, user: &str, password: &str, topics: &[String]) -> Result<Self, String> {
        let mut options = MqttOptions::new(id, "127.0.0.1", port);
        options.set_credentials(user, password).set_keep_alive(Duration::from_secs(20)).set_clean_session(false);
        options.set_max_packet_size(1024 * 1024, 1024 * 1024);
        let (client, mut events) = AsyncClient::new(options, 256);
        let (sender, messages) = mpsc::unbounded_channel();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        for topic in topics {
            client.subscribe(topic, QoS::AtLeastOnce).await.expect("asks");
        }
        let mut wanted = topics.len();
        let task = tokio::spawn(async move {
            let mut ready = Some(ready);
            loop {
                match events.poll().await {
                    Ok(MqttEvent::Incoming(Packet::Publish(message))) => {
                        let _ = sender.send((message.topic, message.payload.to_vec()));
                    }
                    Ok(MqttEvent::Incoming(Packet::SubAck(_))) => wanted = wanted.saturating_sub(1),
                    Ok(MqttEvent::Incoming(Packet::ConnAck(_))) | Ok(_) => {}
                    Err(error) => {
                        if let Some(ready) = ready.take() {
                            let _ = ready.send(Err(error.to_string()));
                        }
                        return;
                    }
                }
                if wanted == 0
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(Ok(()));
                }
            }
        });
        let limit = Duration::from_secs(15);
        let outcome = tokio::time::timeout(limit, is_ready).await.map_err(|_| "no answer".to_owned())?;
        outcome.map_err(|_| "the connection ended".to_owned())??;
        Ok(Self { client, messages, task })
    }

    /// Publishes at QoS 1.
    pub async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.into()).await.expect("publishes");
    }

    /// The next message on a topic; panics after `limit`.
    pub async fn next(&mut self, topic: &str, limit: Duration) -> Vec<u8> {
        let found = tokio::time::timeout(limit, async {
            loop {
                let (at, payload) = self.messages.recv().await.expect("the connection stays");
                if at == topic {
                    return payload;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("nothing on {topic} within {limit:?}"))
    }

    /// What has come so far.
    pub fn seen(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        while let Ok(message) = self.messages.try_recv() {
            all.push(message);
        }
        all
    }

    /// How long ago, for tests of offline reports.
    #[must_use]
    pub fn hours_ago(hours: i64) -> Timestamp {
        now() - SignedDuration::from_hours(hours)
    }
}
