//! Three machines with the agent, a Git host, a broker and a hub, each behind a
//! link of its own. Each link is cut in the middle of an update and mended; all
//! come to the same revision; and the hub was told nothing that was not so: its
//! events are those of the devices' own histories, and all of them.
//!
//! Needs root, and some two minutes. `BURGEE_PROVE=1` cuts longer and more often.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::bins::bin;
use harness::forge::{self, Forge};
use harness::links::Network;
use harness::process::{Running, output, run};
use harness::repo::Repo;
use harness::systemd::{Machine, PLAIN};
use harness::wait::until;
use serde_json::Value;

const DEVICES: [&str; 3] = ["store-1", "store-2", "store-3"];
const HOSTS: [&str; 6] = ["git", "broker", "hub", "store-1", "store-2", "store-3"];
const WITHIN: Duration = Duration::from_secs(90);

const UNIT: &str = "[Unit]
Description=burgee agent

[Service]
Type=notify
ExecStart=/burgee/burgee-agent run
Restart=always
RestartSec=1
RuntimeDirectory=burgee
StateDirectory=burgee

[Install]
WantedBy=multi-user.target
";

/// Everything, on one bridge. Fields end in their order.
struct World {
    machines: Vec<Machine>,
    _hub: Running,
    _broker: Running,
    forge: Forge,
    repo: Repo,
    network: Network,
    folder: tempfile::TempDir,
}

/// How often what happened to which revision: (event, revision).
type Told = BTreeMap<(String, String), usize>;

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let network = Network::new(&HOSTS);
        let setup = forge::Setup {
            network_of: Some(network.process("git")),
            address: Some(network.address("git")),
            ..forge::Setup::default()
        };
        let forge = Forge::start_with(folder.path(), setup);
        let repo = Repo::new(folder.path());
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        repo.write("trust/allowed_signers", &repo.signer.line());
        repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [till]\n");
        let (broker, hub) = (broker(&network, folder.path()), hub(&network, folder.path()));
        let mut world = Self { machines: Vec::new(), _hub: hub, _broker: broker, forge, repo, network, folder };
        for name in DEVICES {
            world.boot(name);
        }
        world
    }

    fn boot(&mut self, name: &str) {
        let agent = bin("burgee-agent");
        let binds = [(agent.parent().expect("a folder"), "/burgee")];
        let machine = Machine::boot_linked(PLAIN, &binds, &self.network.path(name)).expect("a machine");
        let hub = format!("http://{}:8710", self.network.address("hub"));
        let settings = format!(
            "[device]\nname = \"{name}\"\nlabels = {{ role = \"test\" }}\n\
             [source]\nurl = \"{}\"\npoll_secs = 2\npoll_connected_secs = 2\n\
             [runtime.files]\nallow = [\"/etc/till\"]\n[hub]\nurl = \"{hub}\"\n[mqtt]\nurl = \"mqtt://{}:1883\"\n",
            self.forge.url(),
            self.network.address("broker")
        );
        for (path, text) in [
            ("etc/burgee/agent.toml", settings.as_str()),
            ("etc/burgee/allowed_signers", &self.repo.signer.line()),
            ("etc/systemd/system/burgee-agent.service", UNIT),
        ] {
            let path = machine.root().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        self.machines.push(machine);
        let token = self.hub(&["token", "create", "--uses", "1"]);
        let enroll = ["enroll", "--hub", &hub, "--insecure-http", "--token", token.trim()];
        let done = self.agent(name, &enroll);
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let started = self.machine(name).run(["systemctl", "enable", "--now", "burgee-agent.service"]).expect("runs");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }

    fn machine(&self, name: &str) -> &Machine {
        &self.machines[DEVICES.iter().position(|known| *known == name).expect("a device")]
    }

    fn agent(&self, name: &str, arguments: &[&str]) -> std::process::Output {
        self.machine(name).run([&["/burgee/burgee-agent"], arguments].concat()).expect("runs")
    }

    fn status(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&self.agent(name, &["status", "-o", "json"]).stdout).ok()
    }

    fn hub(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(bin("burgee-hub"));
        run(command.arg("--config").arg(self.folder.path().join("hub.toml")).args(arguments))
    }

    /// What the hub shows of a device: sync, health, short revision.
    fn shown(&self, name: &str) -> [String; 3] {
        let listed = self.hub(&["device", "list"]);
        let row = listed.lines().find(|line| line.split_whitespace().next() == Some(name));
        let words: Vec<&str> = row.unwrap_or_else(|| panic!("no {name}: {listed}")).split_whitespace().collect();
        [words[2], words[3], words[words.len() - 1]].map(str::to_owned)
    }

    /// What the hub was told of a device: (event, revision).
    fn told(&self, name: &str) -> Told {
        let read = "import sqlite3,sys,json\n\
            rows=sqlite3.connect('file:'+sys.argv[1]+'?mode=ro',uri=True).execute(\"select body from reports where device=? and kind='event'\",(sys.argv[2],))\n\
            print(json.dumps([json.loads(row[0])['event'] for row in rows]))";
        let database = self.folder.path().join("hub/hub.db");
        let printed = run(Command::new("python3").args(["-c", read]).arg(database).arg(name));
        let events: Vec<Value> = serde_json::from_str(&printed).expect("JSON");
        pairs(&events)
    }

    /// The device's own history, of what it also says.
    fn history(&self, name: &str) -> Told {
        let printed = self.agent(name, &["history", "-o", "json"]).stdout;
        let entries: Vec<Value> = serde_json::from_slice(&printed).expect("JSON");
        pairs(&entries).into_iter().filter(|((event, _), _)| event != "applied").collect()
    }

    /// Signs and pushes content that is healthy, or is not.
    fn push(&self, text: &str, good: bool) -> String {
        let port = if good { 22 } else { 1 };
        self.repo.write("apps/till/files/text", &format!("{text}\n"));
        self.repo.write(
            "apps/till/app.yaml",
            &format!(
                "runtime: files\nfiles:\n  - {{from: text, to: /etc/till/}}\nhealth:\n  timeout: 4s\n  soak: 3s\n  \
                 checks:\n    - {{tcp: \"127.0.0.1:{port}\"}}\n"
            ),
        );
        let id = self.repo.commit(text);
        self.repo.push(&self.forge.bare().display().to_string(), true);
        id
    }

    fn is_at(&self, name: &str, revision: &str) -> bool {
        self.status(name).is_some_and(|status| status["phase"] == "steady" && status["revision"] == revision)
    }

    /// Waits until the device `of`, or any where that is none's name, is in
    /// the middle of `revision`.
    #[track_caller]
    fn midst(&self, of: &str, revision: &str) {
        until("an update is under way", WITHIN, || {
            DEVICES
                .iter()
                .filter(|name| **name == of || !DEVICES.contains(&of))
                .any(|name| {
                    self.status(name).is_some_and(|status| {
                        status["revision"] == revision
                            && (status["phase"] == "probing" || status["phase"] == "applying")
                    })
                })
                .then_some(())
        });
    }

    /// Devices are at `revision`, and the hub knows all that they know, and no more.
    #[track_caller]
    fn converges(&self, what: &str, revision: &str) {
        let start = Instant::now();
        for name in DEVICES {
            until(&format!("{what}: {name} to be at {revision}"), WITHIN, || self.is_at(name, revision).then_some(()));
        }
        let there = start.elapsed();
        self.agrees(what);
        let well = ["synced", "healthy", &revision[..12]];
        for name in DEVICES {
            until(&format!("{what}: the hub to show {name} as it is"), WITHIN, || {
                (self.shown(name) == well).then_some(())
            });
        }
        println!(
            "{what}: devices after {:.1} s, hub after {:.1} s",
            there.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
    }

    #[track_caller]
    fn agrees(&self, what: &str) {
        for name in DEVICES {
            let start = Instant::now();
            loop {
                let (told, own) = (self.told(name), self.history(name));
                let made_up = beyond(&told, &own);
                assert!(made_up.is_empty(), "{what}: the hub was told of {name} what was not so: {made_up:?}");
                if told == own {
                    break;
                }
                let missing = beyond(&own, &told);
                assert!(start.elapsed() < WITHIN, "{what}: the hub was not told of {name}: {missing:?}");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
}

/// (event, revision) of what is about a revision.
fn pairs(events: &[Value]) -> Told {
    let pair = |event: &Value| Some((event["event"].as_str()?.to_owned(), event["revision"].as_str()?.to_owned()));
    let mut pairs = Told::new();
    for pair in events.iter().filter_map(pair) {
        *pairs.entry(pair).or_default() += 1;
    }
    pairs
}

/// What is in one, and not or less often in the other.
fn beyond<'a>(one: &'a Told, other: &Told) -> Vec<&'a (String, String)> {
    one.iter()
        .filter(|(pair, count)| other.get(*pair).is_none_or(|known| known < *count))
        .map(|(pair, _)| pair)
        .collect()
}

fn broker(network: &Network, folder: &std::path::Path) -> Running {
    let (config, log) = (folder.join("mosquitto.conf"), folder.join("mosquitto.log"));
    let address = network.address("broker");
    let text = format!("listener 1883 {address}\nallow_anonymous true\npersistence false\nuser root\n");
    std::fs::write(&config, text).expect("mosquitto.conf");
    let broker = Running::start(network.command("broker", "mosquitto").arg("-c").arg(config), &log);
    until("mosquitto answers", WITHIN, || std::net::TcpStream::connect((address.as_str(), 1883)).ok());
    broker
}

fn hub(network: &Network, folder: &std::path::Path) -> Running {
    let address = network.address("hub");
    let password: PathBuf = folder.join("password");
    std::fs::write(&password, "let me see\n").expect("a password");
    run(Command::new("chmod").arg("600").arg(&password));
    let text = format!(
        "data = \"{0}/hub\"\nfleet = \"retail\"\nlisten = \"{address}:8710\"\nplain = true\n\
         [page]\npassword_file = \"{0}/password\"\n[mqtt]\nurl = \"mqtt://{1}:1883\"\n",
        folder.display(),
        network.address("broker")
    );
    std::fs::write(folder.join("hub.toml"), text).expect("hub.toml");
    let mut command = network.command("hub", &bin("burgee-hub").display().to_string());
    let hub =
        Running::start(command.arg("--config").arg(folder.join("hub.toml")).arg("serve"), &folder.join("hub.log"));
    let ready = format!("http://{address}:8710/readyz");
    until("the hub is ready", WITHIN, || {
        output(Command::new("curl").args(["-sf", "-u", "admin:let me see", &ready])).status.success().then_some(())
    });
    hub
}

#[test]
fn each_link_is_cut_in_the_middle_of_an_update() {
    let world = World::new();
    // A port that answers, for the health check; each machine has its own loopback.
    for machine in &world.machines {
        let listen = "systemd-socket-activate -l 127.0.0.1:22 --accept /bin/true >/dev/null 2>&1 &";
        machine.run(["sh", "-c", &format!("setsid {listen}")]).expect("runs");
    }
    let first = world.push("first", true);
    world.converges("all links up", &first);

    let prove = std::env::var_os("BURGEE_PROVE").is_some();
    let (rounds, cut) = if prove { (3, 30) } else { (1, 5) };
    for round in 0..rounds {
        for host in HOSTS {
            let what = format!("{host} cut, round {round}");
            let revision = world.push(&what, true);
            world.midst(host, &revision);
            world.network.cut(host);
            // Past the soak: the rest of the update is done in the dark.
            std::thread::sleep(Duration::from_secs(cut));
            world.network.heal(host);
            world.converges(&what, &revision);
        }
    }

    // One that fails while the hub is away: told late, and as what it was.
    let last = world.repo.head();
    let bad = world.push("bad", false);
    world.midst("hub", &bad);
    world.network.cut("hub");
    for name in DEVICES {
        until(&format!("{name} to go back"), WITHIN, || {
            world
                .status(name)
                .is_some_and(|status| status["phase"] == "stalled" && status["revision"] == last.as_str())
                .then_some(())
        });
    }
    world.network.heal("hub");
    world.agrees("a revision that fails in the dark");
    for name in DEVICES {
        let told = world.told(name);
        assert!(told.contains_key(&("rolled-back".to_owned(), last.clone())), "{name}: {told:?}");
        assert!(!told.contains_key(&("steady".to_owned(), bad.clone())), "{name}: {told:?}");
        // It runs last good, and that is not called in sync.
        until(&format!("the hub to show {name} as it is"), WITHIN, || {
            let shown = world.shown(name);
            assert_ne!(shown, ["synced", "healthy", &bad[..12]], "{name}: what failed is shown as well");
            (shown == ["rolled-back", "healthy", &last[..12]]).then_some(())
        });
    }
    let fixed = world.push("fixed", true);
    world.converges("a newer commit", &fixed);
    the_doctor_comes(&world);
}

/// `doctor` on a machine as a user has it: systemd, its journal, real links.
fn the_doctor_comes(world: &World) {
    let lines = |code: i32| {
        let output = world.agent("store-1", &["doctor", "-o", "json"]);
        let lines: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(output.status.code(), Some(code), "{lines:#?}");
        move |part: &str| {
            let line = lines.iter().find(|line| line["part"] == part);
            line.unwrap_or_else(|| panic!("no {part}: {lines:#?}"))["result"].as_str().expect("text").to_owned()
        }
    };
    let of = lines(0);
    for part in ["clock", "disk", "store", "trust", "agent", "last good", "git", "head", "hub", "enrolment", "mqtt"] {
        assert_eq!(of(part), "ok", "{part}");
    }
    let bundled = world.agent("store-1", &["doctor", "--bundle", "/tmp/bundle.tar"]);
    assert!(bundled.status.success(), "{}", String::from_utf8_lossy(&bundled.stderr));
    let mut tar = Command::new("nsenter");
    tar.args(["--mount", "--target", world.machine("store-1").leader(), "--"]);
    let log = run(tar.args(["tar", "-xOf", "/tmp/bundle.tar", "--wildcards", "*/log.txt"]));
    assert!(log.contains("revision accepted"), "the agent's own log is in it: {log}");
    // The network is gone: said for each part, by a code of its own.
    world.network.cut("store-1");
    let of = lines(5);
    assert_eq!(
        (of("git"), of("hub"), of("mqtt"), of("last good")),
        ("fail".into(), "fail".into(), "fail".into(), "ok".into())
    );
    world.network.heal("store-1");
}
