//! Whose an object is.

use super::api::Meta;

pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(super) const FLEET: &str = "burgee.dev/fleet";
pub(super) const APP: &str = "burgee.dev/app";
/// Over the object as it was applied.
pub(super) const DIGEST: &str = "burgee.dev/digest";
/// `disabled`: it stays when it leaves the desired state.
pub(super) const PRUNE: &str = "burgee.dev/prune";

/// Marks by which other tools claim what they manage.
const CLAIMS: [(&str, &str); 6] = [
    ("meta.helm.sh/release-name", "Helm release"),
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux kustomization"),
    ("helm.toolkit.fluxcd.io/name", "Flux Helm release"),
    ("objectset.rio.cattle.io/owner-name", "k3s add-on"),
];

/// Whose an object is that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// This fleet's; with the app.
    Ours(String),
    /// Somebody's, in words.
    Other(String),
    /// Nobody claims it; who wrote it last, in words.
    Nobody(String),
}

/// By the object's own marks. `made`: burgee made it and applies it; then what
/// it belongs to besides says nothing.
pub(super) fn owner(meta: &Meta, fleet: &str, made: bool) -> Owner {
    if let Some(controller) = meta.controller.as_ref().filter(|_| !made) {
        return Owner::Other(format!("of {controller}"));
    }
    let label = |key: &str| meta.labels.get(key).map(String::as_str);
    match (label(MANAGED_BY), label(FLEET), label(APP)) {
        (Some("burgee"), Some(of), Some(app)) if of == fleet => return Owner::Ours(app.to_owned()),
        (Some("burgee"), Some(of), _) if of != fleet => return Owner::Other(format!("of the fleet {of}")),
        _ => {}
    }
    for (mark, tool) in CLAIMS {
        if let Some(name) = meta.annotations.get(mark).or_else(|| meta.labels.get(mark)) {
            return Owner::Other(format!("of {tool} {name}"));
        }
    }
    if let Some(tool) = label(MANAGED_BY).filter(|tool| *tool != "burgee") {
        return Owner::Other(format!("managed by {tool}"));
    }
    let writer = meta.managers.last().map_or_else(|| "nobody".to_owned(), |manager| format!("written by {manager}"));
    Owner::Nobody(writer)
}

#[cfg(test)]
mod tests {
    use super::super::api::Meta;
    use super::{Owner, owner};

    fn meta(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Meta {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Meta {
            labels: map(labels),
            annotations: map(annotations),
            managers: vec!["kubectl".to_owned()],
            ..Meta::default()
        }
    }

    #[test]
    fn owners() {
        let ours =
            [("app.kubernetes.io/managed-by", "burgee"), ("burgee.dev/fleet", "retail"), ("burgee.dev/app", "pos")];
        let other = |text: &str| Owner::Other(text.to_owned());
        assert_eq!(owner(&meta(&ours, &[]), "retail", false), Owner::Ours("pos".to_owned()));
        assert_eq!(owner(&meta(&ours, &[]), "boats", false), other("of the fleet retail"));
        assert_eq!(
            owner(&meta(&[("app.kubernetes.io/managed-by", "Helm")], &[]), "retail", false),
            other("managed by Helm")
        );
        let helm = meta(&[], &[("meta.helm.sh/release-name", "db")]);
        assert_eq!(owner(&helm, "retail", false), other("of Helm release db"));
        assert_eq!(owner(&meta(&[], &[]), "retail", false), Owner::Nobody("written by kubectl".to_owned()));
        let pod = Meta { controller: Some("ReplicaSet web".to_owned()), ..meta(&ours, &[]) };
        assert_eq!(owner(&pod, "retail", false), other("of ReplicaSet web"));
        assert_eq!(owner(&pod, "retail", true), Owner::Ours("pos".to_owned()));
        let nobody = Owner::Nobody("written by kubectl".to_owned());
        assert_eq!(owner(&meta(&ours[..2], &[]), "retail", false), nobody, "a mark is missing");
        assert_eq!(owner(&meta(&ours[..1], &[]), "retail", true), nobody, "two are");
    }
}
