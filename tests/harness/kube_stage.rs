//! A device with Kubernetes apps in a namespace of its own, and a Git host.

use std::path::Path;
use std::process::Command;

use crate::cluster::Cluster;
use crate::device::{Device, Setup};
use crate::forge::Forge;
use crate::repo::Repo;
use serde_json::{Value, json};

/// See the module.
pub struct Stage {
    pub device: Device,
    pub repo: Repo,
    pub forge: Forge,
    pub space: String,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// Apps by name, each with lines for its `app.yaml`. Nothing is pushed yet.
    pub fn new(cluster: &Cluster, apps: &[(&str, &str)]) -> Self {
        Self::with(cluster, apps, "")
    }

    /// With more of `agent.toml`.
    pub fn with(cluster: &Cluster, apps: &[(&str, &str)], more: &str) -> Self {
        Self::by(&cluster.kubeconfig(), &cluster.kubectl_program(), cluster.namespace(), apps, more)
    }

    /// By another way to the server.
    pub fn by(kubeconfig: &Path, kubectl: &Path, space: String, apps: &[(&str, &str)], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let forge = Forge::start(folder.path());
        let repo = Repo::trusted(folder.path());
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        let names: Vec<&str> = apps.iter().map(|(name, _)| *name).collect();
        repo.write(
            "groups/all.yaml",
            &format!("selector: {{matchLabels: {{role: test}}}}\napps: [{}]\n", names.join(", ")),
        );
        let setup = Setup::new("store-1", &forge.url(), &repo.signer.line())
            .with(&format!("[runtime.kubernetes]\nkubeconfig = \"{}\"\n{more}", kubeconfig.display()));
        let device = Device::new(folder.path(), &setup);
        let stage = Self { device, repo, forge, space, _folder: folder };
        for (name, lines) in apps {
            stage.app(name, lines);
        }
        let bin = stage.device.folder.join("bin");
        std::fs::create_dir_all(&bin).expect("a folder");
        std::os::unix::fs::symlink(kubectl, bin.join("kubectl")).expect("a link");
        stage
    }

    /// Writes an `app.yaml`: these lines, and what they don't say.
    pub fn app(&self, name: &str, lines: &str) {
        let health = if lines.contains("health:") { "" } else { "health: {timeout: 6s, soak: 300ms}\n" };
        let text = format!("runtime: kubernetes\nnamespace: {}\n{health}{lines}", self.space);
        self.repo.write(&format!("apps/{name}/app.yaml"), &text);
    }

    /// Writes a manifest of several objects.
    pub fn manifest(&self, app: &str, file: &str, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.repo.write(&format!("apps/{app}/kubernetes/{file}"), &text.join("\n---\n"));
    }

    /// Commits, pushes, and has the device fetch; the new head.
    pub fn push(&mut self, message: &str) -> String {
        let head = self.repo.commit(message);
        self.repo.push(&self.forge.url(), true);
        if self.device.is_alive() {
            self.device.sync();
        } else {
            self.start();
        }
        head
    }

    /// [`Stage::push`], until the device is steady there.
    #[track_caller]
    pub fn pushed(&mut self, message: &str) -> String {
        let head = self.push(message);
        self.device.wait_steady(&head, 90);
        head
    }

    /// Starts the agent; `kubectl` is the device's own.
    pub fn start(&mut self) {
        self.start_with(|_, _| {});
    }

    /// The same, with more to its command line.
    pub fn start_with(&mut self, more: impl FnOnce(&Device, &mut Command)) {
        let mut command = self.device.command(&["run"]);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.device.folder.join("bin").display()));
        more(&self.device, &mut command);
        self.device.start_by(command);
        self.device.wait_up();
    }
}

/// A `ConfigMap` with one value.
pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

/// A `Deployment` whose image nobody has.
pub fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "web", "image": "localhost/nobody:1"}]},
            },
        },
    })
}

/// A definition of `Widget` in a group.
pub fn widget_definition(group: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}
