//! In which order kinds are applied; they are deleted in the reverse one.

use fleet::kubernetes::Kind;

/// Built-in kinds, in the order in which each needs those before it.
const KINDS: [(&str, &str); 34] = [
    ("apiextensions.k8s.io", "CustomResourceDefinition"),
    ("", "Namespace"),
    ("scheduling.k8s.io", "PriorityClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("storage.k8s.io", "StorageClass"),
    ("storage.k8s.io", "CSIDriver"),
    ("networking.k8s.io", "IngressClass"),
    ("rbac.authorization.k8s.io", "ClusterRole"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    ("", "PersistentVolume"),
    ("", "ResourceQuota"),
    ("", "LimitRange"),
    ("networking.k8s.io", "NetworkPolicy"),
    ("", "ServiceAccount"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("", "Secret"),
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("", "Service"),
    ("", "Endpoints"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("policy", "PodDisruptionBudget"),
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
];

/// Where a kind stands. What is not built in comes after what is, and what
/// judges others (webhooks) last of all.
pub(super) fn rank(kind: &Kind, namespaced: bool) -> u16 {
    let place = KINDS.iter().position(|(group, name)| kind.is(group, name)).and_then(|at| u16::try_from(at).ok());
    match place {
        Some(place) => place,
        None if kind.group == "admissionregistration.k8s.io" => 300,
        // A resource of somebody's own definition: those of the cluster before.
        None if namespaced => 200,
        None => 100,
    }
}

#[cfg(test)]
mod tests {
    use fleet::kubernetes::Kind;

    use super::rank;

    #[test]
    fn what_others_need_comes_first() {
        let order = [
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition", false),
            ("v1", "Namespace", false),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", false),
            ("v1", "ServiceAccount", true),
            ("v1", "ConfigMap", true),
            ("v1", "Service", true),
            ("apps/v1", "Deployment", true),
            ("batch/v1", "Job", true),
            ("networking.k8s.io/v1", "Ingress", true),
            ("example.com/v1", "Cluster", false),
            ("example.com/v1", "Widget", true),
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", false),
        ];
        let ranks: Vec<u16> =
            order.iter().map(|(version, kind, in_space)| rank(&Kind::of(version, kind), *in_space)).collect();
        assert!(ranks.is_sorted(), "{ranks:?}");
    }
}
