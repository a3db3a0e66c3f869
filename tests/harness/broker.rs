//! Mosquitto: a real MQTT broker, with TLS and without, and its stock clients.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::net::{answers, free_port};
use crate::process::{Running, run};
use crate::wait::until;

/// A certificate authority and a certificate that it signed.
#[derive(Clone, Debug)]
pub struct Certificates {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificates {
    /// Made by openssl in `folder`, for `localhost` and `127.0.0.1`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self::of(folder, "DNS:localhost,IP:127.0.0.1")
    }

    /// Made by openssl in `folder`, for `names` as its subjectAltName has them.
    #[must_use]
    pub fn of(folder: &Path, names: &str) -> Self {
        let path = |name: &str| folder.join(name);
        let openssl = |args: &str| {
            run(Command::new("openssl").current_dir(folder).args(args.split(' ')));
        };
        let alternatives = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\n");
        std::fs::write(path("server.ext"), alternatives).expect("an extension file");
        openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=test-ca",
        );
        openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout server.key -out server.csr -subj /CN=localhost",
        );
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 30 -extfile server.ext",
        );
        Self { ca: path("ca.pem"), certificate: path("server.pem"), key: path("server.key") }
    }
}

/// A broker on loopback.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    folder: PathBuf,
    certificates: Option<Certificates>,
    running: Option<Running>,
}

impl Broker {
    /// Started in `folder`; with `certificates`, over TLS.
    #[must_use]
    pub fn start(folder: &Path, certificates: Option<&Certificates>) -> Self {
        let mut broker =
            Self { port: free_port(), folder: folder.to_owned(), certificates: certificates.cloned(), running: None };
        broker.up();
        broker
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// As `agent.toml` has it.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.certificates.is_some() { "mqtts" } else { "mqtt" };
        format!("{scheme}://localhost:{}", self.port)
    }

    pub fn up(&mut self) {
        let mut config =
            format!("listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n", self.port);
        if let Some(certificates) = &self.certificates {
            let (certificate, key) = (certificates.certificate.display(), certificates.key.display());
            let _ = write!(config, "certfile {certificate}\nkeyfile {key}\n");
        }
        let path = self.folder.join("mosquitto.conf");
        std::fs::write(&path, config).expect("mosquitto.conf");
        let log = self.folder.join("mosquitto.log");
        self.running = Some(Running::start(Command::new("mosquitto").arg("-v").arg("-c").arg(path), &log));
        until("mosquitto answers", Duration::from_secs(10), || answers(self.port).then_some(()));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Publishes with QoS 1 as anybody might.
    pub fn publish(&self, topic: &str, payload: &[u8], retain: bool) {
        let mut command = Command::new("mosquitto_pub");
        self.address(&mut command);
        command.args(["-q", "1", "-s", "-t", topic]);
        if retain {
            command.arg("-r");
        }
        let mut child = command.stdin(Stdio::piped()).spawn().expect("mosquitto_pub starts");
        child.stdin.take().expect("its input").write_all(payload).expect("it reads");
        assert!(child.wait().expect("it ends").success(), "mosquitto_pub on {topic}");
    }

    /// Connects once, and publishes to `topic` with QoS 1 each time that it is told to.
    #[must_use]
    pub fn publisher(&self, topic: &str) -> Publisher {
        let mut command = Command::new("mosquitto_pub");
        self.address(&mut command);
        command.args(["-q", "1", "-l", "-t", topic]);
        Publisher { child: command.stdin(Stdio::piped()).spawn().expect("mosquitto_pub starts") }
    }

    /// Listens to `topic` from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &str) -> Subscription {
        let mut command = Command::new("mosquitto_sub");
        self.address(&mut command);
        command.args(["-v", "-q", "1", "-t", topic, "-t", "harness/ready"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("mosquitto_sub starts");
        let out = child.stdout.take().expect("its output");
        let messages = Arc::new(Mutex::new(Vec::new()));
        let sink = messages.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let (topic, payload) = line.split_once(' ').unwrap_or((&line, ""));
                sink.lock().expect("no panic").push((topic.to_owned(), payload.to_owned()));
            }
        });
        let subscription = Subscription { child, messages };
        until("mosquitto_sub is subscribed", Duration::from_secs(10), || {
            self.publish("harness/ready", b"1", false);
            subscription.all().iter().any(|(topic, _)| topic == "harness/ready").then_some(())
        });
        subscription
    }

    fn address(&self, command: &mut Command) {
        command.args(["-h", "localhost", "-p", &self.port.to_string()]);
        if let Some(certificates) = &self.certificates {
            command.arg("--cafile").arg(&certificates.ca);
        }
    }
}

/// A stock client that is connected and publishes.
#[derive(Debug)]
pub struct Publisher {
    child: Child,
}

impl Publisher {
    /// Publishes one line.
    pub fn publish(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("its input");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("it reads");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stock client receives.
#[derive(Debug)]
pub struct Subscription {
    child: Child,
    messages: Arc<Mutex<Vec<(String, String)>>>,
}

impl Subscription {
    /// Topics and payloads so far, the harness's own included.
    #[must_use]
    pub fn all(&self) -> Vec<(String, String)> {
        self.messages.lock().expect("no panic").clone()
    }

    /// Payloads of one topic so far.
    #[must_use]
    pub fn of(&self, topic: &str) -> Vec<String> {
        self.all().into_iter().filter(|(of, _)| of == topic).map(|(_, payload)| payload).collect()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
