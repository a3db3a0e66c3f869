//! What is reached over a network: the Git host and its head's signature, the
//! hub, the broker.

use std::net::ToSocketAddrs as _;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::verify::{Scratch, refused};
use super::state::Known;
use super::{FAILED, Finding, Grade, PATIENCE, UNREACHABLE, USAGE, found};
use crate::clock::SystemClock;
use crate::commands::chain;
use crate::config::settings::Settings;
use crate::ports::Reason as _;
use crate::ports::clock::Clock as _;
use crate::ports::source::SourceError;
use crate::ports::uplink::UplinkError;
use crate::source::{GitSource, Verified};
use crate::uplink::{self, HubClient, device_key, enrolment};

/// The longest silence of the Git host, and the longest look at it.
const SILENCE: Duration = Duration::from_secs(10);
const FETCH: Duration = Duration::from_secs(90);

/// The host, and the head as this device would judge it.
pub(super) async fn git(settings: &Settings, known: &Known) -> Vec<Finding> {
    let url = shown(&settings.source.url);
    if let Some(failed) = knock(settings).await {
        return vec![failed];
    }
    match timeout(FETCH, verify(settings, known)).await {
        Ok(findings) => findings,
        Err(_) => vec![
            found("git", Grade::Fail, format!("{url}: the head did not come within {} s", FETCH.as_secs()))
                .hint("the link is slow, or the host hangs")
                .code(UNREACHABLE),
        ],
    }
}

/// A host that does not resolve or listen says more by that than by Git.
async fn knock(settings: &Settings) -> Option<Finding> {
    let url = settings.source.proxy.as_ref().unwrap_or(&settings.source.url);
    if url.starts_with("file://") || url.starts_with('/') {
        return None;
    }
    let found = reach("git", url).await;
    (found.result == Grade::Fail).then_some(found)
}

async fn verify(settings: &Settings, known: &Known) -> Vec<Finding> {
    let url = shown(&settings.source.url);
    let judged = async {
        let scratch = Scratch::make().map_err(|error| {
            found("git", Grade::Fail, format!("cannot make a temporary folder: {error}")).hint("set TMPDIR")
        })?;
        let wrong = |error: SourceError| {
            let failure = refused(&url, &error);
            let (part, code) = match &error {
                SourceError::Untrusted { .. } | SourceError::Malformed { .. } => ("head", failure.code),
                _ => ("git", failure.code),
            };
            let hint =
                failure.hint.unwrap_or_else(|| "check source.url and the network; what runs needs neither".to_owned());
            found(part, Grade::Fail, failure.message).hint(hint).code(code)
        };
        let source = GitSource::open(&settings.source, &scratch.0.join("git"), SystemClock.build_date());
        let source = source.map_err(wrong)?.with_silence(SILENCE);
        source.verify(known.accepted(), SystemClock.now()).await.map_err(wrong)
    };
    let reached = || found("git", Grade::Ok, format!("{url}, branch {}", settings.source.branch));
    match judged.await {
        Ok(Verified::Holds { revision, principal, fingerprint }) => {
            let by =
                if principal.is_empty() { String::new() } else { format!(", signed by {principal} ({fingerprint})") };
            let same = known.accepted() == Some(&revision);
            let which = if same { "the accepted one" } else { "newer than what this device accepted" };
            let which = if known.accepted().is_none() { "a first start would take it" } else { which };
            vec![reached(), found("head", Grade::Ok, format!("{}: {which}{by}", revision.short()))]
        }
        Ok(Verified::ClockUnset { head }) => {
            let waits = found("head", Grade::Fail, format!("{} waits: the clock is not set", head.short()));
            vec![reached(), waits.hint("start a time service")]
        }
        Err(finding) if finding.part == "head" => vec![reached(), finding],
        Err(finding) => vec![finding],
    }
}

/// The hub: whether it answers, by the key that this device knows, and knows
/// this device.
pub(super) async fn hub(settings: &Settings) -> Vec<Finding> {
    let Some(hub) = &settings.hub else { return Vec::new() };
    let url = shown(&hub.url);
    let failed = |part, error: &UplinkError| {
        let code = match error {
            UplinkError::Address { .. } | UplinkError::Tls { .. } => USAGE,
            UplinkError::Unreachable { .. } => UNREACHABLE,
            _ => FAILED,
        };
        let hint = match error {
            UplinkError::Unreachable { .. } => {
                Some("check the network, whether the hub runs, and hub.ca_file".to_owned())
            }
            error => error.hint(),
        };
        found(part, Grade::Fail, chain(error)).maybe(hint).code(code)
    };
    let client = match HubClient::new(hub) {
        Ok(client) => client,
        Err(error) => return vec![failed("hub", &error)],
    };
    let answer = client.key().await;
    let mut findings = vec![match &answer {
        Ok(answer) => found("hub", Grade::Ok, format!("{url} answers, and signs by {}", answer.fingerprint)),
        Err(error) => failed("hub", error),
    }];
    let (key, enrolment) = match (device_key(&settings.store.path), enrolment(&settings.store.path)) {
        (Ok(Some(key)), Ok(Some(enrolment))) => (key, enrolment),
        (Err(error), _) | (_, Err(error)) => {
            findings.push(failed("enrolment", &error));
            return findings;
        }
        _ => {
            let by = hub.token_file.as_ref().filter(|file| file.exists());
            findings.push(match by {
                Some(file) => {
                    found("enrolment", Grade::Warn, format!("not yet; the agent joins by {}", file.display()))
                        .hint("burgee-agent status says what it waits for, under Enrolled")
                }
                None => found("enrolment", Grade::Warn, "the device is in no fleet")
                    .hint("burgee-agent enroll --hub URL --token TOKEN --trust FILE"),
            });
            return findings;
        }
    };
    let who = format!("{} in fleet {}", enrolment.device, enrolment.fleet);
    findings.push(match &answer {
        _ if enrolment.device != settings.device.name => {
            let other = UplinkError::OtherName { enrolled: enrolment.device, configured: settings.device.name.clone() };
            failed("enrolment", &other)
        }
        Ok(answer) if answer.key != enrolment.hub_key => {
            let message = format!("the hub signs by another key than {}", enrolment.hub_key.fingerprint());
            found("enrolment", Grade::Fail, message)
                .hint("if the hub was set up anew: burgee-agent enroll --new-hub-key; else somebody else answers there")
        }
        Ok(_) => match client.knows(&key, &enrolment, SystemClock.now()).await {
            Ok(()) => found("enrolment", Grade::Ok, format!("{who}; the hub knows its key")),
            Err(error) => failed("enrolment", &error),
        },
        Err(_) => found("enrolment", Grade::Ok, who),
    });
    findings
}

/// The broker: a connection, and TLS where it asks for it. Not a session: that
/// would end the running agent's.
pub(super) async fn broker(settings: &Settings) -> Option<Finding> {
    let (url, asked) = uplink::knock(settings, PATIENCE).await?;
    Some(match asked {
        Ok(()) => found("mqtt", Grade::Ok, format!("{url} takes connections")),
        Err(cause) => found("mqtt", Grade::Fail, format!("{url}: {cause}"))
            .hint("check the address, the firewall, whether the broker runs, and mqtt.ca_file; reports go over https meanwhile")
            .code(UNREACHABLE),
    })
}

/// A URL without what is before `@`.
fn shown(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?))) {
        Some((scheme, (user, host))) if !user.contains('/') => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// Whether a name resolves and its port takes a connection.
async fn reach(part: &'static str, url: &str) -> Finding {
    let Some((host, port)) = address(url) else {
        return found(part, Grade::Fail, format!("{} names no host", shown(url)))
            .hint("a URL reads https://HOST[:PORT]/…")
            .code(USAGE);
    };
    let name = (host.clone(), port);
    let resolved = tokio::task::spawn_blocking(move || name.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    let addresses = match timeout(PATIENCE, resolved).await {
        Ok(Ok(Ok(addresses))) => addresses,
        Ok(Ok(Err(error))) => {
            return found(part, Grade::Fail, format!("{host} does not resolve: {error}"))
                .hint("check /etc/resolv.conf and the network; what runs needs neither")
                .code(UNREACHABLE);
        }
        Ok(Err(_)) | Err(_) => {
            return found(part, Grade::Fail, format!("{host} does not resolve in time"))
                .hint("check /etc/resolv.conf and the network; what runs needs neither")
                .code(UNREACHABLE);
        }
    };
    match timeout(PATIENCE, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(_)) => found(part, Grade::Ok, format!("{host} takes connections on port {port}")),
        Ok(Err(error)) => found(part, Grade::Fail, format!("{host} port {port}: {error}"))
            .hint("check the address, the firewall, and whether it runs")
            .code(UNREACHABLE),
        Err(_) => found(part, Grade::Fail, format!("{host} port {port}: no connection in time"))
            .hint("check the address and the firewall")
            .code(UNREACHABLE),
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
    use super::{Grade, UNREACHABLE, address, reach, shown};

    #[test]
    fn addresses() {
        let cases = [
            ("https://git.example.com/a.git", Some(("git.example.com", 443))),
            ("http://me@127.0.0.1:8080", Some(("127.0.0.1", 8080))),
            ("ssh://git@host/x", Some(("host", 22))),
            ("git@host:x/y.git", Some(("host", 22))),
            ("socks5://[::1]:9", Some(("::1", 9))),
            ("https://[::1]/", Some(("::1", 443))),
            ("https://:80/", None),
            ("https://a:b/", None),
            ("gopher://a", None),
        ];
        for (url, want) in cases {
            assert_eq!(address(url), want.map(|(host, port)| (host.to_owned(), port)), "{url}");
        }
        assert_eq!(shown("https://me:secret@host/a"), "https://host/a");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
        assert_eq!(shown("git@host:a"), "git@host:a");
    }

    #[tokio::test]
    async fn ports_that_take_connections() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(reach("git", &format!("https://127.0.0.1:{port}/x")).await.result, Grade::Ok);
        drop(listener);
        let found = reach("git", &format!("https://127.0.0.1:{port}/x")).await;
        assert_eq!((found.result, found.code), (Grade::Fail, UNREACHABLE));
    }
}
