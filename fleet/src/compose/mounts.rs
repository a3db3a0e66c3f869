//! What a service mounts: `volumes`, `tmpfs`, `configs` and `secrets`, short and long.
//!
//! A relative path is a file or a folder of the repository, an absolute one is the device's own, a name is a volume.

use std::collections::BTreeMap;

use crate::compose::fields::Fields;
use crate::compose::files::{Found, resolve};
use crate::compose::model::{Mount, MountSource, RepoFile};
use crate::compose::node::{Node, Place, Value};
use crate::compose::top::{Content, Declared, Top};
use crate::compose::values;

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// A volume's short form, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Short<'a> {
    source: Option<&'a str>,
    target: &'a str,
    options: Vec<&'a str>,
}

fn split(text: &str) -> Result<Short<'_>, String> {
    let expected = |why: &str| format!("{text:?} is not a volume: {why}; expected [SOURCE:]TARGET[:OPTIONS]");
    let parts: Vec<_> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(expected("a part is empty"));
    }
    let short = match parts[..] {
        [target] => Short { source: None, target, options: Vec::new() },
        [source, target] => Short { source: Some(source), target, options: Vec::new() },
        [source, target, options] => Short { source: Some(source), target, options: options.split(',').collect() },
        _ => return Err(expected("too many colons")),
    };
    if short.target.starts_with('/') { Ok(short) } else { Err(expected("the target is not an absolute path")) }
}

/// The target of an item of `volumes`, whichever form it has; empty where it has none.
pub(super) fn target(item: &Node) -> String {
    let text = |node: &Node| node.scalar().map(|scalar| scalar.text.clone()).unwrap_or_default();
    match item.get("target") {
        Some(target) => text(target),
        None => split(&text(item)).map(|short| short.target.to_owned()).unwrap_or_default(),
    }
}

/// The target of an item of `configs` or `secrets`, below `base`.
pub(super) fn file_target(item: &Node, base: &str) -> String {
    let text = |key| item.get(key).and_then(Node::scalar).map(|scalar| scalar.text.as_str());
    let short = item.scalar().map(|scalar| scalar.text.as_str());
    below(base, text("target").or(text("source")).or(short).unwrap_or_default())
}

fn below(base: &str, target: &str) -> String {
    if target.starts_with('/') { target.to_owned() } else { format!("{base}{target}") }
}

/// Everything that a service mounts, each with its place; a target is taken once.
pub(super) fn mounts(service: &Fields<'_>, top: &Top<'_>) -> Vec<Mount> {
    let mut found: Vec<(Mount, &str, Place)> = Vec::new();
    for item in service.list("volumes") {
        let mount = match &item.value {
            Value::Mapping(_) => long(service, item, top),
            _ => short(service, item, top),
        };
        found.extend(mount.map(|mount| (mount, "volumes", item.at.clone())));
    }
    match service.node("tmpfs") {
        Some(node) if node.scalar().is_some() => {
            found.extend(tmpfs(service, node).map(|mount| (mount, "tmpfs", node.at.clone())));
        }
        Some(_) => {
            for item in service.list("tmpfs") {
                found.extend(tmpfs(service, item).map(|mount| (mount, "tmpfs", item.at.clone())));
            }
        }
        None => {}
    }
    for key in ["configs", "secrets"] {
        for item in service.list(key) {
            found.extend(granted(service, key, item, top).map(|mount| (mount, key, item.at.clone())));
        }
    }
    let mut targets: BTreeMap<String, u32> = BTreeMap::new();
    for (mount, key, at) in &found {
        let target = mount.target.trim_end_matches('/').to_owned();
        if let Some(first) = targets.insert(target, at.line) {
            service.error(key, at, &format!("{} is mounted twice, first in line {first}", mount.target));
        }
    }
    found.into_iter().map(|(mount, ..)| mount).collect()
}

fn short(service: &Fields<'_>, item: &Node, top: &Top<'_>) -> Option<Mount> {
    let text = service.typed("volumes", item, |text| split(text).map(|_| text.to_owned()))?;
    let short = split(&text).ok()?;
    let mut read_only = false;
    let mut bind = Bind::default();
    let mut nocopy = false;
    for option in short.options {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "nocopy" => nocopy = true,
            "z" | "Z" => bind.selinux = Some(option.to_owned()),
            "cached" | "delegated" | "consistent" => {
                let message = format!("{}: option {option} is ignored: it is for desktops", service.path("volumes"));
                service.findings.note(&item.at, message);
            }
            option if PROPAGATIONS.contains(&option) => bind.propagation = Some(option.to_owned()),
            option => {
                let message = format!(
                    "option {option:?} of {text:?} is not known: expected ro, rw, nocopy, z, Z or a propagation"
                );
                service.error("volumes", &item.at, &message);
                return None;
            }
        }
    }
    let source = match short.source {
        None => MountSource::Anonymous { nocopy },
        Some(source) if source.starts_with(['/', '.', '~']) => {
            if nocopy {
                service.error("volumes", &item.at, "nocopy is for volumes, and this is a path");
                return None;
            }
            bound(service, "volumes", item, source, bind, top)?
        }
        Some(source) => {
            if bind.propagation.is_some() {
                service.error("volumes", &item.at, "a propagation is for paths, and this is a volume");
                return None;
            }
            let key = declared_volume(service, source, item, top)?;
            MountSource::Volume { key, nocopy, subpath: None, labels: BTreeMap::new() }
        }
    };
    Some(Mount { target: short.target.to_owned(), read_only, source })
}

fn declared_volume(service: &Fields<'_>, name: &str, item: &Node, top: &Top<'_>) -> Option<String> {
    if top.volumes.contains_key(name) {
        return Some(name.to_owned());
    }
    let hint = if name.contains('/') {
        format!("a path begins with ./ or /: did you mean ./{name}?")
    } else {
        format!("declare it: volumes: {{{name}: {{}}}}")
    };
    let message = format!("{}: volume {name:?} is not declared under volumes", service.path("volumes"));
    service.findings.hint(&item.at, message, hint);
    None
}

#[derive(Default)]
struct Bind {
    propagation: Option<String>,
    selinux: Option<String>,
    recursive: Option<String>,
    /// Compose makes what is missing unless told not to.
    keep_missing: bool,
}

/// A path: absolute is the device's, relative is the repository's.
fn bound(service: &Fields<'_>, key: &str, item: &Node, source: &str, bind: Bind, top: &Top<'_>) -> Option<MountSource> {
    if source.starts_with('~') {
        let message = format!("{}: {source:?} is in a home folder, and an agent has none", service.path(key));
        service.findings.hint(&item.at, message, "name an absolute path, such as /srv/data, or a volume");
        return None;
    }
    if source.starts_with('/') {
        return Some(MountSource::Bind {
            path: source.to_owned(),
            create_host_path: !bind.keep_missing,
            propagation: bind.propagation,
            selinux: bind.selinux,
            recursive: bind.recursive,
        });
    }
    if bind.propagation.is_some() {
        service.error(key, &item.at, "a propagation is for the device's own paths, and this one is of the repository");
        return None;
    }
    let path = resolve(&item.at.source.dir, source).map_err(|why| service.error(key, &item.at, &why)).ok()?;
    let (folder, files) = match top.files.collect(&path, &item.at, &service.path(key))? {
        Found::File(file) => (false, BTreeMap::from([(String::new(), file)])),
        Found::Folder(files) => (true, files),
    };
    Some(MountSource::Repository { path, folder, files, selinux: bind.selinux })
}

fn long(service: &Fields<'_>, item: &Node, top: &Top<'_>) -> Option<Mount> {
    let mount = Fields::of(service.path("volumes"), item, service.findings)?;
    let kind = mount.text("type");
    let source = mount.text("source");
    let target = mount.parse("target", |target| {
        if target.starts_with('/') { Ok(target.to_owned()) } else { Err(format!("{target:?} is not an absolute path")) }
    });
    let read_only = mount.switch("read_only").unwrap_or_default();
    mount.ignore("consistency", "it is for desktops");
    let kind = match kind.as_deref() {
        Some(kind @ ("bind" | "volume" | "tmpfs" | "image")) => kind,
        Some(kind) => {
            let at = mount.entry("type").map_or(&item.at, |entry| &entry.node.at);
            mount.error("type", at, &format!("{kind:?} can't be honoured: expected bind, volume, tmpfs or image"));
            return None;
        }
        None => {
            mount.error("type", &item.at, "is missing: expected bind, volume, tmpfs or image");
            return None;
        }
    };
    for other in ["bind", "volume", "tmpfs", "image"] {
        if other != kind
            && let Some(entry) = mount.entry(other)
        {
            mount.error(other, &entry.at, &format!("says nothing about a mount of type {kind}"));
        }
    }
    if mount.node("target").is_none() {
        mount.error("target", &item.at, "is missing");
    }
    let all_options = mount.map(kind);
    let options = all_options.as_ref();
    let source = match (kind, source) {
        ("bind", source) => {
            let bind = options.map(bind_options).unwrap_or_default();
            let at = mount.node("source").unwrap_or(item);
            required(&mount, source, item).and_then(|path| bound(&mount, "source", at, &path, bind, top))
        }
        ("image", source) => {
            let subpath = options.and_then(|options| options.text("subpath"));
            required(&mount, source, item).map(|image| MountSource::Image { image, subpath })
        }
        ("volume", source) => volume(&mount, source, options, item, top),
        (_, source) => {
            if source.is_some() {
                mount.error("source", &item.at, "a tmpfs has none");
            }
            let size = options.and_then(|options| options.bytes("size"));
            let mode = options.and_then(|options| options.mode("mode"));
            Some(MountSource::Tmpfs { size, mode, options: Vec::new() })
        }
    };
    if let Some(options) = all_options {
        options.finish();
    }
    mount.finish();
    Some(Mount { target: target?, read_only, source: source? })
}

fn required(mount: &Fields<'_>, source: Option<String>, item: &Node) -> Option<String> {
    if source.is_none() && mount.node("source").is_none_or(|node| node.scalar().is_some()) {
        mount.error("source", &item.at, "is missing");
    }
    source
}

fn bind_options(options: &Fields<'_>) -> Bind {
    Bind {
        propagation: options.parse("propagation", |text| one_of(text, &PROPAGATIONS)),
        keep_missing: options.switch("create_host_path") == Some(false),
        recursive: options.parse("recursive", |text| one_of(text, &["enabled", "disabled", "writable", "readonly"])),
        selinux: options.parse("selinux", |text| one_of(text, &["z", "Z"])),
    }
}

fn volume(
    mount: &Fields<'_>,
    source: Option<String>,
    options: Option<&Fields<'_>>,
    item: &Node,
    top: &Top<'_>,
) -> Option<MountSource> {
    let nocopy = options.and_then(|options| options.switch("nocopy")).unwrap_or_default();
    let subpath = options.and_then(|options| options.text("subpath"));
    let labels = options.map(|options| options.texts_by_name("labels")).unwrap_or_default();
    let Some(source) = source else {
        if subpath.is_some() || !labels.is_empty() {
            mount.error("source", &item.at, "is missing: a subpath or labels ask for a named volume");
        }
        return Some(MountSource::Anonymous { nocopy });
    };
    let at = mount.node("source").unwrap_or(item);
    let key = declared_volume(mount, &source, at, top)?;
    Some(MountSource::Volume { key, nocopy, subpath, labels })
}

fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("{text:?} is not known: expected one of {}", known.join(", ")))
    }
}

/// `PATH[:OPTION,OPTION…]`.
fn tmpfs(service: &Fields<'_>, item: &Node) -> Option<Mount> {
    service.typed("tmpfs", item, |text| {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        if !target.starts_with('/') {
            return Err(format!("{target:?} is not an absolute path"));
        }
        let (mut size, mut mode, mut rest, mut read_only) = (None, None, Vec::new(), false);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", value)) if !value.ends_with('%') => size = Some(values::bytes(value)?),
                Some(("mode", value)) => mode = Some(values::mode(value)?),
                _ if option == "ro" => read_only = true,
                _ => rest.push(option.to_owned()),
            }
        }
        Ok(Mount { target: target.to_owned(), read_only, source: MountSource::Tmpfs { size, mode, options: rest } })
    })
}

/// A config or a secret that a service is given.
fn granted(service: &Fields<'_>, key: &str, item: &Node, top: &Top<'_>) -> Option<Mount> {
    let secret = key == "secrets";
    let base = if secret { "/run/secrets/" } else { "/" };
    let (mut source, mut target, mut uid, mut gid, mut mode) = (item, None, None, None, None);
    if matches!(item.value, Value::Mapping(_)) {
        let grant = Fields::of(service.path(key), item, service.findings)?;
        target = grant.text("target");
        uid = grant.text("uid");
        gid = grant.text("gid");
        mode = grant.mode("mode");
        let named = grant.node("source");
        grant.finish();
        let Some(named) = named else {
            service.error(key, &item.at, "source is missing");
            return None;
        };
        source = named;
    }
    let name = service.typed(key, source, |text| Ok(text.to_owned()))?;
    let target = below(base, target.as_deref().unwrap_or(&name));
    let declared = if secret { &top.secrets } else { &top.configs };
    let Some(declared) = declared.get(&name) else {
        let message = format!("{}: {name:?} is not declared under {key}", service.path(key));
        service.findings.hint(&source.at, message, format!("declare it: {key}: {{{name}: {{file: ./{name}}}}}"));
        return None;
    };
    let what = format!("{key}.{name}");
    let source = content(declared.as_ref()?, &what, top, Owner { uid, gid, mode, secret }, service, source)?;
    Some(Mount { target, read_only: true, source })
}

/// Whose the file is in the container.
struct Owner {
    uid: Option<String>,
    gid: Option<String>,
    mode: Option<u32>,
    secret: bool,
}

fn content(
    declared: &Declared,
    what: &str,
    top: &Top<'_>,
    owner: Owner,
    service: &Fields<'_>,
    item: &Node,
) -> Option<MountSource> {
    let name = format!("{} {}", if owner.secret { "secret" } else { "config" }, what.split_once('.')?.1);
    let readable = |executable| owner.mode.unwrap_or(if executable { 0o555 } else { 0o444 });
    let file = match &declared.content {
        Content::Text(bytes) => {
            RepoFile { content: top.files.put(bytes.as_bytes()), mode: readable(false), secret: owner.secret }
        }
        Content::Host(path) => {
            if owner.uid.is_some() || owner.gid.is_some() || owner.mode.is_some() {
                let message = format!("{what}: uid, gid and mode can't be given to {path}, a file of the device's own");
                service.findings.error(&item.at, message);
                return None;
            }
            return Some(MountSource::Bind {
                path: path.clone(),
                create_host_path: false,
                propagation: None,
                selinux: None,
                recursive: None,
            });
        }
        Content::Repository(path) => match top.files.collect(path, &declared.at, what)? {
            Found::File(file) => RepoFile { mode: readable(file.mode & 0o111 != 0), secret: owner.secret, ..file },
            Found::Folder(_) => {
                top.findings.error(&declared.at, format!("{what}: {path} is a folder: expected a file"));
                return None;
            }
        },
    };
    Some(MountSource::Content { name, file, uid: owner.uid, gid: owner.gid })
}
