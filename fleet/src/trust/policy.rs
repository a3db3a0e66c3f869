//! `trust/policy.yaml`.

use serde::Deserialize;

use crate::finding::{Finding, Severity};
use crate::revision::CommitId;

/// Which commits must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Require {
    /// The head, and every commit that changes `trust/`.
    #[default]
    Head,
    /// Every commit that a head reaches and the accepted one doesn't.
    EveryCommit,
}

/// What the repository asks for on top of the rules that always hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// `head` (the default) or `every-commit`.
    pub require: Require,
    /// No head below this commit is accepted: its full id.
    #[schemars(with = "Option<String>", regex(pattern = "^([0-9a-f]{40}|[0-9a-f]{64})$"))]
    pub floor: Option<CommitId>,
}

impl Policy {
    /// Reads a policy; an empty file says nothing.
    ///
    /// # Errors
    /// The finding that says where it is malformed.
    pub fn parse(path: &str, bytes: &[u8]) -> Result<Self, Box<Finding>> {
        let finding = |line, column, message: String| {
            Box::new(Finding {
                path: path.to_owned(),
                line,
                column,
                severity: Severity::Error,
                message,
                hint: Some("a policy has two keys: require: head | every-commit, and floor: FULL-COMMIT-ID".to_owned()),
            })
        };
        let text = std::str::from_utf8(bytes).map_err(|_| finding(1, 1, "it is not UTF-8".to_owned()))?;
        let empty = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#') || line.trim() == "---";
        if text.lines().all(empty) {
            return Ok(Self::default());
        }
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(|place| (place.line(), place.column()));
            let number = |n: u64| u32::try_from(n).unwrap_or(1);
            let (line, column) = place.map_or((1, 1), |(line, column)| (number(line), number(column)));
            finding(line, column, error.to_string())
        })
    }
}
