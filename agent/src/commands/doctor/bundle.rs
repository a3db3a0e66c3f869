//! `doctor --bundle`: one file with what a support person needs.
//!
//! **No secret is in it**: every text passes the [`Redactor`], which knows the
//! values of this device's own secrets (files that the settings name, its key,
//! the environment and the secrets of its apps) and what secrets look like.
//! Keys, tokens, desired states and files of apps are never put in.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::compose::model::MountSource;
use fleet::desired::AppSpec;
use fleet::wire::status::Status;
use tokio::process::Command;
use tokio::time::timeout;

use super::redact::Redactor;
use super::state::{Known, human, weigh};
use super::tar::Archive;
use super::{Bundle, Finding, PATIENCE};
use crate::clock::SystemClock;
use crate::commands::table::Paint;
use crate::commands::{Failure, json};
use crate::config::Inputs;
use crate::config::settings::Settings;
use crate::journal::glance::Glance;
use crate::ports::clock::Clock as _;
use crate::uplink::key_path;

/// Lines of the agent's own log.
const LINES: &str = "1000";
/// A file of an app that is larger holds no secrets, but data.
const LARGE: usize = 64 << 10;

/// Writes the bundle; where it is.
pub(super) async fn write(
    bundle: Bundle,
    inputs: Option<&Inputs>,
    settings: Option<&Settings>,
    findings: &[Finding],
    known: &Known,
) -> Result<PathBuf, Failure> {
    let now = SystemClock.now();
    let device = settings.map_or("device", |settings| settings.device.name.as_str());
    let name = format!("burgee-{device}-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let (path, replace) = match bundle {
        Bundle::To(path) => (path, true),
        Bundle::No | Bundle::Here => (PathBuf::from(format!("{name}.tar")), false),
    };
    let mut redactor = secrets(inputs, known);
    let mut archive = Archive::default();
    let at = u64::try_from(now.as_second()).unwrap_or(0);
    for (file, text) in texts(inputs, findings, known).await? {
        archive.add(&format!("{name}/{file}"), redactor.clean(&text).as_bytes(), at);
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(0o600);
    let options = if replace { options.create(true).truncate(true) } else { options.create_new(true) };
    let written = options.open(&path).and_then(|mut file| {
        file.write_all(&archive.end())?;
        file.sync_all()
    });
    written.map_err(|error| {
        Failure::new(1, format!("while bundling, cannot write {}: {error}", path.display()))
            .hint("name a file that can be written: burgee-agent doctor --bundle FILE")
    })?;
    Ok(path)
}

/// Every file of the bundle, before its secrets are taken out.
async fn texts(
    inputs: Option<&Inputs>,
    findings: &[Finding],
    known: &Known,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut files = vec![
        ("doctor.txt", super::table(findings, &Paint::on(false))),
        ("doctor.json", json(&findings)?),
        ("version.txt", format!("burgee-agent {}\nbuilt {}\n", env!("CARGO_PKG_VERSION"), SystemClock.build_date())),
        ("system.txt", system()),
    ];
    if let Some(inputs) = inputs {
        files.push(("config.txt", inputs.lines().join("\n") + "\n"));
    }
    if let Some(status) = &known.status {
        files.push(("status.json", json::<Status>(status)?));
    }
    if !known.history.is_empty() {
        files.push(("history.json", json(&known.history)?));
    }
    if let Some(journal) = &known.journal {
        files.push(("journal.txt", of_journal(journal)));
    }
    if let Some(inputs) = inputs {
        files.push(("store.txt", store(&inputs.store())));
    }
    let unit =
        ["show", "burgee-agent.service", "-p", "ActiveState,SubState,Result,NRestarts,MemoryCurrent,ExecMainStatus"];
    files.push(("service.txt", said("systemctl", &unit).await));
    let log = if inputs.is_none() && known.journal.is_none() {
        // Apps' own words may be in it.
        "left out: neither the settings nor the store can be read, so that this device's secrets are not known\n"
            .to_owned()
    } else {
        let log = ["-u", "burgee-agent.service", "-n", LINES, "--no-pager", "-o", "short-iso", "-q"];
        said("journalctl", &log).await
    };
    files.push(("log.txt", log));
    Ok(files)
}

/// What a program says, or why it says nothing.
async fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(std::process::Stdio::null()).kill_on_drop(true);
    match timeout(PATIENCE * 2, command.output()).await {
        Ok(Ok(output)) => {
            let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
            if !output.status.success() {
                let _ = writeln!(text, "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            text
        }
        Ok(Err(error)) => format!("{program}: {error}\n"),
        Err(_) => format!("{program}: no answer in time\n"),
    }
}

/// Kernel, distribution, memory, load. Nothing that names a user or a network.
fn system() -> String {
    let uname = rustix::system::uname();
    let mut text = format!(
        "{} {} {} {}\n",
        uname.sysname().to_string_lossy(),
        uname.release().to_string_lossy(),
        uname.version().to_string_lossy(),
        uname.machine().to_string_lossy()
    );
    let files = [
        "/etc/os-release",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/meminfo",
        "/proc/pressure/memory",
        "/proc/pressure/io",
    ];
    for file in files {
        if let Ok(content) = fs::read_to_string(file) {
            let head = content.lines().take(16).collect::<Vec<_>>().join("\n");
            let _ = write!(text, "\n{file}:\n{head}\n");
        }
    }
    if let Ok(processors) = std::thread::available_parallelism() {
        let _ = write!(text, "\nprocessors: {processors}\n");
    }
    text
}

fn of_journal(Glance { state, kept }: &Glance) -> String {
    let id = |revision: Option<&fleet::revision::Revision>| {
        revision.map_or_else(|| "none".to_owned(), |revision| revision.id.to_string())
    };
    let accepted = state.accepted.as_ref();
    let mut text = format!(
        "phase {:?}\nat {}\ntarget {}\nlast good {}\nbefore {}\nepoch {}\ncommand {}\nsuspended {}\n",
        state.phase.name(),
        id(state.phase.at()),
        id(state.phase.target()),
        id(state.good.as_ref()),
        id(state.before.as_ref()),
        state.epoch,
        state.command_sequence,
        state.suspended.is_some(),
    );
    if let Some(accepted) = accepted {
        let _ = writeln!(
            text,
            "accepted {} of {}, signed by {} ({}), floor {}",
            accepted.revision.id,
            accepted.committed_at,
            accepted.signer,
            accepted.fingerprint,
            accepted.floor.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)
        );
    }
    for blocked in &state.blocked {
        let _ = writeln!(text, "blocked {} ({}) since {}", blocked.revision.id, blocked.reason, blocked.since);
    }
    for (app, runtimes) in &state.inventory {
        for (runtime, inventory) in runtimes {
            let _ = writeln!(text, "owns of {app}, {runtime}: {} objects", inventory.len());
        }
    }
    for (kept, blobs) in kept {
        let apps: Vec<String> = kept.desired.apps.iter().map(|app| format!("{} {}", app.name, app.digest)).collect();
        let _ = writeln!(text, "kept {}: {} files; {}", kept.revision.id, blobs.len(), apps.join(", "));
    }
    text
}

/// Names and sizes two levels deep.
fn store(store: &Path) -> String {
    let mut text = String::new();
    let list = |folder: &Path| {
        let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
        paths.sort();
        paths
    };
    for path in list(store) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (files, bytes) = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_dir() => weigh(&path),
            Ok(metadata) => (1, metadata.len()),
            Err(_) => (0, 0),
        };
        let _ = writeln!(text, "{name:20} {files:6} files {:>10}", human(bytes));
    }
    text
}

/// What must not be in it, by value.
fn secrets(inputs: Option<&Inputs>, known: &Known) -> Redactor {
    let mut redactor = Redactor::default();
    if let Some(inputs) = inputs {
        let mut files = inputs.secret_files();
        files.push(key_path(&inputs.store()));
        for path in files {
            if let Ok(text) = fs::read_to_string(path) {
                learn_values(&mut redactor, &text);
            }
        }
        for url in inputs.addresses() {
            if let Some((user, _)) =
                url.split_once("://").and_then(|(_, rest)| rest.split('/').next()?.rsplit_once('@'))
            {
                user.split(':').skip(1).for_each(|password| redactor.learn(password));
            }
        }
    }
    for (kept, blobs) in known.journal.iter().flat_map(|journal| &journal.kept) {
        let mut whole = false;
        for app in &kept.desired.apps {
            if let AppSpec::Compose(project) = &app.spec {
                for service in project.services.values() {
                    service.environment.values().for_each(|value| redactor.learn(value));
                    whole |= service.mounts.iter().any(|mount| matches!(mount.source, MountSource::Content { .. }));
                }
            }
        }
        for text in blobs.iter().filter(|blob| blob.len() <= LARGE).filter_map(|blob| std::str::from_utf8(blob).ok()) {
            let manifest =
                text.lines().any(|line| line.trim_end() == "kind: Secret" || line.contains("\"kind\": \"Secret\""));
            if manifest || whole {
                learn_values(&mut redactor, text);
            } else {
                let secret = |line: &&str| {
                    let line = line.to_ascii_lowercase();
                    ["passw", "secret", "token", "key", "credential"].iter().any(|word| line.contains(word))
                };
                text.lines().filter(secret).for_each(|line| learn_values(&mut redactor, line));
            }
        }
    }
    redactor
}

/// Words that stand in every manifest and say nothing secret.
const PLAIN: [&str; 8] =
    ["Secret", "Opaque", "apiVersion", "metadata", "namespace", "default", "stringData", "application/json"];

/// Each line, what is behind its first `=` or `:`, each quoted part of it, and
/// what those are in base64.
fn learn_values(redactor: &mut Redactor, text: &str) {
    for line in text.lines().map(str::trim) {
        let behind = line.split_once(['=', ':']).map(|(_, value)| value.trim());
        let quoted = line.split('"').skip(1).step_by(2);
        for value in [Some(line), behind].into_iter().flatten().chain(quoted) {
            let value = value.trim_matches(['"', '\'', ',', ' ']);
            if PLAIN.contains(&value) || value.starts_with('{') || value.starts_with('#') {
                continue;
            }
            redactor.learn(value);
            if let Some(plain) = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                redactor.learn(&plain);
                // A registry's `auth` is user:password.
                if let Some((_, password)) = plain.split_once(':') {
                    redactor.learn(password);
                }
            }
        }
    }
}
