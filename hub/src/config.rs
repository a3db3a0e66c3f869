//! The hub's configuration: one TOML file, checked whole before anything is opened.
//!
//! `data` alone is enough. What would expose something by accident (the page
//! without a password, plain text on a network) is refused with a hint, and
//! needs a word in the file. Nothing here opens a socket or the store.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::name::FleetName;
use serde::Deserialize;

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file itself.
    #[error("reading {path} failed")]
    Read {
        /// Which file.
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, or a key that the hub does not know.
    #[error("{path} is not a configuration of the hub")]
    Parse {
        /// Which file.
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that can't be honoured.
    #[error("{key}: {what}")]
    Value {
        /// The key, with its table: `mqtt.url`.
        key: &'static str,
        /// What is wrong with it.
        what: String,
        /// What to write instead.
        hint: &'static str,
    },
}

impl ConfigError {
    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Value { hint, .. } => Some(hint),
            Self::Read { .. } => Some("the hub needs --config FILE; packaging/hub.toml is an example"),
            Self::Parse { .. } => None,
        }
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data: PathBuf,
    fleet: Option<FleetName>,
    listen: Option<SocketAddr>,
    public_url: Option<String>,
    #[serde(default)]
    plain: bool,
    tls: Option<TlsFiles>,
    #[serde(default)]
    mqtt: MqttTable,
    #[serde(default)]
    page: PageTable,
    #[serde(default)]
    webhook: Webhooks,
    #[serde(default)]
    devices: DevicesTable,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MqttTable {
    enabled: Option<bool>,
    listen: Option<SocketAddr>,
    #[serde(default)]
    plain: bool,
    url: Option<String>,
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    public_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct PageTable {
    user: Option<String>,
    password_file: Option<PathBuf>,
    title: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DevicesTable {
    report_secs: Option<u64>,
    silent_after: Option<u32>,
    keep_days: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    reports_per_minute: Option<u32>,
    devices: Option<usize>,
}

/// Certificate and key, PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// One secret file for each kind of webhook that is to be accepted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// `X-Hub-Signature-256`.
    pub github_secret_file: Option<PathBuf>,
    /// `X-Gitlab-Token`.
    pub gitlab_secret_file: Option<PathBuf>,
    /// `X-Gitea-Signature`.
    pub gitea_secret_file: Option<PathBuf>,
    /// `X-Burgee-Signature`.
    pub plain_secret_file: Option<PathBuf>,
    /// Only pushes to this branch count; `None`: any.
    pub branch: Option<String>,
    /// How many devices may fetch in a second after a push; from 100 devices on.
    pub fetches_per_sec: Option<u64>,
}

/// Where the MQTT broker is.
#[derive(Clone, Debug)]
pub enum Broker {
    /// No MQTT: reports and commands go over HTTP alone.
    Off,
    /// In this process.
    Embedded {
        /// Where devices connect.
        listen: SocketAddr,
    },
    /// Somebody else's.
    External {
        /// Host and port.
        host: String,
        /// 1883 or 8883 where the URL names none.
        port: u16,
        /// `mqtts`.
        tls: bool,
        /// Who may have signed its certificate; `None`: the system's roots.
        ca_file: Option<PathBuf>,
        /// Who the hub is to the broker.
        username: Option<String>,
        /// With what.
        password_file: Option<PathBuf>,
    },
}

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Database, key and sockets.
    pub data: PathBuf,
    /// Part of the MQTT topics and of every message.
    pub fleet: FleetName,
    /// HTTP(S).
    pub listen: SocketAddr,
    /// How devices and people reach the hub, without a trailing slash.
    pub public_url: String,
    /// TLS of both listeners.
    pub tls: Option<TlsFiles>,
    /// MQTT.
    pub broker: Broker,
    /// What devices are told to connect to; `None`: no MQTT, or they know by themselves.
    pub mqtt_public_url: Option<String>,
    /// User and password file of the page.
    pub page_login: Option<(String, PathBuf)>,
    /// The page's heading.
    pub page_title: String,
    /// Secrets.
    pub webhooks: Webhooks,
    /// After this long without a report, a device is silent.
    pub silent_after: Duration,
    /// Reports and events older than this are dropped.
    pub keep: Duration,
    /// Reports that one device may send in a minute.
    pub reports_per_minute: u32,
    /// Devices that may be enrolled.
    pub devices: usize,
}

impl Config {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// When the file can't be read, has unknown keys or values that can't be honoured.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks the text of a configuration; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        file.check()
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl File {
    fn check(self) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or(loopback(8710));
        let open = !listen.ip().is_loopback();
        if open && self.tls.is_none() && !self.plain {
            return Err(ConfigError::Value {
                key: "listen",
                what: format!("{listen} is not loopback, and there is no [tls]"),
                hint: "add [tls] cert_file and key_file, or say `plain = true` if a proxy in front does TLS",
            });
        }
        if open && self.page.password_file.is_none() {
            return Err(ConfigError::Value {
                key: "page.password_file",
                what: format!("missing, and {listen} is not loopback: anyone could read the page"),
                hint: "write a password into a file of mode 0600 and name it in [page] password_file",
            });
        }
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let public_url = match self.public_url {
            None if listen.ip().is_unspecified() => {
                return Err(ConfigError::Value {
                    key: "public_url",
                    what: format!("missing, and {listen} is no address that a device could reach"),
                    hint: "say how devices reach this hub: public_url = \"https://hub.example.com:8710\"",
                });
            }
            None => format!("{scheme}://{listen}"),
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => {
                url.trim_end_matches('/').to_owned()
            }
            Some(url) => {
                return Err(ConfigError::Value {
                    key: "public_url",
                    what: format!("{url:?} is no http or https URL"),
                    hint: "write it as https://hub.example.com",
                });
            }
        };
        let (broker, mqtt_public_url) = self.mqtt.check(self.tls.is_some(), listen.ip(), &public_url)?;
        let report = self.devices.report_secs.unwrap_or(1800);
        let times = self.devices.silent_after.unwrap_or(3);
        if report == 0 || times == 0 {
            return Err(ConfigError::Value {
                key: "devices.report_secs",
                what: "0 would make every device silent".to_owned(),
                hint: "leave out report_secs and silent_after for 3 × 1800 seconds",
            });
        }
        let branch = self.webhook.branch.clone().map(|branch| match branch.strip_prefix("refs/heads/") {
            Some(short) => short.to_owned(),
            None => branch,
        });
        Ok(Config {
            data: self.data,
            fleet: match self.fleet {
                Some(name) => name,
                None => default_fleet()?,
            },
            listen,
            public_url,
            tls: self.tls,
            broker,
            mqtt_public_url,
            page_login: self
                .page
                .password_file
                .map(|file| (self.page.user.unwrap_or_else(|| "burgee".to_owned()), file)),
            page_title: self.page.title.unwrap_or_else(|| "burgee".to_owned()),
            webhooks: Webhooks { branch, ..self.webhook },
            silent_after: Duration::from_secs(report.saturating_mul(u64::from(times))),
            keep: Duration::from_secs(u64::from(self.devices.keep_days.unwrap_or(30)) * 86_400),
            reports_per_minute: self.limits.reports_per_minute.unwrap_or(600).max(1),
            devices: self.limits.devices.unwrap_or(100_000),
        })
    }
}

fn default_fleet() -> Result<FleetName, ConfigError> {
    "fleet".parse().map_err(|_| ConfigError::Value {
        key: "fleet",
        what: "missing".to_owned(),
        hint: "write the name that burgee.yaml has",
    })
}

impl MqttTable {
    /// `address`: where the hub itself listens.
    fn check(self, tls: bool, address: IpAddr, public_url: &str) -> Result<(Broker, Option<String>), ConfigError> {
        if self.enabled == Some(false) {
            return Ok((Broker::Off, None));
        }
        if let Some(url) = self.url {
            if self.listen.is_some() {
                return Err(ConfigError::Value {
                    key: "mqtt.listen",
                    what: "given together with mqtt.url".to_owned(),
                    hint: "url names an external broker, listen the embedded one: keep one of them",
                });
            }
            let (host, port, tls) = split_mqtt(&url).ok_or(ConfigError::Value {
                key: "mqtt.url",
                what: format!("{url:?} is no MQTT URL"),
                hint: "write it as mqtts://broker.example.com:8883",
            })?;
            let broker = Broker::External {
                host,
                port,
                tls,
                ca_file: self.ca_file,
                username: self.username,
                password_file: self.password_file,
            };
            return Ok((broker, Some(self.public_url.unwrap_or(url))));
        }
        // Who reaches the hub over TLS reaches its broker, too; in the clear it is never opened by itself.
        let listen = self.listen.unwrap_or(if tls { SocketAddr::new(address, 8883) } else { loopback(1883) });
        if !listen.ip().is_loopback() && !tls && !self.plain {
            return Err(ConfigError::Value {
                key: "mqtt.listen",
                what: format!("{listen} is not loopback, and there is no [tls]"),
                hint: "add [tls], or say `plain = true` in [mqtt] if that network is trusted",
            });
        }
        let host = host_of(public_url).unwrap_or_else(|| listen.ip().to_string());
        let scheme = if tls { "mqtts" } else { "mqtt" };
        let port = listen.port();
        // Port 0 is known only once it is bound.
        let known = (port != 0).then(|| format!("{scheme}://{host}:{port}"));
        Ok((Broker::Embedded { listen }, self.public_url.or(known)))
    }
}

/// Host, port and whether it is TLS.
fn split_mqtt(url: &str) -> Option<(String, u16, bool)> {
    let (tls, rest) = match url.split_once("://")? {
        ("mqtts", rest) => (true, rest),
        ("mqtt", rest) => (false, rest),
        _ => return None,
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', '@', ' ']) {
        return None;
    }
    let default = if tls { 8883 } else { 1883 };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (rest, default),
    };
    Some((host.trim_matches(['[', ']']).to_owned(), port, tls)).filter(|(host, ..)| !host.is_empty())
}

fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(host.to_owned()).filter(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Broker, Config, split_mqtt};

    fn check(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("hub.toml")).map_err(|error| crate::exit::chain(&error))
    }

    #[test]
    fn data_alone_is_enough() {
        let config = check("data = '/var/lib/burgee-hub'").expect("defaults");
        assert!(config.listen.ip().is_loopback());
        assert_eq!(config.public_url, "http://127.0.0.1:8710");
        assert_eq!(config.mqtt_public_url.as_deref(), Some("mqtt://127.0.0.1:1883"));
        assert!(config.page_login.is_none());
    }

    #[test]
    fn over_tls_the_broker_is_as_open_as_the_hub() {
        let tls = "[tls]\ncert_file = '/c'\nkey_file = '/k'\n[page]\npassword_file = '/p'\n";
        let open =
            check(&format!("data = '/d'\nlisten = '0.0.0.0:8710'\npublic_url = 'https://hub.example.com:8710'\n{tls}"))
                .expect("a hub for devices");
        assert!(matches!(open.broker, Broker::Embedded { listen } if listen.to_string() == "0.0.0.0:8883"));
        assert_eq!(open.mqtt_public_url.as_deref(), Some("mqtts://hub.example.com:8883"));
        let closed = check(&format!("data = '/d'\n{tls}")).expect("a hub on loopback");
        assert!(matches!(closed.broker, Broker::Embedded { listen } if listen.ip().is_loopback()));
    }

    #[test]
    fn the_example_is_a_configuration() {
        let text = include_str!("../../packaging/hub.toml");
        check(text).expect("packaging/hub.toml");
        // Every commented-out setting must be one, too.
        let all: String = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| setting(rest)).unwrap_or(line))
            .filter(|line| !line.starts_with("url = "))
            .map(|line| format!("{line}\n"))
            .collect();
        check(&all).unwrap_or_else(|error| panic!("{error}\n{all}"));
    }

    fn setting(line: &str) -> bool {
        let key = line.split(" = ").next().unwrap_or_default();
        line.starts_with('[') || key != line && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            ("data = '/d'\nlissen = '127.0.0.1:1'", "unknown field `lissen`"),
            ("data = '/d'\n[mqtt]\nurl = 'http://x'", "no MQTT URL"),
            ("data = '/d'\nlisten = '0.0.0.0:80'", "no [tls]"),
            ("data = '/d'\nplain = true\nlisten = '0.0.0.0:80'", "page.password_file: missing"),
            (
                "data = '/d'\nplain = true\nlisten = '0.0.0.0:80'\n[page]\npassword_file = '/p'",
                "public_url: missing, and 0.0.0.0:80 is no address that a device could reach",
            ),
            ("data = '/d'\n[mqtt]\nlisten = '0.0.0.0:1883'", "no [tls]"),
            ("data = '/d'\n[mqtt]\nlisten = '127.0.0.1:1883'\nurl = 'mqtt://b'", "together with mqtt.url"),
            ("data = '/d'\nfleet = 'A/B'", "is not a name"),
            ("data = '/d'\npublic_url = 'hub'", "no http or https URL"),
            ("", "missing field `data`"),
        ];
        for (text, want) in cases {
            let error = check(text).expect_err(text);
            assert!(error.contains(want), "{text:?}: {error}");
        }
    }

    #[test]
    fn mqtt_urls() {
        let cases = [
            ("mqtt://b", Some(("b", 1883, false))),
            ("mqtts://b.example.com:9/", Some(("b.example.com", 9, true))),
            ("mqtts://[::1]:9", Some(("::1", 9, true))),
            ("mqtts://[::1]", Some(("::1", 8883, true))),
            ("mqtt://", None),
            ("mqtt://u@b", None),
            ("tcp://b", None),
            ("mqtt://b:99999", None),
        ];
        for (url, want) in cases {
            assert_eq!(split_mqtt(url), want.map(|(h, p, t)| (h.to_owned(), p, t)), "{url}");
        }
        let config = check("data = '/d'\n[mqtt]\nenabled = false").expect("off");
        assert!(matches!(config.broker, Broker::Off));
    }
}
