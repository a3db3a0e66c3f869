//! An object's metadata, as much of it as the agent remembers of each object.

use std::collections::BTreeMap;

use fleet::kubernetes::Kind;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

/// The field manager by which the agent applies.
pub const MANAGER: &str = "burgee";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    pub name: String,
    pub namespace: Option<String>,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    /// Without `last-applied-configuration`, which is a second copy of the object.
    pub annotations: BTreeMap<String, String>,
    /// Kind and name of the object that controls this one.
    pub controller: Option<String>,
    /// Every object that this one belongs to: when all are gone, so is this.
    pub owners: Vec<Owned>,
    pub is_deleting: bool,
    /// Somebody has something to finish before it can be gone.
    pub has_finalizers: bool,
    /// Over the fields that the agent applied and still owns. Another manager
    /// that changes the value of one takes it away, which shows here.
    pub print: Option<[u8; 16]>,
    /// The other managers, newest last.
    pub managers: Vec<String>,
}

/// An object that another one belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owned {
    pub kind: Kind,
    pub name: String,
    pub uid: String,
}

#[derive(Deserialize)]
struct Carrier<'a> {
    #[serde(borrow)]
    metadata: Wire<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<Owner>>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
    #[serde(default)]
    finalizers: Option<Vec<String>>,
    #[serde(default, borrow)]
    managed_fields: Option<Vec<Fields<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owner {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    controller: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields<'a> {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    subresource: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default, rename = "fieldsV1", borrow)]
    fields: Option<&'a RawValue>,
}

impl Meta {
    /// Of an object, or of its `PartialObjectMetadata`, as JSON text.
    ///
    /// # Errors
    /// When it has no metadata.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        let Carrier { metadata } = serde_json::from_str(text)?;
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        let owners = metadata.owner_references.unwrap_or_default();
        let controller = owners
            .iter()
            .find(|owner| owner.controller == Some(true))
            .or(owners.first())
            .map(|owner| format!("{} {}", owner.kind, owner.name));
        let owned =
            |owner: Owner| Owned { kind: Kind::of(&owner.api_version, &owner.kind), name: owner.name, uid: owner.uid };
        let owners = owners.into_iter().map(owned).collect();
        let mut print = None;
        let mut managers: Vec<(Option<String>, String)> = Vec::new();
        for entry in metadata.managed_fields.unwrap_or_default() {
            if entry.manager == MANAGER && entry.operation == "Apply" && entry.subresource.is_none() {
                print = entry.fields.map(|fields| fingerprint(fields.get()));
            } else if entry.subresource.is_none() {
                managers.push((entry.time, entry.manager));
            }
        }
        managers.sort();
        Ok(Self {
            name: metadata.name,
            namespace: metadata.namespace.filter(|namespace| !namespace.is_empty()),
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            labels: metadata.labels.unwrap_or_default(),
            annotations,
            controller,
            owners,
            is_deleting: metadata.deletion_timestamp.is_some(),
            has_finalizers: metadata.finalizers.is_some_and(|all| !all.is_empty()),
            print,
            managers: managers.into_iter().map(|(_, manager)| manager).collect(),
        })
    }

    /// Of an object that was read already.
    ///
    /// # Errors
    /// When it has no metadata.
    pub fn of(object: &serde_json::Value) -> Result<Self, serde_json::Error> {
        Self::read(&object.to_string())
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<RawValue>::deserialize(deserializer)?;
        Self::read(text.get()).map_err(serde::de::Error::custom)
    }
}

/// In an order of our own: the server's differs from answer to answer.
fn fingerprint(fields: &str) -> [u8; 16] {
    let sorted = serde_json::from_str::<serde_json::Value>(fields).map(|fields| fields.to_string());
    let whole = Sha256::digest(sorted.as_deref().unwrap_or(fields).as_bytes());
    let mut print = [0; 16];
    print.copy_from_slice(&whole[..16]);
    print
}

#[cfg(test)]
mod tests {
    use super::Meta;

    const OBJECT: &str = r#"{"kind":"ConfigMap","metadata":{"name":"a","namespace":"b","uid":"u","resourceVersion":"7",
        "labels":{"x":"y"},"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{}","k":"v"},
        "ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"r","uid":"s","controller":true}],
        "managedFields":[
          {"manager":"kubectl","operation":"Update","time":"2026-01-02T00:00:00Z","fieldsV1":{"f:a":{}}},
          {"manager":"helm","operation":"Update","time":"2026-01-01T00:00:00Z"},
          {"manager":"kubelet","operation":"Update","subresource":"status"},
          {"manager":"burgee","operation":"Apply","fieldsV1":{"f:data":{"f:x":{}}}}]},"data":{"x":"1"}}"#;

    #[test]
    fn what_is_remembered() {
        let meta = Meta::read(OBJECT).unwrap();
        assert_eq!((meta.name.as_str(), meta.namespace.as_deref()), ("a", Some("b")));
        assert_eq!(meta.controller.as_deref(), Some("ReplicaSet r"));
        assert_eq!((meta.owners[0].kind.to_string().as_str(), meta.owners[0].uid.as_str()), ("ReplicaSet.apps", "s"));
        assert_eq!(meta.managers, ["helm", "kubectl"]);
        assert_eq!(meta.annotations.len(), 1);
        assert!(meta.print.is_some() && !meta.is_deleting);
        // The same fields, written by us.
        let again: serde_json::Value = serde_json::from_str(OBJECT).unwrap();
        assert_eq!(Meta::of(&again).unwrap().print, meta.print);
        let other = OBJECT.replace("f:x", "f:y");
        assert_ne!(Meta::read(&other).unwrap().print, meta.print);
        let listed: Vec<Meta> = serde_json::from_str(&format!("[{OBJECT}]")).unwrap();
        assert_eq!(listed, [meta]);
        assert!(Meta::read("{}").is_err());
    }
}
