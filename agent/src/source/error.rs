//! What went wrong, in the port's words, with the next step for a person.

use std::io;
use std::path::Path;

use fleet::revision::CommitId;

use crate::ports::source::SourceError;

use super::local::LocalError;
use super::meter::{Failure, chain};
use super::packs::ObjectError;
use super::tree::BadTree;

const LIMIT_HINT: &str = "raise the limit in agent.toml, or make the repository smaller";

type Source = Box<dyn std::error::Error + Send + Sync>;

/// A cause that is one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Cause(pub(super) &'static str);

pub(super) fn setting(name: &'static str, value: &str, hint: Option<&str>, source: impl Into<Source>) -> SourceError {
    SourceError::Local {
        action: "use",
        thing: format!("{name} = {value:?}"),
        transient: false,
        hint: hint.map(str::to_owned),
        source: source.into(),
    }
}

pub(super) fn root(path: &Path, source: impl Into<Source>) -> SourceError {
    SourceError::Local {
        action: "use",
        thing: path.display().to_string(),
        transient: true,
        hint: Some("put the operator's allowed_signers there: PRINCIPAL ssh-ed25519 AAAA…".to_owned()),
        source: source.into(),
    }
}

pub(super) fn local_failure(action: &'static str, thing: &str, source: impl Into<Source>) -> SourceError {
    SourceError::Local { action, thing: thing.to_owned(), transient: true, hint: None, source: source.into() }
}

pub(super) fn local(error: LocalError) -> SourceError {
    match error {
        LocalError::Io { action, path, source } => {
            let hint = disk_hint(&source);
            SourceError::Local {
                action,
                thing: path.display().to_string(),
                transient: true,
                hint,
                source: source.into(),
            }
        }
        LocalError::Damaged(source) => local_failure("read", "the local repository", source),
    }
}

fn disk_hint(error: &io::Error) -> Option<String> {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("free space on the store's disk".to_owned()),
        io::ErrorKind::ReadOnlyFilesystem => Some("remount the store's disk writable".to_owned()),
        _ => None,
    }
}

/// A tree that can't be used, once it is known not to be the local disk.
pub(super) fn bad_tree(commit: &CommitId, bad: BadTree) -> SourceError {
    let commit_text = commit.to_string();
    match bad {
        BadTree::Content(cause) => SourceError::Malformed { commit: commit_text, cause, hint: None },
        BadTree::Limit(cause) => {
            SourceError::Malformed { commit: commit_text, cause, hint: Some(LIMIT_HINT.to_owned()) }
        }
        BadTree::Object(error @ (ObjectError::Kind { .. } | ObjectError::TooLarge { .. })) => {
            SourceError::Malformed { commit: commit_text, cause: error.to_string(), hint: None }
        }
        BadTree::Missing(object) => SourceError::Untrusted {
            commit: commit_text,
            reason: "IncompletePack",
            cause: format!("the host did not send object {object}, which it names"),
            hint: None,
        },
        BadTree::Object(error) => local_failure("read", commit.as_str(), error),
    }
}

/// What ended a conversation with a host. `complaint` is what its child said.
pub(super) fn conversation(
    url: &str,
    pack_mib: u64,
    failure: Option<Failure>,
    error: &gix::Error,
    complaint: &str,
) -> SourceError {
    let unreachable = |cause: String, hint: Option<&str>| SourceError::Unreachable {
        remote: url.to_owned(),
        hint: hint.map(str::to_owned),
        source: cause.into(),
    };
    let malformed = |cause: String| SourceError::Malformed {
        commit: "at the branch's head".to_owned(),
        cause,
        hint: Some(LIMIT_HINT.to_owned()),
    };
    match failure {
        Some(Failure::TooLarge) => {
            return malformed(format!("the host sent more than {pack_mib} MiB, the limit (source.limits.pack_mib)"));
        }
        Some(Failure::Stalled(time)) => return unreachable(format!("no byte for {} s", time.as_secs()), None),
        Some(Failure::TooSlow(time)) => return unreachable(format!("not done after {} s", time.as_secs()), None),
        Some(Failure::Cancelled) => return unreachable("the fetch was given up".to_owned(), None),
        Some(Failure::Status { code: code @ (401 | 403), .. }) => {
            let hint = "see source.token_file and source.username, and what the token may read";
            return unreachable(format!("the host wants other credentials: HTTP {code}"), Some(hint));
        }
        Some(Failure::Status { code: code @ 300..=399, location }) => {
            let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
            return unreachable(format!("it redirects{to}: HTTP {code}"), Some("set source.url to the new address"));
        }
        Some(Failure::Status { code: 404, .. }) => {
            return unreachable(
                "no such repository: HTTP 404".to_owned(),
                Some("see source.url, and what the token may read"),
            );
        }
        Some(Failure::Status { code, .. }) => return unreachable(format!("HTTP {code}"), None),
        Some(Failure::NoProgram(program)) => {
            let package = if program == "ssh" { "openssh-client" } else { "git" };
            return SourceError::Local {
                action: "run",
                thing: program.to_owned(),
                transient: false,
                hint: Some(format!("install the package {package}, or use an https URL")),
                source: Cause("it is not installed").into(),
            };
        }
        Some(Failure::Other(cause)) if complaint.is_empty() => {
            let hint = certificate_hint(&cause);
            return unreachable(cause, hint);
        }
        Some(Failure::Other(_)) | None => {}
    }
    if let Some(disk) = error.downcast_any_ref::<io::Error>().and_then(disk_hint) {
        return SourceError::Local {
            action: "write",
            thing: "the local repository".to_owned(),
            transient: true,
            hint: Some(disk),
            source: chain(error).into(),
        };
    }
    let text = error_text(error);
    if text.contains("collision attack") {
        return SourceError::Untrusted {
            commit: "at the branch's head".to_owned(),
            reason: "Sha1Collision",
            cause: "an object was made to collide in SHA-1".to_owned(),
            hint: Some("move the repository to SHA-256: git init --object-format=sha256".to_owned()),
        };
    }
    if error.classify().any(|found| matches!(found.class(), gix::error::Class::ResourceExhaustion(_))) {
        return malformed(format!("an object is larger than {pack_mib} MiB, the limit (source.limits.pack_mib)"));
    }
    if !complaint.is_empty() {
        let hint = if complaint.contains("Host key verification failed") || complaint.contains("host key is known") {
            Some("put the host's key into source.known_hosts_file: ssh-keyscan HOST, and compare its fingerprint")
        } else if complaint.contains("Permission denied") {
            Some("see source.ssh_key_file: readable by the agent alone, and known to the host")
        } else if complaint.contains("dubious ownership") {
            Some("the repository belongs to another user: serve it over ssh or https")
        } else {
            None
        };
        return unreachable(complaint.to_owned(), hint);
    }
    unreachable(text, None)
}

/// What to do about a certificate that TLS refused, by rustls' words.
fn certificate_hint(cause: &str) -> Option<&'static str> {
    let (_, what) = cause.split_once("invalid peer certificate: ")?;
    // An authority of a known name with another key makes a bad signature.
    Some(if what.starts_with("UnknownIssuer") || what.starts_with("BadSignature") {
        "an authority that the device does not know signed it: see source.ca_file"
    } else if what.starts_with("certificate not valid for name") {
        "set source.url to a name that the certificate holds"
    } else if what.starts_with("certificate expired") || what.starts_with("certificate not valid yet") {
        "renew the host's certificate; is the device's clock right?"
    } else {
        "the host's certificate is not one to trust"
    })
}

/// Every message in the graph of an error, since gix's causes branch.
fn error_text(error: &gix::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for error in error.iter_errors() {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
