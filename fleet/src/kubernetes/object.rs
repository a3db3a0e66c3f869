//! What an object is called, and one object of a manifest.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::names::is_built_in;

/// A kind within its API group; the version is no part of an object's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// `apps`; empty for the core group.
    pub group: String,
    /// `Deployment`.
    pub kind: String,
}

impl Kind {
    /// The kind that `apiVersion` and `kind` of a manifest name.
    #[must_use]
    pub fn of(api_version: &str, kind: &str) -> Self {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        Self { group: group.to_owned(), kind: kind.to_owned() }
    }

    /// Whether it is this one of the core group (`group` empty) or another.
    #[must_use]
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

/// `Deployment.apps`, `ConfigMap`: as `kubectl` takes it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

impl FromStr for Kind {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, group) = text.split_once('.').unwrap_or((text, ""));
        if kind.is_empty() {
            return Err("a kind is written Kind or Kind.group");
        }
        Ok(Self { group: group.to_owned(), kind: kind.to_owned() })
    }
}

/// Names one object on a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// Kind and group.
    pub kind: Kind,
    /// `None`: cluster-scoped.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
}

/// `Deployment.apps/shop/web` in a namespace, `Namespace/shop` without one.
impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl FromStr for ObjectId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, name) = text.split_once('/').ok_or("an object is written Kind.group/namespace/name")?;
        let (namespace, name) = name.split_once('/').map_or((None, name), |(at, name)| (Some(at.to_owned()), name));
        // Without a name, the path of an object is that of all of them.
        if name.is_empty() || namespace.as_deref() == Some("") {
            return Err("an object has a name, and its namespace has one");
        }
        Ok(Self { kind: kind.parse()?, namespace, name: name.to_owned() })
    }
}

/// Built-in kinds whose objects lie in no namespace, by group.
const CLUSTER_WIDE: [(&str, &[&str]); 14] = [
    ("", &["Namespace", "Node", "PersistentVolume"]),
    (
        "admissionregistration.k8s.io",
        &[
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyBinding",
            "MutatingWebhookConfiguration",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingWebhookConfiguration",
        ],
    ),
    ("apiextensions.k8s.io", &["CustomResourceDefinition"]),
    ("apiregistration.k8s.io", &["APIService"]),
    ("certificates.k8s.io", &["CertificateSigningRequest", "ClusterTrustBundle"]),
    ("flowcontrol.apiserver.k8s.io", &["FlowSchema", "PriorityLevelConfiguration"]),
    ("internal.apiserver.k8s.io", &["StorageVersion"]),
    ("networking.k8s.io", &["IngressClass", "IPAddress", "ServiceCIDR"]),
    ("node.k8s.io", &["RuntimeClass"]),
    ("rbac.authorization.k8s.io", &["ClusterRole", "ClusterRoleBinding"]),
    ("resource.k8s.io", &["DeviceClass", "DeviceTaintRule", "ResourceSlice"]),
    ("scheduling.k8s.io", &["PriorityClass"]),
    ("storage.k8s.io", &["CSIDriver", "CSINode", "StorageClass", "VolumeAttachment", "VolumeAttributesClass"]),
    ("storagemigration.k8s.io", &["StorageVersionMigration"]),
];

/// Whether a built-in kind's objects lie in no namespace. Of other kinds only a
/// server knows.
#[must_use]
pub fn is_cluster_wide(kind: &Kind) -> bool {
    CLUSTER_WIDE.iter().any(|(group, kinds)| kind.group == *group && kinds.contains(&kind.kind.as_str()))
}

/// One object as a manifest has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `apps/v1`.
    pub api_version: String,
    /// Kind and group.
    pub kind: Kind,
    /// `metadata.namespace`, where the manifest names one.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: String,
    /// The whole object.
    pub object: Value,
    /// The file, below `kubernetes/`.
    pub path: String,
    /// The line at which its document starts, from 1.
    pub line: u32,
}

impl Manifest {
    /// What the object is called on a server, with the app's namespace where it
    /// names none. Of other kinds than Kubernetes' own only a server knows
    /// whether they have one: they count as having it.
    #[must_use]
    pub fn id(&self, namespace: Option<&str>) -> ObjectId {
        let fallback = is_built_in(&self.kind.group).then_some("default");
        let namespace = self.namespace.as_deref().or(namespace).or(fallback).filter(|_| !is_cluster_wide(&self.kind));
        ObjectId { kind: self.kind.clone(), namespace: namespace.map(str::to_owned), name: self.name.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, ObjectId};

    #[test]
    fn names_are_read_as_they_are_written() {
        for text in ["Deployment.apps/shop/web", "Namespace/shop", "Ingress.networking.k8s.io/a/b"] {
            let id: ObjectId = text.parse().unwrap();
            assert_eq!(id.to_string(), text);
        }
        assert!(Kind::of("apps/v1", "Deployment").is("apps", "Deployment"));
        assert!(Kind::of("v1", "Secret").is("", "Secret"));
        for wrong in ["", "web", "/x", "ConfigMap/", "ConfigMap/shop/", "ConfigMap//a"] {
            assert!(wrong.parse::<ObjectId>().is_err(), "{wrong:?}");
        }
    }
}
