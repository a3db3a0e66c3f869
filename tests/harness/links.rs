//! Hosts on a bridge of their own, each behind a link that can be cut: network
//! namespaces, a veth pair each, and this machine as one of the hosts.
//!
//! Needs root and iproute2. Everything goes when the network is dropped; what a
//! killed test left behind goes when the next one starts.

use std::path::PathBuf;
use std::process::Command;

use crate::process::{Running, output, run};

/// See the module.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    names: Vec<String>,
    /// A process in each host, for what joins a network by a process.
    holders: Vec<Running>,
    _folder: tempfile::TempDir,
}

impl Network {
    /// Hosts by these names, all linked.
    #[must_use]
    pub fn new(names: &[&str]) -> Self {
        sweep();
        let folder = tempfile::tempdir().expect("a folder");
        let mut network = Self {
            prefix: format!("burgee-{}", std::process::id()),
            names: Vec::new(),
            holders: Vec::new(),
            _folder: folder,
        };
        let core = network.space("core");
        ip(&["netns", "add", &core]);
        ip(&["-n", &core, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", &core, "link", "set", "bridge", "up"]);
        for name in names {
            network.join(name);
        }
        // This machine, so that the test can ask.
        let here = network.here();
        ip(&["link", "add", &here, "type", "veth", "peer", "name", "here", "netns", &core]);
        network.plug("here");
        ip(&["addr", "add", &format!("{}/24", network.number(254)), "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        network
    }

    fn join(&mut self, name: &str) {
        let (core, space) = (self.space("core"), self.space(name));
        ip(&["netns", "add", &space]);
        self.names.push(name.to_owned());
        ip(&["-n", &space, "link", "add", "host0", "type", "veth", "peer", "name", name, "netns", &core]);
        self.plug(name);
        ip(&["-n", &space, "addr", "add", &format!("{}/24", self.address(name)), "dev", "host0"]);
        for device in ["lo", "host0"] {
            ip(&["-n", &space, "link", "set", device, "up"]);
        }
        let log = self._folder.path().join("holder.log");
        self.holders.push(Running::start(self.command(name, "sleep").arg("infinity"), &log));
    }

    fn plug(&self, port: &str) {
        let core = self.space("core");
        ip(&["-n", &core, "link", "set", port, "master", "bridge"]);
        ip(&["-n", &core, "link", "set", port, "up"]);
    }

    fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn here(&self) -> String {
        format!("bg{}", std::process::id())
    }

    /// 198.18.0.0/15 is for tests of networks (RFC 2544).
    fn number(&self, host: usize) -> String {
        format!("198.18.{}.{host}", std::process::id() % 250)
    }

    fn index(&self, name: &str) -> usize {
        self.names.iter().position(|known| known == name).expect("a host of this network")
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        self.number(self.index(name) + 1)
    }

    /// A host's namespace, as a file.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.space(name))
    }

    /// A process that lives in a host's network.
    #[must_use]
    pub fn process(&self, name: &str) -> String {
        self.holders[self.index(name)].pid().to_string()
    }

    /// A program that is to run in a host's network.
    #[must_use]
    pub fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path(name).display())).args(["--", program]);
        command
    }

    /// Cuts a host's link: what is under way is neither delivered nor refused.
    pub fn cut(&self, name: &str) {
        ip(&["-n", &self.space("core"), "link", "set", name, "nomaster"]);
    }

    /// Mends it.
    pub fn heal(&self, name: &str) {
        ip(&["-n", &self.space("core"), "link", "set", name, "master", "bridge"]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holders.clear();
        let core = "core".to_owned();
        for name in self.names.iter().chain([&core]) {
            // The links go with the namespaces.
            let _ = output(Command::new("ip").args(["netns", "del", &self.space(name)]));
        }
        let _ = output(Command::new("ip").args(["link", "del", &self.here()]));
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

/// Removes the networks of tests that are no more.
fn sweep() {
    let listed = run(Command::new("ip").args(["netns", "list"]));
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let owner = name.strip_prefix("burgee-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|owner| !PathBuf::from(format!("/proc/{owner}")).exists()) {
            let _ = output(Command::new("ip").args(["netns", "del", name]));
        }
    }
}
