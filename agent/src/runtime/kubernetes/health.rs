//! Whether an app's objects are well: what has to be read for it, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use fleet::desired::{DesiredApp, KubernetesSpec};
use fleet::digest::Digest;
use fleet::kubernetes::{Kind, ObjectId};
use fleet::name::AppName;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::api::{Api, ApiError, Resource, Resources, listing};
use super::objects;
use super::observe::Sight;
use super::owner::{APP, FLEET, MANAGED_BY};
use super::pods::{Trouble, selector, trouble, which_pods_matter};
use super::status::{Related, State, Status, job_of, status, waits_for_storage};
use super::verdict::{Seen, verdict};
use crate::clock::SystemClock;
use crate::ports::clock::Clock as _;
use crate::ports::runtime::{RuntimeError, Task, Verdict};

/// Kinds of the core that have no status worth asking for: there is well.
const PLAIN: [&str; 8] =
    ["ConfigMap", "Secret", "ServiceAccount", "LimitRange", "ResourceQuota", "Endpoints", "Event", "PodTemplate"];
/// Groups of which the same is true.
const PLAIN_GROUPS: [&str; 7] = [
    "rbac.authorization.k8s.io",
    "scheduling.k8s.io",
    "admissionregistration.k8s.io",
    "coordination.k8s.io",
    "storage.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
];

/// The pods of so many objects that are not well are asked about in one look:
/// the first are the ones to name, and a server that is in trouble as a whole
/// is not asked a thousand times each second.
const ASKED: usize = 16;

/// What is remembered of an object that a listing told.
enum Found {
    Well(Status),
    /// It is looked at more closely.
    Other(Value),
}

/// Whether an object of a kind can be there and not be well.
fn has_status(kind: &Kind) -> bool {
    let plain = (kind.group.is_empty() && PLAIN.contains(&kind.kind.as_str()))
        || PLAIN_GROUPS.contains(&kind.group.as_str())
        || kind.is("networking.k8s.io", "NetworkPolicy")
        || kind.is("networking.k8s.io", "IngressClass");
    !plain
}

/// Where the objects of each app are found, for as long as the app and what the
/// server knows stay the same: health is looked at every minute, and to read a
/// thousand manifests for it would keep an idle device busy.
#[derive(Default)]
pub(super) struct Targets(Mutex<BTreeMap<AppName, Known>>);

struct Known {
    app: Digest,
    /// The namespace that it brings, which the other apps have a say in.
    brings: Option<String>,
    server: Arc<Resources>,
    objects: Arc<[(ObjectId, Resource)]>,
}

impl Targets {
    pub(super) async fn of(
        &self,
        sight: &Sight<'_>,
        task: &Task<'_>,
        app: &DesiredApp,
        spec: &KubernetesSpec,
    ) -> Result<Arc<[(ObjectId, Resource)]>, RuntimeError> {
        let resources = sight.api.resources().await.map_err(|error| error.reading("what the API server knows"))?;
        let brings = objects::brings(task.beside, app).map(str::to_owned);
        {
            let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let same = |known: &&Known| {
                known.app == app.digest && known.brings == brings && Arc::ptr_eq(&known.server, &resources)
            };
            if let Some(known) = held.get(&app.name).filter(same) {
                return Ok(Arc::clone(&known.objects));
            }
        }
        let wanted = sight.objects(task, app, spec).await?;
        let objects: Arc<[_]> = wanted.into_iter().map(|it| (it.id, it.resource)).collect();
        // Looking may have had the server asked anew; what was known before is of no use, then.
        let known = Known { app: app.digest, brings, server: resources, objects: Arc::clone(&objects) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(app.name.clone(), known);
        Ok(objects)
    }

    /// Lets go of apps that nobody needs any more.
    pub(super) fn retain(&self, needed: &BTreeSet<&AppName>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| needed.contains(name));
    }
}

/// Looks once at everything that can be unwell.
pub(super) async fn judge(
    sight: &Sight<'_>,
    targets: &Targets,
    task: &Task<'_>,
    app: &DesiredApp,
    spec: &KubernetesSpec,
) -> Result<Verdict, RuntimeError> {
    let (api, cache) = (sight.api, sight.cache);
    let wanted = targets.of(sight, task, app, spec).await?;
    // An agent that starts while it probes has seen nothing yet: that is not
    // the same as nothing being there.
    let plain: BTreeMap<&Kind, &Resource> =
        wanted.iter().filter(|(id, _)| !has_status(&id.kind)).map(|(id, resource)| (&id.kind, resource)).collect();
    let plain: Vec<Resource> = plain.into_values().cloned().collect();
    let followed = cache.follow(api, task.fleet, &plain).await;
    followed.map_err(|error| error.reading("the objects of this fleet"))?;
    let selector = format!("{MANAGED_BY}=burgee,{FLEET}={},{APP}={}", task.fleet, task.app);
    let look = Look { api, now: SystemClock.now(), classes: OnceCell::new() };
    let mut listed: BTreeMap<Kind, Result<BTreeMap<ObjectId, Found>, Status>> = BTreeMap::new();
    let home = objects::brings(task.beside, app).map(objects::namespace);
    let mut asked = 0;
    let mut seen: Vec<(ObjectId, Option<Status>, Option<Trouble>)> = Vec::new();
    for (id, resource) in wanted.iter() {
        let id = id.clone();
        if !has_status(&id.kind) {
            let there = cache.get(&id).map(|_| Status { state: State::Current, message: String::new() });
            seen.push((id, there, None));
            continue;
        }
        if !listed.contains_key(&id.kind) {
            let objects = look.list(resource, &selector).await?;
            listed.insert(id.kind.clone(), objects);
        }
        match listed.get(&id.kind).map(|objects| objects.as_ref().map(|objects| objects.get(&id))) {
            // One that is somebody's is used as it is.
            Some(Ok(None)) if home.as_ref() == Some(&id) => {}
            None | Some(Ok(None)) => seen.push((id, None, None)),
            Some(Err(status) | Ok(Some(Found::Well(status)))) => seen.push((id, Some(status.clone()), None)),
            Some(Ok(Some(Found::Other(object)))) => {
                let (status, trouble) = look.at(object, asked < ASKED).await?;
                // A claim has no pods of its own to ask.
                asked += usize::from(!waits_for_storage(object));
                seen.push((id, Some(status), trouble));
            }
        }
    }
    Ok(verdict(seen.iter().map(|(id, status, trouble)| Seen {
        id,
        status: status.as_ref(),
        trouble: trouble.as_ref(),
    })))
}

struct Look<'a> {
    api: &'a Api,
    now: Timestamp,
    /// Every StorageClass, once one look has needed them.
    classes: OnceCell<Option<Vec<Value>>>,
}

impl Look<'_> {
    /// A kind's objects, each let go of as soon as it is seen to be well: a
    /// thousand of them are not held at a time.
    /// Where the server won't tell, that is how each of them stands.
    async fn list(
        &self,
        resource: &Resource,
        selector: &str,
    ) -> Result<Result<BTreeMap<ObjectId, Found>, Status>, RuntimeError> {
        let mut found = BTreeMap::new();
        let mut take = |object: Option<Value>| match object {
            Some(object) => drop(found.insert(objects::id_in(resource, &object), self.found(object))),
            None => found.clear(),
        };
        match self.api.each(resource, None, selector, &mut take).await {
            Ok(()) => Ok(Ok(found)),
            // A kind whose definition is gone has no objects.
            Err(error) if error.status() == Some(404) => Ok(Ok(BTreeMap::new())),
            Err(error) if error.is_answer() => {
                Ok(Err(Status { state: State::InProgress, message: format!("it can't be read: {error}") }))
            }
            Err(error) => Err(error.reading(&listing(&resource.kind))),
        }
    }

    fn found(&self, mut object: Value) -> Found {
        // Of these two alone the object does not say everything.
        if job_of(&object).is_none() && !waits_for_storage(&object) {
            let judged = status(&object, Related::default(), self.now);
            if judged.state == State::Current {
                return Found::Well(judged);
            }
            // Half of an object, and only of use where a Job's age is compared with it.
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
        }
        Found::Other(object)
    }

    /// One object; where it is not as it should be, its pods say why, if they
    /// are asked. What the server won't tell of them is said beside it, and the
    /// object's own status counts.
    async fn at(&self, object: &Value, ask: bool) -> Result<(Status, Option<Trouble>), RuntimeError> {
        let mut unread = String::new();
        let job = match job_of(object) {
            Some((namespace, name)) => answered(self.job(namespace, name).await, "its Job", &mut unread)?,
            None => None,
        };
        let classes = if waits_for_storage(object) {
            let classes = self.classes.get_or_try_init(|| self.all("storage.k8s.io/v1", "StorageClass")).await;
            answered(classes.map(Option::as_deref), "its StorageClass", &mut unread)?
        } else {
            None
        };
        let related = Related { job: job.as_ref(), storage_classes: classes };
        let mut judged = status(object, related, self.now);
        let mut trouble = None;
        if ask && matches!(judged.state, State::InProgress | State::Failed) {
            trouble = answered(self.trouble(job.as_ref().unwrap_or(object)).await, "its pods", &mut unread)?;
        }
        judged.message.push_str(&unread);
        Ok((judged, trouble))
    }

    async fn trouble(&self, workload: &Value) -> Result<Option<Trouble>, ApiError> {
        let (Some(selector), Some(namespace)) = (selector(workload), workload["metadata"]["namespace"].as_str()) else {
            return Ok(None);
        };
        let Some(pods) = self.resource("v1", "Pod").await? else { return Ok(None) };
        let pods = self.api.list(&pods, Some(namespace), &selector).await?;
        let sets = match self.resource("apps/v1", "ReplicaSet").await? {
            Some(sets) if workload["kind"] == "Deployment" => self.api.list(&sets, Some(namespace), &selector).await?,
            _ => Vec::new(),
        };
        Ok(trouble(which_pods_matter(workload, &sets, &pods), self.now))
    }

    async fn job(&self, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        let Some(resource) = self.resource("batch/v1", "Job").await? else { return Ok(None) };
        self.api.get(&resource, Some(namespace), name).await
    }

    async fn all(&self, api_version: &str, kind: &str) -> Result<Option<Vec<Value>>, ApiError> {
        let Some(resource) = self.resource(api_version, kind).await? else { return Ok(None) };
        self.api.list(&resource, None, "").await.map(Some)
    }

    async fn resource(&self, api_version: &str, kind: &str) -> Result<Option<Resource>, ApiError> {
        Ok(self.api.resources().await?.resource(&Kind::of(api_version, kind), None).cloned())
    }
}

/// What was read; where the server answered that it won't tell, nothing, and in
/// `unread` why.
fn answered<T: Default>(read: Result<T, ApiError>, what: &str, unread: &mut String) -> Result<T, RuntimeError> {
    match read {
        Err(error) if error.is_answer() => {
            *unread = format!(" ({what} can't be read: {error})");
            Ok(T::default())
        }
        read => read.map_err(|error| error.reading(what)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::OnceCell;

    use super::super::fields::yaml;
    use super::{Api, Found, Look};
    use crate::config::settings::KubernetesSettings;

    #[test]
    fn what_a_listing_alone_says() {
        let api = Api::new(&KubernetesSettings { kubeconfig: None });
        let look = Look { api: &api, now: jiff::Timestamp::UNIX_EPOCH, classes: OnceCell::new() };
        let cases = [
            ("a bound claim", "{apiVersion: v1, kind: PersistentVolumeClaim, status: {phase: Bound}}", true),
            (
                "one that is not: its class has a say",
                "{apiVersion: v1, kind: PersistentVolumeClaim, status: {phase: Pending}}",
                false,
            ),
            ("a service", "{apiVersion: v1, kind: Service, spec: {type: ClusterIP}}", true),
            (
                "a chart: its job has a say",
                "{apiVersion: helm.cattle.io/v1, kind: HelmChart, metadata: {name: a, namespace: b}, status: {jobName: j}}",
                false,
            ),
            (
                "a workload that is not there yet",
                "{apiVersion: apps/v1, kind: Deployment, metadata: {generation: 1}}",
                false,
            ),
        ];
        for (name, object, well) in cases {
            assert_eq!(matches!(look.found(yaml(object)), Found::Well(_)), well, "{name}");
        }
    }
}
