//! What kinds of objects the server knows, and where they are found.

use std::collections::BTreeMap;

use fleet::kubernetes::Kind;
use serde::Deserialize;

use super::error::ApiError;
use super::{Api, Request};

/// The aggregated form: two requests for everything.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
    application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// One kind in one version, as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    pub kind: Kind,
    /// `apps/v1`, `v1`.
    pub api_version: String,
    /// `deployments`.
    pub plural: String,
    pub namespaced: bool,
    pub listable: bool,
}

impl Resource {
    /// Where the objects are found, or one of them.
    #[must_use]
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let mut path = format!("{root}/{}", self.api_version);
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            // RBAC's names may hold colons, which a path may, too; nothing else needs care.
            path.push_str(&name.replace('%', "%25"));
        }
        path
    }
}

/// Everything that the server knows.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// In the server's order of preference.
    by_kind: BTreeMap<Kind, Vec<Resource>>,
    /// Group versions whose own server did not answer: what they have is not known.
    stale: Vec<String>,
}

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
    /// Of a server that does not know the aggregated form.
    #[serde(default)]
    groups: Vec<OldGroup>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Found>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct OldGroup {
    versions: Vec<OldVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OldVersion {
    group_version: String,
}

#[derive(Deserialize)]
struct OldList {
    #[serde(default)]
    resources: Vec<OldResource>,
}

#[derive(Deserialize)]
struct OldResource {
    name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

impl Resources {
    pub(super) async fn discover(api: &Api) -> Result<Self, ApiError> {
        let mut resources = Self::default();
        for root in ["/api", "/apis"] {
            let list: GroupList = api.json(Request { accept: AGGREGATED, ..Request::get(root) }).await?;
            if list.items.is_empty() {
                resources.ask_each(api, root, list.groups).await?;
            } else {
                list.items.into_iter().for_each(|group| resources.add(group));
            }
        }
        Ok(resources)
    }

    /// As older servers tell it: a request for each version of each group.
    async fn ask_each(&mut self, api: &Api, root: &str, groups: Vec<OldGroup>) -> Result<(), ApiError> {
        let versions: Vec<String> = if root == "/api" {
            vec!["v1".to_owned()]
        } else {
            groups.into_iter().flat_map(|group| group.versions).map(|version| version.group_version).collect()
        };
        for version in versions {
            match api.json::<OldList>(Request::get(&format!("{root}/{version}"))).await {
                Ok(list) => list.resources.into_iter().for_each(|found| self.add_old(&version, found)),
                Err(error @ (ApiError::Unreachable { .. } | ApiError::Settings { .. })) => return Err(error),
                // One group's own server is down: what it has is not known, the others are.
                Err(error) => {
                    tracing::debug!(version, %error, "a group of the API is not known");
                    self.stale.push(version);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, group: Group) {
        for version in group.versions {
            let name = &group.metadata.name;
            let api_version = if name.is_empty() { version.version } else { format!("{name}/{}", version.version) };
            if version.freshness == "Stale" {
                self.stale.push(api_version.clone());
            }
            for found in version.resources {
                let Some(kind) = found.response_kind.map(|response| response.kind) else { continue };
                self.insert(Resource {
                    kind: Kind::of(&api_version, &kind),
                    api_version: api_version.clone(),
                    plural: found.resource,
                    namespaced: found.scope == "Namespaced",
                    listable: found.verbs.iter().any(|verb| verb == "list"),
                });
            }
        }
    }

    fn add_old(&mut self, api_version: &str, found: OldResource) {
        // `pods/log` and the like are no objects.
        if found.name.contains('/') {
            return;
        }
        self.insert(Resource {
            kind: Kind::of(api_version, &found.kind),
            api_version: api_version.to_owned(),
            plural: found.name,
            namespaced: found.namespaced,
            listable: found.verbs.iter().any(|verb| verb == "list"),
        });
    }

    fn insert(&mut self, resource: Resource) {
        self.by_kind.entry(resource.kind.clone()).or_default().push(resource);
    }

    /// A kind in the version that is asked for, else in the preferred one.
    #[must_use]
    pub fn resource(&self, kind: &Kind, api_version: Option<&str>) -> Option<&Resource> {
        let versions = self.by_kind.get(kind)?;
        match api_version {
            Some(version) => versions.iter().find(|resource| resource.api_version == version),
            None => versions.first(),
        }
    }

    /// The versions in which the server has a kind.
    #[must_use]
    pub fn versions(&self, kind: &Kind) -> Vec<&str> {
        self.by_kind.get(kind).into_iter().flatten().map(|resource| resource.api_version.as_str()).collect()
    }

    /// Whether what this group has could not be learned.
    #[must_use]
    pub fn is_stale(&self, api_version: &str) -> bool {
        self.stale.iter().any(|version| version == api_version)
    }

    /// Whether what any version of this group has could not be learned.
    #[must_use]
    pub fn is_group_stale(&self, group: &str) -> bool {
        self.stale.iter().any(|version| version.rsplit_once('/').map_or("", |(of, _)| of) == group)
    }

    /// Every kind whose objects lie in namespaces and can be listed, in its
    /// preferred version.
    pub fn namespaced(&self) -> impl Iterator<Item = &Resource> {
        self.by_kind.values().filter_map(|versions| versions.first()).filter(|it| it.namespaced && it.listable)
    }

    /// Whether a group of the API could not be asked.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.stale.is_empty()
    }
}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(all: I) -> Self {
        let mut resources = Self::default();
        all.into_iter().for_each(|resource| resources.insert(resource));
        resources
    }
}

#[cfg(test)]
mod tests {
    use fleet::kubernetes::Kind;

    use super::{GroupList, OldResource, Resource, Resources};

    const AGGREGATED: &str = r#"{"kind":"APIGroupDiscoveryList","items":[
        {"metadata":{"name":"apps"},"versions":[{"version":"v1","freshness":"Current","resources":[
            {"resource":"deployments","responseKind":{"group":"","version":"","kind":"Deployment"},"scope":"Namespaced","verbs":["list","get"]}]}]},
        {"metadata":{},"versions":[{"version":"v1","resources":[
            {"resource":"namespaces","responseKind":{"kind":"Namespace"},"scope":"Cluster","verbs":["list"]}]}]},
        {"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1beta1","freshness":"Stale"}]}]}"#;

    #[test]
    fn both_forms_are_read() {
        let list: GroupList = serde_json::from_str(AGGREGATED).unwrap();
        let mut resources = Resources::default();
        list.items.into_iter().for_each(|group| resources.add(group));
        let deployment = resources.resource(&Kind::of("apps/v1", "Deployment"), Some("apps/v1")).unwrap();
        assert!(deployment.namespaced && deployment.listable);
        assert_eq!(deployment.path(Some("shop"), Some("web")), "/apis/apps/v1/namespaces/shop/deployments/web");
        let namespace = resources.resource(&Kind::of("v1", "Namespace"), None).unwrap();
        assert_eq!(namespace.path(Some("ignored"), Some("shop")), "/api/v1/namespaces/shop");
        assert!(resources.is_stale("metrics.k8s.io/v1beta1") && resources.is_partial());
        assert!(resources.is_group_stale("metrics.k8s.io") && !resources.is_group_stale("apps"));
        assert!(resources.resource(&Kind::of("apps/v1", "Deployment"), Some("apps/v2")).is_none());

        let old = |name: &str| OldResource { name: name.into(), kind: "Pod".into(), namespaced: true, verbs: vec![] };
        let mut resources = Resources::default();
        resources.add_old("v1", old("pods"));
        resources.add_old("v1", old("pods/log"));
        let pods: Vec<&Resource> = resources.by_kind.values().flatten().collect();
        assert_eq!(pods.len(), 1);
    }
}
