//! Registry credentials from a file in the form of Docker's `config.json`.
//! Stores and helpers are programs: they are refused by name.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

use crate::ports::runtime::RuntimeError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The registry that an image reference names.
pub(super) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

/// The credentials for an image's registry, if the file has some.
///
/// # Errors
/// When the file can't be read, isn't such a file, or names a helper.
pub(super) fn lookup(file: &Path, image: &str) -> Result<Option<DockerCredentials>, RuntimeError> {
    let refuse = |cause: String, hint: &str| RuntimeError::Refused {
        object: format!("runtime.compose.auth_file {}", file.display()),
        cause,
        hint: Some(hint.to_owned()),
    };
    let format = "write it as {\"auths\": {\"HOST\": {\"auth\": \"…\"}}}, as `docker login` without a store does";
    let text = std::fs::read(file).map_err(|error| RuntimeError::Pull {
        image: image.to_owned(),
        transient: true,
        source: format!("cannot read {}: {error}", file.display()).into(),
    })?;
    parse(&text, registry(image)).map_err(|cause| refuse(cause, format))
}

fn parse(text: &[u8], registry: &str) -> Result<Option<DockerCredentials>, String> {
    let config: Config = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some(store) = config.creds_store {
        return Err(format!("credsStore {store:?} is a program, which the agent does not run"));
    }
    if let Some(helper) = config.cred_helpers.values().next() {
        return Err(format!("credHelpers {helper:?} is a program, which the agent does not run"));
    }
    let host = |key: &str| {
        let bare = key.trim_start_matches("https://").trim_start_matches("http://");
        match bare.split('/').next().unwrap_or_default() {
            "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
            host => host.to_owned(),
        }
    };
    let Some((key, entry)) = config.auths.into_iter().find(|(key, _)| host(key) == registry) else {
        return Ok(None);
    };
    let (mut username, mut password) = (entry.username, entry.password);
    if let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) {
        let bytes = STANDARD.decode(auth.trim()).map_err(|_| format!("auths {key:?}: auth is not base64"))?;
        let pair = String::from_utf8(bytes).map_err(|_| format!("auths {key:?}: auth is not text"))?;
        let (user, pass) = pair.split_once(':').ok_or_else(|| format!("auths {key:?}: auth is not user:password"))?;
        username = Some(user.to_owned());
        password = Some(pass.trim_end_matches('\0').to_owned());
    }
    Ok(Some(DockerCredentials {
        username,
        password,
        identitytoken: entry.identitytoken,
        serveraddress: Some(key),
        ..DockerCredentials::default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for (image, want) in [
            ("alpine", "docker.io"),
            ("library/alpine:3", "docker.io"),
            ("ghcr.io/a/b", "ghcr.io"),
            ("localhost/a", "localhost"),
            ("127.0.0.1:5000/a@sha256:0", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry(image), want);
        }
    }

    #[test]
    fn files() {
        let found = parse(br#"{"auths":{"https://r.example:5000/v2/":{"auth":"dXNlcjpwYTpzcw=="}}}"#, "r.example:5000");
        let found = found.unwrap().unwrap();
        assert_eq!((found.username.as_deref(), found.password.as_deref()), (Some("user"), Some("pa:ss")));
        assert_eq!(parse(br#"{"auths":{"a.b":{}}}"#, "c.d"), Ok(None));
        assert!(parse(br#"{"auths":{"https://index.docker.io/v1/":{}}}"#, "docker.io").unwrap().is_some());
        let refused = parse(br#"{"credsStore":"desktop"}"#, "a.b").unwrap_err();
        assert!(refused.contains("credsStore \"desktop\""), "{refused}");
        assert!(parse(br#"{"credHelpers":{"gcr.io":"gcloud"}}"#, "a.b").unwrap_err().contains("credHelpers"));
        assert!(parse(b"no", "a.b").is_err());
    }
}
