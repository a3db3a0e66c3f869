//! `./dev demo`: the whole story on this machine, by the real programs. Each
//! step is printed as it is seen to happen.

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use harness::device::{Device, Setup};
use harness::engine::{Engine, Kind};
use harness::hub::Hub;
use harness::net::{free_port, get, welcoming_port};
use harness::process::run;
use harness::repo::Repo;
use harness::wait::until;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

const USAGE: &str = "Usage: ./dev demo [--exit] [--engine docker]

The whole story on this machine: a hub with its broker, a fleet repository with
a fresh signing key, three devices. A good commit, a bad one that goes back by
itself, an unsigned one that is refused, a restart with everything offline.

  --exit            end when the story is told: 0 if every step held, else 1
  --engine docker   the devices run containers (needs root) instead of files
";
const SECRET: &str = "demo";
const NAMES: [&str; 3] = ["store-1", "store-2", "store-3"];

struct Demo {
    devices: Vec<Device>,
    hub: Hub,
    repo: Repo,
    bare: PathBuf,
    healthy: u16,
    engine: Option<Engine>,
    ports: Vec<u16>,
    folder: tempfile::TempDir,
    began: Instant,
    failed: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut exit = false;
    let mut docker = false;
    let mut words = arguments.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "--exit" => exit = true,
            "--engine" if words.next() == Some("docker") => docker = true,
            "-h" | "--help" => {
                say(USAGE);
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("{other}: not understood\nhint: ./dev demo --help");
                return ExitCode::from(2);
            }
        }
    }
    // A step that fails says so itself.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok(mut demo) = catch_unwind(|| Demo::set_up(docker)).map_err(|panic| complain(&*panic)) else {
        return ExitCode::FAILURE;
    };
    demo.tell();
    let failed = demo.failed;
    if exit {
        say(&format!("\n{}\n", if failed == 0 { "every step held" } else { "not every step held" }));
        return if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    say(&format!(
        "\nThe page:      {}\nThe fleet:     {} (commit there, then push to {})\nA device:      {}/burgee-agent --config {} status\n\nCtrl-C ends it all.\n",
        demo.hub.url(),
        demo.repo.path.display(),
        demo.bare.display(),
        harness::bins::bin("burgee-agent").parent().map(|it| it.display().to_string()).unwrap_or_default(),
        demo.devices[0].config().display()
    ));
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn complain(panic: &(dyn std::any::Any + Send)) {
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    say(&format!("  \u{2717} {text}\n"));
}

impl Demo {
    fn set_up(docker: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let secret = folder.path().join("hook");
        std::fs::write(&secret, SECRET).expect("the hook's secret");
        let hub = Hub::start(&format!("[webhook]\nplain_secret_file = {:?}\n", secret.display().to_string()));
        let repo = Repo::trusted(folder.path());
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        let bare = folder.path().join("fleet.git");
        run(Command::new("git").args(["init", "-q", "--bare", "-b", "main"]).arg(&bare));
        let engine = docker.then(|| {
            let engine = Engine::start(Kind::Docker, &[]);
            for tag in ["1", "2", "3"] {
                engine.image(&format!("localhost/kiosk:{tag}"), &[("www/index.html", &format!("kiosk {tag}\n"))]);
            }
            engine
        });
        let ports: Vec<u16> = NAMES.iter().map(|_| free_port()).collect();
        let more = engine
            .as_ref()
            .map_or(String::new(), |engine| format!("[runtime.compose]\nsocket = \"{}\"\n", engine.address()));
        let devices = NAMES.iter().map(|name| {
            let setup = Setup::new(name, &bare.display().to_string(), &repo.signer.line())
                .with(&more)
                .with(&format!("[hub]\nurl = \"{}\"\n", hub.url()));
            Device::new(folder.path(), &setup)
        });
        let devices = devices.collect();
        repo.write("groups/stores.yaml", "selector: {matchLabels: {role: test}}\napps: [kiosk]\n");
        let healthy = welcoming_port();
        let demo = Self { devices, hub, repo, bare, healthy, engine, ports, folder, began: Instant::now(), failed: 0 };
        for (name, port) in NAMES.iter().zip(&demo.ports) {
            demo.repo.write(&format!("devices/{name}.yaml"), &format!("vars: {{PORT: \"{port}\"}}\n"));
        }
        demo
    }

    /// Carries a step out and says what was seen.
    fn step(&mut self, what: &str, act: impl FnOnce(&mut Self)) {
        let start = Instant::now();
        match catch_unwind(AssertUnwindSafe(|| act(self))) {
            Ok(()) => say(&format!("  \u{2713} {what} ({:.1} s)\n", start.elapsed().as_secs_f32())),
            Err(panic) => {
                self.failed += 1;
                say(&format!("  \u{2717} {what}\n"));
                complain(&*panic);
            }
        }
    }

    /// The app at `tag`; a bad one's check asks where nothing answers.
    fn write(&self, tag: &str, good: bool) {
        let check = if good { self.healthy } else { 1 };
        let health = format!("health:\n  timeout: 3s\n  soak: 1s\n  checks:\n    - {{tcp: \"127.0.0.1:{check}\"}}\n");
        if self.engine.is_some() {
            self.repo.write("apps/kiosk/app.yaml", &format!("runtime: compose\n{health}"));
            self.repo.write(
                "apps/kiosk/compose.yaml",
                &format!(
                    "name: kiosk-${{BURGEE_DEVICE}}\nservices:\n  web:\n    image: localhost/kiosk:{tag}\n    pull_policy: never\n    command: [httpd, -f, -p, \"8080\", -h, /www]\n    stop_signal: SIGKILL\n    ports: [\"127.0.0.1:${{PORT}}:8080\"]\n"
                ),
            );
        } else {
            self.repo.write(
                "apps/kiosk/app.yaml",
                &format!("runtime: files\nfiles:\n  - {{from: etc/, to: /etc/kiosk/}}\n{health}"),
            );
            self.repo.write("apps/kiosk/files/etc/page.txt", &format!("kiosk {tag}\n"));
        }
    }

    fn page(&self, device: usize) -> String {
        if self.engine.is_some() {
            get(self.ports[device], "/index.html").map(|(_, body)| body).unwrap_or_default()
        } else {
            let path = self.devices[device].folder.join("root/etc/kiosk/page.txt");
            std::fs::read_to_string(path).unwrap_or_default()
        }
    }

    fn all_show(&self, text: &str) {
        for (index, name) in NAMES.iter().enumerate() {
            until(&format!("{name} to show {text:?}"), Duration::from_secs(30), || {
                (self.page(index) == text).then_some(())
            });
        }
    }

    /// Pushes, and tells the hub as a Git host's webhook would.
    fn push(&self) {
        self.repo.push(&self.bare.display().to_string(), true);
        let body = "{\"ref\":\"refs/heads/main\"}";
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key of any length");
        mac.update(body.as_bytes());
        let proof: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let answer = harness::net::post(self.hub.port(), "/hooks/plain", &[("X-Burgee-Signature", &proof)], body);
        assert!(answer.as_ref().is_some_and(|(status, _)| (200..300).contains(status)), "the hook: {answer:?}");
    }

    fn tell(&mut self) {
        say("burgee, the whole story on this machine\n\n");
        say(&format!("  hub and page: {}\n  files:        {}\n\n", self.hub.url(), self.folder.path().display()));
        self.joining();
        self.good_and_bad();
        self.offline();
        self.step("back online, a fix goes through everywhere", |demo| {
            demo.hub.up();
            demo.write("3", true);
            let fix = demo.repo.commit("a fix");
            demo.push();
            for device in &demo.devices {
                device.sync();
                device.wait_steady(&fix, 60);
            }
            demo.all_show("kiosk 3\n");
        });
        say(&format!("\n  told in {:.0} s\n", self.began.elapsed().as_secs_f32()));
    }

    fn joining(&mut self) {
        self.step("three devices join the hub, each with a key that it made itself", |demo| {
            for device in &demo.devices {
                let trust = device.folder.join("allowed_signers").display().to_string();
                let token = demo.hub.token(&["--uses", "1"]);
                let joined = device.call(&["enroll", "--hub", &demo.hub.url(), "--token", &token, "--trust", &trust]);
                assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
            }
        });
        self.step("a signed commit runs on all three", |demo| {
            demo.write("1", true);
            let first = demo.repo.commit("first");
            demo.repo.push(&demo.bare.display().to_string(), true);
            demo.devices.iter_mut().for_each(Device::start);
            for device in &demo.devices {
                device.wait_steady(&first, 60);
            }
            demo.all_show("kiosk 1\n");
        });
        self.step("the hub's page shows it", |demo| {
            for name in NAMES {
                until(&format!("{name} on the page"), Duration::from_secs(30), || {
                    demo.hub.get(&format!("/devices/{name}")).contains("kiosk").then_some(())
                });
            }
            for device in &demo.devices {
                device.wait("MQTT", 30, |status| status["link"]["mqtt"] == "up");
            }
        });
    }

    fn good_and_bad(&mut self) {
        let mut good = String::new();
        self.step("a push, a webhook, an MQTT hint: the change runs everywhere", |demo| {
            demo.write("2", true);
            good = demo.repo.commit("second");
            demo.push();
            demo.all_show("kiosk 2\n");
            for device in &demo.devices {
                device.wait_steady(&good, 30);
            }
        });
        let mut bad = String::new();
        self.step("a bad commit: each device goes back by itself and blocks it", |demo| {
            demo.write("3", false);
            bad = demo.repo.commit("bad");
            demo.push();
            for device in &demo.devices {
                device.wait_stalled(&good, &bad, 60);
            }
            demo.all_show("kiosk 2\n");
        });
        self.step("the hub says so, and does not call it a success", |demo| {
            until("the page to say it", Duration::from_secs(30), || {
                demo.hub.get("/devices/store-1").contains("Rolled back").then_some(())
            });
        });
        self.step("an unsigned commit is refused on every device", |demo| {
            demo.write("3", true);
            demo.repo.commit_unsigned("nobody signed this");
            demo.push();
            for device in &demo.devices {
                device.wait("refused", 30, |status| status["conditions"].to_string().contains("\"Verified\""));
            }
            demo.all_show("kiosk 2\n");
            demo.repo.git(&["reset", "-q", "--hard", &bad]);
            demo.push();
        });
    }

    fn offline(&mut self) {
        self.step("hub, broker and Git host gone, a restart: what ran still runs", |demo| {
            demo.hub.down();
            let away = demo.folder.path().join("away.git");
            std::fs::rename(&demo.bare, &away).expect("the Git host goes away");
            for device in &mut demo.devices {
                device.kill();
                device.start();
            }
            for device in &demo.devices {
                device.wait("back in its phase", 30, |status| status["phase"] == "stalled");
            }
            demo.all_show("kiosk 2\n");
        });
        self.step("drift is repaired, offline", |demo| {
            if let Some(engine) = &demo.engine {
                let names = engine.names();
                let (_, id, _) = names.first().expect("a container");
                engine.request("DELETE", &format!("/containers/{id}?force=true"), None);
            } else {
                std::fs::write(demo.devices[0].folder.join("root/etc/kiosk/page.txt"), "vandal").expect("drift");
            }
            demo.all_show("kiosk 2\n");
        });
        self.step("burgee-agent rollback, offline: the revision before", |demo| {
            let output = demo.devices[0].call(&["rollback"]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            until("store-1 to show the revision before", Duration::from_secs(30), || {
                (demo.page(0) == "kiosk 1\n").then_some(())
            });
            std::fs::rename(demo.folder.path().join("away.git"), &demo.bare).expect("the Git host is back");
        });
    }
}
