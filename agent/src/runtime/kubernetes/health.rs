//! Whether an app's objects are well, in one sentence.

use std::collections::BTreeMap;
use std::sync::Arc;

use fleet::desired::{DesiredApp, KubernetesSpec};
use fleet::kubernetes::{Kind, ObjectId};
use fleet::wire::status::Health;
use serde_json::Value;

use super::api::{Api, Resource};
use super::cache::Cache;
use super::execute::Prints;
use super::kustomize::Kustomize;
use super::observe::Sight;
use super::owner::{APP, FLEET, MANAGED_BY};
use super::pods;
use super::status::{State, has_status, status};
use crate::ports::runtime::{RuntimeError, Task, Verdict};

/// Looks once at everything that can be unwell.
pub(super) async fn judge(
    api: &Arc<Api>,
    cache: &Cache,
    kustomize: &Kustomize,
    task: &Task<'_>,
    app: &DesiredApp,
    spec: &KubernetesSpec,
) -> Result<Verdict, RuntimeError> {
    let prints = Prints::default();
    let sight = Sight { api, cache, prints: &prints, kustomize };
    let wanted = sight.objects(task, app, spec).await?;
    let selector = format!("{MANAGED_BY}=burgee,{FLEET}={},{APP}={}", task.fleet, task.app);
    let mut listed: BTreeMap<Kind, BTreeMap<ObjectId, Value>> = BTreeMap::new();
    let mut worst = Verdict { health: Health::Healthy, message: String::new() };
    for it in &wanted {
        if !has_status(&it.id.kind) {
            if cache.get(&it.id).is_none() {
                worsen(&mut worst, Health::Missing, format!("{} is missing", it.id));
            }
            continue;
        }
        if !listed.contains_key(&it.id.kind) {
            let objects = list(api, &it.resource, &selector).await?;
            listed.insert(it.id.kind.clone(), objects);
        }
        let Some(object) = listed.get(&it.id.kind).and_then(|objects| objects.get(&it.id)) else {
            worsen(&mut worst, Health::Missing, format!("{} is missing", it.id));
            continue;
        };
        let (health, message) = one(api, object).await?;
        worsen(&mut worst, health, format!("{}: {message}", it.id));
    }
    Ok(worst)
}

async fn list(api: &Api, resource: &Resource, selector: &str) -> Result<BTreeMap<ObjectId, Value>, RuntimeError> {
    let objects = match api.list(resource, None, selector).await {
        Ok(objects) => objects,
        // A kind whose definition is gone has no objects.
        Err(error) if error.status() == Some(404) => Vec::new(),
        Err(error) => return Err(error.reading(&super::api::listing(&resource.kind))),
    };
    let id = |object: &Value| ObjectId {
        kind: resource.kind.clone(),
        namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
        name: object["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
    };
    // Items of a list name neither version nor kind.
    let whole = |mut object: Value| {
        object["apiVersion"] = resource.api_version.as_str().into();
        object["kind"] = resource.kind.kind.as_str().into();
        object
    };
    Ok(objects.into_iter().map(|object| (id(&object), whole(object))).collect())
}

/// One object, and why it makes no progress, where its pods or its job know.
async fn one(api: &Api, object: &Value) -> Result<(Health, String), RuntimeError> {
    let mut judged = status(object);
    if object["kind"] == "HelmChart"
        && judged.state != State::Failed
        && let Some(job) = chart_job(api, object).await?
    {
        judged = status(&job);
    }
    let mut health = match judged.state {
        State::Current => return Ok((Health::Healthy, String::new())),
        State::Suspended => Health::Suspended,
        State::InProgress | State::Terminating => Health::Progressing,
        State::Failed => Health::Degraded,
    };
    let mut message = judged.message;
    if let (Some(selector), Some(namespace)) = (pods::selector(object), object["metadata"]["namespace"].as_str()) {
        let resources = api.resources().await.map_err(|error| error.reading("what the API server knows"))?;
        if let Some(resource) = resources.resource(&Kind::of("v1", "Pod"), None) {
            let list = api.list(resource, Some(namespace), &selector).await;
            let pods = list.map_err(|error| error.reading("the pods"))?;
            if let Some(trouble) = pods::trouble(&pods) {
                if trouble.is_lasting && health == Health::Progressing {
                    health = Health::Degraded;
                }
                message = format!("{message}; {}", trouble.message);
            }
        }
    }
    Ok((health, message))
}

/// The job by which k3s installs a chart.
async fn chart_job(api: &Api, chart: &Value) -> Result<Option<Value>, RuntimeError> {
    let (Some(name), Some(namespace)) = (chart["status"]["jobName"].as_str(), chart["metadata"]["namespace"].as_str())
    else {
        return Ok(None);
    };
    let resources = api.resources().await.map_err(|error| error.reading("what the API server knows"))?;
    let Some(resource) = resources.resource(&Kind::of("batch/v1", "Job"), None) else { return Ok(None) };
    let job = api.get(resource, Some(namespace), name).await;
    job.map_err(|error| error.reading(&format!("the job of chart {name}")))
}

fn worsen(worst: &mut Verdict, health: Health, message: String) {
    let rank = |health: Health| match health {
        Health::Healthy => 0,
        Health::Suspended | Health::Unknown => 1,
        Health::Progressing => 2,
        Health::Degraded => 3,
        Health::Missing => 4,
    };
    if rank(health) > rank(worst.health) {
        *worst = Verdict { health, message };
    }
}
