//! What a service mounts: binds, volumes, files of the repository, configs and secrets.

use std::collections::BTreeMap;

use super::{dict, read_files, texts, web_file};
use crate::compose::model::{Mount, MountSource};
use crate::digest::Digest;

#[track_caller]
fn mounts(lines: &str) -> Vec<Mount> {
    let yaml = format!("{}volumes: {{data: {{}}}}\n", web_file(lines));
    let files = [
        ("compose.yaml", yaml.as_str()),
        ("conf/a", "A"),
        ("conf/d/b", "B"),
        ("confetti", "no"),
        ("/apps/base/x", "X"),
    ];
    let read = read_files(&files, &[]).unwrap_or_else(|errors| panic!("{errors:#?}"));
    for mount in &read.project.services["web"].mounts {
        if let MountSource::Repository { files, .. } = &mount.source {
            assert!(files.values().all(|file| read.blobs.contains_key(&file.content)));
        }
    }
    read.project.services["web"].mounts.clone()
}

fn bind(path: &str) -> MountSource {
    MountSource::Bind { path: path.into(), create_host_path: true, propagation: None, selinux: None, recursive: None }
}

#[test]
fn mounts_of_the_device() {
    let found = mounts(
        "volumes:\n  - /a:/b:ro,z,rslave\n  - type: bind\n    source: /c\n    target: /d\n    bind: {create_host_path: false, propagation: shared, recursive: readonly, selinux: Z}",
    );
    let want = MountSource::Bind {
        path: "/a".into(),
        create_host_path: true,
        propagation: Some("rslave".into()),
        selinux: Some("z".into()),
        recursive: None,
    };
    assert_eq!(found[0], Mount { target: "/b".into(), read_only: true, source: want });
    let want = MountSource::Bind {
        path: "/c".into(),
        create_host_path: false,
        propagation: Some("shared".into()),
        selinux: Some("Z".into()),
        recursive: Some("readonly".into()),
    };
    assert_eq!(found[1], Mount { target: "/d".into(), read_only: false, source: want });
    assert_eq!(
        mounts("volumes: ['/var/run/docker.sock:/var/run/docker.sock']")[0].source,
        bind("/var/run/docker.sock")
    );
}

#[test]
fn mounts_of_the_repository() {
    for lines in
        ["volumes: ['./conf/a:/etc/a:ro']", "volumes: [{type: bind, source: conf/a, target: /etc/a, read_only: true}]"]
    {
        let found = mounts(lines);
        let MountSource::Repository { path, folder, files, .. } = &found[0].source else { panic!("{found:?}") };
        assert_eq!((path.as_str(), *folder, found[0].read_only), ("apps/pos/conf/a", false, true));
        assert_eq!(files[""].content, Digest::of(b"A"));
        assert_eq!(files[""].mode, 0o644);
    }
    let found = mounts("volumes: ['./conf:/etc/conf:Z', '../base/x:/x']");
    let MountSource::Repository { path, folder, files, selinux } = &found[0].source else { panic!("{found:?}") };
    assert_eq!((path.as_str(), *folder, selinux.as_deref()), ("apps/pos/conf", true, Some("Z")));
    assert_eq!(files.keys().collect::<Vec<_>>(), ["a", "d/b"]);
    let MountSource::Repository { path, .. } = &found[1].source else { panic!("{found:?}") };
    assert_eq!(path, "apps/base/x");
    let found = mounts("volumes: ['.:/code']");
    let MountSource::Repository { files, .. } = &found[0].source else { panic!("{found:?}") };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["compose.yaml", "conf/a", "conf/d/b", "confetti"]);
}

#[test]
fn other_mounts() {
    let found = mounts(
        "\
volumes:
  - data:/data:nocopy
  - /anonymous
  - {type: volume, source: data, target: /sub, volume: {subpath: s, nocopy: true, labels: [a=b]}}
  - {type: volume, target: /own}
  - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 01777}}
  - {type: image, source: busybox, target: /i, image: {subpath: bin}}
tmpfs: ['/run:size=64m,mode=755,noexec', /tmp]",
    );
    let sources: Vec<_> = found.into_iter().map(|mount| mount.source).collect();
    let volume = |nocopy, subpath: Option<&str>, labels| MountSource::Volume {
        key: "data".into(),
        nocopy,
        subpath: subpath.map(str::to_owned),
        labels,
    };
    let want = [
        volume(true, None, BTreeMap::new()),
        MountSource::Anonymous { nocopy: false },
        volume(true, Some("s"), dict(&[("a", "b")])),
        MountSource::Anonymous { nocopy: false },
        MountSource::Tmpfs { size: Some(1 << 20), mode: Some(0o1777), options: Vec::new() },
        MountSource::Image { image: "busybox".into(), subpath: Some("bin".into()) },
        MountSource::Tmpfs { size: Some(64 << 20), mode: Some(0o755), options: texts(&["noexec"]) },
        MountSource::Tmpfs { size: None, mode: None, options: Vec::new() },
    ];
    assert_eq!(sources, want);
}

#[test]
fn configs_and_secrets() {
    let yaml = "\
services:
  web:
    image: w
    configs: [plain, {source: text, target: /etc/text, uid: '1', gid: '2', mode: 0440}]
    secrets: [pass, {source: token, target: t, mode: '0400'}, host]
configs:
  plain: {file: conf/plain}
  text: {content: 'a ${V}'}
secrets:
  pass: {file: ./pass}
  token: {environment: TOKEN}
  host: {file: /run/host}
";
    let files = [("compose.yaml", yaml), ("conf/plain", "P"), ("pass", "secret")];
    let read = read_files(&files, &[("V", "v"), ("TOKEN", "t0")]).unwrap();
    let shown: Vec<_> = read.project.services["web"]
        .mounts
        .iter()
        .map(|mount| match &mount.source {
            MountSource::Content { name, file, uid, gid } => {
                let bytes = String::from_utf8(read.blobs[&file.content].to_vec()).unwrap();
                let owner = uid.clone().zip(gid.clone()).map(|(uid, gid)| format!(" {uid}:{gid}")).unwrap_or_default();
                let secret = if file.secret { " secret" } else { "" };
                format!("{name} at {}: {bytes:?} {:o}{owner}{secret} {}", mount.target, file.mode, mount.read_only)
            }
            other => format!("{} {other:?}", mount.target),
        })
        .collect();
    let want = [
        "config plain at /plain: \"P\" 444 true",
        "config text at /etc/text: \"a v\" 440 1:2 true",
        "secret pass at /run/secrets/pass: \"secret\" 444 secret true",
        "secret token at /run/secrets/t: \"t0\" 400 secret true",
        "/run/secrets/host Bind { path: \"/run/host\", create_host_path: false, propagation: None, selinux: None, recursive: None }",
    ];
    assert_eq!(shown, want);
}
