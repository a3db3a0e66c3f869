//! `burgee check` and `burgee plan` on repositories with Kubernetes apps, those
//! that other projects publish among them.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fleet::kubernetes::manifest;
use tempfile::TempDir;

/// Files by path: the app, and below its `kubernetes/`.
type Files<'a> = &'a [(&'a str, &'a [u8])];

/// A fleet repository with one app for each folder.
fn repository(files: Files<'_>) -> TempDir {
    let dir = TempDir::new().unwrap();
    let apps: std::collections::BTreeSet<&str> =
        files.iter().map(|(path, _)| path.split('/').next().unwrap()).collect();
    let list = apps.iter().copied().collect::<Vec<_>>().join(", ");
    let write = |path: &str, text: &[u8]| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("burgee.yaml", b"format: 1\nfleet: retail\n");
    write("groups/all.yaml", format!("selector: {{matchLabels: {{region: eu}}}}\napps: [{list}]\n").as_bytes());
    for app in apps {
        write(&format!("apps/{app}/app.yaml"), format!("runtime: kubernetes\nnamespace: {app}\n").as_bytes());
    }
    for (path, text) in files {
        let (app, file) = path.split_once('/').unwrap();
        write(&format!("apps/{app}/kubernetes/{file}"), text);
    }
    dir
}

/// The lines of `burgee check`, hints left out, and its exit code.
fn check(files: Files<'_>) -> (i32, Vec<String>) {
    let dir = repository(files);
    let output = Command::new(env!("CARGO_BIN_EXE_burgee")).arg("check").arg(dir.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), text.lines().map(str::to_owned).collect())
}

fn examples() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/examples/kubernetes");
    assert!(path.is_dir(), "{} is missing: the examples of other projects are read from there", path.display());
    path
}

#[test]
fn examples_of_other_projects_are_read_and_have_no_errors() {
    for folder in fs::read_dir(examples()).unwrap() {
        let folder = folder.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let files: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().path())
            .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect();
        let manifests = files.iter().filter(|(file, _)| file != "kustomization.yaml");
        let read = manifest::read(manifests.map(|(file, bytes)| (file.as_str(), &bytes[..]))).unwrap();
        assert!(read.objects.len() >= 3 && read.notes.is_empty(), "{name}: {:?}", read.notes);
        let placed: Vec<(String, &[u8])> =
            files.iter().map(|(file, bytes)| (format!("{name}/{file}"), &bytes[..])).collect();
        let placed: Vec<(&str, &[u8])> = placed.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
        let (code, lines) = check(&placed);
        // No signers: that is not what is looked at here.
        let said: Vec<_> = lines.iter().filter(|line| line.starts_with("apps/")).collect();
        assert!(said.is_empty(), "{name}: {said:#?}");
        assert_eq!(code, 0, "{name}: {lines:#?}");
    }
}

#[test]
fn what_is_wrong_in_manifests_is_found() {
    let map = b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: shared}\n".as_slice();
    let definition = b"apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: tabs.example.com}\nspec:\n  group: example.com\n  scope: Namespaced\n  names: {plural: tabs, kind: Tab}\n  versions:\n  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {cron: {type: string}}}}}}}\n".as_slice();
    let cases: &[(Files<'_>, &str)] = &[
        (
            &[("a/x.yaml", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  PORT: 80\n")],
            "apps/a/kubernetes/x.yaml:5:9: ConfigMap x: `data.PORT` is a number, expected text",
        ),
        (
            &[("a/x.yaml", map), ("a/y.yaml", map)],
            "apps/a/kubernetes/y.yaml:1:1: ConfigMap/shared/x is in apps/a/kubernetes/x.yaml:1, too",
        ),
        (
            &[("a/x.yaml", map), ("b/y.yaml", map)],
            "apps/b/app.yaml:1:1: the object `ConfigMap/shared/x` belongs to the app `a`, too",
        ),
        (
            &[("a/x.yaml", map), ("b/y.yaml", map), ("b/kustomization.yaml", b"resources: [y.yaml]\n")],
            "apps/b/app.yaml:1:1: the object `ConfigMap/shared/x` belongs to the app `a`, too",
        ),
        (
            &[("a/kustomization.yaml", b"resources:\n- https://example.com/x.yaml\n")],
            "apps/a/kubernetes/kustomization.yaml:2:3: `https://example.com/x.yaml` in `resources[0]` is remote",
        ),
        (
            &[
                ("a/crd.yaml", definition),
                ("b/t.yaml", b"apiVersion: example.com/v1\nkind: Tab\nmetadata: {name: t}\nspec: {corn: x}\n"),
            ],
            "apps/b/kubernetes/t.yaml:4:8: Tab t: the field `spec.corn` is unknown",
        ),
        (
            &[
                ("a/kustomization.yaml", b"resources: [d.yaml]\npatches: [{path: p.yaml}]\n"),
                ("a/d.yaml", b"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {}\n"),
                ("a/p.yaml", b"[]\n"),
            ],
            "apps/a/kubernetes/d.yaml:4:1: warning: Deployment d: the field `spec.selector` is missing",
        ),
        (
            &[("a/x.yaml", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, uid: u}\nstatus: {}\n")],
            "apps/a/kubernetes/x.yaml:1:1: warning: ConfigMap x: status, uid is left out",
        ),
    ];
    for (files, want) in cases {
        let (code, lines) = check(files);
        assert!(lines.iter().any(|line| line.starts_with(want)), "wanted {want}\nfound {lines:#?}");
        assert_eq!(code, if want.contains(": warning: ") { 0 } else { 2 }, "{lines:#?}");
    }
}
