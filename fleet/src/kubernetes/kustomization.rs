//! What a kustomization may not ask for: the device renders it without a
//! network, from the app's own files.

use serde_json::Value;

use crate::finding::Finding;
use crate::repo::error;
use crate::yaml::{self, Place};

/// Lists of paths in a kustomization.
const PATHS: [&str; 9] = [
    "resources",
    "bases",
    "components",
    "crds",
    "configurations",
    "generators",
    "transformers",
    "validators",
    "patchesStrategicMerge",
];
/// What needs a program or a download.
const HELM: [&str; 3] = ["helmCharts", "helmChartInflationGenerator", "helmGlobals"];

/// Everything in these files that no device renders.
#[must_use]
pub fn check<'f>(files: impl Iterator<Item = (&'f str, &'f [u8])>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, bytes) in files {
        let name = path.rsplit('/').next().unwrap_or_default();
        if !matches!(name, "kustomization.yaml" | "kustomization.yml" | "Kustomization") {
            continue;
        }
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        let Ok(whole) = yaml::document(path, text, 1) else { continue };
        for key in HELM.iter().filter(|key| !whole[**key].is_null()) {
            found.push(Finding {
                hint: Some("commit what `helm template` prints, or use a k3s HelmChart object".to_owned()),
                ..error(path, place(text, key), format!("`{key}` is refused: a device renders no Helm charts"))
            });
        }
        for key in PATHS {
            for entry in whole[key].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if is_remote(entry) {
                    found.push(Finding {
                        hint: Some(
                            "copy it into the app's folder: what a device runs is in the signed commit".to_owned(),
                        ),
                        ..error(
                            path,
                            place(text, entry),
                            format!(
                                "`{entry}` in `{key}` is not in the repository: the device renders without a network"
                            ),
                        )
                    });
                }
            }
        }
    }
    found
}

/// As kustomize tells what it would fetch.
fn is_remote(entry: &str) -> bool {
    let first = entry.split('/').next().unwrap_or_default();
    let hosts = ["github.com", "gitlab.com", "bitbucket.org"];
    !entry.contains('\n')
        && (entry.contains("://")
            || entry.contains("::")
            || entry.starts_with("git@")
            || entry.contains("?ref=")
            || entry.contains(".git//")
            || hosts.contains(&first))
}

/// The line on which a word first stands.
fn place(text: &str, word: &str) -> Place {
    text.find(word).map_or(Place::START, |offset| Place::of_offset(text, offset))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn what_no_device_renders_is_refused_by_name() {
        let cases = [
            ("resources: [a.yaml, ../base]\n", None),
            ("resources:\n- https://example.com/a.yaml\n", Some(":2:3: `https://example.com/a.yaml` in `resources`")),
            ("resources:\n- a.yaml\n- github.com/org/repo//base?ref=v1\n", Some(":3:3: `github.com/org/repo")),
            ("components: [\"git@host:repo\"]\n", Some("`git@host:repo` in `components`")),
            ("helmCharts: [{name: x}]\n", Some(":1:1: `helmCharts` is refused")),
        ];
        for (text, want) in cases {
            let found = check([("apps/a/kubernetes/kustomization.yaml", text.as_bytes())].into_iter());
            match want {
                None => assert!(found.is_empty(), "{text}: {found:?}"),
                Some(part) => assert!(found[0].to_string().contains(part), "{text}: {}", found[0]),
            }
        }
        assert!(check([("x/other.yaml", b"helmCharts: [a]".as_slice())].into_iter()).is_empty());
    }
}
