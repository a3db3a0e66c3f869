//! What a namespace or a definition that is to go holds: with it would go all
//! of that, whoever made it. Only what is known to be nobody's, or to go with
//! this very plan, may.

use std::collections::{BTreeMap, BTreeSet};

use fleet::kubernetes::{Kind, ObjectId};

use super::api::{ApiError, Meta, Owned, Resource, Resources};
use super::objects::{Claims, Wanted, defined_by};
use super::observe::Sight;
use super::owner::{APP, FLEET, MANAGED_BY};
use super::plan::{Going, Held, finishes};
use crate::ports::runtime::{RuntimeError, Task};

impl Sight<'_> {
    /// Namespaces and definitions among what is to go that hold something that
    /// is not.
    pub(super) async fn held(
        &self,
        task: &Task<'_>,
        going: &Going<'_>,
        wanted: &[Wanted],
        claims: &Claims,
    ) -> Result<BTreeMap<ObjectId, Held>, RuntimeError> {
        let mut held = BTreeMap::new();
        let uids: BTreeSet<&str> = going.values().map(|(_, meta)| meta.uid.as_str()).collect();
        for (id, (resource, _)) in going {
            let inside = match (id.kind.group.as_str(), id.kind.kind.as_str()) {
                ("", "Namespace") => {
                    let is_in = |other: &ObjectId| other.namespace.as_deref() == Some(id.name.as_str());
                    match promised(wanted, claims, is_in) {
                        Some(promised) => Some(promised),
                        None => self.in_namespace(task, &id.name, &uids).await?,
                    }
                }
                ("apiextensions.k8s.io", "CustomResourceDefinition") => {
                    self.of_definition(task, id, resource, (wanted, claims), &uids).await?
                }
                _ => None,
            };
            if let Some((stays, what)) = inside {
                match stays {
                    Held::ForGood => {
                        tracing::warn!(object = %id, holds = what, "it stays: it holds what is not this app's")
                    }
                    Held::ForNow => tracing::warn!(object = %id, holds = what, "it stays for now"),
                }
                held.insert((*id).clone(), stays);
            }
        }
        Ok(held)
    }

    async fn in_namespace(
        &self,
        task: &Task<'_>,
        name: &str,
        going: &BTreeSet<&str>,
    ) -> Result<Option<Inside>, RuntimeError> {
        // Kinds come with what others install: what was known at some time before does not do.
        let resources = self.resources(true).await?;
        if resources.is_partial() {
            return Ok(Some((Held::ForNow, "what a service behind the API has, which does not answer".to_owned())));
        }
        for resource in resources.namespaced() {
            let metas = match seen(self.api.list_meta(resource, Some(name), "").await, &resource.kind)? {
                Ok(metas) => metas,
                Err(unknown) => return Ok(Some(unknown)),
            };
            if let Some(unfinished) = unfinished(&metas, &resource.kind) {
                return Ok(Some(unfinished));
            }
            let other = metas.iter().find(|meta| !is_incidental(&resource.kind, meta, going, &resources));
            if let Some(meta) = other {
                return Ok(Some((whose(meta, task), format!("{} {}", resource.kind, meta.name))));
            }
        }
        Ok(None)
    }

    async fn of_definition(
        &self,
        task: &Task<'_>,
        id: &ObjectId,
        resource: &Resource,
        (wanted, claims): (&[Wanted], &Claims),
        going: &BTreeSet<&str>,
    ) -> Result<Option<Inside>, RuntimeError> {
        let found = self.api.get(resource, None, &id.name).await.map_err(|error| error.reading(&id.to_string()))?;
        let Some(object) = found else { return Ok(None) };
        let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        if !conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
            // It never was served, so nothing was made by it.
            return Ok(None);
        }
        let Some(defined) = defined_by(&object).into_iter().next() else {
            return Ok(Some((Held::ForNow, "what it defined, in no version that is served".to_owned())));
        };
        if let Some(promised) = promised(wanted, claims, |other| other.kind == defined.kind) {
            return Ok(Some(promised));
        }
        let metas = match seen(self.api.list_meta(&defined, None, "").await, &defined.kind)? {
            Ok(metas) => metas,
            Err(unknown) => return Ok(Some(unknown)),
        };
        if let Some(unfinished) = unfinished(&metas, &defined.kind) {
            return Ok(Some(unfinished));
        }
        for meta in &metas {
            if going.contains(meta.uid.as_str()) || meta.is_deleting || self.is_orphan(meta, going).await? {
                continue;
            }
            return Ok(Some((whose(meta, task), format!("{} {}", defined.kind, meta.name))));
        }
        Ok(None)
    }

    /// Whether all that an object belongs to is gone or goes: the server takes
    /// it away by itself.
    async fn is_orphan(&self, meta: &Meta, going: &BTreeSet<&str>) -> Result<bool, RuntimeError> {
        let resources = self.resources(false).await?;
        for owner in &meta.owners {
            if going.contains(owner.uid.as_str()) {
                continue;
            }
            let Some(resource) = resources.resource(&owner.kind, None) else { return Ok(false) };
            let found = self.api.get_meta(resource, meta.namespace.as_deref(), &owner.name).await;
            let found = found.map_err(|error| error.reading(&format!("{} {}", owner.kind, owner.name)))?;
            if found.is_some_and(|found| found.uid == owner.uid) {
                return Ok(false);
            }
        }
        Ok(!meta.owners.is_empty())
    }
}

/// What becomes of what holds something; and what that is.
type Inside = (Held, String);

/// An object of the revision that is in it, or of its kind.
fn promised(wanted: &[Wanted], claims: &Claims, is_in: impl Fn(&ObjectId) -> bool) -> Option<Inside> {
    // The app itself says that it is no longer its own.
    let own = wanted.iter().map(|it| &it.id).find(|id| is_in(id)).map(|id| (Held::ForGood, id.to_string()));
    own.or_else(|| claims.keys().find(|id| is_in(id)).map(|id| (Held::ForNow, id.to_string())))
}

/// A listing; where the server refuses it, what is there is not known, which is
/// not the same as nothing.
fn seen(list: Result<(Vec<Meta>, String), ApiError>, kind: &Kind) -> Result<Result<Vec<Meta>, Inside>, RuntimeError> {
    match list {
        Ok((metas, _)) => Ok(Ok(metas)),
        Err(error) if error.status().is_some() => Ok(Err((Held::ForNow, format!("what {kind} there is: {error}")))),
        Err(error) => Err(error.reading(&format!("the list of {kind}"))),
    }
}

/// One that its finalizers hold: whoever has to clear them needs what it is in.
fn unfinished(metas: &[Meta], kind: &Kind) -> Option<Inside> {
    let found = metas.iter().find(|meta| meta.is_deleting && finishes(kind, meta))?;
    Some((Held::ForNow, format!("{kind} {}, which its finalizers hold", found.name)))
}

/// Another app's goes with that app; anybody else's is not ours to wait for.
fn whose(meta: &Meta, task: &Task<'_>) -> Held {
    let label = |key: &str| meta.labels.get(key).map(String::as_str);
    let ours = label(MANAGED_BY) == Some("burgee") && label(FLEET) == Some(task.fleet.as_str());
    if ours && label(APP) != Some(task.app.as_str()) { Held::ForNow } else { Held::ForGood }
}

/// What is in a namespace by itself, goes now, or belongs to something that is
/// looked at, too: gone, that takes it along.
fn is_incidental(kind: &Kind, meta: &Meta, going: &BTreeSet<&str>, resources: &Resources) -> bool {
    let by_itself = matches!(
        (kind.group.as_str(), kind.kind.as_str(), meta.name.as_str()),
        ("", "ServiceAccount", "default") | ("", "ConfigMap", "kube-root-ca.crt")
    ) || matches!(kind.kind.as_str(), "Event" | "Endpoints" | "EndpointSlice" | "Lease" | "PodMetrics")
        || (kind.is("", "Secret") && meta.annotations.contains_key("kubernetes.io/service-account.name"));
    // One of a kind that is not listed here may well stay, and this with it.
    let is_seen = |owner: &Owned| {
        going.contains(owner.uid.as_str())
            || resources.resource(&owner.kind, None).is_some_and(|it| it.namespaced && it.listable)
    };
    let belongs = !meta.owners.is_empty() && meta.owners.iter().all(is_seen);
    going.contains(meta.uid.as_str()) || by_itself || belongs || meta.is_deleting
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleet::kubernetes::Kind;

    use super::super::api::{Meta, Owned, Resource, Resources};
    use super::is_incidental;

    fn kind(text: &str) -> Kind {
        text.parse().unwrap()
    }

    fn resource(text: &str, namespaced: bool) -> Resource {
        let kind = kind(text);
        let api_version = if kind.group.is_empty() { "v1".to_owned() } else { format!("{}/v1", kind.group) };
        Resource { kind, api_version, plural: "things".to_owned(), namespaced, listable: true }
    }

    #[test]
    fn what_a_namespace_may_hold_when_it_goes() {
        let known = [("Pod", true), ("ReplicaSet.apps", true), ("Node", false)];
        let resources: Resources = known.map(|(kind, namespaced)| resource(kind, namespaced)).into_iter().collect();
        let going: BTreeSet<&str> = ["going"].into();
        let ours =
            [("app.kubernetes.io/managed-by", "burgee"), ("burgee.dev/fleet", "retail"), ("burgee.dev/app", "pos")];
        let labels = || ours.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let meta = |uid: &str, name: &str| Meta { uid: uid.to_owned(), name: name.to_owned(), ..Meta::default() };
        let owned = |owners: &[(&str, &str)]| Meta {
            owners: owners
                .iter()
                .map(|(of, uid)| Owned { kind: kind(of), name: "o".to_owned(), uid: (*uid).to_owned() })
                .collect(),
            ..meta("u", "a")
        };
        let service_account = ("kubernetes.io/service-account.name".to_owned(), "default".to_owned());
        let cases = [
            ("what goes now", "ConfigMap", meta("going", "a"), true),
            (
                "ours that stays: kept, or marked",
                "PersistentVolumeClaim",
                Meta { labels: labels(), ..meta("u", "a") },
                false,
            ),
            ("somebody's", "ConfigMap", meta("u", "a"), false),
            ("what every namespace has", "ConfigMap", meta("u", "kube-root-ca.crt"), true),
            ("what every namespace has", "ServiceAccount", meta("u", "default"), true),
            ("a token", "Secret", Meta { annotations: [service_account].into(), ..meta("u", "a") }, true),
            ("an event", "Event.events.k8s.io", meta("u", "a"), true),
            ("on its way out", "Pod", Meta { is_deleting: true, ..meta("u", "a") }, true),
            ("of what is listed here", "Pod", owned(&[("ReplicaSet.apps", "r")]), true),
            ("of a kind that came later", "Pod", owned(&[("Cluster.postgresql.cnpg.io", "c")]), false),
            (
                "of what is listed, and of what is not",
                "Pod",
                owned(&[("ReplicaSet.apps", "r"), ("Other.io", "c")]),
                false,
            ),
            ("of what is in no namespace", "Pod", owned(&[("Node", "n")]), false),
            ("of what is in no namespace and goes", "Pod", owned(&[("Node", "going")]), true),
        ];
        for (name, of, meta, want) in cases {
            assert_eq!(is_incidental(&kind(of), &meta, &going, &resources), want, "{name}: {of}");
        }
    }
}
