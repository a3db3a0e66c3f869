//! Real container engines of a test's own: a `dockerd`, a Podman service, and
//! a registry on loopback, each with its own folders and sockets, gone when
//! the test ends (also when it fails).
//!
//! Images are made on the spot from `busybox-static`; nothing is downloaded.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Docker,
    Podman,
}

/// A running engine.
pub struct Engine {
    pub kind: Kind,
    dir: TempDir,
    child: Option<Child>,
    registries: Vec<u16>,
    /// Podman's bridges have fixed names: one instance at a time.
    _alone: Option<File>,
}

/// The programs in a test image.
const APPLETS: [&str; 14] =
    ["sh", "httpd", "sleep", "cat", "echo", "true", "false", "wget", "id", "ls", "test", "touch", "stat", "mount"];

impl Engine {
    /// Starts an engine that takes images from registries on these loopback
    /// ports without TLS.
    ///
    /// # Panics
    /// When the engine is not installed or does not come up.
    #[must_use]
    pub fn start(kind: Kind, registries: &[u16]) -> Self {
        let dir = tempfile::Builder::new().prefix("burgee-engine-").tempdir().expect("a folder for the engine");
        let alone = (kind == Kind::Podman).then(|| {
            let file = File::create(std::env::temp_dir().join("burgee-podman.lock")).expect("a lock file");
            file.lock().expect("the lock");
            file
        });
        let mut engine = Self { kind, dir, child: None, registries: registries.to_vec(), _alone: alone };
        engine.spawn();
        engine
    }

    /// Where it listens, as `unix://…`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("engine.sock")
    }

    fn spawn(&mut self) {
        let dir = self.dir.path();
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("the engine's log");
        // The engine goes when the thread that made it goes, whatever happens to Drop.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        match self.kind {
            Kind::Docker => {
                let mut octet = [0; 1];
                getrandom::fill(&mut octet).expect("a random number");
                command
                    .arg("dockerd")
                    .arg("--data-root")
                    .arg(dir.join("data"))
                    .arg("--exec-root")
                    .arg(dir.join("exec"))
                    .arg("--pidfile")
                    .arg(dir.join("pid"))
                    .args(["--host", &self.address()])
                    // Published ports go through the proxy: nobody's firewall is touched.
                    .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
                    .args(["--default-address-pool", &format!("base=10.{}.0.0/16,size=24", 100 + octet[0] % 100)]);
            }
            Kind::Podman => {
                let path = |name: &str| dir.join(name).display().to_string();
                let conf = format!(
                    "[containers]\ndefault_ulimits = [\"nofile=4096:4096\", \"nproc=4096:4096\"]\n\
                     [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
                     [network]\nnetwork_config_dir = \"{}\"\n",
                    path("net")
                );
                fs::write(dir.join("containers.conf"), conf).expect("containers.conf");
                let insecure = |port: &u16| format!("[[registry]]\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n");
                let registries: String = self.registries.iter().map(insecure).collect();
                fs::write(dir.join("registries.conf"), registries).expect("registries.conf");
                fs::write(dir.join("policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)
                    .expect("policy");
                command
                    .env("CONTAINERS_CONF", dir.join("containers.conf"))
                    .env("CONTAINERS_REGISTRIES_CONF", dir.join("registries.conf"))
                    .args(["podman", "--root", &path("root"), "--runroot", &path("run"), "--tmpdir", &path("tmp")])
                    .args(["system", "service", "--time=0", &self.address()]);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the engine's log"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{:?} needs docker.io, podman and util-linux installed: {error}", self.kind)
            });
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.answers() {
            if Instant::now() > deadline {
                panic!("{:?} did not come up:\n{}", self.kind, self.log());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn answers(&self) -> bool {
        self.try_request("GET", "/_ping", "", &[]).is_some_and(|(status, _)| status == 200)
    }

    /// What the engine wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Ends the engine as a service manager would, and waits for it.
    pub fn stop(&mut self) {
        self.resume();
        let Some(mut child) = self.child.take() else { return };
        signal(child.id(), rustix::process::Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = fs::remove_file(self.dir.path().join("engine.sock"));
    }

    /// Starts it anew after [`Engine::stop`].
    pub fn start_again(&mut self) {
        self.spawn();
    }

    /// Makes it hang (SIGSTOP).
    pub fn pause(&self) {
        if let Some(child) = &self.child {
            signal(child.id(), rustix::process::Signal::STOP);
            let stopped = |status: String| status.lines().any(|line| line.starts_with("State:\tT"));
            while !fs::read_to_string(format!("/proc/{}/status", child.id())).is_ok_and(stopped) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Ends [`Engine::pause`].
    pub fn resume(&self) {
        if let Some(child) = &self.child {
            signal(child.id(), rustix::process::Signal::CONT);
        }
    }

    /// Makes an image of busybox with these files (path, content) and tags it.
    /// Returns its id.
    ///
    /// # Panics
    /// When the engine doesn't take it.
    pub fn image(&self, reference: &str, files: &[(&str, &str)]) -> String {
        let tar = busybox(files);
        let (name, tag) = reference.rsplit_once(':').expect("a tag");
        let (status, body) =
            self.try_request("POST", "/images/create?fromSrc=-", "application/x-tar", &tar).expect("an answer");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 200, "{text}");
        let last: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect("JSON");
        let id = last["status"].as_str().expect("an id").to_owned();
        self.request("POST", &format!("/images/{id}/tag?repo={name}&tag={tag}"), None);
        id
    }

    /// Pushes a tagged image to its registry.
    ///
    /// # Panics
    /// When that fails.
    pub fn push(&self, reference: &str) {
        let (name, tag) = reference.rsplit_once(':').expect("a tag");
        let path = format!("/images/{name}/push?tag={tag}&tlsVerify=false");
        let (status, body) = self.try_request("POST", &path, "application/json", b"").expect("an answer");
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(status == 200 && !text.contains("\"error\""), "push {reference}: {status} {text}");
    }

    /// One request to the engine's API; panics on an error status.
    ///
    /// # Panics
    /// When the engine refuses or doesn't answer.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let (status, answer) = self
            .try_request(method, path, "application/json", &bytes)
            .unwrap_or_else(|| panic!("{method} {path}: no answer\n{}", self.log()));
        let text = String::from_utf8_lossy(&answer);
        assert!(status < 400, "{method} {path}: {status} {text}");
        serde_json::from_slice(&answer).unwrap_or(Value::Null)
    }

    /// Status and body; `None` where nobody answers.
    #[must_use]
    pub fn try_request(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
        // Registries are asked without credentials: {} in URL-safe base64.
        let head = format!(
            "{method} /v1.41{path} HTTP/1.0\r\nHost: engine\r\nX-Registry-Auth: e30=\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = String::from_utf8_lossy(&answer[..end]).split(' ').nth(1)?.parse().ok()?;
        Some((status, answer[end + 4..].to_vec()))
    }

    /// Every container, as `/containers/json?all=true` shows it.
    #[must_use]
    pub fn containers(&self) -> Vec<Value> {
        self.request("GET", "/containers/json?all=true", None).as_array().cloned().unwrap_or_default()
    }

    /// (name, id, state) of every container, by name.
    #[must_use]
    pub fn names(&self) -> Vec<(String, String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().trim_start_matches('/').to_owned();
        let mut names: Vec<_> =
            self.containers().iter().map(|it| (text(&it["Names"][0]), text(&it["Id"]), text(&it["State"]))).collect();
        names.sort();
        names
    }

    /// Runs a command in a container and returns what it wrote.
    ///
    /// # Panics
    /// When the engine refuses.
    #[must_use]
    pub fn exec(&self, container: &str, command: &[&str]) -> String {
        let made = json!({"AttachStdout": true, "AttachStderr": true, "Tty": true, "Cmd": command});
        let made = self.request("POST", &format!("/containers/{container}/exec"), Some(&made));
        let path = format!("/exec/{}/start", made["Id"].as_str().expect("an id"));
        let body = json!({"Detach": false, "Tty": true}).to_string();
        let (_, output) = self.try_request("POST", &path, "application/json", body.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&output).replace('\r', "")
    }
}

/// A root file system of busybox with these files (path, content), as a tar
/// archive.
///
/// # Panics
/// When `busybox-static` is not installed.
#[must_use]
pub fn busybox(files: &[(&str, &str)]) -> Vec<u8> {
    let root = tempfile::tempdir().expect("a folder");
    let bin = root.path().join("bin");
    fs::create_dir_all(&bin).expect("bin");
    for folder in ["etc", "tmp", "www", "proc", "dev", "sys"] {
        fs::create_dir_all(root.path().join(folder)).expect("folders");
    }
    fs::copy("/usr/bin/busybox", bin.join("busybox"))
        .or_else(|_| fs::copy("/bin/busybox", bin.join("busybox")))
        .expect("busybox-static");
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).expect("links");
    }
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        fs::write(path, content).expect("a file");
    }
    Command::new("tar").arg("-C").arg(root.path()).args(["-c", "."]).output().expect("tar").stdout
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.resume();
        if !self.answers() && self.child.is_none() {
            self.spawn();
        }
        let gone = |value: &Value, key: &str, path: &str, more: &str| {
            if let Some(name) = value[key].as_str() {
                let _ = self.try_request("DELETE", &format!("/{path}/{name}{more}"), "", b"");
            }
        };
        // Dependents first: two rounds reach all.
        for _ in 0..2 {
            for it in self.try_list("/containers/json?all=true") {
                gone(&it, "Id", "containers", "?force=true&v=true");
            }
        }
        // Podman's bridges stay on the host otherwise.
        for it in self.try_list("/networks") {
            if !matches!(it["Name"].as_str(), Some("bridge" | "host" | "none" | "podman")) {
                gone(&it, "Id", "networks", "");
            }
        }
        self.stop();
        let root = self.dir.path().display().to_string();
        // Podman's monitors of finished `exec`s linger for minutes.
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&root) {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut points: Vec<&str> =
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&root)).collect();
        points.sort_unstable_by_key(|at| std::cmp::Reverse(at.len()));
        for point in points {
            let _ = Command::new("umount").args(["-l", point]).status();
        }
    }
}

impl Engine {
    fn try_list(&self, path: &str) -> Vec<Value> {
        let answer = self.try_request("GET", path, "", b"").map(|(_, body)| body).unwrap_or_default();
        serde_json::from_slice::<Value>(&answer).ok().and_then(|it| it.as_array().cloned()).unwrap_or_default()
    }
}

/// Debian's `docker-registry` on a free loopback port.
pub struct Registry {
    pub port: u16,
    dir: TempDir,
    child: Option<Child>,
    guarded: bool,
}

impl Registry {
    /// # Panics
    /// When it is not installed or does not come up.
    #[must_use]
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
        let mut registry = Self { port, dir: tempfile::tempdir().expect("a folder"), child: None, guarded: false };
        registry.start_again();
        registry
    }

    /// Restarts it so that it asks for [`Registry::USER`] and [`Registry::PASSWORD`].
    pub fn guard(&mut self) {
        self.stop();
        self.guarded = true;
        self.start_again();
    }

    pub const USER: &str = "till";
    /// Its base64 has characters that differ between the two alphabets.
    pub const PASSWORD: &str = "s3?>~>?>~cret";

    /// An image's name in this registry.
    #[must_use]
    pub fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        let dir = self.dir.path();
        let users = dir.join("htpasswd");
        // bcrypt of the password above.
        fs::write(&users, "till:$2b$04$SyOypY0qPKuXbSuc0A1cNuLUYbKFGHZN0i3YLNMbFtM0EZNdSR8wu\n").expect("htpasswd");
        let auth = match self.guarded {
            true => format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display()),
            false => String::new(),
        };
        let conf = format!(
            "{auth}version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\n\
             http: {{addr: '127.0.0.1:{}'}}\n",
            dir.join("data").display(),
            self.port
        );
        fs::write(dir.join("config.yml"), conf).expect("config.yml");
        let log = File::create(dir.join("log")).expect("a log");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(dir.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "{}", fs::read_to_string(dir.join("log")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Takes it down; what was pushed stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// A GET to a published port; the body.
///
/// # Panics
/// When nothing answers within ten seconds.
#[must_use]
pub fn get(port: u16) -> String {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(body) = try_get(port) {
            return body;
        }
        assert!(Instant::now() < deadline, "nothing answers on port {port}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn try_get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// A port that nobody listens on right now.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port()
}
