//! What a kustomization may ask for: the device renders it without a network
//! and without other programs, from the app's own files. What it renders is
//! for the device's `kubectl`; here is only what can be known without it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::place::{Path, Places};
use crate::finding::Finding;
use crate::repo::error;
use crate::yaml;

/// The names that `kubectl kustomize` looks for.
pub const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Lists of paths. Those of the first row may name folders, those of the
/// second may hold YAML itself.
const FOLDERS: [&str; 3] = ["resources", "bases", "components"];
const INLINE: [&str; 4] = ["generators", "transformers", "validators", "patchesStrategicMerge"];
const FILES: [&str; 2] = ["crds", "configurations"];
/// Lists of mappings that may have a `path`.
const WITH_PATH: [&str; 3] = ["patches", "patchesJson6902", "replacements"];
const GENERATORS: [&str; 2] = ["configMapGenerator", "secretGenerator"];
const HELM: [&str; 3] = ["helmCharts", "helmChartInflationGenerator", "helmGlobals"];
/// What changes nothing that names an object.
const PLAIN: [&str; 9] = [
    "apiVersion",
    "kind",
    "metadata",
    "resources",
    "images",
    "replicas",
    "labels",
    "commonLabels",
    "commonAnnotations",
];
/// What leaves the fields of the resources as they are, names aside.
const RENAMING: [&str; 6] =
    ["namespace", "namePrefix", "nameSuffix", "configMapGenerator", "secretGenerator", "generatorOptions"];

/// A kustomization and the folders that it takes in.
#[derive(Clone, Debug, Default)]
pub struct Kustomization {
    /// What no device renders.
    pub found: Vec<Finding>,
    /// The files that hold whole objects, by path.
    pub resources: BTreeSet<String>,
    /// Whether the resources' fields come out as they are.
    pub keeps_fields: bool,
    /// Whether, beyond that, each keeps its name and no other object comes.
    pub keeps_names: bool,
}

/// Looks through the kustomization in the folder `root`, and all that it names.
#[must_use]
pub fn read<'f>(root: &str, files: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Kustomization {
    let files = files.into_iter().collect();
    let kustomization = Kustomization { keeps_fields: true, keeps_names: true, ..Kustomization::default() };
    let mut reader = Reader { root, files, seen: BTreeSet::new(), waiting: Vec::new(), kustomization };
    reader.wait(root);
    while let Some(folder) = reader.waiting.pop() {
        reader.folder(&folder);
    }
    reader.kustomization
}

struct Reader<'f> {
    root: &'f str,
    files: BTreeMap<&'f str, &'f [u8]>,
    seen: BTreeSet<String>,
    /// Folders to look through: a chain of them may be longer than a stack.
    waiting: Vec<String>,
    kustomization: Kustomization,
}

/// One kustomization file while it is looked through.
struct File<'t> {
    path: &'t str,
    folder: &'t str,
    places: Places,
}

impl Reader<'_> {
    fn wait(&mut self, folder: &str) {
        if self.seen.insert(folder.to_owned()) {
            self.waiting.push(folder.to_owned());
        }
    }

    fn folder(&mut self, folder: &str) {
        let Some(path) = NAMES.iter().map(|name| format!("{folder}/{name}")).find(|path| self.has(path)) else {
            return;
        };
        let Some(text) = self.text(&path).map(str::to_owned) else { return };
        let whole = match yaml::document(&path, &text, 1) {
            Ok(Value::Object(whole)) => Value::Object(whole),
            Ok(Value::Null) => return,
            Ok(_) => {
                let place = yaml::Place::START;
                self.kustomization.found.push(error(&path, place, "no kustomization, expected a mapping (key: value)"));
                return;
            }
            Err(wrong) => return self.kustomization.found.push(wrong),
        };
        let file = File { path: &path, folder, places: Places::of(&text, 1) };
        let set = |key: &&String| !whole[key.as_str()].is_null();
        for key in whole.as_object().into_iter().flat_map(|map| map.keys()).filter(set) {
            let plain = PLAIN.contains(&key.as_str());
            self.kustomization.keeps_names &= plain;
            self.kustomization.keeps_fields &= plain || RENAMING.contains(&key.as_str());
        }
        for key in HELM.iter().filter(|key| !whole[**key].is_null()) {
            let hint = "commit what `helm template` prints, or use a k3s HelmChart object";
            self.refuse(&file, key, true, format!("`{key}`: a device renders no Helm charts"), hint);
        }
        for key in FOLDERS {
            self.each(&file, &whole[key], key, |reader, at, entry| {
                reader.resource(&file, at, entry, key == "resources")
            });
        }
        for key in INLINE {
            self.each(&file, &whole[key], key, |reader, at, entry| {
                let plugin = key != "patchesStrategicMerge";
                match entry.contains('\n') {
                    true if plugin => reader.plugin(&file, at, entry),
                    true => {}
                    false => reader.named(&file, at, entry, plugin),
                }
            });
        }
        for key in FILES {
            self.each(&file, &whole[key], key, |reader, at, entry| reader.named(&file, at, entry, false));
        }
        for key in WITH_PATH {
            for (at, entry) in list(&whole[key]) {
                if let Some(path) = entry["path"].as_str() {
                    self.named(&file, &format!("{key}[{at}].path"), path, false);
                }
            }
        }
        if let Some(path) = whole["openapi"]["path"].as_str() {
            self.named(&file, "openapi.path", path, false);
        }
        for key in GENERATORS {
            self.generator(&file, &whole[key], key);
        }
    }

    /// Files from which a ConfigMap or a Secret is made.
    fn generator(&mut self, file: &File<'_>, entries: &Value, key: &str) {
        for (at, entry) in list(entries) {
            for inner in ["files", "envs"] {
                let path = format!("{key}[{at}].{inner}");
                self.each(file, &entry[inner], &path, |reader, at, entry| {
                    let named =
                        if inner == "files" { entry.split_once('=').map_or(entry, |(_, path)| path) } else { entry };
                    reader.named(file, at, named, false);
                });
            }
            if let Some(env) = entry["env"].as_str() {
                self.named(file, &format!("{key}[{at}].env"), env, false);
            }
        }
    }

    fn each(&mut self, file: &File<'_>, entries: &Value, key: &str, mut take: impl FnMut(&mut Self, &str, &str)) {
        for (at, entry) in list(entries) {
            let mut path = Path::default();
            path.item(at);
            let path = format!("{key}{path}");
            match entry.as_str() {
                Some(entry) => take(self, &path, entry),
                None => {
                    let place = file.places.value(&path);
                    let message = format!("`{path}` is no text, expected a path in the app's folder");
                    self.kustomization.found.push(error(file.path, place, message));
                }
            }
        }
    }

    /// A file of objects, or a folder with another kustomization.
    fn resource(&mut self, file: &File<'_>, at: &str, entry: &str, objects: bool) {
        if self.remote(file, at, entry) {
            return;
        }
        let Some(path) = self.inside(file, at, entry) else { return };
        if self.has(&path) {
            if objects {
                self.kustomization.resources.insert(path);
            }
        } else if NAMES.iter().any(|name| self.has(&format!("{path}/{name}"))) {
            self.wait(&path);
        } else {
            let hint = "expected a file, or a folder with a kustomization.yaml";
            self.refuse(file, at, false, format!("`{entry}` in `{at}` is not in the repository"), hint);
        }
    }

    /// A file of any form. What it runs is a program where it is a plugin's.
    fn named(&mut self, file: &File<'_>, at: &str, entry: &str, plugin: bool) {
        if self.remote(file, at, entry) {
            return;
        }
        let Some(path) = self.inside(file, at, entry) else { return };
        if !self.has(&path) {
            // A plugin's settings may be a folder with a kustomization.
            if !(plugin && NAMES.iter().any(|name| self.has(&format!("{path}/{name}")))) {
                let hint = "expected a file; its path starts at this kustomization's folder";
                self.refuse(file, at, false, format!("`{entry}` in `{at}` is not in the repository"), hint);
            }
        } else if plugin && let Some(text) = self.text(&path).map(str::to_owned) {
            self.plugin(file, at, &text);
        }
    }

    /// Only the plugins that are built into kustomize run on a device.
    fn plugin(&mut self, file: &File<'_>, at: &str, text: &str) {
        for (_, document) in super::manifest::documents(text) {
            let Ok(settings) = yaml::document(file.path, document, 1) else { continue };
            if settings.is_null() || settings["apiVersion"] == "builtin" {
                continue;
            }
            let kind = settings["kind"].as_str().unwrap_or("it");
            let hint = "a device runs no plugins, neither programs nor containers: commit what it makes";
            self.refuse(
                file,
                at,
                false,
                format!("`{kind}` in `{at}` is a plugin of its own, expected `apiVersion: builtin`"),
                hint,
            );
        }
    }

    fn remote(&mut self, file: &File<'_>, at: &str, entry: &str) -> bool {
        let remote = is_remote(entry);
        if remote {
            let hint = "copy it into the app's folder: what a device runs is in the signed commit";
            let message = format!("`{entry}` in `{at}` is remote: a device renders without a network");
            self.refuse(file, at, false, message, hint);
        }
        remote
    }

    /// The path in the repository, where it lies below the app's folder.
    fn inside(&mut self, file: &File<'_>, at: &str, entry: &str) -> Option<String> {
        let mut parts: Vec<&str> = file.folder.split('/').collect();
        let least = self.root.split('/').count();
        for part in entry.split('/') {
            match part {
                "" | "." => {}
                ".." if parts.len() > least => drop(parts.pop()),
                ".." => parts.clear(),
                part => parts.push(part),
            }
            if parts.is_empty() {
                break;
            }
        }
        if parts.is_empty() || entry.starts_with('/') {
            let hint = "a device gets the files of the app's folder and no others";
            self.refuse(file, at, false, format!("`{entry}` in `{at}` lies outside of `{}/`", self.root), hint);
            return None;
        }
        Some(parts.join("/"))
    }

    fn refuse(&mut self, file: &File<'_>, at: &str, key: bool, message: String, hint: &str) {
        let place = if key { file.places.key(at) } else { file.places.value(at) };
        self.kustomization.found.push(Finding { hint: Some(hint.to_owned()), ..error(file.path, place, message) });
    }

    fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(path)?).ok()
    }
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// As kustomize tells what it would fetch.
fn is_remote(entry: &str) -> bool {
    let first = entry.split(['/', ':']).next().unwrap_or_default();
    // A folder may have a dot, but none is followed by `//` or ends with `.git`.
    let host = first.contains('.') && !first.starts_with('.') && (entry.contains("//") || entry.contains(".git"));
    entry.contains("://")
        || entry.contains("::")
        || entry.starts_with("git@")
        || entry.contains("?ref=")
        || entry.contains("?version=")
        || ["github.com", "gitlab.com", "bitbucket.org"].contains(&first)
        || host
}

#[cfg(test)]
mod tests {
    use super::read;

    const ROOT: &str = "apps/a/kubernetes";

    fn of(text: &str, files: &[(&str, &str)]) -> super::Kustomization {
        let mut all = vec![(format!("{ROOT}/kustomization.yaml"), text.to_owned())];
        all.extend(files.iter().map(|(path, text)| (format!("{ROOT}/{path}"), (*text).to_owned())));
        read(ROOT, all.iter().map(|(path, text)| (path.as_str(), text.as_bytes())))
    }

    const FILES: &[(&str, &str)] = &[
        ("a.yaml", ""),
        ("p.json", ""),
        ("base/kustomization.yml", "resources: [b.yaml, ../a.yaml]\n"),
        ("base/b.yaml", ""),
        ("far/kustomization.yaml", "bases:\n- ../base\n- https://example.com/x\n"),
        (
            "gen.yaml",
            "apiVersion: example.com/v1\nkind: Maker\nmetadata:\n  annotations:\n    config.kubernetes.io/function: |\n      container: {image: x}\n",
        ),
        ("prefix.yaml", "apiVersion: builtin\nkind: PrefixTransformer\n"),
    ];

    #[test]
    fn what_no_device_renders_is_refused_by_name() {
        let cases = [
            ("resources: [a.yaml, base, ./base/]\n", None),
            (
                "resources:\n- https://example.com/a.yaml\n",
                Some(":2:3: `https://example.com/a.yaml` in `resources[0]` is remote"),
            ),
            ("resources:\n- a.yaml\n- github.com/org/repo//base?ref=v1\n", Some(":3:3: `github.com/org/repo")),
            ("resources: [\"host.example:org/repo.git//x\"]\n", Some("is remote")),
            ("resources: [far]\n", Some("far/kustomization.yaml:3:3: `https://example.com/x` in `bases[1]` is remote")),
            ("components: [\"git@host:repo\"]\n", Some("`git@host:repo` in `components[0]` is remote")),
            ("helmCharts: [{name: x}]\n", Some(":1:1: `helmCharts`: a device renders no Helm charts")),
            ("resources: [b.yaml]\n", Some(":1:13: `b.yaml` in `resources[0]` is not in the repository")),
            ("resources: [../../b/kubernetes]\n", Some("lies outside of `apps/a/kubernetes/`")),
            ("resources: [/etc]\n", Some("lies outside of")),
            ("generators: [gen.yaml]\n", Some(":1:14: `Maker` in `generators[0]` is a plugin of its own")),
            ("transformers: [prefix.yaml]\n", None),
            ("transformers:\n- |-\n  apiVersion: a.b/v1\n  kind: Other\n", Some(":3:3: `Other` in `transformers[0]`")),
            ("patches:\n- path: no.yaml\n", Some(":2:9: `no.yaml` in `patches[0].path` is not")),
            ("patches: [{path: p.json}, {patch: \"- op: remove\"}]\n", None),
            ("configMapGenerator: [{name: x, files: [k=a.yaml, p.json], literals: [a=b]}]\n", None),
            (
                "configMapGenerator: [{name: x, files: [k=no]}]\n",
                Some("`no` in `configMapGenerator[0].files[0]` is not"),
            ),
            ("secretGenerator: [{name: x, envs: [\"https://x/y\"]}]\n", Some("is remote")),
            ("resources: [3]\n", Some(":1:13: `resources[0]` is no text")),
            ("- a\n", Some(":1:1: no kustomization")),
        ];
        for (text, want) in cases {
            let found = of(text, FILES).found;
            match want {
                None => assert!(found.is_empty(), "{text}: {found:?}"),
                Some(part) => assert!(found.iter().any(|one| one.to_string().contains(part)), "{text}: {found:?}"),
            }
        }
        assert!(read(ROOT, [("apps/a/kubernetes/other.yaml", b"helmCharts: [a]".as_slice())]).found.is_empty());
    }

    #[test]
    fn what_can_be_known_of_its_objects() {
        let known = of("resources: [a.yaml, base]\n", FILES);
        let paths: Vec<_> = known.resources.iter().map(|path| &path[ROOT.len() + 1..]).collect();
        assert_eq!(paths, ["a.yaml", "base/b.yaml"]);
        let cases = [
            ("resources: [a.yaml]\nimages: []\n", (true, true)),
            ("namePrefix: x-\nresources: [a.yaml]\n", (true, false)),
            ("namespace: x\n", (true, false)),
            ("patches: []\n", (false, false)),
        ];
        for (text, want) in cases {
            let known = of(text, FILES);
            assert_eq!((known.keeps_fields, known.keeps_names), want, "{text}");
        }
    }
}
