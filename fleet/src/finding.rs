//! What is wrong in a fleet repository, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether a finding stops the repository from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Refused, on the device too.
    Error,
    /// Said by `burgee check`; nothing is refused.
    Warning,
}

/// One finding, shown as `path:line:column: message`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Path from the repository's root.
    pub path: String,
    /// From 1; 1 where the whole file is meant.
    pub line: u32,
    /// From 1.
    pub column: u32,
    pub severity: Severity,
    /// What is wrong and what was expected.
    pub message: String,
    /// The next step, where there is one.
    pub hint: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let warning = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, "{}:{}:{}: {warning}{}", self.path, self.line, self.column, self.message)
    }
}
