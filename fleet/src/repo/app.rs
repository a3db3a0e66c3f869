//! `apps/<app>/app.yaml`: how an app is run and judged.
//!
//! The keys of all three runtimes are in one type, so that a key of another
//! runtime is refused by that reason and not as an unknown one. What the app
//! consists of (the files beside `app.yaml`) is for rendering.

use schemars::JsonSchema;
use serde::Deserialize;

use super::check_file::CheckFile;
use super::files::names;
use super::problems::Problems;
use super::value::{self, DurationText, LimitText, ModeText, NameText, OwnerText, Vars, VarsMap};
use crate::desired::{DriftMode, DriftPolicy, HealthPolicy, Limit, OnFailure, PrunePolicy};
use crate::finding::Finding;
use crate::name::AppName;
use crate::yaml::{self, At, Place, one_of};

/// Unless the app says otherwise: healthy within three minutes.
const TIMEOUT_MS: u64 = 180_000;
/// Unless the app says otherwise: and healthy for thirty seconds.
const SOAK_MS: u64 = 30_000;
/// Unless the app says otherwise: half of what it has.
const MAX_DELETE: Limit = Limit::Percent(50);
/// What pruning can be told to keep.
const KEEP: [&str; 4] = ["volumes", "pvcs", "namespaces", "crds"];

/// `apps/<app>/app.yaml`: how an app is run and judged.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AppFile {
    /// What runs it.
    pub(crate) runtime: RuntimeName,
    /// Apps that are applied and healthy first.
    #[schemars(with = "Option<Vec<NameText>>")]
    depends_on: Option<Vec<At<String>>>,
    /// Defaults of this app's variables; groups and devices go before them.
    #[schemars(with = "Option<VarsMap>")]
    vars: Option<Vars>,
    /// When it is healthy.
    health: Option<HealthFile>,
    /// What is done about drift.
    drift: Option<DriftFile>,
    /// What is deleted when it leaves.
    prune: Option<PruneFile>,
    /// What happens when it fails. Default `rollback`.
    on_failure: Option<OnFailure>,
    /// runtime: files. What is delivered, and where.
    files: Option<At<Vec<FileEntryFile>>>,
    /// runtime: files. Files, or folders with a trailing slash, below `files/` that get variables.
    templates: Option<At<Vec<At<String>>>>,
    /// runtime: files. Units to enable, start, and restart when one of the files changed.
    units: Option<At<Vec<At<String>>>>,
    /// runtime: kubernetes. Namespace for objects that name none.
    namespace: Option<At<String>>,
    /// runtime: kubernetes. Whether that namespace is made. Default false.
    create_namespace: Option<At<bool>>,
    /// runtime: kubernetes. Whether manifests get variables. Default false.
    substitute: Option<At<bool>>,
    /// runtime: kubernetes. Whether objects that exist and that nobody manages are taken over. Default false.
    adopt: Option<At<bool>>,
    /// runtime: kubernetes. Kinds that may be deleted and made anew where a field is immutable.
    replace: Option<At<Vec<At<String>>>>,
}

/// What runs an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RuntimeName {
    /// Containers on Docker or Podman, from `compose.yaml`.
    Compose,
    /// Objects on Kubernetes, from `kubernetes/`.
    Kubernetes,
    /// Files and systemd units, from `files/`.
    Files,
}

/// When an app is healthy.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthFile {
    /// From the last step to healthy. Default 3m.
    #[schemars(with = "Option<DurationText>")]
    timeout: Option<At<String>>,
    /// And healthy for this long. Default 30s.
    #[schemars(with = "Option<DurationText>")]
    soak: Option<At<String>>,
    /// On top of what the runtime itself knows.
    checks: Option<Vec<At<CheckFile>>>,
}

/// What is done about drift.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DriftFile {
    /// Default `correct`.
    mode: Option<DriftMode>,
    /// runtime: kubernetes. JSON pointers that don't count: `/spec/replicas`.
    ignore: Option<At<Vec<At<String>>>>,
}

/// What is deleted when it leaves.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct PruneFile {
    /// Default true.
    enabled: Option<bool>,
    /// At most so many of its objects, or this share, at once. Default 50%.
    #[schemars(with = "Option<LimitText>")]
    max_delete: Option<At<String>>,
    /// What stays: `volumes`, `pvcs`, `namespaces`, `crds`. Default `[volumes]`.
    keep: Option<Vec<At<String>>>,
}

/// One file or folder to deliver.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileEntryFile {
    /// Below `apps/<app>/files/`; a trailing slash means a whole folder.
    from: At<String>,
    /// Absolute path on the device; a trailing slash keeps the name.
    #[schemars(regex(pattern = "^/"))]
    to: At<String>,
    /// Permission bits; without it 0755 for what Git has as executable, else 0644.
    #[schemars(with = "Option<ModeText>")]
    mode: Option<At<String>>,
    /// `user` or `user:group`; without it the agent's own.
    #[schemars(with = "Option<OwnerText>")]
    owner: Option<At<String>>,
}

/// An app, checked.
#[derive(Clone, Debug)]
pub struct App {
    /// Applied and healthy first.
    pub depends_on: Vec<At<AppName>>,
    /// Defaults of its variables.
    pub vars: Vars,
    /// What it is made of, as far as `app.yaml` says it.
    pub runtime: Runtime,
    /// When it is healthy.
    pub health: HealthPolicy,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// What is deleted when it leaves.
    pub prune: PrunePolicy,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

/// What an app is made of, as far as `app.yaml` says it.
#[derive(Clone, Debug)]
pub enum Runtime {
    /// `compose.yaml` says the rest.
    Compose,
    /// Files to deliver.
    Files(FilesApp),
    /// `kubernetes/` says the rest.
    Kubernetes(KubernetesApp),
}

/// `runtime: files`.
#[derive(Clone, Debug)]
pub struct FilesApp {
    /// In the order of the file.
    pub entries: Vec<FileEntry>,
    /// Paths below `files/`.
    pub templates: Vec<At<String>>,
    /// Units to enable, start and restart.
    pub units: Vec<String>,
}

/// One file or folder to deliver.
#[derive(Clone, Debug)]
pub struct FileEntry {
    /// Below `apps/<app>/files/`; a trailing slash means a folder.
    pub from: At<String>,
    /// Absolute; a trailing slash keeps the name.
    pub to: At<String>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// `user` or `user:group`.
    pub owner: Option<String>,
}

/// `runtime: kubernetes`.
#[derive(Clone, Debug)]
pub struct KubernetesApp {
    /// For objects that name none.
    pub namespace: Option<String>,
    /// Whether it is made.
    pub create_namespace: bool,
    /// Whether manifests get variables.
    pub substitute: bool,
    /// Whether objects that exist and that nobody manages are taken over.
    pub adopt: bool,
    /// Kinds that may be deleted and made anew.
    pub replace: Vec<String>,
}

impl App {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let mut file: AppFile = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        file.refuse_other_runtimes(&mut problems);
        let depends_on = names(&mut problems, file.depends_on.take().unwrap_or_default(), "app");
        let vars = file.vars.take().unwrap_or_default();
        value::check_vars(&mut problems, &vars);
        let runtime = match file.runtime {
            RuntimeName::Compose => Some(Runtime::Compose),
            RuntimeName::Files => file.files_app(&mut problems).map(Runtime::Files),
            RuntimeName::Kubernetes => file.kubernetes_app(&mut problems).map(Runtime::Kubernetes),
        };
        let health = file.health.unwrap_or_default().check(&mut problems);
        let drift = file.drift.unwrap_or_default().check(&mut problems);
        let prune = file.prune.unwrap_or_default().check(&mut problems);
        let on_failure = file.on_failure.unwrap_or_default();
        let whole = runtime.zip(health).zip(prune);
        problems.finish(whole.map(|((runtime, health), prune)| Self {
            depends_on,
            vars,
            runtime,
            health,
            drift,
            prune,
            on_failure,
        }))
    }
}

impl AppFile {
    fn refuse_other_runtimes(&self, problems: &mut Problems<'_>) {
        fn at<T>(key: Option<&At<T>>) -> Option<Place> {
            key.map(|key| key.place)
        }
        let ignore = self.drift.as_ref().and_then(|drift| drift.ignore.as_ref());
        let keys = [
            ("files", RuntimeName::Files, at(self.files.as_ref())),
            ("templates", RuntimeName::Files, at(self.templates.as_ref())),
            ("units", RuntimeName::Files, at(self.units.as_ref())),
            ("namespace", RuntimeName::Kubernetes, at(self.namespace.as_ref())),
            ("createNamespace", RuntimeName::Kubernetes, at(self.create_namespace.as_ref())),
            ("substitute", RuntimeName::Kubernetes, at(self.substitute.as_ref())),
            ("adopt", RuntimeName::Kubernetes, at(self.adopt.as_ref())),
            ("replace", RuntimeName::Kubernetes, at(self.replace.as_ref())),
            ("drift.ignore", RuntimeName::Kubernetes, at(ignore)),
        ];
        for (key, runtime, place) in keys {
            if let Some(place) = place.filter(|_| runtime != self.runtime) {
                let (wanted, given) = (runtime.as_str(), self.runtime.as_str());
                problems
                    .error(place, format!("`{key}` belongs to `runtime: {wanted}`, this app has `runtime: {given}`"));
            }
        }
    }

    fn files_app(&mut self, problems: &mut Problems<'_>) -> Option<FilesApp> {
        let Some(given) = self.files.take().filter(|files| !files.value.is_empty()) else {
            problems
                .error(Place::START, "an app with `runtime: files` delivers nothing, expected entries under `files`");
            return None;
        };
        let mut whole = true;
        let mut entries = Vec::new();
        for entry in given.value {
            match entry.check(problems) {
                Some(entry) => entries.push(entry),
                None => whole = false,
            }
        }
        let templates = self.templates.take().map(|templates| templates.value).unwrap_or_default();
        for template in &templates {
            whole &= problems.take(template, below).is_some();
        }
        let units = self.units.take().map(|units| units.value).unwrap_or_default();
        let named: Vec<_> = units.iter().filter_map(|unit| problems.take(unit, value::unit)).collect();
        whole &= named.len() == units.len();
        whole.then_some(FilesApp { entries, templates, units: named })
    }

    fn kubernetes_app(&mut self, problems: &mut Problems<'_>) -> Option<KubernetesApp> {
        let namespace = match &self.namespace {
            None => Some(None),
            Some(name) => problems.take(name, dns_label).map(Some),
        };
        let set = |key: &Option<At<bool>>| key.as_ref().is_some_and(|key| key.value);
        if let (Some(create), None) = (self.create_namespace.as_ref().filter(|create| create.value), &self.namespace) {
            problems.error(create.place, "`createNamespace` without a `namespace`, expected the name to make");
        }
        let kinds = self.replace.take().map(|kinds| kinds.value).unwrap_or_default();
        let replace: Vec<_> = kinds.iter().filter_map(|name| problems.take(name, kind)).collect();
        Some(KubernetesApp {
            namespace: namespace?,
            create_namespace: set(&self.create_namespace),
            substitute: set(&self.substitute),
            adopt: set(&self.adopt),
            replace,
        })
    }
}

impl RuntimeName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Compose => "compose",
            Self::Kubernetes => "kubernetes",
            Self::Files => "files",
        }
    }
}

impl FileEntryFile {
    fn check(&self, problems: &mut Problems<'_>) -> Option<FileEntry> {
        let from = problems.take(&self.from, below);
        let to = problems.take(&self.to, absolute);
        if let (Some(from), Some(to)) = (&from, &to)
            && from.ends_with('/')
            && !to.ends_with('/')
        {
            problems.error(self.to.place, format!("`{from}` is a folder, expected a folder here, too: `{to}/`"));
        }
        let mode = self.mode.as_ref().map_or(Some(None), |mode| problems.take(mode, value::mode).map(Some));
        let owner = self.owner.as_ref().map_or(Some(None), |owner| problems.take(owner, value::owner).map(Some));
        Some(FileEntry {
            from: At { value: from?, place: self.from.place },
            to: At { value: to?, place: self.to.place },
            mode: mode?,
            owner: owner?,
        })
    }
}

impl HealthFile {
    fn check(&self, problems: &mut Problems<'_>) -> Option<HealthPolicy> {
        let timeout_ms = self.timeout.as_ref().map_or(Some(TIMEOUT_MS), |timeout| {
            problems.take(timeout, |text| match value::duration(text)? {
                0 => Err("no time at all, expected at least 1s".to_owned()),
                timeout => Ok(timeout),
            })
        });
        let soak_ms = self.soak.as_ref().map_or(Some(SOAK_MS), |soak| problems.take(soak, value::duration));
        let given = self.checks.as_deref().unwrap_or_default();
        let checks: Vec<_> = given.iter().filter_map(|check| check.value.check(problems, check.place)).collect();
        if checks.len() < given.len() {
            return None;
        }
        Some(HealthPolicy { timeout_ms: timeout_ms?, soak_ms: soak_ms?, checks })
    }
}

impl DriftFile {
    fn check(self, problems: &mut Problems<'_>) -> DriftPolicy {
        let pointers = self.ignore.map(|ignore| ignore.value).unwrap_or_default();
        for pointer in &pointers {
            if !pointer.value.starts_with('/') {
                problems.error(
                    pointer.place,
                    format!("`{}` is no JSON pointer, expected for example `/spec/replicas`", pointer.value),
                );
            }
        }
        let ignore = pointers.into_iter().map(|pointer| pointer.value).collect();
        DriftPolicy { mode: self.mode.unwrap_or_default(), ignore }
    }
}

impl PruneFile {
    fn check(self, problems: &mut Problems<'_>) -> Option<PrunePolicy> {
        let max_delete = self.max_delete.as_ref().map_or(Some(MAX_DELETE), |limit| problems.take(limit, value::limit));
        let keep = match self.keep {
            None => vec!["volumes".to_owned()],
            Some(kinds) => {
                for kind in kinds.iter().filter(|kind| !KEEP.contains(&kind.value.as_str())) {
                    problems.error(
                        kind.place,
                        format!("`{}` is nothing that can be kept, expected {}", kind.value, one_of(&KEEP)),
                    );
                }
                kinds.into_iter().map(|kind| kind.value).collect()
            }
        };
        Some(PrunePolicy { enabled: self.enabled.unwrap_or(true), max_delete: max_delete?, keep })
    }
}

/// A path below a folder, without `.`, `..` and empty parts; a trailing slash means a folder.
fn below(text: &str) -> Result<String, String> {
    let path = text.strip_suffix('/').unwrap_or(text);
    if plain_parts(path) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no path below `files/`, expected for example `etc/pos.conf`, without `..`"))
}

/// An absolute path without `.`, `..` and empty parts; a trailing slash means a folder.
fn absolute(text: &str) -> Result<String, String> {
    let wrong =
        || format!("`{text}` is no target, expected an absolute path without `..`, for example `/etc/pos/pos.conf`");
    let path = text.strip_prefix('/').ok_or_else(wrong)?;
    if path.is_empty() || plain_parts(path.strip_suffix('/').unwrap_or(path)) {
        return Ok(text.to_owned());
    }
    Err(wrong())
}

fn plain_parts(path: &str) -> bool {
    path.len() <= 4096
        && path.split('/').all(|part| {
            !matches!(part, "" | "." | "..") && part.len() <= 255 && !part.chars().any(|c| c.is_control() || c == '\\')
        })
}

fn dns_label(text: &str) -> Result<String, String> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if text.len() <= 63 && text.starts_with(edge) && text.ends_with(edge) && text.chars().all(|c| edge(c) || c == '-') {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no namespace, expected 1 to 63 characters of a-z, 0-9 and '-', no '-' first or last"))
}

fn kind(text: &str) -> Result<String, String> {
    if text.starts_with(|c: char| c.is_ascii_uppercase()) && text.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Ok(text.to_owned());
    }
    Err(format!("`{text}` is no kind, expected for example `Job`"))
}
