//! What an object may be called. Kubernetes' own kinds have rules that are
//! known without a server; for all others a name only has to fit into a URL.

use super::object::Kind;

/// Kubernetes' own API groups that have a dot in their names.
const GROUPS: [&str; 17] = [
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];
const RBAC: &str = "rbac.authorization.k8s.io";

/// Whether a group is Kubernetes' own. One without a dot always is: no
/// definition can have it.
#[must_use]
pub(crate) fn is_built_in(group: &str) -> bool {
    !group.contains('.') || group == RBAC || GROUPS.contains(&group)
}

/// What is wrong with a name of an object of this kind.
pub(crate) fn wrong(kind: &Kind, name: &str) -> Option<String> {
    let wanted = if kind.is("", "Namespace") || kind.is("", "Service") {
        wrong_label(name)
    } else if kind.group == RBAC || kind.is("networking.k8s.io", "IPAddress") || !is_built_in(&kind.group) {
        wrong_segment(name)
    } else {
        wrong_subdomain(name)
    }?;
    Some(format!("`{name}` is no name of a {}, expected {wanted}", kind.kind))
}

/// A DNS label: a namespace, a Service. `Some` says what was expected.
pub(crate) fn wrong_label(name: &str) -> Option<&'static str> {
    let right = name.len() <= 63 && is_part(name);
    (!right).then_some("1 to 63 characters of a-z, 0-9 and '-', no '-' first or last")
}

/// Parts like labels, with dots between them.
pub(crate) fn wrong_subdomain(name: &str) -> Option<&'static str> {
    let right = name.len() <= 253 && name.split('.').all(is_part);
    (!right).then_some("1 to 253 characters of a-z, 0-9, '-' and '.', a letter or digit first and last")
}

fn wrong_segment(name: &str) -> Option<&'static str> {
    let right = name.len() <= 253
        && !matches!(name, "." | "..")
        && !name.contains(|c: char| matches!(c, '/' | '%') || c.is_whitespace() || c.is_control());
    (!right).then_some("up to 253 characters, without '/', '%' and spaces")
}

fn is_part(part: &str) -> bool {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || c == '-')
}

#[cfg(test)]
mod tests {
    use super::wrong;
    use crate::kubernetes::Kind;

    #[test]
    fn each_kind_has_its_rule() {
        let cases = [
            ("v1", "ConfigMap", "kube-root-ca.crt", true),
            ("v1", "ConfigMap", "a_b", false),
            ("v1", "ConfigMap", "a..b", false),
            ("v1", "Service", "a.b", false),
            ("v1", "Namespace", "a-1", true),
            ("apps/v1", "Deployment", "Web", false),
            ("apps/v1", "Deployment", "-web", false),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "system:node", true),
            ("rbac.authorization.k8s.io/v1", "ClusterRole", "a/b", false),
            ("example.com/v1", "Thing", "A_b:c", true),
            ("example.com/v1", "Thing", "..", false),
        ];
        for (api, kind, name, good) in cases {
            assert_eq!(wrong(&Kind::of(api, kind), name).is_none(), good, "{kind} {name}");
        }
        assert!(wrong(&Kind::of("v1", "Service"), &"a".repeat(64)).is_some());
    }
}
