//! Why a command ended badly, as a person sees it, and the exit code.

use std::io::{self, ErrorKind};
use std::path::Path;

use fleet::finding::{Finding, Severity};

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The arguments, or the place they name, are wrong.
    #[error("{message}")]
    Usage { message: String, hint: Option<String> },
    /// The repository's content is wrong; it was said already.
    #[error("{0}")]
    Content(String),
    /// Something that should work did not.
    #[error("{message}")]
    Failed { message: String, hint: Option<String> },
    /// Standard output is gone.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), hint: None }
    }

    /// A file or folder that can't be used.
    pub(crate) fn io(what: &str, path: &Path, source: &io::Error) -> Self {
        Self::failed(format!("cannot {what} {}: {source}", path.display()))
    }

    /// Whether the reader of standard output went away, as `head` does.
    pub(crate) fn is_pipe_closed(&self) -> bool {
        matches!(self, Self::Output(source) if source.kind() == ErrorKind::BrokenPipe)
    }

    /// 1 failed, 2 wrong usage or content.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Content(_) => 2,
            Self::Failed { .. } | Self::Output(_) => 1,
        }
    }

    /// Says it on standard error.
    pub(crate) fn tell(&self) {
        let mut source = std::error::Error::source(self);
        let mut message = self.to_string();
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        eprintln!("error: {message}");
        if let Self::Usage { hint: Some(hint), .. } | Self::Failed { hint: Some(hint), .. } = self {
            eprintln!("hint: {hint}");
        }
    }
}

/// Findings on standard error; a failure where one of them is an error.
pub(crate) fn tell_findings(found: &[Finding]) {
    for finding in found {
        eprintln!("{finding}");
        if let Some(hint) = &finding.hint {
            eprintln!("hint: {hint}");
        }
    }
}

/// `2 errors and 1 warning`, with a word on where.
pub(crate) fn count(found: &[Finding], place: &str) -> String {
    let errors = found.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = found.len() - errors;
    let some = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => format!("nothing is wrong in {place}"),
        (errors, 0) => format!("{} in {place}", some(errors, "error")),
        (0, warnings) => format!("{} in {place}", some(warnings, "warning")),
        (errors, warnings) => format!("{} and {} in {place}", some(errors, "error"), some(warnings, "warning")),
    }
}
