//! Plans, by case.

use std::collections::BTreeMap;

use fleet::desired::{Limit, PrunePolicy};
use fleet::kubernetes::ObjectId;
use serde_json::json;

use super::super::api::{Meta, Resource};
use super::super::objects::tests::app;
use super::super::objects::{Claims, Wanted, named};
use super::super::order::rank;
use super::{Action, Held, Scene, Standing, going, plan};
use crate::ports::runtime::{Inventory, Step};

fn line(step: &Step<Action>) -> String {
    let verb = format!("{:?}", step.verb).to_lowercase();
    let later = if step.after_steady { " (once steady)" } else { "" };
    format!("{verb} {}{later}: {}", step.object, step.why)
}

fn id(text: &str) -> ObjectId {
    text.parse().unwrap()
}

fn resource(id: &ObjectId) -> Resource {
    Resource {
        kind: id.kind.clone(),
        api_version: "v1".to_owned(),
        plural: "things".to_owned(),
        namespaced: id.namespace.is_some(),
        listable: true,
    }
}

fn wanted(text: &str) -> Wanted {
    let id = id(text);
    let resource = resource(&id);
    let rank = rank(&id.kind, resource.namespaced);
    Wanted {
        object: json!({"metadata": {"name": id.name}}),
        digest: "d".to_owned(),
        resource,
        rank,
        id,
        brought: false,
    }
}

/// Ours, of an app.
fn meta(app: &str) -> Meta {
    let labels = [("app.kubernetes.io/managed-by", "burgee"), ("burgee.dev/fleet", "retail"), ("burgee.dev/app", app)];
    Meta {
        uid: "u".to_owned(),
        labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Meta::default()
    }
}

struct Case {
    wanted: Vec<(&'static str, Standing)>,
    left: Vec<(&'static str, Meta)>,
    claims: Vec<&'static str>,
    keep: Vec<&'static str>,
    held: Vec<(&'static str, Held)>,
    borrowed: Vec<&'static str>,
}

fn case() -> Case {
    Case { wanted: vec![], left: vec![], claims: vec![], keep: vec![], held: vec![], borrowed: vec![] }
}

fn check(name: &str, case: Case, want: &[&str]) {
    check_owned(name, case, want, None);
}

/// With what is owned once the plan has landed, and what goes for its own part.
fn check_owned(name: &str, case: Case, want: &[&str], owned: Option<(&[&str], &[&str])>) {
    let mut all: Vec<(Wanted, Standing)> = case.wanted.into_iter().map(|(id, stands)| (wanted(id), stands)).collect();
    all.sort_by_key(|(it, _)| (it.rank, it.id.clone()));
    let (wanted, standing): (Vec<_>, Vec<_>) = all.into_iter().unzip();
    let left: BTreeMap<_, _> =
        case.left.into_iter().map(|(text, meta)| (id(text), (resource(&id(text)), meta))).collect();
    let inventory: Inventory = left.keys().map(|id| (named(id), String::new())).collect();
    let claims: Claims = case.claims.iter().map(|text| (id(text), "other".parse().unwrap())).collect();
    let prune = PrunePolicy {
        enabled: true,
        max_delete: Limit::Percent(50),
        keep: case.keep.iter().map(|word| (*word).to_owned()).collect(),
    };
    let held = case.held.iter().map(|(text, held)| (id(text), *held)).collect();
    let borrowed = case.borrowed.iter().map(|text| named(&id(text))).collect();
    let scene = Scene {
        app: "pos",
        fleet: "retail",
        wanted: &wanted,
        standing: &standing,
        inventory: &inventory,
        left: &left,
        claims: &claims,
        beside: &[app("shelf", None, false)],
        prune: &prune,
        replace: &["Job".to_owned()],
        held: &held,
        borrowed: &borrowed,
    };
    let planned = plan(&scene);
    if let Some((owned, goes)) = owned {
        let inventory = planned.as_ref().unwrap().inventory.keys().map(ToString::to_string);
        assert_eq!(inventory.collect::<Vec<_>>(), owned, "{name}");
        assert_eq!(going(&scene).keys().map(ToString::to_string).collect::<Vec<_>>(), goes, "{name}");
    }
    let got: Vec<String> = match planned {
        Ok(plan) => plan.steps.iter().map(line).collect(),
        Err(error) => vec![error.to_string()],
    };
    assert_eq!(got, want, "{name}");
}

#[test]
fn plans() {
    check("nothing to do", Case { wanted: vec![("ConfigMap/a/x", Standing::Same)], ..case() }, &[]);
    check(
        "in the order of kinds, definitions waited for",
        Case {
            wanted: vec![
                ("Deployment.apps/a/web", Standing::Missing),
                ("Widget.example.com/a/w", Standing::Missing),
                ("CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com", Standing::Missing),
                ("Namespace/a", Standing::Missing),
                ("ConfigMap/a/x", Standing::Differs(meta("pos"), "its manifest".to_owned())),
            ],
            ..case()
        },
        &[
            "create CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com: missing",
            "wait CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com: until it is served",
            "create Namespace/a: missing",
            "update ConfigMap/a/x: its manifest",
            "create Deployment.apps/a/web: missing",
            "create Widget.example.com/a/w: missing",
        ],
    );
    check(
        "what leaves goes first, in reverse; what holds data later",
        Case {
            wanted: vec![("ConfigMap/a/x", Standing::Missing)],
            left: vec![
                ("Namespace/b", meta("pos")),
                ("ConfigMap/b/y", meta("pos")),
                ("Deployment.apps/b/old", meta("pos")),
                ("PersistentVolumeClaim/b/data", meta("pos")),
            ],
            ..case()
        },
        &[
            "delete Deployment.apps/b/old: no longer wanted",
            "delete PersistentVolumeClaim/b/data (once steady): no longer wanted",
            "delete ConfigMap/b/y: no longer wanted",
            "delete Namespace/b (once steady): no longer wanted",
            "create ConfigMap/a/x: missing",
        ],
    );
    check(
        "what is kept, claimed, handed over, foreign, marked or inhabited stays",
        Case {
            left: vec![
                ("PersistentVolumeClaim/b/data", meta("pos")),
                ("ConfigMap/b/claimed", meta("pos")),
                ("ConfigMap/b/handed", meta("shelf")),
                ("ConfigMap/b/foreign", Meta::default()),
                (
                    "ConfigMap/b/marked",
                    Meta {
                        annotations: [("burgee.dev/prune".to_owned(), "disabled".to_owned())].into(),
                        ..meta("pos")
                    },
                ),
                ("Namespace/b", meta("pos")),
            ],
            claims: vec!["ConfigMap/b/claimed"],
            keep: vec!["pvcs"],
            held: vec![("Namespace/b", Held::ForGood)],
            ..case()
        },
        &[],
    );
    check_owned(
        "what holds something stays; for now, and still owned, or for good",
        Case {
            left: vec![
                ("Namespace/now", meta("pos")),
                ("Namespace/good", meta("pos")),
                ("Namespace/empty", meta("pos")),
                ("PersistentVolumeClaim/good/data", meta("pos")),
                ("CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com", meta("pos")),
            ],
            keep: vec!["pvcs"],
            held: vec![
                ("Namespace/now", Held::ForNow),
                ("Namespace/good", Held::ForGood),
                ("CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com", Held::ForNow),
            ],
            ..case()
        },
        &["delete Namespace/empty (once steady): no longer wanted"],
        Some((
            &["CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com", "Namespace/now"],
            &[
                "Namespace/empty",
                "Namespace/good",
                "Namespace/now",
                "CustomResourceDefinition.apiextensions.k8s.io/widgets.example.com",
            ],
        )),
    );
    check(
        "what was there before burgee is given back at once, kept or not",
        Case {
            wanted: vec![("ConfigMap/a/x", Standing::Adopted(Meta::default()))],
            left: vec![
                ("ConfigMap/a/made", meta("pos")),
                ("ConfigMap/a/theirs", meta("pos")),
                ("PersistentVolumeClaim/a/data", meta("pos")),
                ("ConfigMap/a/handed", meta("shelf")),
                ("ConfigMap/a/never", Meta::default()),
            ],
            keep: vec!["pvcs"],
            borrowed: vec![
                "ConfigMap/a/theirs",
                "PersistentVolumeClaim/a/data",
                "ConfigMap/a/handed",
                "ConfigMap/a/never",
            ],
            ..case()
        },
        &[
            "release PersistentVolumeClaim/a/data: it was there before burgee",
            "release ConfigMap/a/theirs: it was there before burgee",
            "delete ConfigMap/a/made: no longer wanted",
            "adopt ConfigMap/a/x: nobody claims it",
        ],
    );
    let finished = |is_deleting| Meta { has_finalizers: true, is_deleting, ..meta("pos") };
    check_owned(
        "what is to be taken over, or finished by somebody, is owned until it is",
        Case {
            left: vec![
                ("ConfigMap/b/claimed", meta("pos")),
                ("ConfigMap/b/taken", meta("shelf")),
                ("ConfigMap/b/orphan", meta("gone")),
                ("Widget.example.com/b/ends", finished(true)),
                ("Widget.example.com/b/goes", finished(false)),
                ("ConfigMap/b/ends", finished(true)),
            ],
            claims: vec!["ConfigMap/b/claimed", "ConfigMap/b/taken"],
            ..case()
        },
        &["delete Widget.example.com/b/goes: no longer wanted", "delete ConfigMap/b/orphan: no longer wanted"],
        Some((
            &["ConfigMap/b/claimed", "Widget.example.com/b/ends", "Widget.example.com/b/goes"],
            &["ConfigMap/b/orphan", "Widget.example.com/b/goes"],
        )),
    );
    check_owned(
        "a namespace that is somebody's is used as it is",
        Case { wanted: vec![("Namespace/a", Standing::Theirs), ("ConfigMap/a/x", Standing::Same)], ..case() },
        &[],
        Some((&["ConfigMap/a/x"], &[])),
    );
    check(
        "somebody else's is refused by name",
        Case {
            wanted: vec![
                ("ConfigMap/a/x", Standing::Missing),
                ("Secret/a/y", Standing::Foreign("managed by Helm".to_owned())),
            ],
            ..case()
        },
        &["Secret/a/y exists and is not burgee's (managed by Helm)"],
    );
    check(
        "what is being deleted is waited for: last, unless others are in it",
        Case {
            wanted: vec![
                ("PersistentVolumeClaim/a/data", Standing::Leaving(meta("pos"))),
                ("Namespace/a", Standing::Leaving(meta("pos"))),
                ("Deployment.apps/a/web", Standing::Differs(meta("pos"), "its manifest".to_owned())),
            ],
            ..case()
        },
        &[
            "wait Namespace/a: it is being deleted",
            "create Namespace/a: deleted by somebody",
            "update Deployment.apps/a/web: its manifest",
            "wait PersistentVolumeClaim/a/data: it is being deleted",
            "create PersistentVolumeClaim/a/data: deleted by somebody",
        ],
    );
}
