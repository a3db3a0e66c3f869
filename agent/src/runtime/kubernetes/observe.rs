//! How what an app wants stands against what the server has: complete, or an
//! error.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet::desired::{DesiredApp, KubernetesSpec};
use fleet::kubernetes::{Kind, ObjectId};

use super::api::{Api, Meta, Resource, Resources};
use super::cache::Cache;
use super::execute::Prints;
use super::kustomize::Kustomize;
use super::objects::{self, Claims, Wanted, brings, defined_by, id_of, is_definition, spec_of};
use super::owner::{DIGEST, FLEET, Owner, owner};
use super::plan::Standing;
use crate::ports::Reason as _;
use crate::ports::runtime::{RuntimeError, Task};

/// From so many missing objects of a kind on, the kind is listed instead of
/// asking for each by name.
pub(super) const LISTED: usize = 4;

/// What looks.
pub(super) struct Sight<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) cache: &'a Cache,
    pub(super) prints: &'a Prints,
    pub(super) kustomize: &'a Kustomize,
}

impl Sight<'_> {
    /// Every object that the app wants, in order, and how each stands.
    pub(super) async fn wanted(
        &self,
        task: &Task<'_>,
        app: &DesiredApp,
        spec: &KubernetesSpec,
    ) -> Result<(Vec<Wanted>, Vec<Standing>), RuntimeError> {
        let mut wanted = self.objects(task, app, spec).await?;
        self.follow(task, &wanted).await?;
        let strangers = self.strangers(task, &wanted).await?;
        let mut standing = Vec::with_capacity(wanted.len());
        for it in &wanted {
            standing.push(self.standing(task, spec, it, strangers.get(&it.id)));
        }
        self.verify(task, app, &mut wanted, &mut standing).await?;
        Ok((wanted, standing))
    }

    /// The app's objects with the places where they are found.
    pub(super) async fn objects(
        &self,
        task: &Task<'_>,
        app: &DesiredApp,
        spec: &KubernetesSpec,
    ) -> Result<Vec<Wanted>, RuntimeError> {
        let manifests = objects::manifests(app, spec, task.blobs, self.kustomize).await?;
        let mut resources = self.resources(false).await?;
        let known = |resources: &Resources| {
            manifests.iter().all(|it| resources.resource(&it.kind, Some(&it.api_version)).is_some())
        };
        let mut defined = Vec::new();
        if !known(&resources) {
            resources = self.resources(true).await?;
            if !known(&resources) {
                defined = self.defined(task).await?;
            }
        }
        objects::wanted(task.fleet, app, spec, manifests, &resources, (brings(task.beside, app), &defined))
    }

    pub(super) async fn resources(&self, anew: bool) -> Result<Arc<Resources>, RuntimeError> {
        let found = if anew { self.api.rediscover().await } else { self.api.resources().await };
        found.map_err(|error| error.reading("what the API server knows"))
    }

    /// The kinds that any app of the revision brings.
    async fn defined(&self, task: &Task<'_>) -> Result<Vec<Resource>, RuntimeError> {
        let mut defined = Vec::new();
        for app in task.beside {
            let Some(spec) = spec_of(app) else { continue };
            let manifests = objects::manifests(app, spec, task.blobs, self.kustomize).await?;
            defined.extend(objects::definitions(&manifests));
        }
        Ok(defined)
    }

    /// The kinds whose definition an app of the revision brings or changes: the
    /// server judges their objects by the old one until that is applied.
    pub(super) async fn redefined(&self, task: &Task<'_>) -> Result<BTreeSet<Kind>, RuntimeError> {
        let mut kinds = BTreeSet::new();
        for app in task.beside {
            let Some(spec) = spec_of(app) else { continue };
            let objects = match self.objects(task, app, spec).await {
                Ok(objects) => objects,
                Err(error) if error.is_transient() => return Err(error),
                // What is wrong with another app is said when it is prepared.
                Err(_) => continue,
            };
            for it in objects.iter().filter(|it| is_definition(&it.id.kind)) {
                let live = self.api.get_meta(&it.resource, None, &it.id.name).await;
                let live = live.map_err(|error| error.reading(&it.id.to_string()))?;
                if live.is_none_or(|live| live.annotations.get(DIGEST) != Some(&it.digest)) {
                    kinds.extend(defined_by(&it.object).into_iter().map(|defined| defined.kind));
                }
            }
        }
        Ok(kinds)
    }

    /// Has the kinds of what is wanted and of what is owned at hand.
    async fn follow(&self, task: &Task<'_>, wanted: &[Wanted]) -> Result<(), RuntimeError> {
        let resources = self.resources(false).await?;
        let mut follow: BTreeMap<Kind, Resource> = BTreeMap::new();
        for it in wanted {
            // A kind that is only about to be defined can't be listed yet.
            if resources.resource(&it.id.kind, Some(&it.resource.api_version)).is_some() {
                follow.insert(it.id.kind.clone(), it.resource.clone());
            }
        }
        for kind in task.inventory.keys().filter_map(id_of).map(|id| id.kind) {
            if let Some(resource) = resources.resource(&kind, None) {
                follow.entry(kind).or_insert_with(|| resource.clone());
            }
        }
        self.cache.uses(task.app, follow.keys().cloned().collect());
        let follow: Vec<Resource> = follow.into_values().collect();
        let followed = self.cache.follow(self.api, task.fleet, &follow).await;
        followed.map_err(|error| error.reading("the objects of this fleet"))
    }

    /// What bears the name of a wanted object and not our marks.
    async fn strangers(&self, task: &Task<'_>, wanted: &[Wanted]) -> Result<BTreeMap<ObjectId, Meta>, RuntimeError> {
        // Those with the mark are known: a thousand of them are not listed for each app.
        let selector = format!("{FLEET}!={}", task.fleet);
        let resources = self.resources(false).await?;
        let mut missing: BTreeMap<(&Kind, Option<&str>), Vec<&Wanted>> = BTreeMap::new();
        for it in wanted.iter().filter(|it| self.cache.get(&it.id).is_none()) {
            if resources.resource(&it.id.kind, Some(&it.resource.api_version)).is_some() {
                missing.entry((&it.id.kind, it.id.namespace.as_deref())).or_default().push(it);
            }
        }
        let mut found = BTreeMap::new();
        for ((kind, namespace), several) in missing {
            if several.len() >= LISTED {
                let list = self.api.list_meta(&several[0].resource, namespace, &selector).await;
                let (metas, _) = list.map_err(|error| error.reading(&format!("the list of {kind}")))?;
                for meta in metas {
                    let id =
                        ObjectId { kind: kind.clone(), namespace: meta.namespace.clone(), name: meta.name.clone() };
                    if several.iter().any(|it| it.id == id) {
                        found.insert(id, meta);
                    }
                }
                continue;
            }
            for it in several {
                let meta = self.api.get_meta(&it.resource, namespace, &it.id.name).await;
                if let Some(meta) = meta.map_err(|error| error.reading(&it.id.to_string()))? {
                    found.insert(it.id.clone(), meta);
                }
            }
        }
        Ok(found)
    }

    fn standing(&self, task: &Task<'_>, spec: &KubernetesSpec, it: &Wanted, stranger: Option<&Meta>) -> Standing {
        let owned = task.inventory.contains_key(&objects::named(&it.id));
        let Some(meta) = self.cache.get(&it.id).or_else(|| stranger.cloned()) else { return Standing::Missing };
        if meta.is_deleting {
            return Standing::Leaving(meta);
        }
        let made = owned && meta.print.is_some();
        match owner(&meta, task.fleet.as_str(), made) {
            Owner::Ours(app) if app == task.app.as_str() => {}
            // Another app of this fleet had it: handed over.
            Owner::Ours(app) => return Standing::Differs(meta, format!("handed over by app {app}")),
            // We applied it once; somebody took our marks away.
            Owner::Nobody(_) if made => return Standing::Differs(meta, "its labels".to_owned()),
            // What is asked for is that it is there.
            Owner::Nobody(_) | Owner::Other(_) if it.brought => return Standing::Theirs,
            Owner::Nobody(_) if spec.adopt => return Standing::Adopted(meta),
            Owner::Nobody(words) | Owner::Other(words) => return Standing::Foreign(words),
        }
        if meta.annotations.get(DIGEST) != Some(&it.digest) {
            return Standing::Differs(meta, "its manifest".to_owned());
        }
        if self.prints.holds(&it.id, &meta) { Standing::Same } else { Standing::Differs(meta, String::new()) }
    }

    /// What the app owns, no longer wants, and is still there.
    pub(super) async fn left(
        &self,
        task: &Task<'_>,
        wanted: &[Wanted],
    ) -> Result<BTreeMap<ObjectId, (Resource, Meta)>, RuntimeError> {
        let kept: BTreeSet<&ObjectId> = wanted.iter().map(|it| &it.id).collect();
        let gone: Vec<ObjectId> = task.inventory.keys().filter_map(id_of).filter(|id| !kept.contains(id)).collect();
        let mut left = BTreeMap::new();
        if gone.is_empty() {
            return Ok(left);
        }
        if wanted.is_empty() {
            self.follow(task, wanted).await?;
        }
        let mut resources = self.resources(false).await?;
        if gone.iter().any(|id| resources.resource(&id.kind, None).is_none()) {
            resources = self.resources(true).await?;
        }
        for id in gone {
            // A kind that is no longer served has no objects; one whose server is away may have.
            let Some(resource) = resources.resource(&id.kind, None) else {
                if resources.is_group_stale(&id.kind.group) {
                    return Err(RuntimeError::Observe {
                        what: id.to_string(),
                        source: "a service behind the API does not answer".into(),
                    });
                }
                continue;
            };
            // Nothing is deleted on a listing's word: each is asked for by name.
            let meta = self.api.get_meta(resource, id.namespace.as_deref(), &id.name).await;
            if let Some(meta) = meta.map_err(|error| error.reading(&id.to_string()))? {
                left.insert(id, (resource.clone(), meta));
            }
        }
        Ok(left)
    }

    /// What the other apps of the revision want.
    pub(super) async fn claims(&self, task: &Task<'_>) -> Result<Claims, RuntimeError> {
        let mut claims = Claims::new();
        for app in task.beside.iter().filter(|app| app.name != *task.app) {
            let Some(spec) = spec_of(app) else { continue };
            let theirs = match self.objects(task, app, spec).await {
                Ok(theirs) => theirs.into_iter().map(|it| it.id).collect(),
                Err(error) if error.is_transient() => return Err(error),
                // The server does not know all of it (any more): no fault of this
                // app, and what it may be is spared.
                Err(_) => {
                    let manifests = objects::manifests(app, spec, task.blobs, self.kustomize).await?;
                    objects::possible(spec, manifests, brings(task.beside, app))
                }
            };
            claims.extend(theirs.into_iter().map(|id| (id, app.name.clone())));
        }
        Ok(claims)
    }
}
