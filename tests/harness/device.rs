//! A device: the real agent with a store, a configuration and a socket of its
//! own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::bins::bin;
use crate::process::{Running, output};
use crate::wait::until;

/// See the module.
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub folder: PathBuf,
    program: PathBuf,
    running: Option<Running>,
}

/// What differs from device to device.
#[derive(Clone, Debug)]
pub struct Setup {
    pub name: String,
    /// The fleet repository's address.
    pub url: String,
    /// `allowed_signers` as text: the root of trust.
    pub trust: String,
    /// `key = "value"` lines.
    pub labels: Vec<(String, String)>,
    pub poll_secs: u64,
    /// More lines of `[source]`.
    pub source: String,
    /// More TOML, whole tables.
    pub more: String,
    /// The agent; `None`: this run's own.
    pub program: Option<PathBuf>,
}

impl Setup {
    #[must_use]
    pub fn new(name: &str, url: &str, trust: &str) -> Self {
        Self {
            name: name.to_owned(),
            url: url.to_owned(),
            trust: trust.to_owned(),
            labels: vec![("role".to_owned(), "test".to_owned())],
            poll_secs: 3600,
            source: String::new(),
            more: String::new(),
            program: None,
        }
    }

    #[must_use]
    pub fn poll(mut self, seconds: u64) -> Self {
        self.poll_secs = seconds;
        self
    }

    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    /// More lines of `[source]`.
    #[must_use]
    pub fn source(mut self, lines: &str) -> Self {
        self.source.push_str(lines);
        self.source.push('\n');
        self
    }

    #[must_use]
    pub fn with(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self.more.push('\n');
        self
    }
}

impl Device {
    /// Writes its files; nothing runs yet. The files runtime writes below
    /// `<folder>/root`.
    pub fn new(folder: &Path, setup: &Setup) -> Self {
        let folder = folder.join(&setup.name);
        std::fs::create_dir_all(folder.join("root")).expect("a folder");
        std::fs::write(folder.join("allowed_signers"), &setup.trust).expect("the root of trust");
        let program = setup.program.clone().unwrap_or_else(|| bin("burgee-agent"));
        let device = Self { name: setup.name.clone(), folder, program, running: None };
        device.configure(setup);
        device
    }

    /// Writes `agent.toml` anew.
    pub fn configure(&self, setup: &Setup) {
        let mut labels = String::new();
        for (key, value) in &setup.labels {
            let _ = writeln!(labels, "{key} = \"{value}\"");
        }
        let folder = self.folder.display();
        let mut toml = format!(
            "[device]\nname = \"{name}\"\n[device.labels]\n{labels}\n[source]\nurl = \"{url}\"\nbranch = \"main\"\npoll_secs = {poll}\ntrust = \"{folder}/allowed_signers\"\nrevoked = \"{folder}/revoked_keys\"\n{source}[store]\npath = \"{folder}/store\"\n[control]\nsocket = \"{folder}/agent.sock\"\n",
            name = setup.name,
            url = setup.url,
            poll = setup.poll_secs,
            source = setup.source,
        );
        if !setup.more.contains("[runtime.files]") {
            let _ = write!(toml, "[runtime.files]\nroot = \"{folder}/root\"\nallow = [\"/etc\", \"/opt\", \"/srv\"]\n");
        }
        toml.push_str(&setup.more);
        std::fs::write(self.config(), toml).expect("agent.toml");
    }

    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("agent.toml")
    }

    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }

    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// All that the agent logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `burgee-agent --config … ARGS`.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config()).args(args);
        command
    }

    /// Runs a command of the agent to its end.
    #[must_use]
    pub fn call(&self, args: &[&str]) -> Output {
        output(&mut self.command(args))
    }

    /// Starts `run`.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.running = Some(Running::start(&mut self.command(&["run"]), &self.log_path()));
    }

    /// Starts `run`, by another command line that ends in it.
    pub fn start_by(&mut self, mut command: Command) {
        self.running = Some(Running::start(&mut command, &self.log_path()));
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("a running agent").pid()
    }

    pub fn is_alive(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::is_alive)
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.running.take().and_then(|mut running| running.stop(Duration::from_secs(30)))
    }

    /// `status -o json`, where the agent answers.
    #[must_use]
    pub fn status(&self) -> Option<Value> {
        let output = self.call(&["status", "-o", "json"]);
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until the status is as wanted; panics with the last one.
    #[track_caller]
    pub fn wait(&self, what: &str, seconds: u64, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if let Some(status) = self.status() {
                if wanted(&status) {
                    return status;
                }
                last = Some(status);
            }
            std::thread::sleep(Duration::from_millis(60));
        }
        let log = self.log();
        let tail: Vec<_> = log.lines().rev().take(40).collect();
        let tail: Vec<_> = tail.into_iter().rev().collect();
        panic!(
            "{}: after {seconds} s still waiting: {what}\nstatus: {}\nlog:\n{}",
            self.name,
            last.map_or("none".to_owned(), |status| format!("{status:#}")),
            tail.join("\n")
        );
    }

    /// Waits until it is steady at `revision`.
    #[track_caller]
    pub fn wait_steady(&self, revision: &str, seconds: u64) -> Value {
        self.wait(&format!("steady at {revision}"), seconds, |status| {
            status["phase"] == "steady" && status["revision"] == revision
        })
    }

    /// Waits until it is stalled at `revision`, with `failed` blocked.
    #[track_caller]
    pub fn wait_stalled(&self, at: &str, failed: &str, seconds: u64) -> Value {
        self.wait(&format!("stalled at {at} with {failed} blocked"), seconds, |status| {
            status["phase"] == "stalled"
                && status["revision"] == at
                && status["blocked"].as_array().is_some_and(|all| all.iter().any(|one| one["revision"] == failed))
        })
    }

    /// Tells the agent to fetch now.
    #[track_caller]
    pub fn sync(&self) {
        let output = self.call(&["sync", "--no-wait"]);
        assert!(output.status.success(), "sync: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until the agent answers on its socket.
    #[track_caller]
    pub fn wait_up(&self) {
        until(&format!("the agent of {} to answer", self.name), Duration::from_secs(20), || self.status().map(|_| ()));
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- the end of {}'s log", self.name);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}
