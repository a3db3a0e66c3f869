//! What an app wants on the server: its manifests, with namespace, marks and
//! the place where each object is found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::desired::{AppSpec, Blobs, DesiredApp, KubernetesSpec};
use fleet::digest::Digest;
use fleet::kubernetes::manifest;
use fleet::kubernetes::{Kind, Manifest, ObjectId};
use fleet::name::FleetName;
use serde_json::{Value, json};

use super::api::{Resource, Resources};
use super::kustomize::Kustomize;
use super::order::rank;
use super::owner::{APP, DIGEST, FLEET, MANAGED_BY};
use crate::ports::runtime::{Object, RuntimeError};

/// One object that is to be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) id: ObjectId,
    pub(super) resource: Resource,
    /// As it is applied, marks included.
    pub(super) object: Value,
    /// Over all of it; also one of its marks.
    pub(super) digest: String,
    pub(super) rank: u16,
    /// A namespace that `createNamespace` asks for, of no manifest.
    pub(super) brought: bool,
}

pub(super) fn spec_of(app: &DesiredApp) -> Option<&KubernetesSpec> {
    match &app.spec {
        AppSpec::Kubernetes(spec) => Some(spec),
        AppSpec::Compose(_) | AppSpec::Files(_) => None,
    }
}

/// As the journal and the status name it.
pub(super) fn named(id: &ObjectId) -> Object {
    let name = match &id.namespace {
        Some(namespace) => format!("{namespace}/{}", id.name),
        None => id.name.clone(),
    };
    Object { kind: id.kind.to_string(), name }
}

/// The inverse of [`named`].
pub(super) fn id_of(object: &Object) -> Option<ObjectId> {
    object.to_string().parse().ok()
}

/// An object that the server told.
pub(super) fn id_in(resource: &Resource, object: &Value) -> ObjectId {
    let text = |key: &str| object["metadata"][key].as_str().map(str::to_owned);
    ObjectId { kind: resource.kind.clone(), namespace: text("namespace"), name: text("name").unwrap_or_default() }
}

pub(super) fn refused(object: &ObjectId, cause: String, hint: Option<&str>) -> RuntimeError {
    RuntimeError::Refused { object: object.to_string(), cause, hint: hint.map(str::to_owned) }
}

pub(super) fn namespace(name: &str) -> ObjectId {
    ObjectId { kind: Kind::of("v1", "Namespace"), namespace: None, name: name.to_owned() }
}

/// The namespace that an app brings by its settings. Of several apps that ask
/// for the same one it is the first's, in the order in which they are applied;
/// when that leaves, it is handed over to the next.
pub(super) fn brings<'a>(beside: &[DesiredApp], app: &'a DesiredApp) -> Option<&'a str> {
    let asks = |app: &'_ DesiredApp| spec_of(app).filter(|spec| spec.create_namespace)?.namespace.clone();
    let name = asks(app)?;
    let first = beside.iter().find(|other| asks(other).as_ref() == Some(&name));
    let own = first.is_none_or(|first| first.name == app.name);
    spec_of(app)?.namespace.as_deref().filter(|_| own)
}

/// Kinds whose objects may be deleted and made anew where a field is immutable.
/// On the way back also those that the revision which is left was allowed, and
/// those whose content is all in the manifest: a revision that made one
/// immutable, or anew by its own word, must not bar the way home.
pub(super) fn replaceable(want: Option<&DesiredApp>, had: Option<&DesiredApp>, back: bool) -> Vec<String> {
    let named = |app: Option<&DesiredApp>| app.and_then(spec_of).map_or(&[][..], |spec| &spec.replace).to_vec();
    if !back {
        return named(want.filter(|app| spec_of(app).is_some()).or(had));
    }
    [named(want), named(had), ["ConfigMap", "Secret"].map(str::to_owned).to_vec()].concat()
}

/// The manifests of one app, kustomizations rendered.
pub(super) async fn manifests(
    app: &DesiredApp,
    spec: &KubernetesSpec,
    blobs: &Blobs,
    kustomize: &Kustomize,
) -> Result<Vec<Manifest>, RuntimeError> {
    let content = |digest: &Digest| {
        blobs.get(digest).ok_or_else(|| RuntimeError::Observe {
            what: format!("the manifests of app {}", app.name),
            source: format!("blob {} is missing", digest.short()).into(),
        })
    };
    let read = if spec.kustomize {
        let text = kustomize.rendered(&app.name, spec, blobs).await?;
        manifest::read([("kustomization", text.as_bytes())])
    } else {
        let files: Vec<(&str, &Arc<[u8]>)> = spec
            .files
            .iter()
            .map(|(path, digest)| Ok((path.as_str(), content(digest)?)))
            .collect::<Result<_, RuntimeError>>()?;
        manifest::read(files.iter().map(|(path, bytes)| (*path, &bytes[..])))
    };
    read.map(|read| read.objects).map_err(|found| RuntimeError::Refused {
        object: format!("the manifests of app {}", app.name),
        cause: found.first().map(ToString::to_string).unwrap_or_default(),
        hint: Some("`burgee check` on the repository shows all of it".to_owned()),
    })
}

/// The kinds that the definitions among these manifests bring: the server
/// can't know them yet.
pub(super) fn definitions(manifests: &[Manifest]) -> Vec<Resource> {
    manifests.iter().filter(|it| is_definition(&it.kind)).flat_map(|manifest| defined_by(&manifest.object)).collect()
}

pub(super) fn is_definition(kind: &Kind) -> bool {
    kind.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// The versions of its kind that one definition has served.
pub(super) fn defined_by(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, kind) = (text(&spec["group"]), text(&spec["names"]["kind"]));
    let served = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    served
        .map(|version| Resource {
            kind: Kind { group: group.clone(), kind: kind.clone() },
            api_version: format!("{group}/{}", text(&version["name"])),
            plural: text(&spec["names"]["plural"]),
            namespaced: spec["scope"] == "Namespaced",
            listable: true,
        })
        .collect()
}

/// Every object of an app, in the order in which they are applied.
///
/// # Errors
/// When the server has no such kind and no definition brings it, a namespace
/// does not fit, or an object is there twice.
pub(super) fn wanted(
    fleet: &FleetName,
    app: &DesiredApp,
    spec: &KubernetesSpec,
    manifests: Vec<Manifest>,
    resources: &Resources,
    (brings, defined): (Option<&str>, &[Resource]),
) -> Result<Vec<Wanted>, RuntimeError> {
    let mut all = Vec::new();
    let mut ids = BTreeSet::new();
    for mut manifest in manifests {
        let resource = resource(&manifest, resources, defined)?;
        let namespace = match (&manifest.namespace, resource.namespaced) {
            (Some(namespace), true) => Some(namespace.clone()),
            (None, true) => Some(spec.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            (_, false) => {
                // One that is named counts for nothing, as with kubectl.
                manifest.object["metadata"].as_object_mut().map(|metadata| metadata.remove("namespace"));
                None
            }
        };
        let id = ObjectId { kind: manifest.kind, namespace, name: manifest.name };
        if !ids.insert(id.clone()) {
            return Err(refused(&id, format!("app {} has it twice", app.name), Some("keep one of the manifests")));
        }
        all.push(marked(fleet, app, id, resource, manifest.object));
    }
    if let Some(name) = brings {
        let id = namespace(name);
        if ids.insert(id.clone()) {
            let resource = resources
                .resource(&id.kind, None)
                .cloned()
                .ok_or_else(|| refused(&id, "the API server knows no namespaces".to_owned(), None))?;
            let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            all.push(Wanted { brought: true, ..marked(fleet, app, id, resource, object) });
        }
    }
    all.sort_by(|a, b| (a.rank, &a.id).cmp(&(b.rank, &b.id)));
    Ok(all)
}

/// What an app may want, by its manifests alone: in a namespace or in none.
pub(super) fn possible(spec: &KubernetesSpec, manifests: Vec<Manifest>, brings: Option<&str>) -> Vec<ObjectId> {
    let mut ids: Vec<ObjectId> = brings.map(namespace).into_iter().collect();
    for it in manifests {
        let namespace = it.namespace.or_else(|| spec.namespace.clone()).unwrap_or_else(|| "default".to_owned());
        ids.push(ObjectId { kind: it.kind.clone(), namespace: None, name: it.name.clone() });
        ids.push(ObjectId { kind: it.kind, namespace: Some(namespace), name: it.name });
    }
    ids
}

fn resource(manifest: &Manifest, resources: &Resources, defined: &[Resource]) -> Result<Resource, RuntimeError> {
    let version = manifest.api_version.as_str();
    if let Some(known) = resources.resource(&manifest.kind, Some(version)) {
        return Ok(known.clone());
    }
    if let Some(brought) = defined.iter().find(|it| it.kind == manifest.kind && it.api_version == version) {
        return Ok(brought.clone());
    }
    let id =
        ObjectId { kind: manifest.kind.clone(), namespace: manifest.namespace.clone(), name: manifest.name.clone() };
    if resources.is_stale(version) {
        return Err(RuntimeError::Observe {
            what: format!("what the API server has in {version}"),
            source: "the service behind that group does not answer".into(),
        });
    }
    let others = resources.versions(&manifest.kind);
    let hint = if others.is_empty() {
        "install what defines it (its CustomResourceDefinition), or bring that along in the same revision".to_owned()
    } else {
        format!("it has it as {}", others.join(", "))
    };
    Err(refused(&id, format!("the API server has no {} in {version}", manifest.kind.kind), Some(&hint)))
}

/// With the marks by which it is known as this app's.
fn marked(fleet: &FleetName, app: &DesiredApp, id: ObjectId, resource: Resource, mut object: Value) -> Wanted {
    if id.kind.is("", "Secret") {
        encode(&mut object);
    }
    // The manifest has a name, so it has metadata.
    let metadata = &mut object["metadata"];
    if let Some(namespace) = &id.namespace {
        metadata["namespace"] = namespace.as_str().into();
    }
    for key in ["labels", "annotations"] {
        if !metadata[key].is_object() {
            metadata[key] = json!({});
        }
    }
    for (key, value) in [(MANAGED_BY, "burgee"), (FLEET, fleet.as_str()), (APP, app.name.as_str())] {
        metadata["labels"][key] = value.into();
    }
    let digest = Digest::of(object.to_string().as_bytes()).to_string();
    object["metadata"]["annotations"][DIGEST] = digest.as_str().into();
    let rank = rank(&id.kind, resource.namespaced);
    Wanted { id, resource, object, digest, rank, brought: false }
}

/// A secret's `stringData` as `data`: the server keeps that alone, and would
/// not see whose the field is.
fn encode(secret: &mut Value) {
    let Some(Value::Object(plain)) = secret.as_object_mut().and_then(|map| map.remove("stringData")) else { return };
    for (key, value) in plain {
        if let Some(text) = value.as_str() {
            secret["data"][key] = STANDARD.encode(text).into();
        }
    }
}

/// What each of the other apps of a revision wants, by object.
pub(super) type Claims = BTreeMap<ObjectId, fleet::name::AppName>;

#[cfg(test)]
pub(super) mod tests {
    use fleet::desired::{
        AppSpec, DesiredApp, DriftMode, DriftPolicy, HealthPolicy, KubernetesSpec, Limit, OnFailure, PrunePolicy,
    };
    use fleet::digest::Digest;

    use super::{brings, replaceable};

    /// An app with a namespace, which it asks for or not.
    pub(in super::super) fn app(name: &str, namespace: Option<&str>, create_namespace: bool) -> DesiredApp {
        let spec = KubernetesSpec {
            namespace: namespace.map(str::to_owned),
            create_namespace,
            adopt: false,
            replace: vec![],
            kustomize: false,
            files: [].into(),
        };
        DesiredApp {
            name: name.parse().unwrap(),
            depends_on: vec![],
            spec: AppSpec::Kubernetes(spec),
            health: HealthPolicy { timeout_ms: 0, soak_ms: 0, checks: vec![] },
            drift: DriftPolicy { mode: DriftMode::Correct, ignore: vec![] },
            prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: vec![] },
            on_failure: OnFailure::Rollback,
            digest: Digest::of(name.as_bytes()),
        }
    }

    #[test]
    fn kinds_that_may_be_made_anew() {
        let replacing = |kind: Option<&str>| {
            let mut app = app("a", None, false);
            if let AppSpec::Kubernetes(spec) = &mut app.spec {
                spec.replace = kind.into_iter().map(str::to_owned).collect();
            }
            app
        };
        let (job, pod, none) = (replacing(Some("Job")), replacing(Some("Pod")), replacing(None));
        let check =
            |name: &str, (want, had): (Option<&DesiredApp>, Option<&DesiredApp>), back: bool, kinds: &[&str]| {
                assert_eq!(replaceable(want, had, back), kinds, "{name}");
            };
        check("on the way forth by its own word", (Some(&job), Some(&pod)), false, &["Job"]);
        check("not by that of the revision before", (Some(&none), Some(&pod)), false, &[]);
        check("one that leaves, by its last", (None, Some(&pod)), false, &["Pod"]);
        check("on the way back by both", (Some(&job), Some(&pod)), true, &["Job", "Pod", "ConfigMap", "Secret"]);
        check("back, and nobody named any", (Some(&none), None), true, &["ConfigMap", "Secret"]);
    }

    #[test]
    fn a_namespace_is_brought_by_the_first_that_asks_for_it() {
        let beside = [
            app("a", Some("mall"), false),
            app("b", Some("mall"), true),
            app("c", Some("mall"), true),
            app("d", Some("zoo"), true),
            app("e", None, true),
        ];
        let brought: Vec<Option<&str>> = beside.iter().map(|app| brings(&beside, app)).collect();
        assert_eq!(brought, [None, Some("mall"), None, Some("zoo"), None]);
        // The first one leaves.
        assert_eq!(brings(&beside[2..], &beside[2]), Some("mall"));
        assert_eq!(brings(&[], &beside[1]), Some("mall"));
    }
}
