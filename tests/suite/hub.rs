//! The real `burgee-hub`: devices enrol, report and take commands over HTTP and
//! MQTT; what is forged, foreign or repeated is refused and counted; webhooks
//! become one notify; a restart keeps everything; the page shows it, live.

use std::process::Command;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use fleet::wire::command::{Act, Command as HubCommand};
use fleet::wire::enroll::EnrollState;
use fleet::wire::jws::{self, Kind};
use fleet::wire::notify::Notify;
use fleet::wire::report::{Answer, Logs, Outcome, Place, Report, ReportBody};
use fleet::wire::token::Audience;
use fleet::wire::topics;
use harness::broker::{Broker, Certificates};
use harness::browser::Browser;
use harness::hub::{Device, Hub, Mqtt, now, status};
use harness::process::output;

const SOON: Duration = Duration::from_secs(15);

/// Asks until it is so.
async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..300 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never came to pass: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn enrolment() {
    let hub = Hub::start("");
    let once = hub.token(&["--uses", "1", "--ttl", "10m", "--label", "region=eu"]);

    let mut first = Device::new(&hub, "till-1");
    first.labels = [("region".to_owned(), "us".to_owned())].into();
    let answer = first.enroll(&once).await;
    assert_eq!(answer.state, EnrollState::Refused, "{answer:?}");
    assert!(answer.message.expect("why").contains("region=us"));
    first.labels = [("region".to_owned(), "eu".to_owned())].into();
    let answer = first.enroll(&once).await;
    assert_eq!(answer.state, EnrollState::Accepted);
    assert_eq!(answer.fleet.map(|fleet| fleet.to_string()).as_deref(), Some("retail"));
    assert!(answer.mqtt.expect("the broker").starts_with("mqtt://127.0.0.1:"));
    let served: serde_json::Value = serde_json::from_str(&hub.get("/api/v1/agent/hub-key")).expect("JSON");
    assert_eq!(served["key"].as_str(), answer.hub_key.map(|key| key.to_string()).as_deref());

    let second = Device::new(&hub, "till-2");
    assert_eq!(second.enroll(&once).await.state, EnrollState::Refused, "used up");
    let same_name = Device::new(&hub, "till-1");
    let many = hub.token(&[]);
    assert_eq!(same_name.enroll(&many).await.state, EnrollState::Refused, "the name is taken");
    assert_eq!(first.post(&[first.sign(&first.event("steady", ""))]).await.0, 200);
    hub.done(&["device", "remove", "till-1"]);
    assert_eq!(first.post(&[first.sign(&first.event("steady", ""))]).await.0, 401, "its key counts for nothing");
    assert_eq!(same_name.enroll(&many).await.state, EnrollState::Accepted, "the name is free again");
    assert!(hub.done(&["device", "list", "till"]).contains("till-1"));

    let id = hub.done(&["token", "list"]).lines().find(|line| line.contains("any")).expect("listed")[..10].to_owned();
    hub.done(&["token", "revoke", &id]);
    assert_eq!(second.enroll(&many).await.state, EnrollState::Refused, "revoked");

    let waiting = hub.token(&["--lobby"]);
    assert_eq!(second.enroll(&waiting).await.state, EnrollState::Lobby);
    assert_eq!(second.post(&[]).await.0, 401, "not accepted yet");
    assert!(hub.get("/lobby").contains("till-2"));
    hub.done(&["device", "accept", "till-2"]);
    assert_eq!(second.enroll(&waiting).await.state, EnrollState::Accepted);
    for (reason, least) in [("EnrollToken", 2), ("EnrollLabel", 1), ("EnrollName", 1), ("TokenNotAccepted", 2)] {
        assert!(hub.refused(reason) >= least, "{reason}: {}", hub.refused(reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_over_http_and_mqtt_reach_the_page() {
    let hub = Hub::start("");
    assert!(hub.get("/").contains("No device has joined yet"));
    let device = hub.device("store-042").await;

    let report = device.sign(&device.status(status("store-042", "steady", 'a', 'a', &[("pos", "synced", "healthy")])));
    let (code, answer) = device.post(&[report]).await;
    assert_eq!((code, answer.refused.len()), (200, 0));
    let ack = device.ack(&answer.ack.expect("acknowledged"));
    assert_eq!(ack.place(), Place { epoch: 1, counter: 1 });
    let page = hub.get("/");
    assert!(page.contains("store-042") && page.contains("In sync") && page.contains("aaaaaaaaaaaa"), "{page}");

    let ack_topic = topics::ack(&device.fleet, &device.name);
    let mut mqtt = device.mqtt(std::slice::from_ref(&ack_topic)).await;
    let topic = topics::report(&device.fleet, &device.name);
    let mut back = status("store-042", "stalled", 'a', 'a', &[("pos", "synced", "healthy")]);
    back.blocked = serde_json::from_value(serde_json::json!([
        {"revision": "b".repeat(40), "digest": null, "reason": "app pos is not healthy"}]))
    .expect("blocked");
    mqtt.publish(&topic, device.sign(&device.status(back))).await;
    let ack = device.ack(&String::from_utf8(mqtt.next(&ack_topic, SOON).await).expect("text"));
    assert_eq!(ack.place(), Place { epoch: 1, counter: 2 });
    let page = hub.get("/devices/store-042");
    assert!(page.contains("Rolled back") && page.contains("bbbbbbbbbbbb"), "{page}");
    assert!(page.contains("app pos is not healthy") && !page.contains("In sync"), "{page}");
    assert!(hub.get("/?sync=rolled-back").contains("store-042"));
    assert!(!hub.get("/?sync=synced").contains("/devices/store-042"));

    // Made while offline: shown with its own time, and as late.
    let mut late = device.event("drift-repaired", "container pos-web-1 was gone");
    late.at = Mqtt::hours_ago(3);
    late.after = Some(Place { epoch: 1, counter: 2 });
    mqtt.publish(&topic, device.sign(&late)).await;
    mqtt.next(&ack_topic, SOON).await;
    let page = hub.get("/devices/store-042");
    assert!(page.contains("received 3 h later") && page.contains("Drift repaired"), "{page}");
    assert!(page.contains(&late.at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()));
    assert_eq!(hub.metric("burgee_hub_reports_stored_total{kind=\"mqtt\"}"), 2);
    assert_eq!(hub.metric("burgee_hub_devices{axis=\"sync\",value=\"rolled-back\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_foreign_and_repeated_reports_are_refused_and_counted() {
    let hub = Hub::start("[limits]\nreports_per_minute = 30\n");
    let device = hub.device("a").await;
    let other = hub.device("b").await;
    let event = device.sign(&device.event("steady", ""));
    assert_eq!(device.post(std::slice::from_ref(&event)).await.0, 200);

    let refused = |answer: fleet::wire::api::ReportsAnswer| -> Vec<String> {
        answer.refused.into_iter().map(|refused| refused.reason).collect()
    };
    // Over HTTP, as a device that may speak for itself alone.
    let forged =
        jws::sign(Kind::Report, &device.event("steady", ""), &SigningKey::from_bytes(&[7; 32])).expect("signs");
    let tampered = {
        let text = device.sign(&device.event("steady", ""));
        let (head, signature) = text.rsplit_once('.').expect("a signature");
        let last = if signature.starts_with('A') { "B" } else { "A" };
        format!("{head}.{last}{}", &signature[1..])
    };
    let foreign = other.sign(&other.event("steady", ""));
    let as_other = device.sign(&Report { device: other.name.clone(), ..device.event("steady", "") });
    let elsewhere = device.sign(&Report { fleet: "lab".parse().expect("a name"), ..device.event("steady", "") });
    let (code, answer) = device.post(&[forged, tampered, foreign.clone(), as_other, elsewhere, "x.y.z".into()]).await;
    assert_eq!(code, 200);
    assert_eq!(refused(answer), ["OtherKey", "BadSignature", "OtherKey", "OtherDevice", "OtherDevice", "Malformed"]);
    let (_, answer) = device.post(std::slice::from_ref(&event)).await;
    assert!(answer.ack.is_some() && answer.refused.is_empty(), "sending twice does no harm");
    assert_eq!(hub.refused("Duplicate"), 1);

    // Over MQTT the topic says who; only the signature counts.
    let ack_topic = topics::ack(&device.fleet, &device.name);
    let mut mqtt = device.mqtt(std::slice::from_ref(&ack_topic)).await;
    let own = topics::report(&device.fleet, &device.name);
    mqtt.publish(&own, foreign.clone()).await;
    mqtt.publish(&topics::report(&device.fleet, &other.name), device.sign(&device.event("failed", "not mine"))).await;
    mqtt.publish("burgee/v1/retail/devices/nobody/report", foreign).await;
    mqtt.publish(&own, vec![0xff, 0xfe]).await;
    mqtt.publish(&own, event).await;
    mqtt.next(&ack_topic, SOON).await;
    eventually("refusals over MQTT are counted", || {
        hub.refused("OtherKey") == 4 && hub.refused("UnknownDevice") == 1 && hub.refused("Duplicate") == 2
    })
    .await;
    assert!(!hub.get("/devices/b").contains("not mine"));

    // Tokens: of another audience, expired, signed by somebody else, or none.
    let ask = |token: Option<String>| {
        let url = format!("{}{}", hub.url(), fleet::wire::api::COMMANDS);
        async move {
            let request = reqwest::Client::builder().build().expect("a client").get(url);
            let request = match token {
                Some(token) => request.bearer_auth(token),
                None => request,
            };
            request.send().await.expect("answers").status().as_u16()
        }
    };
    let mut thief = Device::new(&hub, "a");
    thief.hub_key = device.hub_key;
    assert_eq!(ask(Some(device.bearer(Audience::Hub, now()))).await, 200);
    assert_eq!(ask(Some(device.bearer(Audience::Mqtt, now()))).await, 401);
    assert_eq!(ask(Some(device.bearer(Audience::Hub, Mqtt::hours_ago(1)))).await, 401);
    assert_eq!(ask(Some(thief.bearer(Audience::Hub, now()))).await, 401);
    assert_eq!(ask(None).await, 401);
    let id = topics::client_id(&device.fleet, &device.name);
    for (user, id, password) in [
        ("a", id.as_str(), thief.bearer(Audience::Mqtt, now())),
        ("a", id.as_str(), device.bearer(Audience::Hub, now())),
        ("b", id.as_str(), device.bearer(Audience::Mqtt, now())),
        ("a", "burgee-retail-b", device.bearer(Audience::Mqtt, now())),
        ("burgee.hub", "x", "guess".to_owned()),
    ] {
        let refused = Mqtt::connect(hub.mqtt_port(), id, user, &password, &[]).await;
        assert!(refused.is_err(), "{user} {id}");
    }

    // More than the limit in a minute.
    let flood: Vec<String> = (0..40).map(|_| device.sign(&device.event("steady", ""))).collect();
    let (_, answer) = device.post(&flood).await;
    assert!(refused(answer).contains(&"TooMany".to_owned()));
    let (code, _) = device.post(&vec!["x".to_owned(); 65]).await;
    assert_eq!(code, 413);
    let (code, _) = device.post(&["x".repeat(2 * 1024 * 1024)]).await;
    assert_eq!(code, 413);
    let page = hub.get("/");
    assert!(page.contains("Messages the hub refused") && page.contains("BadSignature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_over_mqtt_and_http() {
    let hub = Hub::start("");
    let device = hub.device("a").await;
    let topic = topics::command(&device.fleet, &device.name);
    let mut mqtt = device.mqtt(std::slice::from_ref(&topic)).await;

    // One that waits for its answer, while the device gives it.
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| hub.cli(&["command", "a", "rollback"]));
        let command = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let text = String::from_utf8(mqtt.next(&topic, SOON).await).expect("text");
                let key = device.hub_key.expect("it enrolled");
                let command: HubCommand = jws::verify(Kind::Command, &text, key.verifying()).expect("the hub's");
                assert_eq!((command.act.clone(), command.device.as_str()), (Act::Rollback, "a"));
                command.check(&device.fleet, &device.name, now()).expect("for this device, now");
                let other = "b".parse().expect("a name");
                assert!(command.check(&device.fleet, &other, now()).is_err());
                let answer = Answer {
                    command: command.sequence,
                    outcome: Outcome::Refused,
                    message: "there is no revision before last good".to_owned(),
                };
                let report = device.sign(&device.report(ReportBody::Answer(answer)));
                mqtt.publish(&topics::report(&device.fleet, &device.name), report).await;
                command
            })
        });
        (asking.join().expect("ran"), command)
    });
    let (output, first) = asked;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a refused: there is no revision before last good"));

    // One over HTTP; its sequence is above the last one.
    hub.done(&["command", "a", "logs", "pos", "-n", "2", "--no-wait"]);
    let open = device.commands(first.sequence).await;
    assert_eq!(open.len(), 1);
    assert!(open[0].sequence > first.sequence);
    assert_eq!(open[0].act, Act::Logs { app: "pos".parse().expect("a name"), lines: 2 });
    assert!(device.commands(open[0].sequence).await.is_empty());
    let logs = Logs { command: open[0].sequence, app: "pos".to_owned(), lines: vec!["one".into(), "<two>".into()] };
    device.post(&[device.sign(&device.report(ReportBody::Logs(logs)))]).await;
    assert!(device.commands(0).await.is_empty(), "answered");
    let page = hub.get("/devices/a");
    assert!(page.contains("&lt;two&gt;") && page.contains("logs pos 2") && page.contains("2 lines"), "{page}");

    // A device that is away gets it when it is back, from the broker or again from the hub.
    drop(mqtt);
    let away = hub.cli(&["command", "a", "sync", "--timeout", "1s"]);
    assert_eq!(away.status.code(), Some(5), "{}", String::from_utf8_lossy(&away.stderr));
    assert!(String::from_utf8_lossy(&away.stderr).contains("hint:"));
    let mut mqtt = device.mqtt(std::slice::from_ref(&topic)).await;
    let text = String::from_utf8(mqtt.next(&topic, Duration::from_secs(30)).await).expect("text");
    let key = device.hub_key.expect("it enrolled");
    let late: HubCommand = jws::verify(Kind::Command, &text, key.verifying()).expect("the hub's");
    assert_eq!(late.act, Act::Sync);

    assert_eq!(hub.cli(&["command", "nobody", "sync"]).status.code(), Some(1));
    assert_eq!(hub.cli(&["command", "a", "reboot"]).status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_become_one_notify() {
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "It's a Secret to Everybody\n").expect("writes");
    let lines: String = ["github", "gitlab", "gitea", "plain"]
        .iter()
        .map(|kind| format!("{kind}_secret_file = {:?}\n", secret.display().to_string()))
        .collect();
    let hub = Hub::start(&format!("[webhook]\n{lines}branch = \"main\"\n"));
    let device = hub.device("a").await;
    let topic = topics::notify(&device.fleet);
    let mut mqtt = device.mqtt(std::slice::from_ref(&topic)).await;

    let push = r#"{"ref":"refs/heads/main","after":"abc123"}"#;
    let hex = |body: &str| {
        // By a tool of its own, not by the code under test.
        let mut command = Command::new("python3");
        command.args([
            "-c",
            "import hmac,sys;print(hmac.new(sys.argv[1].encode(),sys.argv[2].encode(),'sha256').hexdigest())",
        ]);
        command.args(["It's a Secret to Everybody", body]);
        String::from_utf8(output(&mut command).stdout).expect("hex").trim().to_owned()
    };
    let client = reqwest::Client::builder().build().expect("a client");
    let send = async |kind: &str, headers: &[(&str, &str)], body: &str| {
        let mut request = client.post(format!("{}/hooks/{kind}", hub.url())).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("answers").status().as_u16()
    };
    let good = hex(push);
    let github = format!("sha256={good}");
    let all: [(&str, Vec<(&str, &str)>); 4] = [
        ("github", vec![("X-Hub-Signature-256", &github), ("X-GitHub-Event", "push")]),
        ("gitlab", vec![("X-Gitlab-Token", "It's a Secret to Everybody"), ("X-Gitlab-Event", "Push Hook")]),
        ("gitea", vec![("X-Gitea-Signature", &good), ("X-Gitea-Event", "push")]),
        ("plain", vec![("X-Burgee-Signature", &good)]),
    ];
    for (kind, headers) in &all {
        assert_eq!(send(kind, headers, push).await, 202, "{kind}");
        let notify: Notify = serde_json::from_slice(&mqtt.next(&topic, SOON).await).expect("a notify");
        assert_eq!((notify.spread_secs, notify.branch.as_deref()), (0, Some("main")), "{kind}");
    }
    // Many at once are few.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    mqtt.seen();
    for _ in 0..20 {
        send("plain", &all[3].1, push).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = mqtt.seen().len();
    assert!((1..=4).contains(&count), "{count} notifies for 20 pushes");

    let other = r#"{"ref":"refs/heads/dev"}"#;
    let other_proof = hex(other);
    assert_eq!(send("plain", &[("X-Burgee-Signature", &other_proof)], other).await, 200, "another branch");
    assert_eq!(send("plain", &[("X-Burgee-Signature", &other_proof)], push).await, 401, "of another body");
    assert_eq!(send("github", &[("X-GitHub-Event", "push")], push).await, 401, "no proof");
    assert_eq!(send("gitlab", &[("X-Gitlab-Token", "guess"), ("X-Gitlab-Event", "Push Hook")], push).await, 401);
    assert_eq!(send("bitbucket", &[], push).await, 404);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(mqtt.seen().is_empty(), "nothing of that is a hint");
    assert_eq!(hub.refused("Webhook"), 3);
    assert_eq!(hub.metric("burgee_hub_webhooks_total{kind=\"github\",outcome=\"refused\"}"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_everything() {
    let mut hub = Hub::start("");
    let mut device = hub.device("a").await;
    let event = device.sign(&device.event("steady", "before the restart"));
    device.post(std::slice::from_ref(&event)).await;
    let key = device.hub_key;
    hub.done(&["command", "a", "sync", "--no-wait"]);
    let before = device.commands(0).await;
    let token = hub.token(&[]);

    for kill in [false, true] {
        if kill {
            hub.kill();
        } else {
            assert_eq!(hub.down(), Some(0), "{}", hub.logged());
            assert_eq!(hub.cli(&["command", "a", "sync"]).status.code(), Some(5), "nobody serves");
        }
        hub.up();
        device.url = hub.url();
        device.mqtt_port = Some(hub.mqtt_port());
        let (code, answer) = device.post(std::slice::from_ref(&event)).await;
        assert_eq!(code, 200);
        let ack = device.ack(&answer.ack.expect("acknowledged"));
        assert_eq!(ack.place(), Place { epoch: 1, counter: 1 });
        let after = device.commands(0).await;
        assert_eq!(after[0], before[0]);
        assert!(hub.get("/devices/a").contains("before the restart"));
    }
    assert!(hub.refused("Duplicate") >= 1, "counts survive, too, but for the last second before a kill");
    let late = Device::new(&hub, "b");
    assert_eq!(late.enroll(&token).await.hub_key, key, "the same key");
    let export: serde_json::Value = serde_json::from_str(&hub.done(&["export"])).expect("JSON");
    assert_eq!(export["devices"].as_array().map(Vec::len), Some(2));
    assert!(!export.to_string().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_hub_wrong_files_and_open_pages_are_refused() {
    let mut hub = Hub::start("");
    let second = hub.cli(&["serve"]);
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("hint: another burgee-hub serves from this folder"), "{said}");
    assert_eq!(hub.down(), Some(0));

    let file = hub.folder().join("hub.toml");
    for (text, want) in [
        ("data = \"/x\"\nbogus = 1\n", "unknown field `bogus`"),
        ("data = \"/x\"\nplain = true\nlisten = \"0.0.0.0:0\"\n", "anyone could read the page"),
        ("data = \"/x\"\nlisten = \"0.0.0.0:0\"\n", "there is no [tls]"),
        ("data = \"/x\"\n[webhook]\nplain_secret_file = \"/nowhere\"\n", "/nowhere"),
    ] {
        std::fs::write(&file, text).expect("writes");
        let output = hub.cli(&["check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(want), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_the_pages_password() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("password"), "open sesame\n").expect("writes");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"]);
    openssl.args(["-keyout", &at("key.pem"), "-out", &at("cert.pem")]);
    harness::process::run(&mut openssl);
    let port = harness::net::free_port();
    let data = at("data");
    let config = at("hub.toml");
    let text = format!(
        "data = {data:?}\nlisten = \"127.0.0.1:{port}\"\n[tls]\ncert_file = {:?}\nkey_file = {:?}\n\
         [mqtt]\nlisten = \"127.0.0.1:0\"\n[page]\npassword_file = {:?}\n",
        at("cert.pem"),
        at("key.pem"),
        at("password")
    );
    std::fs::write(&config, text).expect("writes");
    let mut command = Command::new(harness::bins::bin("burgee-hub"));
    command.args(["--config", &config, "serve"]);
    let mut process = harness::process::Running::start(&mut command, &folder.path().join("log"));

    let _ = rustls::crypto::ring::default_provider().install_default();
    let pem = std::fs::read(at("cert.pem")).expect("the certificate");
    let root = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([root]).build().expect("a client");
    let get = async |path: &str, login: Option<(&str, &str)>| {
        let mut request = client.get(format!("https://127.0.0.1:{port}{path}"));
        if let Some((user, password)) = login {
            request = request.basic_auth(user, Some(password));
        }
        request.send().await.ok().map(|answer| answer.status().as_u16())
    };
    for _ in 0..200 {
        if get("/readyz", None).await == Some(200) {
            break;
        }
        assert!(process.is_alive(), "{}", std::fs::read_to_string(folder.path().join("log")).unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for (path, login, want) in [
        ("/healthz", None, 200),
        ("/readyz", None, 200),
        ("/", None, 401),
        ("/devices/a", None, 401),
        ("/metrics", None, 401),
        ("/live", None, 401),
        ("/", Some(("burgee", "wrong")), 401),
        ("/", Some(("x", "open sesame")), 401),
        ("/", Some(("burgee", "open sesame")), 200),
        ("/metrics", Some(("burgee", "open sesame")), 200),
        ("/api/v1/agent/hub-key", None, 200),
    ] {
        assert_eq!(get(path, login).await, Some(want), "{path} {login:?}");
    }
    assert_eq!(process.stop(Duration::from_secs(20)), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_whole_without_script_and_live_with_it() {
    let hub = Hub::start("");
    let device = hub.device("store-042").await;
    let page = hub.get("/");
    assert!(page.contains("store-042") && page.contains("Never reported"), "rendered by the server");
    let headers = reqwest::Client::builder().build().expect("a client").get(hub.url()).send().await.expect("answers");
    let policy = headers.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");

    // Without script everything is there, and the page looks again by itself.
    let mut browser = Browser::start();
    browser.scripts(false);
    browser.open(&hub.url());
    let document = browser.document();
    assert!(document.contains("store-042") && document.contains("http-equiv=\"refresh\""), "{document}");

    // With it, a report that comes while the page is open is shown at once.
    browser.scripts(true);
    browser.open(&hub.url());
    eventually("the page is live", || hub.metric("burgee_hub_pages_live") > 0).await;
    let steady = status("store-042", "steady", 'c', 'c', &[("pos", "synced", "degraded")]);
    assert_eq!(device.post(&[device.sign(&device.status(steady))]).await.0, 200);
    eventually("the page shows the report", || {
        let document = browser.document();
        document.contains("cccccccccccc") && document.contains("Degraded")
    })
    .await;

    // A search goes by itself through the form, and another device appears in it.
    browser.open(&format!("{}/?q=kiosk", hub.url()));
    assert!(browser.document().contains("No device matches"));
    hub.device("kiosk-1").await;
    eventually("the new device appears", || browser.document().contains("/devices/kiosk-1")).await;

    // Nothing was fetched from elsewhere, nothing was refused by the policy.
    assert_eq!(browser.complaints(), Vec::<String>::new());
    assert_eq!(browser.overflow(360), 0, "the page fits a narrow phone");
    browser.open(&format!("{}/devices/store-042", hub.url()));
    assert_eq!(browser.overflow(360), 0, "the device's page fits a narrow phone");
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_broker_over_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let certificates = Certificates::new(folder.path());
    let mut broker = Broker::start(folder.path(), Some(&certificates));
    let mqtt = format!("[mqtt]\nurl = {:?}\nca_file = {:?}\n", broker.url(), certificates.ca.display().to_string());
    let hub = Hub::start_with(&format!("listen = \"127.0.0.1:0\"\n{mqtt}"));
    let device = hub.device("a").await;
    let (report, ack) = (topics::report(&device.fleet, &device.name), topics::ack(&device.fleet, &device.name));
    let acks = broker.subscribe(&ack);
    broker.publish(&report, device.sign(&device.event("steady", "by somebody else’s broker")).as_bytes(), false);
    // The broker is hostile: it makes up a report, and repeats one.
    broker.publish(&report, b"made up", false);
    eventually("the report is acknowledged", || acks.all().iter().any(|(topic, _)| *topic == ack)).await;
    let (_, text) = acks.all().into_iter().find(|(topic, _)| *topic == ack).expect("an acknowledgement");
    assert_eq!(device.ack(&text).place(), Place { epoch: 1, counter: 1 });
    eventually("what was made up is counted", || hub.refused("Malformed") == 1).await;

    broker.kill();
    eventually("the hub says that the broker is gone", || {
        harness::net::get(hub.port(), "/readyz").is_some_and(|(status, _)| status == 503)
    })
    .await;
    assert!(hub.get("/").contains("The MQTT broker is not connected"));
    assert_eq!(device.post(&[device.sign(&device.event("steady", "over HTTP"))]).await.0, 200);
    broker.up();
    eventually("the hub is connected again", || {
        harness::net::get(hub.port(), "/readyz").is_some_and(|(status, _)| status == 200)
    })
    .await;
    // Subscribed again, too; the subscription may take a moment more.
    let event = device.sign(&device.event("steady", "after the outage"));
    let mut stored = false;
    for _ in 0..20 {
        broker.publish(&report, event.as_bytes(), false);
        tokio::time::sleep(Duration::from_millis(250)).await;
        stored = hub.get("/devices/a").contains("after the outage");
        if stored {
            break;
        }
    }
    assert!(stored, "{}", hub.logged());
}

/// A fleet with some of everything, for the pictures in `target/pictures`.
async fn some_of_everything(hub: &Hub) {
    let token = hub.token(&[]);
    let apps: &[(&str, &str, &str)] =
        &[("base", "synced", "healthy"), ("pos", "synced", "healthy"), ("label-printer", "synced", "healthy")];
    let sick: &[(&str, &str, &str)] = &[("base", "synced", "healthy"), ("pos", "out-of-sync", "degraded")];
    let moving: &[(&str, &str, &str)] = &[("base", "synced", "healthy"), ("pos", "updating", "progressing")];
    for number in 1..=14_u32 {
        let mut device = Device::new(hub, &format!("store-{number:03}"));
        let region = if number % 3 == 0 { "us" } else { "eu" };
        let ring = if number < 3 { "canary" } else { "rest" };
        device.labels = [("region".to_owned(), region.to_owned()), ("ring".to_owned(), ring.to_owned())].into();
        device.hub_key = device.enroll(&token).await.hub_key;
        let name = device.name.to_string();
        let mut said = match number {
            2 => status(&name, "stalled", '4', '4', apps),
            5 => status(&name, "probing", '8', '4', moving),
            6 => status(&name, "steady", '8', '8', sick),
            9 => continue,
            _ => status(&name, "steady", if number < 4 { '8' } else { '4' }, '4', apps),
        };
        if number == 2 {
            said.blocked = serde_json::from_value(serde_json::json!([{"revision": "8".repeat(40), "digest": null,
                "reason": "app pos was not healthy within 3 min: container pos-web-1 answers 500 on /healthz"}]))
            .expect("blocked");
            said.conditions = serde_json::from_value(serde_json::json!([
                {"type": "Applied", "status": false, "reason": "Unhealthy", "since": Mqtt::hours_ago(1),
                 "message": "while probing, health failed for app pos: GET http://127.0.0.1:8080/healthz answered 500, expected 200\nhint: burgee-agent logs pos shows what it says"},
                {"type": "Verified", "status": true, "reason": "SignedBy", "since": Mqtt::hours_ago(30),
                 "message": "the head is signed by ada@example.com"}]))
            .expect("conditions");
            said.apps[1].message = "runs the last good image again".to_owned();
            let mut reports = Vec::new();
            for (hours, event, digit, message) in [
                (30, "accepted", '4', "signed by ada@example.com (SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8)"),
                (30, "steady", '4', "applied and healthy"),
                (2, "accepted", '8', "signed by ada@example.com (SHA256:bbXpuKG6zhzdmnxq256TlqzFBzRl2f6OOg722cYNbU8)"),
                (
                    2,
                    "failed",
                    '8',
                    "while probing, health failed for app pos: GET http://127.0.0.1:8080/healthz answered 500, expected 200\nhint: burgee-agent logs pos shows what it says",
                ),
                (2, "rolled-back", '4', "from 888888888888 to 444444444444"),
            ] {
                let mut report = device.event(event, message);
                report.at = Mqtt::hours_ago(hours);
                if let ReportBody::Event(event) = &mut report.body {
                    event.revision = digit.to_string().repeat(40).parse().ok();
                }
                reports.push(device.sign(&report));
            }
            device.post(&reports).await;
        }
        device.post(&[device.sign(&device.status(said))]).await;
    }
    let waiting = Device::new(hub, "kiosk-berlin-07");
    waiting.enroll(&hub.token(&["--lobby"])).await;
    hub.done(&["command", "store-002", "retry", "--no-wait"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures() {
    let hub = Hub::start("");
    let folder = harness::bins::root().join("target/pictures");
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut browser = Browser::start();
    browser.window(1240, 800, false);
    browser.open(&hub.url());
    browser.picture(&folder.join("empty.png"));
    some_of_everything(&hub).await;
    for (page, path) in [("fleet", "/"), ("device", "/devices/store-002"), ("lobby", "/lobby")] {
        for (kind, width, dark) in [("light", 1240, false), ("dark", 1240, true), ("phone", 360, false)] {
            browser.window(width, 800, dark);
            browser.open(&format!("{}{path}", hub.url()));
            let wide = browser.value("document.documentElement.scrollWidth").as_u64();
            assert!(wide <= Some(u64::from(width)), "{page} {kind} is {wide:?} wide");
            browser.picture(&folder.join(format!("{page}-{kind}.png")));
        }
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
