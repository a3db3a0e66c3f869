//! `burgee-agent doctor` on a real device with a real Git host and hub: each
//! line, with the agent and without; exit codes; and a bundle without secrets.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::hub::Hub;
use harness::process::run;
use harness::stage::Stage;
use harness::wait::until;
use serde_json::Value;

/// The lines, and the exit code.
fn doctor(stage: &Stage, more: &[&str]) -> (Value, Option<i32>) {
    let output = stage.device.call(&[&["doctor", "-o", "json"], more].concat());
    let lines = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (lines, output.status.code())
}

/// Result and message of the one line of a part.
#[track_caller]
fn line<'a>(lines: &'a Value, part: &str) -> (&'a str, &'a str) {
    let found = lines.as_array().expect("lines").iter().find(|line| line["part"] == part);
    let found = found.unwrap_or_else(|| panic!("no line for {part}: {lines:#}"));
    let text = |key: &str| found[key].as_str().expect("text");
    if text("result") == "fail" {
        assert!(found["hint"].is_string(), "a failure without a hint: {found:#}");
    }
    (text("result"), text("message"))
}

#[test]
fn with_the_agent_and_without() {
    let mut hub = Hub::start("");
    let mut stage = Stage::joined(&hub, |setup| setup);
    stage.device.wait("all links are up", 30, |status| status["link"]["mqtt"] == "up" && status["link"]["hub"] == "up");
    let head = stage.repo.head();
    let short = &head[..12];
    let (lines, code) = doctor(&stage, &[]);
    assert_eq!(code, Some(0), "{lines:#}");
    for (part, says) in [
        ("config", "agent.toml"),
        ("name", "store-1"),
        ("clock", "Z"),
        ("disk", "MiB free"),
        ("store", "store"),
        ("state", "spool 0 B"),
        ("trust", "1 lines with a key"),
        ("agent", "steady"),
        ("last good", short),
        ("git", "branch main"),
        ("head", short),
        ("hub", "SHA256:"),
        ("enrolment", "the hub knows its key"),
        ("mqtt", "takes connections"),
    ] {
        let (result, message) = line(&lines, part);
        // What is spooled comes and goes.
        let says = if part == "state" { "git " } else { says };
        assert!(result == "ok" && message.contains(says), "{part}: {result} {message}");
    }
    assert!(line(&lines, "head").1.contains("signed by ops@example.com"), "{lines:#}");
    assert!(line(&lines, "last good").1.contains("healthy since 20"), "{lines:#}");
    assert!(line(&lines, "cgroups").1.starts_with('v'), "{lines:#}");

    // Without the agent, the journal knows.
    stage.device.stop();
    let (lines, code) = doctor(&stage, &[]);
    assert_eq!(code, Some(0), "{lines:#}");
    assert_eq!(line(&lines, "agent").0, "warn");
    assert!(line(&lines, "last good").1.contains(short), "{lines:#}");
    assert!(line(&lines, "head").1.contains("the accepted one"), "{lines:#}");

    // A table for people, with the same exit code.
    let table = stage.device.call(&["doctor"]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("PART") && text.contains("enrolment") && table.status.success(), "{text}");

    // Nobody unsigned gets by; the device's own judgement, exit 3.
    stage.content("two", true);
    stage.repo.commit_unsigned("unsigned");
    stage.repo.push(&stage.forge.url(), true);
    let (lines, code) = doctor(&stage, &[]);
    assert_eq!((line(&lines, "git").0, line(&lines, "head").0, code), ("ok", "fail", Some(3)), "{lines:#}");
    assert!(line(&lines, "head").1.contains("Unsigned"), "{lines:#}");
    stage.repo.git(&["reset", "-q", "--hard", &head]);
    stage.repo.push(&stage.forge.url(), true);

    // What is only out of reach: 5.
    let unused = harness::net::free_port();
    let (lines, code) = doctor(&stage, &["--set", &format!("source.url=http://127.0.0.1:{unused}/x.git")]);
    assert_eq!((line(&lines, "git").0, code), ("fail", Some(5)), "{lines:#}");
    hub.done(&["device", "remove", "store-1"]);
    let (lines, code) = doctor(&stage, &[]);
    assert_eq!((line(&lines, "hub").0, line(&lines, "enrolment").0, code), ("ok", "fail", Some(1)), "{lines:#}");
    hub.down();
    let (lines, code) = doctor(&stage, &[]);
    assert_eq!((line(&lines, "hub").0, line(&lines, "mqtt").0, code), ("fail", "fail", Some(5)), "{lines:#}");

    // A configuration that won't do: 2, and the rest that can be looked at.
    let (lines, code) = doctor(&stage, &["--set", "source.poll_secs=0"]);
    assert!(code == Some(2) && line(&lines, "clock").0 == "ok", "{lines:#}");
    assert!(line(&lines, "config").1.contains("source.poll_secs"), "{lines:#}");
}

/// Everything that must not leave the device.
const PLANTED: [&str; 9] = [
    "plant-git-token-7d1",
    "plant-join-token-7d2",
    "plant-registry-7d3",
    "plant-kube-token-7d4",
    "plant-proxy-password-7d5",
    "plant-app-variable-7d6",
    "plant-app-secret-7d7",
    "plant-spoken-7d8",
    "bjt_plantedInTheMessage9",
];

fn plant(stage: &Stage) {
    let [git, join, registry, kube, _, variable, secret, ..] = PLANTED;
    let at = |name: &str| stage.device.folder.join(name);
    let write = |name: &str, text: &str| std::fs::write(at(name), text).expect("writes");
    write("git-token", git);
    write("join-token", join);
    let auth = run(Command::new("sh").args(["-c", &format!("printf 'robot:{registry}' | base64 -w0")]));
    write("registry.json", &format!("{{\"auths\": {{\"registry.example.com\": {{\"auth\": \"{auth}\"}}}}}}"));
    write("kubeconfig", &format!("users:\n- name: me\n  user:\n    token: {kube}\n"));
    // An app that says its secrets where they end up in the status.
    let root = stage.device.folder.join("root");
    let leak = at("leak");
    let script = format!(
        "#!/bin/sh\nsed -n 's/.*= //p' {0}/etc/web/db.conf\nsed -n 's/.*: //p' {0}/etc/web/token.yaml\necho 'password={1}' {2}\nexit 1\n",
        root.display(),
        PLANTED[7],
        PLANTED[8]
    );
    std::fs::write(&leak, script).expect("writes");
    run(Command::new("chmod").arg("755").arg(&leak));
    stage.repo.write("apps/web/files/etc/db.conf", "db_password = ${DB}\n");
    stage.repo.write("apps/web/files/etc/token.yaml", &format!("api_token: {secret}\n"));
    stage.repo.write(
        "apps/web/app.yaml",
        &format!(
            "runtime: files\nsubstitute: true\nvars: {{DB: {variable}}}\ntemplates: [etc/db.conf]\nfiles:\n  - {{from: etc/, to: /etc/web/}}\nhealth:\n  timeout: 3s\n  soak: 500ms\n  checks:\n    - {{exec: [\"{}\"]}}\n",
            leak.display()
        )
        .replace("substitute: true\n", ""),
    );
}

#[test]
fn a_bundle_holds_no_secret() {
    let mut stage = Stage::set_up(|setup| {
        let source = "token_file = \"git-token\"";
        let more = "[hub]\nurl = \"http://127.0.0.1:9\"\ntoken_file = \"join-token\"\n[runtime.compose]\nauth_file = \"registry.json\"\n[runtime.kubernetes]\nkubeconfig = \"kubeconfig\"\n";
        setup.poll(3600).source(source).with(more)
    });
    let leak = stage.device.folder.join("leak").display().to_string();
    let config = std::fs::read_to_string(stage.device.config()).expect("agent.toml");
    std::fs::write(stage.device.config(), format!("{config}\n[health]\nexec = [\"{leak}\"]\n")).expect("writes");
    plant(&stage);
    stage.push("leaks");
    stage.device.start();
    // It is said on the device, where it belongs.
    let status = until("the app to say its secrets", Duration::from_secs(60), || {
        stage.device.status().map(|status| status.to_string()).filter(|status| status.contains(PLANTED[6]))
    });
    assert!(status.contains(PLANTED[5]), "{status}");
    let key = std::fs::read_to_string(stage.device.store().join("device.key"));
    let key = key.unwrap_or_default().lines().nth(1).unwrap_or("no key yet").to_owned();
    let auth = std::fs::read_to_string(stage.device.folder.join("registry.json")).expect("reads");
    let auth = auth.rsplit('"').nth(1).expect("a value").to_owned();
    assert!(key.len() > 40 && auth.len() > 20, "{key} {auth}");

    let file = stage.device.folder.join("bundle.tar");
    let proxy = format!("source.proxy=http://me:{}@127.0.0.1:9", PLANTED[4]);
    let check = |stage: &Stage, running: bool| {
        let path = file.display().to_string();
        let output = stage.device.call(&["doctor", "--set", &proxy, "--bundle", &path]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.code(), said.trim()), (Some(0), path.as_str()));
        let bytes = std::fs::read(&file).expect("the bundle");
        let text = String::from_utf8_lossy(&bytes);
        for secret in PLANTED.iter().copied().chain([key.as_str(), auth.as_str()]) {
            assert!(!text.contains(secret), "{secret} is in the bundle (running: {running}):\n{}", near(&text, secret));
        }
        let names = run(Command::new("tar").arg("-tf").arg(&file));
        for name in [
            "doctor.txt",
            "doctor.json",
            "version.txt",
            "config.txt",
            "journal.txt",
            "store.txt",
            "system.txt",
            "log.txt",
            "history.json",
        ] {
            assert!(names.contains(&format!("/{name}")), "{name} is missing: {names}");
        }
        assert_eq!(names.contains("/status.json"), running, "{names}");
        let config = content(&file, "config.txt");
        assert!(config.contains("source.proxy = \"http://[redacted]@127.0.0.1:9\"  # --set"), "{config}");
        assert!(config.contains("source.token_file = \"git-token\""), "{config}");
        assert!(config.contains("agent.toml:"), "places are named: {config}");
        if running {
            let status = content(&file, "status.json");
            assert!(status.contains("[redacted]") && status.contains("\"phase\""), "{status}");
            serde_json::from_str::<Value>(&status).expect("still JSON");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("there").permissions());
        assert_eq!(mode & 0o777, 0o600);
    };
    check(&stage, true);
    stage.device.stop();
    check(&stage, false);
    // What the settings say wrong hides no secret of what they say right.
    let config = std::fs::read_to_string(stage.device.config()).expect("agent.toml");
    std::fs::write(stage.device.config(), format!("{config}\n[no.such]\nkey = 1\n")).expect("writes");
    check(&stage, false);
    assert!(content(&file, "doctor.txt").contains("no such key"), "{}", content(&file, "doctor.txt"));
}

/// One file of a bundle.
fn content(file: &Path, name: &str) -> String {
    run(Command::new("tar").arg("-xOf").arg(file).args(["--wildcards", &format!("*/{name}")]))
}

fn near(text: &str, secret: &str) -> String {
    let at = text.find(secret).unwrap_or(0);
    text.chars().skip(text[..at].chars().count().saturating_sub(200)).take(400).collect()
}
