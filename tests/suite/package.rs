//! The packages, installed as a person does: the .deb on a booted Debian 12 and
//! 13, the .rpm by rpm and rpmlint, the hub's image in an engine. Needs root.

use std::process::Command;
use std::time::Duration;

use harness::bins::root;
use harness::engine::{Engine, Kind};
use harness::installed::{AGENT, HUB, Installed};
use harness::net::{free_port, get};
use harness::packages::{FIRST, NEXT, Releases};
use harness::process::{output, run};
use harness::systemd::{Image, PLAIN, PODMAN};
use harness::wait::until;

const TILL: &str = "till.service";

/// The fleet repository's one app: a file, and a service that reads it.
fn write_app(stage: &Installed, text: &str) {
    stage.repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [till]\n");
    stage.repo.write(
        "apps/till/app.yaml",
        "runtime: files\nhealth: {timeout: 20s, soak: 500ms, checks: [{exec: [\"/usr/bin/test\", \"-e\", \"/run/till.seen\"]}]}\nfiles:\n  - {from: till.conf, to: /etc/till/, owner: \"daemon:daemon\"}\n  \
         - {from: till.service, to: /etc/systemd/system/}\nunits: [till.service]\n",
    );
    stage.repo.write("apps/till/files/till.conf", &format!("{text}\n"));
    stage.repo.write(
        "apps/till/files/till.service",
        "[Service]\nExecStart=/bin/sh -c 'cat /etc/till/till.conf > /run/till.seen; exec sleep infinity'\n\
         [Install]\nWantedBy=multi-user.target\n",
    );
}

/// The app is there and was read; which start of its service this is.
#[track_caller]
fn runs(stage: &Installed, text: &str) -> String {
    until("the service has read its file", Duration::from_secs(20), || {
        (stage.run(&["cat", "/run/till.seen"]).stdout == format!("{text}\n").as_bytes()).then_some(())
    });
    assert_eq!(stage.done(&["systemctl", "is-active", TILL]), "active");
    assert_eq!(stage.done(&["stat", "-c", "%U:%G", "/etc/till/till.conf"]), "daemon:daemon");
    stage.show(TILL, "InvocationID")
}

/// Installs agent and hub, joins, and runs the first commit, whose id it gives.
fn enrolled(stage: &Installed) -> String {
    let debs = ["burgee-agent", "burgee-hub", "burgee"].map(|program| Installed::deb(program, FIRST));
    stage.done(&["dpkg", "--install", &debs[0], &debs[1], &debs[2]]);
    assert_eq!(stage.done(&["systemctl", "is-enabled", AGENT, HUB]), "enabled\nenabled");
    // No settings, no start; and no failure.
    assert_eq!(stage.show(AGENT, "ConditionResult"), "no");
    assert_eq!(stage.show(AGENT, "ActiveState"), "inactive");
    until("the hub serves", Duration::from_secs(30), || (stage.show(HUB, "ActiveState") == "active").then_some(()));

    stage.file("/root/allowed_signers", &stage.repo.signer.line());
    stage.file(
        "/etc/burgee/agent.toml",
        &format!(
            "[device]\nname = \"till-1\"\nlabels = {{ role = \"test\" }}\n[source]\nurl = \"{}\"\npoll_secs = 3600\n\
             [runtime.files]\nallow = [\"/etc/till\", \"/etc/systemd/system\"]\n[hub]\nurl = \"http://127.0.0.1:8710\"\n[health]\nexec = [\"/usr/bin/test\"]\n",
            stage.forge.url()
        ),
    );
    let hub = ["runuser", "-u", "burgee-hub", "--", "burgee-hub", "--config", "/etc/burgee/hub.toml"];
    let token = stage.done(&[&hub[..], &["token", "create", "--uses", "1"]].concat());
    stage.done(&["burgee-agent", "enroll", "--token", &token, "--trust", "/root/allowed_signers"]);
    write_app(stage, "one");
    let first = stage.push("first");
    stage.done(&["systemctl", "daemon-reload"]);
    // Type=notify: this returns when the agent said that it is ready.
    stage.done(&["systemctl", "start", AGENT]);
    stage.wait_steady(&first);
    until("the hub has its report", Duration::from_secs(30), || {
        let devices = stage.done(&[&hub[..], &["device", "list"]].concat());
        (devices.contains("till-1") && devices.contains(&first[..12])).then_some(())
    });
    first
}

/// The walls: the agent writes where its settings allow, and nowhere else.
fn is_confined(stage: &Installed) {
    let paths = stage.show(AGENT, "ReadWritePaths");
    assert_eq!(paths, "-/etc/till -/etc/systemd/system");
    let pid = stage.show(AGENT, "MainPID");
    let touch = |path: &str| stage.run(&["nsenter", "--target", &pid, "--mount", "touch", path]).status.success();
    for open in ["/etc/till/x", "/etc/systemd/system/x.service", "/var/lib/burgee/x", "/run/burgee/x"] {
        assert!(touch(open), "{open} can't be written");
        std::fs::remove_file(stage.path(open))
            .or_else(|_| stage.run(&["rm", open]).status.success().then_some(()).ok_or(()))
            .expect("the file");
    }
    for shut in ["/etc/x", "/etc/burgee/x", "/usr/bin/x", "/var/lib/x", "/root/x", "/boot/x", "/run/x"] {
        assert!(!touch(shut), "{shut} can be written");
    }
    let status = stage.done(&["cat", &format!("/proc/{pid}/status")]);
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim().to_owned();
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID.
    assert_eq!(field("CapEff:"), "000000000000001b");
}

/// `systemd-analyze`: no complaint, and the exposure as agreed.
fn is_well_formed(stage: &Installed) {
    for (unit, limit) in [(AGENT, 4.5), (HUB, 2.0)] {
        let verified = stage.run(&["systemd-analyze", "verify", &format!("/usr/lib/systemd/system/{unit}")]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("burgee")).collect();
        assert!(verified.status.success() && ours.is_empty(), "{unit}: {said}");
        let security = stage.done(&["systemd-analyze", "security", "--no-pager", unit]);
        let level = security.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
        let score: f64 =
            level.split(": ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("a score");
        println!("{unit}: exposure {score}, at most {limit}");
        assert!(score <= limit, "{security}");
    }
}

fn a_day_of_the_deb(image: Image) {
    let mut stage = Installed::boot(image);
    let first = enrolled(&stage);
    let start = runs(&stage, "one");
    let log = stage.done(&["burgee-agent", "logs", "till"]);
    assert!(log.contains("Started till.service"), "{log}");
    is_confined(&stage);
    is_well_formed(&stage);

    // Killed, also thrice in a row: it is back, and what it runs is not touched.
    for _ in 0..4 {
        let pid = stage.show(AGENT, "MainPID");
        stage.done(&["systemctl", "kill", "--signal=KILL", AGENT]);
        until("another start", Duration::from_secs(20), || {
            (stage.show(AGENT, "ActiveState") == "active" && stage.show(AGENT, "MainPID") != pid).then_some(())
        });
    }
    stage.wait_steady(&first);
    assert_eq!(runs(&stage, "one"), start);

    // The machine boots again while the repository is gone, and a file with it.
    stage.forge.down();
    stage
        .machine
        .power_cycle(|root| std::fs::remove_file(root.join("etc/till/till.conf")).expect("the file"))
        .expect("a boot");
    stage.wait("the host is away", 60, |it| {
        it["phase"] == "steady" && it["revision"] == *first && it["link"]["git"] == "down"
    });
    let start = runs(&stage, "one");
    assert_eq!(stage.show(AGENT, "ReadWritePaths"), "-/etc/till -/etc/systemd/system", "also at boot");

    // The next package: the agent is another program, the workload is the same one.
    let (agent, hub) = (stage.show(AGENT, "MainPID"), stage.show(HUB, "MainPID"));
    let sums = || {
        let programs = [AGENT, HUB].map(|unit| format!("/proc/{}/exe", stage.show(unit, "MainPID")));
        stage
            .done(&["sha256sum", &programs[0], &programs[1]])
            .split_whitespace()
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let before: Vec<String> = sums();
    stage.done(&["dpkg", "--install", &Installed::deb("burgee-agent", NEXT), &Installed::deb("burgee-hub", NEXT)]);
    assert_ne!(stage.show(AGENT, "MainPID"), agent, "the upgrade restarts the agent");
    assert_ne!(stage.show(HUB, "MainPID"), hub, "the upgrade restarts the hub");
    let after = sums();
    assert!(before.iter().zip(&after).all(|(before, after)| before != after), "{before:?} {after:?}");
    stage.wait("what it ran", 60, |it| it["phase"] == "steady" && it["revision"] == *first);
    assert_eq!(runs(&stage, "one"), start);

    // The host is back: the new one takes a commit.
    let leader = stage.machine.leader().to_owned();
    stage.forge.move_to(&leader);
    stage.forge.up();
    write_app(&stage, "two");
    let second = stage.push("second");
    stage.done(&["burgee-agent", "sync", "--no-wait"]);
    stage.wait_steady(&second);
    let start = runs(&stage, "two");

    // What somebody disabled, no upgrade starts.
    stage.done(&["systemctl", "disable", "--now", AGENT]);
    stage.done(&["dpkg", "--install", &Installed::deb("burgee-agent", NEXT)]);
    assert_eq!(stage.show(AGENT, "ActiveState"), "inactive");

    // Removed, state and settings stay, and what runs; installed again, it goes on.
    stage.done(&["systemctl", "enable", AGENT]);
    stage.done(&["dpkg", "--remove", "burgee-agent"]);
    for kept in ["/var/lib/burgee/device.key", "/etc/burgee/agent.toml", "/etc/burgee/allowed_signers"] {
        assert!(stage.path(kept).exists(), "{kept} is gone");
    }
    assert_eq!(runs(&stage, "two"), start);
    stage.done(&["dpkg", "--install", &Installed::deb("burgee-agent", NEXT)]);
    stage.wait_steady(&second);
    assert_eq!(runs(&stage, "two"), start);

    // Purged, nothing of burgee's is left but what it made run.
    stage.done(&["dpkg", "--purge", "burgee-agent", "burgee-hub", "burgee"]);
    for gone in ["/var/lib/burgee", "/var/lib/burgee-hub", "/etc/burgee", "/usr/bin/burgee-agent", "/run/burgee"] {
        assert!(!stage.run(&["test", "-e", gone]).status.success(), "{gone} is still there");
    }
    assert_eq!(stage.show(AGENT, "LoadState"), "not-found");
    assert_eq!(runs(&stage, "two"), start);
}

#[test]
fn the_deb_on_debian_12() {
    a_day_of_the_deb(PLAIN);
}

#[test]
fn the_deb_on_debian_13() {
    a_day_of_the_deb(PODMAN);
}

#[test]
fn systemd_holds_the_hubs_sockets() {
    let stage = Installed::boot(PLAIN);
    stage.done(&["dpkg", "--install", &Installed::deb("burgee-hub", FIRST)]);
    stage.done(&["systemctl", "stop", HUB]);
    stage.done(&["systemctl", "enable", "--now", "burgee-hub.socket"]);
    let get = "exec 3<>/dev/tcp/127.0.0.1/8710; printf 'GET /healthz HTTP/1.0\\r\\n\\r\\n' >&3; head -n 1 <&3";
    // A connection starts it, and is answered by it.
    assert_eq!(stage.show(HUB, "ActiveState"), "inactive");
    let answer = stage.done(&["bash", "-ec", get]);
    assert!(answer.contains("200"), "{answer}");
    assert_eq!(stage.show(HUB, "ActiveState"), "active");
    let listens = stage.done(&["sh", "-ec", "grep -c ' 0A ' /proc/net/tcp"]);
    let pid = stage.show(HUB, "MainPID");
    let inherited = stage.done(&["sh", "-ec", &format!("ls -l /proc/{pid}/fd/3 /proc/{pid}/fd/4")]);
    assert_eq!(inherited.matches("socket:").count(), 2, "{inherited}");

    // While it is away, connections wait; nothing is refused, nothing bound twice.
    stage.done(&["systemctl", "kill", "--signal=KILL", HUB]);
    let answer = stage.done(&["bash", "-ec", get]);
    assert!(answer.contains("200"), "{answer}");
    assert_eq!(stage.done(&["sh", "-ec", "grep -c ' 0A ' /proc/net/tcp"]), listens);

    // Removed and installed again, it has them from systemd as before.
    stage.done(&["dpkg", "--remove", "burgee-hub"]);
    stage.done(&["dpkg", "--install", &Installed::deb("burgee-hub", FIRST)]);
    assert_eq!(stage.show("burgee-hub.socket", "ActiveState"), "active");
    let answer = stage.done(&["bash", "-ec", get]);
    assert!(answer.contains("200"), "{answer}");

    // A socket that the configuration does not name is not served: its addresses were judged.
    stage.done(&["systemctl", "stop", HUB, "burgee-hub.socket"]);
    stage.file("/etc/systemd/system/burgee-hub.socket.d/open.conf", "[Socket]\nListenStream=0.0.0.0:8711\n");
    stage.done(&["systemctl", "daemon-reload"]);
    stage.done(&["systemctl", "start", "burgee-hub.socket"]);
    assert!(!stage.run(&["systemctl", "start", HUB]).status.success());
    let log = stage.done(&["journalctl", "--no-pager", "--unit", HUB]);
    assert!(log.contains("0.0.0.0:8711, which the configuration does not name"), "{log}");
    assert!(log.contains("hint: "), "{log}");
}

#[test]
fn the_rpm_installs_upgrades_and_keeps_state() {
    let stage = Installed::boot(PLAIN);
    let releases = Releases::made();
    let rpm = |arguments: &[&str], packages: &[String]| {
        let mut command = Command::new("rpm");
        command
            .arg("--root")
            .arg(stage.machine.root())
            .args(["--dbpath", "/var/lib/rpm"])
            .args(arguments)
            .args(packages);
        run(&mut command)
    };
    let packages = |version: &str| {
        ["burgee-agent", "burgee-hub", "burgee"]
            .map(|name| releases.of(version).join(format!("{name}-{version}-1.x86_64.rpm")).display().to_string())
    };
    let mut rpmlint = Command::new("rpmlint");
    let rpmlint = rpmlint.args(["--strict", "--config"]).arg(root().join("packaging/rpm/rpmlint.toml"));
    run(rpmlint.args(packages(FIRST)));
    // The shell that the scripts need is Debian's, of which rpm knows nothing.
    rpm(&["--install", "--nodeps"], &packages(FIRST));
    let listed = rpm(&["--query", "--all", "--queryformat", "%{name} %{version} %{arch}\n"], &[]);
    for name in ["burgee-agent", "burgee-hub", "burgee"] {
        assert!(listed.contains(&format!("{name} {FIRST} x86_64\n")), "{listed}");
    }
    assert_eq!(
        rpm(&["--verify", "--nodeps", "burgee-agent", "burgee"], &[]),
        "",
        "files, modes and links are as packed"
    );
    // rpm ran its scripts in the machine's files, not beside its systemd.
    stage.done(&["systemctl", "daemon-reload"]);
    stage.done(&["systemd-sysusers"]);
    stage.done(&["systemctl", "start", HUB]);
    assert_eq!(stage.show(HUB, "ActiveState"), "active");

    stage.file("/etc/burgee/hub.toml", "data = \"/var/lib/burgee-hub\"\n# mine\n");
    rpm(&["--upgrade", "--nodeps"], &packages(NEXT));
    let kept = std::fs::read_to_string(stage.path("/etc/burgee/hub.toml")).expect("settings");
    assert!(kept.contains("# mine"), "{kept}");
    rpm(&["--erase", "burgee-agent", "burgee-hub", "burgee"], &[]);
    assert!(stage.path("/var/lib/burgee-hub/hub.db").exists(), "erasing keeps the state");
    assert!(!stage.path("/usr/bin/burgee-hub").exists());
}

#[test]
fn the_same_programs_make_the_same_packages() {
    let releases = Releases::made();
    let folder = tempfile::tempdir().expect("a folder");
    let programs = folder.path().join("programs");
    std::fs::create_dir(&programs).expect("a folder");
    for name in ["burgee-agent", "burgee-hub", "burgee"] {
        std::fs::copy(harness::bins::bin(name), programs.join(name)).expect("a program");
    }
    let made = ["one", "two"].map(|name| folder.path().join(name));
    for out in &made {
        let mut package = Command::new(root().join("packaging/package"));
        package.args(["--debug", "x86_64", "--programs"]).arg(&programs).arg("--out").arg(out);
        run(package.env("BURGEE_RELEASE_KEY", releases.key()));
    }
    let sums = made.each_ref().map(|out| std::fs::read_to_string(out.join("SHA256SUMS")).expect("the sums"));
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0].lines().count(), 10, "{}", sums[0]);
    let checked = output(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&made[0]));
    assert!(checked.status.success(), "{checked:?}");
}

#[test]
fn the_hubs_image_serves_in_an_engine() {
    let releases = Releases::made();
    let engine = Engine::start(Kind::Docker, &[]);
    let docker =
        |words: &[&str]| run(Command::new("docker").args(["--host", &engine.address()]).args(words)).trim().to_owned();
    let image = releases.of(FIRST).join(format!("burgee-hub-{FIRST}-x86_64.image.tar"));
    docker(&["load", "--input", image.to_str().expect("a UTF-8 path")]);
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings");
    std::fs::create_dir(&settings).expect("a folder");
    std::fs::write(settings.join("password"), "secret\n").expect("a file");
    std::fs::write(
        settings.join("hub.toml"),
        "data = \"/var/lib/burgee-hub\"\nlisten = \"0.0.0.0:8710\"\nplain = true\npublic_url = \"https://hub.example.com\"\n\
         [page]\npassword_file = \"/etc/burgee/password\"\n",
    )
    .expect("a file");
    docker(&["network", "create", "fleet"]);
    let port = free_port();
    let (mount, publish) = (format!("{}:/etc/burgee:ro", settings.display()), format!("127.0.0.1:{port}:8710"));
    let reference = format!("burgee-hub:{FIRST}");
    let serve = || {
        let run = ["run", "--detach", "--network=fleet", "--name", "hub", "--read-only", "--cap-drop=ALL"];
        docker(&[&run[..], &["-v", &mount, "-v", "hub:/var/lib/burgee-hub", "-p", &publish, &reference]].concat());
        until("the hub answers", Duration::from_secs(30), || {
            get(port, "/healthz").filter(|(status, _)| *status == 200)
        });
    };
    serve();
    let hub = ["exec", "hub", "/usr/bin/burgee-hub", "--config", "/etc/burgee/hub.toml"];
    let token = docker(&[&hub[..], &["token", "create", "--uses", "1"]].concat());
    assert!(token.starts_with("bjt_"), "{token}");

    // The image alone goes; what the hub knows is in the volume.
    docker(&["rm", "--force", "hub"]);
    serve();
    let tokens = docker(&[&hub[..], &["token", "list"]].concat());
    assert!(tokens.contains("0/1"), "{tokens}");
}
