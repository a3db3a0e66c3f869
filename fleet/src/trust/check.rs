//! What `burgee check` says about `trust/`.

use crate::finding::{Finding, Severity};
use crate::tree::Tree;

use super::force::{ALLOWED_SIGNERS, POLICY, REVOKED_KEYS};
use super::policy::Policy;
use super::signers::{Signers, parse_revoked};

/// Checks the files under `trust/`. A repository without `trust/` is fine: it
/// is judged by each device's own trust file.
#[must_use]
pub fn check(tree: &dyn Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let whole = |path: &str, severity, message: &str, hint: &str| Finding {
        path: path.to_owned(),
        line: 1,
        column: 1,
        severity,
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
    };
    for path in tree.entries().keys().filter(|path| path.starts_with("trust/")) {
        let bytes = match tree.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                findings.push(whole(path, Severity::Error, &error.to_string(), "make it a plain, small file"));
                continue;
            }
        };
        match path.as_str() {
            ALLOWED_SIGNERS => {
                let (signers, said) = Signers::parse(path, &bytes);
                findings.extend(said);
                if signers.is_empty() {
                    findings.push(whole(
                        path,
                        Severity::Error,
                        "no line counts: a commit that empties it is refused",
                        "add a line: PRINCIPAL ssh-ed25519 AAAA…",
                    ));
                }
                if std::str::from_utf8(&bytes).is_err() {
                    findings.push(whole(path, Severity::Error, "it is not UTF-8", "write it as UTF-8"));
                }
            }
            REVOKED_KEYS => findings.extend(parse_revoked(path, &bytes).1),
            POLICY => findings.extend(Policy::parse(path, &bytes).err().map(|finding| *finding)),
            _ => findings.push(whole(
                path,
                Severity::Warning,
                "it means nothing under trust/, and changing it needs a trusted signature all the same",
                "move it elsewhere",
            )),
        }
    }
    let entries = tree.entries();
    if !entries.contains_key(ALLOWED_SIGNERS)
        && let Some(path) = [POLICY, REVOKED_KEYS].into_iter().find(|path| entries.contains_key(*path))
    {
        findings.push(whole(
            path,
            Severity::Error,
            "there is no trust/allowed_signers beside it: no device can make its first start here",
            "add trust/allowed_signers with the keys that the devices were installed with",
        ));
    }
    findings
}
