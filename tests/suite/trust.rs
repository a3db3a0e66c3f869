//! Design §4 against real repositories: what stock Git signs holds, and each
//! attack is refused for its own reason. Runs the built `burgee-agent verify`.

use std::process::Command;

use harness::process::run;
use harness::repo::Signer;
use harness::trust::{Sshsig, Stage, armor, fresh_key, key_blob, public, taken_apart, tree, with_header};

/// Git's own date syntax, so many days from now.
fn days(offset: i64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    format!("@{} +0000", i64::try_from(now).expect("a time") + offset * 86_400)
}

/// `YYYYMMDD`, so many days from now.
fn day(offset: i64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_secs();
    let at = jiff::Timestamp::from_second(i64::try_from(now).expect("a time") + offset * 86_400).expect("a time");
    at.strftime("%Y%m%d").to_string()
}

#[test]
fn what_stock_git_signs_holds() {
    for stage in [Stage::new(), Stage::sha256()] {
        let first = stage.repo.commit("one");
        let said = stage.verify(&[]);
        said.holds(&first);
        assert!(said.out.contains(" ops@example.com SHA256:"), "{said:?}");
        stage.repo.write("apps/a/app.yaml", "runtime: files\n");
        let second = stage.repo.commit("two");
        stage.verify(&[]).holds(&second);
        stage.verify(&["--after", &first]).holds(&second);
        stage.verify(&["--after", &second]).holds(&second);
        let by_hand = stage.commit_by(&stage.hand, "by hand, as the attacks are made");
        stage.verify(&["--after", &second]).holds(&by_hand);
    }
}

#[test]
fn one_signature() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    stage.repo.commit_unsigned("head");
    let payload = stage.raw("HEAD");
    let key = &stage.hand;
    let honest = Sshsig::of(key);
    let blob = |sig: &Sshsig| sig.sign(key, &payload);
    let good = armor(&blob(&honest), 70);
    let signed = |value: &str| with_header(&payload, "gpgsig", value);
    let with = |change: &dyn Fn(&mut Sshsig)| {
        let mut sig = honest.clone();
        change(&mut sig);
        signed(&armor(&blob(&sig), 70))
    };
    let mallory = fresh_key();
    let ed25519 = key.verifying_key().to_bytes();
    let behind_key = [key_blob(b"ssh-ed25519", &ed25519), b"x".to_vec()].concat();
    let mut big_message = payload.clone();
    big_message.extend(vec![b'x'; 64 * 1024]);
    let mut nul = payload.clone();
    nul.extend_from_slice(b"a\0b\n");
    let resigned = |payload: &[u8]| with_header(payload, "gpgsig", &armor(&honest.sign(key, payload), 70));
    let body = good.lines().nth(1).expect("base64");
    // One byte short of a whole group, so that its last character has loose bits.
    let mut loose = Sshsig { behind: Vec::new(), ..honest.clone() };
    loose.reserved = Vec::new();
    let loose_bits = {
        let text = armor(&blob(&loose), 10_000);
        let line = text.lines().nth(1).expect("base64").to_owned();
        let pads = line.chars().rev().take_while(|c| *c == '=').count();
        assert!(pads > 0, "an honest blob ends in padding");
        let at = line.len() - pads - 1;
        let next = char::from(line.as_bytes()[at] + 1);
        text.replace(&line, &format!("{}{next}{}", &line[..at], &line[at + 1..]))
    };

    type Case<'a> = (&'a str, Vec<u8>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        ("no signature", payload.clone(), "Unsigned"),
        (
            "a stranger's",
            with_header(&payload, "gpgsig", &armor(&Sshsig::of(&mallory).sign(&mallory, &payload), 70)),
            "UnknownKey",
        ),
        ("of something else", signed(&armor(&honest.sign(key, b"something else"), 70)), "BadSignature"),
        ("a stranger's under a trusted key", signed(&armor(&honest.sign(&mallory, &payload), 70)), "BadSignature"),
        ("two headers", with_header(&signed(&good), "gpgsig", &good), "SeveralSignatures"),
        ("a second of SHA-256", with_header(&signed(&good), "gpgsig-sha256", &good), "SeveralSignatures"),
        ("SHA-256's header", with_header(&payload, "gpgsig-sha256", &good), "WrongSignatureHeader"),
        ("a header of a similar name", with_header(&payload, "gpgsigx", &good), "WrongSignatureHeader"),
        ("another namespace", with(&|sig| sig.namespace = b"file".to_vec()), "WrongNamespace"),
        ("a namespace in disguise", with(&|sig| sig.namespace = b"git\0".to_vec()), "WrongNamespace"),
        ("no namespace", with(&|sig| sig.namespace.clear()), "WrongNamespace"),
        ("a weak hash", with(&|sig| sig.hash = b"sha1".to_vec()), "HashAlgorithm"),
        ("a reserved field", with(&|sig| sig.reserved = b"x".to_vec()), "ReservedField"),
        ("another version", with(&|sig| sig.version = 2), "SignatureVersion"),
        ("an RSA key", with(&|sig| sig.key = key_blob(b"ssh-rsa", &ed25519)), "KeyType"),
        ("a security key", with(&|sig| sig.key = key_blob(b"sk-ssh-ed25519@openssh.com", &ed25519)), "KeyType"),
        (
            "a certificate",
            with(&|sig| sig.key = key_blob(b"ssh-ed25519-cert-v01@openssh.com", &ed25519)),
            "CertificateUsed",
        ),
        ("another signature type", with(&|sig| sig.signature_type = b"rsa-sha2-512".to_vec()), "SignatureType"),
        (
            "a weak key",
            with(&|sig| {
                sig.key = key_blob(b"ssh-ed25519", &{
                    let mut one = [0; 32];
                    one[0] = 1;
                    one
                })
            }),
            "WeakKey",
        ),
        ("bytes behind the blob", with(&|sig| sig.behind = b"xyz".to_vec()), "TrailingBytes"),
        ("bytes behind the signature", with(&|sig| sig.behind_signature = b"xyz".to_vec()), "TrailingBytes"),
        ("bytes behind the key", with(&|sig| sig.key = behind_key.clone()), "TrailingBytes"),
        ("a blob cut short", signed(&armor(&blob(&honest)[..100], 70)), "MalformedSignature"),
        ("no magic", signed(&armor(&blob(&honest)[1..], 70)), "MalformedSignature"),
        ("loose bits", signed(&loose_bits), "LooseBase64"),
        ("no padding", signed(&good.replace('=', "")), "LooseBase64"),
        ("a blank in the base64", signed(&good.replacen(body, &format!(" {body}"), 1)), "LooseBase64"),
        ("a blank line in the armor", signed(&good.replacen('\n', "\n\n", 1)), "LooseBase64"),
        ("a carriage return", signed(&good.replace('\n', "\r\n")), "MalformedArmor"),
        ("something before the armor", signed(&format!("x\n{good}")), "MalformedArmor"),
        ("something behind the armor", signed(&format!("{good}\nx")), "MalformedArmor"),
        ("a second armor", signed(&format!("{good}\n{good}")), "MalformedArmor"),
        ("no end", signed(good.trim_end_matches("-----END SSH SIGNATURE-----").trim_end()), "MalformedArmor"),
        ("an armor of five KiB", signed(&armor(&vec![0; 4 * 1024], 70)), "ArmorTooLarge"),
        ("OpenPGP", signed("-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----"), "OpenPgpSignature"),
        ("X.509", signed("-----BEGIN SIGNED MESSAGE-----\niQ==\n-----END SIGNED MESSAGE-----"), "X509Signature"),
        ("a commit of 64 KiB", resigned(&big_message), "CommitTooLarge"),
        ("a NUL", resigned(&nul), "CommitHoldsNul"),
    ];
    for (name, raw, reason) in cases {
        stage.put(&raw);
        for more in [&[][..], &["--after", &base]] {
            let said = stage.verify(more);
            assert_eq!(said.code, 3, "{name}: {said:?}");
            assert!(said.err.contains(&format!("({reason})")), "{name}: expected {reason}: {said:?}");
        }
    }
    // The same commit, honestly signed, holds: the cases fail for nothing else.
    let head = stage.put(&signed(&good));
    stage.verify(&["--after", &base]).holds(&head);
    let head = stage.put(&with(&|sig| sig.hash = b"sha256".to_vec()));
    stage.verify(&["--after", &base]).holds(&head);
}

#[test]
fn keys_that_git_takes_and_burgee_does_not() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    for kind in ["rsa", "ecdsa"] {
        let key = stage.folder.path().join(kind);
        run(Command::new("ssh-keygen").args(["-q", "-t", kind, "-N", "", "-f"]).arg(&key));
        stage.sign_with(&Signer { key, principal: "x".to_owned() });
        stage.repo.commit(kind);
        stage.verify(&["--after", &base]).refused("KeyType");
        stage.head(&base);
    }
}

#[test]
fn a_sha256_repository_asks_for_its_own_header() {
    let stage = Stage::sha256();
    let base = stage.repo.commit("base");
    stage.repo.commit_unsigned("head");
    let payload = stage.raw("HEAD");
    let good = armor(&Sshsig::of(&stage.hand).sign(&stage.hand, &payload), 70);
    stage.put(&with_header(&payload, "gpgsig", &good));
    stage.verify(&["--after", &base]).refused("WrongSignatureHeader");
    let head = stage.put(&with_header(&payload, "gpgsig-sha256", &good));
    stage.verify(&["--after", &base]).holds(&head);
}

#[test]
fn twins_are_one_revision() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    stage.repo.write("apps/a/app.yaml", "runtime: files\n");
    let genuine = stage.repo.commit("genuine");
    let (payload, value) = taken_apart(&stage.raw(&genuine));
    let rewrapped = {
        let lines: Vec<&str> = value.lines().collect();
        let base64 = lines[1..lines.len() - 1].concat();
        let (left, right) = base64.split_at(33);
        format!("{}\n{left}\n{right}\n{}", lines[0], lines[lines.len() - 1])
    };
    let twin = stage.put(&with_header(&payload, "gpgsig", &rewrapped));
    assert_ne!(twin, genuine);
    stage.verify(&["--after", &base]).holds(&twin);
    stage.verify(&["--after", &genuine]).holds(&twin);
    // The genuine history goes on, for those who hold the twin, and the other way round.
    stage.head(&genuine);
    let next = stage.repo.commit("next");
    for held in [&twin, &genuine, &base] {
        stage.verify(&["--after", held]).holds(&next);
    }
    // A floor is met by the twin of its commit, where the device holds that.
    stage.verify(&["--after", &twin, "--floor", &twin]).holds(&next);
}

#[test]
fn keys_have_their_time() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    let check = |options: &str, dated: &str, want: Option<&str>| {
        stage.head(&base);
        stage.repo.git(&["reset", "-q", "--hard", &base]);
        let key = Signer::new(tempfile::tempdir_in(stage.folder.path()).expect("a folder").keep().as_path(), "timed");
        stage.root(&format!("{}timed {options} {}\n", stage.lines(), key.public()));
        stage.repo.write("trust/allowed_signers", &format!("{}timed {options} {}\n", stage.lines(), key.public()));
        let signers = stage.repo.commit("signers");
        stage.sign_with(&key);
        let head = stage.commit_at("timed", dated);
        stage.sign_with(&stage.repo.signer);
        let said = stage.verify(&["--after", &signers]);
        match want {
            Some(reason) => said.refused(reason),
            None => said.holds(&head),
        }
    };
    let (past, near, soon) = (day(-10), day(-2), day(10));
    check(&format!("valid-after=\"{past}Z\",valid-before=\"{soon}Z\""), &days(0), None);
    check(&format!("namespaces=\"git\",valid-after=\"{past}0102Z\""), &days(0), None);
    check(&format!("valid-before=\"{near}Z\""), &days(0), Some("KeyExpired"));
    // Back-dated into the time when the key was valid: stock Git accepts this.
    check(&format!("valid-before=\"{near}Z\""), &days(-5), Some("KeyExpired"));
    check(&format!("valid-after=\"{soon}\""), &days(0), Some("KeyNotYetValid"));
    check(&format!("valid-after=\"{near}Z\""), &days(-5), Some("KeyNotYetValid"));
    check("namespaces=\"file\"", &days(0), Some("KeyNotForGit"));
    check("namespaces=\"g*,!git\"", &days(0), Some("KeyNotForGit"));
    check("cert-authority", &days(0), Some("UnknownKey"));
    check("no-such-option", &days(0), Some("UnknownKey"));
    check("namespaces=\"git\"", &days(3), Some("FutureDated"));
    check("namespaces=\"git\"", &days(-400), None);
}

#[test]
fn revoked_keys_stay_revoked() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    let revoked = stage.file("revoked", &format!("{}\n", stage.repo.signer.public()));
    let revoked = revoked.to_str().expect("a UTF-8 path");
    stage.verify(&["--revoked", revoked]).refused("KeyRevoked");
    // An old rotation by a key that the device revokes doesn't count either.
    let heir = Signer::new(stage.folder.path(), "heir");
    stage.repo.write("trust/allowed_signers", &format!("{}{}", stage.lines(), heir.line()));
    stage.repo.commit("rotation");
    stage.sign_with(&heir);
    let by_heir = stage.repo.commit("by the heir");
    stage.verify(&["--after", &base]).holds(&by_heir);
    stage.verify(&["--after", &base, "--revoked", revoked]).refused("KeyRevoked");
    // In the repository: from its place in the chain on.
    stage.repo.write("trust/revoked_keys", &format!("{}\n", stage.repo.signer.public()));
    let revocation = stage.repo.commit("revocation");
    stage.verify(&["--after", &base]).holds(&revocation);
    stage.sign_with(&stage.repo.signer);
    stage.repo.commit("by the revoked key");
    stage.verify(&["--after", &by_heir]).refused("KeyRevoked");
    stage.verify(&["--after", &revocation]).refused("KeyRevoked");
    stage.verify(&[]).refused("KeyRevoked");
    // Taking the line back does not bring the key back.
    stage.head(&revocation);
    stage.repo.git(&["reset", "-q", "--hard", &revocation]);
    stage.sign_with(&heir);
    stage.repo.remove("trust/revoked_keys");
    stage.repo.commit("forgiven?");
    stage.sign_with(&stage.repo.signer);
    stage.repo.commit("no");
    stage.verify(&["--after", &by_heir]).refused("KeyRevoked");
    // A revocation that can't be read stops everything.
    let broken = stage.file("broken", "ssh-ed25519 AAAA\n");
    stage.verify(&["--revoked", broken.to_str().expect("a UTF-8 path")]).failed(2, "revoked_keys");
}

#[test]
fn rotation() {
    let stage = Stage::new();
    let base = stage.repo.commit("base");
    let heir = Signer::new(stage.folder.path(), "heir");
    let mallory = Signer::new(stage.folder.path(), "mallory");
    let restart = || {
        stage.repo.git(&["reset", "-q", "--hard", &base]);
        stage.sign_with(&stage.repo.signer);
    };
    // By the old key, to the new one alone; unsigned commits in between are fine.
    stage.repo.write("trust/allowed_signers", &heir.line());
    stage.repo.commit("rotation");
    stage.repo.commit_unsigned("unsigned in between");
    stage.sign_with(&heir);
    let head = stage.repo.commit("by the heir");
    stage.verify(&[]).holds(&head);
    stage.verify(&["--after", &base]).holds(&head);
    // The old key is out, at the head and for the next rotation.
    stage.sign_with(&stage.repo.signer);
    stage.repo.commit("by the old key");
    stage.verify(&["--after", &base]).refused("UnknownKey");

    restart();
    stage.sign_with(&mallory);
    stage.repo.write("trust/allowed_signers", &format!("{}{}", stage.lines(), mallory.line()));
    let stolen = stage.repo.commit("mallory lets herself in");
    stage.verify(&["--after", &base]).refused("UnknownKey");
    stage.sign_with(&stage.repo.signer);
    stage.repo.commit("a trusted head above it");
    let said = stage.verify(&["--after", &base]);
    said.refused("UnknownKey");
    assert!(said.err.contains(&stolen), "{said:?}");

    restart();
    stage.repo.write("trust/allowed_signers", &format!("{}{}", stage.lines(), mallory.line()));
    stage.repo.commit_unsigned("an unsigned rotation");
    stage.repo.commit("a trusted head above it");
    stage.verify(&["--after", &base]).refused("Unsigned");

    for (name, empty) in
        [("removed", None), ("emptied", Some("# nobody\n")), ("dead", Some("a cert-authority ssh-ed25519 AAAA\n"))]
    {
        restart();
        match empty {
            None => stage.repo.remove("trust/allowed_signers"),
            Some(text) => stage.repo.write("trust/allowed_signers", text),
        }
        stage.repo.commit(name);
        stage.verify(&["--after", &base]).refused("SignersRemoved");
        // Mallory gains nothing by it; put back by a signer, history goes on.
        stage.sign_with(&mallory);
        stage.repo.write("trust/allowed_signers", &mallory.line());
        stage.repo.commit("mallory fills the gap");
        stage.verify(&["--after", &base]).refused("UnknownKey");
        stage.repo.git(&["reset", "-q", "--hard", "HEAD~1"]);
        stage.sign_with(&stage.repo.signer);
        stage.repo.write("trust/allowed_signers", &stage.lines());
        let mended = stage.repo.commit("mended");
        stage.verify(&["--after", &base]).holds(&mended);
    }

    restart();
    stage.repo.write("trust/allowed_signers", &format!("{}{}", stage.lines(), heir.line()));
    stage.commit_at("a rotation from long ago", &days(-3));
    stage.verify(&["--after", &base]).refused("BackDated");
    restart();
    stage.repo.write("README.md", "trust/ is as it was\n");
    let head = stage.commit_at("an old date alone is fine", &days(-3));
    stage.verify(&["--after", &base]).holds(&head);

    restart();
    stage.repo.write("trust/policy.yaml", "require: haed\n");
    stage.repo.commit("a typing mistake");
    stage.verify(&["--after", &base]).failed(2, "trust/policy.yaml:1:");
    stage.repo.write("trust/policy.yaml", "require: head\n");
    let head = stage.repo.commit("mended");
    stage.verify(&["--after", &base]).holds(&head);
}

#[test]
fn history_goes_forward() {
    let stage = Stage::new();
    let one = stage.repo.commit("one");
    let two = stage.repo.commit("two");
    stage.head(&one);
    stage.verify(&["--after", &two]).refused("Rewound");
    stage.repo.git(&["reset", "-q", "--hard", &one]);
    stage.repo.write("README.md", "another history\n");
    stage.repo.commit("rewritten");
    stage.verify(&["--after", &two]).refused("Rewound");
    stage.verify(&["--after", &one]).holds(&stage.repo.head());
    // A host that has lost the accepted commit says nothing else.
    let gone = "0123456789abcdef0123456789abcdef01234567";
    stage.verify(&["--after", gone]).refused("Rewound");
    // By any parent, and not along the first one.
    stage.repo.git(&["merge", "-q", "--no-ff", "-S", "-m", "merge", &two]);
    let merge = stage.repo.head();
    stage.verify(&["--after", &two]).holds(&merge);
    // The walk is bounded.
    for number in 0..30 {
        stage.repo.commit(&format!("{number}"));
    }
    stage.verify(&["--after", &one]).holds(&stage.repo.head());
    stage.verify(&["--after", &one, "--set", "source.limits.commits=10"]).refused("TooManyCommits");
}

#[test]
fn every_commit() {
    let stage = Stage::new();
    stage.repo.commit_unsigned("from before the policy");
    let fork = stage.repo.commit_unsigned("the fork");
    stage.repo.write("trust/policy.yaml", "require: every-commit\n");
    stage.repo.commit("policy");
    let base = stage.repo.commit("base");
    stage.repo.git(&["checkout", "-q", "-b", "side", &fork]);
    stage.repo.write("side.txt", "side\n");
    let side = stage.repo.commit("signed, on a side branch from before");
    stage.repo.git(&["checkout", "-q", "main"]);
    stage.repo.git(&["merge", "-q", "--no-ff", "-S", "-m", "merge", "side"]);
    let merge = stage.repo.head();
    stage.verify(&["--after", &base]).holds(&merge);
    stage.verify(&[]).holds(&merge);
    stage.repo.git(&["checkout", "-q", "-B", "side", &side]);
    let unsigned = stage.repo.commit_unsigned("unsigned, on the side");
    stage.repo.git(&["checkout", "-q", "main"]);
    stage.repo.git(&["merge", "-q", "--no-ff", "-S", "-m", "merge", "side"]);
    let said = stage.verify(&["--after", &merge]);
    said.refused("Unsigned");
    assert!(said.err.contains(&unsigned), "{said:?}");
    stage.repo.git(&["reset", "-q", "--hard", &merge]);
    stage.repo.commit_unsigned("unsigned, in line");
    stage.repo.commit("signed");
    stage.verify(&["--after", &merge]).refused("Unsigned");
    stage.verify(&["--after", &base]).refused("Unsigned");
}

#[test]
fn floors() {
    let stage = Stage::new();
    let one = stage.repo.commit("one");
    let two = stage.repo.commit("two");
    stage.verify(&["--floor", &one]).holds(&two);
    stage.verify(&["--floor", &two]).holds(&two);
    stage.head(&one);
    stage.verify(&["--floor", &two]).refused("BelowFloor");
    stage.head(&two);
    stage.repo.write("trust/policy.yaml", &format!("floor: {one}\n"));
    let named = stage.repo.commit("a floor");
    stage.verify(&[]).holds(&named);
    stage.verify(&["--after", &two]).holds(&named);
    stage.repo.git(&["checkout", "-q", "--orphan", "elsewhere"]);
    let other = stage.repo.commit_unsigned("elsewhere");
    stage.repo.git(&["checkout", "-q", "main"]);
    stage.repo.write("trust/policy.yaml", &format!("floor: {other}\n"));
    stage.repo.commit("a floor that is nowhere below");
    stage.verify(&["--after", &named]).refused("BelowFloor");
    stage.verify(&["--floor", "nonsense"]).failed(2, "floor");
}

#[test]
fn first_starts() {
    let stage = Stage::new();
    // No trust/ in the repository: the root file alone judges.
    stage.repo.remove("trust");
    let bare = stage.repo.commit("no trust/");
    stage.verify(&[]).holds(&bare);
    stage.repo.commit_unsigned("unsigned");
    stage.verify(&[]).refused("Unsigned");
    stage.repo.git(&["reset", "-q", "--hard", &bare]);
    stage.repo.write("trust/allowed_signers", &stage.lines());
    let with = stage.repo.commit("trust/ arrives");
    stage.verify(&[]).holds(&with);
    // Other principals, comments and order say the same; another key does not.
    let said = stage.lines();
    let mut lines: Vec<String> = said.lines().map(|line| format!("{line} comment")).collect();
    lines.reverse();
    stage.root(&format!("# the device's own\n{}\n", lines.join("\n").replace("ops@", "others@")));
    stage.verify(&[]).holds(&with);
    // A root that never agreed.
    let stranger = Signer::new(stage.folder.path(), "stranger");
    stage.root(&stranger.line());
    let refused = stage.verify(&[]);
    refused.refused("UnknownKey");
    assert!(refused.err.contains("hint") && refused.err.contains("SHA256:"), "{refused:?}");
    stage.root(&format!("{}{}", stage.lines(), stranger.line()));
    stage.repo.write("trust/policy.yaml", "require: head\n");
    stage.repo.commit("trust/ says less than the root");
    stage.repo.git(&["update-ref", "refs/heads/main", "HEAD"]);
    stage.verify(&[]).holds(&stage.repo.head());
    stage.root("# nobody\n");
    stage.verify(&[]).failed(2, "no line");
    std::fs::remove_file(&stage.trust).expect("a root to remove");
    stage.verify(&[]).failed(2, "allowed_signers");
}

#[test]
fn hosts_that_hide_or_replace() {
    let stage = Stage::new();
    stage.repo.commit("one");
    let two = stage.repo.commit("two");
    stage.repo.commit_unsigned("three");
    let shallow = stage.folder.path().join("shallow.git");
    let url = format!("file://{}", stage.repo.path.display());
    run(Command::new("git").args(["clone", "-q", "--bare", "--depth", "1", &url]).arg(&shallow));
    stage.verify_at(shallow.to_str().expect("a UTF-8 path"), &[]).refused("ShallowHistory");
    // Where the head itself is vouched for, depth 1 is enough.
    stage.head(&two);
    std::fs::remove_dir_all(&shallow).expect("a clone to remove");
    run(Command::new("git").args(["clone", "-q", "--bare", "--depth", "1", &url]).arg(&shallow));
    stage.verify_at(shallow.to_str().expect("a UTF-8 path"), &[]).holds(&two);

    // A replacement that would make an unsigned head look signed; a graft that would hide it.
    let unsigned = {
        stage.repo.git(&["reset", "-q", "--hard", &two]);
        stage.repo.commit_unsigned("unsigned")
    };
    stage.repo.git(&["replace", &unsigned, &two]);
    std::fs::create_dir_all(stage.repo.path.join(".git/info")).expect("a folder");
    std::fs::write(stage.repo.path.join(".git/info/grafts"), format!("{unsigned}\n")).expect("grafts");
    stage.verify(&["--after", &two]).refused("Unsigned");
}

#[test]
fn trees_within_format_one() {
    let stage = Stage::new();
    stage.repo.write("apps/a/app.yaml", "runtime: files\n");
    stage.repo.write("run.sh", "#!/bin/sh\n");
    let base = stage.repo.commit("base");
    let blob = stage.object("blob", b"x\n");
    let empty = stage.object("tree", b"");
    let inner = stage.object("tree", &tree(&[("100644", b"x", &blob)]));
    type Entries<'a> = Vec<(&'a str, &'a [u8], &'a str)>;
    let cases: Vec<(&str, Entries<'_>, &str)> = vec![
        ("a link", vec![("120000", b"x", &blob)], "symbolic link"),
        ("a submodule", vec![("160000", b"x", &base)], "submodule"),
        ("a mode that Git does not write", vec![("100664", b"x", &blob)], "mode"),
        (".git", vec![("40000", b".git", &inner)], ".git"),
        (".GIT", vec![("100644", b".GIT", &blob)], ".git"),
        ("git~1", vec![("40000", b"git~1", &inner)], ".git"),
        ("..", vec![("40000", b"..", &inner)], "leads out"),
        ("a backslash", vec![("100644", b"a\\b", &blob)], "backslash"),
        ("a slash", vec![("100644", b"a/b", &blob)], "slash"),
        ("a control character", vec![("100644", b"a\nb", &blob)], "control"),
        ("not UTF-8", vec![("100644", b"a\xffb", &blob)], "UTF-8"),
        ("a repeated name", vec![("100644", b"x", &blob), ("100644", b"x", &blob)], "twice"),
        ("a file and a folder of one name", vec![("100644", b"x", &blob), ("40000", b"x", &empty)], "twice"),
    ];
    for (name, entries, word) in cases {
        let bad = stage.object("tree", &tree(&entries));
        stage.head(&base);
        let top = stage.top_with(&[("40000", b"apps", &bad)]);
        stage.put_signed(&stage.payload(&top, &base));
        let said = stage.verify(&["--after", &base]);
        assert_eq!(said.code, 2, "{name}: {said:?}");
        assert!(said.err.contains(word), "{name}: {said:?}");
        // Outside the paths of format 1 it is not looked at.
        stage.head(&base);
        let top = stage.top_with(&[("40000", b"docs", &bad)]);
        let head = stage.put_signed(&stage.payload(&top, &base));
        let said = stage.verify(&["--after", &base]);
        assert_eq!((said.code, said.out.contains(&head)), (0, true), "{name} outside: {said:?}");
    }
    for (name, entry, word) in [
        ("a link for a folder", ("120000", &b"apps"[..], blob.as_str()), "symbolic link"),
        ("a file for a folder", ("100644", b"groups", &blob), "must be a folder"),
        ("a folder for a file", ("40000", b"burgee.yaml", &inner), "must be a file"),
    ] {
        stage.head(&base);
        let top = stage.top_with(&[entry]);
        stage.put_signed(&stage.payload(&top, &base));
        let said = stage.verify(&["--after", &base]);
        assert_eq!(said.code, 2, "{name}: {said:?}");
        assert!(said.err.contains(word), "{name}: {said:?}");
    }
}

#[test]
fn hand_made_keys_are_what_ssh_keygen_reads() {
    // The attacks would prove little if the honest form of them were not SSH's own.
    let stage = Stage::new();
    let line = stage.file("hand.pub", &format!("{}\n", public(&stage.hand)));
    let shown = run(Command::new("ssh-keygen").args(["-l", "-f"]).arg(&line));
    assert!(shown.contains("ED25519"), "{shown}");
    stage.commit_by(&stage.hand, "by hand");
    let signers = stage.file("signers", &stage.lines());
    stage.repo.git(&["config", "gpg.ssh.allowedSignersFile", signers.to_str().expect("a UTF-8 path")]);
    stage.repo.git(&["verify-commit", "HEAD"]);
}
