//! The real agent at a real broker (Mosquitto) that anybody may publish to:
//! what is a hint, what is a command, and what is neither; and what becomes of
//! reports while the broker is away. The hub's voice is a key of the test's.

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use fleet::wire::command::{Act, Command};
use fleet::wire::jws::{self, Kind};
use fleet::wire::report::{Report, ReportBody};
use harness::broker::Broker;
use harness::net::{free_port, get};
use harness::stage::Stage;
use harness::voice::{Voice, now};
use harness::wait::{never, until};
use jiff::SignedDuration;

const NOTIFY: &str = "burgee/v1/test/notify";

/// A device that polls seldom, and is led by `voice` over `broker`.
struct Led {
    stage: Stage,
    broker: Broker,
    voice: Voice,
    metrics: u16,
    _folder: tempfile::TempDir,
}

impl Led {
    fn new(poll: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = Broker::start(folder.path(), None);
        let metrics = free_port();
        // Nobody is there: what the broker does not carry is not carried.
        let hub = format!("http://127.0.0.1:{}", free_port());
        let stage = Stage::set_up(|setup| {
            setup.poll(poll).with(&format!(
                "[hub]\nurl = \"{hub}\"\n[mqtt]\nurl = \"{}\"\n[metrics]\nlisten = \"127.0.0.1:{metrics}\"",
                broker.url()
            ))
        });
        let voice = Voice::enrol(&stage.device.store(), "test", "store-1", &hub);
        let mut led = Self { stage, broker, voice, metrics, _folder: folder };
        let first = led.stage.push("first");
        led.stage.device.start();
        led.stage.device.wait_steady(&first, 30);
        led.wait_link("up");
        led
    }

    fn wait_link(&self, state: &str) {
        self.stage.device.wait(&format!("MQTT is {state}"), 60, |status| status["link"]["mqtt"] == state);
    }

    fn command(&self, text: &str) {
        self.broker.publish(&self.voice.topic("command"), text.as_bytes(), false);
    }

    fn is_suspended(&self) -> bool {
        self.stage.device.status().is_some_and(|status| status["suspended"] == true)
    }

    fn wait_suspended(&self, wanted: bool) {
        self.stage.device.wait(&format!("suspended: {wanted}"), 20, |status| status["suspended"] == wanted);
    }

    /// A counter of `/metrics`.
    fn counted(&self, name: &str) -> u64 {
        let (_, text) = get(self.metrics, "/metrics").expect("metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("burgee_{name}_total "))).map(str::to_owned);
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name}: {text}"))
    }
}

#[test]
fn a_notify_starts_a_fetch_within_a_second_and_without_a_broker_it_polls() {
    let mut led = Led::new(3);
    // Connected, it polls once an hour.
    led.stage.content("two", true);
    let second = led.stage.push("two");
    never("it polls", Duration::from_secs(5), || led.stage.page() != "one\n");
    let asked = led.stage.forge.requests().len();
    let start = Instant::now();
    led.broker.publish(NOTIFY, b"{}", false);
    until("a fetch", Duration::from_secs(10), || (led.stage.forge.requests().len() > asked).then_some(()));
    let took = start.elapsed();
    println!("notify to fetch: {took:?}");
    assert!(took < Duration::from_secs(1), "{took:?}");
    led.stage.device.wait_steady(&second, 20);

    // The broker goes: the next poll comes at its ordinary time.
    led.broker.kill();
    led.wait_link("down");
    led.stage.content("three", true);
    let third = led.stage.push("three");
    led.stage.device.wait_steady(&third, 20);
    assert_eq!(led.stage.page(), "three\n");

    // It comes back, and so do hints.
    led.broker.up();
    led.wait_link("up");
    // A poll that was due is not mistaken for the hint's.
    std::thread::sleep(Duration::from_secs(4));
    led.stage.content("four", true);
    let fourth = led.stage.push("four");
    never("it polls", Duration::from_secs(4), || led.stage.page() != "three\n");
    led.broker.publish(NOTIFY, b"{}", false);
    led.stage.device.wait_steady(&fourth, 20);
}

/// What an event says happened, without statuses.
fn events(reports: &[Report]) -> Vec<(String, jiff::Timestamp)> {
    let event = |report: &Report| match &report.body {
        ReportBody::Event(event) => Some((event.event.clone(), report.at)),
        _ => None,
    };
    reports.iter().filter_map(event).collect()
}

#[test]
fn reports_of_an_absence_arrive_with_their_own_times() {
    let mut led = Led::new(3600);
    let reports = led.broker.subscribe(&led.voice.topic("report"));
    let heard = until("what happened so far", Duration::from_secs(90), || {
        let heard = led.voice.reports(&reports);
        events(&heard).iter().any(|(event, _)| event == "steady").then_some(heard)
    });
    let last = heard.last().expect("a report").place();
    led.broker.publish(&led.voice.topic("ack"), led.voice.signed_ack(last).as_bytes(), false);

    led.broker.kill();
    led.wait_link("down");
    let gone = now();
    let good = led.stage.change("two", true);
    led.stage.device.wait_steady(&good, 20);
    let bad = led.stage.change("bad", false);
    led.stage.device.wait_stalled(&good, &bad, 30);
    // Killed on top of it: they are on disk.
    led.stage.device.kill();
    led.stage.device.start();
    led.stage.device.wait_stalled(&good, &bad, 30);
    std::thread::sleep(Duration::from_secs(2));
    let back = now();

    led.broker.up();
    let reports = led.broker.subscribe(&led.voice.topic("report"));
    let wanted = ["accepted", "steady", "accepted", "failed", "rolled-back"];
    let late = until("what happened meanwhile", Duration::from_secs(90), || {
        let late: Vec<_> =
            events(&led.voice.reports(&reports)).into_iter().filter(|(_, at)| *at > gone && *at < back).collect();
        (late.len() >= wanted.len()).then_some(late)
    });
    assert_eq!(late.iter().map(|(event, _)| event.as_str()).collect::<Vec<_>>(), wanted, "in their order");
    assert!(late.is_sorted_by_key(|(_, at)| *at), "{late:?}");

    // Acknowledged, they are nobody's any more.
    let spool = led.stage.device.store().join("spool");
    let files = || std::fs::read_dir(&spool).map_or(0, Iterator::count);
    assert!(files() >= wanted.len());
    until("an empty spool", Duration::from_secs(30), || {
        let last = led.voice.reports(&reports).last()?.place();
        led.broker.publish(&led.voice.topic("ack"), led.voice.signed_ack(last).as_bytes(), false);
        (files() == 0).then_some(())
    });
}

#[test]
fn on_a_hostile_broker_only_the_hubs_own_commands_count() {
    let mut led = Led::new(3600);
    let voice = &led.voice;
    let suspend = |sequence| voice.command(sequence, Act::Suspend);
    let genuine = voice.signed(&suspend(10));
    led.command(&genuine);
    led.wait_suspended(true);
    led.command(&voice.signed(&voice.command(11, Act::Resume)));
    led.wait_suspended(false);

    let stranger = SigningKey::from_bytes(&[8; 32]);
    let past = now() - SignedDuration::from_mins(10);
    let forged: [(&str, String); 8] = [
        ("OtherKey", jws::sign(Kind::Command, &suspend(12), &stranger).expect("signed")),
        ("OtherDevice", voice.signed(&Command { device: "store-2".parse().expect("a name"), ..suspend(12) })),
        ("OtherDevice", voice.signed(&Command { fleet: "other".parse().expect("a name"), ..suspend(12) })),
        ("Late", voice.signed(&Command { issued: past, expires: past + SignedDuration::from_mins(5), ..suspend(12) })),
        ("Replayed", genuine.clone()),
        ("Malformed", jws::sign(Kind::Ack, &suspend(12), &voice.key).expect("signed")),
        ("Malformed", "suspend".to_owned()),
        ("BadSignature", {
            let (text, other) = (voice.signed(&suspend(12)), voice.signed(&suspend(13)));
            format!("{}.{}", text.rsplit_once('.').expect("parts").0, other.rsplit_once('.').expect("parts").1)
        }),
    ];
    let before = led.counted("messages_refused");
    for (_, text) in &forged {
        led.command(text);
    }
    // Left at the broker for whoever comes: genuine, but not said now.
    led.broker.publish(&voice.topic("command"), voice.signed(&suspend(14)).as_bytes(), true);
    led.broker.publish(&voice.topic("command"), &vec![b'x'; 2_000_000], false);
    until("they are counted", Duration::from_secs(30), || {
        (led.counted("messages_refused") > before + forged.len() as u64).then_some(())
    });
    // The one that was said now, although it was kept, too, is the last that counted.
    let log = led.stage.device.log();
    for reason in forged.iter().map(|(reason, _)| *reason).chain(["Oversized"]) {
        assert!(log.contains(&format!("\"reason\":\"{reason}\"")), "{reason}: {log}");
    }
    led.wait_suspended(true);
    led.command(&voice.signed(&voice.command(15, Act::Resume)));
    led.wait_suspended(false);

    // After its own end, too: what was acted on is journalled, what is retained is old.
    led.stage.device.kill();
    led.stage.device.start();
    led.wait_link("up");
    led.command(&genuine);
    never("an old command counts", Duration::from_secs(4), || led.is_suspended());
    let log = led.stage.device.log();
    assert!(log.contains("\"reason\":\"Retained\""), "{log}");
    // And it still listens to its hub.
    led.command(&led.voice.signed(&led.voice.command(16, Act::Suspend)));
    led.wait_suspended(true);
    assert!(led.stage.device.is_alive());
}
