//! A fleet repository as its author has it: a work tree, a signing key, stock
//! Git.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::run;

/// A signing key on disk, made by `ssh-keygen`.
#[derive(Clone, Debug)]
pub struct Signer {
    pub key: PathBuf,
    pub principal: String,
}

impl Signer {
    pub fn new(folder: &Path, principal: &str) -> Self {
        let key = folder.join(format!("key-{principal}"));
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", principal, "-f"]).arg(&key));
        Self { key, principal: principal.to_owned() }
    }

    /// `ssh-ed25519 AAAA…`.
    #[must_use]
    pub fn public(&self) -> String {
        let text = std::fs::read_to_string(format!("{}.pub", self.key.display())).expect("the public key");
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Its line for `allowed_signers`.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} namespaces=\"git\" {}\n", self.principal, self.public())
    }
}

/// The author's clone.
#[derive(Debug)]
pub struct Repo {
    pub path: PathBuf,
    pub signer: Signer,
}

impl Repo {
    /// An empty repository on branch `main` that signs with a fresh key.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("fleet");
        std::fs::create_dir_all(&path).expect("a folder");
        let signer = Signer::new(folder, "ops@example.com");
        let repo = Self { path, signer };
        repo.git(&["init", "-q", "-b", "main"]);
        for (key, value) in [
            ("user.name", "Ops"),
            ("user.email", "ops@example.com"),
            ("gpg.format", "ssh"),
            ("user.signingkey", repo.signer.key.to_str().expect("a UTF-8 path")),
            ("commit.gpgsign", "true"),
        ] {
            repo.git(&["config", key, value]);
        }
        repo
    }

    /// A repository whose `trust/` names its own signer, for fleet `test`.
    pub fn trusted(folder: &Path) -> Self {
        let repo = Self::new(folder);
        repo.write("burgee.yaml", "format: 1\nfleet: test\n");
        repo.write("trust/allowed_signers", &repo.signer.line());
        repo
    }

    pub fn git(&self, args: &[&str]) -> String {
        run(self.command().args(args)).trim().to_owned()
    }

    /// Git in the work tree, with no one's settings but the repository's.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("LC_ALL", "C");
        command
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.path.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, content).expect("a file");
    }

    pub fn remove(&self, path: &str) {
        let path = self.path.join(path);
        if path.is_dir() {
            std::fs::remove_dir_all(path).expect("a folder to remove");
        } else {
            std::fs::remove_file(path).expect("a file to remove");
        }
    }

    /// Commits everything, signed; the commit's id.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.head()
    }

    /// Commits everything without a signature.
    pub fn commit_unsigned(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "--no-gpg-sign", "-m", message]);
        self.head()
    }

    #[must_use]
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Pushes `main` to `remote`, by force where asked.
    pub fn push(&self, remote: &str, force: bool) {
        let mut args = vec!["push", "-q", remote, "main:main"];
        if force {
            args.insert(1, "--force");
        }
        self.git(&args);
    }
}
