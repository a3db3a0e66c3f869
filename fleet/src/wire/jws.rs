//! JWS in its compact form (RFC 7515), EdDSA with Ed25519 (RFC 8037), and
//! nothing else.
//!
//! What a message is stands in the protected header (`typ`), so that a valid
//! signature under one kind can't be passed off as another. Stricter than the
//! RFC wherever it leaves room: one algorithm, no extensions (`crit`, `b64`),
//! base64url without padding or loose bits, sizes bounded before anything is
//! decoded, the key named by fingerprint, `verify_strict`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};

use super::key::fingerprint;

/// What a JWS holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A device's [`super::report::Report`].
    Report,
    /// The hub's [`super::command::Command`].
    Command,
    /// The hub's [`super::ack::Ack`].
    Ack,
    /// The hub's [`super::release::Release`].
    Release,
    /// A device's [`super::token::DeviceToken`].
    Token,
    /// A device's [`super::enroll::EnrollRequest`].
    Enroll,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [Self::Report, Self::Command, Self::Ack, Self::Release, Self::Token, Self::Enroll];

    /// The header's `typ`.
    #[must_use]
    pub fn typ(self) -> &'static str {
        match self {
            Self::Report => "burgee-report+jws",
            Self::Command => "burgee-command+jws",
            Self::Ack => "burgee-ack+jws",
            Self::Release => "burgee-release+jws",
            Self::Token => "burgee-token+jws",
            Self::Enroll => "burgee-enroll+jws",
        }
    }

    /// The longest message of this kind, in bytes of its compact form.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::Report | Self::Release => 256 * 1024,
            Self::Command | Self::Enroll => 16 * 1024,
            Self::Ack | Self::Token => 2 * 1024,
        }
    }
}

/// Why text is not the message that it should be. Never holds the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwsError {
    #[error("longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("not three parts of base64url")]
    Form,
    #[error("its header is malformed")]
    Header,
    #[error("its algorithm is not EdDSA")]
    Algorithm,
    #[error("its header asks for an extension")]
    Critical,
    #[error("it is not of type {want}")]
    Type { want: &'static str },
    #[error("it is signed by key {kid}, not by {want}")]
    OtherKey { kid: String, want: String },
    #[error("its signature does not hold")]
    Signature,
    #[error("its content is malformed: {cause}")]
    Content { cause: String },
}

impl JwsError {
    /// Stable, CamelCase.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::OtherKey { .. } => "OtherKey",
            Self::Signature => "BadSignature",
            _ => "Malformed",
        }
    }
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
}

/// A field that is there, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

struct Parts<'a> {
    header: Header,
    /// What is signed: the first two parts and the dot between.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
}

/// Signs `value` as a message of `kind`.
///
/// # Errors
/// When `value` has no JSON form, or the message is longer than its kind may be.
pub fn sign<T: Serialize>(kind: Kind, value: &T, key: &SigningKey) -> Result<String, JwsError> {
    let content = |error: serde_json::Error| JwsError::Content { cause: error.to_string() };
    let kid = fingerprint(&key.verifying_key());
    let header = serde_json::to_vec(&HeaderOut { alg: "EdDSA", kid: &kid, typ: kind.typ() }).map_err(content)?;
    let payload = serde_json::to_vec(value).map_err(content)?;
    let mut text = URL_SAFE_NO_PAD.encode(header);
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut text);
    let signature = key.sign(text.as_bytes());
    text.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.to_bytes(), &mut text);
    if text.len() > kind.limit() { Err(JwsError::TooLong { limit: kind.limit() }) } else { Ok(text) }
}

/// The content of `text`, if it is a message of `kind` that `key` signed.
///
/// # Errors
/// When it is not; the content is not looked at before the signature holds.
pub fn verify<T: DeserializeOwned>(kind: Kind, text: &str, key: &VerifyingKey) -> Result<T, JwsError> {
    let parts = split(kind, text)?;
    holds(&parts, key)?;
    content(&parts)
}

/// As [`verify`], for a message that brings its own key: `key` says where. It
/// proves that the sender holds that key, and nothing about who that is.
///
/// # Errors
/// As [`verify`].
pub fn verify_own<T: DeserializeOwned>(
    kind: Kind,
    text: &str,
    key: impl Fn(&T) -> VerifyingKey,
) -> Result<T, JwsError> {
    let parts = split(kind, text)?;
    let value: T = content(&parts)?;
    holds(&parts, &key(&value))?;
    Ok(value)
}

/// Which key `text` says that it is signed by (its fingerprint), to look the
/// key up. Nothing is verified but the form.
///
/// # Errors
/// When `text` has not the form of a message of `kind`.
pub fn peek_kid(kind: Kind, text: &str) -> Result<String, JwsError> {
    split(kind, text).map(|parts| parts.header.kid)
}

fn split(kind: Kind, text: &str) -> Result<Parts<'_>, JwsError> {
    if text.len() > kind.limit() {
        return Err(JwsError::TooLong { limit: kind.limit() });
    }
    let (signed, signature) = text.rsplit_once('.').ok_or(JwsError::Form)?;
    let (header, payload) = signed.split_once('.').ok_or(JwsError::Form)?;
    if payload.contains('.') || payload.is_empty() {
        return Err(JwsError::Form);
    }
    let header = decode(header)?;
    // serde would read a list as the fields in their order.
    if header.first() != Some(&b'{') {
        return Err(JwsError::Header);
    }
    let header: Header = serde_json::from_slice(&header).map_err(|_| JwsError::Header)?;
    if header.alg != "EdDSA" {
        return Err(JwsError::Algorithm);
    }
    if header.crit || header.b64 {
        return Err(JwsError::Critical);
    }
    if header.typ != kind.typ() {
        return Err(JwsError::Type { want: kind.typ() });
    }
    Ok(Parts { header, signed, payload, signature })
}

fn holds(parts: &Parts<'_>, key: &VerifyingKey) -> Result<(), JwsError> {
    let want = fingerprint(key);
    if parts.header.kid != want {
        // What a stranger wrote is not echoed at length.
        let kid = parts.header.kid.chars().filter(|c| c.is_ascii_graphic()).take(50).collect();
        return Err(JwsError::OtherKey { kid, want });
    }
    let signature: [u8; 64] = decode(parts.signature)?.try_into().map_err(|_| JwsError::Signature)?;
    key.verify_strict(parts.signed.as_bytes(), &Signature::from_bytes(&signature)).map_err(|_| JwsError::Signature)
}

fn content<T: DeserializeOwned>(parts: &Parts<'_>) -> Result<T, JwsError> {
    serde_json::from_slice(&decode(parts.payload)?).map_err(|error| JwsError::Content { cause: error.to_string() })
}

/// base64url without padding; loose bits and anything else are refused.
fn decode(part: &str) -> Result<Vec<u8>, JwsError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| JwsError::Form)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
    use ed25519_dalek::{Signer as _, SigningKey};
    use serde_json::{Value, json};

    use super::{JwsError, Kind, peek_kid, sign, verify, verify_own};
    use crate::wire::key::fingerprint;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn signed(header: &str, payload: &str, by: &SigningKey) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = by.sign(text.as_bytes()).to_bytes();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn check(name: &str, text: &str, want: Result<(), &str>) {
        let got = verify::<Value>(Kind::Ack, text, &key(1).verifying_key());
        match (want, got) {
            (Ok(()), Ok(_)) => {}
            (Err(want), Err(error)) => {
                assert!(format!("{error:?}").starts_with(want), "{name}: {error:?}, expected {want}");
            }
            (_, got) => panic!("{name}: {got:?}"),
        }
    }

    #[test]
    fn strict() {
        let kid = fingerprint(&key(1).verifying_key());
        let head = |alg: &str, typ: &str, kid: &str, more: &str| {
            format!(r#"{{"alg":"{alg}","typ":"{typ}","kid":"{kid}"{more}}}"#)
        };
        let ack = Kind::Ack.typ();
        let plain = head("EdDSA", ack, &kid, "");
        let good = signed(&plain, "{}", &key(1));
        let (first, signature) = good.rsplit_once('.').unwrap();
        let (header, payload) = first.split_once('.').unwrap();
        let padded = URL_SAFE.encode(r#"{"a":1}"#);
        assert!(padded.ends_with('='));
        let mut high_s = URL_SAFE_NO_PAD.decode(signature).unwrap();
        high_s[63] |= 0xf0;
        // The last character of 64 bytes carries two bits, so four loose ones: A, Q, g, w are exact.
        let last = signature.chars().last().unwrap();
        let loose = match last {
            'A' => 'B',
            'Q' => 'R',
            'g' => 'h',
            _ => 'x',
        };
        let resigned = |text: String| {
            let signature = key(1).sign(text.as_bytes()).to_bytes();
            format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
        };
        let cases: Vec<(&str, String, Result<(), &str>)> = vec![
            ("good", good.clone(), Ok(())),
            (
                "unknown header fields are ignored",
                signed(&head("EdDSA", ack, &kid, r#","x":1"#), "{}", &key(1)),
                Ok(()),
            ),
            ("empty", String::new(), Err("Form")),
            ("one part", header.to_owned(), Err("Form")),
            ("two parts", first.to_owned(), Err("Form")),
            ("four parts", format!("{good}.e30"), Err("Form")),
            ("empty payload", resigned(format!("{header}.")), Err("Form")),
            ("empty signature", format!("{first}."), Err("Signature")),
            ("short signature", format!("{first}.{}", URL_SAFE_NO_PAD.encode([0; 63])), Err("Signature")),
            ("null signature", format!("{first}.{}", URL_SAFE_NO_PAD.encode([0; 64])), Err("Signature")),
            ("high s", format!("{first}.{}", URL_SAFE_NO_PAD.encode(high_s)), Err("Signature")),
            ("loose bits", format!("{first}.{}{loose}", &signature[..signature.len() - 1]), Err("Form")),
            ("padded payload", resigned(format!("{header}.{padded}")), Err("Form")),
            ("standard alphabet", format!("{first}.{}", "+/".repeat(43)), Err("Form")),
            ("line feed", format!("{good}\n"), Err("Form")),
            ("space before", format!(" {good}"), Err("Form")),
            ("another payload", format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("[]")), Err("Signature")),
            (
                "another header",
                format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(format!("{plain} "))),
                Err("Signature"),
            ),
            ("alg none", signed(&head("none", ack, &kid, ""), "{}", &key(1)), Err("Algorithm")),
            ("alg HS256", signed(&head("HS256", ack, &kid, ""), "{}", &key(1)), Err("Algorithm")),
            ("alg eddsa", signed(&head("eddsa", ack, &kid, ""), "{}", &key(1)), Err("Algorithm")),
            ("crit", signed(&head("EdDSA", ack, &kid, r#","crit":["exp"]"#), "{}", &key(1)), Err("Critical")),
            ("crit null", signed(&head("EdDSA", ack, &kid, r#","crit":null"#), "{}", &key(1)), Err("Critical")),
            ("b64", signed(&head("EdDSA", ack, &kid, r#","b64":false"#), "{}", &key(1)), Err("Critical")),
            ("another kind", signed(&head("EdDSA", Kind::Command.typ(), &kid, ""), "{}", &key(1)), Err("Type")),
            ("kind in capitals", signed(&head("EdDSA", "BURGEE-ACK+JWS", &kid, ""), "{}", &key(1)), Err("Type")),
            ("alg twice", signed(&head("EdDSA", ack, &kid, r#","alg":"none""#), "{}", &key(1)), Err("Header")),
            ("no kid", signed(r#"{"alg":"EdDSA","typ":"burgee-ack+jws"}"#, "{}", &key(1)), Err("Header")),
            ("header is a list", signed(r#"["EdDSA","burgee-ack+jws","x",null,null]"#, "{}", &key(1)), Err("Header")),
            ("header with a tail", signed(&format!("{plain}x"), "{}", &key(1)), Err("Header")),
            ("header is no UTF-8", resigned(format!("{}.{payload}", URL_SAFE_NO_PAD.encode(b"\xff{}"))), Err("Header")),
            (
                "another key",
                signed(&head("EdDSA", ack, &fingerprint(&key(2).verifying_key()), ""), "{}", &key(2)),
                Err("OtherKey"),
            ),
            ("another key under our name", signed(&plain, "{}", &key(2)), Err("Signature")),
            ("content is no JSON", signed(&plain, "{", &key(1)), Err("Content")),
            ("content with a tail", signed(&plain, "{}{}", &key(1)), Err("Content")),
            ("too long", signed(&plain, &format!("\"{}\"", "x".repeat(2048)), &key(1)), Err("TooLong")),
        ];
        for (name, text, want) in cases {
            check(name, &text, want);
        }
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let key = key(1);
        let text = sign(Kind::Ack, &json!({"counter": 7}), &key).unwrap();
        for at in 0..text.len() {
            for replacement in [b'A', b'z', b'_', b'.', b'=', b'\n', 0x7f] {
                let mut bytes = text.clone().into_bytes();
                if bytes[at] == replacement {
                    continue;
                }
                bytes[at] = replacement;
                let changed = String::from_utf8(bytes).unwrap();
                assert!(verify::<Value>(Kind::Ack, &changed, &key.verifying_key()).is_err(), "{at}: {changed}");
            }
        }
    }

    #[test]
    fn kinds_do_not_mix() {
        for made in Kind::ALL {
            let text = sign(made, &json!({}), &key(1)).unwrap();
            for read in Kind::ALL {
                let got = verify::<Value>(read, &text, &key(1).verifying_key());
                assert_eq!(got.is_ok(), made == read, "{made:?} read as {read:?}");
                assert_eq!(peek_kid(read, &text).is_ok(), made == read);
            }
        }
    }

    #[test]
    fn own_key() {
        let text = sign(Kind::Enroll, &json!({}), &key(1)).unwrap();
        assert!(verify_own::<Value>(Kind::Enroll, &text, |_| key(1).verifying_key()).is_ok());
        let other = verify_own::<Value>(Kind::Enroll, &text, |_| key(2).verifying_key());
        assert!(matches!(other, Err(JwsError::OtherKey { .. })));
    }

    #[test]
    fn too_long_to_sign() {
        let long = sign(Kind::Ack, &"x".repeat(2048), &key(1));
        assert_eq!(long, Err(JwsError::TooLong { limit: 2048 }));
    }

    #[test]
    fn rfc_8037_vector() {
        // Appendix A.4: its own header and payload, so only the primitive is held against it here.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::from_bytes(&seed.try_into().unwrap());
        let signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let want = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert_eq!(URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()), want);
    }
}
