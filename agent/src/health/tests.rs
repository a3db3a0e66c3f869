use std::path::PathBuf;
use std::time::{Duration, Instant};

use fleet::desired::Check;
use fleet::wire::status::Health;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Probes, exec};
use crate::config::settings::HealthSettings;
use crate::ports::prober::Prober as _;

fn probes() -> Probes {
    Probes::new(&HealthSettings { exec: vec!["/bin/sh".into()] })
}

/// Answers every connection with `answer`; its address.
async fn server(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

#[track_caller]
fn check(verdict: &super::Verdict, healthy: bool, part: &str) {
    assert_eq!(verdict.health == Health::Healthy, healthy, "{verdict:?}");
    assert_eq!(verdict.message.is_empty(), healthy, "{verdict:?}");
    assert!(verdict.message.contains(part), "{part:?} in {verdict:?}");
}

#[tokio::test]
async fn http() {
    let probes = probes();
    let fine = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let sick = server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await;
    let moved = server("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
    let get = |address: &str, status| Check::Http { url: format!("http://{address}/healthz"), status };
    check(&probes.probe(&get(&fine, 200)).await, true, "");
    check(&probes.probe(&get(&fine, 204)).await, false, "answered 200 OK, expected 204 No Content");
    check(&probes.probe(&get(&sick, 200)).await, false, "answered 503 Service Unavailable, expected 200 OK");
    // Redirects are not followed, and may be what is expected.
    check(&probes.probe(&get(&moved, 200)).await, false, "answered 302 Found");
    check(&probes.probe(&get(&moved, 302)).await, true, "");
    let garbage = server("what?\r\n\r\n").await;
    check(&probes.probe(&get(&garbage, 200)).await, false, "failed: ");
    check(&probes.probe(&get("127.0.0.1:1", 200)).await, false, "Connection refused");
    // A server that speaks no TLS.
    let secure = Check::Http { url: format!("https://{fine}/"), status: 200 };
    check(&probes.probe(&secure).await, false, "failed: ");
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let started = Instant::now();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    check(&probes().probe(&Check::Http { url, status: 200 }).await, false, "did not answer within 5 s");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    check(&probes().probe(&Check::Tcp(address.clone())).await, true, "");
    drop(listener);
    check(&probes().probe(&Check::Tcp(address)).await, false, "Connection refused");
    check(&probes().probe(&Check::Tcp("no-port".into())).await, false, "no connection to no-port");
}

#[tokio::test]
async fn a_unit_without_systemd_is_not_taken_for_healthy() {
    if crate::systemd::Systemd::is_booted() {
        check(&probes().probe(&Check::Unit("burgee-no-such.service".into())).await, false, "does not exist");
    } else {
        check(&probes().probe(&Check::Unit("a.service".into())).await, false, "does not run systemd");
    }
}

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn exec_runs_only_what_is_allowed() {
    let probes = probes();
    check(&probes.probe(&Check::Exec(shell("exit 0"))).await, true, "");
    let failed = probes.probe(&Check::Exec(shell("echo out; echo broken >&2; exit 3"))).await;
    check(&failed, false, "/bin/sh ended with exit status: 3: broken out");
    for program in ["/bin/true", "sh", "/bin/../bin/sh"] {
        let refused = probes.probe(&Check::Exec(vec![program.to_owned()])).await;
        check(&refused, false, "add it to exec under [health] in agent.toml");
    }
    check(&probes.probe(&Check::Exec(Vec::new())).await, false, "names no program");
    // The agent's environment stays with the agent.
    check(&probes.probe(&Check::Exec(shell("test -z \"$CARGO_MANIFEST_DIR\""))).await, true, "");
}

#[tokio::test]
async fn exec_ends_with_all_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("late").display().to_string();
    let allowed = [PathBuf::from("/bin/sh")];
    let script = shell(&format!("(sleep 1; touch {mark}) & echo waiting; sleep 20"));
    let said = exec::probe_within(Duration::from_millis(200), &allowed, &script).await.unwrap_err();
    assert!(said.contains("was killed: waiting"), "{said}");
    // A child that outlives its parent, and holds its pipes, neither.
    let script = shell(&format!("(sleep 1; touch {mark}) & exit 0"));
    exec::probe_within(Duration::from_secs(5), &allowed, &script).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1300)).await;
    assert!(!folder.path().join("late").exists());
}
