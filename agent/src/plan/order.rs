//! Which apps leave, which changed, and which are judged.

use std::collections::{BTreeMap, BTreeSet};

use fleet::desired::{DesiredApp, DesiredState};
use fleet::digest::Digest;
use fleet::name::AppName;

/// The apps of which burgee owns something and that `to` no longer has, those
/// that depend on others first.
#[must_use]
pub fn leaving(owned: &BTreeSet<AppName>, to: &DesiredState, back: Option<&DesiredState>) -> Vec<AppName> {
    let stays: BTreeSet<_> = to.apps.iter().map(|app| &app.name).collect();
    let order: BTreeMap<_, _> =
        back.into_iter().flat_map(|state| &state.apps).enumerate().map(|(place, app)| (&app.name, place)).collect();
    let mut gone: Vec<_> = owned.iter().filter(|app| !stays.contains(app)).cloned().collect();
    // What `back` doesn't know came with a failed revision: first of all.
    gone.sort_by_key(|app| std::cmp::Reverse(order.get(app).copied().unwrap_or(usize::MAX)));
    gone
}

/// The apps that probing judges: those that changed, and those that depend on
/// them. An old sick app must not block an innocent revision.
#[must_use]
pub fn judged(to: &DesiredState, back: Option<&DesiredState>, touched: &BTreeSet<AppName>) -> BTreeSet<AppName> {
    let before: BTreeMap<&AppName, Digest> =
        back.into_iter().flat_map(|state| &state.apps).map(|app| (&app.name, app.digest)).collect();
    let mut judged: BTreeSet<AppName> = BTreeSet::new();
    // Apps come with their dependencies first, so that one pass is enough.
    for app in &to.apps {
        let changed = before.get(&app.name) != Some(&app.digest) || touched.contains(&app.name);
        if changed || app.depends_on.iter().any(|name| judged.contains(name)) {
            judged.insert(app.name.clone());
        }
    }
    judged
}

/// Whether `app` is the same in `back` and no step of a later revision has
/// touched it: then it is left alone.
#[must_use]
pub fn unchanged(app: &DesiredApp, back: Option<&DesiredState>, touched: &BTreeSet<AppName>) -> bool {
    !touched.contains(&app.name)
        && back
            .and_then(|state| state.apps.iter().find(|old| old.name == app.name))
            .is_some_and(|old| old.digest == app.digest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use fleet::desired::{
        AppSpec, DesiredApp, DesiredState, DriftMode, DriftPolicy, FilesSpec, HealthPolicy, Limit, OnFailure,
        PrunePolicy,
    };
    use fleet::digest::Digest;
    use fleet::name::AppName;

    use super::{judged, leaving, unchanged};

    fn name(text: &str) -> AppName {
        let Ok(name) = text.parse() else { unreachable!("{text}") };
        name
    }

    /// `base:1` and `pos:1<base`: name, content, dependency.
    fn state(apps: &[&str]) -> DesiredState {
        let app = |text: &&str| {
            let (head, dependency) = text.split_once('<').map_or((*text, None), |(head, name)| (head, Some(name)));
            let (app, content) = head.split_once(':').unwrap_or((head, ""));
            DesiredApp {
                name: name(app),
                depends_on: dependency.into_iter().map(name).collect(),
                spec: AppSpec::Files(FilesSpec::default()),
                health: HealthPolicy { timeout_ms: 0, soak_ms: 0, checks: vec![] },
                drift: DriftPolicy { mode: DriftMode::Correct, ignore: vec![] },
                prune: PrunePolicy { enabled: true, max_delete: Limit::Percent(50), keep: vec![] },
                on_failure: OnFailure::Rollback,
                digest: Digest::of(content.as_bytes()),
            }
        };
        let (Ok(fleet), Ok(device)) = ("retail".parse(), "store".parse()) else { unreachable!("names") };
        DesiredState {
            fleet,
            device,
            groups: vec![],
            apps: apps.iter().map(app).collect(),
            windows: vec![],
            has_rollout: false,
            digest: Digest::of(apps.join(",").as_bytes()),
        }
    }

    fn names(apps: &[&str]) -> BTreeSet<AppName> {
        apps.iter().map(|app| name(app)).collect()
    }

    #[test]
    fn judged_apps() {
        type Names = &'static [&'static str];
        type Case = (&'static str, Names, Names, Names, Names);
        let cases: [Case; 5] = [
            ("the one that changed", &["base:1", "pos:1"], &["base:1", "pos:2"], &[], &["pos"]),
            ("and what depends on it", &["base:1", "pos:1<base"], &["base:2", "pos:1<base"], &[], &["base", "pos"]),
            ("through another", &["a:1", "b:1<a", "c:1<b"], &["a:2", "b:1<a", "c:1<b"], &[], &["a", "b", "c"]),
            ("touched by a superseded one", &["base:1"], &["base:1"], &["base"], &["base"]),
            ("a new one", &[], &["base:1"], &[], &["base"]),
        ];
        for (case, back, to, touched, want) in cases {
            assert_eq!(judged(&state(to), Some(&state(back)), &names(touched)), names(want), "{case}");
        }
    }

    #[test]
    fn leaving_apps_go_dependents_first() {
        let back = state(&["base:1", "pos:1<base"]);
        let gone = leaving(&names(&["base", "pos", "fresh"]), &state(&[]), Some(&back));
        assert_eq!(gone, ["fresh", "pos", "base"].map(name));
    }

    #[test]
    fn an_app_that_a_superseded_revision_touched_is_not_unchanged() {
        let state = state(&["base:1"]);
        assert!(unchanged(&state.apps[0], Some(&state), &names(&[])));
        assert!(!unchanged(&state.apps[0], Some(&state), &names(&["base"])));
        assert!(!unchanged(&state.apps[0], None, &names(&[])));
    }
}
