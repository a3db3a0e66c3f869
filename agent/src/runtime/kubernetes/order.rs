//! The order in which objects are applied, and that of their removal.

use fleet::kubernetes::Kind;

/// Kinds that have a place, as Helm and kustomize have it: what others need
/// comes first, within that what belongs to no namespace. Admission comes
/// last: it must not refuse what it comes with while what answers for it is
/// not running.
const PLACES: &[(&str, &str)] = &[
    // Both are waited for before anything else is applied.
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("", "Namespace"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("storage.k8s.io", "StorageClass"),
    ("networking.k8s.io", "IngressClass"),
    ("", "PersistentVolume"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("", "ResourceQuota"),
    ("", "LimitRange"),
    ("policy", "PodDisruptionBudget"),
    ("", "ServiceAccount"),
    ("", "Secret"),
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("", "Service"),
    ("", "Endpoints"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("apps", "DaemonSet"),
    ("", "Pod"),
    ("", "ReplicationController"),
    ("apps", "ReplicaSet"),
    ("apps", "Deployment"),
    ("autoscaling", "HorizontalPodAutoscaler"),
    ("apps", "StatefulSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("networking.k8s.io", "Ingress"),
    ("apiregistration.k8s.io", "APIService"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
];

/// The rank of what has no place: custom resources. They come after all
/// else, so that on removal their operator still runs and can finish them.
const OTHERS: u16 = 1000;

/// Objects of a lower rank are applied first.
#[must_use]
pub(super) fn rank(kind: &Kind, namespaced: bool) -> u16 {
    let place = PLACES.iter().position(|(group, name)| kind.is(group, name));
    match place.and_then(|place| u16::try_from(place).ok()) {
        Some(place) => place,
        None if namespaced => OTHERS + 1,
        None => OTHERS,
    }
}

/// A kind that has no place: custom, as a rule.
pub(super) fn is_custom(kind: &Kind) -> bool {
    rank(kind, true) > OTHERS
}

/// Objects of a lower rank are removed first: [`rank`] in reverse.
#[must_use]
pub(super) fn removal_rank(kind: &Kind, namespaced: bool) -> u16 {
    u16::MAX - rank(kind, namespaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_need_comes_first() {
        let order = [
            ("CustomResourceDefinition.apiextensions.k8s.io", false),
            ("Namespace", false),
            ("StorageClass.storage.k8s.io", false),
            ("PersistentVolume", false),
            ("ClusterRole.rbac.authorization.k8s.io", false),
            ("ClusterRoleBinding.rbac.authorization.k8s.io", false),
            ("ResourceQuota", true),
            ("LimitRange", true),
            ("ServiceAccount", true),
            ("Secret", true),
            ("ConfigMap", true),
            ("PersistentVolumeClaim", true),
            ("Role.rbac.authorization.k8s.io", true),
            ("RoleBinding.rbac.authorization.k8s.io", true),
            ("Service", true),
            ("DaemonSet.apps", true),
            ("Pod", true),
            ("Deployment.apps", true),
            ("HorizontalPodAutoscaler.autoscaling", true),
            ("StatefulSet.apps", true),
            ("Job.batch", true),
            ("CronJob.batch", true),
            ("Ingress.networking.k8s.io", true),
            ("APIService.apiregistration.k8s.io", false),
            ("ValidatingWebhookConfiguration.admissionregistration.k8s.io", false),
            ("ClusterIssuer.cert-manager.io", false),
            ("Certificate.cert-manager.io", true),
        ]
        .map(|(kind, namespaced)| (kind.parse::<Kind>().unwrap(), namespaced));
        for pair in order.windows(2) {
            let [(a, a_in), (b, b_in)] = pair else { unreachable!("pairs") };
            assert!(rank(a, *a_in) < rank(b, *b_in), "{a} before {b}");
            assert!(removal_rank(a, *a_in) > removal_rank(b, *b_in), "{b} is removed before {a}");
        }
    }

    #[test]
    fn the_group_counts() {
        let knative: Kind = "Service.serving.knative.dev".parse().unwrap();
        assert_eq!(rank(&knative, true), OTHERS + 1);
    }

    #[test]
    fn every_kind_has_one_place() {
        for (place, kind) in PLACES.iter().enumerate() {
            assert_eq!(PLACES.iter().position(|other| other == kind), Some(place), "{kind:?}");
        }
    }
}
