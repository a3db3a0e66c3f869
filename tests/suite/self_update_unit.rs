//! The agent's own update as a device has it: the package on a booted Debian,
//! its hardened unit, its watchdog, and the power cut while a new one is on
//! trial. Needs root.

use std::time::Duration;

use harness::broker::Certificates;
use harness::forge::{Forge, Setup};
use harness::installed::{AGENT, Installed};
use harness::packages::{FIRST, NEXT};
use harness::systemd::PLAIN;
use harness::wait::until;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const LIMIT_SECS: u32 = 15;
/// Longer than the unit's watchdog waits.
const LONG_LIMIT_SECS: u32 = 100;

/// A machine with the package, and a host that has agents for it.
struct Stage {
    // Ends first: its servers are in the machine's network.
    host: Forge,
    installed: Installed,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// The agent runs the first commit, whose id it gives.
    fn new() -> (Self, String) {
        let installed = Installed::boot(PLAIN);
        let folder = tempfile::tempdir().expect("a folder");
        let certificates = Certificates::new(folder.path());
        let ca = std::fs::read_to_string(&certificates.ca).expect("a certificate");
        let network_of = Some(installed.machine.leader().to_owned());
        let host = Forge::start_with(
            folder.path(),
            Setup { certificates: Some(certificates), network_of, ..Setup::default() },
        );
        installed.done(&["dpkg", "--install", &Installed::deb("burgee-agent", FIRST)]);
        installed.file("/etc/burgee/downloads-ca.pem", &ca);
        installed.file("/etc/burgee/allowed_signers", &installed.repo.signer.line());
        installed.file(
            "/etc/burgee/agent.toml",
            &format!(
                "[device]\nname = \"till-1\"\nlabels = {{ role = \"test\" }}\n[source]\nurl = \"{}\"\npoll_secs = 3600\n\
                 [runtime.files]\nallow = [\"/etc/till\"]\n[update]\nlimit_secs = {LIMIT_SECS}\nca_file = \"/etc/burgee/downloads-ca.pem\"\n",
                installed.forge.url()
            ),
        );
        let repo = &installed.repo;
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [till]\n");
        repo.write("apps/till/app.yaml", "runtime: files\nfiles:\n  - {from: till.conf, to: /etc/till/}\n");
        repo.write("apps/till/files/till.conf", "one\n");
        let first = installed.push("first");
        installed.done(&["systemctl", "daemon-reload"]);
        installed.done(&["systemctl", "start", AGENT]);
        installed.wait_steady(&first);
        (Self { host, installed, _folder: folder }, first)
    }

    /// Publishes an agent and pushes a commit that wants it: its digest, and
    /// the commit.
    fn want(&self, version: &str, program: &[u8]) -> (String, String) {
        let sum: [u8; 32] = Sha256::digest(program).into();
        let digest: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(self.host.files().join(format!("{digest}-x86_64")), program).expect("a published file");
        let url = format!("{}/files/{digest}-{{arch}}", self.host.origin("127.0.0.1"));
        self.installed.repo.write(
            "burgee.yaml",
            &format!(
                "format: 1\nfleet: retail\nagent:\n  version: {version}\n  url: \"{url}\"\n  sha256: {{x86_64: {digest}}}\n"
            ),
        );
        let commit = self.installed.push(&format!("agent {version}"));
        self.installed.done(&["burgee-agent", "sync", "--no-wait"]);
        (digest, commit)
    }

    /// What the unit's main process runs.
    fn runs(&self) -> String {
        let pid = self.installed.show(AGENT, "MainPID");
        let exe = self.installed.run(&["readlink", &format!("/proc/{pid}/exe")]);
        String::from_utf8_lossy(&exe.stdout).trim().to_owned()
    }

    fn record(&self) -> Value {
        let path = self.installed.path("/var/lib/burgee/agent/record.json");
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    #[track_caller]
    fn wait_passed(&self, digest: &str) {
        until("the trial to be over, and well", Duration::from_secs(60), || {
            let record = self.record();
            (record["current"]["sha256"] == digest && record["trial"].is_null()).then_some(())
        });
        assert_eq!(self.runs(), format!("/var/lib/burgee/agent/{digest}"));
    }

    #[track_caller]
    fn wait_failed(&self, digest: &str) {
        until("the version to be blocked", Duration::from_secs(180), || {
            let record = self.record();
            let failed = record["failed"].as_array()?.iter().find(|failed| failed["sha256"] == digest)?;
            (failed["blocked"] == true && record["trial"].is_null()).then_some(())
        });
    }
}

fn script(version: &str, what: &str) -> Vec<u8> {
    format!("#!/bin/sh\n[ \"$1\" != --version ] || {{ echo burgee-agent {version}; exit; }}\n{what}\n").into_bytes()
}

#[test]
fn under_the_packaged_unit() {
    let (mut stage, first) = Stage::new();
    let restarts = |stage: &Stage| stage.installed.show(AGENT, "NRestarts").parse::<u32>().unwrap();
    let (pid, wrote) = (stage.installed.show(AGENT, "MainPID"), stage.installed.path("/etc/till/till.conf"));
    let before = std::fs::metadata(&wrote).unwrap().modified().unwrap();

    // A good one: the same process, within the same walls.
    let mut good = std::fs::read(stage.installed.path("/usr/bin/burgee-agent")).unwrap();
    good.extend_from_slice(b"another");
    let (digest, second) = stage.want(VERSION, &good);
    stage.wait_passed(&digest);
    stage.installed.wait_steady(&second);
    assert_ne!(first, second);
    assert_eq!((stage.installed.show(AGENT, "MainPID"), restarts(&stage)), (pid.clone(), 0));
    assert_eq!(std::fs::metadata(&wrote).unwrap().modified().unwrap(), before, "what runs was not touched");
    let status = stage.installed.done(&["cat", &format!("/proc/{pid}/status")]);
    assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");

    // One that crashes, and one that hangs without a word to the watchdog.
    let (digest_bad, _) = stage.want("7.0.0", &script("7.0.0", "exit 3"));
    stage.wait_failed(&digest_bad);
    until("the one before", Duration::from_secs(30), || stage.runs().ends_with(&digest).then_some(()));
    assert_eq!(restarts(&stage), 4);
    // That one is ended by the watchdog first, and by the kernel's alarm then.
    let config = std::fs::read_to_string(stage.installed.path("/etc/burgee/agent.toml")).unwrap();
    let limit = |secs: u32| {
        let text = config.replace(&format!("limit_secs = {LIMIT_SECS}"), &format!("limit_secs = {secs}"));
        stage.installed.file("/etc/burgee/agent.toml", &text);
        stage.installed.done(&["systemctl", "restart", AGENT]);
    };
    limit(LONG_LIMIT_SECS);
    let (digest_bad, third) = stage.want("7.1.0", &script("7.1.0", "exec sleep 100000"));
    until("it hangs", Duration::from_secs(30), || stage.runs().ends_with("/sleep").then_some(()));
    stage.wait_failed(&digest_bad);
    until("the one before", Duration::from_secs(30), || stage.runs().ends_with(&digest).then_some(()));
    stage.installed.wait_steady(&third);
    assert_eq!(stage.installed.show(AGENT, "ActiveState"), "active");
    let log = stage.installed.done(&["journalctl", "-u", AGENT, "--no-pager"]);
    assert!(log.contains("Watchdog timeout") && log.contains("status=14/ALRM"), "{log}");
    limit(LIMIT_SECS);

    // The power fails while one is on trial that will never be well; nobody is
    // there, and no network.
    let (digest_bad, _) = stage.want("7.2.0", &script("7.2.0", "exec sleep 100000"));
    until("it is on trial", Duration::from_secs(60), || stage.runs().ends_with("/sleep").then_some(()));
    stage.host.down();
    stage.installed.forge.down();
    stage.installed.machine.power_cycle(|_| {}).unwrap();
    stage.wait_failed(&digest_bad);
    let status = stage.installed.wait("what ran", 60, |status| status["phase"] == "steady");
    assert!(stage.runs().ends_with(&digest), "{status}");

    // Another package goes before what was downloaded, and what it runs stays.
    stage.installed.done(&["dpkg", "--install", &Installed::deb("burgee-agent", NEXT)]);
    stage.installed.wait("what ran", 60, |status| status["phase"] == "steady");
    assert_eq!(stage.runs(), "/usr/bin/burgee-agent");
    assert!(stage.record()["current"].is_null(), "{}", stage.record());
    assert_eq!(std::fs::metadata(&wrote).unwrap().modified().unwrap(), before, "what runs was not touched");
}
