use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::{ControlError, Server, ask, read, spelled};
use crate::ports::control::{Answer, Ask, Refusal, Request};

fn asks() -> Vec<Ask> {
    let app = "pos".parse().unwrap();
    vec![
        Ask::Status,
        Ask::Sync { prune: true },
        Ask::Diff,
        Ask::History,
        Ask::Rollback,
        Ask::Suspend { all: true },
        Ask::Resume,
        Ask::Retry,
        Ask::Logs { app, lines: 7 },
        Ask::Fetched,
        Ask::Anchor { accept: "4f1c0e2d3b5a69788796a5b4c3d2e1f00f1e2d3c".parse().unwrap() },
    ]
}

#[test]
fn an_ask_is_spelled_and_read_back() {
    for ask in asks() {
        let (name, fields) = spelled(&ask);
        let fields = fields.as_object().cloned().unwrap_or_default();
        assert_eq!(read(&name, fields).unwrap().unwrap(), ask);
    }
    assert_eq!(read("sync", Map::new()).unwrap().unwrap(), Ask::Sync { prune: false });
    assert!(read("logs", Map::new()).unwrap().is_err(), "logs of what?");
    assert!(read("shell", Map::new()).is_none());
    for (name, fields) in [("sync", json!({"prun": true})), ("diff", json!({"all": true}))] {
        let Value::Object(fields) = fields else { unreachable!() };
        assert!(read(name, fields).unwrap().is_err(), "{name}");
    }
}

/// Answers with the ask's own spelling; refuses rollbacks.
async fn echo(mut requests: mpsc::Receiver<Request>) {
    while let Some((ask, answer)) = requests.recv().await {
        let refusal = Refusal { reason: "NothingBefore".into(), message: "no way back".into(), hint: Some("x".into()) };
        let said = if ask == Ask::Rollback { Err(refusal) } else { Ok(Answer::Done(format!("{ask:?}"))) };
        drop(answer.send(said));
    }
}

#[tokio::test]
async fn questions_and_answers_over_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/agent.sock");
    match ask(&socket, Ask::Status).await {
        Err(error @ ControlError::Unreachable { .. }) => {
            assert_eq!(error.hint().as_deref(), Some("systemctl start burgee-agent"));
        }
        other => panic!("{other:?}"),
    }
    let server = Server::bind(&socket).unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&socket), mode(socket.parent().unwrap())), (0o660, 0o750));
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(echo(receiver));
    let serving = tokio::spawn(server.run(sender));

    for wanted in asks() {
        match ask(&socket, wanted.clone()).await {
            Ok(Answer::Done(said)) => assert_eq!(said, format!("{wanted:?}")),
            Err(ControlError::Refused(refusal)) => assert_eq!(refusal.message, "no way back"),
            other => panic!("{other:?}"),
        }
    }
    let cases = [
        ("GET /v1/status", "", "200"),
        ("GET /v1/sync", "", "405"),
        ("POST /v1/shell", "", "404"),
        ("GET /", "", "404"),
        ("POST /v1/sync", "nonsense", "400"),
        ("POST /v1/sync", "{\"prune\": 3}", "400"),
        ("POST /v1/rollback", "", "409"),
    ];
    for (line, body, status) in cases {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let request = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        assert_eq!(reply.split(' ').nth(1), Some(status), "{line}: {reply}");
        assert!(status == "200" || reply.contains("\"reason\""), "{reply}");
    }

    // A second agent is refused, a dead one's socket is replaced.
    assert!(matches!(Server::bind(&socket), Err(ControlError::Listen { cause: "another agent listens there", .. })));
    serving.abort();
    drop(serving.await);
    assert!(!socket.exists(), "it goes with the server");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    drop(Server::bind(&socket).unwrap());
    std::fs::write(&socket, "mine").unwrap();
    assert!(matches!(Server::bind(&socket), Err(ControlError::Listen { .. })));
    assert_eq!(std::fs::read(&socket).unwrap(), b"mine");
}
