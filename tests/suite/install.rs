//! `install.sh`: installs what was signed, and refuses everything else before
//! it unpacks or runs anything. Into the root of an image (`--root`), and on a
//! booted systemd. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use harness::net::{answers, free_port};
use harness::packages::{FIRST, NEXT, Releases};
use harness::process::{Running, output, run};
use harness::systemd::{Machine, PLAIN};
use harness::wait::until;

/// An image's root, and a release that may be changed.
struct Stage {
    folder: tempfile::TempDir,
    releases: Releases,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { folder: tempfile::tempdir().expect("a folder"), releases: Releases::made() };
        fs::create_dir_all(stage.root().join("usr/lib/systemd")).expect("a folder");
        // What says that the image has systemd.
        fs::write(stage.root().join("usr/lib/systemd/systemd"), "").expect("a file");
        stage
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A copy of what the installer reads of a release.
    fn copy(&self, version: &str) -> PathBuf {
        let to = self.folder.path().join(format!("release-{version}"));
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).expect("a folder");
        for name in ["install.sh", "SHA256SUMS", "SHA256SUMS.sig", &tarball(version)] {
            fs::copy(self.releases.of(version).join(name), to.join(name)).expect("a file of the release");
        }
        to
    }

    fn install(&self, release: &Path, more: &[&str]) -> Output {
        let mut command = Command::new(release.join("install.sh"));
        output(command.arg("--root").arg(self.root()).args(more))
    }

    #[track_caller]
    fn installs(&self, release: &Path, more: &[&str]) -> String {
        let done = self.install(release, more);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        said(&done)
    }

    /// Everything below the image's root, with its content.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let listed = run(Command::new("find").arg(self.root()).args(["(", "-type", "f", "-o", "-type", "l", ")"]));
        for path in listed.lines().map(PathBuf::from) {
            let content = fs::read_link(&path)
                .map_or_else(|_| fs::read(&path).expect("a file"), |link| link.into_os_string().into_encoded_bytes());
            files.push((path, content));
        }
        files.sort();
        files
    }

    /// Asserts that nothing comes of it, and what is said.
    #[track_caller]
    fn refuses(&self, what: &str, release: &Path, more: &[&str], code: i32, words: &str) {
        let before = self.files();
        let done = self.install(release, more);
        assert_eq!(done.status.code(), Some(code), "{what}: {}", said(&done));
        assert!(said(&done).contains(words), "{what}: {}", said(&done));
        assert!(said(&done).contains("hint: "), "{what}: {}", said(&done));
        assert_eq!(self.files(), before, "{what}: something was installed");
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn tarball(version: &str) -> String {
    format!("burgee-{version}-x86_64.tar.gz")
}

fn signed(folder: &Path, key: &Path, namespace: &str) {
    let _ = fs::remove_file(folder.join("SHA256SUMS.sig"));
    let sums = folder.join("SHA256SUMS");
    run(Command::new("ssh-keygen").args(["-q", "-Y", "sign", "-n", namespace, "-f"]).arg(key).arg(sums));
}

/// Changes one byte in the middle.
fn flip(file: &Path) {
    let mut bytes = fs::read(file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).expect("a file");
}

#[test]
fn what_was_not_signed_is_refused_before_it_is_unpacked() {
    let stage = Stage::new();
    let fresh = || stage.copy(FIRST);
    let other = stage.folder.path().join("other");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other));

    let release = fresh();
    flip(&release.join(tarball(FIRST)));
    stage.refuses("a changed tarball", &release, &[], 3, "is not what was signed");

    let release = fresh();
    let sums = fs::read_to_string(release.join("SHA256SUMS")).expect("the sums");
    flip(&release.join(tarball(FIRST)));
    let sum = run(Command::new("sha256sum").arg(release.join(tarball(FIRST))));
    let sum = sum.split_whitespace().next().expect("a checksum");
    let changed: String =
        sums.lines()
            .map(|line| {
                if line.ends_with(&tarball(FIRST)) {
                    format!("{sum}  {}\n", tarball(FIRST))
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
    assert_ne!(changed, sums);
    fs::write(release.join("SHA256SUMS"), &changed).expect("the sums");
    stage.refuses("a changed tarball and its sum", &release, &[], 3, "the signature over SHA256SUMS is wrong");

    signed(&release, &other, "burgee-release");
    stage.refuses("signed by another key", &release, &[], 3, "not signed by a key that may sign releases");

    let release = fresh();
    signed(&release, &stage.releases.key(), "git");
    stage.refuses("a signature for something else", &release, &[], 3, "the signature over SHA256SUMS is wrong");

    let release = fresh();
    fs::write(release.join("SHA256SUMS.sig"), "-----BEGIN SSH SIGNATURE-----\nnone\n-----END SSH SIGNATURE-----\n")
        .expect("a file");
    stage.refuses("no signature", &release, &[], 3, "not signed by a key that may sign releases");

    for missing in ["SHA256SUMS", "SHA256SUMS.sig"] {
        let release = fresh();
        fs::remove_file(release.join(missing)).expect("a file");
        stage.refuses(missing, &release, &[], 3, missing);
    }

    // The sums of another version, rightly signed, beside this version's name.
    let release = fresh();
    for name in ["SHA256SUMS", "SHA256SUMS.sig"] {
        fs::copy(stage.releases.of(NEXT).join(name), release.join(name)).expect("a file");
    }
    stage.refuses("another version's sums", &release, &[], 3, "does not name");

    let release = fresh();
    let script = release.join("install.sh");
    let text = fs::read_to_string(&script).expect("the installer");
    let keyless: String = text
        .lines()
        .map(|line| if line.starts_with("RELEASE_KEY=") { "RELEASE_KEY=''\n".to_owned() } else { format!("{line}\n") })
        .collect();
    fs::write(&script, keyless).expect("the installer");
    stage.refuses("no key to go by", &release, &[], 2, "who may sign releases?");
    let signers = stage.folder.path().join("signers");
    let public = |key: &Path| fs::read_to_string(format!("{}.pub", key.display())).expect("a public key");
    let name_signer = |key: &Path| fs::write(&signers, format!("ops@example.com {}", public(key))).expect("a file");
    let by_file = ["--signers", signers.to_str().expect("a UTF-8 path")];
    name_signer(&other);
    stage.refuses("a file with another key", &release, &by_file, 3, "not signed by a key that may sign releases");
    name_signer(&stage.releases.key());
    stage.installs(&release, &by_file);
    // A key that stands there for something else, too.
    let key = public(&stage.releases.key());
    let lines = format!("git namespaces=\"git\" {key}release namespaces=\"burgee-release\" {key}");
    fs::write(&signers, lines).expect("a file");
    stage.installs(&release, &by_file);
}

#[test]
fn installs_upgrades_and_uninstalls_in_an_image() {
    let stage = Stage::new();
    let empty = stage.files();
    let (first, next) = (stage.copy(FIRST), stage.copy(NEXT));
    let at = |path: &str| stage.root().join(path);
    let text = |path: &str| fs::read_to_string(at(path)).unwrap_or_default();

    // The agent alone where nothing is named; another folder's files are not looked at.
    let said = stage.installs(&first, &[]);
    assert!(said.contains("/etc/burgee/agent.toml"), "{said}");
    let program = at("usr/local/bin/burgee-agent");
    assert_eq!(fs::metadata(&program).expect("the agent").permissions().mode() & 0o7777, 0o755);
    let version = run(Command::new(&program).arg("--version"));
    assert!(version.starts_with("burgee-agent "), "{version}");
    assert!(!at("usr/local/bin/burgee-hub").exists());
    let unit = text("etc/systemd/system/burgee-agent.service");
    assert!(unit.contains("ExecStart=/usr/local/bin/burgee-agent run"), "{unit}");
    let enabled = at("etc/systemd/system/multi-user.target.wants/burgee-agent.service");
    assert_eq!(fs::read_link(enabled).expect("a link"), Path::new("../burgee-agent.service"));

    // An upgrade keeps settings, takes what is asked for in addition, and the agent stays.
    fs::write(at("etc/burgee/agent.toml"), "# mine\n").expect("settings");
    fs::create_dir_all(at("var/lib/burgee")).expect("a folder");
    fs::write(at("var/lib/burgee/device.key"), "state").expect("state");
    stage.installs(&next, &["hub", "cli"]);
    assert!(text("usr/local/share/burgee/installed").starts_with("0.1.1\nhub cli agent\n"));
    for name in ["burgee-agent", "burgee-hub", "burgee"] {
        run(Command::new(at(&format!("usr/local/bin/{name}"))).arg("--version"));
    }
    assert_eq!(text("etc/burgee/agent.toml"), "# mine\n");
    fs::write(at("etc/burgee/hub.toml"), "# mine, too\n").expect("settings");

    // Not back by accident; back when it is said.
    stage.refuses("a downgrade", &first, &[], 3, "0.1.0 is older than what is installed (0.1.1)");
    stage.installs(&first, &["--allow-downgrade"]);
    assert_eq!(text("etc/burgee/hub.toml"), "# mine, too\n");

    // A package's programs are left to its manager.
    fs::create_dir_all(at("usr/bin")).expect("a folder");
    fs::write(at("usr/bin/burgee-agent"), "a package's").expect("a file");
    stage.refuses("a package is there", &next, &["agent"], 1, "is installed as a package");
    fs::remove_file(at("usr/bin/burgee-agent")).expect("a file");

    // The programs that are a package's are not purged with what is not.
    fs::create_dir_all(at("usr/bin")).expect("a folder");
    fs::write(at("usr/bin/burgee-hub"), "a package's").expect("a file");
    stage.refuses("a package's state", &next, &["uninstall", "--purge"], 1, "is installed as a package");
    fs::remove_file(at("usr/bin/burgee-hub")).expect("a file");

    stage.refuses("one of several", &next, &["uninstall", "--purge", "hub"], 2, "takes all that was installed");

    // Gone, but for settings and state; then those, too, but nobody else's file.
    stage.installs(&next, &["uninstall"]);
    let left: Vec<_> = stage.files().into_iter().map(|(path, _)| path).collect();
    let expected =
        ["etc/burgee/agent.toml", "etc/burgee/hub.toml", "usr/lib/systemd/systemd", "var/lib/burgee/device.key"];
    assert_eq!(left, expected.map(at));
    stage.refuses("nothing is there", &next, &["uninstall"], 1, "nothing is installed");
    fs::write(at("etc/burgee/hub.key"), "mine").expect("a file");
    stage.refuses("purge what?", &next, &["uninstall", "--purge"], 1, "nothing is installed");
    // One part's state is no other's.
    stage.installs(&next, &["uninstall", "--purge", "agent"]);
    assert!(!at("var/lib/burgee").exists() && !at("etc/burgee/agent.toml").exists());
    assert_eq!(text("etc/burgee/hub.toml"), "# mine, too\n");
    stage.installs(&next, &["uninstall", "--purge", "hub"]);
    assert_eq!(text("etc/burgee/hub.key"), "mine");
    fs::remove_file(at("etc/burgee/hub.key")).expect("a file");
    assert_eq!(stage.files(), empty);
}

#[test]
fn a_release_at_an_address_is_verified_alike() {
    let stage = Stage::new();
    let release = stage.copy(FIRST);
    let port = free_port();
    let folder = stage.folder.path();
    let config = format!(
        "pid {0}/nginx.pid;\nuser root;\nevents {{}}\nhttp {{ access_log off; server {{ listen 127.0.0.1:{port}; root {0}; }} }}\n",
        folder.display()
    );
    fs::write(folder.join("nginx.conf"), config).expect("nginx.conf");
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder).args(["-e", "error.log", "-g", "daemon off;"]);
    let _nginx = Running::start(&mut nginx, &folder.join("nginx.log"));
    until("nginx", Duration::from_secs(10), || answers(port).then_some(()));

    let from = format!("http://127.0.0.1:{port}/release-{FIRST}");
    // The installer itself is elsewhere.
    let alone = folder.join("alone");
    fs::create_dir(&alone).expect("a folder");
    fs::copy(release.join("install.sh"), alone.join("install.sh")).expect("the installer");
    flip(&release.join(tarball(FIRST)));
    stage.refuses("a changed tarball", &alone, &["--from", &from], 3, "is not what was signed");
    stage.refuses("nothing there", &alone, &["--from", &format!("{from}/none")], 3, "there is no SHA256SUMS");
    stage.copy(FIRST);
    stage.installs(&alone, &["--from", &from, "cli"]);
    run(Command::new(stage.root().join("usr/local/bin/burgee")).arg("--version"));
}

#[test]
fn wrong_usage_and_machines_without_a_release_are_said() {
    let stage = Stage::new();
    let release = stage.copy(FIRST);
    stage.refuses("a word", &release, &["--frob"], 2, "unknown word: --frob");
    stage.refuses("a value", &release, &["--from"], 2, "--from wants a value");
    stage.refuses("a version", &release, &["--version", "1;rm"], 2, "is no version");
    stage.refuses("purge alone", &release, &["--purge"], 2, "goes with uninstall");
    let mut foreign = Command::new(release.join("install.sh"));
    let foreign = output(foreign.arg("--root").arg(stage.root()).env("BURGEE_MACHINE", "mips"));
    assert_eq!(foreign.status.code(), Some(1), "{}", said(&foreign));
    assert!(said(&foreign).contains("there is no burgee for mips"), "{}", said(&foreign));
    // An image tells by its own programs for which machine it is.
    let mut elf = [0_u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 0xf3;
    fs::write(stage.root().join("usr/lib/systemd/systemd"), elf).expect("a program");
    stage.refuses("another machine's image", &release, &[], 3, "does not name burgee-0.1.0-riscv64.tar.gz");
    let help = output(Command::new(release.join("install.sh")).arg("--help"));
    assert_eq!(help.status.code(), Some(0));
    assert!(said(&help).contains("--allow-downgrade"), "{}", said(&help));
}

#[test]
fn on_a_booted_systemd_it_starts_restarts_and_ends_the_services() {
    let releases = Releases::made();
    let binds = [FIRST, NEXT].map(|version| (releases.of(version), format!("/release-{version}")));
    let binds: Vec<(&Path, &str)> = binds.iter().map(|(host, guest)| (host.as_path(), guest.as_str())).collect();
    let machine = Machine::boot_kept(PLAIN, &binds).expect("a machine");
    let done = |command: &[&str]| {
        let output = machine.run(command).expect("nsenter");
        assert!(output.status.success(), "{command:?}: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let show = |unit: &str, property: &str| done(&["systemctl", "show", "--value", "--property", property, unit]);

    done(&[&format!("/release-{FIRST}/install.sh"), "agent", "hub"]);
    // The hub serves as its own user; the agent has no settings yet, which is no failure.
    until("the hub runs", Duration::from_secs(30), || (show("burgee-hub", "ActiveState") == "active").then_some(()));
    assert_eq!(done(&["stat", "-c", "%U", &format!("/proc/{}", show("burgee-hub", "MainPID"))]), "burgee-hub");
    assert_eq!(show("burgee-agent", "ConditionResult"), "no");
    assert_eq!(done(&["systemctl", "is-enabled", "burgee-agent", "burgee-hub"]), "enabled\nenabled");

    let before = show("burgee-hub", "MainPID");
    done(&[&format!("/release-{NEXT}/install.sh")]);
    assert_ne!(show("burgee-hub", "MainPID"), before, "the upgrade restarts");
    done(&["systemctl", "disable", "--now", "burgee-hub"]);
    done(&[&format!("/release-{NEXT}/install.sh")]);
    assert_eq!(show("burgee-hub", "ActiveState"), "inactive", "what was disabled stays so");

    done(&[&format!("/release-{NEXT}/install.sh"), "uninstall", "--purge"]);
    assert_eq!(show("burgee-agent", "LoadState"), "not-found");
    for gone in ["/usr/local/bin/burgee-hub", "/var/lib/burgee-hub", "/etc/burgee"] {
        assert!(!machine.root().join(&gone[1..]).exists(), "{gone} is still there");
    }

    // Installed into the image first, upgraded on the device that runs it.
    let mut image = Command::new(releases.of(FIRST).join("install.sh"));
    run(image.arg("--root").arg(machine.root()).args(["agent", "hub"]));
    done(&["systemctl", "daemon-reload"]);
    done(&[&format!("/release-{NEXT}/install.sh")]);
    assert_eq!(done(&["systemctl", "is-enabled", "burgee-agent", "burgee-hub"]), "enabled\nenabled");
    until("the hub runs", Duration::from_secs(30), || (show("burgee-hub", "ActiveState") == "active").then_some(()));

    // One that does not start keeps nothing from being installed, and is made good by the next run.
    done(&[&format!("/release-{NEXT}/install.sh"), "uninstall", "--purge"]);
    let settings = machine.root().join("etc/burgee");
    fs::create_dir_all(&settings).expect("a folder");
    fs::write(settings.join("agent.toml"), "no settings\n").expect("a file");
    let install = format!("/release-{NEXT}/install.sh");
    let failed = machine.run([&install, "agent", "hub"]).expect("nsenter");
    assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
    let words = format!("burgee {NEXT} is installed, but does not start: burgee-agent.service");
    assert!(said(&failed).contains(&words) && said(&failed).contains("hint: journalctl -u burgee-agent.service"));
    assert_eq!(done(&["systemctl", "is-enabled", "burgee-agent", "burgee-hub"]), "enabled\nenabled");
    until("the hub runs", Duration::from_secs(30), || (show("burgee-hub", "ActiveState") == "active").then_some(()));
    fs::remove_file(settings.join("agent.toml")).expect("it was there");
    done(&[&install]);

    // A package that came beside it goes on when it goes.
    let script = "cp /usr/local/bin/burgee-hub /usr/bin/ && sed s,/usr/local/bin,/usr/bin, \
        /etc/systemd/system/burgee-hub.service >/usr/lib/systemd/system/burgee-hub.service";
    done(&["sh", "-ec", script]);
    done(&[&install, "uninstall"]);
    until("the package's hub runs", Duration::from_secs(30), || {
        let pid = show("burgee-hub", "MainPID");
        let runs = machine.run(["readlink", &format!("/proc/{pid}/exe")]).ok()?;
        (String::from_utf8_lossy(&runs.stdout).trim() == "/usr/bin/burgee-hub").then_some(())
    });
    assert_eq!(done(&["systemctl", "is-enabled", "burgee-hub"]), "enabled");
}
