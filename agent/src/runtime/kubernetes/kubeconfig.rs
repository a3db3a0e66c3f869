//! How the API server is reached: from a kubeconfig file, else from inside a
//! cluster. What would need another program or weaken TLS is refused by name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleet::yaml;
use serde_json::Value;

/// Where k3s puts its own.
const K3S: &str = "/etc/rancher/k3s/k3s.yaml";
/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why there is no way to the API server.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubeconfigError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path}: {cause}")]
    Malformed { path: PathBuf, cause: String },
    #[error("{path}: `{key}` is refused: {cause}")]
    Refused { path: PathBuf, key: &'static str, cause: &'static str },
    #[error("there is no kubeconfig")]
    None,
}

impl KubeconfigError {
    /// What a person can do about it.
    #[must_use]
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::None => {
                Some("name one in runtime.kubernetes.kubeconfig; k3s writes /etc/rancher/k3s/k3s.yaml".into())
            }
            Self::Refused { .. } => {
                Some("give the agent a kubeconfig with a client certificate, a token or a tokenFile".into())
            }
            Self::Read { .. } | Self::Malformed { .. } => None,
        }
    }
}

/// How the agent shows who it is. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    /// PEM.
    Certificate {
        chain: Vec<u8>,
        key: Vec<u8>,
    },
    Token(String),
    /// Read anew at each connection: kubelets and k3s rotate it.
    TokenFile(PathBuf),
    Anonymous,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate { .. } => "Certificate",
            Self::Token(_) => "Token",
            Self::TokenFile(_) => "TokenFile",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// One way to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kubeconfig {
    /// `https://127.0.0.1:6443`, without a slash behind it.
    pub(super) server: String,
    /// The name that the server's certificate has to have, where it isn't the host's.
    pub(super) server_name: Option<String>,
    /// PEM; `None`: the system's roots.
    pub(super) authority: Option<Vec<u8>>,
    pub(super) credentials: Credentials,
    /// The file that it comes from.
    pub(super) path: PathBuf,
}

/// The file that is named; else k3s's; else the pod's service account.
///
/// # Errors
/// When it can't be read, is malformed, or asks for what is refused.
pub(super) fn find(named: Option<&Path>) -> Result<Kubeconfig, KubeconfigError> {
    match named {
        Some(path) => read(path),
        None if Path::new(K3S).exists() => read(Path::new(K3S)),
        None => in_cluster(Path::new(ACCOUNT), |name| std::env::var(name).ok()),
    }
}

fn read(path: &Path) -> Result<Kubeconfig, KubeconfigError> {
    let text = fs::read_to_string(path).map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text)
}

fn in_cluster(account: &Path, variable: impl Fn(&str) -> Option<String>) -> Result<Kubeconfig, KubeconfigError> {
    let (Some(host), Some(port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) else {
        return Err(KubeconfigError::None);
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let path = account.join("ca.crt");
    let authority = fs::read(&path).map_err(|source| KubeconfigError::Read { path: path.clone(), source })?;
    Ok(Kubeconfig {
        server: format!("https://{host}:{port}"),
        server_name: None,
        authority: Some(authority),
        credentials: Credentials::TokenFile(account.join("token")),
        path,
    })
}

/// Reads a kubeconfig's current context.
///
/// # Errors
/// As [`find`].
fn parse(path: &Path, text: &str) -> Result<Kubeconfig, KubeconfigError> {
    let malformed = |cause: String| KubeconfigError::Malformed { path: path.to_owned(), cause };
    let refused = |key, cause| KubeconfigError::Refused { path: path.to_owned(), key, cause };
    // The parser's own words may quote what stands there: only the place is said.
    let whole = yaml::document("kubeconfig", text, 1)
        .map_err(|found| malformed(format!("line {}, column {} is no YAML", found.line, found.column)))?;
    let context = whole["current-context"].as_str().unwrap_or_default();
    if context.is_empty() {
        return Err(malformed("`current-context` is missing".to_owned()));
    }
    let named = |list: &str, key: &str, name: &str| {
        let entries = whole[list].as_array().into_iter().flatten();
        let found = entries.filter(|entry| entry["name"] == name).find_map(|entry| entry.get(key)).cloned();
        found.ok_or_else(|| malformed(format!("`{list}` has no {key} {name:?}")))
    };
    let text_of = |value: &Value, key: &str| value[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let context = named("contexts", "context", context)?;
    let cluster = named("clusters", "cluster", &text_of(&context, "cluster").unwrap_or_default())?;
    let user = match text_of(&context, "user") {
        Some(name) => named("users", "user", &name)?,
        None => Value::Null,
    };

    if cluster["insecure-skip-tls-verify"] == true {
        return Err(refused("insecure-skip-tls-verify", "anybody could pose as the API server"));
    }
    if text_of(&cluster, "proxy-url").is_some() {
        return Err(refused("proxy-url", "the API server is this device's own"));
    }
    let server_name = text_of(&cluster, "tls-server-name");
    if server_name.as_ref().is_some_and(|name| !is_dns_name(name)) {
        return Err(malformed("`tls-server-name` is no DNS name".to_owned()));
    }
    for (key, cause) in [
        ("exec", "the agent runs no program to log in"),
        ("auth-provider", "the agent runs no program to log in"),
        ("username", "API servers no longer take passwords"),
        ("as", "the agent acts as nobody else"),
    ] {
        if user.get(key).is_some_and(|value| !value.is_null()) {
            return Err(refused(key, cause));
        }
    }
    let server = text_of(&cluster, "server").ok_or_else(|| malformed("the cluster has no `server`".to_owned()))?;
    if !server.starts_with("https://") {
        return Err(refused("server", "it is not https"));
    }
    let bytes = |value: &Value, inline: &'static str, file: &'static str| -> Result<Option<Vec<u8>>, KubeconfigError> {
        if let Some(data) = text_of(value, inline) {
            let data: String = data.split_whitespace().collect();
            return STANDARD.decode(data).map(Some).map_err(|_| malformed(format!("`{inline}` is no base64")));
        }
        let Some(name) = text_of(value, file) else { return Ok(None) };
        let beside = path.parent().unwrap_or(Path::new("/")).join(name);
        fs::read(&beside).map(Some).map_err(|source| KubeconfigError::Read { path: beside, source })
    };
    let authority = bytes(&cluster, "certificate-authority-data", "certificate-authority")?;
    let chain = bytes(&user, "client-certificate-data", "client-certificate")?;
    let key = bytes(&user, "client-key-data", "client-key")?;
    let credentials = match (chain, key, text_of(&user, "tokenFile"), text_of(&user, "token")) {
        (Some(chain), Some(key), _, _) => Credentials::Certificate { chain, key },
        (Some(_), None, ..) => return Err(malformed("a client certificate without its key".to_owned())),
        (None, Some(_), ..) => return Err(malformed("a client key without its certificate".to_owned())),
        (None, None, Some(file), _) => Credentials::TokenFile(path.parent().unwrap_or(Path::new("/")).join(file)),
        (None, None, None, Some(token)) => Credentials::Token(token),
        (None, None, None, None) => Credentials::Anonymous,
    };
    let server = server.trim_end_matches('/').to_owned();
    Ok(Kubeconfig { server, server_name, authority, credentials, path: path.to_owned() })
}

/// One that can stand in a URL as its host.
fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| !label.is_empty() && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
    name.parse::<std::net::IpAddr>().is_err() && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Credentials, in_cluster, parse};

    fn config(cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts: [{{name: here, context: {{cluster: c, user: u}}}}]\nclusters: [{{name: c, cluster: {{{cluster}}}}}]\nusers: [{{name: u, user: {{{user}}}}}]\n"
        )
    }

    #[test]
    fn what_is_taken_and_what_is_refused() {
        let server = "server: \"https://127.0.0.1:6443/\"";
        let with = |more: &str| format!("{server}, {more}");
        let cases = [
            (server.to_owned(), "token: abc", Ok("Token")),
            (server.to_owned(), "tokenFile: t", Ok("TokenFile")),
            (server.to_owned(), "client-certificate-data: YQ==, client-key-data: Yg==", Ok("Certificate")),
            (with("certificate-authority-data: YQ=="), "", Ok("Anonymous")),
            (with("tls-server-name: kubernetes.default"), "", Ok("Anonymous")),
            (with("tls-server-name: 127.0.0.1"), "", Err("`tls-server-name` is no DNS name")),
            (with("tls-server-name: 'a b'"), "", Err("`tls-server-name` is no DNS name")),
            (server.to_owned(), "client-certificate-data: YQ==", Err("without its key")),
            (server.to_owned(), "client-certificate-data: '*', client-key-data: Yg==", Err("is no base64")),
            (server.to_owned(), "exec: {command: aws}", Err("`exec` is refused")),
            (server.to_owned(), "auth-provider: {name: gcp}", Err("`auth-provider` is refused")),
            (server.to_owned(), "username: admin, password: x", Err("`username` is refused")),
            (with("insecure-skip-tls-verify: true"), "", Err("`insecure-skip-tls-verify` is refused")),
            (with("proxy-url: \"http://p\""), "", Err("`proxy-url` is refused")),
            ("server: \"http://x\"".to_owned(), "", Err("it is not https")),
            ("a: b".to_owned(), "", Err("has no `server`")),
        ];
        for (cluster, user, want) in cases {
            let got = parse(Path::new("/etc/k.yaml"), &config(&cluster, user));
            match want {
                Ok(kind) => {
                    let got = got.unwrap();
                    assert_eq!(format!("{:?}", got.credentials), kind, "{user}");
                    assert_eq!(got.server, "https://127.0.0.1:6443");
                }
                Err(part) => {
                    let error = got.unwrap_err().to_string();
                    assert!(error.contains(part), "{user}: {error}");
                }
            }
        }
        let quoting = parse(Path::new("k"), "users: [{user: {token: hush}}, }").unwrap_err().to_string();
        assert!(quoting.contains("is no YAML") && !quoting.contains("hush"), "{quoting}");
        for (text, part) in [("{}", "`current-context` is missing"), ("current-context: x", "no context \"x\"")] {
            assert!(parse(Path::new("k"), text).unwrap_err().to_string().contains(part), "{text}");
        }
    }

    #[test]
    fn a_pod_finds_its_account() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), "ca").unwrap();
        let inside = |name: &str| Some(if name.ends_with("HOST") { "fd00::1" } else { "443" }.to_owned());
        let found = in_cluster(folder.path(), inside).unwrap();
        assert_eq!(found.server, "https://[fd00::1]:443");
        assert_eq!(found.credentials, Credentials::TokenFile(folder.path().join("token")));
        assert!(in_cluster(folder.path(), |_| None).is_err());
    }
}
