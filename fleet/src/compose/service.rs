//! One service: every key of the specification, honoured, ignored with a note, or refused by its name.

use std::collections::BTreeMap;

use crate::compose::attach::{addresses, extra_hosts, mode, networks};
use crate::compose::deploy::deploy;
use crate::compose::fields::{Fields, named};
use crate::compose::model::{
    Condition, Dependency, Device, DeviceRequest, Healthcheck, Link, Logging, Mode, PullPolicy, Service, Ulimit,
    VolumesFrom,
};
use crate::compose::mounts::mounts;
use crate::compose::node::{Entry, Place, Value};
use crate::compose::ports;
use crate::compose::top::{Top, is_object_name};
use crate::compose::values;
use crate::compose::variables::{all_labels, environment};

/// A service, with what is needed to judge it beside the others.
pub(super) struct Read<'a> {
    pub(super) service: Service,
    pub(super) profiles: Vec<String>,
    /// Where its ports are written, one for each.
    pub(super) ports: Vec<Place>,
    /// Where it is written.
    pub(super) entry: &'a Entry,
}

/// Reads one service of the project.
pub(super) fn service<'a>(entry: &'a Entry, top: &Top<'_>) -> Option<Read<'a>> {
    let fields = Fields::of(format!("services.{}", entry.key), &entry.node, top.findings)?;
    refused(&fields);
    let (deployed, mut resources) = deploy(&fields);
    let (devices, mut requests) = devices(&fields);
    resources.gpus.append(&mut requests);
    let (ports, places) = ports::published(&fields).into_iter().unzip();
    let network_mode = mode(&fields, "network_mode");
    let service = Service {
        image: image(&fields, entry),
        platform: fields.text("platform"),
        pull_policy: fields.parse("pull_policy", pull_policy).unwrap_or_default(),
        container_name: fields.parse("container_name", container_name).filter(|name| !name.is_empty()),
        replicas: deployed.replicas,
        command: command(&fields, "command"),
        entrypoint: command(&fields, "entrypoint"),
        environment: environment(&fields, top),
        labels: all_labels(&fields, top),
        annotations: fields.texts_by_name("annotations"),
        user: fields.text("user"),
        group_add: fields.texts("group_add"),
        working_dir: fields.text("working_dir"),
        hostname: fields.text("hostname"),
        domainname: fields.text("domainname"),
        mac_address: fields.text("mac_address"),
        init: fields.switch("init"),
        tty: fields.switch("tty").unwrap_or_default(),
        stdin_open: fields.switch("stdin_open").unwrap_or_default(),
        read_only: fields.switch("read_only").unwrap_or_default(),
        privileged: fields.switch("privileged").unwrap_or_default(),
        restart: deployed.restart,
        stop_signal: fields.text("stop_signal"),
        stop_grace_period_ms: fields.millis("stop_grace_period"),
        ports,
        expose: ports::exposed(&fields),
        networks: networks(&fields, network_mode.as_ref(), top),
        network_mode,
        pid: mode(&fields, "pid"),
        ipc: mode(&fields, "ipc"),
        uts: fields.text("uts"),
        userns_mode: fields.text("userns_mode"),
        cgroup: fields.parse("cgroup", |text| match text {
            "host" | "private" => Ok(text.to_owned()),
            _ => Err(format!("{text:?} is not known: expected host or private")),
        }),
        cgroup_parent: fields.text("cgroup_parent"),
        runtime: fields.text("runtime"),
        isolation: fields.text("isolation"),
        mounts: mounts(&fields, top),
        volumes_from: volumes_from(&fields),
        volume_driver: None,
        links: links(&fields),
        external_links: fields.texts("external_links"),
        depends_on: depends_on(&fields),
        healthcheck: healthcheck(&fields),
        resources,
        update: deployed.update,
        logging: logging(&fields),
        cap_add: fields.texts("cap_add"),
        cap_drop: fields.texts("cap_drop"),
        devices,
        device_cgroup_rules: fields.texts("device_cgroup_rules"),
        extra_hosts: extra_hosts(&fields),
        dns: addresses(&fields, "dns"),
        dns_opt: fields.texts("dns_opt"),
        dns_search: fields.text_or_texts("dns_search"),
        sysctls: fields.texts_by_name("sysctls"),
        ulimits: ulimits(&fields),
        shm_size: fields.bytes("shm_size"),
        security_opt: fields.texts("security_opt"),
        storage_opt: fields.texts_by_name("storage_opt"),
        oom_kill_disable: fields.switch("oom_kill_disable"),
        oom_score_adj: fields.parse("oom_score_adj", |text| match values::integer(text)? {
            score @ -1000..=1000 => Ok(score),
            _ => Err(format!("{text:?} is not a number from -1000 to 1000")),
        }),
    };
    let profiles = fields.texts("profiles");
    // Followed before; what is left of it is without effect.
    fields.entry("extends");
    fields.finish();
    Some(Read { service, profiles, ports: places, entry })
}

/// What no device can do, and what makes no difference on one.
fn refused(fields: &Fields<'_>) {
    fields.refuse(
        "build",
        "a device does not build images",
        "publish the image, name it under image:, and take build: out",
    );
    fields.refuse("credential_spec", "it is for Windows containers", "take it out");
    fields.refuse("models", "a device has no model runner", "run the model as a service of its own");
    fields.refuse("provider", "a device has no provider plugins", "run what it provides as a service of its own");
    let hook = "give the image an entrypoint that does it";
    fields.refuse("pre_start", "hooks are not run", hook);
    fields.refuse("post_start", "hooks are not run", hook);
    fields.refuse("pre_stop", "hooks are not run", hook);
    fields.refuse("pull_refresh_after", "images are pulled when a revision is prepared", "use pull_policy: always");
    fields.refuse("use_api_socket", "a device has no credentials of yours", "mount the Engine's socket under volumes:");
    fields.ignore("develop", "it is for docker compose watch");
    fields.ignore("attach", "nobody looks at the output of docker compose up");
}

fn image(fields: &Fields<'_>, entry: &Entry) -> String {
    let image = fields.parse("image", |text| {
        let path = text.split('@').next().unwrap_or_default();
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        let repository = name.split(':').next().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '@' | '[' | ']');
        let sound = text.chars().all(allowed)
            && repository.starts_with(|c: char| c.is_ascii_alphanumeric())
            && !repository.chars().any(|c| c.is_ascii_uppercase());
        if sound {
            Ok(text.to_owned())
        } else {
            Err(format!("{text:?} is not an image: expected NAME[:TAG][@DIGEST], the name in lower case"))
        }
    });
    // Without build, there is nothing else to make a container of; with it, one finding is enough.
    if fields.node("image").is_none() && fields.entry("build").is_none() && fields.entry("provider").is_none() {
        fields.findings.error(&entry.at, format!("{}: image is missing", fields.what));
    }
    image.unwrap_or_default()
}

fn pull_policy(text: &str) -> Result<PullPolicy, String> {
    match text {
        "" | "missing" | "if_not_present" => Ok(PullPolicy::Missing),
        "always" => Ok(PullPolicy::Always),
        "never" => Ok(PullPolicy::Never),
        "build" => Err("\"build\": a device does not build images: expected missing, always or never".to_owned()),
        _ => Err(format!("{text:?} can't be honoured: expected missing, always or never")),
    }
}

fn container_name(text: &str) -> Result<String, String> {
    if text.is_empty() || (text.len() > 1 && is_object_name(text)) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not a name that an Engine takes: expected letters, digits, '_', '.' and '-'"))
    }
}

/// A command: a text is split into words, a list is taken as it is.
fn command(fields: &Fields<'_>, key: &str) -> Option<Vec<String>> {
    let node = fields.node(key)?;
    match &node.value {
        Value::Sequence(items) => {
            Some(items.iter().filter_map(|item| fields.typed(key, item, |text| Ok(text.to_owned()))).collect())
        }
        _ => fields.typed(key, node, values::words),
    }
}

fn volumes_from(fields: &Fields<'_>) -> Vec<VolumesFrom> {
    let mut found = Vec::new();
    for item in fields.list("volumes_from") {
        found.extend(fields.typed("volumes_from", item, |text| {
            let (rest, foreign) = match text.strip_prefix("container:") {
                Some(rest) => (rest, true),
                None => (text, false),
            };
            let (name, access) = rest.split_once(':').unwrap_or((rest, "rw"));
            let read_only = match access {
                "ro" => true,
                "rw" => false,
                _ => return Err(format!("{access:?} is not known: expected ro or rw")),
            };
            let name = name.to_owned();
            let source = if foreign { Mode::Container(name) } else { Mode::Service(name) };
            Ok(VolumesFrom { source, read_only })
        }));
    }
    found
}

fn links(fields: &Fields<'_>) -> Vec<Link> {
    let links = fields.texts("links").into_iter();
    links
        .map(|link| match link.split_once(':') {
            Some((service, alias)) => Link { service: service.to_owned(), alias: Some(alias.to_owned()) },
            None => Link { service: link, alias: None },
        })
        .collect()
}

fn depends_on(fields: &Fields<'_>) -> BTreeMap<String, Dependency> {
    let mut dependencies = BTreeMap::new();
    for (name, _, node) in named(fields, "depends_on") {
        let mut dependency = Dependency { condition: Condition::Started, restart: false, required: true };
        let what = format!("{}.{name}", fields.path("depends_on"));
        if let Some(own) = node.and_then(|node| Fields::of(what, node, fields.findings)) {
            let condition = own.parse("condition", |condition| match condition {
                "service_started" => Ok(Condition::Started),
                "service_healthy" => Ok(Condition::Healthy),
                "service_completed_successfully" => Ok(Condition::CompletedSuccessfully),
                _ => Err(format!(
                    "{condition:?} is not known: expected service_started, service_healthy or service_completed_successfully"
                )),
            });
            dependency.condition = condition.unwrap_or(Condition::Started);
            dependency.restart = own.switch("restart").unwrap_or_default();
            dependency.required = own.switch("required").unwrap_or(true);
            own.finish();
        }
        dependencies.insert(name, dependency);
    }
    dependencies
}

fn healthcheck(fields: &Fields<'_>) -> Option<Healthcheck> {
    let own = fields.map("healthcheck")?;
    let node = own.node("test");
    let mut test = node.and_then(|node| match &node.value {
        Value::Sequence(items) => {
            let words: Vec<String> =
                items.iter().filter_map(|item| own.typed("test", item, |text| Ok(text.to_owned()))).collect();
            match words.first().map(String::as_str) {
                Some("NONE" | "CMD" | "CMD-SHELL") => Some(words),
                None => None,
                Some(first) => {
                    let message = format!("a list begins with NONE, CMD or CMD-SHELL, not with {first:?}");
                    own.error("test", &node.at, &message);
                    None
                }
            }
        }
        _ => own.typed("test", node, |text| Ok(vec!["CMD-SHELL".to_owned(), text.to_owned()])),
    });
    if own.switch("disable") == Some(true) {
        if let Some(node) = node {
            own.error("test", &node.at, "disable: true is given, too: expected one of them");
        }
        test = Some(vec!["NONE".to_owned()]);
    }
    let check = Healthcheck {
        test,
        interval_ms: own.millis("interval"),
        timeout_ms: own.millis("timeout"),
        retries: own.integer("retries"),
        start_period_ms: own.millis("start_period"),
        start_interval_ms: own.millis("start_interval"),
    };
    own.finish();
    Some(check)
}

fn logging(fields: &Fields<'_>) -> Option<Logging> {
    let own = fields.map("logging")?;
    let logging = Logging { driver: own.text("driver"), options: own.texts_by_name("options") };
    own.finish();
    Some(logging)
}

/// Device files, and devices by the name of a CDI vendor.
fn devices(fields: &Fields<'_>) -> (Vec<Device>, Vec<DeviceRequest>) {
    let (mut devices, mut requests) = (Vec::new(), Vec::new());
    for item in fields.list("devices") {
        if matches!(item.value, Value::Mapping(_)) {
            let Some(own) = Fields::of(fields.path("devices"), item, fields.findings) else { continue };
            let source = own.text("source");
            if own.node("source").is_none() {
                own.error("source", &item.at, "is missing");
            }
            let target = own.text("target");
            let permissions = own.parse("permissions", permissions).unwrap_or_else(|| "rwm".to_owned());
            own.finish();
            if let Some(source) = source {
                devices.push(Device { target: target.unwrap_or_else(|| source.clone()), source, permissions });
            }
            continue;
        }
        let Some(text) = fields.typed("devices", item, |text| Ok(text.to_owned())) else { continue };
        if !text.starts_with('/') && text.contains('=') {
            requests.push(DeviceRequest {
                driver: Some("cdi".to_owned()),
                device_ids: vec![text],
                ..DeviceRequest::default()
            });
            continue;
        }
        devices.extend(fields.typed("devices", item, |text| {
            let expected = || format!("{text:?} is not a device: expected SOURCE[:TARGET[:rwm]], or VENDOR/CLASS=NAME");
            let parts: Vec<_> = text.split(':').collect();
            let (source, target, access) = match parts[..] {
                [source] => (source, source, "rwm"),
                [source, access] if permissions(access).is_ok() => (source, source, access),
                [source, target] => (source, target, "rwm"),
                [source, target, access] => (source, target, access),
                _ => return Err(expected()),
            };
            if !source.starts_with('/') || !target.starts_with('/') {
                return Err(expected());
            }
            let permissions = permissions(access)?;
            Ok(Device { source: source.to_owned(), target: target.to_owned(), permissions })
        }));
    }
    (devices, requests)
}

fn permissions(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.chars().all(|c| "rwm".contains(c)) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} are no permissions: expected letters of rwm"))
    }
}

fn ulimits(fields: &Fields<'_>) -> BTreeMap<String, Ulimit> {
    let mut ulimits = BTreeMap::new();
    let Some(own) = fields.map("ulimits") else { return ulimits };
    for entry in own.rest() {
        if !entry.key.bytes().all(|c| c.is_ascii_lowercase()) {
            own.error(&entry.key, &entry.at, "is not a limit's name: expected lower-case letters, such as nofile");
            continue;
        }
        let limit = match &entry.node.value {
            Value::Mapping(_) => {
                let Some(pair) = Fields::of(own.path(&entry.key), &entry.node, fields.findings) else { continue };
                let both = pair.node("soft").is_some() && pair.node("hard").is_some();
                if !both {
                    pair.findings.error(&entry.at, format!("{}: expected soft and hard", pair.what));
                }
                let limit = pair.integer("soft").zip(pair.integer("hard"));
                pair.finish();
                limit
            }
            _ => own.typed(&entry.key, &entry.node, values::integer).map(|limit| (limit, limit)),
        };
        if let Some((soft, hard)) = limit {
            ulimits.insert(entry.key.clone(), Ulimit { soft, hard });
        }
    }
    own.finish();
    ulimits
}
