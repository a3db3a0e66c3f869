//! The agent's way to the hub, against a real broker (Mosquitto, with TLS and
//! without) that loses, repeats and forges. The hub's voice is a key that the
//! test holds; the device's side is the agent's own uplink.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use agent::config::settings::{DeviceSettings, HubSettings, MqttSettings};
use agent::ports::clock::Clock;
use agent::ports::uplink::{Inbound, Uplink};
use agent::uplink::{Bounds, Enrolment, HubUplink, Pace, UplinkSettings, keep_enrolment, make_device_key};
use ed25519_dalek::{SigningKey, VerifyingKey};
use fleet::name::{DeviceName, FleetName};
use fleet::wire::ack::{self, Ack};
use fleet::wire::api::{CommandsAnswer, ReportsAnswer, ReportsBody};
use fleet::wire::command::{Act, Command};
use fleet::wire::jws::{self, Kind};
use fleet::wire::key::PublicKey;
use fleet::wire::report::{Event, Place, Report, ReportBody};
use fleet::wire::status::{Link, LinkState, PhaseName, Status};
use fleet::wire::token::{Audience, DeviceToken};
use harness::broker::{Broker, Certificates, Subscription};
use harness::http::{Asked, Server};
use harness::net::free_port;
use harness::wait::{never, until};
use jiff::{SignedDuration, Timestamp};

const TEN: Duration = Duration::from_secs(10);

/// A clock that the test sets.
struct SetClock(Mutex<Timestamp>);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("no panic")
    }

    fn build_date(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }
}

fn noon() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().expect("a time")
}

/// What the hub knows and says.
struct Hub {
    key: SigningKey,
    fleet: FleetName,
    device: DeviceName,
    device_key: VerifyingKey,
}

impl Hub {
    fn topic(&self, leaf: &str) -> String {
        format!("burgee/v1/{}/devices/{}/{leaf}", self.fleet, self.device)
    }

    fn ack(&self, place: Place) -> Ack {
        let (fleet, device) = (self.fleet.clone(), self.device.clone());
        Ack {
            fleet,
            device,
            epoch: place.epoch,
            counter: place.counter,
            at: noon(),
            sequence: 1,
            run: None,
            known: None,
            twin: None,
        }
    }

    fn signed_ack(&self, place: Place) -> String {
        jws::sign(Kind::Ack, &self.ack(place), &self.key).expect("it can be signed")
    }

    fn command(&self, sequence: u64) -> Command {
        let (fleet, device) = (self.fleet.clone(), self.device.clone());
        let expires = noon() + SignedDuration::from_mins(5);
        Command { fleet, device, sequence, issued: noon(), expires, act: Act::Sync }
    }

    fn signed(&self, command: &Command) -> String {
        jws::sign(Kind::Command, command, &self.key).expect("it can be signed")
    }

    fn report(&self, text: &str) -> Report {
        jws::verify(Kind::Report, text, &self.device_key).expect("the device's signature")
    }

    /// Reports that a subscription received, each place once, in their order.
    fn reports(&self, heard: &Subscription) -> Vec<Report> {
        let mut reports: Vec<Report> = heard.of(&self.topic("report")).iter().map(|text| self.report(text)).collect();
        reports.sort_by_key(Report::place);
        reports.dedup_by_key(|report| report.place());
        reports
    }
}

fn event(name: &str) -> ReportBody {
    ReportBody::Event(Event { revision: None, event: name.to_owned(), message: String::new() })
}

fn status(agent: &str) -> ReportBody {
    ReportBody::Status(Box::new(Status {
        device: "store-1".parse().expect("a name"),
        phase: PhaseName::Steady,
        revision: None,
        last_good: None,
        target: None,
        blocked: Vec::new(),
        apps: Vec::new(),
        conditions: Vec::new(),
        link: Link { git: LinkState::Up, mqtt: LinkState::Up, hub: LinkState::Up },
        suspended: false,
        agent: agent.to_owned(),
    }))
}

fn said(report: &Report) -> String {
    match &report.body {
        ReportBody::Event(event) => event.event.clone(),
        ReportBody::Status(status) => format!("status {}", status.agent),
        other => format!("{other:?}"),
    }
}

enum Order {
    Report(ReportBody, bool),
    Look(Sender<Seen>),
}

/// What the uplink says of itself.
struct Seen {
    links: (LinkState, LinkState),
    dropped: u64,
    spooled: usize,
    refused: std::collections::BTreeMap<&'static str, u64>,
}

/// The agent's uplink, on a runtime of its own as in the agent.
struct Device {
    orders: Option<tokio::sync::mpsc::UnboundedSender<Order>>,
    inbound: Arc<Mutex<Vec<Inbound>>>,
    thread: Option<JoinHandle<()>>,
}

impl Device {
    fn start(settings: UplinkSettings, epoch: u64, clock: Arc<SetClock>) -> Self {
        let (orders, mut received) = tokio::sync::mpsc::unbounded_channel();
        let inbound = Arc::new(Mutex::new(Vec::new()));
        let sink = inbound.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let mut uplink = HubUplink::start(settings, epoch, 0, clock).expect("it starts");
                loop {
                    tokio::select! {
                        order = received.recv() => match order {
                            Some(Order::Report(body, durable)) => uplink.report(body, durable),
                            Some(Order::Look(answer)) => {
                                let _ = answer.send(Seen {
                                    links: uplink.links(),
                                    dropped: uplink.dropped(),
                                    spooled: uplink.spooled(),
                                    refused: uplink.refused(),
                                });
                            }
                            None => return,
                        },
                        message = uplink.next() => sink.lock().expect("no panic").push(message),
                    }
                }
            });
        });
        Self { orders: Some(orders), inbound, thread: Some(thread) }
    }

    fn order(&self, order: Order) {
        assert!(self.orders.as_ref().is_some_and(|orders| orders.send(order).is_ok()), "it runs");
    }

    fn report(&self, body: ReportBody, durable: bool) {
        self.order(Order::Report(body, durable));
    }

    fn look(&self) -> Seen {
        let (answer, seen): (Sender<Seen>, Receiver<Seen>) = mpsc::channel();
        self.order(Order::Look(answer));
        seen.recv_timeout(TEN).expect("it runs")
    }

    fn refused(&self, reason: &str) -> u64 {
        self.look().refused.get(reason).copied().unwrap_or(0)
    }

    /// Sequences of the commands that were handed on.
    fn commands(&self) -> Vec<u64> {
        let inbound = self.inbound.lock().expect("no panic");
        inbound
            .iter()
            .filter_map(|one| if let Inbound::Command(command) = one { Some(command.sequence) } else { None })
            .collect()
    }

    /// The notifies that were handed on.
    fn notifies(&self) -> Vec<u64> {
        let inbound = self.inbound.lock().expect("no panic");
        inbound
            .iter()
            .filter_map(|one| if let Inbound::Notify { spread_secs } = one { Some(*spread_secs) } else { None })
            .collect()
    }

    fn wait_mqtt(&self, link: LinkState) {
        until(&format!("mqtt is {link:?}"), TEN, || (self.look().links.0 == link).then_some(()));
    }

    fn wait_spooled(&self, count: usize) {
        until(&format!("{count} spooled"), TEN, || (self.look().spooled == count).then_some(()));
    }

    fn stop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the uplink does not panic");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        drop(self.orders.take());
    }
}

/// An enrolled device's store, and the hub that enrolled it.
struct Stage {
    folder: tempfile::TempDir,
    hub: Hub,
    clock: Arc<SetClock>,
    settings: UplinkSettings,
}

fn pace() -> Pace {
    Pace {
        keep_alive: Duration::from_secs(2),
        network: Duration::from_secs(3),
        retry_first: Duration::from_millis(100),
        retry_most: Duration::from_millis(400),
        settled: Duration::from_secs(1),
        mqtt_grace: Duration::from_millis(200),
        ack_patience: Duration::from_secs(3600),
        resend: Duration::from_millis(700),
        resend_most: Duration::from_secs(2),
        commands: Duration::from_millis(300),
        commands_slow: Duration::from_secs(3600),
        catch_up: Duration::from_secs(3600),
        enrolment: Duration::from_millis(50),
    }
}

impl Stage {
    fn new(mqtt: Option<(String, Option<PathBuf>)>, hub_url: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store = folder.path().join("store");
        let device_key = make_device_key(&store).expect("a key").verifying_key();
        let hub = Hub {
            key: SigningKey::from_bytes(&[7; 32]),
            fleet: "retail".parse().expect("a name"),
            device: "store-1".parse().expect("a name"),
            device_key,
        };
        let url = hub_url.unwrap_or_else(|| format!("http://127.0.0.1:{}", free_port()));
        let enrolment = Enrolment {
            hub: url.clone(),
            hub_key: PublicKey::from(hub.key.verifying_key()),
            fleet: hub.fleet.clone(),
            device: hub.device.clone(),
            mqtt: None,
            labels: [].into(),
            at: noon(),
        };
        keep_enrolment(&store, &enrolment).expect("a disk");
        let settings = UplinkSettings {
            hub: HubSettings { url, ca_file: None, token_file: None },
            mqtt: mqtt.map(|(url, ca_file)| MqttSettings { url, ca_file }),
            device: DeviceSettings { name: hub.device.clone(), made_from: None, labels: [].into() },
            store,
            bounds: Bounds::default(),
            pace: pace(),
        };
        Self { folder, hub, clock: Arc::new(SetClock(Mutex::new(noon()))), settings }
    }

    fn plain() -> (Self, Broker) {
        let mut stage = Self::new(None, None);
        let broker = Broker::start(stage.folder(), None);
        stage.settings.mqtt = Some(MqttSettings { url: broker.url(), ca_file: None });
        (stage, broker)
    }

    fn device(&self, epoch: u64) -> Device {
        Device::start(self.settings.clone(), epoch, self.clock.clone())
    }

    fn later(&self, minutes: i64) -> Timestamp {
        let mut now = self.clock.0.lock().expect("no panic");
        *now += SignedDuration::from_mins(minutes);
        *now
    }

    fn spool_files(&self) -> usize {
        std::fs::read_dir(self.settings.store.join("spool")).map_or(0, Iterator::count)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// From report to acknowledgement, and what must not pass for one.
#[track_caller]
fn acknowledged(stage: &Stage, broker: &Broker) {
    let hub = &stage.hub;
    let reports = broker.subscribe(&hub.topic("report"));
    let links = broker.subscribe(&hub.topic("link"));
    let mut device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    assert_eq!(stage.spool_files(), 0, "an idle device writes nothing");

    device.report(event("applied"), true);
    device.report(status("first"), false);
    device.report(event("steady"), true);
    let heard = until("three reports", TEN, || Some(hub.reports(&reports)).filter(|heard| heard.len() == 3));
    assert_eq!(heard.iter().map(said).collect::<Vec<_>>(), ["applied", "status first", "steady"]);
    let [one, three] = [Place { epoch: 1, counter: 1 }, Place { epoch: 1, counter: 3 }];
    assert_eq!((heard[0].after, heard[2].place(), heard[2].after), (None, three, Some(one)));
    assert!(heard.iter().all(|report| report.at == noon() && report.fleet == hub.fleet));
    assert_eq!(stage.spool_files(), 2, "a broker's PUBACK clears nothing");

    let acks = hub.topic("ack");
    let stranger = SigningKey::from_bytes(&[8; 32]);
    let forged = jws::sign(Kind::Ack, &hub.ack(three), &stranger).expect("signed");
    let foreign = Ack { device: "store-2".parse().expect("a name"), ..hub.ack(three) };
    let foreign = jws::sign(Kind::Ack, &foreign, &hub.key).expect("signed");
    let own = hub.signed_ack(three);
    let mangled = format!("{}x", own.trim_end_matches(|c| c != '.'));
    for wrong in [forged.as_bytes(), foreign.as_bytes(), mangled.as_bytes(), b"{}", b"\xff\xfe", b"a.b.c"] {
        broker.publish(&acks, wrong, false);
    }
    until("six refused", TEN, || (device.look().refused.values().sum::<u64>() == 6).then_some(()));
    assert_eq!((device.refused("OtherKey"), device.refused("OtherDevice")), (1, 1));
    assert_eq!(stage.spool_files(), 2, "nothing but the hub's word clears the spool");

    broker.publish(&acks, hub.signed_ack(one).as_bytes(), false);
    device.wait_spooled(1);
    broker.publish(&acks, own.as_bytes(), false);
    device.wait_spooled(0);
    assert_eq!(stage.spool_files(), 0);
    assert_eq!(device.look().links, (LinkState::Up, LinkState::Up), "an acknowledgement shows that the hub is there");

    assert_eq!(links.of(&hub.topic("link")).last().map(String::as_str), Some("up"));
    device.stop();
    until("the last will", TEN, || (links.of(&hub.topic("link")).last()? == "down").then_some(()));
}

#[test]
fn reports_stay_until_the_hub_acknowledges() {
    let (stage, broker) = Stage::plain();
    acknowledged(&stage, &broker);
}

#[test]
fn over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::new(folder.path());
    let broker = Broker::start(folder.path(), Some(&certificates));
    let stage = Stage::new(Some((broker.url(), Some(certificates.ca.clone()))), None);
    acknowledged(&stage, &broker);

    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = Certificates::new(elsewhere.path());
    let stage = Stage::new(Some((broker.url(), Some(other.ca))), None);
    let device = stage.device(1);
    never("a broker of another authority", Duration::from_secs(2), || device.look().links.0 == LinkState::Up);
    let port = broker.port();
    let plain = Stage::new(Some((format!("mqtt://localhost:{port}"), None)), None).device(1);
    never("TLS without TLS", Duration::from_secs(1), || plain.look().links.0 == LinkState::Up);
}

#[test]
fn only_the_hubs_commands_pass() {
    let (stage, broker) = Stage::plain();
    let hub = &stage.hub;
    let device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    let topic = hub.topic("command");
    let good = |sequence| hub.signed(&hub.command(sequence));
    let stranger = SigningKey::from_bytes(&[8; 32]);
    let late = Command { expires: noon(), ..hub.command(11) };
    let cases: [(&str, String); 9] = [
        ("OtherKey", jws::sign(Kind::Command, &hub.command(11), &stranger).expect("signed")),
        ("OtherDevice", hub.signed(&Command { device: "store-2".parse().expect("a name"), ..hub.command(11) })),
        ("OtherDevice", hub.signed(&Command { fleet: "other".parse().expect("a name"), ..hub.command(11) })),
        ("Late", hub.signed(&late)),
        ("Replayed", good(10)),
        ("Replayed", good(9)),
        ("Malformed", jws::sign(Kind::Ack, &hub.command(11), &hub.key).expect("signed")),
        ("Malformed", "sync".to_owned()),
        ("BadSignature", {
            let (text, other) = (good(11), good(12));
            let (head, _) = text.rsplit_once('.').expect("parts");
            format!("{head}.{}", other.rsplit_once('.').expect("parts").1)
        }),
    ];
    broker.publish(&topic, good(10).as_bytes(), false);
    until("the first command", TEN, || (device.commands() == [10]).then_some(()));
    for (reason, text) in &cases {
        let before = device.refused(reason);
        broker.publish(&topic, text.as_bytes(), false);
        until(reason, TEN, || (device.refused(reason) == before + 1).then_some(()));
    }
    broker.publish(&topic, good(12).as_bytes(), false);
    until("a later command", TEN, || (device.commands() == [10, 12]).then_some(()));
    // Five minutes on, what was good is late.
    stage.later(5);
    broker.publish(&topic, good(13).as_bytes(), false);
    until("late by now", TEN, || (device.refused("Late") == 2).then_some(()));
    assert_eq!(device.commands(), [10, 12]);
}

#[test]
fn a_broker_that_comes_back() {
    let (stage, mut broker) = Stage::plain();
    let hub = &stage.hub;
    let device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    broker.publish("burgee/v1/retail/notify", b"{}", false);
    until("a notify", TEN, || (device.notifies() == [0]).then_some(()));

    broker.kill();
    device.wait_mqtt(LinkState::Down);
    let mut times = Vec::new();
    for name in ["failed", "rolled-back", "steady"] {
        times.push((name.to_owned(), stage.later(1)));
        device.report(event(name), true);
        // Taken on before the clock moves.
        device.look();
    }
    for number in 1..=5 {
        device.report(status(&format!("{number}")), false);
    }
    device.wait_spooled(3);
    assert_eq!(stage.spool_files(), 3);
    stage.later(1);

    broker.up();
    let reports = broker.subscribe(&hub.topic("report"));
    device.wait_mqtt(LinkState::Up);
    let heard = until("what was said offline", TEN, || Some(hub.reports(&reports)).filter(|heard| heard.len() == 4));
    let mut told: Vec<_> = heard.iter().map(|report| (said(report), report.at)).collect();
    assert_eq!(told.pop().map(|(said, _)| said).as_deref(), Some("status 5"), "of statuses, the newest alone");
    assert_eq!(told, times, "in their order, with their own times");
    // Subscribed again without being asked: the broker kept nothing.
    broker.publish("burgee/v1/retail/notify", br#"{"spreadSecs": 30, "later": true}"#, false);
    until("a notify after the restart", TEN, || (device.notifies() == [0, 30]).then_some(()));
    broker.publish(&hub.topic("command"), hub.signed(&hub.command(1)).as_bytes(), false);
    broker.publish(&hub.topic("ack"), hub.signed_ack(heard[3].place()).as_bytes(), false);
    device.wait_spooled(0);
    until("a command after the restart", TEN, || (device.commands() == [1]).then_some(()));
}

#[test]
fn reports_outlive_the_agent() {
    let stage = Stage::new(None, None);
    let hub = &stage.hub;
    let mut first = stage.device(4);
    for name in ["one", "two", "three"] {
        first.report(event(name), true);
    }
    first.wait_spooled(3);
    first.stop();

    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), None);
    let reports = broker.subscribe(&hub.topic("report"));
    let settings =
        UplinkSettings { mqtt: Some(MqttSettings { url: broker.url(), ca_file: None }), ..stage.settings.clone() };
    let second = Device::start(settings, 5, stage.clock.clone());
    second.report(event("four"), true);
    let heard = until("four reports", TEN, || Some(hub.reports(&reports)).filter(|heard| heard.len() == 4));
    let places: Vec<_> = heard.iter().map(|report| (report.epoch, report.counter)).collect();
    assert_eq!(places, [(4, 1), (4, 2), (4, 3), (5, 1)]);
    let mut acked = None;
    // The broker loses the second: nothing beyond the first is acknowledged.
    for report in [&heard[0], &heard[2], &heard[3]] {
        acked = ack::advance(acked, report);
    }
    assert_eq!(acked, Some(heard[0].place()));
    broker.publish(&hub.topic("ack"), hub.signed_ack(heard[0].place()).as_bytes(), false);
    second.wait_spooled(3);
    // So it comes again by itself, and now the chain is whole.
    let count = |name: &str| {
        let heard = reports.of(&hub.topic("report"));
        heard.iter().filter(|text| said(&hub.report(text)) == name).count()
    };
    until("two once more", TEN, || (count("two") >= 2).then_some(()));
    let again: Vec<Report> = reports.of(&hub.topic("report")).iter().map(|text| hub.report(text)).collect();
    let two = again.iter().rev().find(|report| said(report) == "two").expect("it came");
    assert_eq!(two.after, None, "what is acknowledged is not to be waited for");
    for report in [two, &heard[2], &heard[3]] {
        acked = ack::advance(acked, report);
    }
    assert_eq!(acked, Some(heard[3].place()));
}

#[test]
fn a_hub_that_knows_later_reports() {
    // The journal was set back: what comes next must not look like a repetition.
    let (stage, broker) = Stage::plain();
    let hub = &stage.hub;
    let reports = broker.subscribe(&hub.topic("report"));
    let device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    broker.publish(&hub.topic("ack"), hub.signed_ack(Place { epoch: 9, counter: 40 }).as_bytes(), false);
    until("the acknowledgement", TEN, || (device.look().links.1 == LinkState::Up).then_some(()));
    device.report(event("steady"), true);
    let heard = until("a report", TEN, || Some(hub.reports(&reports)).filter(|heard| heard.len() == 1));
    assert_eq!(heard[0].place(), Place { epoch: 10, counter: 1 });
}

#[test]
fn a_hostile_broker() {
    let (stage, broker) = Stage::plain();
    let hub = &stage.hub;
    let (command, ack, notify) = (hub.topic("command"), hub.topic("ack"), "burgee/v1/retail/notify");
    // Left there before the device came, genuine ones included.
    broker.publish(&command, hub.signed(&hub.command(5)).as_bytes(), true);
    broker.publish(&ack, &[0xff; 3000], true);
    broker.publish(notify, b"{}", true);
    let mut device = stage.device(1);
    device.report(event("steady"), true);
    device.wait_mqtt(LinkState::Up);
    until("retained ones are refused", TEN, || (device.refused("Retained") == 3).then_some(()));
    broker.publish(&ack, &vec![b'x'; 100_000], false);
    broker.publish(&command, &vec![b'x'; 3_000_000], false);
    broker.publish(notify, &vec![b' '; 20_000], false);
    until("oversized ones are refused", TEN, || (device.refused("Oversized") == 3).then_some(()));
    broker.publish(notify, b"[1, 2", false);
    broker.publish(notify, b"\xff", false);
    until("malformed ones are refused", TEN, || (device.refused("Malformed") == 2).then_some(()));
    for number in 0..50 {
        broker.publish(&command, format!("{number}").as_bytes(), false);
    }
    until("a flood is refused", TEN, || (device.refused("Malformed") == 52).then_some(()));
    assert!(device.commands().is_empty() && device.notifies().is_empty());
    assert_eq!(stage.spool_files(), 1);

    broker.publish(notify, b"{}", false);
    broker.publish(&command, hub.signed(&hub.command(6)).as_bytes(), false);
    broker.publish(&ack, hub.signed_ack(Place { epoch: 1, counter: 1 }).as_bytes(), false);
    device.wait_spooled(0);
    until("the genuine ones pass", TEN, || (device.commands() == [6] && device.notifies() == [0]).then_some(()));
    device.stop();
}

#[test]
fn not_enrolled_yet() {
    let (stage, broker) = Stage::plain();
    let enrolment = agent::uplink::enrolment_path(&stage.settings.store);
    let aside = stage.folder().join("aside");
    std::fs::rename(&enrolment, &aside).expect("moved");
    let device = stage.device(1);
    device.report(event("steady"), true);
    never("a connection", Duration::from_millis(500), || device.look().links.0 == LinkState::Up);
    let reports = broker.subscribe(&stage.hub.topic("report"));
    std::fs::rename(&aside, &enrolment).expect("moved");
    until("what waited", TEN, || (stage.hub.reports(&reports).len() == 1).then_some(()));
}

#[test]
fn a_ca_file_that_comes_late() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::new(folder.path());
    let broker = Broker::start(folder.path(), Some(&certificates));
    let late = folder.path().join("late.pem");
    let stage = Stage::new(Some((broker.url(), Some(late.clone()))), None);
    let device = stage.device(1);
    device.report(event("steady"), true);
    device.wait_spooled(1);
    assert_eq!(device.look().links.0, LinkState::Down);
    std::fs::copy(&certificates.ca, &late).expect("copied");
    device.wait_mqtt(LinkState::Up);
}

/// A hub's HTTPS side that stores and acknowledges what it understands.
#[derive(Default)]
struct Desk {
    reports: Vec<Report>,
    acked: Option<Place>,
    commands: Vec<String>,
    after: Vec<u64>,
    tokens: Vec<DeviceToken>,
    refusing: bool,
}

fn desk(stage_hub: &Hub, port: u16) -> (Server, Arc<Mutex<Desk>>) {
    let desk = Arc::new(Mutex::new(Desk::default()));
    let shared = desk.clone();
    let hub = Hub {
        key: stage_hub.key.clone(),
        fleet: stage_hub.fleet.clone(),
        device: stage_hub.device.clone(),
        device_key: stage_hub.device_key,
    };
    let server = Server::start(port, move |asked: &Asked| {
        let mut desk = shared.lock().expect("no panic");
        let token: DeviceToken = jws::verify(Kind::Token, asked.bearer.as_deref().unwrap_or_default(), &hub.device_key)
            .expect("a token by the device");
        desk.tokens.push(token);
        if desk.refusing {
            return (503, r#"{"reason":"Busy","message":"not now"}"#.to_owned());
        }
        if let Some(after) = asked.path.strip_prefix("/api/v1/agent/commands?after=") {
            desk.after.push(after.parse().expect("a sequence"));
            let commands = desk.commands.clone();
            return (200, serde_json::to_string(&CommandsAnswer { commands }).expect("JSON"));
        }
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/api/v1/agent/reports"));
        let body: ReportsBody = serde_json::from_slice(&asked.body).expect("reports");
        for text in &body.reports {
            let report = hub.report(text);
            desk.acked = ack::advance(desk.acked, &report);
            desk.reports.push(report);
        }
        let ack = desk.acked.map(|place| hub.signed_ack(place));
        (200, serde_json::to_string(&ReportsAnswer { ack, refused: Vec::new() }).expect("JSON"))
    });
    (server, desk)
}

#[test]
fn https_alone() {
    let port = free_port();
    let stage = Stage::new(None, Some(format!("http://127.0.0.1:{port}")));
    let device = stage.device(1);
    for number in 0..150 {
        device.report(event(&format!("{number}")), true);
    }
    device.report(status("one"), false);
    device.wait_spooled(150);
    assert_eq!(device.look().links, (LinkState::Unused, LinkState::Down));

    let (server, desk) = desk(&stage.hub, port);
    let lock = || desk.lock().expect("no panic");
    device.wait_spooled(0);
    until("the hub is up", TEN, || (device.look().links.1 == LinkState::Up).then_some(()));
    assert!(lock().tokens.iter().all(|token| token.check(Audience::Hub, noon()).is_ok()));
    let mut events: Vec<_> =
        lock().reports.iter().filter(|report| matches!(report.body, ReportBody::Event(_))).map(Report::place).collect();
    events.dedup();
    assert_eq!(events.len(), 150, "each once, in their order");
    assert!(lock().reports.iter().any(|report| said(report) == "status one"));

    lock().commands = vec![stage.hub.signed(&stage.hub.command(7)), "garbage".to_owned()];
    until("a command", TEN, || (device.commands() == [7]).then_some(()));
    until("it is not asked for again", TEN, || (lock().after.last() == Some(&7)).then_some(()));
    assert!(device.refused("Malformed") > 0);
    assert_eq!((device.commands(), device.refused("Replayed")), (vec![7], 0));

    lock().refusing = true;
    device.report(event("late"), true);
    until("the hub is down", TEN, || (device.look().links.1 == LinkState::Down).then_some(()));
    assert_eq!(stage.spool_files(), 1);
    lock().refusing = false;
    device.wait_spooled(0);
    assert_eq!(device.look().dropped, 0);
    drop(device);
    drop(server);
}

#[test]
fn https_beside_a_broker_that_swallows() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(folder.path(), None);
    let port = free_port();
    let mut stage = Stage::new(Some((broker.url(), None)), Some(format!("http://127.0.0.1:{port}")));
    stage.settings.pace.ack_patience = Duration::from_secs(1);
    let (_server, desk) = desk(&stage.hub, port);
    desk.lock().expect("no panic").commands = vec![stage.hub.signed(&stage.hub.command(3))];
    let device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    until("what the broker did not say", TEN, || (device.commands() == [3]).then_some(()));
    // The same once more over MQTT is a repetition.
    broker.publish(&stage.hub.topic("command"), stage.hub.signed(&stage.hub.command(3)).as_bytes(), false);
    until("a repetition", TEN, || (device.refused("Replayed") == 1).then_some(()));
    device.report(event("steady"), true);
    device.wait_spooled(0);
    assert_eq!(device.look().links, (LinkState::Up, LinkState::Up));
    assert_eq!(device.commands(), [3]);
}

#[test]
fn an_idle_connection_stays() {
    let (stage, broker) = Stage::plain();
    let device = stage.device(1);
    device.wait_mqtt(LinkState::Up);
    // Several keep-alives long; the broker ends silent connections after one and a half.
    never("the connection ends", Duration::from_secs(7), || device.look().links.0 != LinkState::Up);
    assert!(!stage.settings.store.join("spool").exists(), "an idle device writes nothing");
    broker.publish("burgee/v1/retail/notify", b"{}", false);
    until("a notify", TEN, || (device.notifies() == [0]).then_some(()));
}
