//! Signing on a person's machine: an SSH key, and Git told to sign with it.
//!
//! `git` and `ssh-keygen` are run here, as the person would. Devices run
//! neither: they verify by themselves.

use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fleet::name::FleetName;

use crate::failure::Failure;

/// A key to sign with.
#[derive(Debug)]
pub(crate) struct Key {
    /// The `.pub` file, absolute.
    pub(crate) public_file: PathBuf,
    /// `ssh-ed25519 AAAA…`, without its comment.
    pub(crate) public: String,
    /// Whether it was made just now.
    pub(crate) is_new: bool,
}

impl Key {
    /// The key of a file, or of the `.pub` beside it.
    pub(crate) fn take(path: &Path) -> Result<Self, Failure> {
        let public_file = if path.extension() == Some(OsStr::new("pub")) {
            path.to_owned()
        } else {
            let mut name = path.as_os_str().to_owned();
            name.push(".pub");
            name.into()
        };
        let public_file = fs::canonicalize(&public_file).map_err(|source| {
            Failure::usage(
                format!("cannot read the public key {}: {source}", public_file.display()),
                "name a key made by `ssh-keygen -t ed25519`",
            )
        })?;
        let text = fs::read_to_string(&public_file).map_err(|source| Failure::io("read", &public_file, &source))?;
        let mut words = text.split_whitespace();
        match (words.next(), words.next()) {
            (Some("ssh-ed25519"), Some(body)) => {
                Ok(Self { public_file, public: format!("ssh-ed25519 {body}"), is_new: false })
            }
            (kind, _) => Err(Failure::usage(
                format!("{} holds a key of the kind {:?}", public_file.display(), kind.unwrap_or("none")),
                "burgee verifies Ed25519 alone: make one with `ssh-keygen -t ed25519`",
            )),
        }
    }

    /// A key in `~/.ssh` for this fleet; made where there is none.
    pub(crate) fn make(fleet: &FleetName, principal: &str, passphrase: bool) -> Result<Self, Failure> {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or_else(|| {
            Failure::usage("HOME is not set, so there is no place for a new key", "give one with --key FILE")
        })?;
        let folder = Path::new(&home).join(".ssh");
        let file = folder.join(format!("burgee_{fleet}_ed25519"));
        if file.exists() {
            return Self::take(&file);
        }
        if passphrase && !std::io::stdin().is_terminal() {
            return Err(Failure::usage(
                "there is no terminal to ask for the new key's passphrase",
                "give a key with --key FILE, or say --no-passphrase",
            ));
        }
        make_private_folder(&folder)?;
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-C", principal, "-f"]).arg(&file);
        if !passphrase {
            keygen.args(["-N", ""]).stdin(Stdio::null());
        }
        // Its questions go to the terminal; standard output is for data.
        keygen.stdout(Stdio::null());
        run(&mut keygen, "openssh-client")?;
        Ok(Self { is_new: true, ..Self::take(&file)? })
    }
}

fn make_private_folder(folder: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(source) if source.kind() != ErrorKind::AlreadyExists => Err(Failure::io("make", folder, &source)),
        _ => Ok(()),
    }
}

/// Git in one work tree.
pub(crate) struct Git<'a> {
    dir: &'a Path,
}

impl<'a> Git<'a> {
    /// The repository of `dir`; made where there is none.
    pub(crate) fn of(dir: &'a Path) -> Result<Self, Failure> {
        let git = Self { dir };
        if !dir.join(".git").exists() {
            run(git.command().args(["init", "--quiet", "--initial-branch=main"]), "git")?;
        }
        Ok(git)
    }

    /// A setting, wherever it comes from; `None` where it is not set.
    pub(crate) fn setting(dir: &Path, name: &str) -> Option<String> {
        let mut command = Command::new("git");
        // A folder that is still to be made has the settings of the person.
        if dir.is_dir() {
            command.arg("-C").arg(dir);
        }
        let output = command.args(["config", "--get", name]).stderr(Stdio::null()).output().ok()?;
        let value = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !value.is_empty()).then_some(value)
    }

    /// Sets something in this repository alone.
    pub(crate) fn set(&self, name: &str, value: impl AsRef<OsStr>) -> Result<(), Failure> {
        run(self.command().args(["config", "--local", name]).arg(value), "git")
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.dir).stdout(Stdio::null());
        command
    }
}

fn run(command: &mut Command, package: &str) -> Result<(), Failure> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::failed(format!("{program} failed: {status}"))),
        Err(source) if source.kind() == ErrorKind::NotFound => Err(Failure::Failed {
            message: format!("{program} is not installed"),
            hint: Some(format!("on Debian: apt-get install {package}")),
        }),
        Err(source) => Err(Failure::failed(format!("cannot run {program}: {source}"))),
    }
}
