//! What a project declares beside its services: networks, volumes, configs and secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::compose::fields::Fields;
use crate::compose::files::{Files, resolve};
use crate::compose::model::{IpamPool, Network, Volume};
use crate::compose::node::{Findings, Node, Place, Value};

/// Everything declared, by key. What was declared wrongly is there as none, so that its users add no second finding.
pub(super) struct Top<'a> {
    pub(super) findings: &'a Findings,
    pub(super) files: &'a Files<'a>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) volumes: BTreeMap<String, Volume>,
    pub(super) configs: BTreeMap<String, Option<Declared>>,
    pub(super) secrets: BTreeMap<String, Option<Declared>>,
}

/// A config or a secret.
pub(super) struct Declared {
    pub(super) at: Place,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// Its text: written in the file, or a variable's value.
    Text(String),
    /// Path from the repository's root.
    Repository(String),
    /// A file of the device's own.
    Host(String),
}

/// Reads what `root` declares for the project of that name.
pub(super) fn top<'a>(root: &Node, project: &str, files: &'a Files<'a>, findings: &'a Findings) -> Top<'a> {
    let section = |key: &str| -> Vec<(String, Node)> {
        let Some(node) = root.get(key) else { return Vec::new() };
        let Some(fields) = Fields::of(key, node, findings) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in fields.rest() {
            if is_key(&entry.key) {
                found.push((entry.key.clone(), entry.node.clone()));
            } else {
                let message =
                    format!("{key}: {:?} is not a name: expected letters, digits, '.', '_' and '-'", entry.key);
                findings.error(&entry.at, message);
            }
        }
        found
    };
    let networks = section("networks").into_iter();
    let volumes = section("volumes").into_iter();
    Top {
        findings,
        files,
        networks: networks.map(|(key, node)| (key.clone(), network(&key, &node, project, findings))).collect(),
        volumes: volumes.map(|(key, node)| (key.clone(), volume(&key, &node, project, findings))).collect(),
        configs: section("configs")
            .into_iter()
            .map(|(key, node)| (key.clone(), declared("configs", &key, &node, findings)))
            .collect(),
        secrets: section("secrets")
            .into_iter()
            .map(|(key, node)| (key.clone(), declared("secrets", &key, &node, findings)))
            .collect(),
    }
}

/// The names that the specification allows for what a file declares.
pub(super) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

/// Whether an Engine takes `name` for a container, a network or a volume.
pub(super) fn is_object_name(name: &str) -> bool {
    is_key(name) && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// `external`, in its present and its older form: whether, and by which name.
fn external(fields: &Fields<'_>) -> (bool, Option<String>) {
    let Some(node) = fields.node("external") else { return (false, None) };
    if matches!(node.value, Value::Mapping(_)) {
        let Some(older) = fields.map("external") else { return (true, None) };
        let name = older.text("name");
        older.finish();
        return (true, name);
    }
    (fields.switch("external").unwrap_or_default(), None)
}

/// The object's name, and whether it is somebody else's; what can't be said of somebody else's is refused.
fn name_of(fields: &Fields<'_>, key: &str, project: &str, node: &Node) -> (String, bool) {
    let (external, older) = external(fields);
    let given = fields.text("name").or(older);
    if external {
        for entry in node.entries() {
            if !matches!(entry.key.as_str(), "external" | "name")
                && !entry.key.starts_with("x-")
                && !entry.node.is_null()
            {
                let message = format!("{}: says nothing about what is external", fields.path(&entry.key));
                fields.findings.error(&entry.at, message);
            }
        }
    }
    let name = match given {
        Some(name) => name,
        None if external => key.to_owned(),
        None => format!("{project}_{key}"),
    };
    if !is_object_name(&name) {
        let at = fields.node("name").map_or(&node.at, |node| &node.at);
        fields.error("name", at, &format!("{name:?} is not a name that an Engine takes"));
    }
    (name, external)
}

fn network(key: &str, node: &Node, project: &str, findings: &Findings) -> Network {
    let Some(fields) = Fields::of(format!("networks.{key}"), node, findings) else { return Network::default() };
    let (name, external) = name_of(&fields, key, project, node);
    let mut network = Network {
        name,
        external,
        driver: fields.text("driver"),
        driver_opts: fields.texts_by_name("driver_opts"),
        internal: fields.switch("internal").unwrap_or_default(),
        attachable: fields.switch("attachable").unwrap_or_default(),
        enable_ipv4: fields.switch("enable_ipv4"),
        enable_ipv6: fields.switch("enable_ipv6"),
        labels: labels(&fields, "labels"),
        ..Network::default()
    };
    if let Some(ipam) = fields.map("ipam") {
        network.ipam_driver = ipam.text("driver");
        network.ipam_options = ipam.texts_by_name("options");
        for item in ipam.list("config") {
            let Some(pool) = Fields::of(ipam.path("config"), item, findings) else { continue };
            network.ipam.push(IpamPool {
                subnet: pool.parse("subnet", subnet),
                ip_range: pool.parse("ip_range", subnet),
                gateway: pool.parse("gateway", ip),
                aux_addresses: pool.texts_by_name("aux_addresses"),
            });
            pool.finish();
        }
        ipam.finish();
    }
    fields.finish();
    network
}

fn volume(key: &str, node: &Node, project: &str, findings: &Findings) -> Volume {
    let Some(fields) = Fields::of(format!("volumes.{key}"), node, findings) else { return Volume::default() };
    let (name, external) = name_of(&fields, key, project, node);
    let driver_opts = fields.texts_by_name("driver_opts");
    let binds = driver_opts.get("o").is_some_and(|o| o.split(',').any(|option| matches!(option, "bind" | "rbind")));
    if let Some(device) = driver_opts.get("device").filter(|device| binds && !device.starts_with('/')) {
        let at = fields.node("driver_opts").map_or(&node.at, |node| &node.at);
        let message =
            format!("{}: device {device:?} is not an absolute path of the device", fields.path("driver_opts"));
        findings.hint(at, message, "mount the file or folder itself: a service's volumes may name ./PATH");
    }
    let volume =
        Volume { name, external, driver: fields.text("driver"), driver_opts, labels: labels(&fields, "labels") };
    fields.finish();
    volume
}

/// Labels; the prefixes that burgee and Compose tell their own objects by are refused.
pub(super) fn labels(fields: &Fields<'_>, key: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (name, (value, node)) in fields.dict(key) {
        if is_reserved(&name) {
            fields.error(key, &node.at, &format!("label {name} is one that only burgee itself may set"));
        } else {
            labels.insert(name, value.unwrap_or_default());
        }
    }
    labels
}

/// Whether burgee or Compose tells its own objects by a label.
pub(super) fn is_reserved(label: &str) -> bool {
    label.starts_with("com.docker.compose.") || label.starts_with("dev.burgee.")
}

fn declared(section: &str, key: &str, node: &Node, findings: &Findings) -> Option<Declared> {
    let fields = Fields::of(format!("{section}.{key}"), node, findings)?;
    let kind = if section == "secrets" { "secret" } else { "config" };
    let hint = format!("give the {kind} a file: or an environment:");
    if external(&fields).0 {
        let at = fields.entry("external").map_or(&node.at, |entry| &entry.at);
        findings.hint(at, format!("{}: there is no Swarm to take it from", fields.path("external")), hint);
        fields.rest();
        return None;
    }
    fields.refuse("driver", "drivers are Swarm's", &hint);
    fields.refuse("driver_opts", "drivers are Swarm's", &hint);
    fields.refuse("template_driver", "templates are Swarm's", "variables are put in with ${NAME} under content:");
    fields.ignore("name", "it would be the name of an object of Swarm's");
    fields.ignore("labels", "there is no object of Swarm's to put them on");
    let file = fields.text("file");
    let variable = fields.text("environment");
    // A secret has no content: in the specification, so that it isn't written into the file.
    let text = if section == "configs" { fields.parse("content", |text| Ok(text.to_owned())) } else { None };
    let given = usize::from(file.is_some()) + usize::from(variable.is_some()) + usize::from(text.is_some());
    let at = fields.node("file").or(fields.node("environment")).map_or(&node.at, |node| &node.at).clone();
    let wrong = fields.node("file").is_some() && file.is_none();
    let choices = if section == "configs" { "file, content or environment" } else { "file or environment" };
    let content = if given != 1 && !wrong {
        findings.error(&node.at, format!("{}: expected one of {choices}", fields.what));
        None
    } else if let Some(path) = file {
        path_of(&fields, &path, &at)
    } else if let Some(variable) = variable {
        let value = at.source.scope.get(&variable).map(str::to_owned);
        if value.is_none() {
            let message = format!("variable {variable} is not defined");
            fields.error("environment", &at, &message);
        }
        value.map(Content::Text)
    } else {
        text.map(Content::Text)
    };
    fields.finish();
    content.map(|content| Declared { at, content })
}

fn path_of(fields: &Fields<'_>, path: &str, at: &Place) -> Option<Content> {
    if path.starts_with('/') {
        return Some(Content::Host(path.to_owned()));
    }
    resolve(&at.source.dir, path).map(Content::Repository).map_err(|why| fields.error("file", at, &why)).ok()
}

fn ip(text: &str) -> Result<String, String> {
    text.parse::<IpAddr>().map(|_| text.to_owned()).map_err(|_| format!("{text:?} is not an IP address"))
}

/// An address with the length of its prefix.
fn subnet(text: &str) -> Result<String, String> {
    let valid = text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.parse::<u8>().is_ok_and(|length| length <= most)
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a subnet: expected for example 172.28.0.0/16"))
    }
}
