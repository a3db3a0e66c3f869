//! One watch of one kind, metadata alone: lines of JSON for as long as it lasts.

use std::time::Duration;

use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::discovery::Resource;
use super::error::{ApiError, Status};
use super::list::encoded;
use super::meta::Meta;
use super::transport::{Request, unreachable};
use super::{Api, META};

/// The server ends a watch after this; the next goes on where it ended.
const LASTS: Duration = Duration::from_secs(540);
/// Bookmarks come about once a minute; a connection that is silent for longer
/// than a watch lasts is dead.
const SILENCE: Duration = Duration::from_secs(600);
/// Until it has begun: a server that hangs takes connections and answers none.
const BEGINS: Duration = Duration::from_secs(30);
/// One event.
const LARGEST: usize = 8 << 20;

/// What a watch tells.
#[derive(Debug)]
pub enum WatchEvent {
    /// It is there, new or changed.
    Applied(Meta),
    /// It is gone, or no longer matches the selector.
    Deleted(Meta),
    /// Nothing new up to this version.
    Bookmark(String),
}

/// See the module.
pub struct Watch {
    response: Response,
    server: String,
    buffer: Vec<u8>,
    /// How much of the buffer was looked at for an end of line.
    looked: usize,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct Marked {
    metadata: Mark,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mark {
    resource_version: String,
}

impl Api {
    /// Watches a kind from a version on that a listing gave.
    ///
    /// # Errors
    /// When the server refuses; [`ApiError::is_gone`] where that version is forgotten.
    pub async fn watch(&self, resource: &Resource, selector: &str, version: &str) -> Result<Watch, ApiError> {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}&labelSelector={}",
            resource.path(None, None),
            LASTS.as_secs(),
            encoded(version),
            encoded(selector)
        );
        let request = Request { method: Method::GET, path: &path, accept: META, body: None, limit: None };
        let server = self.connect()?.server.to_string();
        let response = match tokio::time::timeout(BEGINS, self.send(&request)).await {
            Ok(response) => response?,
            Err(_) => {
                let source = format!("no answer within {} s", BEGINS.as_secs()).into();
                return Err(ApiError::Unreachable { server, hint: None, source });
            }
        };
        Ok(Watch { response, server, buffer: Vec::new(), looked: 0 })
    }
}

impl Watch {
    /// The next event; `None` at its end. Cancel-safe: what was read stays.
    ///
    /// # Errors
    /// When the connection breaks, an event is not understood, or the server
    /// says that the version is forgotten ([`ApiError::is_gone`]).
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, ApiError> {
        loop {
            if let Some(line) = take_line(&mut self.buffer, &mut self.looked) {
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return event(&line).map(Some);
            }
            if self.buffer.len() > LARGEST {
                return Err(ApiError::Unreadable { cause: "an event of a watch is too large".to_owned() });
            }
            match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Ok(Ok(Some(chunk))) => self.buffer.extend_from_slice(&chunk),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(unreachable(&self.server, error)),
                Err(_) => {
                    return Err(ApiError::Unreachable {
                        server: self.server.clone(),
                        hint: None,
                        source: format!("nothing was heard for {} s", SILENCE.as_secs()).into(),
                    });
                }
            }
        }
    }
}

fn take_line(buffer: &mut Vec<u8>, looked: &mut usize) -> Option<Vec<u8>> {
    let Some(end) = buffer[*looked..].iter().position(|byte| *byte == b'\n') else {
        *looked = buffer.len();
        return None;
    };
    let end = *looked + end;
    let rest = buffer.split_off(end + 1);
    let mut line = std::mem::replace(buffer, rest);
    line.pop();
    *looked = 0;
    Some(line)
}

fn event(line: &[u8]) -> Result<WatchEvent, ApiError> {
    let unread = |error: serde_json::Error| ApiError::Unreadable { cause: error.to_string() };
    let text = std::str::from_utf8(line).map_err(|error| ApiError::Unreadable { cause: error.to_string() })?;
    let line: Line<'_> = serde_json::from_str(text).map_err(unread)?;
    match line.kind {
        "ADDED" | "MODIFIED" => Meta::read(line.object.get()).map(WatchEvent::Applied).map_err(unread),
        "DELETED" => Meta::read(line.object.get()).map(WatchEvent::Deleted).map_err(unread),
        "BOOKMARK" => serde_json::from_str::<Marked>(line.object.get())
            .map(|marked| WatchEvent::Bookmark(marked.metadata.resource_version))
            .map_err(unread),
        "ERROR" => {
            let status: Status = serde_json::from_str(line.object.get()).map_err(unread)?;
            Err(ApiError::refused(if status.code == 0 { 500 } else { status.code }, line.object.get().as_bytes()))
        }
        other => Err(ApiError::Unreadable { cause: format!("{other:?} is no event of a watch") }),
    }
}

#[cfg(test)]
mod tests {
    use super::{WatchEvent, event, take_line};

    #[test]
    fn lines_come_in_pieces() {
        let (mut buffer, mut looked, mut lines) = (Vec::new(), 0, Vec::new());
        for piece in ["{\"a\"", ":1}\n{\"b\":", "2}\n\n", "{\"c\":3}"] {
            buffer.extend_from_slice(piece.as_bytes());
            while let Some(line) = take_line(&mut buffer, &mut looked) {
                lines.push(String::from_utf8(line).unwrap());
            }
        }
        assert_eq!(lines, ["{\"a\":1}", "{\"b\":2}", ""]);
        assert_eq!(buffer, b"{\"c\":3}");
    }

    #[test]
    fn events() {
        let object = r#"{"metadata":{"name":"a","resourceVersion":"5"}}"#;
        let read = |kind: &str, object: &str| event(format!(r#"{{"type":"{kind}","object":{object}}}"#).as_bytes());
        assert!(matches!(read("ADDED", object), Ok(WatchEvent::Applied(meta)) if meta.name == "a"));
        assert!(matches!(read("DELETED", object), Ok(WatchEvent::Deleted(_))));
        assert!(matches!(read("BOOKMARK", object), Ok(WatchEvent::Bookmark(version)) if version == "5"));
        let gone = r#"{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}"#;
        assert!(read("ERROR", gone).unwrap_err().is_gone());
        assert!(read("WHAT", object).is_err());
        assert!(event(b"no json").is_err());
    }
}
