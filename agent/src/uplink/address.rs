//! Addresses of hubs and brokers: `https://host[:port]`, `mqtts://host[:port]`.

use crate::ports::uplink::UplinkError;

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Broker {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Takes a broker's address apart.
///
/// # Errors
/// When it is none; a user, a password or a path in it is refused: the device
/// signs in by its own token.
pub(super) fn broker(url: &str) -> Result<Broker, UplinkError> {
    let wrong = |cause| UplinkError::Address { url: url.to_owned(), cause };
    let (tls, rest) = if let Some(rest) = url.strip_prefix("mqtts://") {
        (true, rest)
    } else if let Some(rest) = url.strip_prefix("mqtt://") {
        (false, rest)
    } else {
        return Err(wrong("expected mqtts://host:port or mqtt://host:port"));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#', '@']) {
        return Err(wrong("expected host and port alone"));
    }
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a bracket is open"))?;
            match port {
                "" => (host, None),
                port => {
                    (host, Some(port.strip_prefix(':').ok_or_else(|| wrong("expected a port behind the bracket"))?))
                }
            }
        }
        None => match rest.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err(wrong("an IPv6 address needs brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("the port is no number"))?,
        None if tls => 8883,
        None => 1883,
    };
    if host.is_empty() { Err(wrong("the host is missing")) } else { Ok(Broker { host: host.to_owned(), port, tls }) }
}

/// A hub's address without a slash at its end.
///
/// # Errors
/// When it is none.
pub(crate) fn hub(url: &str) -> Result<String, UplinkError> {
    let wrong = |cause| UplinkError::Address { url: url.to_owned(), cause };
    let parsed = reqwest::Url::parse(url).map_err(|_| wrong("expected https://host"))?;
    if !matches!(parsed.scheme(), "https" | "http") || parsed.host_str().is_none() {
        return Err(wrong("expected https://host"));
    }
    if !parsed.username().is_empty()
        || parsed.password().is_some()
        || parsed.query().is_some()
        || parsed.fragment().is_some()
    {
        return Err(wrong("expected host, port and path alone"));
    }
    Ok(parsed.as_str().trim_end_matches('/').to_owned())
}

/// Whether nobody between here and there can read along: TLS, or this machine.
pub(crate) fn is_private(url: &str) -> bool {
    let Ok(parsed) = reqwest::Url::parse(url) else { return false };
    let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    matches!(parsed.scheme(), "https" | "mqtts") || loopback
}

#[cfg(test)]
mod tests {
    use super::{Broker, broker, hub, is_private};

    fn check(url: &str, want: Option<(&str, u16, bool)>) {
        let want = want.map(|(host, port, tls)| Broker { host: host.to_owned(), port, tls });
        assert_eq!(broker(url).ok(), want, "{url}");
    }

    #[test]
    fn brokers() {
        check("mqtts://hub.example.com:8884", Some(("hub.example.com", 8884, true)));
        check("mqtts://hub.example.com", Some(("hub.example.com", 8883, true)));
        check("mqtt://127.0.0.1/", Some(("127.0.0.1", 1883, false)));
        check("mqtt://[::1]:1884", Some(("::1", 1884, false)));
        check("mqtt://[::1]", Some(("::1", 1883, false)));
        let wrong = [
            "",
            "hub",
            "tcp://a",
            "mqtt://",
            "mqtt://:1",
            "mqtt://a:b",
            "mqtt://a:0",
            "mqtt://a:65536",
            "mqtt://u:p@a",
            "mqtt://a/b",
            "mqtt://::1",
            "mqtt://[::1",
            "mqtt://[::1]1",
        ];
        for url in wrong {
            check(url, None);
        }
    }

    #[test]
    fn hubs() {
        assert_eq!(hub("https://hub.example.com/").unwrap(), "https://hub.example.com");
        assert_eq!(hub("https://example.com/burgee/").unwrap(), "https://example.com/burgee");
        for url in ["", "hub", "ftp://a", "https://u:p@a", "https://a/?b"] {
            assert!(hub(url).is_err(), "{url}");
        }
    }

    #[test]
    fn private() {
        let cases = [
            ("https://a", true),
            ("mqtts://a", true),
            ("http://a", false),
            ("http://127.0.0.1:8080", true),
            ("http://localhost", true),
            ("http://[::1]:80", true),
            ("http://127.0.0.1.example.com", false),
            ("mqtt://10.0.0.1", false),
        ];
        for (url, want) in cases {
            assert_eq!(is_private(url), want, "{url}");
        }
    }
}
