//! Whether the namespaces of what is wanted are there, or come with the
//! revision and in time: asked before anything is changed.

use std::collections::BTreeSet;

use fleet::desired::DesiredApp;
use fleet::kubernetes::ObjectId;

use super::KubernetesRuntime;
use super::objects::{Wanted, namespace, refused, spec_of};
use super::observe::Sight;
use super::plan::Standing;
use crate::ports::Reason as _;
use crate::ports::runtime::{RuntimeError, Task};

/// Where a namespace comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Brought<'a> {
    /// By this app, or by one that is applied before it.
    InTime,
    /// By an app that is applied only after this one.
    Late(&'a str),
    ByNobody,
}

impl KubernetesRuntime {
    /// The namespaces that are not there yet and come with the revision.
    pub(super) async fn homes(
        &self,
        sight: &Sight<'_>,
        task: &Task<'_>,
        wanted: &[Wanted],
        standing: &[Standing],
    ) -> Result<BTreeSet<String>, RuntimeError> {
        let mut fresh = BTreeSet::new();
        for name in unsure(wanted, standing) {
            if self.is_there(sight, name).await? {
                continue;
            }
            let bringing = self.bringing(sight, task, wanted, name).await?;
            let (cause, hint) = match brought(task.beside, task.app.as_str(), &bringing) {
                Brought::InTime => {
                    fresh.insert(name.to_owned());
                    continue;
                }
                Brought::Late(other) => (
                    format!("namespace {name} comes with the app {other}, which is applied after {}", task.app),
                    format!("name {other} in the `dependsOn` of {}", task.app),
                ),
                Brought::ByNobody => (
                    format!("there is no namespace {name}"),
                    format!(
                        "put `createNamespace: true` and `namespace: {name}` into app.yaml, or bring a manifest of it"
                    ),
                ),
            };
            let lost = wanted.iter().find(|it| it.id.namespace.as_deref() == Some(name));
            let object = lost.map_or_else(|| namespace(name), |it| it.id.clone());
            return Err(refused(&object, cause, Some(&hint)));
        }
        Ok(fresh)
    }

    async fn is_there(&self, sight: &Sight<'_>, name: &str) -> Result<bool, RuntimeError> {
        let id = namespace(name);
        let resources = sight.resources(false).await?;
        let Some(resource) = resources.resource(&id.kind, None) else { return Ok(true) };
        match self.api.get_meta(resource, None, name).await {
            Ok(found) => Ok(found.is_some()),
            // Who may not look at namespaces may well apply in one.
            Err(error) if error.status() == Some(403) => Ok(true),
            Err(error) => Err(error.reading(&id.to_string())),
        }
    }

    /// The apps of the revision that bring a namespace.
    async fn bringing(
        &self,
        sight: &Sight<'_>,
        task: &Task<'_>,
        wanted: &[Wanted],
        name: &str,
    ) -> Result<BTreeSet<String>, RuntimeError> {
        let id = namespace(name);
        let mut bringing = BTreeSet::new();
        if wanted.iter().any(|it| it.id == id) {
            bringing.insert(task.app.to_string());
            return Ok(bringing);
        }
        for other in task.beside.iter().filter(|app| app.name != *task.app) {
            let Some(spec) = spec_of(other) else { continue };
            match self.targets.of(sight, task, other, spec).await {
                Ok(theirs) if theirs.iter().any(|(it, _)| *it == id) => drop(bringing.insert(other.name.to_string())),
                Err(error) if error.is_transient() => return Err(error),
                _ => {}
            }
        }
        Ok(bringing)
    }
}

/// Namespaces in which nothing of the app is yet: they may not be there.
fn unsure<'a>(wanted: &'a [Wanted], standing: &[Standing]) -> BTreeSet<&'a str> {
    let home = |id: &'a ObjectId| id.namespace.as_deref();
    let is_missing = |standing: &Standing| matches!(standing, Standing::Missing);
    let there: BTreeSet<&str> =
        wanted.iter().zip(standing).filter(|(_, it)| !is_missing(it)).filter_map(|(it, _)| home(&it.id)).collect();
    wanted.iter().filter_map(|it| home(&it.id)).filter(|name| !there.contains(name)).collect()
}

/// `beside`: all apps, in the order in which they are applied.
fn brought<'a>(beside: &'a [DesiredApp], app: &str, bringing: &BTreeSet<String>) -> Brought<'a> {
    if bringing.contains(app) {
        return Brought::InTime;
    }
    let mut before = true;
    for other in beside.iter().map(|other| other.name.as_str()) {
        before &= other != app;
        if bringing.contains(other) {
            return if before { Brought::InTime } else { Brought::Late(other) };
        }
    }
    Brought::ByNobody
}

#[cfg(test)]
mod tests {
    use super::super::objects::tests::app;
    use super::{Brought, brought};

    #[test]
    fn where_a_namespace_comes_from() {
        let beside = ["base", "shop", "zoo"].map(|name| app(name, None, false));
        let cases: [(&[&str], Brought<'_>); 5] = [
            (&["shop"], Brought::InTime),
            (&["base"], Brought::InTime),
            (&["zoo"], Brought::Late("zoo")),
            (&["base", "zoo"], Brought::InTime),
            (&[], Brought::ByNobody),
        ];
        for (bringing, want) in cases {
            let set = bringing.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(brought(&beside, "shop", &set), want, "{bringing:?}");
        }
    }
}
