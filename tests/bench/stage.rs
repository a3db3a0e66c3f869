//! A device that has joined a hub, over MQTT with TLS through Mosquitto, and
//! with everything that it sends and gets counted.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use harness::broker::{Broker, Certificates};
use harness::device::{Device, Setup};
use harness::forge::Forge;
use harness::hub::Hub;
use harness::process::run;
use harness::repo::Repo;

/// See the module.
pub(crate) struct Stage {
    pub(crate) device: Device,
    pub(crate) repo: Repo,
    pub(crate) forge: Forge,
    pub(crate) broker: Broker,
    /// Bytes to and from the Git host, and the broker.
    pub(crate) git: Arc<AtomicU64>,
    pub(crate) mqtt: Arc<AtomicU64>,
    _hub: Hub,
    _folder: tempfile::TempDir,
}

impl Stage {
    /// With the files of `repo` pushed; the device runs the first commit.
    pub(crate) fn new(files: &[(&str, &str)], more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let certificates = Certificates::new(folder.path());
        let broker = Broker::start(folder.path(), Some(&certificates));
        let ca = certificates.ca.display().to_string();
        let hub =
            Hub::start_with(&format!("listen = \"127.0.0.1:0\"\n[mqtt]\nurl = {:?}\nca_file = {ca:?}\n", broker.url()));
        let forge = Forge::start(folder.path());
        let repo = Repo::trusted(folder.path());
        repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        for (path, text) in files {
            repo.write(path, text);
        }
        let head = repo.commit("first");
        repo.push(&forge.url(), true);
        let (git_port, git) = counting_proxy(forge.port);
        let (mqtt_port, mqtt) = counting_proxy(broker.port());
        let setup = Setup::new("store-1", &format!("http://127.0.0.1:{git_port}/fleet.git"), &repo.signer.line()).with(
            &format!(
                "[hub]\nurl = \"{}\"\n[mqtt]\nurl = \"mqtts://localhost:{mqtt_port}\"\nca_file = {ca:?}\n{more}",
                hub.url()
            ),
        );
        let mut device = Device::new(folder.path(), &setup);
        let trust = device.folder.join("allowed_signers").display().to_string();
        let token = hub.token(&["--uses", "1"]);
        run(&mut device.command(&["enroll", "--hub", &hub.url(), "--token", &token, "--trust", &trust]));
        device.start();
        device.wait_steady(&head, 120);
        device.wait("MQTT", 30, |status| status["link"]["mqtt"] == "up");
        Self { device, repo, forge, broker, git, mqtt, _hub: hub, _folder: folder }
    }

    /// Commits and pushes; the new head.
    pub(crate) fn push(&self, message: &str) -> String {
        let head = self.repo.commit(message);
        self.repo.push(&self.forge.url(), true);
        head
    }
}

/// Counts what passes through to `port`, in both directions.
pub(crate) fn counting_proxy(port: u16) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (here, count) = (listener.local_addr().expect("an address").port(), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Ok(other) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            // A delayed acknowledgement is no part of what is measured.
            for one in [&stream, &other] {
                one.set_nodelay(true).expect("a socket option");
            }
            for (mut from, mut to) in [(stream.try_clone(), other.try_clone()), (Ok(other), Ok(stream))]
                .map(|(a, b)| (a.expect("a"), b.expect("b")))
            {
                let counter = Arc::clone(&counter);
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(read) = from.read(&mut buffer) {
                        if read == 0 || to.write_all(&buffer[..read]).is_err() {
                            break;
                        }
                        counter.fetch_add(read as u64, Ordering::Relaxed);
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (here, count)
}
