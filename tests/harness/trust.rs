//! Attacks on trust: commits, signatures and trees that no honest tool makes,
//! in real repositories, judged by the real `burgee-agent verify`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};
use tempfile::TempDir;

use crate::bins::bin;
use crate::repo::{Repo, Signer};

/// What `verify` said.
#[derive(Clone, Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Asserts that the head holds and is `id`.
    #[track_caller]
    pub fn holds(&self, id: &str) {
        assert_eq!(self.code, 0, "{self:?}");
        assert_eq!(self.out.split_whitespace().next(), Some(id), "{self:?}");
        assert_eq!(self.out.split_whitespace().count(), 3, "{self:?}");
    }

    /// Asserts that it was refused by trust for this reason.
    #[track_caller]
    pub fn refused(&self, reason: &str) {
        self.failed(3, &format!("({reason})"));
    }

    /// Asserts an exit code, and a word on stderr.
    #[track_caller]
    pub fn failed(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "expected {word}: {self:?}");
        assert!(self.err.contains(word), "expected {word}: {self:?}");
        assert!(self.out.is_empty(), "{self:?}");
    }
}

/// A repository to attack, with a root of trust.
pub struct Stage {
    pub folder: TempDir,
    pub repo: Repo,
    /// The key that signs what is made by hand; in the root, too.
    pub hand: SigningKey,
    pub trust: PathBuf,
    sha256: bool,
}

/// A public key line of a key made by hand.
#[must_use]
pub fn public(key: &SigningKey) -> String {
    format!("ssh-ed25519 {}", STANDARD.encode(key_blob(b"ssh-ed25519", key.verifying_key().as_bytes())))
}

/// A fresh key.
#[must_use]
pub fn fresh_key() -> SigningKey {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("random bytes");
    SigningKey::from_bytes(&seed)
}

fn string(into: &mut Vec<u8>, value: &[u8]) {
    into.extend_from_slice(&u32::try_from(value.len()).expect("a short string").to_be_bytes());
    into.extend_from_slice(value);
}

/// SSH's wire form of a key.
#[must_use]
pub fn key_blob(kind: &[u8], key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, kind);
    string(&mut blob, key);
    blob
}

/// An SSHSIG, honest unless a field is changed.
#[derive(Clone, Debug)]
pub struct Sshsig {
    pub version: u32,
    pub key: Vec<u8>,
    pub namespace: Vec<u8>,
    pub reserved: Vec<u8>,
    pub hash: Vec<u8>,
    pub signature_type: Vec<u8>,
    pub behind_signature: Vec<u8>,
    pub behind: Vec<u8>,
}

impl Sshsig {
    #[must_use]
    pub fn of(key: &SigningKey) -> Self {
        Self {
            version: 1,
            key: key_blob(b"ssh-ed25519", key.verifying_key().as_bytes()),
            namespace: b"git".to_vec(),
            reserved: Vec::new(),
            hash: b"sha512".to_vec(),
            signature_type: b"ssh-ed25519".to_vec(),
            behind_signature: Vec::new(),
            behind: Vec::new(),
        }
    }

    /// The blob over `payload`.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, payload: &[u8]) -> Vec<u8> {
        let digest = match &self.hash[..] {
            b"sha256" => Sha256::digest(payload).to_vec(),
            _ => Sha512::digest(payload).to_vec(),
        };
        let mut signed = b"SSHSIG".to_vec();
        for part in [&self.namespace, &self.reserved, &self.hash, &digest] {
            string(&mut signed, part);
        }
        let mut inner = Vec::new();
        string(&mut inner, &self.signature_type);
        string(&mut inner, &key.sign(&signed).to_bytes());
        inner.extend_from_slice(&self.behind_signature);
        let mut blob = b"SSHSIG".to_vec();
        blob.extend_from_slice(&self.version.to_be_bytes());
        for part in [&self.key, &self.namespace, &self.reserved, &self.hash, &inner] {
            string(&mut blob, part);
        }
        blob.extend_from_slice(&self.behind);
        blob
    }
}

/// An armor, wrapped at `width`.
#[must_use]
pub fn armor(blob: &[u8], width: usize) -> String {
    let text = STANDARD.encode(blob);
    let lines: Vec<&str> =
        text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("base64")).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----", lines.join("\n"))
}

/// Puts a signature header behind the last header of a raw, unsigned commit.
#[must_use]
pub fn with_header(payload: &[u8], name: &str, value: &str) -> Vec<u8> {
    let blank = payload.windows(2).position(|pair| pair == b"\n\n").expect("a blank line") + 1;
    let mut raw = payload[..blank].to_vec();
    raw.extend_from_slice(format!("{name} {}\n", value.replace('\n', "\n ")).as_bytes());
    raw.extend_from_slice(&payload[blank..]);
    raw
}

/// Splits a signed commit into its payload and its signature's value.
#[must_use]
pub fn taken_apart(raw: &[u8]) -> (Vec<u8>, String) {
    let text = raw.to_vec();
    let start = text
        .windows(8)
        .position(|part| part == b"\ngpgsig ")
        .map(|at| at + 1)
        .or_else(|| text.windows(15).position(|part| part == b"\ngpgsig-sha256 ").map(|at| at + 1))
        .expect("a signature");
    let end_mark = b"-----END SSH SIGNATURE-----\n";
    let end = text.windows(end_mark.len()).position(|part| part == end_mark).expect("its end") + end_mark.len();
    let header = String::from_utf8(text[start..end].to_vec()).expect("text");
    let value = header.split_once(' ').expect("a value").1.trim_end().replace("\n ", "\n");
    ([&text[..start], &text[end..]].concat(), value)
}

/// A raw tree of `(mode, name, id)`, in the order given.
#[must_use]
pub fn tree(entries: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let mut raw = Vec::new();
    for (mode, name, id) in entries {
        raw.extend_from_slice(mode.as_bytes());
        raw.push(b' ');
        raw.extend_from_slice(name);
        raw.push(0);
        raw.extend((0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).expect("hex")));
    }
    raw
}

impl Stage {
    #[must_use]
    pub fn new() -> Self {
        Self::of(false)
    }

    #[must_use]
    pub fn sha256() -> Self {
        Self::of(true)
    }

    fn of(sha256: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut repo = Repo::new(folder.path());
        if sha256 {
            std::fs::remove_dir_all(repo.path.join(".git")).expect("a repository to remove");
            repo.git(&["init", "-q", "-b", "main", "--object-format=sha256"]);
            let key = repo.signer.key.to_str().expect("a UTF-8 path").to_owned();
            for (name, value) in [
                ("user.name", "Ops"),
                ("user.email", "ops@example.com"),
                ("gpg.format", "ssh"),
                ("user.signingkey", &key),
                ("commit.gpgsign", "true"),
            ] {
                repo.git(&["config", name, value]);
            }
        }
        repo.signer = Signer { key: repo.signer.key.clone(), principal: "ops@example.com".to_owned() };
        let trust = folder.path().join("allowed_signers");
        let stage = Self { folder, repo, hand: fresh_key(), trust, sha256 };
        let lines = stage.lines();
        stage.root(&lines);
        stage.repo.write("burgee.yaml", "format: 1\nfleet: test\n");
        stage.repo.write("trust/allowed_signers", &lines);
        stage
    }

    /// The two lines that the stage begins with.
    #[must_use]
    pub fn lines(&self) -> String {
        format!("{}hand@example.com {}\n", self.repo.signer.line(), public(&self.hand))
    }

    /// Writes the device's own root of trust.
    pub fn root(&self, text: &str) {
        std::fs::write(&self.trust, text).expect("the root of trust");
    }

    /// A file beside the repository.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Commits everything, signed by the key in use, at a date of Git's syntax.
    pub fn commit_at(&self, message: &str, date: &str) -> String {
        self.repo.git(&["add", "-A"]);
        let mut command = self.repo.command();
        command.env("GIT_COMMITTER_DATE", date).env("GIT_AUTHOR_DATE", date);
        let done = command.args(["commit", "-q", "--allow-empty", "-m", message]).status().expect("git");
        assert!(done.success());
        self.repo.head()
    }

    /// Has stock Git sign with another key from here on.
    pub fn sign_with(&self, signer: &Signer) {
        self.repo.git(&["config", "user.signingkey", signer.key.to_str().expect("a UTF-8 path")]);
    }

    /// Commits everything, signed by a key made by hand.
    pub fn commit_by(&self, key: &SigningKey, message: &str) -> String {
        self.repo.commit_unsigned(message);
        let payload = self.raw("HEAD");
        let armor = armor(&Sshsig::of(key).sign(key, &payload), 70);
        self.put(&with_header(&payload, self.header(), &armor))
    }

    /// The signature header's name in this repository.
    #[must_use]
    pub fn header(&self) -> &'static str {
        if self.sha256 { "gpgsig-sha256" } else { "gpgsig" }
    }

    /// A raw commit.
    #[must_use]
    pub fn raw(&self, id: &str) -> Vec<u8> {
        let done = self.repo.command().args(["cat-file", "commit", id]).output().expect("git");
        assert!(done.status.success(), "{done:?}");
        done.stdout
    }

    /// Writes an object as it is; its id.
    #[must_use]
    pub fn object(&self, kind: &str, raw: &[u8]) -> String {
        let mut child = self
            .repo
            .command()
            .args(["hash-object", "-w", "-t", kind, "--stdin", "--literally"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git");
        child.stdin.take().expect("stdin").write_all(raw).expect("git reads");
        let done = child.wait_with_output().expect("git");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).expect("an id").trim().to_owned()
    }

    /// Writes a commit as it is and makes it the branch's head.
    pub fn put(&self, raw: &[u8]) -> String {
        let id = self.object("commit", raw);
        self.head(&id);
        id
    }

    /// Moves the branch, whatever it is moved to.
    pub fn head(&self, id: &str) {
        let git = self.repo.path.join(".git");
        std::fs::write(git.join("refs/heads/main"), format!("{id}\n")).expect("a ref");
    }

    /// An unsigned raw commit over a tree, on top of `parent`.
    #[must_use]
    pub fn payload(&self, tree: &str, parent: &str) -> Vec<u8> {
        let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
        let who = format!("Ops <ops@example.com> {now} +0000");
        format!("tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\nby hand\n").into_bytes()
    }

    /// Signs a payload honestly and makes it the head.
    pub fn put_signed(&self, payload: &[u8]) -> String {
        let blob = Sshsig::of(&self.hand).sign(&self.hand, payload);
        self.put(&with_header(payload, self.header(), &armor(&blob, 70)))
    }

    /// The top tree of the head with `entries` in place of those of the same name.
    #[must_use]
    pub fn top_with(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let listed = self.repo.git(&["ls-tree", "HEAD"]);
        let mut all: BTreeMap<Vec<u8>, (String, String)> = BTreeMap::new();
        for line in listed.lines() {
            let (meta, name) = line.split_once('\t').expect("a name");
            let parts: Vec<&str> = meta.split(' ').collect();
            all.insert(name.as_bytes().to_vec(), (parts[0].trim_start_matches('0').to_owned(), parts[2].to_owned()));
        }
        for (mode, name, id) in entries {
            all.insert(name.to_vec(), ((*mode).to_owned(), (*id).to_owned()));
        }
        let rows: Vec<(&str, &[u8], &str)> =
            all.iter().map(|(name, (mode, id))| (mode.as_str(), name.as_slice(), id.as_str())).collect();
        self.object("tree", &tree(&rows))
    }

    /// `burgee-agent verify` on the repository, as a first start unless said otherwise.
    #[must_use]
    pub fn verify(&self, more: &[&str]) -> Said {
        self.verify_at(self.repo.path.to_str().expect("a UTF-8 path"), more)
    }

    /// `burgee-agent verify` on another address.
    #[must_use]
    pub fn verify_at(&self, url: &str, more: &[&str]) -> Said {
        self.judge(Command::new(bin("burgee-agent")), url, more)
    }

    /// The same, and how much memory it held at most, in KiB.
    #[must_use]
    pub fn verify_measured(&self, url: &str, more: &[&str]) -> (Said, u64) {
        let mut command = Command::new("python3");
        let measure = "import resource, subprocess, sys\n\
            code = subprocess.call(sys.argv[1:])\n\
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)\n\
            sys.exit(code)";
        command.args(["-c", measure]).arg(bin("burgee-agent"));
        let said = self.judge(command, url, more);
        let peak = said.err.lines().last().and_then(|line| line.parse().ok());
        (said.clone(), peak.unwrap_or_else(|| panic!("no measure: {said:?}")))
    }

    fn judge(&self, mut command: Command, url: &str, more: &[&str]) -> Said {
        let empty = self.file("agent.toml", "");
        let none = self.folder.path().join("no-revoked-keys");
        command
            .arg("--config")
            .arg(empty)
            .args(["verify", "--repo", url, "--branch", "main", "--trust"])
            .arg(&self.trust);
        if !more.contains(&"--revoked") {
            command.arg("--revoked").arg(none);
        }
        let done = command.args(more).output().expect("burgee-agent");
        Said {
            code: done.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&done.stdout).into_owned(),
            err: String::from_utf8_lossy(&done.stderr).into_owned(),
        }
    }
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}
