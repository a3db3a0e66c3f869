//! Agents to update to, published by a host with TLS, and a device whose
//! installed agent a service manager keeps running.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::bins::bin;
use harness::broker::Certificates;
use harness::device::Setup;
use harness::forge::{self, Forge};
use harness::process::run;
use harness::stage::Stage;
use harness::supervisor::Supervisor;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// The version that the built agent tells.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// See the module.
pub struct Updates {
    // Ends first.
    pub supervisor: Option<Supervisor>,
    pub stage: Stage,
    pub host: Forge,
    pub base: PathBuf,
}

impl Updates {
    /// A device with a fleet repository, its app's first content pushed, whose
    /// folder lies in `at` (default: the stage's). Nothing runs.
    pub fn new(limit_secs: u64) -> (Self, String) {
        Self::with(limit_secs, |setup| setup)
    }

    pub fn with(limit_secs: u64, change: impl FnOnce(Setup) -> Setup) -> (Self, String) {
        let certificates_in = tempfile::tempdir().expect("a folder").keep();
        let certificates = Certificates::new(&certificates_in);
        let update = format!("[update]\nlimit_secs = {limit_secs}\nca_file = \"{}\"", certificates.ca.display());
        let stage = Stage::set_up(|setup| change(setup.poll(2).with(&update)));
        let folder = stage.folder.path().join("host");
        std::fs::create_dir_all(&folder).expect("a folder");
        let host = Forge::start_with(&folder, forge::Setup { certificates: Some(certificates), ..Default::default() });
        let installed = stage.folder.path().join("installed");
        std::fs::create_dir_all(&installed).expect("a folder");
        let base = installed.join("burgee-agent");
        // What is shipped is stripped, too; one with its symbols is past what an agent may weigh.
        run(Command::new("strip").arg("-o").arg(&base).arg(bin("burgee-agent")));
        let first = stage.push("first");
        (Self { supervisor: None, stage, host, base }, first)
    }

    /// Runs the installed agent, and again when it ends.
    pub fn run(&mut self) {
        let (base, config) = (self.base.clone(), self.stage.device.config());
        let command = move || {
            let mut command = Command::new(&base);
            command.arg("--config").arg(&config).arg("run");
            command
        };
        self.supervisor = Some(Supervisor::start(command, &self.stage.device.log_path()));
    }

    pub fn supervisor(&self) -> &Supervisor {
        self.supervisor.as_ref().expect("a running agent")
    }

    /// Another agent that is as good: the same program, with a mark.
    pub fn good(&self, mark: &str) -> Vec<u8> {
        let mut program = std::fs::read(&self.base).expect("the program");
        program.extend_from_slice(mark.as_bytes());
        program
    }

    /// The same program with other words of the same length in its text.
    pub fn with_other_words(&self, old: &[u8], new: &[u8]) -> Vec<u8> {
        assert_eq!(old.len(), new.len());
        let mut program = std::fs::read(&self.base).expect("the program");
        let at: Vec<usize> = (0..program.len() - old.len()).filter(|at| program[*at..].starts_with(old)).collect();
        assert!(!at.is_empty(), "the program has no {}", String::from_utf8_lossy(old));
        for at in at {
            program[at..at + new.len()].copy_from_slice(new);
        }
        program
    }

    /// A program that tells its version, and does `what` when it is to run.
    pub fn script(&self, version: &str, what: &str) -> Vec<u8> {
        format!("#!/bin/sh\n[ \"$1\" != --version ] || {{ echo burgee-agent {version}; exit; }}\n{what}\n").into_bytes()
    }

    /// Publishes a program for this machine; its digest.
    pub fn publish(&self, name: &str, program: &[u8]) -> String {
        std::fs::write(self.host.files().join(format!("{name}-{}", machine())), program).expect("a published file");
        let sum: [u8; 32] = Sha256::digest(program).into();
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A signed commit that wants this agent; its id.
    pub fn want(&self, version: &str, name: &str, digest: &str) -> String {
        self.want_from("files", version, name, digest)
    }

    pub fn want_from(&self, folder: &str, version: &str, name: &str, digest: &str) -> String {
        let url = format!("{}/{folder}/{name}-{{arch}}", self.host.origin("localhost"));
        self.stage.repo.write(
            "burgee.yaml",
            &format!(
                "format: 1\nfleet: test\nagent:\n  version: {version}\n  url: \"{url}\"\n  sha256: {{{}: {digest}}}\n",
                machine()
            ),
        );
        self.stage.push(&format!("agent {version} {name}"))
    }

    /// What the process of the agent runs now: its file's name.
    pub fn runs(&self) -> Option<String> {
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.supervisor().pid()?)).ok()?;
        Some(exe.file_name()?.to_string_lossy().into_owned())
    }

    /// Waits until the process runs the program of this name, and answers.
    #[track_caller]
    pub fn wait_runs(&self, name: &str, seconds: u64) -> Value {
        self.stage.device.wait(&format!("{name} runs"), seconds, |_| self.runs().as_deref() == Some(name))
    }

    /// The record that the guard reads.
    pub fn record(&self) -> Value {
        let path = self.stage.device.store().join("agent/record.json");
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Events of the history, oldest first.
    pub fn events(&self) -> Vec<String> {
        let output = self.stage.device.call(&["history", "-o", "json"]);
        let entries: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let all = entries.as_array().cloned().unwrap_or_default();
        all.iter().map(|entry| entry["event"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

/// As `burgee.yaml` calls the machine that the tests run on.
pub fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "arm" => "armv7",
        other => other,
    }
}

/// Makes a file that a test wrote runnable.
pub fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}
