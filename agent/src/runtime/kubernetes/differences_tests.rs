use proptest::prelude::*;
use serde_json::{Value, json};

use super::{MOST, differences};
use crate::runtime::kubernetes::fields::yaml;

#[track_caller]
fn check(live: &str, applied: &str, want: &[&str]) {
    let found: Vec<String> = differences(&yaml(applied), &yaml(live)).iter().map(ToString::to_string).collect();
    assert_eq!(found, want);
}

#[test]
fn in_a_few_words() {
    check("{spec: {replicas: 5}}", "{spec: {replicas: 3}}", &["spec.replicas: 5 → 3"]);
    check("{spec: {}}", "{spec: {paused: true}}", &["spec.paused: absent → true"]);
    check("{spec: {a: {b: 1}}}", "{spec: {}}", &["spec.a: {…} → absent"]);
    check("{spec: {a: null}}", "{spec: {}}", &[]);
    check("{spec: {dir: {}}}", "{spec: {}}", &["spec.dir: {} → absent"]);
    check("{spec: {a: ''}}", "{spec: {a: 'x\ny'}}", &["spec.a: \"\" → x y"]);
    check(
        "{metadata: {annotations: {a.b/c: x}, labels: {app: a}}}",
        "{metadata: {annotations: {a.b/c: y}, labels: {app: b}}}",
        &["metadata.annotations[a.b/c]: x → y", "metadata.labels.app: a → b"],
    );
    let long = "x".repeat(100);
    check(
        &format!("{{a: {long}, b: c}}"),
        &format!("{{a: {long}y, b: {long}}}"),
        &["a: changed", &format!("b: c → {}…", "x".repeat(60))],
    );
}

#[test]
fn what_the_server_counts_is_left_out() {
    check(
        "{metadata: {generation: 1, resourceVersion: '1', uid: a, creationTimestamp: x, managedFields: []}, status: {replicas: 1}}",
        "{metadata: {generation: 2, resourceVersion: '2', uid: b, creationTimestamp: y, managedFields: [{}]}, status: {replicas: 2}}",
        &[],
    );
    // Only those.
    check(
        "{spec: {status: a, generation: 1}}",
        "{spec: {status: b, generation: 2}}",
        &["spec.generation: 1 → 2", "spec.status: a → b"],
    );
}

#[test]
fn lists() {
    check(
        "{spec: {containers: [{name: proxy}, {name: app, image: 'a:1'}]}}",
        "{spec: {containers: [{name: app, image: 'a:2'}, {name: new, image: b}]}}",
        &[
            "spec.containers[app].image: a:1 → a:2",
            "spec.containers[new]: absent → {…}",
            "spec.containers[proxy]: {…} → absent",
        ],
    );
    check("{a: [{name: x}, {name: y}]}", "{a: [{name: y}, {name: x}]}", &["a: reordered"]);
    check(
        "{ports: [{port: 80}]}",
        "{ports: [{port: 81}, {port: 82}]}",
        &["ports[0].port: 80 → 81", "ports[1]: absent → {…}"],
    );
    // Names that are not unique name nothing.
    check("{e: [{name: x, v: 1}, {name: x, v: 2}]}", "{e: [{name: x, v: 1}, {name: x, v: 3}]}", &["e[1].v: 2 → 3"]);
}

#[test]
fn secrets_are_not_told() {
    check(
        "{apiVersion: v1, kind: Secret, data: {a: czNjcjN0, b: czNjcjN0}, type: Opaque}",
        "{apiVersion: v1, kind: Secret, data: {a: bmV3, c: bmV3}, type: other}",
        &["data.a: changed", "data.b: removed", "data.c: added", "type: Opaque → other"],
    );
    check(
        "{apiVersion: v1, kind: Secret}",
        "{apiVersion: v1, kind: Secret, stringData: {a: s3cr3t}}",
        &["stringData: added"],
    );
    check(
        "{spec: {containers: [{name: app, env: [{name: KEY, value: s3cr3t}], args: ['--key=s3cr3t']}]}}",
        "{spec: {containers: [{name: app, env: [{name: KEY, value: other}, {name: B, value: s3cr3t}], args: ['--key=other']}]}}",
        &[
            "spec.containers[app].args[0]: changed",
            "spec.containers[app].env[B]: absent → {…}",
            "spec.containers[app].env[KEY].value: changed",
        ],
    );
    check(
        "{apiVersion: helm.cattle.io/v1, kind: HelmChart, spec: {valuesContent: s3cr3t, version: '1'}}",
        "{apiVersion: helm.cattle.io/v1, kind: HelmChart, spec: {valuesContent: other, version: '2'}}",
        &["spec.valuesContent: changed", "spec.version: 1 → 2"],
    );
    check(
        "{spec: {adminPassword: s3cr3t, accessToken: s3cr3t, automountToken: true}}",
        "{spec: {adminPassword: other, accessToken: null, automountToken: false}}",
        &["spec.accessToken: removed", "spec.adminPassword: changed", "spec.automountToken: true → false"],
    );
    check(
        "{metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: s3cr3t}}}",
        "{metadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: other}}}",
        &["metadata.annotations[kubectl.kubernetes.io/last-applied-configuration]: changed"],
    );
}

#[test]
fn they_are_bounded() {
    let many: Vec<u32> = (0..1000).collect();
    let found = differences(&json!({ "a": many }), &json!({ "a": vec![-1; 1000] }));
    assert_eq!(found.len(), MOST);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![(0..3).prop_map(Value::from), "[ab]".prop_map(Value::from), Just(json!({})), Just(json!([]))];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec(("[ab]", inner.clone()), 0..3)
                .prop_map(|list| list.into_iter().map(|(name, v)| json!({ "name": name, "v": v })).collect()),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn none_if_and_only_if_equal(a in value(), b in value()) {
        let (a, b) = (json!({ "spec": a }), json!({ "spec": b }));
        prop_assert_eq!(differences(&a, &b).is_empty(), a == b);
        prop_assert!(differences(&a, &a.clone()).is_empty());
    }
}
