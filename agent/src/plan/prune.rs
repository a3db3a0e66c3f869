//! The guard on deletions (promise 6): how many of an app's objects one plan
//! may delete.

use fleet::desired::{Limit, PrunePolicy};

/// Whether `deletions` are within the policy, for an app that owned `owned`
/// objects before the plan. A share is rounded down, but one object may always
/// go: else an app of one object could never lose it.
#[must_use]
pub fn within(policy: &PrunePolicy, deletions: usize, owned: usize) -> bool {
    let most = match policy.max_delete {
        Limit::Count(count) => count as usize,
        Limit::Percent(100..) => owned,
        Limit::Percent(0) => 0,
        Limit::Percent(share) => (owned * usize::from(share) / 100).max(1),
    };
    deletions <= most
}

#[cfg(test)]
mod tests {
    use fleet::desired::{Limit, PrunePolicy};

    use super::within;

    #[test]
    fn limits() {
        let cases = [
            (Limit::Percent(50), 5, 10, true),
            (Limit::Percent(50), 6, 10, false),
            (Limit::Percent(50), 1, 1, true),
            (Limit::Percent(0), 1, 10, false),
            (Limit::Percent(0), 0, 10, true),
            (Limit::Percent(100), 10, 10, true),
            (Limit::Count(2), 2, 10, true),
            (Limit::Count(2), 3, 10, false),
        ];
        for (max_delete, deletions, owned, want) in cases {
            let policy = PrunePolicy { enabled: true, max_delete, keep: vec![] };
            assert_eq!(within(&policy, deletions, owned), want, "{max_delete:?}: {deletions} of {owned}");
        }
    }
}
