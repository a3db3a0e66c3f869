//! A booted machine on which burgee is installed from packages, with a Git host
//! in its network: agent and hub as a person gets them.

use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::forge::{Forge, Setup};
use crate::packages::{FIRST, NEXT, Releases};
use crate::repo::Repo;
use crate::systemd::{Image, Machine};

pub const AGENT: &str = "burgee-agent.service";
pub const HUB: &str = "burgee-hub.service";

/// See the module.
pub struct Installed {
    // Ends first: its servers are in the machine's network.
    pub forge: Forge,
    pub machine: Machine,
    pub repo: Repo,
    _folder: tempfile::TempDir,
}

impl Installed {
    /// A machine that sees the releases as `/release-VERSION`; nothing is installed yet.
    #[must_use]
    pub fn boot(image: Image) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let releases = Releases::made();
        let binds = [FIRST, NEXT].map(|version| (releases.of(version), format!("/release-{version}")));
        let binds: Vec<(&Path, &str)> = binds.iter().map(|(host, guest)| (host.as_path(), guest.as_str())).collect();
        let machine = Machine::boot_kept(image, &binds).expect("a machine");
        let setup = Setup { network_of: Some(machine.leader().to_owned()), ..Setup::default() };
        let forge = Forge::start_with(folder.path(), setup);
        let repo = Repo::trusted(folder.path());
        Self { forge, machine, repo, _folder: folder }
    }

    /// The package of a program as the machine sees it.
    #[must_use]
    pub fn deb(program: &str, version: &str) -> String {
        format!("/release-{version}/{program}_{version}_amd64.deb")
    }

    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.machine.root().join(path.trim_start_matches('/'))
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    #[must_use]
    pub fn run(&self, command: &[&str]) -> Output {
        self.machine.run(command).expect("nsenter")
    }

    /// What a command printed; it has to succeed.
    #[track_caller]
    pub fn done(&self, command: &[&str]) -> String {
        let output = self.run(command);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
        out
    }

    #[track_caller]
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.done(&["systemctl", "show", "--value", "--property", property, unit])
    }

    #[must_use]
    pub fn status(&self) -> Option<Value> {
        serde_json::from_slice(&self.run(&["burgee-agent", "status", "-o", "json"]).stdout).ok()
    }

    /// Waits until the agent's status is as wanted; panics with the journal.
    #[track_caller]
    pub fn wait(&self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        self.machine.wait_status(what, seconds, || self.status(), wanted)
    }

    #[track_caller]
    pub fn wait_steady(&self, revision: &str) -> Value {
        self.wait(&format!("steady at {revision}"), 60, |it| it["phase"] == "steady" && it["revision"] == revision)
    }

    /// Commits and pushes; the commit's id.
    #[track_caller]
    pub fn push(&self, message: &str) -> String {
        let id = self.repo.commit(message);
        self.repo.push(self.forge.bare().to_str().expect("a UTF-8 path"), true);
        id
    }
}
