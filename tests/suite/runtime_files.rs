//! The files runtime and the unit checks on a real, booted systemd.
//!
//! The test boots a Debian machine and runs this same binary in it; the
//! scenarios in `inside` are what runs there. Debian 12's Podman has no quadlet
//! (it came with 4.4), so a generator that turns `X.container` into `X.service`
//! takes its place: the way is the same, a file that only `daemon-reload` makes
//! a unit of.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::config::settings::FilesSettings;
use agent::ports::runtime::{Inventory, Pins, Plan, Runtime as _, RuntimeError, Task, Verdict};
use agent::runtime::files::{Act, FilesRuntime};
use fleet::desired::{
    AppSpec, Blobs, DesiredApp, DesiredFile, DriftMode, DriftPolicy, FilesSpec, HealthPolicy, Limit, OnFailure,
    PrunePolicy,
};
use fleet::digest::Digest;
use fleet::name::{AppName, FleetName};
use fleet::revision::CommitId;
use fleet::wire::status::Health;
use harness::disk::Disk;
use harness::systemd::Machine;

/// Set where this binary runs in the machine.
const INSIDE: &str = "BURGEE_SUITE_INSIDE";

#[test]
fn on_a_booted_systemd() {
    if std::env::var_os(INSIDE).is_some() {
        return inside::all();
    }
    let binary = std::env::current_exe().unwrap();
    let machine = Machine::boot(&[(binary.parent().unwrap(), "/suite")]).unwrap();
    let inside = Path::new("/suite").join(binary.file_name().unwrap());
    let mark = format!("{INSIDE}=1");
    let command = ["env", &mark, inside.to_str().unwrap(), "--exact", "on_a_booted_systemd", "--nocapture"];
    let ran = machine.run(command).unwrap();
    println!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "failed inside the machine");
}

#[tokio::test]
async fn a_power_cut_leaves_the_old_file_or_the_new_one_whole() {
    let mut disk = Disk::new().unwrap();
    // The proof that such a cut loses what is not synced.
    std::fs::write(disk.path().join("unsynced"), "x").unwrap();
    disk.cut().unwrap();
    assert!(!disk.path().join("unsynced").exists(), "the cut loses nothing, so it proves nothing");

    std::fs::create_dir_all(disk.path().join("etc")).unwrap();
    rustix::fs::syncfs(std::fs::File::open(disk.path()).unwrap()).unwrap();
    let mount = disk.path();
    let on_disk = || {
        let settings = FilesSettings { root: mount.clone(), allow: vec!["/etc/app".into()] };
        FilesRuntime::new(&settings, &"device".parse().unwrap(), &mount.join("store")).unwrap()
    };
    let path = "/etc/app/deep/file";
    let text = |round: usize| format!("{round:04}").repeat(5000);
    let mut app = App::new("power");
    for round in 0..18 {
        let wanted = want("power", &[(path, &text(round))], &[]);
        let before = std::fs::read_to_string(disk.path().join(&path[1..])).ok();
        let ended = if round % 3 == 0 {
            // What a step returned from is there, whatever comes.
            app.apply(&on_disk(), Some(&wanted)).await.unwrap();
            disk.cut().unwrap();
            true
        } else {
            // Somewhere in between: one write takes a few milliseconds.
            let mut cutter = disk.cut_in(Duration::from_micros(500 * round as u64)).unwrap();
            let ended = app.apply(&on_disk(), Some(&wanted)).await.is_ok();
            cutter.wait().unwrap();
            disk.cut().unwrap();
            ended
        };
        let after = std::fs::read_to_string(disk.path().join(&path[1..])).ok();
        let new = after.as_deref() == Some(&text(round));
        assert!(new || (!ended && after == before), "round {round}, ended {ended}: {after:?}");
    }
    app.apply(&on_disk(), Some(&want("power", &[(path, "end")], &[]))).await.unwrap();
    app.apply(&on_disk(), None).await.unwrap();
    assert!(!disk.path().join("etc/app").exists());
}

/// One app of one device, and what the journal would hold of it.
struct App {
    fleet: FleetName,
    name: AppName,
    revision: CommitId,
    inventory: Inventory,
    pins: Pins,
}

#[derive(Clone)]
struct Want {
    app: DesiredApp,
    blobs: Blobs,
}

fn want(name: &str, files: &[(&str, &str)], units: &[&str]) -> Want {
    let blobs = files.iter().map(|(_, text)| (Digest::of(text.as_bytes()), Arc::from(text.as_bytes()))).collect();
    let file = |text: &str| DesiredFile {
        content: Digest::of(text.as_bytes()),
        mode: 0o644,
        owner: Some("root:root".to_owned()),
    };
    let files: BTreeMap<_, _> = files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect();
    let units = units.iter().map(|unit| (*unit).to_owned()).collect();
    let app = DesiredApp {
        name: name.parse().unwrap(),
        depends_on: Vec::new(),
        spec: AppSpec::Files(FilesSpec { files, units }),
        health: HealthPolicy { timeout_ms: 1, soak_ms: 0, checks: Vec::new() },
        drift: DriftPolicy { mode: DriftMode::Correct, ignore: Vec::new() },
        prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: Vec::new() },
        on_failure: OnFailure::Rollback,
        digest: Digest::of(b""),
    };
    Want { app, blobs }
}

impl App {
    fn new(name: &str) -> Self {
        Self {
            fleet: "retail".parse().unwrap(),
            name: name.parse().unwrap(),
            revision: "0".repeat(40).parse().unwrap(),
            inventory: Inventory::new(),
            pins: Pins::new(),
        }
    }

    fn task<'a>(&'a self, want: Option<&'a Want>, none: &'a Blobs) -> Task<'a> {
        Task {
            fleet: &self.fleet,
            app: &self.name,
            revision: &self.revision,
            want: want.map(|want| &want.app),
            had: None,
            inventory: &self.inventory,
            pins: &self.pins,
            blobs: want.map_or(none, |want| &want.blobs),
            beside: &[],
            back: false,
            borrowed: &agent::ports::runtime::NOTHING,
        }
    }

    async fn plan(&self, runtime: &FilesRuntime, want: Option<&Want>) -> Result<Plan<Act>, RuntimeError> {
        runtime.plan(self.task(want, &Blobs::new())).await
    }

    async fn first(
        &mut self,
        runtime: &FilesRuntime,
        want: Option<&Want>,
        count: usize,
    ) -> Result<Vec<String>, RuntimeError> {
        let plan = self.plan(runtime, want).await?;
        self.inventory.extend(plan.inventory.clone());
        let mut told = Vec::new();
        for step in plan.steps.iter().take(count) {
            runtime.execute(self.task(want, &Blobs::new()), step).await?;
            told.push(format!("{:?} {}", step.verb, step.object).to_lowercase());
        }
        if told.len() == plan.steps.len() {
            self.inventory = plan.inventory;
        }
        Ok(told)
    }

    /// Plans and carries out, as the daemon does; what was done.
    async fn apply(&mut self, runtime: &FilesRuntime, want: Option<&Want>) -> Result<Vec<String>, RuntimeError> {
        let told = self.first(runtime, want, usize::MAX).await?;
        let again = self.plan(runtime, want).await?;
        assert!(again.steps.is_empty(), "a second plan has nothing to do: {:?}", again.steps);
        Ok(told)
    }

    async fn verdict(&self, runtime: &FilesRuntime, want: &Want) -> Verdict {
        runtime.health(self.task(Some(want), &Blobs::new())).await.unwrap()
    }

    async fn until(&self, runtime: &FilesRuntime, want: &Want, health: Health) -> Verdict {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let verdict = self.verdict(runtime, want).await;
            if verdict.health == health {
                return verdict;
            }
            assert!(Instant::now() < deadline, "{verdict:?} did not become {health:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Runs in the machine, as root, on its own `/`.
mod inside {
    use std::path::Path;
    use std::pin::Pin;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use agent::config::settings::{FilesSettings, HealthSettings};
    use agent::health::Probes;
    use agent::ports::Reason as _;
    use agent::ports::prober::Prober as _;
    use agent::ports::runtime::{Runtime as _, RuntimeError, Verb};
    use agent::runtime::files::FilesRuntime;
    use fleet::desired::{Blobs, Check};
    use fleet::wire::status::Health;

    use super::{App, Want, want};

    const STORE: &str = "/var/lib/burgee-suite";

    fn runtime() -> FilesRuntime {
        let allow = ["/etc/burgee-suite", "/etc/systemd/system", "/etc/containers/systemd"].map(Into::into).to_vec();
        let settings = FilesSettings { root: "/".into(), allow };
        FilesRuntime::new(&settings, &"device".parse().unwrap(), Path::new(STORE)).unwrap()
    }

    type Scenario = (&'static str, Pin<Box<dyn Future<Output = ()>>>);

    /// Every scenario, one after the other, on one machine.
    pub(super) fn all() {
        let scenarios: Vec<Scenario> = vec![
            (
                "a_service_comes_changes_alone_goes_back_and_leaves",
                Box::pin(a_service_comes_changes_alone_goes_back_and_leaves()),
            ),
            ("a_quadlet_comes_changes_and_goes_back", Box::pin(a_quadlet_comes_changes_and_goes_back())),
            (
                "a_unit_that_fails_says_why_and_last_good_comes_back",
                Box::pin(a_unit_that_fails_says_why_and_last_good_comes_back()),
            ),
            (
                "a_cut_after_any_step_ends_with_what_is_on_disk_running",
                Box::pin(a_cut_after_any_step_ends_with_what_is_on_disk_running()),
            ),
            ("drift_of_units_wakes_and_is_repaired", Box::pin(drift_of_units_wakes_and_is_repaired())),
            ("verdicts_are_those_of_systemd", Box::pin(verdicts_are_those_of_systemd())),
            ("sockets_restart_with_their_services", Box::pin(sockets_restart_with_their_services())),
            ("a_bus_that_goes_away_is_said_and_found_again", Box::pin(a_bus_that_goes_away_is_said_and_found_again())),
            (
                "a_full_or_read_only_disk_is_said_and_the_old_content_stays",
                Box::pin(a_full_or_read_only_disk_is_said_and_the_old_content_stays()),
            ),
        ];
        for (name, scenario) in scenarios {
            // Each has a runtime of its own, as each process of the agent has.
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scenario);
            println!("inside: {name} ... ok");
        }
    }

    fn systemctl(arguments: &[&str]) -> String {
        let output = Command::new("systemctl").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Another one after each start.
    fn invocation(unit: &str) -> String {
        systemctl(&["show", "--value", "--property=InvocationID", unit])
    }

    fn read(path: &str) -> String {
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    fn wait_for(what: &str, is: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A service that shows in `/run/NAME.seen` with which settings it was started.
    fn service(name: &str, note: &str) -> String {
        format!(
            "# {note}\n[Service]\nExecStart=/bin/sh -c 'cat /etc/burgee-suite/{name}.conf > /run/{name}.seen; \
             exec sleep infinity'\n[Install]\nWantedBy=multi-user.target\n"
        )
    }

    fn with_service(name: &str, conf: &str, note: &str) -> Want {
        let (unit, file) = (format!("{name}.service"), format!("/etc/systemd/system/{name}.service"));
        want(name, &[(&format!("/etc/burgee-suite/{name}.conf"), conf), (&file, &service(name, note))], &[&unit])
    }

    async fn a_service_comes_changes_alone_goes_back_and_leaves() {
        let runtime = runtime();
        let (mut base, mut other) = (App::new("base"), App::new("other"));
        let one = with_service("base", "one", "1");
        let beside = with_service("other", "beside", "1");
        let told = base.apply(&runtime, Some(&one)).await.unwrap();
        assert_eq!(
            told,
            [
                "create file//etc/burgee-suite/base.conf",
                "create file//etc/systemd/system/base.service",
                "create unit/base.service",
                "update systemd/manager",
                "start unit/base.service"
            ]
        );
        other.apply(&runtime, Some(&beside)).await.unwrap();
        base.until(&runtime, &one, Health::Healthy).await;
        assert_eq!(systemctl(&["is-enabled", "base.service"]), "enabled");
        wait_for("base.service wrote what it saw", || Path::new("/run/base.seen").exists());

        // Settings alone: a restart of its own unit, no reload, nobody else.
        let (before, others) = (invocation("base.service"), invocation("other.service"));
        let settings = with_service("base", "two", "1");
        let told = base.apply(&runtime, Some(&settings)).await.unwrap();
        assert_eq!(told, ["update file//etc/burgee-suite/base.conf", "restart unit/base.service"]);
        wait_for("two is seen", || read("/run/base.seen") == "two");
        assert_ne!(invocation("base.service"), before);

        // The unit file, too: systemd runs the new one.
        let two = with_service("base", "two", "2");
        base.apply(&runtime, Some(&two)).await.unwrap();
        assert_eq!(systemctl(&["show", "--value", "--property=NeedDaemonReload", "base.service"]), "no");
        assert!(systemctl(&["cat", "base.service"]).contains("# 2"));

        // Back: former bytes, and what runs has seen them.
        base.apply(&runtime, Some(&one)).await.unwrap();
        wait_for("one is seen", || read("/run/base.seen") == "one");
        assert_eq!(std::fs::read_to_string("/etc/systemd/system/base.service").unwrap(), service("base", "1"));
        assert_eq!(invocation("other.service"), others, "the other app was not touched");

        // Gone without a trace, the other still there.
        base.apply(&runtime, None).await.unwrap();
        assert!(base.inventory.is_empty());
        assert_eq!(systemctl(&["show", "--value", "--property=LoadState", "base.service"]), "not-found");
        assert!(!Path::new("/etc/systemd/system/multi-user.target.wants/base.service").is_symlink());
        assert!(!Path::new(STORE).join("files/base.json").exists());
        assert_eq!(invocation("other.service"), others);
        other.apply(&runtime, None).await.unwrap();
        assert!(!Path::new("/etc/burgee-suite").exists());
    }

    const GENERATOR: &str = "#!/bin/sh\n\
        for file in /etc/containers/systemd/*.container; do\n\
            [ -e \"$file\" ] || continue\n\
            name=$(basename \"$file\" .container)\n\
            { echo '[Unit]'; echo \"SourcePath=$file\"; echo '[Service]'; sed -n 's/^Exec=/ExecStart=/p' \"$file\"; } > \"$1/$name.service\"\n\
        done\n";

    async fn a_quadlet_comes_changes_and_goes_back() {
        use std::os::unix::fs::PermissionsExt;
        let generator = Path::new("/etc/systemd/system-generators/suite-quadlet");
        std::fs::create_dir_all(generator.parent().unwrap()).unwrap();
        std::fs::write(generator, GENERATOR).unwrap();
        std::fs::set_permissions(generator, PermissionsExt::from_mode(0o755)).unwrap();

        let runtime = runtime();
        let mut web = App::new("web");
        let quadlet = |seconds: &str| {
            let text = format!("[Container]\nImage=example.com/web\nExec=/bin/sleep {seconds}\n");
            want("web", &[("/etc/containers/systemd/web.container", &text)], &["web.service"])
        };
        let told = web.apply(&runtime, Some(&quadlet("1001"))).await.unwrap();
        let created =
            ["create file//etc/containers/systemd/web.container", "update systemd/manager", "start unit/web.service"];
        assert_eq!(told, created);
        assert_eq!(systemctl(&["is-enabled", "web.service"]), "generated");
        web.until(&runtime, &quadlet("1001"), Health::Healthy).await;
        let command = || systemctl(&["show", "--value", "--property=ExecStart", "web.service"]);
        assert!(command().contains("sleep 1001"));
        let told = web.apply(&runtime, Some(&quadlet("1002"))).await.unwrap();
        assert_eq!(told[1..], ["update systemd/manager", "restart unit/web.service"]);
        assert!(command().contains("sleep 1002"));
        web.apply(&runtime, Some(&quadlet("1001"))).await.unwrap();
        assert!(command().contains("sleep 1001"));
        assert_eq!(systemctl(&["is-active", "web.service"]), "active");
        web.apply(&runtime, None).await.unwrap();
        assert_eq!(systemctl(&["show", "--value", "--property=LoadState", "web.service"]), "not-found");
        std::fs::remove_file(generator).unwrap();
    }

    async fn a_unit_that_fails_says_why_and_last_good_comes_back() {
        let mut base = App::new("fails");
        let runtime = runtime();
        let good = with_service("fails", "good", "1");
        base.apply(&runtime, Some(&good)).await.unwrap();
        let unit = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo no such till >&2; exit 7'\n";
        let bad = want("fails", &[("/etc/systemd/system/fails.service", unit)], &["fails.service"]);
        let error = base.apply(&runtime, Some(&bad)).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), ("StepFailed", false));
        assert_eq!(error.to_string(), "cannot restart unit/fails.service");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(source, "the job ended as \"failed\": failed (exit-code, status 7)");
        assert_eq!(error.hint().unwrap(), "see `journalctl -u fails.service`");
        let verdict = base.verdict(&runtime, &bad).await;
        assert_eq!(verdict.health, Health::Degraded);
        assert!(verdict.message.contains("failed (exit-code, status 7)"), "{verdict:?}");
        // Its words, from the journal.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let log = runtime.logs(base.task(Some(&bad), &Blobs::new()), 50).await.unwrap();
            if log.iter().any(|line| line.contains("no such till")) {
                break;
            }
            assert!(Instant::now() < deadline, "{log:?}");
        }
        base.apply(&runtime, Some(&good)).await.unwrap();
        base.until(&runtime, &good, Health::Healthy).await;
        assert_eq!(read("/etc/burgee-suite/fails.conf"), "good");

        // No such unit at all.
        let none = want("none", &[], &["burgee-no-such.service"]);
        let error = App::new("none").apply(&runtime, Some(&none)).await.unwrap_err();
        assert_eq!(error.to_string(), "cannot start unit/burgee-no-such.service");
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("not found"), "{error:?}");
        base.apply(&runtime, None).await.unwrap();
    }

    async fn a_cut_after_any_step_ends_with_what_is_on_disk_running() {
        let one = with_service("cut", "one", "1");
        let two = with_service("cut", "two", "2");
        for cut in 0..5 {
            let mut app = App::new("cut");
            app.apply(&runtime(), Some(&one)).await.unwrap();
            let done = app.first(&runtime(), Some(&two), cut).await.unwrap();
            assert_eq!(done.len(), cut);
            // A new process, which knows the journal and the disk alone.
            let runtime = runtime();
            app.apply(&runtime, Some(&two)).await.unwrap();
            wait_for("two is seen", || std::fs::read_to_string("/run/cut.seen").unwrap_or_default().trim() == "two");
            assert!(systemctl(&["cat", "cut.service"]).contains("# 2"), "after {cut}");
            assert_eq!(systemctl(&["show", "--value", "--property=NeedDaemonReload", "cut.service"]), "no");
            app.apply(&runtime, None).await.unwrap();
        }
    }

    async fn drift_of_units_wakes_and_is_repaired() {
        let runtime = runtime();
        let mut app = App::new("drift");
        let good = with_service("drift", "good", "1");
        app.apply(&runtime, Some(&good)).await.unwrap();
        let quiet = || tokio::time::timeout(Duration::from_millis(800), runtime.changed());
        while quiet().await.is_ok() {}
        systemctl(&["stop", "drift.service"]);
        tokio::time::timeout(Duration::from_secs(5), runtime.changed()).await.unwrap();
        assert_eq!(app.verdict(&runtime, &good).await.health, Health::Degraded);
        assert_eq!(app.apply(&runtime, Some(&good)).await.unwrap(), ["start unit/drift.service"]);
        systemctl(&["disable", "drift.service"]);
        let told = app.apply(&runtime, Some(&good)).await.unwrap();
        assert_eq!(told, ["create unit/drift.service", "update systemd/manager"]);
        assert_eq!(systemctl(&["is-enabled", "drift.service"]), "enabled");
        // A file that is put right restarts what may have read it.
        let before = invocation("drift.service");
        std::fs::write("/etc/burgee-suite/drift.conf", "wrong").unwrap();
        tokio::time::timeout(Duration::from_secs(5), runtime.changed()).await.unwrap();
        let told = app.apply(&runtime, Some(&good)).await.unwrap();
        assert_eq!(told, ["update file//etc/burgee-suite/drift.conf", "restart unit/drift.service"]);
        assert_ne!(invocation("drift.service"), before);
        // The unit file and its folder's links gone by hand, the process still there.
        std::fs::remove_file("/etc/systemd/system/drift.service").unwrap();
        app.apply(&runtime, Some(&good)).await.unwrap();
        app.until(&runtime, &good, Health::Healthy).await;
        systemctl(&["stop", "drift.service"]);
        systemctl(&["mask", "--runtime", "drift.service"]);
        app.apply(&runtime, None).await.unwrap();
        systemctl(&["unmask", "--runtime", "drift.service"]);
    }

    async fn verdicts_are_those_of_systemd() {
        let runtime = runtime();
        let probes = Probes::new(&HealthSettings { exec: Vec::new() });
        let cases = [
            ("once", "[Service]\nType=oneshot\nExecStart=/bin/true\n", Health::Healthy, ""),
            ("stays", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n", Health::Healthy, ""),
            ("ends", "[Service]\nExecStart=/bin/true\n", Health::Degraded, "inactive (dead)"),
            (
                "loops",
                "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=600\n",
                Health::Degraded,
                "keeps stopping",
            ),
            (
                "unmet",
                "[Unit]\nConditionPathExists=/no/such\n[Service]\nExecStart=/bin/sleep infinity\n",
                Health::Degraded,
                "condition",
            ),
            (
                "slow",
                "[Service]\nType=notify\nTimeoutStartSec=3\nExecStart=/bin/sleep infinity\n",
                Health::Degraded,
                "timeout",
            ),
        ];
        for (name, text, health, part) in cases {
            let unit = format!("{name}.service");
            let wanted = want(name, &[(&format!("/etc/systemd/system/{unit}"), text)], &[&unit]);
            let mut app = App::new(name);
            // Starting may fail by itself, which the step says.
            let _ = app.first(&runtime, Some(&wanted), usize::MAX).await;
            let verdict = app.until(&runtime, &wanted, health).await;
            assert!(verdict.message.contains(part), "{name}: {verdict:?}");
            let probed = probes.probe(&Check::Unit(unit)).await;
            // A check stands outside: a oneshot that systemd forgot is not active to it.
            assert!(probed == verdict || name == "once", "{name}: {probed:?}");
            // So does a new process: what is done is not done again.
            let runtime = if name == "unmet" { &runtime } else { &self::runtime() };
            if health == Health::Healthy || name == "unmet" {
                assert!(app.plan(runtime, Some(&wanted)).await.unwrap().steps.is_empty(), "{name} is done");
            }
            app.apply(runtime, None).await.unwrap();
        }
        let none = probes.probe(&Check::Unit("burgee-no-such.service".to_owned())).await;
        assert_eq!(none.health, Health::Missing);
    }

    async fn sockets_restart_with_their_services() {
        let runtime = runtime();
        let mut app = App::new("echo");
        let socket = |note: &str| {
            format!("# {note}\n[Socket]\nListenStream=/run/echo.sock\n[Install]\nWantedBy=sockets.target\n")
        };
        let service = "[Service]\nExecStart=/bin/sleep infinity\n";
        let wanted = |note: &str| {
            let files: [(&str, &str); 2] =
                [("/etc/systemd/system/echo.socket", &socket(note)), ("/etc/systemd/system/echo.service", service)];
            want("echo", &files, &["echo.service", "echo.socket"])
        };
        app.apply(&runtime, Some(&wanted("1"))).await.unwrap();
        app.until(&runtime, &wanted("1"), Health::Healthy).await;
        app.apply(&runtime, Some(&wanted("2"))).await.unwrap();
        app.until(&runtime, &wanted("2"), Health::Healthy).await;
        app.apply(&runtime, None).await.unwrap();
    }

    async fn a_bus_that_goes_away_is_said_and_found_again() {
        let runtime = runtime();
        let mut app = App::new("bus");
        let good = with_service("bus", "good", "1");
        app.apply(&runtime, Some(&good)).await.unwrap();
        systemctl(&["stop", "dbus.socket", "dbus.service"]);
        let error = app.plan(&runtime, Some(&good)).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), ("RuntimeUnreachable", true));
        // Files need no bus.
        let mut plain = App::new("plain");
        let file = want("plain", &[("/etc/burgee-suite/plain", "x")], &[]);
        plain.apply(&runtime, Some(&file)).await.unwrap();
        systemctl(&["start", "dbus.socket", "dbus.service"]);
        app.apply(&runtime, Some(&good)).await.unwrap();
        systemctl(&["stop", "bus.service"]);
        tokio::time::timeout(Duration::from_secs(5), runtime.changed()).await.unwrap();
        app.apply(&runtime, None).await.unwrap();
        plain.apply(&runtime, None).await.unwrap();
    }

    async fn a_full_or_read_only_disk_is_said_and_the_old_content_stays() {
        let runtime = runtime();
        let mount = |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
        std::fs::create_dir_all("/etc/burgee-suite/disk").unwrap();
        mount(&["-t", "tmpfs", "-o", "size=64k", "suite", "/etc/burgee-suite/disk"]);
        let mut app = App::new("disk");
        let path = "/etc/burgee-suite/disk/a";
        let small = want("disk", &[(path, "small")], &[]);
        app.apply(&runtime, Some(&small)).await.unwrap();
        let large = want("disk", &[(path, &"x".repeat(1 << 20))], &[]);
        let chain = |error: &RuntimeError| format!("{error}: {}", std::error::Error::source(error).unwrap());
        let error = app.apply(&runtime, Some(&large)).await.unwrap_err();
        assert_eq!(chain(&error), format!("cannot write file/{path}: the disk that holds {path} is full"));
        assert!(error.is_transient());
        assert_eq!(read(path), "small");
        assert_eq!(std::fs::read_dir("/etc/burgee-suite/disk").unwrap().count(), 1, "nothing else is left");
        mount(&["-o", "remount,ro", "/etc/burgee-suite/disk"]);
        let other = want("disk", &[(path, "other")], &[]);
        let error = app.apply(&runtime, Some(&other)).await.unwrap_err();
        assert_eq!(chain(&error), format!("cannot write file/{path}: the disk that holds {path} is read-only"));
        assert_eq!(read(path), "small");
        mount(&["-o", "remount,rw", "/etc/burgee-suite/disk"]);
        app.apply(&runtime, Some(&other)).await.unwrap();
        assert!(app.plan(&runtime, None).await.unwrap().steps.iter().all(|step| step.verb == Verb::Delete));
        app.apply(&runtime, None).await.unwrap();
        assert!(Command::new("umount").arg("/etc/burgee-suite/disk").status().unwrap().success());
        std::fs::remove_dir_all("/etc/burgee-suite").unwrap();
    }
}
