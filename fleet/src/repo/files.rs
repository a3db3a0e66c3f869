//! The small files of format 1: `burgee.yaml`, `groups/*.yaml`, `devices/*.yaml`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::problems::Problems;
use super::value::{self, Labels, LabelsMap, NameText, Vars, VarsMap, WindowFile};
use crate::desired::Window;
use crate::digest::Digest;
use crate::finding::Finding;
use crate::name::{AppName, FleetName};
use crate::select::{Selector, SelectorFile};
use crate::yaml::{self, At, did_you_mean, one_of};

/// The one format there is.
const FORMAT: u32 = 1;
/// Machines that agents are built for.
const ARCHITECTURES: [&str; 4] = ["aarch64", "armv7", "riscv64", "x86_64"];

/// `burgee.yaml`: the format, the fleet's name, fleet-wide variables.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FleetFile {
    /// Always 1.
    #[schemars(range(min = 1, max = 1))]
    format: At<u32>,
    /// The fleet's name.
    #[schemars(with = "NameText")]
    fleet: At<String>,
    /// The agent that the devices run; without it they keep theirs.
    agent: Option<AgentFile>,
    /// Variables for every app on every device; every other layer goes before them.
    #[schemars(with = "Option<VarsMap>")]
    vars: Option<Vars>,
}

/// The agent that the devices run.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AgentFile {
    /// `1.2.0`.
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$"))]
    version: At<String>,
    /// Where it is downloaded; `{arch}` stands for the machine.
    #[schemars(regex(pattern = "^https://"))]
    url: At<String>,
    /// SHA-256 of the binary, by machine: `aarch64`, `armv7`, `riscv64`, `x86_64`.
    sha256: BTreeMap<At<String>, At<String>>,
}

/// `burgee.yaml`, checked.
#[derive(Clone, Debug)]
pub struct Fleet {
    /// The fleet's name.
    pub name: FleetName,
    /// The agent that the devices run.
    pub agent: Option<AgentRelease>,
    /// Fleet-wide variables.
    pub vars: Vars,
}

/// An agent to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentRelease {
    /// `1.2.0`.
    pub version: String,
    /// With `{arch}` for the machine.
    pub url: String,
    /// By machine.
    pub sha256: BTreeMap<String, Digest>,
}

/// `burgee.yaml` as far as an agent of any age has to understand it.
#[derive(Deserialize)]
struct AgentWord {
    agent: Option<AgentPeek>,
}

/// [`AgentFile`] with keys that only a newer agent knows.
#[derive(Deserialize)]
struct AgentPeek {
    version: At<String>,
    url: At<String>,
    sha256: BTreeMap<At<String>, At<String>>,
}

impl AgentRelease {
    /// What `burgee.yaml` says of the agent, whatever else it holds: an agent
    /// that is too old for the rest must still be able to take its successor.
    ///
    /// # Errors
    /// When the file is no YAML, or what it says of the agent is wrong.
    pub fn peek(path: &str, bytes: &[u8]) -> Result<Option<Self>, Vec<Finding>> {
        let word: AgentWord = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        let agent = word.agent.map(|AgentPeek { version, url, mut sha256 }| {
            // A machine that nobody has heard of yet is not this one.
            sha256.retain(|machine, _| ARCHITECTURES.contains(&machine.value.as_str()));
            AgentFile { version, url, sha256 }
        });
        let agent = agent.and_then(|agent| agent.check(&mut problems));
        problems.finish(Some(agent)).map(|(agent, _)| agent)
    }

    /// Where the agent for `machine` is downloaded, and its digest; `None`:
    /// there is none for it.
    #[must_use]
    pub fn for_machine(&self, machine: &str) -> Option<(String, Digest)> {
        let digest = self.sha256.get(machine)?;
        Some((self.url.replace("{arch}", machine), *digest))
    }
}

impl Fleet {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let file: FleetFile = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        if file.format.value != FORMAT {
            problems.error(file.format.place, format!("format {} is unknown, expected {FORMAT}", file.format.value));
        }
        let name = problems.take(&file.fleet, str::parse);
        let agent = file.agent.and_then(|agent| agent.check(&mut problems));
        let vars = file.vars.unwrap_or_default();
        value::check_vars(&mut problems, &vars);
        problems.finish(name.map(|name| Self { name, agent, vars }))
    }
}

impl AgentFile {
    fn check(self, problems: &mut Problems<'_>) -> Option<AgentRelease> {
        let version = problems.take(&self.version, |text| {
            let core = text.split('-').next().unwrap_or_default();
            let number = |part: &str| !part.is_empty() && part.len() < 10 && part.bytes().all(|c| c.is_ascii_digit());
            let tail = text[core.len()..].chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'));
            if core.split('.').count() == 3 && core.split('.').all(number) && tail {
                return Ok(text.to_owned());
            }
            Err(format!("`{text}` is no version, expected for example `1.2.0`"))
        });
        let url = problems.take(&self.url, |text| {
            let url = http_url(text)?;
            if !text.starts_with("https://") {
                return Err(format!("`{text}` is not encrypted, expected a URL that starts with https://"));
            }
            let authority = text["https://".len()..].split(['/', '?', '#']).next().unwrap_or_default();
            if authority.contains('@') {
                return Err(
                    "a password in a URL would be everybody's who reads the repository, expected a URL without `user@`"
                        .to_owned(),
                );
            }
            Ok(url)
        });
        if self.sha256.len() > 1 && !self.url.value.contains("{arch}") {
            problems.error(self.url.place, "one URL for several machines, expected `{arch}` in it");
        }
        if self.sha256.is_empty() {
            problems.error(
                self.version.place,
                format!("no `sha256`, expected one for each machine: {}", one_of(&ARCHITECTURES)),
            );
        }
        let mut sha256 = BTreeMap::new();
        for (machine, digest) in &self.sha256 {
            if !ARCHITECTURES.contains(&machine.value.as_str()) {
                let message = format!(
                    "`{}` is no machine that agents are built for, expected {}",
                    machine.value,
                    one_of(&ARCHITECTURES)
                );
                match did_you_mean(&machine.value, &ARCHITECTURES) {
                    Some(hint) => problems.error_with_hint(machine.place, message, hint),
                    None => problems.error(machine.place, message),
                }
            }
            let parse = |text: &str| {
                text.parse::<Digest>()
                    .map_err(|_| format!("`{text}` is no SHA-256, expected 64 hex digits in lower case"))
            };
            if let Some(digest) = problems.take(digest, parse) {
                sha256.insert(machine.value.clone(), digest);
            }
        }
        Some(AgentRelease { version: version?, url: url?, sha256 })
    }
}

/// An absolute `http` or `https` URL with a host.
pub(crate) fn http_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '$')
    {
        return Err(format!("`{text}` is no URL, expected for example `http://127.0.0.1:8080/healthz`"));
    }
    Ok(text.to_owned())
}

/// `groups/<group>.yaml`: devices chosen by labels, with the apps and variables they get.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GroupFile {
    /// The group with the higher priority sets a variable. Default 0.
    priority: Option<i32>,
    /// The devices of the group. An empty selector matches none.
    selector: At<SelectorFile>,
    /// Apps that they get.
    #[schemars(with = "Option<Vec<NameText>>")]
    apps: Option<Vec<At<String>>>,
    /// Variables that they get.
    #[schemars(with = "Option<VarsMap>")]
    vars: Option<Vars>,
    /// When they may apply.
    window: Option<WindowFile>,
}

/// A group, checked.
#[derive(Clone, Debug)]
pub struct Group {
    /// Later wins.
    pub priority: i32,
    /// Its devices.
    pub selector: Selector,
    /// Its apps.
    pub apps: Vec<At<AppName>>,
    /// Its variables.
    pub vars: Vars,
    /// When its devices may apply.
    pub window: Option<Window>,
}

impl Group {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let file: GroupFile = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        let selector = file.selector.value.check(&mut problems, file.selector.place);
        let apps = names(&mut problems, file.apps.unwrap_or_default(), "app");
        let vars = file.vars.unwrap_or_default();
        value::check_vars(&mut problems, &vars);
        let window = file.window.and_then(|window| window.apply.check(&mut problems));
        let priority = file.priority.unwrap_or(0);
        problems.finish(Some(Self { priority, selector, apps, vars, window }))
    }
}

/// `devices/<device>.yaml`: labels, variables and extra apps of one device.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceFile {
    /// Labels; they go before those of the device's `agent.toml`.
    #[schemars(with = "Option<LabelsMap>")]
    labels: Option<BTreeMap<At<String>, At<String>>>,
    /// Variables; they go before every other layer.
    #[schemars(with = "Option<VarsMap>")]
    vars: Option<Vars>,
    /// Apps beside those of the device's groups.
    #[schemars(with = "Option<Vec<NameText>>")]
    apps: Option<Vec<At<String>>>,
}

/// A device's file, checked.
#[derive(Clone, Debug, Default)]
pub struct Device {
    /// Its labels.
    pub labels: Labels,
    /// Its variables.
    pub vars: Vars,
    /// Its apps.
    pub apps: Vec<At<AppName>>,
}

impl Device {
    pub(crate) fn parse(path: &str, bytes: &[u8]) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let file: DeviceFile = yaml::parse(path, bytes).map_err(|found| vec![found])?;
        let mut problems = Problems::new(path);
        let mut labels = Labels::new();
        for (name, value) in file.labels.unwrap_or_default() {
            problems.take(&name, value::label_name);
            problems.take(&value, value::label_value);
            labels.insert(name.value, value.value);
        }
        let apps = names(&mut problems, file.apps.unwrap_or_default(), "app");
        let vars = file.vars.unwrap_or_default();
        value::check_vars(&mut problems, &vars);
        problems.finish(Some(Self { labels, vars, apps }))
    }
}

/// Names of one kind, each once.
pub(crate) fn names<N: std::str::FromStr + PartialEq>(
    problems: &mut Problems<'_>,
    given: Vec<At<String>>,
    kind: &str,
) -> Vec<At<N>>
where
    N::Err: ToString,
{
    let mut names: Vec<At<N>> = Vec::new();
    for text in given {
        let Some(name) = problems.take(&text, str::parse::<N>) else { continue };
        let name = At { value: name, place: text.place };
        if names.contains(&name) {
            problems
                .error(text.place, format!("the {kind} `{}` stands here a second time, expected it once", text.value));
        } else {
            names.push(name);
        }
    }
    names
}

/// The name of a group or device out of its file's path.
pub(crate) fn stem<'a>(path: &'a str, folder: &str) -> Option<&'a str> {
    let file = path.strip_prefix(folder)?.strip_prefix('/')?;
    (!file.contains('/')).then_some(file)?.strip_suffix(".yaml")
}

#[cfg(test)]
mod tests {
    use super::AgentRelease;

    #[test]
    fn an_agent_of_any_age_reads_what_is_said_of_it() {
        let one = "0".repeat(64);
        let newer = format!(
            "format: 9\nfleets: [a, b]\nagent:\n  version: 2.0.0\n  channel: stable\n  url: \"https://x/{{arch}}\"\n  sha256: {{x86_64: {one}, m68k: nonsense}}\nlater: {{}}\n"
        );
        let found = AgentRelease::peek("burgee.yaml", newer.as_bytes()).unwrap().unwrap();
        assert_eq!(found.version, "2.0.0");
        let (url, digest) = found.for_machine("x86_64").unwrap();
        assert_eq!((url.as_str(), digest.to_string()), ("https://x/x86_64", one));
        assert_eq!(found.for_machine("m68k"), None);
        assert_eq!(AgentRelease::peek("burgee.yaml", b"format: 1\nfleet: f\n").unwrap(), None);
        let plain = "agent: {version: 1.0.0, url: \"http://x/\", sha256: {x86_64: ab}}";
        for wrong in ["agent: 1.0.0", "agent: {version: 1.0.0}", plain, "{"] {
            assert!(AgentRelease::peek("burgee.yaml", wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
