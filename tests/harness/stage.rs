//! The usual set-up: a Git host, a signed fleet repository with one app of the
//! files runtime (which needs no engine), and a device of it.

use serde_json::Value;

use crate::device::{Device, Setup};
use crate::forge::Forge;
use crate::hub::Hub;
use crate::net::welcoming_port;
use crate::repo::Repo;

/// A fleet repository with one files app on a Git host, and a device of it.
pub struct Stage {
    // Ends first: a device whose host is gone only logs.
    pub device: Device,
    pub forge: Forge,
    pub repo: Repo,
    pub folder: tempfile::TempDir,
    /// A port that answers.
    pub healthy: u16,
}

impl Stage {
    /// One that polls every two seconds; nothing runs, nothing is pushed.
    #[must_use]
    pub fn new() -> Self {
        Self::with("")
    }

    /// The same with more tables in `agent.toml`.
    #[must_use]
    pub fn with(toml: &str) -> Self {
        Self::set_up(|setup| setup.poll(2).with(toml))
    }

    /// One whose `agent.toml` is changed by `change` first.
    #[must_use]
    pub fn set_up(change: impl FnOnce(Setup) -> Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let forge = Forge::start(folder.path());
        let repo = Repo::trusted(folder.path());
        let healthy = welcoming_port();
        let setup = change(Setup::new("store-1", &forge.url(), &repo.signer.line()));
        let device = Device::new(folder.path(), &setup);
        let stage = Self { device, forge, repo, folder, healthy };
        stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web]\n");
        stage.content("one", true);
        stage
    }

    /// The app's one file and its check: a port that answers, or one that doesn't.
    pub fn content(&self, text: &str, good: bool) {
        let port = if good { self.healthy } else { 1 };
        self.repo.write("apps/web/files/etc/page.txt", &format!("{text}\n"));
        self.repo.write(
            "apps/web/app.yaml",
            &format!(
                "runtime: files\nfiles:\n  - {{from: etc/, to: /etc/web/}}\nhealth:\n  timeout: 2s\n  soak: 500ms\n  checks:\n    - {{tcp: \"127.0.0.1:{port}\"}}\n"
            ),
        );
    }

    /// Commits and pushes, by force; the commit's id.
    pub fn push(&self, message: &str) -> String {
        let id = self.repo.commit(message);
        self.repo.push(&self.forge.url(), true);
        id
    }

    /// What the device has of the app.
    #[must_use]
    pub fn page(&self) -> String {
        std::fs::read_to_string(self.device.folder.join("root/etc/web/page.txt")).unwrap_or_default()
    }

    /// Pushes another content and tells the device.
    pub fn change(&self, text: &str, good: bool) -> String {
        self.content(text, good);
        let id = self.push(text);
        self.device.sync();
        id
    }

    /// A device of fleet `retail` that has joined `hub` and runs its first
    /// revision, connected where the hub has a broker.
    #[track_caller]
    #[must_use]
    pub fn joined(hub: &Hub, change: impl FnOnce(Setup) -> Setup) -> Self {
        let mut stage = Self::set_up(|setup| change(setup.with(&format!("[hub]\nurl = \"{}\"", hub.url()))));
        stage.repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        let first = stage.push("one");
        let trust = stage.device.folder.join("allowed_signers").display().to_string();
        let token = hub.token(&["--uses", "1"]);
        let joined = stage.device.call(&["enroll", "--hub", &hub.url(), "--token", &token, "--trust", &trust]);
        assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
        stage.device.start();
        stage.device.wait_steady(&first, 60);
        stage
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// A condition of a status, by its type.
#[must_use]
pub fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
