//! Rendering, by case. Compose itself is tested in its own room.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{DeviceFacts, Rendered, order, render};
use crate::desired::{AppSpec, Check, DesiredApp, FilesSpec, KubernetesSpec, Limit, OnFailure};
use crate::finding::Finding;
use crate::repo::value::Labels;
use crate::revision::CommitId;
use crate::tree::MemoryTree;

const TREE: &[(&str, &str)] = &[
    ("burgee.yaml", "format: 1\nfleet: retail\nvars: {A: fleet, B: fleet, C: fleet, D: fleet}\n"),
    (
        "apps/conf/app.yaml",
        "runtime: files\nvars: {B: app, C: app, D: app}\nfiles:\n  - {from: all, to: /etc/conf/}\n  - {from: raw/, to: /etc/raw/, mode: \"0600\", owner: \"root:root\"}\n  - {from: conf.service, to: /etc/systemd/system/}\ntemplates: [all]\nunits: [conf.service]\nhealth: {timeout: 1m, checks: [{unit: conf.service}, {http: \"http://127.0.0.1/\", status: 204}]}\nprune: {maxDelete: 3}\nonFailure: hold\n",
    ),
    (
        "apps/conf/files/all",
        "${A} ${B} ${C} ${D} ${BURGEE_DEVICE} ${BURGEE_FLEET} ${BURGEE_APP} ${BURGEE_LABEL_SITE_TYPE}\n",
    ),
    ("apps/conf/files/raw/x", "${A}\n"),
    ("apps/conf/files/raw/sub/y", "y\n"),
    ("apps/conf/files/conf.service", "[Service]\n"),
    (
        "apps/top/app.yaml",
        "runtime: kubernetes\ndependsOn: [conf]\nnamespace: shelf\ncreateNamespace: true\nsubstitute: true\nreplace: [Job]\ndrift: {mode: report, ignore: [/spec/replicas]}\n",
    ),
    (
        "apps/top/kubernetes/a.yaml",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: ${A}}}\n---\n{apiVersion: v1, kind: Secret, metadata: {name: b}}\n",
    ),
    ("apps/top/kubernetes/README", "not a manifest"),
    ("apps/a-top/app.yaml", "runtime: files\ndependsOn: [conf, top]\nfiles: [{from: x, to: /x}]\n"),
    ("apps/a-top/files/x", "x"),
    ("apps/broken/app.yaml", "runtime: nonsense\n"),
    (
        "groups/stores.yaml",
        "selector: {matchLabels: {site-type: store}}\napps: [conf, top]\nvars: {C: stores, D: stores}\nwindow: {apply: {days: [sun, mon], from: \"23:00\", for: 90m, tz: Europe/Berlin}}\n",
    ),
    ("groups/eu.yaml", "priority: 20\nselector: {matchLabels: {region: eu}}\nvars: {C: eu, D: eu}\n"),
    ("groups/other.yaml", "selector: {matchLabels: {region: mars}}\napps: [broken]\n"),
    ("devices/store-1.yaml", "labels: {region: eu}\nvars: {D: device}\napps: [a-top]\n"),
    ("devices/store-2.yaml", "this: is broken, and not for store-1\n"),
    ("rollouts/eu.yaml", "groups: [eu]\nstages: [{name: rest}]\nwindow: {apply: {from: \"01:00\", for: 1h}}\n"),
];

fn on(changed: &[(&str, &str)], device: &str, labels: &[(&str, &str)]) -> Result<Rendered, Vec<Finding>> {
    let tree: MemoryTree = TREE.iter().chain(changed).copied().collect();
    let labels: Labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let facts = DeviceFacts { name: device.parse().unwrap(), labels };
    render(&tree, &facts, &commit())
}

fn commit() -> CommitId {
    "a".repeat(40).parse().unwrap()
}

fn store(changed: &[(&str, &str)]) -> Rendered {
    on(changed, "store-1", &[("site-type", "store"), ("region", "us")]).unwrap()
}

fn app<'a>(rendered: &'a Rendered, name: &str) -> &'a DesiredApp {
    rendered.state.apps.iter().find(|app| app.name.as_str() == name).unwrap()
}

fn files<'a>(rendered: &'a Rendered, name: &str) -> &'a FilesSpec {
    match &app(rendered, name).spec {
        AppSpec::Files(files) => files,
        other => panic!("{}", other.runtime()),
    }
}

fn kubernetes<'a>(rendered: &'a Rendered, name: &str) -> &'a KubernetesSpec {
    match &app(rendered, name).spec {
        AppSpec::Kubernetes(objects) => objects,
        other => panic!("{}", other.runtime()),
    }
}

#[test]
fn a_device_gets_its_groups_apps_variables_and_windows() {
    let rendered = store(&[]);
    let state = &rendered.state;
    let names = |of: Vec<String>| of.join(" ");
    assert_eq!(names(state.groups.iter().map(ToString::to_string).collect()), "stores eu");
    assert_eq!(names(state.apps.iter().map(|app| app.name.to_string()).collect()), "conf top a-top");
    assert_eq!(state.windows.len(), 2);
    assert_eq!(
        (state.windows[0].days.as_slice(), state.windows[0].from_minute, state.windows[0].for_minutes),
        (&[0, 6][..], 1380, 90)
    );
    assert!(state.has_rollout);
    assert_eq!(rendered.notes, []);

    let spec = files(&rendered, "conf");
    let paths: Vec<_> = spec.files.keys().map(String::as_str).collect();
    assert_eq!(paths, ["/etc/conf/all", "/etc/raw/sub/y", "/etc/raw/x", "/etc/systemd/system/conf.service"]);
    let text = |path: &str| String::from_utf8(rendered.blobs[&spec.files[path].content].to_vec()).unwrap();
    assert_eq!(text("/etc/conf/all"), "fleet app eu device store-1 retail conf store\n");
    assert_eq!(text("/etc/raw/x"), "${A}\n");
    assert_eq!((spec.files["/etc/raw/x"].mode, spec.files["/etc/conf/all"].mode), (0o600, 0o644));
    assert_eq!(spec.files["/etc/raw/x"].owner.as_deref(), Some("root:root"));
    assert_eq!(spec.units, ["conf.service"]);
    let conf = app(&rendered, "conf");
    assert_eq!((conf.health.timeout_ms, conf.health.soak_ms), (60_000, 30_000));
    assert_eq!(conf.health.checks[1], Check::Http { url: "http://127.0.0.1/".to_owned(), status: 204 });
    assert_eq!((conf.prune.max_delete, conf.on_failure), (Limit::Count(3), OnFailure::Hold));
    assert_eq!(app(&rendered, "top").prune.max_delete, Limit::Percent(50));

    let spec = kubernetes(&rendered, "top");
    assert_eq!(spec.files.keys().collect::<Vec<_>>(), ["a.yaml"]);
    let text = String::from_utf8_lossy(&rendered.blobs[&spec.files["a.yaml"]]).into_owned();
    assert!(text.contains("data: {x: fleet}"), "{text}");
    assert_eq!((spec.namespace.as_deref(), spec.create_namespace, spec.kustomize), (Some("shelf"), true, false));
}

#[test]
fn a_device_in_no_group_runs_nothing() {
    let rendered = on(&[], "other", &[]).unwrap();
    assert!(rendered.state.apps.is_empty() && rendered.state.groups.is_empty() && !rendered.state.has_rollout);
}

#[test]
fn digests_follow_what_is_run() {
    let base = store(&[]);
    let digest = |changed| store(changed).state.digest;
    assert_eq!(digest(&[("apps/broken/app.yaml", "runtime: more nonsense\n")]), base.state.digest);
    assert_ne!(digest(&[("apps/conf/files/raw/x", "other\n")]), base.state.digest);
    assert_ne!(
        digest(&[("devices/store-1.yaml", "labels: {region: eu}\nvars: {D: other}\napps: [a-top]\n")]),
        base.state.digest
    );
    let moved = store(&[("apps/conf/files/raw/x", "other\n")]);
    assert_ne!(app(&moved, "conf").digest, app(&base, "conf").digest);
    assert_eq!(app(&moved, "top").digest, app(&base, "top").digest);
}

#[test]
fn what_concerns_the_device_is_refused() {
    let cases: &[(&str, &str, &str)] = &[
        ("groups/other.yaml", "selector: [\n", "groups/other.yaml:"),
        (
            "groups/eu.yaml",
            "selector: {matchLabels: {region: eu}}\nvars: {C: eu}\n",
            "groups/stores.yaml:3:8: `C` is `stores` here and `eu` in groups/eu.yaml",
        ),
        (
            "groups/eu.yaml",
            "priority: 3\nselector: {matchLabels: {region: eu}}\napps: [broken]\n",
            "apps/broken/app.yaml:1:10: unknown value `nonsense`",
        ),
        (
            "groups/eu.yaml",
            "priority: 3\nselector: {matchLabels: {region: eu}}\napps: [none]\n",
            "groups/eu.yaml:3:8: there is no app `none`",
        ),
        (
            "groups/stores.yaml",
            "selector: {matchLabels: {site-type: store}}\napps: [top]\n",
            "apps/a-top/app.yaml:2:13: `a-top` depends on `conf`, which the device `store-1` does not get",
        ),
        ("apps/conf/files/all", "x\n ${NOTHING}", "apps/conf/files/all:2:2: "),
        (
            "apps/a-top/app.yaml",
            "runtime: files\nfiles: [{from: x, to: /etc/raw/x}]\n",
            "apps/conf/app.yaml:1:1: the file `/etc/raw/x` belongs to the app `a-top`, too",
        ),
        ("apps/top/kubernetes/a.yaml", "a: [\n", "apps/top/kubernetes/a.yaml:"),
        ("apps/top/kubernetes/a.yaml", "kind: Pod\n", "apps/top/kubernetes/a.yaml:1:1: `apiVersion` is missing"),
        (
            "apps/top/kubernetes/again.yaml",
            "\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shelf}}\n",
            "apps/top/kubernetes/again.yaml:2:1: ConfigMap/shelf/a is in apps/top/kubernetes/a.yaml:1, too",
        ),
        (
            "apps/top/kubernetes/kustomization.yaml",
            "resources: [\"https://example.com/x.yaml\"]\n",
            "apps/top/kubernetes/kustomization.yaml:1:13: `https://example.com/x.yaml` in `resources[0]` is remote",
        ),
        (
            "apps/conf/app.yaml",
            "runtime: files\ndependsOn: [top]\nfiles: [{from: all, to: /x}]\n",
            "apps/conf/app.yaml:2:13: `conf` depends on itself: `conf` → `top` → `conf`",
        ),
        (
            "rollouts/eu.yaml",
            "groups: [gone]\nstages: [{name: rest}]\n",
            "rollouts/eu.yaml:1:10: there is no group `gone`",
        ),
    ];
    for (path, text, want) in cases {
        let errors = on(&[(path, text)], "store-1", &[("site-type", "store")]).map(drop).unwrap_err();
        assert!(errors.iter().any(|one| one.to_string().starts_with(want)), "{path} {text:?}: {errors:#?}");
    }
}

#[test]
fn one_object_belongs_to_one_app() {
    let second = [
        ("apps/second/app.yaml", "runtime: kubernetes\n"),
        ("apps/second/kubernetes/x.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shelf}}\n"),
        ("groups/second.yaml", "selector: {matchLabels: {site-type: store}}\napps: [second]\n"),
    ];
    let errors = on(&second, "store-1", &[("site-type", "store")]).map(drop).unwrap_err();
    let want = "the object `ConfigMap/shelf/a` belongs to the app `second`, too, expected one app for it";
    assert!(errors.iter().any(|one| one.to_string().contains(want)), "{errors:#?}");
}

#[test]
fn a_namespace_that_several_apps_ask_for_is_made_once() {
    let asks = "runtime: kubernetes\nnamespace: mall\ncreateNamespace: true\n";
    let map = |name: &str| format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {name}}}}}\n");
    let (first, second) = (map("first"), map("second"));
    let both = [
        ("apps/first/app.yaml", asks),
        ("apps/first/kubernetes/x.yaml", first.as_str()),
        ("apps/second/app.yaml", asks),
        ("apps/second/kubernetes/x.yaml", second.as_str()),
        ("groups/both.yaml", "selector: {matchLabels: {site-type: store}}\napps: [first, second]\n"),
    ];
    let found = on(&both, "store-1", &[("site-type", "store")]);
    assert!(found.is_ok(), "{:#?}", found.err());
    // With a manifest of it, it is that app's.
    let own = "{apiVersion: v1, kind: Namespace, metadata: {name: mall}}\n";
    let mut one = both;
    one[3].1 = own;
    let errors = on(&one, "store-1", &[("site-type", "store")]).map(drop).unwrap_err();
    let want = "the object `Namespace/mall` belongs to the app `first`, too, expected one app for it";
    let error = errors.iter().find(|error| error.to_string().contains(want)).unwrap_or_else(|| panic!("{errors:#?}"));
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("createNamespace")), "{error:?}");
    // Beside one's own manifest the setting says nothing more.
    let mut alone = both;
    (alone[1].1, alone[2].1) = (own, "runtime: kubernetes\nnamespace: mall\n");
    let found = on(&alone, "store-1", &[("site-type", "store")]);
    assert!(found.is_ok(), "{:#?}", found.err());
}

#[test]
fn a_kustomization_takes_all_files() {
    let rendered = store(&[("apps/top/kubernetes/kustomization.yaml", "resources: [a.yaml]\n")]);
    let spec = kubernetes(&rendered, "top");
    assert!(spec.kustomize);
    assert_eq!(spec.files.len(), 3);
}

proptest! {
    /// Any graph without circles: every app comes after what it depends on, and the order does not depend on luck.
    #[test]
    fn dependencies_come_first(edges in proptest::collection::vec((0..9_u32, 0..9_u32), 0..20)) {
        let mut apps = BTreeMap::new();
        for n in 0..9_u32 {
            // Edges to smaller numbers only: no circle.
            let before: Vec<_> = edges.iter().filter(|(from, to)| *from == n && to < from).map(|(_, to)| format!("app-{to}")).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            let text = format!("runtime: compose\ndependsOn: [{}]\n", before.join(", "));
            let (app, _) = crate::repo::app::App::parse("a", text.as_bytes()).unwrap();
            apps.insert(format!("app-{n}").parse::<crate::name::AppName>().unwrap(), app);
        }
        let ordered = order(&apps);
        prop_assert_eq!(ordered.len(), apps.len());
        for (place, name) in ordered.iter().enumerate() {
            for before in &apps[name].depends_on {
                prop_assert!(ordered[..place].contains(&before.value));
            }
        }
    }

    /// Layers: the device goes before groups by priority, these before the app, that before the fleet.
    #[test]
    fn later_layers_win(fleet: bool, app in proptest::option::of("[a-z]{1,3}"), groups in proptest::collection::btree_map(0..5_i32, "[a-z]{1,3}", 0..4), device in proptest::option::of("[a-z]{1,3}")) {
        let vars = |value: Option<&String>| value.map_or(String::new(), |value| format!("vars: {{V: \"{value}\"}}\n"));
        let mut tree = vec![
            ("burgee.yaml".to_owned(), format!("format: 1\nfleet: f\n{}", if fleet { "vars: {V: fleet}\n" } else { "" })),
            ("apps/a/app.yaml".to_owned(), format!("runtime: files\nfiles: [{{from: x, to: /x}}]\ntemplates: [x]\n{}", vars(app.as_ref()))),
            ("apps/a/files/x".to_owned(), "${V:-none}".to_owned()),
            ("devices/d.yaml".to_owned(), format!("labels: {{l: v}}\napps: [a]\n{}", vars(device.as_ref()))),
        ];
        for (priority, value) in &groups {
            // Names in the opposite order of priorities.
            tree.push((format!("groups/g{}.yaml", 9 - priority), format!("priority: {priority}\nselector: {{matchLabels: {{l: v}}}}\n{}", vars(Some(value)))));
        }
        let tree: MemoryTree = tree.into_iter().collect();
        let facts = DeviceFacts { name: "d".parse().unwrap(), labels: Labels::new() };
        let rendered = render(&tree, &facts, &commit()).unwrap();
        let want = device.or(groups.into_values().next_back()).or(app).or(fleet.then(|| "fleet".to_owned())).unwrap_or("none".to_owned());
        let content = rendered.blobs.values().next().unwrap();
        prop_assert_eq!(&**content, want.as_bytes());
    }
}
