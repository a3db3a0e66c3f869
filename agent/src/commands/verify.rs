//! `burgee-agent verify`: fetches and judges a branch as a device would, and
//! says the verdict. Needs no daemon and no settings; keeps nothing.

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use fleet::revision::CommitId;
use jiff::Timestamp;
use lexopt::{Arg, Parser, ValueExt as _};

use crate::config::settings::{Limits, SourceSettings};
use crate::ports::Reason as _;
use crate::ports::source::SourceError;
use crate::source::{GitSource, Verified};

const USAGE: &str = "\
Usage: burgee-agent verify --repo PATH_OR_URL --branch B --trust FILE [OPTIONS]

Fetches the branch, judges its head as a device would, and prints
REVISION PRINCIPAL FINGERPRINT.

  --repo PATH_OR_URL    https://…, ssh://… or a path
  --branch B            the branch (default: main)
  --trust FILE          the device's own allowed_signers
  --after REVISION      judge after this commit (its full id), with the signers
                        and the policy in force there; without: a first start
  --revoked FILE        the device's own revoked_keys
  --floor ID            a commit that the head must be at or above
  --username NAME       with --token-file: HTTP Basic instead of a bearer token
  --token-file FILE     the token for HTTP
  --ssh-key-file FILE   the key for ssh
  --known-hosts-file FILE
  --ca-file FILE        trust these certificates alone
  --proxy URL
  --timeout SECONDS     the longest silence of the host (default: 60)
  --pack-mib N, --blob-mib N, --files N, --commits N, --depth N
                        limits (default: 64, 1, 20000, 10000, 64)

Exit codes: 0 it holds, 1 failed, 2 wrong usage or malformed content,
3 refused, 5 not reachable.
";

/// Exit codes of design §13.
const FAILED: u8 = 1;
const USAGE_ERROR: u8 = 2;
const REFUSED: u8 = 3;
const NOT_REACHABLE: u8 = 5;

struct Asked {
    settings: SourceSettings,
    after: Option<CommitId>,
    silence: Option<Duration>,
}

/// Runs the command with what follows its name. `now` is the device's clock,
/// `build_date` when this program was built.
pub fn verify(arguments: impl IntoIterator<Item = OsString>, now: Timestamp, build_date: Timestamp) -> ExitCode {
    match asked(Parser::from_args(arguments)) {
        Ok(Some(asked)) => run(&asked, now, build_date),
        Ok(None) => say(USAGE, ExitCode::SUCCESS),
        Err(error) => {
            complain(&format!("{error}"), Some("burgee-agent verify --help"));
            ExitCode::from(USAGE_ERROR)
        }
    }
}

fn asked(mut parser: Parser) -> Result<Option<Asked>, lexopt::Error> {
    let (mut repo, mut trust, mut after, mut silence) = (None, None, None, None);
    let mut settings = SourceSettings {
        url: String::new(),
        branch: "main".to_owned(),
        poll: Duration::ZERO,
        poll_connected: Duration::ZERO,
        trust: PathBuf::new(),
        revoked: PathBuf::from("/dev/null"),
        floor: None,
        token_file: None,
        username: None,
        ssh_key_file: None,
        known_hosts_file: None,
        ca_file: None,
        proxy: None,
        limits: Limits::default(),
    };
    while let Some(argument) = parser.next()? {
        let Arg::Long(name) = argument else {
            if argument == Arg::Short('h') {
                return Ok(None);
            }
            return Err(argument.unexpected());
        };
        let name = name.to_owned();
        if name == "help" {
            return Ok(None);
        }
        let known = [
            "repo",
            "branch",
            "trust",
            "after",
            "revoked",
            "floor",
            "username",
            "token-file",
            "ssh-key-file",
            "known-hosts-file",
            "ca-file",
            "proxy",
            "timeout",
            "pack-mib",
            "blob-mib",
            "files",
            "commits",
            "depth",
        ];
        if !known.contains(&name.as_str()) {
            return Err(Arg::Long(&name).unexpected());
        }
        let value = parser.value()?;
        match name.as_str() {
            "repo" => repo = Some(value.string()?),
            "branch" => settings.branch = value.string()?,
            "trust" => trust = Some(PathBuf::from(value)),
            "after" => after = Some(value.parse()?),
            "revoked" => settings.revoked = value.into(),
            "floor" => settings.floor = Some(value.string()?),
            "username" => settings.username = Some(value.string()?),
            "token-file" => settings.token_file = Some(value.into()),
            "ssh-key-file" => settings.ssh_key_file = Some(value.into()),
            "known-hosts-file" => settings.known_hosts_file = Some(value.into()),
            "ca-file" => settings.ca_file = Some(value.into()),
            "proxy" => settings.proxy = Some(value.string()?),
            "timeout" => silence = Some(Duration::from_secs(value.parse()?)),
            "pack-mib" => settings.limits.pack_mib = value.parse()?,
            "blob-mib" => settings.limits.blob_mib = value.parse()?,
            "files" => settings.limits.files = value.parse()?,
            "commits" => settings.limits.commits = value.parse()?,
            _ => settings.limits.depth = value.parse()?,
        }
    }
    settings.url = repo.ok_or("--repo is missing")?;
    settings.trust = trust.ok_or("--trust is missing")?;
    Ok(Some(Asked { settings, after, silence }))
}

fn run(asked: &Asked, now: Timestamp, build_date: Timestamp) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"), None);
            return ExitCode::from(FAILED);
        }
    };
    let scratch = match Scratch::make() {
        Ok(scratch) => scratch,
        Err(error) => {
            complain(&format!("cannot make a temporary folder: {error}"), Some("set TMPDIR"));
            return ExitCode::from(FAILED);
        }
    };
    let verdict = runtime.block_on(async {
        let mut source = GitSource::open(&asked.settings, &scratch.0.join("git"), build_date)?;
        if let Some(silence) = asked.silence {
            source = source.with_silence(silence);
        }
        source.verify(asked.after.as_ref(), now).await
    });
    match verdict {
        Ok(Verified::Holds { revision, principal, fingerprint }) => {
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            say(&format!("{revision} {} {}\n", or_dash(principal), or_dash(fingerprint)), ExitCode::SUCCESS)
        }
        Ok(Verified::ClockUnset { head }) => {
            let hint = "set the clock: it is before this program's build, or a day before the accepted commit";
            complain(&format!("while verifying {head}: the clock is not set (ClockUnset)"), Some(hint));
            ExitCode::from(REFUSED)
        }
        Err(error) => {
            let mut text = format!("while verifying {}, {error}", asked.settings.url);
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            complain(&format!("{text} ({})", error.reason()), error.hint().as_deref());
            ExitCode::from(match &error {
                SourceError::Untrusted { .. } => REFUSED,
                SourceError::Malformed { .. } => USAGE_ERROR,
                SourceError::Unreachable { .. } => NOT_REACHABLE,
                SourceError::Local { action: "use", .. } => USAGE_ERROR,
                SourceError::Local { .. } => FAILED,
            })
        }
    }
}

fn say(text: &str, code: ExitCode) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// With nobody to read it, there is nothing more to do about it.
fn complain(text: &str, hint: Option<&str>) {
    let hint = hint.map(|hint| format!("hint: {hint}\n")).unwrap_or_default();
    let _ = std::io::stderr().lock().write_all(format!("burgee-agent: {text}\n{hint}").as_bytes());
}

/// A folder of this process alone, gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let name = u128::from_le_bytes(random);
        let path = std::env::temp_dir().join(format!("burgee-verify-{name:032x}"));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
