//! The `[metrics]` listener: the status and the daemon's counters in
//! Prometheus' text format, written by hand.
//!
//! Off unless configured; answers `GET /metrics` and nothing else. It shows
//! what the daemon put into the channel last and never asks it anything.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet::wire::status::{Health, LinkState, PhaseName, Status, Sync};
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

/// Scrapes at once; more wait.
const CONNECTIONS: usize = 8;

/// A number that only rises while the agent runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    /// Without prefix and suffix: `fetches` becomes `burgee_fetches_total`.
    pub name: &'static str,
    pub help: &'static str,
    pub value: u64,
}

/// What is shown.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub status: Status,
    pub counters: Vec<Counter>,
}

/// Serves `source` for as long as it is polled.
///
/// # Errors
/// When the address can't be bound.
pub async fn serve(address: SocketAddr, source: watch::Receiver<Arc<Snapshot>>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    run(listener, source).await;
    Ok(())
}

async fn run(listener: TcpListener, source: watch::Receiver<Arc<Snapshot>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "metrics connection not accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let source = source.clone();
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let shown = (request.method() == http::Method::GET && request.uri().path() == "/metrics")
                    .then(|| Arc::clone(&source.borrow()));
                async move { Ok::<_, Infallible>(respond(shown.as_deref())) }
            });
            let mut http = hyper::server::conn::http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).keep_alive(false);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "metrics connection ended");
            }
        });
    }
}

fn respond(shown: Option<&Snapshot>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(shown.map(expose).unwrap_or_else(|| "see /metrics\n".to_owned())));
    if shown.is_none() {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

const PHASES: [PhaseName; 8] = [
    PhaseName::Starting,
    PhaseName::Steady,
    PhaseName::Preparing,
    PhaseName::Held,
    PhaseName::Applying,
    PhaseName::Probing,
    PhaseName::RollingBack,
    PhaseName::Stalled,
];
const HEALTHS: [Health; 6] =
    [Health::Healthy, Health::Progressing, Health::Degraded, Health::Missing, Health::Suspended, Health::Unknown];

/// The text format: every state of a set has a line of its own, 1 where it holds.
fn expose(snapshot: &Snapshot) -> String {
    let status = &snapshot.status;
    let mut text = Text(String::new());
    text.head("burgee_up", "gauge", "The agent runs.");
    text.line("burgee_up", &[("version", &status.agent)], 1);
    text.head("burgee_phase", "gauge", "The phase that the device is in.");
    for phase in PHASES {
        text.line("burgee_phase", &[("phase", &word(&phase))], u64::from(phase == status.phase));
    }
    text.head("burgee_revision_info", "gauge", "The revision that runs or is being moved to, and last good.");
    let id = |id: &Option<fleet::revision::CommitId>| id.as_ref().map(ToString::to_string).unwrap_or_default();
    let labels = [("revision", id(&status.revision)), ("last_good", id(&status.last_good))];
    text.line("burgee_revision_info", &labels.each_ref().map(|(name, value)| (*name, value.as_str())), 1);
    text.head("burgee_blocked", "gauge", "Revisions that are not tried again unprompted.");
    text.line("burgee_blocked", &[], status.blocked.len() as u64);
    text.head("burgee_suspended", "gauge", "An operator paused the device.");
    text.line("burgee_suspended", &[], u64::from(status.suspended));
    text.head("burgee_app_health", "gauge", "The verdict on an app.");
    for app in &status.apps {
        for health in HEALTHS {
            let labels = [("app", app.name.as_str()), ("health", &word(&health))];
            text.line("burgee_app_health", &labels, u64::from(health == app.health));
        }
    }
    text.head("burgee_app_synced", "gauge", "An app is as Git says.");
    for app in &status.apps {
        text.line("burgee_app_synced", &[("app", app.name.as_str())], u64::from(app.sync == Sync::Synced));
    }
    text.head("burgee_condition", "gauge", "A condition holds.");
    for condition in &status.conditions {
        let labels = [("type", condition.kind.as_str()), ("reason", &condition.reason)];
        text.line("burgee_condition", &labels, u64::from(condition.status));
    }
    text.head("burgee_link_up", "gauge", "A link that is used works.");
    for (name, state) in [("git", status.link.git), ("mqtt", status.link.mqtt), ("hub", status.link.hub)] {
        if state != LinkState::Unused {
            text.line("burgee_link_up", &[("link", name)], u64::from(state == LinkState::Up));
        }
    }
    for counter in &snapshot.counters {
        let name = format!("burgee_{}_total", counter.name);
        text.head(&name, "counter", counter.help);
        text.line(&name, &[], counter.value);
    }
    text.0
}

/// A wire enum's own word.
fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            self.0.push(if place == 0 { '{' } else { ',' });
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{value}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet::wire::status::Status;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::{Counter, Snapshot, expose, run};

    fn snapshot() -> Snapshot {
        let status: Status = serde_json::from_value(serde_json::json!({
            "device": "store-042", "phase": "rolling-back",
            "revision": "4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c", "lastGood": null, "blocked": [],
            "apps": [{"name": "pos", "runtime": "compose", "sync": "updating", "health": "degraded", "digest": null}],
            "conditions": [{"type": "Verified", "status": false, "reason": "Say \"no\"", "message": "",
                            "since": "2026-01-02T03:04:05Z"}],
            "link": {"git": "up", "mqtt": "down", "hub": "unused"}, "agent": "0.1.0"
        }))
        .unwrap();
        Snapshot { status, counters: vec![Counter { name: "fetches", help: "Fetches.", value: 3 }] }
    }

    #[test]
    fn every_line_is_of_the_format() {
        let text = expose(&snapshot());
        for want in [
            "burgee_up{version=\"0.1.0\"} 1",
            "burgee_phase{phase=\"rolling-back\"} 1",
            "burgee_phase{phase=\"steady\"} 0",
            "burgee_revision_info{revision=\"4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c\",last_good=\"\"} 1",
            "burgee_app_health{app=\"pos\",health=\"degraded\"} 1",
            "burgee_app_synced{app=\"pos\"} 0",
            "burgee_condition{type=\"Verified\",reason=\"Say \\\"no\\\"\"} 0",
            "burgee_link_up{link=\"mqtt\"} 0",
            "burgee_blocked 0",
            "burgee_fetches_total 3",
        ] {
            assert!(text.lines().any(|line| line == want), "{want} is not in\n{text}");
        }
        assert!(!text.contains("link=\"hub\""), "an unused link is not a broken one");
        for line in text.lines().filter(|line| !line.starts_with("# ")) {
            assert!(line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(), "{line}");
        }
    }

    #[tokio::test]
    async fn a_scrape_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_sender, receiver) = watch::channel(Arc::new(snapshot()));
        tokio::spawn(run(listener, receiver));
        for (path, status) in [("/metrics", "200"), ("/", "404")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            assert_eq!(reply.split(' ').nth(1), Some(status), "{reply}");
        }
    }
}
