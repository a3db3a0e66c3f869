//! The built `burgee`, with the machine's own git and ssh-keygen.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home of its own: no settings of the person who runs the tests.
struct Home {
    dir: TempDir,
}

struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, program: &str, dir: &Path, arguments: &[&str]) -> Said {
        let Output { status, stdout, stderr } = Command::new(program)
            .args(arguments)
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: status.code().unwrap(), out: text(stdout), err: text(stderr) }
    }

    fn burgee(&self, arguments: &[&str]) -> Said {
        self.run(env!("CARGO_BIN_EXE_burgee"), self.dir.path(), arguments)
    }

    fn git(&self, dir: &Path, arguments: &[&str]) -> Said {
        let said = self.run("git", dir, arguments);
        assert_eq!(said.code, 0, "git {arguments:?}: {}", said.err);
        said
    }

    fn init(&self) -> PathBuf {
        let said = self.burgee(&["init", "shops", "--principal", "ops@example.com", "--no-passphrase"]);
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
        self.path("shops")
    }
}

#[test]
fn init_commit_check_render_plan() {
    let home = Home::new();
    let repo = home.init();
    let signers = fs::read_to_string(repo.join("trust/allowed_signers")).unwrap();
    assert!(signers.starts_with("ops@example.com namespaces=\"git\" ssh-ed25519 AAAA"), "{signers}");

    home.git(&repo, &["add", "-A"]);
    home.git(&repo, &["commit", "-m", "first"]);
    home.git(&repo, &["verify-commit", "HEAD"]);
    let raw = home.git(&repo, &["cat-file", "commit", "HEAD"]).out;
    assert!(raw.contains("gpgsig -----BEGIN SSH SIGNATURE-----"), "{raw}");

    let said = home.burgee(&["check", "shops"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, "", "nothing is wrong in shops\n"));

    let said = home.burgee(&["render", "shops", "--device", "till-1", "--label", "site-type=demo", "-o", "json"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let state: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&state["fleet"], &state["device"]), (&"shops".into(), &"till-1".into()));
    let web = &state["apps"][0]["spec"]["spec"]["services"]["web"];
    assert_eq!(web["environment"]["TZ"], "Europe/Berlin");
    assert!(!said.out.contains("This page came with"), "contents are named by digest");
    let yaml = home.burgee(&["render", "shops", "--device", "till-1", "--label", "site-type=demo"]);
    assert!(yaml.out.starts_with("fleet: shops\n"), "{}", yaml.out);

    let compose = repo.join("apps/hello/compose.yaml");
    let text =
        fs::read_to_string(&compose).unwrap().replace("1.28-alpine", "1.29-alpine").replace("8080:80", "8081:80");
    fs::write(&compose, text.replace("TZ: ${TZ:-UTC}", "LEVEL: warn")).unwrap();
    home.git(&repo, &["commit", "-am", "second"]);
    let said = home.burgee(&["plan", "shops", "HEAD~1..HEAD"]);
    assert_eq!(said.code, 0, "{}", said.err);
    for line in [
        "[site-type=demo]\n  ~ hello (compose)\n",
        "~ services.web.image: nginx:1.28-alpine → nginx:1.29-alpine\n",
        "+ services.web.environment.LEVEL\n",
        "- services.web.environment.TZ\n",
        "- services.web.ports: 8080:80/tcp\n",
        "+ services.web.ports: 8081:80/tcp\n",
        "1 of 1 devices and label combinations change\n",
    ] {
        assert!(said.out.contains(line), "{line:?} in {}", said.out);
    }
    let json: Value = serde_json::from_str(&home.burgee(&["plan", "shops", "HEAD~1..", "-o", "json"]).out).unwrap();
    assert_eq!(json["devices"][0]["apps"][0]["change"], "changed");
    assert!(home.burgee(&["plan", "shops", "HEAD..HEAD"]).out.starts_with("nothing changes"));

    let first = home.burgee(&["init", "shops", "--principal", "ops@example.com", "--no-passphrase"]);
    assert_eq!(first.code, 2);
    assert!(first.err.contains("is there already"), "{}", first.err);
}

#[test]
fn check_says_where_what_and_what_was_expected() {
    let home = Home::new();
    let repo = home.init();
    fs::write(repo.join("groups/demo.yaml"), "selector: {matchLabels: {site-type: demo}}\napp: [hello]\n").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", repo.join("apps/hello/link")).unwrap();
    fs::create_dir_all(repo.join("apps/hello/.GIT")).unwrap();
    fs::write(repo.join("apps/hello/big"), vec![0; 5 << 20]).unwrap();
    let said = home.burgee(&["check", "shops"]);
    assert_eq!(said.code, 2);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(
        lines,
        [
            "apps/hello/.GIT:1:1: is a spelling of .git, expected plain files and folders",
            "apps/hello/app.yaml:1:1: warning: no device gets the app `hello`",
            "apps/hello/link:1:1: is a symbolic link, expected plain files and folders",
            "groups/demo.yaml:2:1: unknown key `app`, expected one of `priority`, `selector`, `apps`, `vars`, `window`",
        ]
    );
    assert!(said.err.contains("hint: did you mean `apps`?"), "{}", said.err);
    assert!(said.err.ends_with("error: 3 errors and 1 warning in shops\n"), "{}", said.err);
    let json: Value = serde_json::from_str(&home.burgee(&["check", "shops", "-o", "json"]).out).unwrap();
    assert_eq!((&json[3]["line"], &json[3]["severity"]), (&2.into(), &"error".into()));
    let render = home.burgee(&["render", "shops", "--device", "a"]);
    assert_eq!((render.code, render.out.as_str()), (2, ""));
    home.git(&repo, &["add", "-A", ":!apps/hello/.GIT"]);
    home.git(&repo, &["commit", "-m", "bad"]);
    let plan = home.burgee(&["plan", "shops", "HEAD..HEAD"]);
    assert_eq!(plan.code, 2);
    assert!(plan.err.contains("apps/hello/link:1:1: is a symbolic link"), "{}", plan.err);
}

#[test]
fn wrong_usage_is_2_with_a_hint() {
    let home = Home::new();
    let repo = home.init();
    home.git(&repo, &["add", "-A"]);
    home.git(&repo, &["commit", "-m", "first"]);
    home.run("ssh-keygen", home.dir.path(), &["-q", "-t", "ecdsa", "-N", "", "-f", "other"]);
    let cases: &[(&[&str], &str)] = &[
        (&["check", "nowhere"], "nowhere is no folder"),
        (&["render", "shops", "--device", "No Name"], "is not a name"),
        (&["render", "shops", "--device", "a", "--label", "x"], "is no label"),
        (&["plan", "shops", "HEAD"], "is no range"),
        (&["plan", "shops", "HEAD...HEAD"], "is no range"),
        (&["plan", "shops", "nothing..HEAD"], "\"nothing\" names no commit"),
        (&["plan", ".", "A..B"], "is no Git repository"),
        (&["init", "x", "--principal", "a b", "--no-passphrase"], "can't stand in allowed_signers"),
        (&["init", "x"], "Git does not know who you are"),
        (&["init", "x", "--principal", "a"], "no terminal to ask"),
        (&["init", "x", "--principal", "a", "--key", "other"], "ecdsa-sha2-nistp256"),
        (&["init", "x", "--principal", "a", "--key", "none"], "cannot read the public key"),
        (&["init", "x", "--principal", "a", "--fleet", "A B", "--no-passphrase"], "is not a name"),
        (&["nonsense"], "unrecognized subcommand"),
    ];
    for (arguments, want) in cases {
        let said = home.burgee(arguments);
        assert_eq!((said.code, said.out.as_str()), (2, ""), "{arguments:?}: {}", said.err);
        assert!(said.err.contains(want), "{arguments:?}: {}", said.err);
        assert!(*arguments == ["nonsense"] || said.err.contains("\nhint: "), "{arguments:?}: {}", said.err);
    }
    assert!(!home.path("x").exists(), "a refused init leaves nothing behind");
}

#[test]
fn init_takes_a_key_and_keeps_what_is_there() {
    let home = Home::new();
    home.run("ssh-keygen", home.dir.path(), &["-q", "-t", "ed25519", "-N", "", "-f", "mine"]);
    fs::create_dir(home.path("there")).unwrap();
    fs::write(home.path("there/README.md"), "mine\n").unwrap();
    let said = home.burgee(&["init", "there", "--principal", "me@example.com", "--key", "mine", "--fleet", "boats"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let public = fs::read_to_string(home.path("mine.pub")).unwrap();
    let body = public.split_whitespace().nth(1).unwrap();
    assert!(fs::read_to_string(home.path("there/trust/allowed_signers")).unwrap().contains(body));
    assert!(fs::read_to_string(home.path("there/burgee.yaml")).unwrap().contains("fleet: boats"));
    assert_eq!(fs::read_to_string(home.path("there/README.md")).unwrap(), "mine\n");
    assert!(!home.path(".ssh").exists());
}

#[test]
fn schemas_and_completions() {
    let home = Home::new();
    let app: Value = serde_json::from_str(&home.burgee(&["schema", "app"]).out).unwrap();
    assert!(app["properties"]["runtime"].to_string().contains("#/definitions/RuntimeName"));
    assert!(home.burgee(&["schema"]).out.contains("group\tgroups/*.yaml\n"));
    assert_eq!(home.burgee(&["schema", "--out", "all"]).code, 0);
    assert!(home.path("all/rollout.json").exists());
    for shell in ["bash", "zsh", "fish"] {
        let said = home.burgee(&["completion", shell]);
        assert!(said.code == 0 && said.out.contains("burgee"), "{shell}");
    }
}
