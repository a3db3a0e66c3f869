//! The container engine: whether it answers, and who may ask it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Finding, Grade, PATIENCE, found};
use crate::config::settings::Settings;

/// The longest answer that is read.
const ANSWER: u64 = 64 << 10;

/// Docker's or Podman's socket. Without one, apps of the compose runtime can't
/// run, which is no fault on a device that has none.
pub(super) async fn engine(settings: &Settings) -> Option<Finding> {
    let said = settings.compose.socket.as_deref().map(|socket| socket.strip_prefix("unix://").unwrap_or(socket));
    let usual = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"];
    let path: PathBuf = match said {
        Some(path) => path.into(),
        None => usual.iter().map(PathBuf::from).find(|path| path.exists())?,
    };
    let shown = path.display().to_string();
    Some(match timeout(PATIENCE, version(&path)).await {
        Ok(Ok(Some(version))) => {
            let open = std::fs::metadata(&path).is_ok_and(|metadata| metadata.permissions().mode() & 0o002 != 0);
            let message = format!("{version} answers at {shown}");
            if open {
                found("engine", Grade::Warn, format!("{message}, to everybody on this device"))
                    .hint(format!("chmod o-rw {shown}: whoever may write there is root"))
            } else {
                found("engine", Grade::Ok, message)
            }
        }
        Ok(Ok(None)) => found("engine", Grade::Fail, format!("what listens at {shown} is no container engine"))
            .hint("set runtime.compose.socket to the engine's"),
        Ok(Err(error)) => {
            let hint = match error.kind() {
                ErrorKind::PermissionDenied => "run this as the agent's user, or let it into the engine's group",
                _ => "start Docker or Podman, or set runtime.compose.socket",
            };
            found("engine", Grade::Fail, format!("{shown}: {error}")).hint(hint)
        }
        Err(_) => found("engine", Grade::Fail, format!("no answer at {shown} in time"))
            .hint("restart the engine; what runs stays"),
    })
}

/// `engine 29.1.2 (API 1.52)`; `None`: it is none.
async fn version(path: &Path) -> std::io::Result<Option<String>> {
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split_whitespace().nth(1) == Some("200");
    // The engine's own are behind those of its components: the last ones count.
    let field = |name: &str| {
        let (_, behind) = answer.rsplit_once(&format!("\"{name}\":\""))?;
        behind.split('"').next().map(str::to_owned)
    };
    Ok(field("ApiVersion").filter(|_| status).map(|api| match field("Version") {
        Some(version) => format!("engine {version} (API {api})"),
        None => format!("an engine (API {api})"),
    }))
}

#[cfg(test)]
mod tests {
    use super::{Grade, engine};

    #[tokio::test]
    async fn no_engine() {
        let folder = tempfile::tempdir().unwrap();
        let mut inputs = crate::config::Inputs::default();
        for flag in ["device.name=a", "source.url=/r"] {
            inputs.add_flag(flag).unwrap();
        }
        let socket = folder.path().join("engine.sock");
        inputs.add_flag(&format!("runtime.compose.socket=unix://{}", socket.display())).unwrap();
        let settings = inputs.settings().unwrap();
        assert_eq!(engine(&settings).await.unwrap().result, Grade::Fail);
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = [0; 512];
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut asked).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 404 Not Found\r\n\r\n").await;
            }
        });
        let found = engine(&settings).await.unwrap();
        assert!(found.result == Grade::Fail && found.message.contains("is no container engine"), "{found:?}");
    }
}
