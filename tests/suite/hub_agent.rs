//! The real agent and the real hub: it joins, reports, takes commands and
//! hints, over MQTT with the embedded broker and, where there is none, over HTTP.

use std::time::{Duration, Instant};

use harness::hub::Hub;
use harness::stage::Stage;
use harness::wait::{never, until};

/// A hub and a device that has joined it.
struct Joined {
    device: Stage,
    hub: Hub,
}

impl Joined {
    fn new(hub: Hub) -> Self {
        let device = Stage::joined(&hub, |setup| setup);
        let joined = Self { device, hub };
        let head = joined.device.repo.head();
        until("the page shows it", Duration::from_secs(60), || joined.page().contains(&head).then_some(()));
        joined
    }

    fn page(&self) -> String {
        self.hub.get("/devices/store-1")
    }

    /// Pushes another content; the device is not told.
    fn push(&self, text: &str) -> String {
        self.device.content(text, true);
        self.device.push(text)
    }

    fn is_in_sync(&self) -> bool {
        self.hub.get("/?sync=synced").contains("/devices/store-1")
    }
}

fn secret(hub: &str) -> String {
    format!("[webhook]\nplain_secret_file = \"{hub}\"\n")
}

#[test]
fn over_mqtt() {
    let keep = tempfile::tempdir().expect("a folder");
    let file = keep.path().join("secret");
    std::fs::write(&file, "hook\n").expect("writes");
    let joined = Joined::new(Hub::start(&secret(&file.display().to_string())));
    joined.device.device.wait("MQTT is up", 30, |status| status["link"]["mqtt"] == "up");

    // A push and its webhook: the device has it at once, though it polls once an hour.
    let head = joined.push("two");
    let start = Instant::now();
    let body = "{\"ref\":\"refs/heads/main\"}";
    let sign = "import hmac,sys;print(hmac.new(b'hook',sys.argv[1].encode(),'sha256').hexdigest())";
    let proof = harness::process::run(std::process::Command::new("python3").args(["-c", sign, body]));
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-f", "-d", body, "-H", &format!("X-Burgee-Signature: {}", proof.trim())]);
    harness::process::run(curl.arg(format!("{}/hooks/plain", joined.hub.url())));
    until("the device runs it", Duration::from_secs(30), || (joined.device.page() == "two\n").then_some(()));
    println!("push to file: {:?}", start.elapsed());
    until("the page shows it", Duration::from_secs(30), || joined.page().contains(&head).then_some(()));
    assert!(joined.hub.metric("burgee_hub_reports_stored_total{kind=\"mqtt\"}") > 0);

    // Commands, with what became of them.
    let done = |arguments: &[&str]| {
        let output = joined.hub.cli(&[&["command", "store-1"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(done(&["suspend"]).0, Some(0), "{:?}", done(&["suspend"]));
    until("the page says suspended", Duration::from_secs(30), || joined.page().contains("Suspended.").then_some(()));
    assert_eq!(done(&["resume"]).0, Some(0));
    let (code, said) = done(&["sync"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = done(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    until("the device went back", Duration::from_secs(60), || (joined.device.page() == "one\n").then_some(()));
    // It is done with that, and stays out of sync: it does not run what the branch says.
    let first = joined.device.repo.git(&["rev-parse", "HEAD~1"]);
    joined.device.device.wait_steady(&first, 30);
    until("and is not called in sync", Duration::from_secs(60), || (!joined.is_in_sync()).then_some(()));
    until("the hub knows that it is steady again", Duration::from_secs(60), || {
        joined.page().to_lowercase().contains("steady").then_some(())
    });
    never("it is called in sync", Duration::from_secs(5), || joined.is_in_sync());

    // Decommissioned: nothing of it counts any more.
    joined.hub.done(&["device", "remove", "store-1"]);
    assert_eq!(done(&["sync"]).0, Some(1));
}

#[test]
fn over_http_alone() {
    let joined = Joined::new(Hub::start_with("listen = \"127.0.0.1:0\"\n[mqtt]\nenabled = false\n"));
    assert!(joined.hub.metric("burgee_hub_reports_stored_total{kind=\"http\"}") > 0);
    let head = joined.push("two");
    // Commands are polled for once a minute.
    let output = joined.hub.cli(&["command", "store-1", "sync", "--timeout", "100s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("the page shows it", Duration::from_secs(60), || joined.page().contains(&head).then_some(()));
}
