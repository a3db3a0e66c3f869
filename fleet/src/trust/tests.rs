//! The readers against everything: case tables, every one-byte change of a
//! signed commit, and arbitrary bytes. The rules over whole histories are in
//! `tests/suite/trust.rs`, with real repositories.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;
use sha2::{Digest as _, Sha512};

use super::commit::{Commit, Links};
use super::key::{PublicKey, put_string};
use super::policy::{Policy, Require};
use super::refusal::{At, Refusal};
use super::signers::{Signers, parse_revoked};
use super::sshsig::Signature;
use super::{Root, check};
use crate::finding::Severity;
use crate::revision::CommitId;
use crate::tree::MemoryTree;

const PAYLOAD: &[u8] = b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
    parent 0123456789abcdef0123456789abcdef01234567\n\
    author A U Thor <a@example.com> 1700000000 +0100\n\
    committer C O Mitter <c@example.com> 1700000000 +0100\n\
    encoding UTF-8\n\n\
    subject\n\nbody\n";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn line() -> String {
    PublicKey::from_bytes(key().verifying_key().to_bytes()).unwrap().to_string()
}

fn id() -> CommitId {
    "89abcdef0123456789abcdef0123456789abcdef".parse().unwrap()
}

fn blob(payload: &[u8]) -> Vec<u8> {
    let mut signed = b"SSHSIG".to_vec();
    for part in [&b"git"[..], b"", b"sha512", &Sha512::digest(payload)] {
        put_string(&mut signed, part);
    }
    let mut inner = Vec::new();
    put_string(&mut inner, b"ssh-ed25519");
    put_string(&mut inner, &key().sign(&signed).to_bytes());
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    let public = PublicKey::from_bytes(key().verifying_key().to_bytes()).unwrap().blob();
    for part in [&public[..], b"git", b"", b"sha512", &inner] {
        put_string(&mut blob, part);
    }
    blob
}

fn signed(payload: &[u8]) -> Vec<u8> {
    let base64 = STANDARD.encode(blob(payload));
    let lines: Vec<&str> = base64.as_bytes().chunks(70).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let header =
        format!("gpgsig -----BEGIN SSH SIGNATURE-----\n {}\n -----END SSH SIGNATURE-----\n", lines.join("\n "));
    let blank = payload.windows(2).position(|pair| pair == b"\n\n").unwrap() + 1;
    [&payload[..blank], header.as_bytes(), &payload[blank..]].concat()
}

fn accepted(raw: &[u8]) -> Result<(), Refusal> {
    let commit = Commit::read(&id(), raw)?;
    commit.verify()?;
    Signers::parse("signers", format!("me {}", line()).as_bytes()).0.signer(&commit.signature.key, None).map(drop)
}

#[test]
fn an_honest_commit_is_read() {
    let raw = signed(PAYLOAD);
    let commit = Commit::read(&id(), &raw).unwrap();
    assert_eq!((commit.committed_at, commit.subject.as_str()), (1_700_000_000, "subject"));
    assert_eq!(accepted(&raw), Ok(()));
    let (twin, bare) = (Links::read(&raw).unwrap(), Links::read(PAYLOAD).unwrap());
    assert_eq!(twin, bare);
    assert_eq!(twin.parents.len(), 1);
}

#[test]
fn any_changed_byte_is_refused_or_makes_a_twin() {
    let raw = signed(PAYLOAD);
    let identity = Links::read(&raw).unwrap().identity;
    let mut twins = 0;
    for at in 0..raw.len() {
        for with in [raw[at] ^ 1, raw[at] ^ 0x20, raw[at] ^ 0x80, b'\n', b' ', 0, b'='] {
            let mut changed = raw.clone();
            changed[at] = with;
            if changed != raw && accepted(&changed).is_ok() {
                assert_eq!(Links::read(&changed).unwrap().identity, identity, "byte {at} made {with}");
                twins += 1;
            }
        }
        for changed in
            [[&raw[..at], &raw[at + 1..]].concat(), [&raw[..at], b"\n", &raw[at..]].concat(), raw[..at].to_vec()]
        {
            if accepted(&changed).is_ok() {
                assert_eq!(Links::read(&changed).unwrap().identity, identity, "byte {at}");
                twins += 1;
            }
        }
    }
    // Few: base64 is strict, so that only line ends within the armor can move.
    assert!(twins < 20, "{twins}");
}

#[test]
fn headers() {
    let with = |from: &str, to: &str| {
        let text = String::from_utf8(PAYLOAD.to_vec()).unwrap();
        assert!(text.contains(from), "{from}");
        signed(text.replacen(from, to, 1).as_bytes())
    };
    let cases = [
        (with("encoding UTF-8\n", "mergetag object x\n gpgsig y\n"), None),
        (with("1700000000 +0100\nenc", "1700000000 +01:00\nenc"), Some("MalformedCommit")),
        (with("1700000000 +0100\nenc", "-1 +0100\nenc"), Some("MalformedCommit")),
        (with("1700000000 +0100\nenc", "99999999999999999999 +0100\nenc"), Some("MalformedCommit")),
        (with("encoding UTF-8\n", "committer X <x> 1 +0000\n"), Some("MalformedCommit")),
        (with("encoding UTF-8\n", "parent 0123456789abcdef0123456789abcdef01234567\n"), Some("MalformedCommit")),
        (with("parent 0123", "parent 01234"), Some("MalformedCommit")),
        (with("parent 0123", "parent X123"), Some("MalformedCommit")),
        (with("author ", "autor "), Some("MalformedCommit")),
        (with("tree ", "trees "), Some("MalformedCommit")),
    ];
    for (raw, want) in cases {
        let got = accepted(&raw).err();
        assert_eq!(got.as_ref().map(Refusal::reason), want, "{}: {got:?}", String::from_utf8_lossy(&raw));
    }
}

#[test]
fn allowed_signers_lines() {
    let key = line();
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
    let inside = at("2024-06-01T12:00:00Z");
    // Text with K for the key; whether it counts; whether it holds at `inside`.
    let cases = [
        ("me K", 1, true),
        ("\tme,you  K a comment\r", 1, true),
        ("\"me too\" K", 1, true),
        ("me namespaces=\"git\" K", 1, true),
        ("me NameSpaces=\"file,g?t\" K", 1, true),
        ("me namespaces=\"*\",valid-after=\"20240601\" K", 1, true),
        ("me valid-after=\"202406011200\" K", 1, true),
        ("me valid-after=\"20240601120000Z\" K", 1, true),
        ("me valid-after=\"20240601120001Z\" K", 1, false),
        ("me valid-before=\"20240601120000utc\" K", 1, true),
        ("me valid-before=\"20240601115959z\" K", 1, false),
        ("me namespaces=\"git,!git\" K", 1, false),
        ("me namespaces=\"file\" K", 1, false),
        ("# me K", 0, false),
        ("", 0, false),
        ("me namespaces=git K", 0, false),
        ("me valid-after=20240601 K", 0, false),
        ("me valid-after=\"2024-06-01\" K", 0, false),
        ("me valid-after=\"20240230\" K", 0, false),
        ("me valid-after=\"2024060112000\" K", 0, false),
        ("me valid-after=\"19700101Z\" K", 0, false),
        ("me valid-after=\"20240601\",valid-after=\"20240602\" K", 0, false),
        ("me valid-after=\"20240602\",valid-before=\"20240601\" K", 0, false),
        ("me valid-after=\"20240601\", K", 0, false),
        ("me cert-authority K", 0, false),
        ("me cert-authority,namespaces=\"git\" K", 0, false),
        ("me restrict K", 0, false),
        ("me namespaces=\"git K", 0, false),
        ("\"me K", 0, false),
        ("me\"too\" K", 0, false),
        ("K", 0, false),
        ("me", 0, false),
        ("me ssh-rsa AAAAB3NzaC1yc2E=", 0, false),
        ("me sk-ssh-ed25519@openssh.com AAAA", 0, false),
        ("me ssh-ed25519", 0, false),
        ("me ssh-ed25519 AAAA", 0, false),
        ("me ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 0, false),
    ];
    let public = PublicKey::from_bytes(super::tests::key().verifying_key().to_bytes()).unwrap();
    for (text, counts, holds) in cases {
        let text = text.replace('K', &key);
        let (signers, findings) = Signers::parse("signers", text.as_bytes());
        assert_eq!(signers.grants().len(), counts, "{text}: {findings:?}");
        let blank = text.trim().is_empty() || text.starts_with('#');
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        assert_eq!(errors, usize::from(counts == 0 && !blank), "{text}: {findings:?}");
        assert_eq!(signers.signer(&public, Some((At::Now, inside))).is_ok(), holds, "{text}");
    }
    // Any line that holds will do, and the first principal is the one shown.
    let both = format!("old valid-before=\"20200101Z\" {key}\nnew,other {key}\n");
    let signer = Signers::parse("signers", both.as_bytes()).0.signer(&public, Some((At::Now, inside))).unwrap();
    assert_eq!(signer.principal, "new");
    let not_utf8 = [b"me\xff ".as_slice(), key.as_bytes()].concat();
    assert!(Signers::parse("signers", &not_utf8).0.is_empty());
}

#[test]
fn revoked_keys() {
    let key = line();
    let cases = [
        (format!("# gone\n\n{key} comment\n"), Some(1)),
        (format!("me namespaces=\"git\" {key}"), Some(1)),
        ("ssh-rsa AAAAB3NzaC1yc2E= old".to_owned(), Some(0)),
        ("ssh-ed25519 AAAA".to_owned(), None),
        ("SHA256:abc".to_owned(), None),
    ];
    for (text, want) in cases {
        let (keys, findings) = parse_revoked("revoked", text.as_bytes());
        assert_eq!(findings.is_empty().then_some(keys.len()), want, "{text}: {findings:?}");
    }
}

#[test]
fn policies() {
    let floor = "1111111111111111111111111111111111111111";
    let cases = [
        (String::new(), Some((Require::Head, false))),
        ("# nothing\n".to_owned(), Some((Require::Head, false))),
        ("require: head\n".to_owned(), Some((Require::Head, false))),
        ("require: every-commit\n".to_owned(), Some((Require::EveryCommit, false))),
        (format!("floor: {floor}\n"), Some((Require::Head, true))),
        (format!("floor: \"{floor}\"\nrequire: head\n"), Some((Require::Head, true))),
        ("require: all\n".to_owned(), None),
        ("flor: x\n".to_owned(), None),
        ("floor: 4f1c\n".to_owned(), None),
        ("require: head\nrequire: every-commit\n".to_owned(), None),
        ("- require\n".to_owned(), None),
        ("require: [\n".to_owned(), None),
    ];
    for (text, want) in cases {
        let got = Policy::parse("policy", text.as_bytes());
        let shape = got.as_ref().ok().map(|policy| (policy.require, policy.floor.is_some()));
        assert_eq!(shape, want, "{text}: {got:?}");
    }
    let finding = Policy::parse("policy", b"require: head\nflor: x\n").unwrap_err();
    assert_eq!(finding.line, 2, "{finding}");
}

#[test]
fn a_root_is_what_it_says() {
    let key = line();
    let root = |allowed: &str, revoked: Option<&str>| {
        Root::parse(allowed.as_bytes(), revoked.map(str::as_bytes)).map(|(root, _)| root.digest())
    };
    let plain = root(&format!("me {key}"), None).unwrap();
    assert_eq!(plain, root(&format!("# words\nyou {key} x\n"), Some("")).unwrap());
    assert_ne!(plain, root(&format!("me namespaces=\"git\" {key}"), None).unwrap());
    assert_ne!(plain, root(&format!("me {key}"), Some(&key)).unwrap());
    assert!(root("# nobody", None).is_err());
    assert!(root(&format!("me {key}"), Some("ssh-ed25519 AAAA")).is_err());
}

#[test]
fn findings_of_check() {
    let key = line();
    let count = |files: &[(&str, String)]| {
        let tree: MemoryTree = files.iter().map(|(path, text)| (*path, text.clone())).collect();
        let findings = check(&tree);
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        (errors, findings.len() - errors)
    };
    let signers = |text: String| ("trust/allowed_signers", text);
    assert_eq!(count(&[]), (0, 0));
    assert_eq!(count(&[signers(format!("me {key}\n"))]), (0, 0));
    assert_eq!(count(&[signers(format!("me valid-after=\"20240101\" {key}\n"))]), (0, 1));
    assert_eq!(count(&[signers(format!("me {key}\nme cert-authority {key}\n"))]), (1, 0));
    assert_eq!(count(&[signers("# nobody\n".to_owned())]), (1, 0));
    assert_eq!(count(&[("trust/policy.yaml", "require: head\n".to_owned())]), (1, 0));
    assert_eq!(count(&[signers(format!("me {key}")), ("trust/policy.yaml", "x: 1\n".to_owned())]), (1, 0));
    assert_eq!(count(&[signers(format!("me {key}")), ("trust/revoked_keys", "nonsense\n".to_owned())]), (1, 0));
    assert_eq!(count(&[signers(format!("me {key}")), ("trust/README", "words\n".to_owned())]), (0, 1));
}

fn read_everything(bytes: &[u8]) {
    let _ = Links::read(bytes);
    let _ = Commit::read(&id(), bytes).map(|commit| commit.verify());
    let _ = Signature::from_armor(bytes);
    let _ = Signature::from_blob(bytes).map(|signature| signature.verify(b""));
    let _ = PublicKey::from_blob(bytes);
    let _ = Signers::parse("signers", bytes);
    let _ = parse_revoked("revoked", bytes);
    let _ = Policy::parse("policy", bytes);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    #[test]
    fn spliced_signatures_never_panic_nor_pass(
        at in 0_usize..300, cut in 0_usize..40, put in proptest::collection::vec(any::<u8>(), 0..40)
    ) {
        let honest = blob(PAYLOAD);
        let at = at.min(honest.len());
        let end = (at + cut).min(honest.len());
        let spliced = [&honest[..at], &put, &honest[end..]].concat();
        read_everything(&spliced);
        if spliced != honest {
            let passes = Signature::from_blob(&spliced).and_then(|signature| signature.verify(PAYLOAD)).is_ok();
            prop_assert!(!passes);
        }
    }

    #[test]
    fn spliced_commits_pass_only_as_twins(
        at in 0_usize..900, cut in 0_usize..60, put in "[ -~\n]{0,60}"
    ) {
        let honest = signed(PAYLOAD);
        let at = at.min(honest.len());
        let end = (at + cut).min(honest.len());
        let spliced = [&honest[..at], put.as_bytes(), &honest[end..]].concat();
        read_everything(&spliced);
        if accepted(&spliced).is_ok() {
            prop_assert_eq!(Links::read(&spliced).unwrap().identity, Links::read(&honest).unwrap().identity);
        }
    }

    #[test]
    fn signers_text_never_panics(text in "(me|\"a b\"|a,b)?[ \t]*(namespaces|valid-after|cert-authority|x)?=?\"?[0-9a-zA-Z!*,]{0,20}\"?,?[ \t]*(ssh-ed25519)?[ ]?[A-Za-z0-9+/=]{0,70}\n?") {
        read_everything(text.as_bytes());
    }
}
