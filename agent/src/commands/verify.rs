//! `verify`: fetches and judges a branch as a device would, and says the
//! verdict. Needs no running agent; keeps nothing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use fleet::revision::CommitId;
use lexopt::prelude::{Long, Short, ValueExt as _};

use super::args::Global;
use super::{Failure, chain, help, print};
use crate::config;
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::source::SourceError;
use crate::source::{GitSource, Verified};

/// Refused by trust (design §13).
const REFUSED: u8 = 3;

/// What was asked; each defaults to what the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Keys of the configuration that a flag says.
    said: Vec<(&'static str, OsString)>,
    /// Signers and policy are those in force at this commit.
    after: Option<CommitId>,
    /// The longest silence of the host.
    timeout: Option<Duration>,
    /// `--set KEY=VALUE`.
    set: Vec<String>,
    help: bool,
}

/// The flags that are keys of the configuration.
const KEYS: [(&str, &str); 6] = [
    ("repo", "source.url"),
    ("branch", "source.branch"),
    ("trust", "source.trust"),
    ("revoked", "source.revoked"),
    ("floor", "source.floor"),
    ("token-file", "source.token_file"),
];

fn asked(arguments: Vec<OsString>) -> Result<Asked, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut asked = Asked::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => asked.help = true,
            Long("after") => asked.after = Some(parser.value()?.parse()?),
            Long("timeout") => asked.timeout = Some(Duration::from_secs(parser.value()?.parse()?)),
            Long("set") => asked.set.push(parser.value()?.string()?),
            Long(name) => match KEYS.iter().find(|(flag, _)| *flag == name) {
                Some((_, key)) => asked.said.push((key, parser.value()?)),
                None => return Err(argument.unexpected()),
            },
            other => return Err(other.unexpected()),
        }
    }
    Ok(asked)
}

/// Runs the command with what follows its name, in a runtime of its own.
pub fn verify(arguments: Vec<OsString>, global: &Global, clock: &impl Clock) -> ExitCode {
    let done = asked(arguments)
        .map_err(|error| Failure::new(2, error.to_string()).hint("see burgee-agent verify --help"))
        .and_then(|asked| run(asked, global, clock));
    done.unwrap_or_else(|failure| {
        failure.print();
        ExitCode::from(failure.code)
    })
}

fn run(asked: Asked, global: &Global, clock: &impl Clock) -> Result<ExitCode, Failure> {
    if asked.help {
        print(&help::text(Some("verify")));
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(1, format!("the runtime does not start: {error}")))?
        .block_on(judge(asked, global, clock))
}

/// Prints `REVISION PRINCIPAL FINGERPRINT` of a head that holds.
///
/// # Errors
/// Code 3: refused, or to be judged once the clock is set. 2: malformed
/// content, wrong usage or settings. 5: not reachable. 1: anything else.
async fn judge(asked: Asked, global: &Global, clock: &impl Clock) -> Result<ExitCode, Failure> {
    let set: Vec<String> = global.set.iter().chain(&asked.set).cloned().collect();
    let mut inputs = config::read(global.config.as_deref(), &set)?;
    for (key, value) in asked.said {
        let value = value.into_string().map_err(|_| Failure::new(2, format!("{key}: expected text in UTF-8")))?;
        let value = if key == "source.url" { as_url(&value) } else { value };
        inputs.add_flag(&format!("{key}={value}"))?;
    }
    let settings = inputs.source()?;
    let scratch = Scratch::make()
        .map_err(|error| Failure::new(1, format!("cannot make a temporary folder: {error}")).hint("set TMPDIR"))?;
    let failed = |error| refused(&settings.url, &error);
    let mut source = GitSource::open(&settings, &scratch.0.join("git"), clock.build_date()).map_err(failed)?;
    if let Some(silence) = asked.timeout {
        source = source.with_silence(silence);
    }
    match source.verify(asked.after.as_ref(), clock.now()).await.map_err(failed)? {
        Verified::Holds { revision, principal, fingerprint } => {
            let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
            print(&format!("{revision} {} {}\n", or_dash(principal), or_dash(fingerprint)));
            Ok(ExitCode::SUCCESS)
        }
        Verified::ClockUnset { head } => {
            let message =
                format!("while verifying {}, commit {head} waits: the clock is not set (ClockUnset)", settings.url);
            Err(Failure::new(REFUSED, message)
                .hint("set the clock: it is before this program's build, or a day before the accepted commit"))
        }
    }
}

/// A source's error, with the exit code that it means.
pub(super) fn refused(url: &str, error: &SourceError) -> Failure {
    let code = match error {
        SourceError::Untrusted { .. } => REFUSED,
        SourceError::Malformed { .. } | SourceError::Local { action: "use", .. } => 2,
        SourceError::Unreachable { .. } => 5,
        SourceError::Local { .. } => 1,
    };
    let message = format!("while verifying {url}, {} ({})", chain(error), error.reason());
    Failure { code, message, hint: error.hint() }
}

/// A path that is there is a path, however it is written.
pub(super) fn as_url(repo: &str) -> String {
    let path = Path::new(repo);
    match std::path::absolute(path) {
        Ok(absolute) if path.exists() => absolute.display().to_string(),
        _ => repo.to_owned(),
    }
}

/// A folder of this process alone, gone when it is dropped.
pub(super) struct Scratch(pub(super) PathBuf);

impl Scratch {
    pub(super) fn make() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| std::io::Error::other(error.to_string()))?;
        let path = std::env::temp_dir().join(format!("burgee-verify-{:032x}", u128::from_le_bytes(random)));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing of it is needed again; a leftover in the temporary folder does no harm.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
