//! The source against real repositories and stock Git: what is kept between
//! fetches, what is written, and what happens to damage. The rules themselves
//! are judged in `tests/suite/trust.rs`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use fleet::revision::CommitId;
use jiff::Timestamp;
use tempfile::TempDir;

use super::GitSource;
use crate::config::settings::{Limits, SourceSettings};
use crate::ports::Reason as _;
use crate::ports::journal::Accepted;
use crate::ports::source::{Fetched, Source as _, SourceError};

/// A fleet repository, a device's root of trust, and a folder for the clone.
struct Fleet {
    folder: TempDir,
}

impl Fleet {
    fn new() -> Self {
        let fleet = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(fleet.repo()).unwrap();
        let key = fleet.path("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "ops", "-f", &key]).status();
        assert!(made.unwrap().success());
        fleet.git(&["init", "-q", "-b", "main"]);
        for (name, value) in [
            ("user.name", "Ops"),
            ("user.email", "ops@example.com"),
            ("gpg.format", "ssh"),
            ("user.signingkey", key.as_str()),
            ("commit.gpgsign", "true"),
        ] {
            fleet.git(&["config", name, value]);
        }
        let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
        std::fs::write(fleet.path("allowed_signers"), format!("ops@example.com {public}")).unwrap();
        fleet.write("trust/allowed_signers", &format!("ops@example.com {public}"));
        fleet.write("burgee.yaml", "format: 1\nfleet: test\n");
        fleet
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    fn clone_folder(&self) -> PathBuf {
        self.folder.path().join("store/git")
    }

    fn git(&self, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .current_dir(self.repo())
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .args(arguments)
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.repo().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn commit(&self, message: &str) -> CommitId {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).parse().unwrap()
    }

    fn settings(&self, url: &str) -> SourceSettings {
        SourceSettings {
            url: url.to_owned(),
            branch: "main".to_owned(),
            poll: Duration::from_secs(300),
            poll_connected: Duration::from_secs(3600),
            trust: self.folder.path().join("allowed_signers"),
            revoked: self.folder.path().join("revoked_keys"),
            floor: None,
            token_file: None,
            username: None,
            ssh_key_file: None,
            known_hosts_file: None,
            ca_file: None,
            proxy: None,
            limits: Limits::default(),
        }
    }

    fn open(&self) -> GitSource {
        self.open_at(self.repo().to_str().unwrap())
    }

    fn open_at(&self, url: &str) -> GitSource {
        GitSource::open(&self.settings(url), &self.clone_folder(), Timestamp::UNIX_EPOCH).unwrap()
    }

    /// Everything below the clone: path, size, time of change.
    fn written(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.folder.path().join("store")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    folders.push(entry.path());
                }
                found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
            }
        }
        found
    }

    fn packs(&self) -> usize {
        let all = std::fs::read_dir(self.clone_folder().join("objects/pack")).unwrap();
        all.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|end| end == "pack")).count()
    }
}

/// Any moment after every commit here.
fn now() -> Timestamp {
    let seconds = std::fs::metadata("/proc/self").unwrap().modified().unwrap().duration_since(SystemTime::UNIX_EPOCH);
    Timestamp::from_second(i64::try_from(seconds.unwrap().as_secs()).unwrap() + 600).unwrap()
}

#[track_caller]
fn new(fetched: Result<Fetched, SourceError>) -> Accepted {
    match fetched {
        Ok(Fetched::New(accepted)) => *accepted,
        other => panic!("expected a new revision: {other:?}"),
    }
}

#[tokio::test]
async fn fetches_what_is_new_and_writes_nothing_else() {
    let fleet = Fleet::new();
    let one = fleet.commit("one");
    let source = fleet.open();
    let accepted = new(source.fetch(None, now()).await);
    assert_eq!((&accepted.revision.id, accepted.signer.as_str()), (&one, "ops@example.com"));
    assert_eq!(accepted.subject, "one");
    let tree = source.tree(&one).unwrap();
    assert!(tree.entries().contains_key("trust/allowed_signers"));
    assert_eq!(tree.read("burgee.yaml").unwrap(), b"format: 1\nfleet: test\n");
    assert!(tree.read("nothing").is_err());

    let before = fleet.written();
    for _ in 0..3 {
        assert!(matches!(source.fetch(Some(&accepted), now()).await, Ok(Fetched::Same)));
    }
    assert_eq!(fleet.written(), before);

    fleet.write("apps/a/app.yaml", "runtime: files\n");
    let two = fleet.commit("two");
    // Another process, as after a restart; and the journal's word of the mark.
    let kept: Accepted = serde_json::from_str(&serde_json::to_string(&accepted).unwrap()).unwrap();
    assert_eq!(kept, accepted);
    let source = fleet.open();
    let accepted = new(source.fetch(Some(&kept), now()).await);
    assert_eq!(accepted.revision.id, two);
    assert!(source.tree(&two).unwrap().entries().contains_key("apps/a/app.yaml"));
    assert!(source.tree(&one).is_ok(), "what was fetched before is still there");
    // Stock Git finds nothing wrong in it.
    let check = Command::new("git").arg("-C").arg(fleet.clone_folder()).args(["fsck", "--full"]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
}

#[tokio::test]
async fn many_packs_are_made_one() {
    let fleet = Fleet::new();
    fleet.commit("zero");
    let source = fleet.open();
    let mut accepted = new(source.fetch(None, now()).await);
    for number in 0..20 {
        fleet.write("apps/a/app.yaml", &format!("# {number}\n"));
        fleet.commit("next");
        accepted = new(source.fetch(Some(&accepted), now()).await);
    }
    assert_eq!(fleet.packs(), 21);
    let held = source.tree(&accepted.revision.id).unwrap();
    assert!(matches!(source.fetch(Some(&accepted), now()).await, Ok(Fetched::Same)));
    assert_eq!(fleet.packs(), 1);
    assert_eq!(held.read("apps/a/app.yaml").unwrap(), b"# 19\n", "a tree in use outlives the swap");
    assert_eq!(source.tree(&accepted.revision.id).unwrap().read("apps/a/app.yaml").unwrap(), b"# 19\n");
    fleet.commit("and on");
    new(source.fetch(Some(&accepted), now()).await);
}

#[tokio::test]
async fn leftovers_and_damage_are_mended() {
    let fleet = Fleet::new();
    fleet.commit("one");
    let mut source = fleet.open();
    let accepted = new(source.fetch(None, now()).await);
    // What a kill leaves behind, before a start and between fetches.
    for restart in [true, false] {
        let pack = fleet.clone_folder().join("objects/pack");
        std::fs::write(fleet.clone_folder().join("shallow.lock"), "").unwrap();
        std::fs::write(pack.join(".tmpAbC"), "half").unwrap();
        std::fs::write(pack.join("pack-0000.pack"), "half").unwrap();
        if restart {
            source = fleet.open();
        }
        fleet.commit("next");
        new(source.fetch(Some(&accepted), now()).await);
        assert!(!fleet.clone_folder().join("shallow.lock").exists());
        assert!(!pack.join(".tmpAbC").exists() && !pack.join("pack-0000.pack").exists());
    }
    // Bytes that the disk changed, noticed while reading.
    for entry in std::fs::read_dir(fleet.clone_folder().join("objects/pack")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|end| end == "pack") {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let end = bytes.len() - 20;
            bytes[12..end].iter_mut().for_each(|byte| *byte ^= 0x55);
            std::fs::remove_file(entry.path()).unwrap();
            std::fs::write(entry.path(), bytes).unwrap();
        }
    }
    let source = fleet.open();
    let next = fleet.commit("after the damage");
    assert_eq!(new(source.fetch(Some(&accepted), now()).await).revision.id, next);
    assert!(source.tree(&next).is_ok());
    // A file that can't be opened, noticed at the start.
    for entry in std::fs::read_dir(fleet.clone_folder().join("objects/pack")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|end| end == "idx") {
            std::fs::remove_file(entry.path()).unwrap();
            std::fs::write(entry.path(), "no index").unwrap();
        }
    }
    let source = fleet.open();
    assert_eq!(new(source.fetch(None, now()).await).revision.id, next);
    // All of it gone, with the journal's word left.
    std::fs::remove_dir_all(fleet.clone_folder()).unwrap();
    fleet.commit("one more");
    let source = fleet.open();
    new(source.fetch(Some(&accepted), now()).await);
}

#[tokio::test]
async fn a_rewound_host_is_refused_until_it_is_mended() {
    let fleet = Fleet::new();
    let one = fleet.commit("one");
    let two = fleet.commit("two");
    let source = fleet.open();
    let accepted = new(source.fetch(None, now()).await);
    assert_eq!(accepted.revision.id, two);
    fleet.git(&["reset", "-q", "--hard", one.as_str()]);
    for _ in 0..2 {
        let error = source.fetch(Some(&accepted), now()).await.unwrap_err();
        assert_eq!(error.reason(), "Rewound", "{error:?}");
    }
    fleet.write("README.md", "rewritten\n");
    let rewritten = fleet.commit("rewritten");
    let error = source.fetch(Some(&accepted), now()).await.unwrap_err();
    assert_eq!(error.reason(), "Rewound");
    // The operator's word.
    let anchored = new(source.anchor(Some(&accepted), &rewritten, now()).await);
    assert_eq!((&anchored.revision.id, anchored.floor.as_ref()), (&rewritten, Some(&rewritten)));
    assert!(matches!(source.fetch(Some(&anchored), now()).await, Ok(Fetched::Same)));
    fleet.git(&["reset", "-q", "--hard", two.as_str()]);
    let error = source.anchor(Some(&accepted), &rewritten, now()).await.unwrap_err();
    assert_eq!(error.reason(), "BelowFloor");
    let three = fleet.commit("three");
    assert_eq!(new(source.fetch(Some(&accepted), now()).await).revision.id, three);
}

#[tokio::test]
async fn clocks_and_roots() {
    let fleet = Fleet::new();
    let one = fleet.commit("one");
    let source = fleet.open();
    let accepted = new(source.fetch(None, now()).await);
    // The clock of a device without a battery: nothing is refused, nothing accepted.
    let two = fleet.commit("two");
    let early = Timestamp::from_second(1000).unwrap();
    match source.fetch(Some(&accepted), early).await {
        Ok(Fetched::ClockUnset { head }) => assert_eq!(head, two),
        other => panic!("{other:?}"),
    }
    let newer = GitSource::open(&fleet.settings(fleet.repo().to_str().unwrap()), &fleet.clone_folder(), now());
    let earlier = now().checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
    assert!(matches!(newer.unwrap().fetch(None, earlier).await, Ok(Fetched::ClockUnset { .. })));
    let late = now().checked_add(jiff::SignedDuration::from_hours(24 * 365 * 50)).unwrap();
    let accepted = new(source.fetch(Some(&accepted), late).await);
    assert_eq!(accepted.revision.id, two);

    // A comment is no new root; another option is, and anchors anew at the same head.
    let root = std::fs::read_to_string(fleet.path("allowed_signers")).unwrap();
    std::fs::write(fleet.path("allowed_signers"), format!("# words\n{root}")).unwrap();
    assert!(matches!(source.fetch(Some(&accepted), now()).await, Ok(Fetched::Same)));
    std::fs::write(fleet.path("revoked_keys"), "ssh-rsa AAAA old\n").unwrap();
    assert!(matches!(source.fetch(Some(&accepted), now()).await, Ok(Fetched::Same)));
    let other = Fleet::new();
    let stranger = std::fs::read_to_string(other.path("key.pub")).unwrap();
    std::fs::write(fleet.path("revoked_keys"), stranger).unwrap();
    let anchored = new(source.fetch(Some(&accepted), early).await);
    assert_eq!(anchored.revision, accepted.revision);
    assert_ne!(anchored.root, accepted.root);
    let mine = std::fs::read_to_string(fleet.path("key.pub")).unwrap();
    std::fs::write(fleet.path("revoked_keys"), mine).unwrap();
    let error = source.fetch(Some(&accepted), now()).await.unwrap_err();
    assert_eq!(error.reason(), "KeyRevoked", "{error:?}");
    std::fs::remove_file(fleet.path("allowed_signers")).unwrap();
    let error = source.fetch(Some(&accepted), now()).await.unwrap_err();
    assert!(matches!(error, SourceError::Local { .. }), "{error:?}");
    assert!(error.hint().is_some());
    assert_ne!(one, two);
}

#[tokio::test]
async fn a_fetch_that_is_given_up_ends() {
    let fleet = Fleet::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo", silent.local_addr().unwrap());
    let source = fleet.open_at(&url);
    let given_up = tokio::time::timeout(Duration::from_millis(200), source.fetch(None, now())).await;
    assert!(given_up.is_err());
    let shared = Arc::clone(&source.shared);
    let free = tokio::task::spawn_blocking(move || shared.work.lock().is_ok());
    assert!(tokio::time::timeout(Duration::from_secs(5), free).await.unwrap().unwrap());
}

/// `git http-backend` behind a socket; counts what goes over it.
fn serve(folder: &Path, version_2: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/repo", listener.local_addr().unwrap());
    let counted = Arc::new(AtomicUsize::new(0));
    let (root, counter) = (folder.to_owned(), Arc::clone(&counted));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (root, counter) = (root.clone(), Arc::clone(&counter));
            std::thread::spawn(move || while answer(&stream, &root, version_2, &counter) {});
        }
    });
    (url, counted)
}

fn answer(stream: &TcpStream, root: &Path, version_2: bool, counter: &AtomicUsize) -> bool {
    let mut reader = BufReader::with_capacity(1, stream);
    let mut headers = BTreeMap::new();
    let mut first = String::new();
    let mut count = reader.read_line(&mut first).unwrap_or(0);
    if count == 0 {
        return false;
    }
    loop {
        let mut line = String::new();
        count += reader.read_line(&mut line).unwrap();
        match line.trim().split_once(':') {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", headers.get("content-type").cloned().unwrap_or_default())
        .env("CONTENT_LENGTH", length.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    if let Some(protocol) = headers.get("git-protocol").filter(|_| version_2) {
        command.env("GIT_PROTOCOL", protocol);
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&body).unwrap();
    let done = child.wait_with_output().unwrap().stdout;
    let blank = done.windows(4).position(|end| end == b"\r\n\r\n").unwrap();
    let (head, content) = (String::from_utf8_lossy(&done[..blank]), &done[blank + 4..]);
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    let kind = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or("text/plain");
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", content.len()).into_bytes();
    counter.fetch_add(count + length + answer.len() + content.len(), Ordering::SeqCst);
    let mut stream = stream;
    stream.write_all(&answer).is_ok() && stream.write_all(content).is_ok()
}

#[tokio::test]
async fn over_http_a_poll_is_small() {
    let fleet = Fleet::new();
    fleet.commit("one");
    for branch in 0..50 {
        fleet.git(&["branch", &format!("other-branch-{branch}")]);
    }
    let (url, counted) = serve(fleet.folder.path(), true);
    let source = fleet.open_at(&url);
    let accepted = new(source.fetch(None, now()).await);
    let before = (fleet.written(), counted.load(Ordering::SeqCst));
    assert!(matches!(source.fetch(Some(&accepted), now()).await, Ok(Fetched::Same)));
    let bytes = counted.load(Ordering::SeqCst) - before.1;
    // TLS adds about 2.6 KB to this when a session is resumed; the budget is 4 KB.
    assert!(bytes <= 1400, "{bytes} bytes");
    assert_eq!(fleet.written(), before.0);
    let two = fleet.commit("two");
    assert_eq!(new(source.fetch(Some(&accepted), now()).await).revision.id, two);
}

#[tokio::test]
async fn an_old_host_without_protocol_2_will_do() {
    let fleet = Fleet::new();
    fleet.commit("one");
    let (url, _) = serve(fleet.folder.path(), false);
    let source = fleet.open_at(&url);
    let accepted = new(source.fetch(None, now()).await);
    let two = fleet.commit("two");
    assert_eq!(new(source.fetch(Some(&accepted), now()).await).revision.id, two);
    fleet.git(&["commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", "unsigned"]);
    let error = fleet.open_at(&url).fetch(None, now()).await.unwrap_err();
    assert_eq!(error.reason(), "Unsigned", "deepened to the anchor: {error:?}");
}
