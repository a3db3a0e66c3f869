//! `doctor`: looks for what could keep the agent from working, without it.
//!
//! Every look is read-only and bounded in time. A part that is not configured
//! is not looked at.

use std::fs;
use std::io::ErrorKind;
use std::net::ToSocketAddrs as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::args::Output;
use super::table::{Paint, Table};
use super::{Failure, chain, json, print};
use crate::clock::SystemClock;
use crate::config::Inputs;
use crate::config::settings::Settings;
use crate::control::{ControlError, ask};
use crate::ports::clock::Clock as _;
use crate::ports::control::Ask;

const PATIENCE: Duration = Duration::from_secs(5);
/// Below this, downloads and the journal are at risk.
const LITTLE_SPACE: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// One part, as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    part: &'static str,
    result: Grade,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

fn found(part: &'static str, result: Grade, message: impl Into<String>) -> Finding {
    Finding { part, result, message: message.into(), hint: None }
}

impl Finding {
    fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Looks at everything and prints a line for each part.
pub(super) async fn doctor(inputs: Result<Inputs, Failure>, output: Output) -> Result<ExitCode, Failure> {
    let mut findings = Vec::new();
    let settings = inputs.and_then(|inputs| {
        let files: Vec<String> = inputs.files().iter().map(|file| file.display().to_string()).collect();
        Ok((inputs.settings()?, files.join(", ")))
    });
    match settings {
        Ok((settings, files)) => {
            findings.push(found("config", Grade::Ok, if files.is_empty() { "flags alone".to_owned() } else { files }));
            look(&settings, &mut findings).await;
        }
        Err(failure) => {
            let finding = found("config", Grade::Fail, failure.message);
            findings.push(match failure.hint {
                Some(hint) => finding.hint(hint),
                None => finding,
            });
            findings.push(clock());
        }
    }
    let failed = findings.iter().any(|finding| finding.result == Grade::Fail);
    print(&match output {
        Output::Json => json(&findings)?,
        Output::Table => {
            let mut table = Table::new(["PART", "RESULT", "MESSAGE"]);
            for Finding { part, result, message, hint } in findings {
                let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
                table.row([part.to_owned(), super::status::word(&result), format!("{message}{hint}")]);
            }
            table.show(&Paint::on(std::io::IsTerminal::is_terminal(&std::io::stdout())))
        }
    });
    Ok(ExitCode::from(u8::from(failed)))
}

async fn look(settings: &Settings, findings: &mut Vec<Finding>) {
    findings.push(clock());
    findings.push(store(&settings.store.path));
    findings.push(trust(&settings.source.trust));
    findings.push(agent(&settings.control.socket).await);
    findings.push(git(settings).await);
    findings.extend(engine(settings).await);
    findings.extend(settings.source.token_file.iter().map(|path| secret("git token", path)));
    findings.extend(settings.source.ssh_key_file.iter().map(|path| secret("ssh key", path)));
    if let Some(hub) = &settings.hub {
        findings.push(reach("hub", &hub.url).await);
        let key = settings.store.path.join("device.key");
        if !key.exists() {
            findings.push(
                found("enrollment", Grade::Warn, format!("there is no {}", key.display()))
                    .hint("burgee-agent enroll --hub URL --token TOKEN --trust FILE"),
            );
        }
    }
    if let Some(mqtt) = &settings.mqtt {
        findings.push(reach("mqtt", &mqtt.url).await);
    }
}

fn clock() -> Finding {
    let (now, built) = (SystemClock.now(), SystemClock.build_date());
    let text = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    if now < built {
        let hint = "start a time service; new revisions wait until the clock is set, what runs stays";
        return found("clock", Grade::Fail, format!("{text} is before this program was built")).hint(hint);
    }
    found("clock", Grade::Ok, text)
}

fn store(path: &Path) -> Finding {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return found("store", Grade::Ok, format!("{shown} will be made at the first start"));
        }
        Err(error) => return found("store", Grade::Fail, format!("{shown}: {error}")),
    };
    if !metadata.is_dir() {
        return found("store", Grade::Fail, format!("{shown} is no folder")).hint("set store.path to a folder");
    }
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() {
        return found("store", Grade::Fail, format!("{shown} can't be written"))
            .hint("run this as the agent's user; else remount it writable");
    }
    if let Ok(space) = rustix::fs::statvfs(path) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if free < LITTLE_SPACE {
            return found("store", Grade::Warn, format!("{} MiB are free under {shown}", free >> 20))
                .hint("free space: new revisions can't be kept on a full disk");
        }
        return found("store", Grade::Ok, format!("{shown}, {} MiB free", free >> 20));
    }
    found("store", Grade::Ok, shown.to_string())
}

fn trust(path: &Path) -> Finding {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            match lines.filter(|line| line.contains("ssh-ed25519 ")).count() {
                0 => found("trust", Grade::Fail, format!("{shown} names no ssh-ed25519 key"))
                    .hint("a line reads: anna@example.com namespaces=\"git\" ssh-ed25519 AAAA…"),
                count => found("trust", Grade::Ok, format!("{shown}, {count} lines with a key")),
            }
        }
        Err(error) => found("trust", Grade::Fail, format!("{shown}: {error}"))
            .hint("put the fleet's allowed_signers there: nothing unsigned runs"),
    }
}

async fn agent(socket: &Path) -> Finding {
    match timeout(PATIENCE, ask(socket, Ask::Status)).await {
        Ok(Ok(_)) => found("agent", Grade::Ok, format!("answers at {}", socket.display())),
        Ok(Err(error @ ControlError::Unreachable { .. })) => {
            let finding = found("agent", Grade::Warn, chain(&error));
            match error.hint() {
                Some(hint) => finding.hint(hint),
                None => finding,
            }
        }
        Ok(Err(error)) => found("agent", Grade::Fail, chain(&error)),
        Err(_) => found("agent", Grade::Fail, format!("no answer at {} in time", socket.display()))
            .hint("journalctl -u burgee-agent"),
    }
}

/// A file that only its owner should be able to read.
fn secret(part: &'static str, path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            found(part, Grade::Ok, path.display().to_string())
        }
        Ok(_) => found(part, Grade::Warn, format!("{} can be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())),
        Err(error) => found(part, Grade::Fail, format!("{}: {error}", path.display())),
    }
}

async fn git(settings: &Settings) -> Finding {
    let url = &settings.source.url;
    let local = url.strip_prefix("file://").or_else(|| url.starts_with('/').then_some(url.as_str()));
    if let Some(path) = local {
        return match fs::metadata(path) {
            Ok(_) => found("git", Grade::Ok, path.to_owned()),
            Err(error) => found("git", Grade::Fail, format!("{path}: {error}")),
        };
    }
    match &settings.source.proxy {
        Some(proxy) => reach("git", proxy).await,
        None => reach("git", url).await,
    }
}

/// Docker's or Podman's socket. Without one, apps of the compose runtime can't
/// run, which is no fault on a device that has none.
async fn engine(settings: &Settings) -> Option<Finding> {
    let said = settings.compose.socket.as_deref().map(|socket| socket.strip_prefix("unix://").unwrap_or(socket));
    let usual = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];
    let path: PathBuf = match said {
        Some(path) => path.into(),
        None => usual.iter().map(PathBuf::from).find(|path| path.exists())?,
    };
    let shown = path.display().to_string();
    let answer = timeout(PATIENCE, async {
        let mut stream = UnixStream::connect(&path).await?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n").await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<_, std::io::Error>(head)
    });
    Some(match answer.await {
        Ok(Ok(head)) if head.ends_with(b" 200") => found("engine", Grade::Ok, format!("answers at {shown}")),
        Ok(Ok(_)) => found("engine", Grade::Fail, format!("what listens at {shown} is no container engine")),
        Ok(Err(error)) => {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => "run this as the agent's user, or let it into the engine's group",
                _ => "start Docker or Podman, or set runtime.compose.socket",
            };
            found("engine", Grade::Fail, format!("{shown}: {error}")).hint(hint)
        }
        Err(_) => found("engine", Grade::Fail, format!("no answer at {shown} in time")),
    })
}

/// Whether a name resolves and its port takes a connection. What answers there
/// is the agent's to judge.
async fn reach(part: &'static str, url: &str) -> Finding {
    let Some((host, port)) = address(url) else {
        return found(part, Grade::Fail, format!("{url} names no host"));
    };
    let name = (host.clone(), port);
    let resolved = tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    let addresses = match timeout(PATIENCE, resolved).await {
        Ok(Ok(Ok(addresses))) => addresses,
        Ok(Ok(Err(error))) => {
            return found(part, Grade::Fail, format!("{host} does not resolve: {error}"))
                .hint("check /etc/resolv.conf and the network; what runs needs neither");
        }
        Ok(Err(_)) | Err(_) => return found(part, Grade::Fail, format!("{host} does not resolve in time")),
    };
    match timeout(PATIENCE, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(_)) => found(part, Grade::Ok, format!("{host} takes connections on port {port}")),
        Ok(Err(error)) => found(part, Grade::Fail, format!("{host} port {port}: {error}"))
            .hint("check the address, the firewall, and whether it runs"),
        Err(_) => found(part, Grade::Fail, format!("{host} port {port}: no connection in time"))
            .hint("check the address and the firewall"),
    }
}

/// Host and port of a URL or of `user@host:path`.
fn address(url: &str) -> Option<(String, u16)> {
    let Some((scheme, rest)) = url.split_once("://") else {
        let (host, _) = url.split_once(':')?;
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        return (!host.is_empty()).then(|| (host.to_owned(), 22));
    };
    let usual = match scheme {
        "https" => 443,
        "http" => 80,
        "ssh" => 22,
        "mqtts" => 8883,
        "mqtt" => 1883,
        "socks5" => 1080,
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(usual), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::{Grade, address, engine, reach, store, trust};

    #[test]
    fn addresses() {
        let cases = [
            ("https://git.example.com/a.git", Some(("git.example.com", 443))),
            ("http://me@127.0.0.1:8080", Some(("127.0.0.1", 8080))),
            ("ssh://git@host/x", Some(("host", 22))),
            ("git@host:x/y.git", Some(("host", 22))),
            ("mqtts://[::1]:9", Some(("::1", 9))),
            ("https://[::1]/", Some(("::1", 443))),
            ("https://:80/", None),
            ("https://a:b/", None),
            ("gopher://a", None),
        ];
        for (url, want) in cases {
            assert_eq!(address(url), want.map(|(host, port)| (host.to_owned(), port)), "{url}");
        }
    }

    #[tokio::test]
    async fn parts_are_found_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(store(folder.path()).result, Grade::Ok);
        let file = folder.path().join("signers");
        assert_eq!(trust(&file).result, Grade::Fail);
        std::fs::write(&file, "# nobody\n").unwrap();
        assert_eq!(trust(&file).result, Grade::Fail);
        std::fs::write(&file, "a@b namespaces=\"git\" ssh-ed25519 AAAA\n").unwrap();
        assert_eq!(trust(&file).result, Grade::Ok);
        assert_eq!(store(&file).result, Grade::Fail);

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(reach("hub", &format!("https://127.0.0.1:{port}/x")).await.result, Grade::Ok);
        drop(listener);
        assert_eq!(reach("hub", &format!("https://127.0.0.1:{port}/x")).await.result, Grade::Fail);

        let mut inputs = crate::config::Inputs::default();
        for flag in ["device.name=a", "source.url=/r"] {
            inputs.add_flag(flag).unwrap();
        }
        inputs.add_flag(&format!("runtime.compose.socket=unix://{}/none.sock", folder.path().display())).unwrap();
        assert_eq!(engine(&inputs.settings().unwrap()).await.unwrap().result, Grade::Fail);
    }
}
