//! What goes when something leaves a Kubernetes device, and what has to stay:
//! what others made, what holds data, and what somebody else has in it.

use std::time::Duration;

use harness::cluster::Cluster;
use harness::kube_stage::{Stage, config_map, deployment, widget_definition};
use harness::wait::until;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(60);

/// An object of the core, in a namespace.
fn core(kind: &str, space: &str, name: &str, more: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": space, "labels": {"by": "hand"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        object[key] = value.clone();
    }
    object
}

fn claim(space: &str, name: &str) -> Value {
    let spec = json!({"storageClassName": "", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    core("PersistentVolumeClaim", space, name, &json!({"spec": spec}))
}

#[test]
fn what_was_there_before_is_given_back_on_the_way_back() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    stage.manifest("shop", "x.yaml", &[config_map("ours", "1")]);
    let good = stage.pushed("first");

    let port = json!({"spec": {"ports": [{"port": 80}]}});
    let theirs = [
        core("ConfigMap", &space, "map", &json!({"data": {"value": "theirs"}})),
        core("Service", &space, "web", &port),
        claim(&space, "data"),
    ];
    let uids: Vec<Value> = theirs
        .iter()
        .map(|object| {
            cluster.apply(&object.to_string());
            cluster.get(
                &space,
                object["kind"].as_str().expect("a kind"),
                object["metadata"]["name"].as_str().expect("a name"),
            )
        })
        .map(|found| found["metadata"]["uid"].clone())
        .collect();
    let as_it_was = |when: &str| {
        for (object, uid) in theirs.iter().zip(&uids) {
            let (kind, name) =
                (object["kind"].as_str().expect("a kind"), object["metadata"]["name"].as_str().expect("a name"));
            let found = cluster.get(&space, kind, name);
            assert_eq!(found["metadata"]["uid"], *uid, "{when}: {kind} {name} is the same object");
            assert_eq!(found["metadata"]["deletionTimestamp"], Value::Null, "{when}: {kind} {name}");
            assert_eq!(
                found["metadata"]["labels"],
                json!({"by": "hand"}),
                "{when}: {kind} {name} bears no mark of ours"
            );
        }
    };

    // A revision takes them over and fails: they stay, the rest goes.
    let adopting = |stage: &Stage, more: &[Value]| {
        stage.app("shop", "adopt: true\nprune: {maxDelete: 100%}\nhealth: {timeout: 5s, soak: 100ms}\n");
        let mut all = vec![config_map("ours", "2"), theirs[0].clone(), theirs[1].clone()];
        all.extend_from_slice(more);
        stage.manifest("shop", "x.yaml", &all);
    };
    adopting(&stage, &[theirs[2].clone(), config_map("made", "1"), deployment("never", 1)]);
    let bad = stage.push("adopts, and fails");
    stage.device.wait_stalled(&good, &bad, 90);
    as_it_was("after the rollback");
    assert_eq!(cluster.get(&space, "configmap", "made"), Value::Null, "what the revision itself made is gone");
    // A later compare has nothing to clean up either.
    stage.device.sync();
    assert_eq!(cluster.get(&space, "configmap", "ours")["data"]["value"], "1");
    as_it_was("after another compare");

    // One that is good has them; an operator goes back behind it.
    adopting(&stage, &[config_map("made", "1")]);
    stage.pushed("adopts");
    assert_eq!(cluster.get(&space, "configmap", "map")["metadata"]["labels"]["burgee.dev/app"], "shop");
    let output = stage.device.call(&["rollback"]);
    assert!(output.status.success(), "{output:?}");
    until("it is back", LONG, || (cluster.get(&space, "configmap", "made") == Value::Null).then_some(()));
    until("it is at rest", LONG, || (stage.device.status()?["revision"] == good.as_str()).then_some(()));
    as_it_was("after an operator's rollback");

    // What a good revision had goes like anything else when a commit drops it.
    adopting(&stage, &[config_map("made", "2")]);
    stage.pushed("adopts again");
    stage.manifest("shop", "x.yaml", &[config_map("ours", "2")]);
    stage.pushed("drops them");
    assert_eq!(cluster.get(&space, "configmap", "map"), Value::Null);
}

/// An app that makes a namespace of its own.
fn housed(stage: &Stage, app: &str, home: &str, more: &str) {
    let text = format!(
        "runtime: kubernetes\nnamespace: {home}\ncreateNamespace: true\nhealth: {{timeout: 6s, soak: 100ms}}\n{more}"
    );
    stage.repo.write(&format!("apps/{app}/app.yaml"), &text);
}

/// A claim that is well without a volume, for want of a pod.
fn waiting_claim(cluster: &Cluster, name: &str) -> Value {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"}, "provisioner": "example.com/none", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.apply(&class.to_string());
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {"storageClassName": "late", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}})
}

fn leaves(stage: &mut Stage, apps: &str) -> String {
    stage.repo.write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [{apps}]\n"));
    stage.pushed(&format!("apps: [{apps}]"))
}

/// Has everything compared, until what had to wait for steady had its turn.
fn compared(stage: &Stage) {
    for _ in 0..2 {
        stage.device.sync();
        std::thread::sleep(Duration::from_millis(700));
    }
}

fn is_alive(cluster: &Cluster, space: &str, kind: &str, name: &str) -> bool {
    let found = cluster.get(space, kind, name);
    found != Value::Null && found["metadata"]["deletionTimestamp"] == Value::Null
}

#[test]
fn a_namespace_goes_only_with_what_goes_itself() {
    let cluster = Cluster::shared();
    let apps = ["kept", "marked", "late", "empty"];
    let mut stage = Stage::new(cluster, &[]);
    let home = |app: &str| format!("{}-{app}", stage.space);
    let (kept, marked, late, empty) = (home("kept"), home("marked"), home("late"), home("empty"));
    housed(&stage, "kept", &kept, "prune: {keep: [pvcs]}\n");
    stage.manifest("kept", "x.yaml", &[config_map("map", "1"), waiting_claim(cluster, "data")]);
    housed(&stage, "marked", &marked, "");
    let mut disabled = config_map("disabled", "1");
    disabled["metadata"]["annotations"]["burgee.dev/prune"] = "disabled".into();
    stage.manifest("marked", "x.yaml", &[config_map("map", "1"), disabled]);
    for app in ["late", "empty"] {
        housed(&stage, app, &home(app), "");
        stage.manifest(app, "x.yaml", &[config_map("map", "1"), waiting_claim(cluster, "data"), deployment("web", 0)]);
    }
    stage
        .repo
        .write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [{}]\n", apps.join(", ")));
    stage.pushed("all of them");

    // A kind that came after the agent started, and what its operator made for an object of it.
    let group = format!("{}.example.com", stage.space);
    cluster.apply(&widget_definition(&group).to_string());
    let kind = format!("widgets.{group}");
    cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", &format!("crd/{kind}")]);
    let widget =
        json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "db", "namespace": late}});
    until("the kind is served", LONG, || {
        cluster.try_kubectl(&["-n", &late, "get", &kind]).is_ok().then(|| cluster.apply(&widget.to_string()))
    });
    let uid = cluster.get(&late, &kind, "db")["metadata"]["uid"].clone();
    let owners = json!([{"apiVersion": format!("{group}/v1"), "kind": "Widget", "name": "db", "uid": uid}]);
    let owned = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db", "namespace": late, "ownerReferences": owners}});
    cluster.apply(&owned.to_string());

    leaves(&mut stage, "");
    until("an empty one goes", LONG, || (!is_alive(cluster, "", "namespace", &empty)).then_some(()));
    compared(&stage);
    for (space, kind, name) in
        [(&kept, "persistentvolumeclaim", "data"), (&marked, "configmap", "disabled"), (&late, kind.as_str(), "db")]
    {
        assert!(is_alive(cluster, space, kind, name), "{space}: {kind} {name} stays");
        assert!(is_alive(cluster, "", "namespace", space), "{space} stays");
        assert!(!is_alive(cluster, space, "configmap", "map"), "{space}: what was the app's is gone");
    }
    assert!(!is_alive(cluster, &late, "persistentvolumeclaim", "data"), "what nothing keeps is gone");
}

#[test]
fn a_definition_stays_for_the_objects_of_others() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("defs", ""), ("things", "dependsOn: [defs]\n")]);
    let group = |name: &str| format!("{name}.{}.example.com", stage.space);
    let (theirs, beside, own) = (group("theirs"), group("beside"), group("own"));
    let widget = |group: &str, name: &str| json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": name}});
    let definitions = [widget_definition(&theirs), widget_definition(&beside), widget_definition(&own)];
    stage.manifest("defs", "x.yaml", &[&definitions[..], &[widget(&own, "w")]].concat());
    stage.manifest("things", "x.yaml", &[widget(&beside, "w")]);
    stage.pushed("both");
    let mut made = widget(&theirs, "by-hand");
    made["metadata"]["namespace"] = stage.space.as_str().into();
    cluster.apply(&made.to_string());

    // `things` stays, and still wants one.
    stage.app("things", "");
    leaves(&mut stage, "things");
    let definition = |group: &str| is_alive(cluster, "", "customresourcedefinition", &format!("widgets.{group}"));
    until("the one with none but its own goes", LONG, || (!definition(&own)).then_some(()));
    compared(&stage);
    assert!(definition(&theirs) && is_alive(cluster, &stage.space, &format!("widgets.{theirs}"), "by-hand"));
    assert!(definition(&beside) && is_alive(cluster, &stage.space, &format!("widgets.{beside}"), "w"));
    // Once nobody has an object of it any more, it goes, too.
    leaves(&mut stage, "");
    until("the other one goes with its last object", LONG, || {
        stage.device.sync();
        (!definition(&beside)).then_some(())
    });
    assert!(definition(&theirs) && is_alive(cluster, &stage.space, &format!("widgets.{theirs}"), "by-hand"));
}

#[test]
fn apps_share_a_namespace_and_nothing_else() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("a", ""), ("b", "")]);
    let home = format!("{}-mall", stage.space);
    for app in ["a", "b"] {
        housed(&stage, app, &home, "");
        stage.manifest(app, "x.yaml", &[config_map(app, "1")]);
    }
    let both = stage.pushed("both");
    let uid = cluster.get("", "namespace", &home)["metadata"]["uid"].clone();
    assert!(is_alive(cluster, &home, "configmap", "a") && is_alive(cluster, &home, "configmap", "b"));

    // Only the device sees what kustomize makes of names: it names both apps.
    stage.repo.write("apps/b/kubernetes/kustomization.yaml", "namePrefix: pre-\nresources: [x.yaml]\n");
    stage.manifest("a", "x.yaml", &[config_map("a", "1"), config_map("pre-b", "1")]);
    let bad = stage.push("one object, two apps");
    let status = stage.device.wait_stalled(&both, &bad, 60);
    let said = status["conditions"].to_string();
    assert!(said.contains("apps a and b both have it") || said.contains("apps b and a both have it"), "{said}");
    assert!(!is_alive(cluster, &home, "configmap", "pre-b"), "nothing was changed");
    stage.repo.remove("apps/b/kubernetes/kustomization.yaml");
    stage.manifest("a", "x.yaml", &[config_map("a", "1")]);

    // Whose it was leaves: the other one has it from then on.
    leaves(&mut stage, "b");
    assert!(!is_alive(cluster, &home, "configmap", "a"));
    until("it is handed over", LONG, || {
        stage.device.sync();
        (cluster.get("", "namespace", &home)["metadata"]["labels"]["burgee.dev/app"] == "b").then_some(())
    });
    assert_eq!(cluster.get("", "namespace", &home)["metadata"]["uid"], uid);
    assert!(is_alive(cluster, &home, "configmap", "b"));
    stage.device.wait("b is well", 30, |status| status["apps"][0]["health"] == "healthy");
    leaves(&mut stage, "");
    until("it goes with the last one", LONG, || (!is_alive(cluster, "", "namespace", &home)).then_some(()));
}

#[test]
fn what_a_failed_revision_made_immutable_does_not_bar_the_way_back() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "")]);
    let space = stage.space.clone();
    let fixed = |name: &str, value: &str, immutable: bool| {
        let mut map = config_map(name, value);
        map["immutable"] = immutable.into();
        map
    };
    let binding = |role: &str| json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "bound"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}, "subjects": []});
    stage.manifest("shop", "x.yaml", &[fixed("once", "1", false), fixed("always", "1", true), binding("reader")]);
    let good = stage.pushed("first");

    // Its kinds may be made anew by this revision's word, not by that of the good one.
    stage.app("shop", "replace: [ConfigMap, RoleBinding]\nhealth: {timeout: 4s, soak: 100ms}\n");
    let changed = [fixed("once", "2", true), fixed("always", "2", true), binding("writer")];
    stage.manifest("shop", "x.yaml", &[&changed[..], &[deployment("never", 1)]].concat());
    let bad = stage.push("makes them anew, and fails");
    until("they are made anew", LONG, || {
        (cluster.get(&space, "rolebinding", "bound")["roleRef"]["name"] == "writer").then_some(())
    });
    stage.device.wait_stalled(&good, &bad, 90);
    assert_eq!(cluster.get(&space, "rolebinding", "bound")["roleRef"]["name"], "reader");
    for (name, immutable) in [("once", false), ("always", true)] {
        let map = cluster.get(&space, "configmap", name);
        assert_eq!((&map["data"]["value"], &map["immutable"]), (&"1".into(), &immutable.into()), "{name}");
    }
    // A commit that changes one without that word is refused as ever.
    stage.app("shop", "");
    stage.manifest("shop", "x.yaml", &[fixed("always", "3", true)]);
    let bad = stage.push("may not");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("immutable"), "{status:#}");
}

#[test]
fn a_namespace_that_comes_too_late_is_refused_before_anything_changed() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("a", ""), ("b", "")]);
    let space = stage.space.clone();
    stage.manifest("a", "x.yaml", &[config_map("map", "1")]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1")]);
    let good = stage.pushed("first");
    let home = format!("{space}-late");
    let mut there = config_map("there", "1");
    there["metadata"]["namespace"] = home.as_str().into();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": home}});
    stage.manifest("a", "x.yaml", &[config_map("map", "2"), there.clone()]);
    stage.manifest("b", "x.yaml", &[config_map("other", "1"), namespace]);
    let bad = stage.push("the namespace comes after what is in it");
    let status = stage.device.wait_stalled(&good, &bad, 60);
    assert!(status["conditions"].to_string().contains("name b in the `dependsOn` of a"), "{status:#}");
    assert_eq!(cluster.get(&space, "configmap", "map")["data"]["value"], "1", "nothing was changed");
    stage.app("a", "dependsOn: [b]\n");
    stage.pushed("in time");
    assert!(is_alive(cluster, &home, "configmap", "there"));
}

#[test]
fn more_than_may_go_stays_until_an_operator_says_so() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[("shop", "prune: {maxDelete: 1}\n")]);
    let names = ["a", "b", "c", "d"];
    let maps = |names: &[&str]| names.iter().map(|name| config_map(name, "1")).collect::<Vec<_>>();
    stage.manifest("shop", "x.yaml", &maps(&names));
    stage.pushed("four");
    stage.manifest("shop", "x.yaml", &maps(&names[..3]));
    stage.pushed("one goes");
    assert!(!is_alive(cluster, &stage.space, "configmap", "d"));
    stage.manifest("shop", "x.yaml", &maps(&names[..1]));
    stage.pushed("two go");
    stage.device.wait("it says so", 30, |status| status["conditions"].to_string().contains("PruneLimited"));
    compared(&stage);
    assert!(["a", "b", "c"].iter().all(|name| is_alive(cluster, &stage.space, "configmap", name)));
    assert!(stage.device.call(&["sync", "--prune"]).status.success());
    until("an operator said so", LONG, || (!is_alive(cluster, &stage.space, "configmap", "b")).then_some(()));
    until("all that should", LONG, || (!is_alive(cluster, &stage.space, "configmap", "c")).then_some(()));
    assert!(is_alive(cluster, &stage.space, "configmap", "a"));
}

#[test]
fn a_namespace_that_is_somebodys_is_used_and_left_as_it_is() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[]);
    let home = cluster.namespace();
    let labels = || cluster.get("", "namespace", &home)["metadata"]["labels"].clone();
    let before = labels();
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [shop]\n");
    // Not even where objects may be taken over: nobody wrote this one down.
    housed(&stage, "shop", &home, "adopt: true\n");
    stage.manifest("shop", "x.yaml", &[config_map("map", "1")]);
    stage.pushed("first");
    stage.device.wait("it is well", 30, |status| {
        status["apps"][0]["health"] == "healthy" && status["apps"][0]["sync"] == "synced"
    });
    assert!(is_alive(cluster, &home, "configmap", "map"));
    assert_eq!(labels(), before, "it bears no mark of ours");
    leaves(&mut stage, "");
    compared(&stage);
    assert!(!is_alive(cluster, &home, "configmap", "map"));
    assert!(is_alive(cluster, "", "namespace", &home), "it stays");
}

#[test]
fn an_operator_finishes_its_objects_before_it_goes() {
    let cluster = Cluster::shared();
    let mut stage = Stage::new(cluster, &[]);
    let (home, group) = (format!("{}-op", stage.space), format!("{}.example.com", stage.space));
    let (kind, name) = (format!("widgets.{group}"), format!("widgets.{group}"));
    let mut widget = json!({"apiVersion": format!("{group}/v1"), "kind": "Widget", "metadata": {"name": "w"}});
    widget["metadata"]["finalizers"] = json!(["example.com/finish"]);
    let let_go = || {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        cluster.kubectl(&["-n", &home, "patch", &kind, "w", "--type=merge", "-p", patch])
    };
    for has_operator in [true, false] {
        housed(&stage, "op", &home, "");
        stage.manifest("op", "x.yaml", &[widget_definition(&group), deployment("operator", 0), widget.clone()]);
        stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [op]\n");
        stage.pushed(&format!("with its operator: {has_operator}"));
        stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
        let head = stage.push("leaves");
        until("the object is to go", LONG, || (!is_alive(cluster, &home, &kind, "w")).then_some(()));
        if has_operator {
            // It takes its time, and can do nothing once it is gone itself.
            std::thread::sleep(Duration::from_secs(2));
            assert!(is_alive(cluster, &home, "deployment", "operator"), "it is waited for");
            let_go();
        }
        stage.device.wait_steady(&head, 90);
        if !has_operator {
            // Nobody finishes it: it holds what it is in, and is said to.
            assert!(!is_alive(cluster, &home, "deployment", "operator"));
            until("it is said", LONG, || stage.device.log().contains("which its finalizers hold").then_some(()));
            assert!(is_alive(cluster, "", "namespace", &home), "its namespace stays for now");
            assert!(is_alive(cluster, "", "customresourcedefinition", &name), "so does its definition");
            let_go();
        }
        for (kind, name) in [("customresourcedefinition", &name), ("namespace", &home)] {
            until("what it was in goes", LONG, || (cluster.get("", kind, name) == Value::Null).then_some(()));
        }
    }
}
