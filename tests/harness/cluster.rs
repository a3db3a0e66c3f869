//! A real Kubernetes API server of a test's own: etcd, the API server and the
//! controllers, on loopback, in a folder that goes with the test (also when it
//! fails); with a node on demand, which runs real pods.
//!
//! What `KUBECONFIG` names is used where that is set, `k3s` where it is
//! installed; else the programs that `./dev cluster --build` builds from
//! `tests/cluster`. What can't be had is a panic, never a skip.
//!
//! A cluster costs seconds: tests of one suite share one, see
//! [`Cluster::shared`], and have a namespace each. Only a test that stops the
//! API server starts its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::process::{Running, has, run};
use crate::{bins, engine, net, wait};

/// A cluster that answers.
pub struct Cluster {
    kind: Kind,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
    /// Programs by name; those that are stopped are absent.
    programs: BTreeMap<&'static str, Running>,
    dir: TempDir,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Somebody else's, by `KUBECONFIG`: it is neither stopped nor started here.
    Given,
    K3s {
        port: u16,
        node: bool,
    },
    /// With the path of the program that is all its programs.
    Built(PathBuf),
}

/// What a token may do.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Rules in a namespace: (namespace, `rules` of a `Role`).
    pub namespaced: Vec<(String, Value)>,
    /// `rules` of a `ClusterRole`, bound for the whole cluster.
    pub everywhere: Option<Value>,
}

/// How long anything of a cluster may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

impl Cluster {
    /// An API server with its controllers: a `Deployment` gets its `ReplicaSet`
    /// and `Pod`s, which stay pending.
    ///
    /// # Panics
    /// When there is none to be had, or it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::started(false)
    }

    /// One whose pods run. Needs root and Debian's containerd.
    ///
    /// # Panics
    /// When there is none to be had, or its node does not become ready.
    #[must_use]
    pub fn start_with_node() -> Self {
        Self::started(true)
    }

    /// The cluster that all tests of this program share. It ends with the program.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::lasting(false))
    }

    /// As [`Cluster::shared`], with a node.
    ///
    /// # Panics
    /// As [`Cluster::start_with_node`].
    pub fn shared_with_node() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::lasting(true))
    }

    /// Statics are not dropped, and a child ends with the thread that made it:
    /// the cluster is started by a thread that stays, and its folder is removed
    /// by a process that sees this one end.
    fn lasting(node: bool) -> Self {
        let (give, take) = mpsc::channel();
        std::thread::spawn(move || {
            let _ = give.send(Self::started(node));
            loop {
                std::thread::park();
            }
        });
        let cluster = take.recv().expect("the cluster started");
        let mut remove = "cat; for i in $(seq 1 150); do rm -rf \"$1\" && exit; sleep 0.2; done".to_owned();
        if cluster.kind == Kind::Given {
            remove.insert_str(0, "cat; \"$2\" --kubeconfig \"$3\" delete namespaces -l \"test-run=$4\" --wait=false; ");
        }
        let remover = Command::new("setsid")
            .args(["sh", "-c", &remove, "sh"])
            .args([cluster.dir.path(), &cluster.kubectl, &cluster.kubeconfig])
            .arg(cluster.run_name())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        // Its input ends when this process does.
        std::mem::forget(remover.expect("sh and setsid"));
        cluster
    }

    fn started(node: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("burgee-cluster-").tempdir().expect("a folder for the cluster");
        let (kind, kubectl, kubeconfig) = if let Some(given) = std::env::var_os("KUBECONFIG") {
            let kubectl = if has("kubectl") { "kubectl".into() } else { built().with_file_name("kubectl") };
            (Kind::Given, kubectl, PathBuf::from(given))
        } else if has("k3s") {
            let kubectl = dir.path().join("kubectl");
            let k3s = run(Command::new("sh").args(["-c", "command -v k3s"]));
            std::os::unix::fs::symlink(k3s.trim(), &kubectl).expect("a link");
            (Kind::K3s { port: net::free_port(), node }, kubectl, dir.path().join("admin.kubeconfig"))
        } else {
            let kube = built();
            let kubectl = kube.with_file_name("kubectl");
            run(Command::new(&kube).arg("prepare").arg(dir.path()));
            (Kind::Built(kube), kubectl, dir.path().join("admin.kubeconfig"))
        };
        let mut cluster = Self { kind, kubectl, kubeconfig, programs: BTreeMap::new(), dir };
        match cluster.kind {
            Kind::Given => cluster.wait_for("--api"),
            Kind::K3s { .. } => cluster.spawn("k3s", Signal::TERM),
            Kind::Built(_) => {
                cluster.spawn("etcd", Signal::KILL);
                // The API server would be a second in coming back to one that is late.
                let socket = cluster.dir.path().join("etcd.sock");
                wait::until("etcd's socket", PATIENCE, || UnixStream::connect(&socket).ok());
                cluster.spawn("kube-apiserver", Signal::KILL);
                // The controllers end where they don't find it.
                cluster.wait_for("--api");
                cluster.spawn("kube-controller-manager", Signal::KILL);
                if node {
                    cluster.spawn("kube-scheduler", Signal::KILL);
                    // It has bridges and cgroups to take away.
                    cluster.spawn("node", Signal::TERM);
                }
            }
        }
        cluster.wait_for(if node { "--node" } else { "--controllers" });
        cluster
    }

    /// Starts a program that ends when the thread that called this ends,
    /// whatever happens to Drop.
    fn spawn(&mut self, name: &'static str, end: Signal) {
        let dir = self.dir.path();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", if end == Signal::KILL { "KILL" } else { "TERM" }]);
        match &self.kind {
            Kind::Given => panic!("KUBECONFIG is set: that cluster is not started or stopped here"),
            Kind::K3s { port, node } => {
                command.args(["k3s", "server", "--bind-address", "127.0.0.1", "--disable-network-policy"]);
                command.args(["--disable-cloud-controller", "--write-kubeconfig-mode", "600"]);
                command.args(["--disable", "traefik,servicelb,metrics-server,local-storage,coredns"]);
                command.args(["--https-listen-port", &port.to_string()]);
                command.arg("--data-dir").arg(dir.join("k3s")).arg("--write-kubeconfig").arg(&self.kubeconfig);
                command.args((!node).then_some("--disable-agent"));
            }
            Kind::Built(kube) => {
                command.arg(kube).args(["start", name]).arg(dir);
            }
        }
        let running = Running::start(&mut command, &dir.join(format!("{name}.log")));
        self.programs.insert(name, running);
    }

    fn wait_for(&self, extent: &str) {
        if let Kind::Built(kube) = &self.kind {
            let output = Command::new(kube).args(["wait", extent]).arg(self.dir.path()).output().expect("kube");
            assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stderr), self.last_words());
            return;
        }
        wait::until("the API server's /readyz", PATIENCE, || {
            self.try_kubectl(&["--request-timeout=5s", "get", "--raw", "/readyz"]).ok()
        });
        if extent != "--api" {
            wait::until("the controllers", PATIENCE, || self.try_kubectl(&["get", "serviceaccount", "default"]).ok());
        }
        if extent == "--node" {
            wait::until("a ready node", PATIENCE, || {
                self.try_kubectl(&["wait", "--for=condition=Ready", "node", "--all", "--timeout=5s"]).ok()
            });
        }
    }

    fn last_words(&self) -> String {
        let last = |name: &str| {
            let log = self.log(name);
            let lines: Vec<&str> = log.lines().rev().take(15).collect();
            format!("-- {name}:\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        self.programs.keys().map(|name| last(name)).collect()
    }

    /// What one of its programs wrote: `etcd`, `kube-apiserver`,
    /// `kube-controller-manager`, `kube-scheduler`, `node`; or `k3s`.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        fs::read_to_string(self.dir.path().join(format!("{program}.log"))).unwrap_or_default()
    }

    /// The administrator's, with a client certificate.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    /// Tells this cluster's namespaces from those of other tests on the same one.
    fn run_name(&self) -> String {
        self.dir.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The program that [`Cluster::kubectl`] runs.
    #[must_use]
    pub fn kubectl_program(&self) -> PathBuf {
        self.kubectl.clone()
    }

    /// Where the API server listens, as `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.of_kubeconfig("{.clusters[0].cluster.server}")
    }

    /// The certificate that the API server's is signed with, PEM.
    ///
    /// # Panics
    /// When the kubeconfig has none.
    #[must_use]
    pub fn ca(&self) -> String {
        let encoded = self.of_kubeconfig("{.clusters[0].cluster.certificate-authority-data}");
        let bytes = STANDARD.decode(encoded).expect("certificate-authority-data");
        String::from_utf8(bytes).expect("PEM")
    }

    fn of_kubeconfig(&self, path: &str) -> String {
        self.kubectl(&["config", "view", "--raw", "--minify", "-o", &format!("jsonpath={path}")])
    }

    /// The administrator's kubeconfig with another port, for a proxy on
    /// loopback: the server's certificate holds there, too.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn kubeconfig_via(&self, port: u16) -> PathBuf {
        let path = self.dir.path().join(format!("via-{port}.kubeconfig"));
        let text = self.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{port}"));
        fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// Runs kubectl as the administrator; what it printed.
    ///
    /// # Panics
    /// With what it said, when it fails.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args).unwrap_or_else(|said| panic!("kubectl {}: {said}", args.join(" ")))
    }

    /// Runs kubectl as the administrator; what it said, when it fails.
    pub fn try_kubectl(&self, args: &[&str]) -> Result<String, String> {
        self.ask(&self.kubeconfig, args, "")
    }

    /// Runs kubectl with another kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &Path, args: &[&str]) -> Result<String, String> {
        self.ask(kubeconfig, args, "")
    }

    /// `kubectl apply --server-side` of these manifests.
    ///
    /// # Panics
    /// With what it said, when it fails.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        let args = ["apply", "--server-side", "--field-manager=test", "-f", "-"];
        self.ask(&self.kubeconfig, &args, manifests).unwrap_or_else(|said| panic!("kubectl apply: {said}\n{manifests}"))
    }

    /// An object as the API server has it; null where it has none.
    ///
    /// # Panics
    /// When the API server doesn't answer.
    #[track_caller]
    #[must_use]
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Value {
        let text = self.kubectl(&["get", kind, name, "--namespace", namespace, "--ignore-not-found", "-o", "json"]);
        if text.trim().is_empty() { Value::Null } else { serde_json::from_str(&text).expect("JSON") }
    }

    fn ask(&self, kubeconfig: &Path, args: &[&str], input: &str) -> Result<String, String> {
        let mut child = Command::new(&self.kubectl)
            .args(args)
            .env("KUBECONFIG", kubeconfig)
            .env("KUBERC", "off")
            .env("KUBECACHEDIR", self.dir.path().join("kubectl-cache"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {}: {error}", self.kubectl.display()));
        let mut stdin = child.stdin.take().expect("its input");
        // It may have ended without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().expect("kubectl");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        if status.success() { Ok(stdout) } else { Err(format!("{stdout}{}", String::from_utf8_lossy(&stderr))) }
    }

    /// A fresh namespace, with what the controllers put into each: from then on
    /// only tests change it.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn namespace(&self) -> String {
        let mut random = [0; 5];
        getrandom::fill(&mut random).expect("a random number");
        let name = random.iter().fold("test-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let labels = json!({"test-run": self.run_name()});
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        self.apply(&made.to_string());
        wait::until("what every namespace gets", PATIENCE, || {
            let both = ["get", "serviceaccount/default", "configmap/kube-root-ca.crt", "--namespace", &name];
            self.try_kubectl(&both).ok()
        });
        name
    }

    /// A kubeconfig with the token of a new service account in `namespace`,
    /// which may do what `rules` say and nothing else. The token holds for a day.
    ///
    /// # Panics
    /// When it can't be made.
    #[must_use]
    pub fn user(&self, namespace: &str, name: &str, rules: &Rules) -> PathBuf {
        let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
        let rbac = "rbac.authorization.k8s.io";
        let mut objects = vec![json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace},
        })];
        let mut grant = |kind: &str, meta: Value, rules: &Value| {
            objects.push(json!({"apiVersion": format!("{rbac}/v1"), "kind": kind, "metadata": meta, "rules": rules}));
            objects.push(json!({
                "apiVersion": format!("{rbac}/v1"), "kind": format!("{kind}Binding"), "metadata": meta,
                "roleRef": {"apiGroup": rbac, "kind": kind, "name": meta["name"]}, "subjects": subjects,
            }));
        };
        for (at, rules) in &rules.namespaced {
            grant("Role", json!({"name": format!("{namespace}.{name}"), "namespace": at}), rules);
        }
        if let Some(rules) = &rules.everywhere {
            grant("ClusterRole", json!({"name": format!("{namespace}.{name}")}), rules);
        }
        self.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string());
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=24h"]);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.address(), "certificate-authority-data": STANDARD.encode(self.ca()),
            }}],
            "users": [{"name": name, "user": {"token": token.trim()}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": namespace}}],
        });
        let path = self.dir.path().join(format!("{namespace}.{name}.kubeconfig"));
        fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// Ends the API server as a service manager would, and waits for it.
    ///
    /// # Panics
    /// When the cluster is somebody else's, or it is stopped already.
    pub fn stop_api(&mut self) {
        self.api().stop(Duration::from_secs(30));
        self.programs.remove(self.api_name());
    }

    /// SIGKILL to the API server.
    ///
    /// # Panics
    /// As [`Cluster::stop_api`].
    pub fn kill_api(&mut self) {
        self.api().kill();
        self.programs.remove(self.api_name());
    }

    /// Starts it anew, on the same port with the same data, and waits until it
    /// is ready.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_api(&mut self) {
        let (name, end) =
            if self.api_name() == "k3s" { ("k3s", Signal::TERM) } else { ("kube-apiserver", Signal::KILL) };
        self.spawn(name, end);
        self.wait_for("--controllers");
    }

    /// Makes the API server hang (SIGSTOP): it takes connections and answers none.
    ///
    /// # Panics
    /// As [`Cluster::stop_api`].
    pub fn pause_api(&mut self) {
        let pid = self.api().pid();
        self.api().signal(Signal::STOP);
        let stopped = |status: String| status.lines().any(|line| line.starts_with("State:\tT"));
        wait::until("the API server to hang", Duration::from_secs(10), || {
            fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(stopped).then_some(())
        });
    }

    /// Ends [`Cluster::pause_api`].
    ///
    /// # Panics
    /// As [`Cluster::stop_api`].
    pub fn resume_api(&mut self) {
        self.api().signal(Signal::CONT);
    }

    /// The API server's process, for what it uses.
    ///
    /// # Panics
    /// As [`Cluster::stop_api`].
    #[must_use]
    pub fn api_pid(&mut self) -> u32 {
        self.api().pid()
    }

    fn api_name(&self) -> &'static str {
        if matches!(self.kind, Kind::K3s { .. }) { "k3s" } else { "kube-apiserver" }
    }

    fn api(&mut self) -> &mut Running {
        let name = self.api_name();
        assert!(self.kind != Kind::Given, "KUBECONFIG is set: that cluster is not started or stopped here");
        self.programs.get_mut(name).unwrap_or_else(|| panic!("{name} is stopped"))
    }

    /// Makes an image of busybox with these files (path, content) on the node.
    /// Pods use it with `imagePullPolicy: Never` or `IfNotPresent`.
    ///
    /// # Panics
    /// When there is no node, or it doesn't take it.
    pub fn image(&self, reference: &str, files: &[(&str, &str)]) {
        assert!(self.programs.contains_key("node"), "images need a node that was started here");
        let layer = engine::busybox(files);
        let digest = Sha256::digest(&layer).iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let config = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" }, "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        });
        let manifest = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("layer.tar"), layer).expect("a layer");
        fs::write(root.path().join("config.json"), config.to_string()).expect("a configuration");
        fs::write(root.path().join("manifest.json"), manifest.to_string()).expect("a manifest");
        let tar = root.path().join("image.tar");
        run(Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(&tar).args([
            "config.json",
            "layer.tar",
            "manifest.json",
        ]));
        let socket = self.dir.path().join("containerd.sock");
        run(Command::new("ctr")
            .arg("--address")
            .arg(socket)
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(tar));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.kind == Kind::Given {
            let ours = format!("test-run={}", self.run_name());
            let _ = self.try_kubectl(&["delete", "namespaces", "-l", &ours, "--wait=false"]);
        }
        // The node and k3s clear up after themselves; the others' data goes with the folder.
        for name in ["node", "k3s"] {
            if let Some(mut running) = self.programs.remove(name) {
                running.signal(Signal::CONT);
                running.stop(Duration::from_secs(30));
            }
        }
        for name in ["kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"] {
            if let Some(mut running) = self.programs.remove(name) {
                running.kill();
            }
        }
    }
}

/// The program that is all programs of a cluster; built where it is not there.
fn built() -> PathBuf {
    let mut dev = Command::new(bins::root().join("dev"));
    PathBuf::from(run(dev.args(["cluster", "--build"])).trim())
}
