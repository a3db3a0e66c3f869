//! The whole agent as a service of a booted systemd: it fetches a signed
//! commit, delivers a service and a quadlet (by Podman's own generator), and
//! finds its own way back; also after its own end, and the machine's.

use std::process::Output;
use std::time::Duration;

use harness::bins::bin;
use harness::forge::{Forge, Setup};
use harness::repo::Repo;
use harness::systemd::{Machine, PODMAN};
use harness::wait::until;
use serde_json::Value;

const TILL: &str = "till.service";
const SHELF: &str = "shelf.service";
const AGENT: &str = "burgee-agent.service";

/// As docs/operating.md has it, with shorter times.
const UNIT: &str = "[Unit]
Description=burgee agent
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
ExecStart=/burgee/burgee-agent run
Restart=always
RestartSec=1
WatchdogSec=6
TimeoutAbortSec=2
RuntimeDirectory=burgee
StateDirectory=burgee

[Install]
WantedBy=multi-user.target
";

/// A machine with an agent, in whose network there is a Git host.
struct Stage {
    // Ends first: its servers are in the machine's network.
    forge: Forge,
    machine: Machine,
    repo: Repo,
    _folder: tempfile::TempDir,
}

/// What the two apps are to be.
#[derive(Clone, Copy)]
struct Shop<'a> {
    /// What the service reads.
    till: &'a str,
    /// The tag of the quadlet's image.
    shelf: &'a str,
    /// More lines of the service's unit.
    unit: &'a str,
    health: &'a str,
}

const FIRST: Shop<'_> = Shop { till: "one", shelf: "1", unit: "", health: "{timeout: 10s, soak: 500ms}" };

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let agent = bin("burgee-agent");
        let machine = Machine::boot_kept(PODMAN, &[(agent.parent().expect("a folder"), "/burgee")]).expect("a machine");
        let setup = Setup { network_of: Some(machine.leader().to_owned()), ..Setup::default() };
        let forge = Forge::start_with(folder.path(), setup);
        let repo = Repo::trusted(folder.path());
        let stage = Self { forge, machine, repo, _folder: folder };
        stage.file("etc/burgee/allowed_signers", &stage.repo.signer.line());
        stage.file(
            "etc/burgee/agent.toml",
            &format!(
                "[device]\nname = \"till-1\"\nlabels = {{ role = \"test\" }}\n[source]\nurl = \"{}\"\npoll_secs = 3600\n\
                 [runtime.files]\nallow = [\"/etc/till\", \"/etc/systemd/system\", \"/etc/containers/systemd\"]\n",
                stage.forge.url()
            ),
        );
        stage.file("etc/systemd/system/burgee-agent.service", UNIT);
        // Nested containers may neither make keyrings nor mount overlays.
        stage.file("etc/containers/containers.conf", "[containers]\nkeyring = false\n");
        stage.file(
            "etc/containers/storage.conf",
            "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/containers/storage\"\ngraphroot = \"/var/lib/containers/storage\"\n",
        );
        let make = "mkdir -p /tmp/image/bin && cd /tmp/image && cp /bin/busybox bin/ && ln -s busybox bin/sleep && \
            for tag in 1 2; do echo $tag >tag && tar -c . | podman import -q - localhost/shelf:$tag; done";
        stage.done(&["sh", "-ec", make]);
        stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [till, shelf]\n");
        stage
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.machine.root().join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn write(&self, shop: Shop<'_>) {
        let app = |more: &str| format!("runtime: files\nhealth: {}\n{more}", shop.health);
        self.repo.write(
            "apps/till/app.yaml",
            &app("files:\n  - {from: till.conf, to: /etc/till/}\n  - {from: till.service, to: /etc/systemd/system/}\n\
                 units: [till.service]\n"),
        );
        self.repo.write("apps/till/files/till.conf", &format!("{}\n", shop.till));
        self.repo.write(
            "apps/till/files/till.service",
            &format!(
                "[Service]\nExecStart=/bin/sh -c 'cat /etc/till/till.conf > /run/till.seen; exec sleep infinity'\n{}\n\
                 [Install]\nWantedBy=multi-user.target\n",
                shop.unit
            ),
        );
        // After the till: where the shelf fails, the till has been changed already.
        self.repo.write(
            "apps/shelf/app.yaml",
            &app("dependsOn: [till]\nfiles:\n  - {from: shelf.container, to: /etc/containers/systemd/}\n\
                 units: [shelf.service]\n"),
        );
        self.repo.write(
            "apps/shelf/files/shelf.container",
            &format!(
                "[Container]\nImage=localhost/shelf:{}\nPull=never\nNetwork=none\nExec=/bin/sleep 1000000\n\
                 PodmanArgs=--cgroups=disabled --stop-signal=KILL\n[Install]\nWantedBy=multi-user.target\n",
                shop.shelf
            ),
        );
    }

    /// Commits, signed, and pushes; the commit's id.
    fn push(&self, shop: Shop<'_>, message: &str) -> String {
        self.write(shop);
        let id = self.repo.commit(message);
        self.repo.push(self.forge.bare().to_str().expect("a UTF-8 path"), true);
        id
    }

    fn change(&self, shop: Shop<'_>, message: &str) -> String {
        let id = self.push(shop, message);
        self.done(&["/burgee/burgee-agent", "sync", "--no-wait"]);
        id
    }

    fn run(&self, command: &[&str]) -> Output {
        self.machine.run(command).expect("nsenter")
    }

    /// What a command printed; it has to succeed.
    #[track_caller]
    fn done(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn show(&self, unit: &str, property: &str) -> String {
        self.done(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// Which start of each unit this is, and when it became active.
    fn starts(&self) -> [(String, String); 2] {
        [TILL, SHELF].map(|unit| (self.show(unit, "InvocationID"), self.show(unit, "ActiveEnterTimestampMonotonic")))
    }

    fn status(&self) -> Option<Value> {
        serde_json::from_slice(&self.run(&["/burgee/burgee-agent", "status", "-o", "json"]).stdout).ok()
    }

    #[track_caller]
    fn wait(&self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        self.machine.wait_status(what, seconds, || self.status(), wanted)
    }

    #[track_caller]
    fn wait_steady(&self, revision: &str) -> Value {
        self.wait(&format!("steady at {revision}"), 60, |it| it["phase"] == "steady" && it["revision"] == revision)
    }

    #[track_caller]
    fn wait_stalled(&self, at: &str, failed: &str) -> Value {
        self.wait(&format!("stalled at {at}, {failed} blocked"), 90, |it| {
            it["phase"] == "stalled" && it["revision"] == at && it["blocked"].to_string().contains(failed)
        })
    }

    /// Asserts that both apps run as `shop` says: files, units and container.
    #[track_caller]
    fn runs(&self, shop: Shop<'_>) {
        until("the till has read its file", Duration::from_secs(10), || {
            (self.done(&["cat", "/run/till.seen"]) == shop.till).then_some(())
        });
        for unit in [TILL, SHELF] {
            assert_eq!(self.done(&["systemctl", "is-active", unit]), "active");
        }
        let running = self.done(&["podman", "ps", "--format", "{{.Names}} {{.Image}}"]);
        assert_eq!(running, format!("systemd-shelf localhost/shelf:{}", shop.shelf));
        assert_eq!(self.show(TILL, "NeedDaemonReload"), "no");
    }
}

#[test]
fn a_service_and_a_quadlet_come_change_alone_go_back_and_outlive_the_machine() {
    let mut stage = Stage::new();
    let first = stage.push(FIRST, "first");
    // Type=notify: this returns when the agent said that it is ready.
    stage.done(&["systemctl", "enable", "--now", AGENT]);
    assert_eq!(stage.show(AGENT, "ActiveState"), "active");
    assert_eq!(stage.show(AGENT, "SubState"), "running");
    stage.wait_steady(&first);
    stage.runs(FIRST);
    assert!(stage.show(AGENT, "StatusText").contains(&first[..12]), "{}", stage.show(AGENT, "StatusText"));
    let made = stage.done(&["systemctl", "cat", SHELF]);
    assert!(made.contains("podman-system-generator") && made.contains("podman run"), "not Podman's own:\n{made}");
    assert_eq!(stage.done(&["systemctl", "is-enabled", TILL]), "enabled");

    // One changes, the other is not touched: first the service, then the quadlet.
    let before = stage.starts();
    let two = Shop { till: "two", ..FIRST };
    let second = stage.change(two, "the till alone");
    stage.wait_steady(&second);
    stage.runs(two);
    let after = stage.starts();
    assert_ne!(after[0], before[0], "the till was restarted");
    assert_eq!(after[1], before[1], "the shelf was not");
    let good = Shop { till: "two", shelf: "2", ..FIRST };
    let third = stage.change(good, "the shelf alone");
    stage.wait_steady(&third);
    stage.runs(good);
    assert_eq!(stage.starts()[0], after[0], "the till was not restarted");
    assert_ne!(stage.starts()[1], after[1], "the shelf was");

    // Bad ones take both back: a container whose image is not there, a service that does not start.
    let before = stage.starts();
    let bad = stage.change(Shop { till: "bad", shelf: "none", ..FIRST }, "no such image");
    let status = stage.wait_stalled(&third, &bad);
    assert!(status["conditions"].to_string().contains("shelf.service"), "{status:#}");
    stage.runs(good);
    assert_ne!(stage.starts()[0], before[0], "the till was there and back");
    let bad = stage.change(
        Shop { till: "worse", shelf: "1", unit: "Type=oneshot\nExecStartPre=/bin/false", ..FIRST },
        "a unit that fails",
    );
    let status = stage.wait_stalled(&third, &bad);
    assert!(status["conditions"].to_string().contains("till.service"), "{status:#}");
    stage.runs(good);

    // Killed: systemd starts it again, and what runs is not touched.
    let (units, restarts) = (stage.starts(), stage.show(AGENT, "NRestarts"));
    stage.done(&["systemctl", "kill", "--signal=KILL", AGENT]);
    until("another start", Duration::from_secs(20), || (stage.show(AGENT, "NRestarts") != restarts).then_some(()));
    stage.wait_stalled(&third, &bad);
    assert_eq!(stage.starts(), units);

    // One that hangs is found by the watchdog.
    let restarts = stage.show(AGENT, "NRestarts");
    stage.done(&["systemctl", "kill", "--signal=STOP", AGENT]);
    until("the watchdog", Duration::from_secs(30), || (stage.show(AGENT, "NRestarts") != restarts).then_some(()));
    let log = stage.done(&["journalctl", "--no-pager", "--unit", AGENT]);
    assert!(log.contains("Watchdog timeout"), "{log}");
    stage.wait_stalled(&third, &bad);
    assert_eq!(stage.starts(), units);

    // The power fails while the repository is gone, and a file with it.
    stage.forge.down();
    stage
        .machine
        .power_cycle(|root| std::fs::remove_file(root.join("etc/till/till.conf")).expect("the file"))
        .expect("a boot");
    let status = stage.wait_stalled(&third, &bad);
    until("the file is back", Duration::from_secs(30), || {
        (stage.run(&["cat", "/run/till.seen"]).stdout == b"two\n").then_some(())
    });
    stage.runs(good);
    assert_eq!(status["lastGood"], *third);
    let status = stage.wait("the host is away", 30, |status| status["link"]["git"] == "down");
    assert_eq!(status["revision"], *third);

    // And it goes back further with no host.
    stage.done(&["/burgee/burgee-agent", "rollback"]);
    stage.wait_steady(&second);
    stage.runs(two);

    // The host is back: a newer commit goes through.
    let leader = stage.machine.leader().to_owned();
    stage.forge.move_to(&leader);
    stage.forge.up();
    let last = Shop { till: "last", shelf: "2", ..FIRST };
    let fourth = stage.change(last, "the last");
    stage.wait_steady(&fourth);
    stage.runs(last);
}

#[test]
fn a_revision_that_takes_the_machine_down_a_third_time_has_failed() {
    let mut stage = Stage::new();
    let first = stage.push(FIRST, "first");
    stage.done(&["systemctl", "enable", "--now", AGENT]);
    stage.wait_steady(&first);
    stage.forge.down();
    let leader = stage.machine.leader().to_owned();
    stage.forge.move_to(&leader);
    stage.forge.up();

    // It soaks for longer than the machine stays up.
    let bad = Shop { till: "bad", health: "{timeout: 60s, soak: 1h}", ..FIRST };
    let second = stage.change(bad, "takes it down");
    for boot in 0..3 {
        stage.wait(&format!("probing in boot {boot}"), 60, |it| {
            it["phase"] == "probing" && it["revision"] == second.as_str()
        });
        stage.machine.power_cycle(|_| {}).expect("a boot");
    }
    let status = stage.wait_stalled(&first, &second);
    assert_eq!(status["blocked"][0]["reason"], "TookDeviceDown", "{status:#}");
    stage.runs(FIRST);
}
