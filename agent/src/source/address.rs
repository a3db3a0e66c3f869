//! `source.url`: where the fleet repository is, and how it is reached.

use gix::url::Scheme;

use crate::config::settings::SourceSettings;

/// A parsed `source.url`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Http { url: String, tls: bool, loopback: bool },
    Ssh { user: Option<String>, host: String, port: Option<u16>, path: String },
    File { path: String },
}

/// An address that can't be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct InvalidAddress(String);

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = |why: &str| InvalidAddress(why.to_owned());
        let url = gix::url::parse(text).map_err(|error| InvalidAddress(error.to_string()))?;
        let path = String::from_utf8(url.path.to_vec()).map_err(|_| invalid("its path is not UTF-8"))?;
        let host = || match url.host() {
            Some(host) if !host.is_empty() && !host.starts_with('-') => Ok(host.to_owned()),
            _ => Err(invalid("it names no host")),
        };
        match url.scheme {
            Scheme::Http | Scheme::Https => {
                if url.user().is_some() || url.password().is_some() {
                    return Err(invalid("it holds credentials: use source.username and source.token_file"));
                }
                let host = host()?;
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let loopback = bare == "localhost" || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
                let tls = url.scheme == Scheme::Https;
                Ok(Self::Http { url: text.trim_end_matches('/').to_owned(), tls, loopback })
            }
            Scheme::Ssh => {
                let user = url.user().filter(|user| !user.is_empty()).map(str::to_owned);
                if user.as_ref().is_some_and(|user| user.starts_with('-')) || path.starts_with('-') || path.is_empty() {
                    return Err(invalid("its user or path can't be handed to ssh"));
                }
                let path = path.strip_prefix("/~").map(|rest| format!("~{rest}")).unwrap_or(path);
                Ok(Self::Ssh { user, host: host()?, port: url.port, path })
            }
            Scheme::File if path.starts_with('-') => Err(invalid("its path begins with a dash")),
            Scheme::File => Ok(Self::File { path }),
            _ => Err(invalid("only https, http, ssh and file are supported")),
        }
    }

    /// The programs that reach it, with their arguments, best first; none for HTTP.
    pub(super) fn programs(&self, settings: &SourceSettings) -> Vec<(&'static str, Vec<String>)> {
        match self {
            Self::Http { .. } => Vec::new(),
            Self::File { path } => {
                vec![("git-upload-pack", vec![path.clone()]), ("git", vec!["upload-pack".to_owned(), path.clone()])]
            }
            Self::Ssh { user, host, port, path } => {
                // No configuration but ours: what ssh does must not depend on who runs it.
                let mut arguments = vec!["-F".to_owned(), "none".to_owned(), "-T".to_owned()];
                let mut option = |text: String| arguments.extend(["-o".to_owned(), text]);
                for fixed in [
                    "BatchMode=yes",
                    "StrictHostKeyChecking=yes",
                    "UpdateHostKeys=no",
                    "PasswordAuthentication=no",
                    "KbdInteractiveAuthentication=no",
                    "ClearAllForwardings=yes",
                    "ForwardAgent=no",
                    "ControlMaster=no",
                    "ControlPath=none",
                    "ConnectTimeout=15",
                    "ServerAliveInterval=15",
                    "ServerAliveCountMax=3",
                    "SendEnv=GIT_PROTOCOL",
                    "LogLevel=ERROR",
                ] {
                    option(fixed.to_owned());
                }
                if let Some(file) = &settings.known_hosts_file {
                    option(format!("UserKnownHostsFile={}", ssh_path(file)));
                    option("GlobalKnownHostsFile=none".to_owned());
                }
                if let Some(file) = &settings.ssh_key_file {
                    option(format!("IdentityFile={}", ssh_path(file)));
                    option("IdentitiesOnly=yes".to_owned());
                    option("IdentityAgent=none".to_owned());
                }
                if let Some(port) = port {
                    arguments.extend(["-p".to_owned(), port.to_string()]);
                }
                if let Some(user) = user {
                    arguments.extend(["-l".to_owned(), user.clone()]);
                }
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let quoted = path.replace('\'', "'\\''");
                arguments.extend(["--".to_owned(), bare.to_owned(), format!("git-upload-pack '{quoted}'")]);
                vec![("ssh", arguments)]
            }
        }
    }
}

/// A path as ssh's options read it: quoted, and no `%` of its own meaning.
fn ssh_path(path: &std::path::Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses() {
        let ssh = |user: Option<&str>, host: &str, port, path: &str| {
            Some(Address::Ssh { user: user.map(str::to_owned), host: host.to_owned(), port, path: path.to_owned() })
        };
        let http = |url: &str, tls, loopback| Some(Address::Http { url: url.to_owned(), tls, loopback });
        let file = |path: &str| Some(Address::File { path: path.to_owned() });
        let cases = [
            ("https://git.example.com/a/b.git", http("https://git.example.com/a/b.git", true, false)),
            ("https://git.example.com/a/b/", http("https://git.example.com/a/b", true, false)),
            ("http://127.0.0.1:8080/b", http("http://127.0.0.1:8080/b", false, true)),
            ("https://me:secret@git.example.com/b", None),
            ("ssh://git@example.com:2222/a/b.git", ssh(Some("git"), "example.com", Some(2222), "/a/b.git")),
            ("git@example.com:a/b.git", ssh(Some("git"), "example.com", None, "a/b.git")),
            ("ssh://example.com/~me/b.git", ssh(None, "example.com", None, "~me/b.git")),
            ("ssh://-oProxyCommand=x/b", None),
            ("file:///srv/b.git", file("/srv/b.git")),
            ("/srv/b.git", file("/srv/b.git")),
            ("git://example.com/b", None),
            ("ext::sh -c true", None),
        ];
        for (text, want) in cases {
            assert_eq!(Address::parse(text).ok(), want, "{text}");
        }
    }
}
