//! Git hosts of every kind: smart HTTP with and without TLS, credentials and
//! a proxy; ssh; and those that don't answer. By `verify`, and by the real
//! agent to the end.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::broker::Certificates;
use harness::device::{Device, Setup};
use harness::forge::{self, Forge, Guard};
use harness::net::{answers, free_port};
use harness::process::{Running, run};
use harness::proxy::Proxy;
use harness::repo::Signer;
use harness::trust::Stage;
use harness::wait::until;

/// A commit of `stage` that gives a device one file.
fn one_file(stage: &Stage) -> String {
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web]\n");
    stage.repo.write(
        "apps/web/app.yaml",
        "runtime: files\nfiles:\n  - {from: page.txt, to: /etc/web/}\nhealth: {timeout: 2s, soak: 100ms}\n",
    );
    stage.repo.write("apps/web/files/page.txt", "one\n");
    stage.repo.commit("one file")
}

/// `run --once` of a fresh device with these lines in `[source]`: its exit
/// code, and what it printed.
fn once(stage: &Stage, name: &str, url: &str, lines: &str) -> (Option<i32>, String) {
    let setup = Setup::new(name, url, &stage.lines()).source(lines);
    let device = Device::new(stage.folder.path(), &setup);
    let done = device.call(&["run", "--once"]);
    let page = std::fs::read_to_string(device.folder.join("root/etc/web/page.txt")).unwrap_or_default();
    assert_eq!(done.status.success(), page == "one\n", "{done:?}");
    (done.status.code(), String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A key of `[source]` for `--set`.
fn set(key: &str, value: &str) -> [String; 2] {
    ["--set".to_owned(), format!("source.{key}={value}")]
}

fn verify(stage: &Stage, url: &str, keys: &[(&str, &str)]) -> harness::trust::Said {
    let set: Vec<String> = keys.iter().flat_map(|(key, value)| set(key, value)).collect();
    stage.verify_at(url, &set.iter().map(String::as_str).collect::<Vec<_>>())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// A folder below the stage's.
fn folder(stage: &Stage, name: &str) -> std::path::PathBuf {
    let path = stage.folder.path().join(name);
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

/// A host with TLS that lets in whom `guard` says, with the stage's head.
fn tls_host(stage: &Stage, name: &str, certificates: &Certificates, guard: Guard) -> Forge {
    let setup = forge::Setup { certificates: Some(certificates.clone()), guard, ..Default::default() };
    let forge = Forge::start_with(&folder(stage, name), setup);
    stage.repo.push(text(&forge.bare()), true);
    forge
}

#[test]
fn over_https_only_a_host_that_can_prove_its_name() {
    let stage = Stage::new();
    let head = one_file(&stage);
    let ours = Certificates::new(&folder(&stage, "ours"));
    let forge = tls_host(&stage, "host", &ours, Guard::Nobody);
    let ca = text(&ours.ca);
    verify(&stage, &forge.url(), &[("ca_file", ca)]).holds(&head);
    assert_eq!(once(&stage, "known", &forge.url(), &format!("ca_file = \"{ca}\"")).0, Some(0));

    // An authority that nobody named; another one than was named.
    let others = Certificates::new(&folder(&stage, "others"));
    for keys in [&[][..], &[("ca_file", text(&others.ca))]] {
        let said = verify(&stage, &forge.url(), keys);
        said.failed(5, "GitUnreachable");
        said.failed(5, "certificate");
        said.failed(5, "source.ca_file");
    }
    let (code, out) = once(&stage, "unknown", &forge.url(), "");
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("certificate") && out.contains("source.ca_file"), "{out}");

    // The right authority, for another name.
    let elsewhere = Certificates::of(&folder(&stage, "elsewhere"), "DNS:other.example.com");
    let forge = tls_host(&stage, "impostor", &elsewhere, Guard::Nobody);
    let said = verify(&stage, &forge.url(), &[("ca_file", text(&elsewhere.ca))]);
    said.failed(5, "GitUnreachable");
    said.failed(5, "other.example.com");
    let (code, out) = once(&stage, "elsewhere", &forge.url(), &format!("ca_file = \"{}\"", text(&elsewhere.ca)));
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("other.example.com"), "{out}");

    // What is no certificate at all is a setting to mend.
    let empty = stage.file("empty.pem", "");
    verify(&stage, &forge.url(), &[("ca_file", text(&empty))]).failed(2, "empty.pem");
}

#[test]
fn over_https_with_credentials() {
    let stage = Stage::new();
    let head = one_file(&stage);
    let ours = Certificates::new(&folder(&stage, "ours"));
    let ca = text(&ours.ca);
    let (right, wrong) = (stage.file("right", "sesame\n"), stage.file("wrong", "open-barley\n"));
    let (right, wrong) = (text(&right), text(&wrong));
    let token = tls_host(&stage, "token", &ours, Guard::Bearer("sesame".to_owned()));
    let basic = tls_host(&stage, "basic", &ours, Guard::Basic("store".to_owned(), "sesame".to_owned()));
    verify(&stage, &token.url(), &[("ca_file", ca), ("token_file", right)]).holds(&head);
    verify(&stage, &basic.url(), &[("ca_file", ca), ("username", "store"), ("token_file", right)]).holds(&head);
    let lines = format!("ca_file = \"{ca}\"\ntoken_file = \"{right}\"");
    assert_eq!(once(&stage, "by-token", &token.url(), &lines).0, Some(0));
    assert_eq!(once(&stage, "by-name", &basic.url(), &format!("{lines}\nusername = \"store\"")).0, Some(0));

    let refused: [(&Forge, &[(&str, &str)]); 5] = [
        (&token, &[("token_file", wrong)]),
        (&token, &[]),
        (&basic, &[("username", "store"), ("token_file", wrong)]),
        (&basic, &[("username", "stranger"), ("token_file", right)]),
        (&basic, &[("token_file", right)]),
    ];
    for (forge, keys) in refused {
        let said = verify(&stage, &forge.url(), &[&[("ca_file", ca)], keys].concat());
        said.failed(5, "the host wants other credentials: HTTP 401");
        said.failed(5, "source.token_file");
        assert!(!said.err.contains("sesame") && !said.err.contains("barley"), "{said:?}");
    }
    let (code, out) = once(&stage, "refused", &token.url(), &format!("ca_file = \"{ca}\"\ntoken_file = \"{wrong}\""));
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("credentials") && !out.contains("barley"), "{out}");
    verify(&stage, &token.url(), &[("ca_file", ca), ("token_file", "/no/such/token")]).failed(1, "/no/such/token");
}

#[test]
fn through_a_proxy_that_connects() {
    let stage = Stage::new();
    let head = one_file(&stage);
    // A name that nobody knows but the proxy.
    let ours = Certificates::of(&folder(&stage, "ours"), "DNS:git.burgee.invalid");
    let ca = text(&ours.ca);
    let forge = tls_host(&stage, "host", &ours, Guard::Bearer("sesame".to_owned()));
    let url = format!("{}/fleet.git", forge.origin("git.burgee.invalid"));
    let proxy = Proxy::start(forge.port);
    let token = stage.file("token", "sesame\n");
    let token = text(&token);
    let keys = [("ca_file", ca), ("token_file", token)];
    verify(&stage, &url, &[&keys[..], &[("proxy", &proxy.url())]].concat()).holds(&head);
    let lines = format!("ca_file = \"{ca}\"\ntoken_file = \"{token}\"\nproxy = \"{}\"", proxy.url());
    assert_eq!(once(&stage, "behind", &url, &lines).0, Some(0));
    let asked = proxy.asked();
    let wanted = format!("CONNECT git.burgee.invalid:{} HTTP/1.1", forge.port);
    assert!(asked.len() >= 2 && asked.iter().all(|line| *line == wanted), "{asked:?}");

    // Without it there is no such name; with one that is away, that is said.
    verify(&stage, &url, &keys).failed(5, "GitUnreachable");
    let away = format!("http://127.0.0.1:{}", free_port());
    verify(&stage, &url, &[&keys[..], &[("proxy", &away)]].concat()).failed(5, "GitUnreachable");
    // A proxy can't pass for the host.
    let others = Certificates::new(&folder(&stage, "others"));
    let impostor = tls_host(&stage, "impostor", &others, Guard::Nobody);
    let proxy = Proxy::start(impostor.port);
    verify(&stage, &url, &[&keys[..], &[("proxy", &proxy.url())]].concat()).failed(5, "certificate");
}

#[test]
fn over_smart_http() {
    let stage = Stage::new();
    let forge = Forge::start(stage.folder.path());
    let one = stage.repo.commit("one");
    stage.repo.push(&forge.url(), true);
    stage.verify_at(&forge.url(), &[]).holds(&one);
    stage.repo.commit_unsigned("two");
    let three = stage.repo.commit("three");
    stage.repo.push(&forge.url(), true);
    stage.verify_at(&forge.url(), &["--after", &one]).holds(&three);
    stage.repo.commit_unsigned("four");
    stage.repo.push(&forge.url(), true);
    stage.verify_at(&forge.url(), &[]).refused("Unsigned");
    stage.verify_at(&forge.url().replace("fleet.git", "none.git"), &[]).failed(5, "GitUnreachable");
}

#[test]
fn hosts_that_do_not_answer() {
    let stage = Stage::new();
    stage.repo.commit("one");
    let port = free_port();
    stage.verify_at(&format!("http://127.0.0.1:{port}/x.git"), &[]).failed(5, "GitUnreachable");
    stage.verify_at("/no/such/repository", &[]).failed(5, "GitUnreachable");

    // One that listens and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port();
    let begun = std::time::Instant::now();
    stage.verify_at(&format!("http://127.0.0.1:{port}/x.git"), &["--timeout", "1"]).failed(5, "no byte for 1 s");
    assert!(begun.elapsed() < Duration::from_secs(20));

    // One that wants a token; it is sent, and nowhere but there.
    let strict = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = strict.local_addr().expect("an address").port();
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = strict.accept().expect("a caller");
        let mut request = Vec::new();
        let mut buffer = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").expect("an answer");
        String::from_utf8_lossy(&request).to_lowercase()
    });
    let token = stage.file("token", "sesame\n");
    let token = token.to_str().expect("a UTF-8 path");
    let said = stage.verify_at(&format!("http://127.0.0.1:{port}/x.git"), &["--token-file", token]);
    said.failed(5, "source.token_file");
    assert!(asked.join().expect("a request").contains("authorization: bearer sesame"));
    assert!(!said.err.contains("sesame"), "{said:?}");
}

#[test]
fn over_ssh_only_a_host_that_is_known() {
    let stage = Stage::new();
    let head = one_file(&stage);
    let folder = stage.folder.path();
    let (host, user) = (Signer::new(folder, "host"), Signer::new(folder, "user"));
    let port = free_port();
    let path = |name: &str| folder.join(name).display().to_string();
    std::fs::write(path("authorized"), format!("{}\n", user.public())).expect("a file");
    std::fs::write(path("known"), format!("[127.0.0.1]:{port} {}\n", host.public())).expect("a file");
    std::fs::write(path("others"), format!("[127.0.0.1]:{port} {}\n", user.public())).expect("a file");
    std::fs::write(path("nobody"), "").expect("a file");
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
         PidFile none\nAcceptEnv GIT_PROTOCOL\nPermitRootLogin yes\n",
        host.key.display(),
        path("authorized"),
    );
    std::fs::write(path("sshd_config"), config).expect("a file");
    std::fs::create_dir_all("/run/sshd").expect("sshd's folder");
    let sshd = Running::start(
        Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f", &path("sshd_config")]),
        Path::new(&path("sshd.log")),
    );
    until("sshd", Duration::from_secs(10), || answers(port).then_some(()));
    let me = run(Command::new("id").arg("-un"));
    let url = format!("ssh://{}@127.0.0.1:{port}{}", me.trim(), stage.repo.path.display());
    let said = |key: &Signer, known: &str| {
        verify(&stage, &url, &[("ssh_key_file", text(&key.key)), ("known_hosts_file", &path(known))])
    };
    said(&user, "known").holds(&head);
    // Another key than is known, and a host that is not known at all: neither is asked about, nor remembered.
    said(&user, "others").failed(5, "source.known_hosts_file");
    said(&user, "nobody").failed(5, "source.known_hosts_file");
    assert_eq!(std::fs::read_to_string(path("nobody")).expect("a file"), "");
    said(&host, "known").failed(5, "source.ssh_key_file");

    let lines =
        |known: &str| format!("ssh_key_file = \"{}\"\nknown_hosts_file = \"{}\"", user.key.display(), path(known));
    assert_eq!(once(&stage, "known-host", &url, &lines("known")).0, Some(0));
    let (code, out) = once(&stage, "unknown-host", &url, &lines("nobody"));
    assert_eq!(code, Some(5), "{out}");
    assert!(out.contains("Host key verification failed") || out.contains("host key is known"), "{out}");
    drop(sshd);
}
