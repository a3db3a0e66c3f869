//! Objects against the table that the command line brings, and definitions.

use super::super::{Definitions, Schemas, collect};
use super::{Known, inspect};
use crate::kubernetes::{manifest, names, object};

fn schemas() -> Schemas {
    Schemas::parse(include_str!("../../../../../cli/src/kubernetes/table.txt")).unwrap()
}

fn found(schemas: &Schemas, text: &str, definitions: &str) -> Vec<String> {
    let mut known = Definitions::new();
    collect(&manifest::read([("crd.yaml", definitions.as_bytes())]).unwrap().objects, &mut known);
    let known = Known { schemas, definitions: &known };
    let said = inspect(known, &[("a.yaml", text.as_bytes())]);
    said.iter()
        .map(|one| format!("{one}{}", one.hint.as_ref().map_or(String::new(), |hint| format!(" ({hint})"))))
        .collect()
}

/// The text with the one thing replaced has exactly the one finding.
fn check(text: &str, cases: &[(&str, &str, &str)]) {
    let schemas = schemas();
    assert_eq!(found(&schemas, text, ""), Vec::<String>::new());
    for (from, to, want) in cases {
        assert!(text.contains(from), "{from}");
        let said = found(&schemas, &text.replacen(from, to, 1), "");
        assert!(said.len() == 1 && said[0] == *want, "{from:?} → {to:?}\n  wanted {want}\n  found  {said:#?}");
    }
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  strategy:
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: web:1
        imagePullPolicy: IfNotPresent
        ports:
        - containerPort: 8080
        env:
        - {name: PORT, value: \"8080\"}
        readinessProbe: {httpGet: {path: /, port: http}}
        resources: {limits: {cpu: 500m, memory: 1Gi}, requests: {cpu: 1}}
";

#[test]
fn fields_of_built_in_kinds() {
    check(
        DEPLOYMENT,
        &[
            (
                "replicas",
                "replica",
                "a.yaml:8:3: Deployment web: the field `spec.replica` is unknown (did you mean `replicas`?)",
            ),
            (
                "replicas: 2",
                "replicas: \"2\"",
                "a.yaml:8:13: Deployment web: `spec.replicas` is text, expected a whole number (write it without quotes)",
            ),
            (
                "replicas: 2",
                "replicas: 2.5",
                "a.yaml:8:13: Deployment web: `spec.replicas` has not the form that it needs, expected a whole number of 32 bits",
            ),
            (
                "  selector: {matchLabels: {app: web}}\n",
                "",
                "a.yaml:7:1: Deployment web: the field `spec.selector` is missing",
            ),
            (
                "value: \"8080\"",
                "value: 8080",
                "a.yaml:22:31: Deployment web: `spec.template.spec.containers[0].env[0].value` is a number, expected text (write it in quotes)",
            ),
            (
                "IfNotPresent",
                "ifNotPresent",
                "a.yaml:18:26: Deployment web: `spec.template.spec.containers[0].imagePullPolicy` is `ifNotPresent`, expected one of `Always`, `IfNotPresent`, `Never` (did you mean `IfNotPresent`?)",
            ),
            (
                "memory: 1Gi",
                "memory: 1GB",
                "a.yaml:24:49: Deployment web: `spec.template.spec.containers[0].resources.limits.memory` has not the form that it needs, expected a quantity, for example 500m or 1Gi",
            ),
            (
                "- containerPort",
                "  containerPort",
                "a.yaml:20:11: Deployment web: `spec.template.spec.containers[0].ports` is a mapping, expected a list (put `- ` before it: one element of a list)",
            ),
            (
                "      - name: web\n        image",
                "      - image",
                "a.yaml:16:9: Deployment web: the field `spec.template.spec.containers[0].name` is missing",
            ),
            (
                "apps/v1",
                "extensions/v1beta1",
                "a.yaml:1:13: Deployment web: Kubernetes v1.34.4 has no `Deployment` in `extensions/v1beta1` (it is `apiVersion: apps/v1` there)",
            ),
            (
                "kind: Deployment",
                "kind: Deploymnet",
                "a.yaml:2:7: Deploymnet web: Kubernetes v1.34.4 has no `Deploymnet` in `apps/v1` (did you mean `Deployment`?)",
            ),
            (
                "kind: Deployment",
                "kind: DaemonSets",
                "a.yaml:2:7: DaemonSets web: Kubernetes v1.34.4 has no `DaemonSets` in `apps/v1` (did you mean `DaemonSet`?)",
            ),
        ],
    );
}

#[test]
fn other_built_in_kinds() {
    let schemas = schemas();
    let cases = [
        (
            "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {x: \"not base64!\"}}",
            "`data.x` has not the form",
        ),
        ("{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {x: 5}}", "`stringData.x` is a number"),
        ("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {on: yes}}", "`data.on` is true or false"),
        ("{apiVersion: v1, kind: Namespace, metadata: {name: a, namespace: b}}", "its kind lies in no namespace"),
        ("{apiVersion: policy/v1beta1, kind: PodSecurityPolicy, metadata: {name: a}}", "has no `PodSecurityPolicy`"),
        (
            "{apiVersion: extensions/v1beta1, kind: Ingress, metadata: {name: a}}",
            "(it is `apiVersion: networking.k8s.io/v1` there)",
        ),
        ("{apiVersion: batch/v1beta1, kind: CronJob, metadata: {name: a}}", "(it is `apiVersion: batch/v1` there)"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, label: {a: b}}, spec: {containers: []}}",
            "`metadata.label` is unknown (did you mean `labels`?)",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, targetPort: 1.5}]}}",
            "`spec.ports[0].targetPort`",
        ),
        ("{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: []}", "`spec` is a list, expected a mapping"),
        (
            "{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a}, spec: {renewTime: now}}",
            "expected a time",
        ),
        (
            "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {x: 1, containers: []}}]}",
            "a.yaml:1:",
        ),
        (
            "{apiVersion: helm.cattle.io/v1, kind: HelmChart, metadata: {name: a}}",
            "warning: HelmChart a: no CustomResourceDefinition in the repository has `HelmChart.helm.cattle.io`",
        ),
    ];
    for (text, want) in cases {
        let said = found(&schemas, text, "");
        assert!(said.len() == 1 && said[0].contains(want), "{text}: {said:#?}");
    }
    let twice =
        "{apiVersion: a.b/v1, kind: A, metadata: {name: a}}\n---\n{apiVersion: a.b/v1, kind: A, metadata: {name: b}}\n";
    assert_eq!(found(&schemas, twice, "").len(), 1);
    let keys: String = (0..50).map(|n| format!("k{n}: {n}, ")).collect();
    let many =
        found(&schemas, &format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}, data: {{{keys}}}}}"), "");
    assert!(many.len() == 21 && many.iter().any(|one| one.ends_with("30 more of its fields are wrong")), "{many:#?}");
    let inner = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n  spec:\n    x: 1\n    containers: []\n";
    assert_eq!(found(&schemas, inner, ""), ["a.yaml:8:5: Pod a: the field `spec.x` is unknown"]);
}

const DEFINITION: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [cron, mode]
            properties:
              cron: {type: string}
              mode: {type: string, enum: [fast, slow], default: slow}
              replicas: {type: integer, format: int32}
              port: {x-kubernetes-int-or-string: true}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {known: {type: boolean}}}
              tags: {type: array, items: {type: string}}
              values: {type: object, additionalProperties: {type: integer}}
              template: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, required: [x]}
  - {name: v1beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v1alpha1, served: false, storage: false, schema: {openAPIV3Schema: {type: object}}}
";

#[test]
fn objects_of_definitions() {
    let schemas = schemas();
    assert_eq!(found(&schemas, DEFINITION, DEFINITION), Vec::<String>::new());
    let good = "{cron: x, replicas: 3, port: http, free: {any: 1, known: true}, tags: [a], values: {a: 1}, template: {kind: Pod}}";
    let cases = [
        ("v1", good, ""),
        ("v1", "{cron: x, crom: y}", "the field `spec.crom` is unknown (did you mean `cron`?)"),
        ("v1", "{}", "the field `spec.cron` is missing"),
        ("v1", "{cron: 5}", "`spec.cron` is a number, expected text (write it in quotes)"),
        ("v1", "{cron: x, mode: Fast}", "`spec.mode` is `Fast`, expected one of `fast`, `slow`"),
        ("v1", "{cron: x, port: 1.5}", "`spec.port`"),
        ("v1", "{cron: x, free: {known: 1}}", "`spec.free.known` is a number"),
        ("v1", "{cron: x, tags: a}", "`spec.tags` is text, expected a list"),
        ("v1", "{cron: x, values: {a: b}}", "`spec.values.a` is text, expected a whole number"),
        ("v1", "null", "the field `spec` is missing"),
        ("v1beta1", "{anything: 1}", ""),
        (
            "v1alpha1",
            good,
            "`example.com/v1alpha1` is not served by its definition, expected example.com/v1 or v1beta1",
        ),
    ];
    for (version, spec, want) in cases {
        let text =
            format!("{{apiVersion: example.com/{version}, kind: CronTab, metadata: {{name: a}}, spec: {spec}}}\n");
        let said = found(&schemas, &text, DEFINITION);
        let fits = if want.is_empty() { said.is_empty() } else { said.len() == 1 && said[0].contains(want) };
        assert!(fits, "{text}: {said:#?}");
    }
    let name = "{apiVersion: example.com/v1, kind: CronTab, metadata: {name: A, label: {}}, spec: {cron: x}}\n";
    let said = found(&schemas, name, DEFINITION);
    assert!(said.iter().any(|one| one.contains("`A` is no name of an object")), "{said:#?}");
    assert!(said.iter().any(|one| one.contains("the field `metadata.label` is unknown")), "{said:#?}");
    let cluster = DEFINITION.replace("scope: Namespaced", "scope: Cluster");
    let text = "{apiVersion: example.com/v1, kind: CronTab, metadata: {name: a, namespace: b}, spec: {cron: x}}\n";
    assert!(found(&schemas, text, &cluster)[0].contains("its kind lies in no namespace"));
}

/// The lists that the agent carries say the same as the table.
#[test]
fn the_short_lists_agree_with_the_table() {
    let schemas = schemas();
    for ((api, name), kind) in &schemas.kinds {
        let of = crate::kubernetes::Kind::of(api, name);
        assert!(names::is_built_in(&of.group), "{api}");
        // What is only posted, never kept, is none of a manifest's kinds.
        if name.ends_with("Review") {
            continue;
        }
        assert_eq!(object::is_cluster_wide(&of), !kind.namespaced, "{of}");
    }
    assert!(schemas.kinds.len() > 80 && schemas.types.len() > 300);
    for (name, kind) in &schemas.kinds {
        assert!(schemas.named(&kind.name).is_some(), "{name:?}");
    }
}
