//! Plans, by case.

use super::{End, Plan, plan};
use crate::finding::Finding;
use crate::tree::MemoryTree;

const TREE: &[(&str, &str)] = &[
    ("burgee.yaml", "format: 1\nfleet: retail\nvars: {LOG: info}\n"),
    ("apps/conf/app.yaml", "runtime: files\nfiles: [{from: x, to: /etc/x}]\ntemplates: [x]\n"),
    ("apps/conf/files/x", "${LOG}"),
    ("apps/rev/app.yaml", "runtime: files\nfiles: [{from: x, to: /etc/rev}]\ntemplates: [x]\n"),
    ("apps/rev/files/x", "fixed"),
    ("groups/eu.yaml", "selector: {matchLabels: {region: eu}}\napps: [conf]\n"),
    ("groups/lab.yaml", "selector: {matchLabels: {ring: lab}}\napps: [rev]\n"),
    ("devices/store-1.yaml", "labels: {region: eu}\n"),
];

fn between(before: &[(&str, &str)], after: &[(&str, &str)]) -> Result<Plan, Vec<Finding>> {
    let (before, after): (MemoryTree, MemoryTree) = (before.iter().copied().collect(), after.iter().copied().collect());
    let (a, b) = ("a".repeat(40).parse().unwrap(), "b".repeat(40).parse().unwrap());
    plan(End { tree: &before, commit: &a }, End { tree: &after, commit: &b })
}

fn check(changed: &[(&str, &str)], want: &str) {
    let after: Vec<_> = TREE.iter().chain(changed).copied().collect();
    assert_eq!(between(TREE, &after).unwrap().to_string(), want, "{changed:?}");
}

#[test]
fn what_changes_is_said_by_device() {
    check(&[], "nothing changes (5 devices and label combinations looked at)\n");
    let digest = |text: &str| crate::digest::Digest::of(text.as_bytes()).short();
    check(
        &[("burgee.yaml", "format: 1\nfleet: retail\nvars: {LOG: warn}\n")],
        &format!(
            "store-1, store-1[ring=lab], [region=eu], [region=eu ring=lab]\n  ~ conf (files)\n      ~ files./etc/x.content: {} → {}\n\n4 of 5 devices and label combinations change\n",
            digest("info"),
            digest("warn")
        ),
    );
    check(
        &[("devices/store-1.yaml", "labels: {region: eu}\napps: [rev]\n")],
        &format!(
            "store-1\n  + rev (files)\n      + files./etc/rev: {} mode 0644\n\n1 of 5 devices and label combinations change\n",
            digest("fixed")
        ),
    );
    check(
        &[(
            "apps/conf/app.yaml",
            "runtime: files\nfiles: [{from: x, to: /etc/x, mode: \"0600\"}]\ntemplates: [x]\nhealth: {timeout: 90s}\nunits: [x.service]\n",
        )],
        "store-1, store-1[ring=lab], [region=eu], [region=eu ring=lab]\n  ~ conf (files)\n      ~ files./etc/x.mode: 0644 → 0600\n      ~ health.timeout: 3m → 90s\n      + units: [x.service]\n\n4 of 5 devices and label combinations change\n",
    );
    check(
        &[
            (
                "groups/lab.yaml",
                "selector: {matchLabels: {ring: lab}}\nwindow: {apply: {days: [sat], from: \"02:00\", for: 2h}}\n",
            ),
            ("devices/store-2.yaml", "apps: [rev]\n"),
        ],
        &format!(
            "store-1[ring=lab], [ring=lab], [region=eu ring=lab]\n  + windows: [sat 02:00 for 120m UTC]\n  - rev (files)\n\nstore-2, store-2[region=eu]\n  + rev (files)\n      + files./etc/rev: {} mode 0644\n\nstore-2[ring=lab], store-2[region=eu ring=lab]\n  + windows: [sat 02:00 for 120m UTC]\n\n7 of 9 devices and label combinations change\n",
            digest("fixed")
        ),
    );
}

#[test]
fn a_mounted_file_that_changes_is_one_line() {
    let tree = |page: &'static str, more: &'static [(&'static str, &'static str)]| {
        let mut files = vec![
            ("burgee.yaml", "format: 1\nfleet: retail\n"),
            ("groups/all.yaml", "selector: {matchLabels: {region: eu}}\napps: [web]\n"),
            ("apps/web/app.yaml", "runtime: compose\n"),
            ("apps/web/compose.yaml", "services: {web: {image: \"web:1\", volumes: [\"./www:/www\"]}}\n"),
            ("apps/web/www/index.html", page),
        ];
        files.extend(more);
        files
    };
    let plan = |after: Vec<(&str, &str)>| between(&tree("one", &[]), &after).unwrap().to_string();
    let digest = |text: &str| crate::digest::Digest::of(text.as_bytes()).short();
    let (one, two) = (digest("one"), digest("two"));
    let line = format!("~ services.web.mounts: apps/web/www:/www ({one}) → apps/web/www:/www ({two})\n");
    assert!(plan(tree("two", &[])).contains(&line), "{}", plan(tree("two", &[])));
    let more = plan(tree("one", &[("apps/web/www/more.html", "more")]));
    assert!(more.contains(&format!("({one}) → apps/web/www:/www (")), "{more}");
}

#[test]
fn the_ends_of_the_range() {
    let first = between(&[], TREE).unwrap();
    assert_eq!(first.notes, ["aaaaaaaaaaaa has no burgee.yaml: everything counts as added"]);
    assert_eq!(first.devices.len(), 5);
    let mut broken = TREE.to_vec();
    broken.push(("apps/conf/app.yaml", "runtime: nonsense\n"));
    assert!(between(TREE, &broken).unwrap_err()[0].to_string().starts_with("apps/conf/app.yaml:1:10:"));
    let mended = between(&broken, TREE).unwrap();
    assert!(mended.devices[0].before_unknown.as_deref().is_some_and(|why| why.starts_with("apps/conf/app.yaml:1:10:")));
    let mut revision = TREE.to_vec();
    revision.push(("apps/rev/files/x", "${BURGEE_REVISION}"));
    let moved = between(&revision, &revision).unwrap();
    assert_eq!((moved.devices.len(), moved.unchanged), (3, 2));
}
