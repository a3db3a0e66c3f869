//! The real agent and the real hub: it joins, reports, takes commands and
//! hints, over MQTT with the embedded broker and, where there is none, over HTTP.

use std::time::{Duration, Instant};

use harness::device::{Device, Setup};
use harness::forge::Forge;
use harness::hub::Hub;
use harness::repo::Repo;
use harness::wait::until;

/// A hub, a fleet repository with one app, and a device of it that has joined.
struct Stage {
    device: Device,
    hub: Hub,
    forge: Forge,
    repo: Repo,
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new(hub: Hub) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let forge = Forge::start(folder.path());
        let repo = Repo::trusted(folder.path());
        let setup = Setup::new("store-1", &forge.url(), &repo.signer.line());
        let setup = setup.with(&format!("[hub]\nurl = \"{}\"\n", hub.url()));
        let mut device = Device::new(folder.path(), &setup);
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web]\n");
        repo.write(
            "apps/web/app.yaml",
            "runtime: files\nfiles:\n  - {from: etc/, to: /etc/web/}\nhealth: {timeout: 2s, soak: 100ms}\n",
        );
        repo.write("apps/web/files/etc/page.txt", "one\n");
        let head = repo.commit("one");
        repo.push(&forge.url(), true);

        let trust = device.folder.join("allowed_signers");
        let joined = device.call(&[
            "enroll",
            "--hub",
            &hub.url(),
            "--token",
            &hub.token(&["--uses", "1"]),
            "--trust",
            &trust.display().to_string(),
        ]);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        device.start();
        device.wait("the first commit runs", 60, |status| {
            status["phase"] == "steady" && status["revision"] == head.as_str()
        });
        let stage = Self { device, hub, forge, repo, _folder: folder };
        until("the page shows it", Duration::from_secs(60), || stage.page().contains(&head).then_some(()));
        stage
    }

    fn page(&self) -> String {
        self.hub.get("/devices/store-1")
    }

    fn push(&self, text: &str) -> String {
        self.repo.write("apps/web/files/etc/page.txt", &format!("{text}\n"));
        let head = self.repo.commit(text);
        self.repo.push(&self.forge.url(), true);
        head
    }

    fn on_device(&self) -> String {
        std::fs::read_to_string(self.device.folder.join("root/etc/web/page.txt")).unwrap_or_default()
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
    let stage = Stage::new(Hub::start(&secret(&file.display().to_string())));
    stage.device.wait("MQTT is up", 30, |status| status["link"]["mqtt"] == "up");

    // A push and its webhook: the device has it at once, though it polls once an hour.
    let head = stage.push("two");
    let start = Instant::now();
    let body = "{\"ref\":\"refs/heads/main\"}";
    let sign = "import hmac,sys;print(hmac.new(b'hook',sys.argv[1].encode(),'sha256').hexdigest())";
    let proof = harness::process::run(std::process::Command::new("python3").args(["-c", sign, body]));
    let mut curl = std::process::Command::new("curl");
    curl.args(["-sS", "-f", "-d", body, "-H", &format!("X-Burgee-Signature: {}", proof.trim())]);
    harness::process::run(curl.arg(format!("{}/hooks/plain", stage.hub.url())));
    until("the device runs it", Duration::from_secs(30), || (stage.on_device() == "two\n").then_some(()));
    println!("push to file: {:?}", start.elapsed());
    until("the page shows it", Duration::from_secs(30), || stage.page().contains(&head).then_some(()));
    assert!(stage.hub.metric("burgee_hub_reports_stored_total{kind=\"mqtt\"}") > 0);

    // Commands, with what became of them.
    let done = |arguments: &[&str]| {
        let output = stage.hub.cli(&[&["command", "store-1"], arguments].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(done(&["suspend"]).0, Some(0), "{:?}", done(&["suspend"]));
    until("the page says suspended", Duration::from_secs(30), || stage.page().contains("Suspended.").then_some(()));
    assert_eq!(done(&["resume"]).0, Some(0));
    let (code, said) = done(&["sync"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = done(&["rollback"]);
    assert_eq!(code, Some(0), "{said}");
    until("the device went back", Duration::from_secs(60), || (stage.on_device() == "one\n").then_some(()));
    until("and is not called in sync", Duration::from_secs(60), || {
        (!stage.hub.get("/?sync=synced").contains("/devices/store-1")).then_some(())
    });

    // Decommissioned: nothing of it counts any more.
    stage.hub.done(&["device", "remove", "store-1"]);
    assert_eq!(done(&["sync"]).0, Some(1));
}

#[test]
fn over_http_alone() {
    let stage = Stage::new(Hub::start_with("listen = \"127.0.0.1:0\"\n[mqtt]\nenabled = false\n"));
    assert!(stage.hub.metric("burgee_hub_reports_stored_total{kind=\"http\"}") > 0);
    let head = stage.push("two");
    // Commands are polled for once a minute.
    let output = stage.hub.cli(&["command", "store-1", "sync", "--timeout", "100s"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    until("the page shows it", Duration::from_secs(60), || stage.page().contains(&head).then_some(()));
}
