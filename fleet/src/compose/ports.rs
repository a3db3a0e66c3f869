//! Published and exposed ports, short and long, ranges made single.

use std::net::IpAddr;

use crate::compose::fields::Fields;
use crate::compose::model::Port;
use crate::compose::node::{Findings, Node, Place, Value};

/// Ports of one service after ranges are made single.
const MAX_PORTS: usize = 65_535;

/// The published ports of a service, each with the place of the item that it comes from.
pub(super) fn published(service: &Fields<'_>) -> Vec<(Port, Place)> {
    let mut ports = Vec::new();
    for item in service.list("ports") {
        for port in one(service, item) {
            ports.push((port, item.at.clone()));
        }
        if ports.len() > MAX_PORTS {
            service.error("ports", &item.at, &format!("more than {MAX_PORTS} ports"));
            return Vec::new();
        }
    }
    ports
}

fn one(service: &Fields<'_>, item: &Node) -> Vec<Port> {
    match &item.value {
        Value::Mapping(_) => long(service, item),
        _ => service.typed("ports", item, short).unwrap_or_default(),
    }
}

/// What an item of `ports` stands for, whichever form it has: two with the same identity are the same port.
pub(super) fn identity(item: &Node) -> String {
    let findings = Findings::default();
    let nothing = Node::new(&item.at, Value::Null);
    let ports = Fields::of("", &nothing, &findings).map(|fields| one(&fields, item)).unwrap_or_default();
    match (ports.first(), ports.last()) {
        (Some(first), Some(last)) => format!("{first:?} {last:?}"),
        _ => String::new(),
    }
}

/// `[HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]`, each port a number or a range.
fn short(text: &str) -> Result<Vec<Port>, String> {
    let expected =
        |why: &str| format!("{text:?} is not a port: {why}; expected [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]");
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, protocol_of(protocol).map_err(|why| expected(&why))?),
        None => (text, "tcp".to_owned()),
    };
    let (rest, target) = match ports.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, ports),
    };
    let target = range(target).map_err(|why| expected(&why))?;
    let (host_ip, published) = match rest {
        None => (None, ""),
        Some(rest) => match rest.rsplit_once(':') {
            // An IPv6 address without brackets would be ambiguous.
            Some((host, published)) => (Some(host), published),
            None => (None, rest),
        },
    };
    let host_ip = host_ip.map(address).transpose().map_err(|why| expected(&why))?;
    let published = match published {
        "" => None,
        published => Some(range(published).map_err(|why| expected(&why))?),
    };
    pair(target, published, host_ip.as_deref(), &protocol).map_err(|why| expected(&why))
}

fn long(service: &Fields<'_>, item: &Node) -> Vec<Port> {
    let Some(port) = Fields::of(service.path("ports"), item, service.findings) else { return Vec::new() };
    let target = port.parse("target", |text| single(text).map(|port| (port, port)));
    let published = port
        .node("published")
        .filter(|node| node.scalar().is_none_or(|scalar| !scalar.text.is_empty()))
        .map(|node| port.typed("published", node, range));
    let host_ip = port.parse("host_ip", address);
    let protocol = port.parse("protocol", protocol_of);
    port.parse("mode", |mode| match mode {
        "host" | "ingress" | "" => Ok(()),
        _ => Err(format!("{mode:?} is not a mode: expected host or ingress")),
    });
    port.ignore("name", "it is for people");
    port.ignore("app_protocol", "no Engine looks at it");
    if port.node("target").is_none() {
        port.findings.error(&item.at, format!("{}: target is missing", port.what));
    }
    port.finish();
    let (Some(target), None | Some(Some(_))) = (target, published) else { return Vec::new() };
    pair(target, published.flatten(), host_ip.as_deref(), &protocol.unwrap_or_else(|| "tcp".to_owned()))
        .map_err(|why| service.error("ports", &item.at, &why))
        .unwrap_or_default()
}

fn pair(
    target: (u16, u16),
    published: Option<(u16, u16)>,
    host_ip: Option<&str>,
    protocol: &str,
) -> Result<Vec<Port>, String> {
    let port = |target, published| Port {
        target,
        protocol: protocol.to_owned(),
        host_ip: host_ip.map(str::to_owned),
        published,
    };
    let targets = target.0..=target.1;
    match published {
        None => Ok(targets.map(|target| port(target, None)).collect()),
        Some((from, to)) if to - from == target.1 - target.0 => {
            Ok(targets.zip(from..=to).map(|(target, published)| port(target, Some(published.to_string()))).collect())
        }
        Some((from, to)) if target.0 == target.1 => Ok(vec![port(target.0, Some(format!("{from}-{to}")))]),
        Some(_) => Err("the ranges differ in length".to_owned()),
    }
}

/// `expose`: ranges made single, `tcp` left out.
pub(super) fn exposed(service: &Fields<'_>) -> Vec<String> {
    let mut exposed: Vec<String> = Vec::new();
    for item in service.list("expose") {
        let ports = service.typed("expose", item, |text| {
            let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            let expected = |why| format!("{text:?} is not a port: {why}; expected PORT[-PORT][/PROTOCOL]");
            let protocol = protocol_of(protocol).map_err(expected)?;
            range(ports).map(|ports| (ports, protocol)).map_err(expected)
        });
        let Some(((from, to), protocol)) = ports else { continue };
        for port in from..=to {
            let text = if protocol == "tcp" { port.to_string() } else { format!("{port}/{protocol}") };
            exposed.push(text);
        }
        if exposed.len() > MAX_PORTS {
            service.error("expose", &item.at, &format!("more than {MAX_PORTS} ports"));
            return Vec::new();
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    exposed.retain(|port| seen.insert(port.clone()));
    exposed
}

fn single(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 && text.bytes().all(|c| c.is_ascii_digit()) => Ok(port),
        _ => Err(format!("{text:?} is not a number from 1 to 65535")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (single(from)?, single(to)?);
    if from <= to { Ok((from, to)) } else { Err(format!("{text:?} goes backwards")) }
}

fn protocol_of(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        protocol @ ("tcp" | "udp" | "sctp") => Ok(protocol.to_owned()),
        _ => Err(format!("{text:?} is not a protocol (tcp, udp, sctp)")),
    }
}

fn address(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) => Ok(ip.to_string()),
        Err(_) => Err(format!("{text:?} is not an IP address")),
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        let shown: Vec<_> = short(text)
            .unwrap()
            .into_iter()
            .map(|port| {
                let host = port.host_ip.map(|ip| format!("{ip} ")).unwrap_or_default();
                let published = port.published.unwrap_or_else(|| "any".to_owned());
                format!("{host}{published}>{}/{}", port.target, port.protocol)
            })
            .collect();
        assert_eq!(shown, want, "{text}");
    }

    #[test]
    fn short_forms() {
        check("80", &["any>80/tcp"]);
        check("8080:80", &["8080>80/tcp"]);
        check("8080:80/udp", &["8080>80/udp"]);
        check("127.0.0.1:8080:80", &["127.0.0.1 8080>80/tcp"]);
        check("127.0.0.1::80", &["127.0.0.1 any>80/tcp"]);
        check("[::1]:8080:80", &["::1 8080>80/tcp"]);
        check("3000-3001", &["any>3000/tcp", "any>3001/tcp"]);
        check("9090-9091:8080-8081", &["9090>8080/tcp", "9091>8081/tcp"]);
        check("9090-9091:80", &["9090-9091>80/tcp"]);
    }

    #[test]
    fn refused() {
        let cases = [
            ("", "\"\" is not a number from 1 to 65535"),
            ("0:80", "\"0\" is not a number from 1 to 65535"),
            ("80:65536", "\"65536\" is not a number from 1 to 65535"),
            ("+80", "\"+80\" is not a number from 1 to 65535"),
            ("80:x", "\"x\" is not a number from 1 to 65535"),
            ("9-8", "\"9-8\" goes backwards"),
            ("1-3:1-2", "the ranges differ in length"),
            ("80/icmp", "\"icmp\" is not a protocol (tcp, udp, sctp)"),
            ("host:80:80", "\"host\" is not an IP address"),
        ];
        for (text, why) in cases {
            let want = format!("{text:?} is not a port: {why}; expected [HOST_IP:][PUBLISHED:]TARGET[/PROTOCOL]");
            assert_eq!(short(text), Err(want));
        }
    }
}
