//! Webhooks: is this push from whom it says, and does it concern the fleet?
//!
//! Pure. What a webhook can do is make devices fetch a little earlier; content
//! is judged on the device.

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use crate::keys;

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    GitHub,
    GitLab,
    Gitea,
    /// HMAC-SHA256 of the body, hex, in `X-Burgee-Signature`.
    Plain,
}

impl Sender {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::GitHub, Self::GitLab, Self::Gitea, Self::Plain];

    /// As in the address and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::GitLab => "gitlab",
            Self::Gitea => "gitea",
            Self::Plain => "plain",
        }
    }

    /// The header with the proof.
    #[must_use]
    pub fn proof_header(self) -> &'static str {
        match self {
            Self::GitHub => "x-hub-signature-256",
            Self::GitLab => "x-gitlab-token",
            Self::Gitea => "x-gitea-signature",
            Self::Plain => "x-burgee-signature",
        }
    }

    /// The header that says what happened, and what it says of a push.
    #[must_use]
    pub fn event_header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::GitHub => Some(("x-github-event", "push")),
            Self::GitLab => Some(("x-gitlab-event", "Push Hook")),
            Self::Gitea => Some(("x-gitea-event", "push")),
            Self::Plain => None,
        }
    }
}

/// Whether `proof` shows that the sender knows `secret`. Constant time.
#[must_use]
pub fn proves(sender: Sender, secret: &str, body: &[u8], proof: &str) -> bool {
    let hex = match sender {
        // GitLab sends the secret itself.
        Sender::GitLab => return keys::same(secret.as_bytes(), proof.as_bytes()),
        Sender::GitHub => match proof.strip_prefix("sha256=") {
            Some(hex) => hex,
            None => return false,
        },
        Sender::Gitea => proof,
        Sender::Plain => proof.strip_prefix("sha256=").unwrap_or(proof),
    };
    let (Some(given), Ok(mut mac)) = (unhex(hex), Hmac::<Sha256>::new_from_slice(secret.as_bytes())) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(&given).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    text.as_bytes().chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

/// What a webhook whose proof holds asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Fetch: this branch moved, to there.
    Fetch {
        /// Without `refs/heads/`.
        branch: Option<String>,
        /// For logs alone.
        commit: Option<String>,
    },
    /// Nothing for us: another event or another branch.
    Nothing(&'static str),
    /// A body that is no push.
    Malformed,
}

#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: Option<String>,
    after: Option<String>,
}

/// Reads a push. `event` is what the sender's event header says; `wanted` the
/// branch that counts, if only one does.
#[must_use]
pub fn read(sender: Sender, event: Option<&str>, body: &[u8], wanted: Option<&str>) -> Asked {
    if let Some((_, push)) = sender.event_header()
        && event != Some(push)
    {
        return Asked::Nothing("not a push");
    }
    // A plain sender may say nothing but "now".
    if sender == Sender::Plain && body.iter().all(u8::is_ascii_whitespace) {
        return Asked::Fetch { branch: None, commit: None };
    }
    let Ok(push) = serde_json::from_slice::<Push>(body) else { return Asked::Malformed };
    let branch = match &push.reference {
        None => None,
        Some(reference) => match reference.strip_prefix("refs/heads/") {
            Some(branch) => Some(branch.to_owned()),
            None if reference.starts_with("refs/") => return Asked::Nothing("not a branch"),
            None => Some(reference.clone()),
        },
    };
    match (&branch, wanted) {
        (Some(branch), Some(wanted)) if branch != wanted => Asked::Nothing("another branch"),
        (None, _) if sender != Sender::Plain => Asked::Malformed,
        _ => {
            let hex = |text: &String| text.len() <= 64 && text.bytes().all(|c| c.is_ascii_hexdigit());
            Asked::Fetch { branch: branch.filter(|branch| branch.len() <= 255), commit: push.after.filter(hex) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, Sender, proves, read};

    #[test]
    fn proofs() {
        // GitHub's own example from its documentation.
        let (secret, body) = ("It's a Secret to Everybody", b"Hello, World!".as_slice());
        let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let prefixed = format!("sha256={hex}");
        let wrong = hex.replace('7', "8");
        let cases = [
            (Sender::GitHub, prefixed.as_str(), true),
            (Sender::GitHub, hex, false),
            (Sender::GitHub, "sha256=", false),
            (Sender::GitHub, "sha1=abc", false),
            (Sender::Gitea, hex, true),
            (Sender::Gitea, &wrong, false),
            (Sender::Gitea, "", false),
            (Sender::Plain, hex, true),
            (Sender::Plain, &prefixed, true),
            (Sender::Plain, "zz", false),
            (Sender::GitLab, secret, true),
            (Sender::GitLab, hex, false),
            (Sender::GitLab, "", false),
        ];
        for (sender, proof, want) in cases {
            assert_eq!(proves(sender, secret, body, proof), want, "{sender:?} {proof}");
        }
    }

    #[test]
    fn pushes() {
        let main = br#"{"ref":"refs/heads/main","after":"abc123","x":1}"#.as_slice();
        let fetch = |branch: Option<&str>, commit: Option<&str>| Asked::Fetch {
            branch: branch.map(str::to_owned),
            commit: commit.map(str::to_owned),
        };
        let push = Some("push");
        let cases = [
            (Sender::GitHub, push, main, None, fetch(Some("main"), Some("abc123"))),
            (Sender::GitHub, push, main, Some("main"), fetch(Some("main"), Some("abc123"))),
            (Sender::GitHub, push, main, Some("prod"), Asked::Nothing("another branch")),
            (Sender::GitHub, Some("ping"), b"{}", None, Asked::Nothing("not a push")),
            (Sender::GitHub, push, b"{\"ref\":\"refs/tags/v1\"}", None, Asked::Nothing("not a branch")),
            (Sender::GitHub, push, b"{}", None, Asked::Malformed),
            (Sender::GitHub, push, b"nonsense", None, Asked::Malformed),
            (Sender::GitLab, Some("Push Hook"), main, None, fetch(Some("main"), Some("abc123"))),
            (Sender::Gitea, push, b"{\"ref\":\"refs/heads/a/b\",\"after\":\"<x>\"}", None, fetch(Some("a/b"), None)),
            (Sender::Plain, None, b" \n", Some("main"), fetch(None, None)),
            (Sender::Plain, None, b"{\"ref\":\"main\"}", Some("main"), fetch(Some("main"), None)),
            (Sender::Plain, None, b"{}", Some("main"), fetch(None, None)),
        ];
        for (sender, event, body, wanted, want) in cases {
            assert_eq!(read(sender, event, body, wanted), want, "{sender:?} {event:?} {body:?}");
        }
    }
}
