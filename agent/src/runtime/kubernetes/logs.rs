//! The last lines that an app's pods wrote.

use std::sync::Arc;

use fleet::desired::{DesiredApp, KubernetesSpec};
use fleet::kubernetes::Kind;

use super::api::Api;
use super::cache::Cache;
use super::execute::Prints;
use super::kustomize::Kustomize;
use super::observe::Sight;
use super::pods::selector;
use crate::ports::runtime::{RuntimeError, Task};

pub(super) async fn tail(
    api: &Arc<Api>,
    kustomize: &Kustomize,
    task: &Task<'_>,
    app: &DesiredApp,
    spec: &KubernetesSpec,
    lines: usize,
) -> Result<Vec<String>, RuntimeError> {
    let (cache, prints) = (Cache::new(), Prints::default());
    let sight = Sight { api, cache: &cache, prints: &prints, kustomize };
    let resources = api.resources().await.map_err(|error| error.reading("what the API server knows"))?;
    let Some(resource) = resources.resource(&Kind::of("v1", "Pod"), None) else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for it in sight.objects(task, app, spec).await? {
        let (Some(selector), Some(namespace)) = (selector(&it.object), it.id.namespace.as_deref()) else { continue };
        let pods = api.list(resource, Some(namespace), &selector).await.map_err(|error| error.reading("the pods"))?;
        for pod in &pods {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
                let of = container["name"].as_str().unwrap_or_default();
                match api.log(namespace, name, of, lines).await {
                    Ok(read) => all.extend(read.into_iter().map(|line| format!("{name}/{of}: {line}"))),
                    // One that has not started has written nothing.
                    Err(error) if error.status() == Some(400) => {}
                    Err(error) => return Err(error.reading(&format!("the log of pod {name}"))),
                }
            }
        }
    }
    let surplus = all.len().saturating_sub(lines);
    Ok(all.split_off(surplus))
}
