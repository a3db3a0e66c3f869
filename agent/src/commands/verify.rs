//! `verify`: fetches and judges a branch as a device would, and says the
//! verdict. Needs no running agent; keeps nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::args::VerifyArgs;
use super::{Failure, chain, print};
use crate::config::Inputs;
use crate::ports::Reason as _;
use crate::ports::clock::Clock;
use crate::ports::source::SourceError;
use crate::source::{GitSource, Verified};

/// Refused by trust (design §13).
const REFUSED: u8 = 3;

/// Prints `REVISION PRINCIPAL FINGERPRINT` of a head that holds.
///
/// # Errors
/// Code 3: refused, or to be judged once the clock is set. 2: malformed
/// content, wrong usage or settings. 5: not reachable. 1: anything else.
pub(super) async fn verify(arguments: VerifyArgs, mut inputs: Inputs, clock: &impl Clock) -> Result<ExitCode, Failure> {
    let shown = |path: PathBuf| path.display().to_string();
    let said = [
        ("source.url", arguments.repo.map(|repo| as_url(&repo))),
        ("source.branch", arguments.branch),
        ("source.trust", arguments.trust.map(shown)),
        ("source.revoked", arguments.revoked.map(shown)),
        ("source.floor", arguments.floor),
        ("source.token_file", arguments.token_file.map(shown)),
    ];
    for (key, value) in said {
        if let Some(value) = value {
            inputs.add_flag(&format!("{key}={value}"))?;
        }
    }
    let settings = inputs.source()?;
    let scratch = Scratch::make()
        .map_err(|error| Failure::new(1, format!("cannot make a temporary folder: {error}")).hint("set TMPDIR"))?;
    let failed = |error: SourceError| {
        let code = match &error {
            SourceError::Untrusted { .. } => REFUSED,
            SourceError::Malformed { .. } | SourceError::Local { action: "use", .. } => 2,
            SourceError::Unreachable { .. } => 5,
            SourceError::Local { .. } => 1,
        };
        let message = format!("while verifying {}, {} ({})", settings.url, chain(&error), error.reason());
        Failure { code, message, hint: error.hint() }
    };
    let mut source = GitSource::open(&settings, &scratch.0.join("git"), clock.build_date()).map_err(failed)?;
    if let Some(silence) = arguments.timeout {
        source = source.with_silence(silence);
    }
    match source.verify(arguments.after.as_ref(), clock.now()).await.map_err(failed)? {
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

/// A path that is there is a path, however it is written.
fn as_url(repo: &str) -> String {
    let path = Path::new(repo);
    match std::path::absolute(path) {
        Ok(absolute) if path.exists() => absolute.display().to_string(),
        _ => repo.to_owned(),
    }
}

/// A folder of this process alone, gone when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
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
