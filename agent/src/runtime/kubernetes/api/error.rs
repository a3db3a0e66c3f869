//! What an API server says when it does not do as asked.

use std::time::Duration;

use serde::Deserialize;

use crate::ports::runtime::{Hinted, Object, RuntimeError};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// It does not answer, or not in time.
    #[error("cannot reach the API server {server}")]
    Unreachable {
        server: String,
        hint: Option<String>,
        #[source]
        source: Cause,
    },
    /// The agent's own settings don't lead to one.
    #[error("cannot use the kubeconfig")]
    Settings {
        hint: Option<String>,
        #[source]
        source: Cause,
    },
    /// It answered, with a refusal.
    #[error("{message}")]
    Refused { status: u16, reason: String, message: String },
    /// The answer is not what was asked for.
    #[error("the API server's answer is not understood: {cause}")]
    Unreadable { cause: String },
}

/// How the server says that an object is not of its kind's shape, such as a
/// value that is no base64.
const MISSHAPEN: [&str; 2] = ["failed to create typed patch object", "unable to convert unstructured object"];

/// How the server says that a field can't be changed.
const IMMUTABLE: [&str; 8] = [
    // Job, ConfigMap, Secret, Deployment's selector, StorageClass.
    "is immutable",
    "may not be updated",
    // StatefulSet: `updates to statefulset spec for fields other than …`.
    "updates to",
    // Pod: `pod updates may not change fields other than …`.
    "updates may not change",
    "Forbidden: may not change",
    // Service's clusterIP.
    "may not change once set",
    // PriorityClass.
    "may not be changed in an update",
    // RoleBinding, ClusterRoleBinding.
    "cannot change roleRef",
];

/// The part of a `Status` object that is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) code: u16,
}

impl ApiError {
    /// Of an answer that is no success.
    pub(super) fn refused(status: u16, body: &[u8]) -> Self {
        let said: Status = serde_json::from_slice(body).unwrap_or_default();
        let message = if said.message.is_empty() {
            let text: String = String::from_utf8_lossy(body).chars().take(300).collect();
            format!("the API server answered {status}: {}", one_line(&text))
        } else {
            one_line(&said.message)
        };
        Self::Refused { status, reason: said.reason, message }
    }

    /// HTTP's, where it answered.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// 410: what was asked to go on from is forgotten.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.status() == Some(410)
    }

    /// Whether the server named this as missing (a path that it does not know
    /// is no answer about an object).
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, reason, .. } if reason == "NotFound")
    }

    /// Another write came between.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }

    /// A field that can't be changed once it is set, by the server's words for
    /// it: each kind has its own.
    #[must_use]
    pub fn is_immutable(&self) -> bool {
        match self {
            Self::Refused { status: 422, message, .. } => IMMUTABLE.iter().any(|words| message.contains(words)),
            _ => false,
        }
    }

    /// What it asks for is another object's: a port, an address, a share of a quota.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        match self {
            Self::Refused { status: 422, message, .. } => message.contains("already allocated"),
            Self::Refused { status: 403, message, .. } => message.contains("exceeded quota"),
            _ => false,
        }
    }

    /// What is sent is not valid, by itself or for what is there.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.status() == Some(422)
    }

    /// What is sent does not have the shape of its kind, by the server's words.
    #[must_use]
    pub fn is_misshapen(&self) -> bool {
        match self {
            Self::Refused { status: 500, message, .. } => MISSHAPEN.iter().any(|words| message.contains(words)),
            _ => false,
        }
    }

    /// An answer about what was asked, and not one that the server is too busy,
    /// or what it keeps its objects in.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Refused { status: 500, message, .. } => {
                !["etcdserver", "database is locked"].iter().any(|words| message.contains(words))
            }
            Self::Refused { status, .. } => !matches!(status, 408 | 429 | 502..=504),
            _ => false,
        }
    }

    /// Waiting alone can help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // A namespace that ends: its successor takes objects again.
            Self::Refused { status: 403, message, .. } if message.contains("because it is being terminated") => true,
            // Said with 500, and as true the next time.
            Self::Refused { .. } if self.is_misshapen() => false,
            Self::Refused { status, .. } => matches!(status, 408 | 409 | 410 | 429 | 500..=599),
            Self::Settings { .. } | Self::Unreadable { .. } => false,
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable { hint, .. } | Self::Settings { hint, .. } => hint.clone(),
            Self::Refused { status: 401, .. } => {
                Some("the server does not know these credentials: see runtime.kubernetes.kubeconfig".to_owned())
            }
            Self::Refused { status: 403, .. } => Some("give the agent's user that right (RBAC)".to_owned()),
            _ => None,
        }
    }

    /// The same, of an object whose values are secret: what the server quotes
    /// of them is left out.
    #[must_use]
    pub fn discreet(self) -> Self {
        match self {
            Self::Refused { status, reason, message } => Self::Refused { status, reason, message: redacted(&message) },
            other => other,
        }
    }

    /// As the failure of a reading.
    #[must_use]
    pub fn reading(self, what: &str) -> RuntimeError {
        match self {
            away @ (Self::Unreachable { .. } | Self::Settings { .. }) => away.away(),
            other => RuntimeError::Observe { what: what.to_owned(), source: other.caused() },
        }
    }

    /// With the hint, where there is one.
    fn caused(self) -> Cause {
        match self.hint() {
            Some(hint) => Box::new(Hinted { message: self.to_string(), hint }),
            None => Box::new(self),
        }
    }

    /// As the failure of a step.
    #[must_use]
    pub fn step(self, action: &'static str, object: &Object) -> RuntimeError {
        match self {
            away @ (Self::Unreachable { .. } | Self::Settings { .. }) => away.away(),
            other => {
                let transient = other.is_transient();
                RuntimeError::Step { action, object: object.clone(), transient, source: other.caused() }
            }
        }
    }

    fn away(self) -> RuntimeError {
        match self {
            Self::Unreachable { server, hint, source } => {
                RuntimeError::Unreachable { engine: format!("the API server {server}"), source: hinted(source, hint) }
            }
            Self::Settings { hint, source } => {
                RuntimeError::Unreachable { engine: "an API server".to_owned(), source: hinted(source, hint) }
            }
            other => RuntimeError::Observe { what: "the API server".to_owned(), source: Box::new(other) },
        }
    }
}

/// A cause with its own causes in one line, and the hint.
fn hinted(source: Cause, hint: Option<String>) -> Cause {
    match hint {
        Some(hint) => Box::new(Hinted { message: chain(source.as_ref()), hint }),
        None => source,
    }
}

/// An error and its causes, in one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

pub(super) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A message without what stands behind `Invalid value`, nor behind `got`,
/// where the server prints what it was given in a form of its own, to the end.
fn redacted(message: &str) -> String {
    let mut clear = String::new();
    let (mut rest, cut) = match message.find(", got ") {
        Some(at) => (&message[..at], true),
        None => (message, false),
    };
    while let Some(at) = rest.find("value: ") {
        let (before, after) = rest.split_at(at + "value: ".len());
        clear.push_str(before);
        clear.push('…');
        let quoted = after.strip_prefix('"').map(|inner| {
            let mut escaped = false;
            let end = inner.find(|c| match c {
                '"' if !escaped => true,
                '\\' => {
                    escaped = !escaped;
                    false
                }
                _ => {
                    escaped = false;
                    false
                }
            });
            end.map_or("", |end| &inner[end + 1..])
        });
        rest = quoted.unwrap_or_else(|| after.find([':', ',', ']']).map_or("", |end| &after[end..]));
    }
    clear.push_str(rest);
    if cut {
        clear.push_str(", got …");
    }
    clear
}

/// `Retry-After` in seconds, within reason.
pub(super) fn retry_after(value: Option<&str>) -> Option<Duration> {
    let seconds: u64 = value?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(60)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ApiError, redacted, retry_after};
    use crate::ports::Reason as _;
    use crate::ports::runtime::Object;

    #[test]
    fn a_status_is_read() {
        let body = br#"{"kind":"Status","reason":"NotFound","message":"configmaps \"a\" not found","code":404}"#;
        let missing = ApiError::refused(404, body);
        assert!(missing.is_missing() && !missing.is_transient());
        assert_eq!(missing.to_string(), "configmaps \"a\" not found");
        assert!(!ApiError::refused(404, b"404 page not found").is_missing());
        assert!(ApiError::refused(503, b"").is_transient());
        let ending = br#"{"message":"configmaps \"a\" is forbidden: unable to create new content in namespace x because it is being terminated"}"#;
        assert!(ApiError::refused(403, ending).is_transient() && !ApiError::refused(403, b"").is_transient());
        let unknown = br#"{"message":"failed to create typed patch object (a; /v1, Kind=ConfigMap): .x: field not declared in schema"}"#;
        assert!(!ApiError::refused(500, unknown).is_transient() && ApiError::refused(500, b"").is_transient());
        let garbled = br#"{"message":"failed to convert new object (a; /v1, Kind=Secret) to proper version: unable to convert unstructured object to /v1, Kind=Secret: error decoding from json: illegal base64 data at input byte 5"}"#;
        assert!(!ApiError::refused(500, garbled).is_transient());
        let body = br#"{"message":"Job.batch \"a\" is invalid: spec.template: Invalid value: {}: field is immutable"}"#;
        assert!(ApiError::refused(422, body).is_immutable());
    }

    #[test]
    fn fields_that_cannot_be_changed() {
        let cases = [
            ("Job.batch \"a\" is invalid: spec.template: Invalid value: {}: field is immutable", true),
            ("ConfigMap \"a\" is invalid: data: Forbidden: field is immutable when `immutable` is set", true),
            (
                "StatefulSet.apps \"a\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas' are forbidden",
                true,
            ),
            (
                "Pod \"a\" is invalid: spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`",
                true,
            ),
            (
                "PersistentVolumeClaim \"a\" is invalid: spec: Forbidden: spec is immutable after creation except resources.requests",
                true,
            ),
            (
                "PersistentVolume \"a\" is invalid: spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
                true,
            ),
            ("PriorityClass \"a\" is invalid: value: Forbidden: may not be changed in an update.", true),
            (
                "Service \"a\" is invalid: spec.clusterIPs[0]: Invalid value: [\"10.0.0.1\"]: may not change once set",
                true,
            ),
            ("RoleBinding \"a\" is invalid: roleRef: Invalid value: {}: cannot change roleRef", true),
            ("Service \"a\" is invalid: spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535", false),
            ("ConfigMap \"a\" is invalid: metadata.name: Required value", false),
        ];
        for (message, want) in cases {
            let body = format!("{{\"message\":{}}}", serde_json::json!(message));
            assert_eq!(ApiError::refused(422, body.as_bytes()).is_immutable(), want, "{message}");
            assert!(!ApiError::refused(403, body.as_bytes()).is_immutable(), "{message}");
        }
    }

    #[test]
    fn what_another_object_has() {
        let cases = [
            (
                422,
                "Service \\\"a\\\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated",
                true,
            ),
            (
                403,
                "pods \\\"a\\\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
                true,
            ),
            (403, "pods \\\"a\\\" is forbidden: no", false),
            (422, "ConfigMap \\\"a\\\" is invalid", false),
        ];
        for (status, message, want) in cases {
            let body = format!("{{\"message\":\"{message}\"}}");
            assert_eq!(ApiError::refused(status, body.as_bytes()).is_taken(), want, "{message}");
        }
    }

    #[test]
    fn secret_values_are_left_out() {
        let cases = [
            (r#"data.a: Invalid value: "s3cr\"et": no base64"#, "data.a: Invalid value: …: no base64"),
            ("x: Invalid value: 12: must be less", "x: Invalid value: …: must be less"),
            ("nothing here", "nothing here"),
            (
                r#".data.password: expected string, got &value.valueUnstructured{Value:"hunter2"}"#,
                ".data.password: expected string, got …",
            ),
            (".stringData: expected map, got &{hunter2}", ".stringData: expected map, got …"),
            (r#"a: value: "b", value: "c""#, "a: value: …, value: …"),
        ];
        for (message, want) in cases {
            assert_eq!(redacted(message), want, "{message}");
        }
    }

    #[test]
    fn a_right_that_is_missing_is_hinted_at_wherever_it_is() {
        for (status, words) in [(401, "credentials"), (403, "RBAC")] {
            let reading = ApiError::refused(status, b"").reading("the list of Pod");
            assert!(reading.hint().is_some_and(|hint| hint.contains(words)), "{status}");
            let object = Object { kind: "Pod".to_owned(), name: "a/b".to_owned() };
            assert!(ApiError::refused(status, b"").step("apply", &object).hint().is_some(), "{status}");
        }
        assert_eq!(ApiError::refused(500, b"").reading("x").hint(), None);
    }

    #[test]
    fn waits_are_bounded() {
        assert_eq!(retry_after(Some("3")), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(Some("86400")), Some(Duration::from_secs(60)));
        assert_eq!(retry_after(Some("Fri, 01 Jan 2027 00:00:00 GMT")), None);
        assert_eq!(retry_after(None), None);
    }
}
