//! Merged inputs → settings: defaults, ranges, and what belongs together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet::name::DeviceName;

use super::facts::Facts;
use super::inputs::{Inputs, Said};
use super::naming::{self, KeptName};
use super::settings::{
    ComposeSettings, ControlSettings, DeviceSettings, FilesSettings, HealthSettings, HubSettings, KubernetesSettings,
    Limits, MqttSettings, Settings, SourceSettings, StoreSettings, UpdateSettings,
};
use super::{ConfigError, KEPT_NAME, PLACES};

const SOCKET: &str = "/run/burgee/agent.sock";

impl Inputs {
    /// The settings that the inputs make.
    ///
    /// # Errors
    /// Names the place, the key and what was expected.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        Ok(Settings {
            device: self.device()?,
            source: self.source()?,
            compose: ComposeSettings { socket: self.engine()?, auth_file: self.path("runtime.compose.auth_file") },
            kubernetes: KubernetesSettings { kubeconfig: self.path("runtime.kubernetes.kubeconfig") },
            files: self.file_settings()?,
            health: HealthSettings { exec: self.absolute("health.exec")? },
            hub: self.hub()?,
            mqtt: self.mqtt()?,
            update: self.update()?,
            store: StoreSettings { path: self.store() },
            control: ControlSettings { socket: self.socket() },
            metrics: self.metrics()?,
            passed_over: None,
        })
    }

    /// The local socket alone: what a question to the agent needs, whatever
    /// else the configuration lacks.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("control.socket").unwrap_or_else(|| SOCKET.into())
    }

    /// The store alone: where a newer agent lies is looked up before all else.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path("store.path").unwrap_or_else(|| "/var/lib/burgee".into())
    }

    /// Where files may be written, which has to be known before a device has its name.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn file_settings(&self) -> Result<FilesSettings, ConfigError> {
        Ok(FilesSettings {
            root: self.path("runtime.files.root").unwrap_or_else(|| "/".into()),
            allow: self.absolute("runtime.files.allow")?,
        })
    }

    /// Files that hold secrets, as far as they are named.
    #[must_use]
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let keys = [
            "source.token_file",
            "source.ssh_key_file",
            "runtime.compose.auth_file",
            "runtime.kubernetes.kubeconfig",
            "hub.token_file",
        ];
        keys.into_iter().filter_map(|key| self.path(key)).collect()
    }

    /// Addresses, in which there may be a password.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        let keys = ["source.url", "source.proxy", "hub.url", "mqtt.url"];
        keys.into_iter().filter_map(|key| self.text(key)).map(|said| said.value).collect()
    }

    /// Where a join token lies, if one is named.
    #[must_use]
    pub fn token_file(&self) -> Option<PathBuf> {
        self.path("hub.token_file")
    }

    fn update(&self) -> Result<UpdateSettings, ConfigError> {
        Ok(UpdateSettings {
            enabled: self.flag("update.enabled").unwrap_or(true),
            limit: Duration::from_secs(self.number("update.limit_secs").unwrap_or(600)),
            ca_file: self.path("update.ca_file").or_else(|| self.path("source.ca_file")),
            proxy: self.url("source.proxy", &["http", "https", "socks5"])?,
        })
    }

    fn device(&self) -> Result<DeviceSettings, ConfigError> {
        let (name, made_from) = match self.text("device.name") {
            Some(said) if naming::is_pattern(&said.value) => (self.made(&said)?, Some(said.value)),
            Some(said) => {
                let name = said.value.parse().map_err(|error: fleet::name::InvalidName| {
                    let folded = said.value.to_ascii_lowercase().replace(['.', '_', ' '], "-");
                    let hint = folded.parse::<DeviceName>().ok().map(|name| format!("{name} would do"));
                    said.wrong(error.to_string(), hint.as_deref())
                })?;
                (name, None)
            }
            None => {
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let name = DeviceName::from_host(&host).map_err(|error| ConfigError::Missing {
                    key: "device.name",
                    cause: format!("the host's name won't do ({error})"),
                    hint: "set device.name in agent.toml".to_owned(),
                })?;
                (name, None)
            }
        };
        let labels = self.labels("device.labels");
        for (key, value) in labels.iter().flat_map(|said| &said.value) {
            let said = labels.as_ref().map(|said| said.with(()));
            let plain = |text: &str| !text.chars().any(char::is_control) && text.len() <= 253;
            if let Some(said) = said.filter(|_| key.is_empty() || !plain(key) || !plain(value)) {
                let cause = format!("label {key:?}: expected up to 253 characters without control characters");
                return Err(said.wrong(cause, None));
            }
        }
        Ok(DeviceSettings { name, made_from, labels: labels.map(|said| said.value).unwrap_or_default() })
    }

    /// The name that a pattern gives: the one that was kept for it, else one
    /// made of what the device is now.
    fn made(&self, said: &Said<String>) -> Result<DeviceName, ConfigError> {
        let kept = std::fs::read(self.store().join(KEPT_NAME)).ok();
        let kept = kept.and_then(|bytes| serde_json::from_slice::<KeptName>(&bytes).ok());
        if let Some(kept) = kept.filter(|kept| kept.pattern == said.value) {
            return Ok(kept.name);
        }
        naming::expand(&said.value, &Facts::read(Path::new("/"))).map_err(|error| {
            let hint = match &error {
                naming::Unnamed::Lacks { .. } => {
                    Some("name it by something else: {serial}, {mac}, {machine-id}, {host}")
                }
                _ => None,
            };
            said.wrong(error.to_string(), hint)
        })
    }

    /// Where the fleet repository is and who may sign: all that `verify` needs.
    ///
    /// # Errors
    /// Names the place, the key and what was expected.
    pub fn source(&self) -> Result<SourceSettings, ConfigError> {
        let url = self.text("source.url").ok_or_else(|| ConfigError::Missing {
            key: "source.url",
            cause: match self.files() {
                [] => format!("there is no file in {}", PLACES.join(", ")),
                files => {
                    format!(
                        "none of {} says it",
                        files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
                    )
                }
            },
            hint: "[source] url = \"https://…\" names the fleet repository".to_owned(),
        })?;
        let branch = self.text("source.branch");
        if let Some(said) = branch.as_ref().filter(|said| !is_branch(&said.value)) {
            return Err(said.wrong(format!("{:?} is no branch name: expected one such as main", said.value), None));
        }
        let floor = self.text("source.floor");
        if let Some(said) = &floor {
            said.value.parse::<fleet::revision::CommitId>().map_err(|error| said.wrong(error.to_string(), None))?;
        }
        let limits = Limits::default();
        let limit = |key: &str, default| self.number(key).unwrap_or(default);
        Ok(SourceSettings {
            url: repository(&url)?,
            branch: branch.map_or_else(|| "main".to_owned(), |said| said.value),
            poll: Duration::from_secs(self.number("source.poll_secs").unwrap_or(300)),
            poll_connected: Duration::from_secs(self.number("source.poll_connected_secs").unwrap_or(3600)),
            trust: self.path("source.trust").unwrap_or_else(|| "/etc/burgee/allowed_signers".into()),
            revoked: self.path("source.revoked").unwrap_or_else(|| "/etc/burgee/revoked_keys".into()),
            floor: floor.map(|said| said.value),
            token_file: self.path("source.token_file"),
            username: self.text("source.username").map(|said| said.value),
            ssh_key_file: self.path("source.ssh_key_file"),
            known_hosts_file: self.path("source.known_hosts_file"),
            ca_file: self.path("source.ca_file"),
            proxy: self.url("source.proxy", &["http", "https", "socks5"])?,
            limits: Limits {
                pack_mib: limit("source.limits.pack_mib", limits.pack_mib),
                blob_mib: limit("source.limits.blob_mib", limits.blob_mib),
                files: limit("source.limits.files", limits.files),
                commits: limit("source.limits.commits", limits.commits),
                depth: limit("source.limits.depth", limits.depth),
            },
        })
    }

    /// `unix://` or a path; anything else would be an engine over the network.
    fn engine(&self) -> Result<Option<String>, ConfigError> {
        let Some(said) = self.text("runtime.compose.socket") else { return Ok(None) };
        if said.value.strip_prefix("unix://").unwrap_or(&said.value).starts_with('/') {
            return Ok(Some(said.value));
        }
        Err(said.wrong(format!("{:?}: expected unix:///path/of/the.sock", said.value), None))
    }

    fn hub(&self) -> Result<Option<HubSettings>, ConfigError> {
        let (ca_file, token_file) = (self.path("hub.ca_file"), self.path("hub.token_file"));
        match self.url("hub.url", &["https", "http"])? {
            Some(url) => Ok(Some(HubSettings { url: url.trim_end_matches('/').to_owned(), ca_file, token_file })),
            None => {
                self.alone("hub.ca_file", "hub.url")?;
                self.alone("hub.token_file", "hub.url").map(|()| None)
            }
        }
    }

    fn mqtt(&self) -> Result<Option<MqttSettings>, ConfigError> {
        let ca_file = self.path("mqtt.ca_file");
        match self.url("mqtt.url", &["mqtts", "mqtt"])? {
            Some(url) => Ok(Some(MqttSettings { url, ca_file })),
            None => self.alone("mqtt.ca_file", "mqtt.url").map(|()| None),
        }
    }

    fn metrics(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(said) = self.text("metrics.listen") else { return Ok(None) };
        let wrong =
            |_| said.wrong(format!("{:?}: expected an address and a port, such as 127.0.0.1:9188", said.value), None);
        said.value.parse().map(Some).map_err(wrong)
    }

    /// A key that means nothing without `other`.
    fn alone(&self, key: &str, other: &str) -> Result<(), ConfigError> {
        self.text(key).map_or(Ok(()), |said| Err(said.wrong(format!("{other} is not set"), None)))
    }

    fn url(&self, key: &str, schemes: &[&str]) -> Result<Option<String>, ConfigError> {
        let Some(said) = self.text(key) else { return Ok(None) };
        let rest = said.value.split_once("://").filter(|(scheme, _)| schemes.contains(scheme));
        if rest.is_some_and(|(_, host)| !host.is_empty() && !host.starts_with('/')) {
            return Ok(Some(said.value));
        }
        let forms: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://…")).collect();
        Err(said.wrong(format!("{:?}: expected {}", said.value, forms.join(" or ")), None))
    }

    fn absolute(&self, key: &str) -> Result<Vec<PathBuf>, ConfigError> {
        let Some(said) = self.texts(key) else { return Ok(Vec::new()) };
        let relative = said.value.iter().find(|path| !Path::new(path).is_absolute());
        match relative {
            Some(path) => Err(said.wrong(format!("{path:?}: expected an absolute path"), None)),
            None => Ok(said.value.iter().map(PathBuf::from).collect()),
        }
    }
}

/// A URL that the source can fetch from; a relative path becomes absolute.
fn repository(said: &Said<String>) -> Result<String, ConfigError> {
    let url = said.value.as_str();
    let scp =
        || url.split_once(':').is_some_and(|(host, path)| !host.contains('/') && !host.is_empty() && !path.is_empty());
    match url.split_once("://") {
        Some(("https" | "http" | "ssh" | "file", rest)) if !rest.is_empty() => {
            let secret = rest
                .split('/')
                .next()
                .and_then(|host| host.rsplit_once('@'))
                .is_some_and(|(user, _)| user.contains(':'));
            if secret {
                let hint = "put the password into a file and name it in source.token_file";
                return Err(said.wrong("a password does not belong into a URL", Some(hint)));
            }
            Ok(url.to_owned())
        }
        None if url.starts_with('.') || url.starts_with('/') => Ok(said.path().display().to_string()),
        None if scp() => Ok(url.to_owned()),
        _ => Err(said.wrong(format!("{url:?}: expected https://…, ssh://…, user@host:path, file://… or a path"), None)),
    }
}

/// The part of `git check-ref-format` that matters in a refspec.
fn is_branch(name: &str) -> bool {
    let plain = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    name.chars().all(plain)
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("@{")
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
}
