//! The static agents of other machines, run by qemu's user emulation: a signed
//! commit is fetched and verified, its files are applied, a bad one goes back,
//! and a restart with the host gone holds and repairs. The debug agents of armv7
//! and aarch64; with `BURGEE_PROVE` what is shipped for them and for riscv64.
//!
//! qemu runs one process: where the agent starts itself anew (to look at its
//! database, docs/decisions/0021), it is told no, and goes on without.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::packages::{cross, proves};
use harness::process::{output, run};
use harness::stage::Stage;
use harness::wait::until;

/// A kind of machine.
struct Machine {
    target: &'static str,
    qemu: &'static str,
    /// `e_machine` of ELF.
    number: u16,
    bits: u8,
}

const ARMV7: Machine = Machine { target: "armv7", qemu: "qemu-arm-static", number: 40, bits: 32 };
const AARCH64: Machine = Machine { target: "aarch64", qemu: "qemu-aarch64-static", number: 183, bits: 64 };
const RISCV64: Machine = Machine { target: "riscv64", qemu: "qemu-riscv64-static", number: 243, bits: 64 };

/// The agent is a whole program for that machine: no loader, no libraries.
fn is_static(machine: &Machine, program: &Path) {
    let bytes = fs::read(program).expect("the agent");
    assert_eq!(&bytes[..4], b"\x7fELF");
    assert_eq!(bytes[4], machine.bits / 32, "the ELF class");
    assert_eq!(u16::from_le_bytes([bytes[18], bytes[19]]), machine.number, "the machine");
    if machine.number == ARMV7.number {
        let flags = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]);
        assert_eq!(flags & 0x400, 0x400, "hard float: {flags:#x}");
    }
    let headers = run(Command::new("readelf").args(["--wide", "--program-headers", "--dynamic"]).arg(program));
    for word in ["INTERP", "(NEEDED)"] {
        assert!(!headers.contains(word), "{headers}");
    }
}

/// A program that runs the agent under qemu: devices are started by its path.
fn under_qemu(machine: &Machine, program: &Path, folder: &Path) -> PathBuf {
    let script = folder.join(format!("agent-{}", machine.target));
    fs::write(&script, format!("#!/bin/sh\nexec {} {} \"$@\"\n", machine.qemu, program.display())).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    script
}

fn a_day(machine: &Machine) {
    let program = cross(machine.target, &["burgee-agent"]).join("burgee-agent");
    is_static(machine, &program);
    let folder = tempfile::tempdir().expect("a folder");
    let script = under_qemu(machine, &program, folder.path());
    let version = run(Command::new(&script).arg("--version"));
    assert!(version.starts_with("burgee-agent "), "{version}");

    let mut stage = Stage::set_up(|setup| harness::device::Setup { program: Some(script.clone()), ..setup.poll(3600) });
    let first = stage.push("first");

    // Verified, by http and by path; an unsigned one is not.
    let trust = stage.device.folder.join("allowed_signers");
    for address in [stage.forge.url(), format!("file://{}", stage.forge.bare().display())] {
        let mut verify = Command::new(&script);
        verify.args(["verify", "--branch", "main", "--repo", &address, "--trust"]).arg(&trust);
        let said = run(&mut verify);
        assert!(said.starts_with(&first), "{said}");
    }
    stage.device.start();
    stage.device.wait_steady(&first, 120);
    assert_eq!(stage.page(), "one\n");
    let emulated = fs::read_link(format!("/proc/{}/exe", stage.device.pid())).expect("a running process");
    assert!(emulated.ends_with(machine.qemu), "{} runs it", emulated.display());

    stage.repo.write("apps/web/files/etc/page.txt", "unsigned\n");
    let unsigned = stage.repo.commit_unsigned("unsigned");
    stage.repo.push(&stage.forge.url(), true);
    stage.device.sync();
    stage.device.wait("the refusal", 60, |it| it["conditions"].to_string().contains(&unsigned));
    assert_eq!(stage.page(), "one\n");
    stage.repo.git(&["reset", "-q", "--hard", &first]);

    // A good one, and a bad one that goes back by itself.
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 60);
    assert_eq!(stage.page(), "two\n");
    let bad = stage.change("bad", false);
    stage.device.wait_stalled(&second, &bad, 60);
    assert_eq!(stage.page(), "two\n");

    // Killed, and started with the host gone and a file missing.
    stage.device.kill();
    stage.forge.down();
    fs::remove_file(stage.device.folder.join("root/etc/web/page.txt")).expect("the file");
    stage.device.start();
    stage.device.wait_stalled(&second, &bad, 120);
    until("the file is back", Duration::from_secs(30), || (stage.page() == "two\n").then_some(()));
    stage.device.wait("the host is away", 60, |it| it["link"]["git"] == "down");

    // And further back, with no host.
    let back = output(&mut stage.device.command(&["rollback"]));
    assert!(back.status.success(), "{}", String::from_utf8_lossy(&back.stderr));
    stage.device.wait_steady(&first, 60);
    assert_eq!(stage.page(), "one\n");
    assert_eq!(stage.device.stop(), Some(0));
}

#[test]
fn armv7_fetches_verifies_applies_goes_back_and_starts_offline() {
    a_day(&ARMV7);
}

#[test]
fn aarch64_fetches_verifies_applies_goes_back_and_starts_offline() {
    a_day(&AARCH64);
    // Ten minutes of building that a change rarely needs.
    if proves() {
        a_day(&RISCV64);
    }
}
