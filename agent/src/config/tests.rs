use std::path::Path;
use std::time::Duration;

use super::keys::KEYS;
use super::{ConfigError, Inputs};

fn parse(text: &str) -> Result<super::Settings, ConfigError> {
    let mut inputs = Inputs::default();
    inputs.add_text(text, "agent.toml", Path::new("/etc/burgee").into())?;
    inputs.settings()
}

const LEAST: &str = "[device]\nname = \"store-042\"\n[source]\nurl = \"https://git.example.com/fleet.git\"\n";

#[test]
fn the_shipped_example_parses_and_names_every_key() {
    let example = include_str!("../../../packaging/agent.toml");
    let settings = parse(example).unwrap();
    assert_eq!(settings.device.name.as_str(), "store-042");
    // Uncommented, every key parses, too.
    let mut all = String::new();
    for line in example.lines() {
        let key =
            line.strip_prefix("# ").filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
        let table = line.strip_prefix("# ").filter(|rest| rest.starts_with('[') && rest.ends_with(']'));
        all.push_str(key.or(table).unwrap_or(line));
        all.push('\n');
    }
    let mut inputs = Inputs::default();
    inputs.add_text(&all, "agent.toml", Path::new("/etc/burgee").into()).unwrap();
    let settings = inputs.settings().unwrap();
    assert_eq!(settings.metrics.unwrap().port(), 9188);
    assert_eq!(settings.source.limits, super::settings::Limits::default());
    for (key, kind) in KEYS {
        let said = inputs.text(key).is_some()
            || inputs.texts(key).is_some()
            || inputs.number(key).is_some()
            || inputs.flag(key).is_some()
            || inputs.labels(key).is_some();
        assert!(said, "{key} ({kind:?}) is not in packaging/agent.toml");
    }
}

#[test]
fn the_reference_names_every_key() {
    let reference = include_str!("../../../docs/agent-toml.md");
    for (key, _) in KEYS {
        assert!(reference.contains(&format!("`{key}`")), "{key} is not in docs/agent-toml.md");
    }
}

#[test]
fn defaults() {
    let settings = parse(LEAST).unwrap();
    assert_eq!(settings.source.branch, "main");
    assert_eq!(settings.source.poll, Duration::from_secs(300));
    assert_eq!(settings.source.poll_connected, Duration::from_secs(3600));
    assert_eq!(settings.source.trust, Path::new("/etc/burgee/allowed_signers"));
    assert_eq!(settings.store.path, Path::new("/var/lib/burgee"));
    assert_eq!(settings.control.socket, Path::new("/run/burgee/agent.sock"));
    assert!(settings.hub.is_none() && settings.mqtt.is_none() && settings.metrics.is_none());
    assert!(settings.files.allow.is_empty() && settings.health.exec.is_empty());
}

#[test]
fn later_files_and_flags_win_and_labels_are_merged() {
    let mut inputs = Inputs::default();
    let folder: std::sync::Arc<Path> = Path::new("/etc/burgee").into();
    inputs.add_text(LEAST, "a", folder.clone()).unwrap();
    inputs.add_text("[device.labels]\nring = \"lab\"\nregion = \"eu\"", "b", folder.clone()).unwrap();
    inputs
        .add_text("[device]\nlabels = { ring = \"canary\" }\n[source]\npoll_secs = 5\ntrust = \"keys\"", "c", folder)
        .unwrap();
    for flag in ["source.branch=next", "source.poll_secs=7", "runtime.files.allow=[\"/opt\"]"] {
        inputs.add_flag(flag).unwrap();
    }
    let settings = inputs.settings().unwrap();
    let labels: Vec<_> = settings.device.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("region", "eu"), ("ring", "canary")]);
    assert_eq!((settings.source.branch.as_str(), settings.source.poll), ("next", Duration::from_secs(7)));
    assert_eq!(settings.source.trust, Path::new("/etc/burgee/keys"));
    assert_eq!(settings.files.allow, [Path::new("/opt")]);
}

#[test]
fn errors_name_file_line_key_and_what_was_expected() {
    let cases = [
        ("[source]\nulr = \"x\"", "agent.toml:2: source.ulr: no such key", Some("did you mean source.url?")),
        ("[sauce]\nurl = \"x\"", "agent.toml:1: sauce: no such key", None),
        ("source = 1", "agent.toml:1: source: expected a table", Some("write [source] on a line of its own")),
        ("[source]\nurl = 3", "agent.toml:2: source.url: expected text in quotes", None),
        (
            "[source]\nurl = \"https://a/b\"\n\npoll_secs = 0",
            "agent.toml:4: source.poll_secs: expected a whole number from 1 to 86400",
            None,
        ),
        (
            "[device]\nlabels = { a = 1 }",
            "agent.toml:2: device.labels: expected a table of text: { key = \"value\" }",
            None,
        ),
        (
            "[device]\nname = \"Store 042\"\n[source]\nurl = \"/repo\"",
            "agent.toml:2: device.name: \"Store 042\" is not a name: expected 1 to 63 characters of a-z, 0-9 and '-'",
            Some("store-042 would do"),
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"ftp://a/b\"",
            "agent.toml:4: source.url: \"ftp://a/b\": expected https://…, ssh://…, user@host:path, file://… or a path",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"https://me:secret@a/b\"",
            "agent.toml:4: source.url: a password does not belong into a URL",
            Some("put the password into a file and name it in source.token_file"),
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\nfloor = \"4f1c\"",
            "agent.toml:5: source.floor: \"4f1c\" is not a full commit id: expected 40 or 64 lower-case hex digits",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\n[runtime.files]\nallow = [\"etc\"]",
            "agent.toml:6: runtime.files.allow: \"etc\": expected an absolute path",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\n[hub]\nca_file = \"ca.pem\"",
            "agent.toml:6: hub.ca_file: hub.url is not set",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\n[mqtt]\nurl = \"hub:8883\"",
            "agent.toml:6: mqtt.url: \"hub:8883\": expected mqtts://… or mqtt://…",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\n[metrics]\nlisten = \"9188\"",
            "agent.toml:6: metrics.listen: \"9188\": expected an address and a port, such as 127.0.0.1:9188",
            None,
        ),
        (
            "[device]\nname = \"a\"\n[source]\nurl = \"/r\"\nbranch = \"a..b\"",
            "agent.toml:5: source.branch: \"a..b\" is no branch name: expected one such as main",
            None,
        ),
        (
            "[device]\nname = \"a\"",
            "source.url is not set: there is no file in /usr/lib/burgee/agent.d, /etc/burgee/agent.toml, /etc/burgee/agent.d",
            Some("[source] url = \"https://…\" names the fleet repository"),
        ),
    ];
    for (text, want, hint) in cases {
        let error = parse(text).unwrap_err();
        assert_eq!(error.to_string(), want, "{text}");
        assert_eq!(error.hint(), hint, "{text}");
    }
    let error = parse("[source]\nurl = \"a\nb = 1").unwrap_err().to_string();
    assert!(error.starts_with("agent.toml:2: "), "{error}");
}

#[test]
fn a_named_file_must_be_there_and_fragments_are_read_by_name() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(super::read(Some(&folder.path().join("none")), &[]), Err(ConfigError::Read { .. })));
    for (name, text) in [("20-b.toml", "[source]\nbranch = \"b\""), ("10-a.toml", "x"), ("30.txt", "y")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let names: Vec<_> = super::fragments(folder.path()).unwrap();
    assert_eq!(names, ["10-a.toml", "20-b.toml"].map(|name| folder.path().join(name)));
}

#[test]
fn keys_of_a_later_agent_are_passed_over_where_it_is_asked_for_one_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    let text =
        "[update]\nwhen = \"night\"\n[store]\npath = \"s\"\n[control]\nsocket = [1]\n[new.kind]\nof = \"table\"\n";
    std::fs::write(&file, text).unwrap();
    assert!(super::read(Some(&file), &[]).is_err());
    let inputs = super::read_of_any_age(Some(&file), &["update.who=me".to_owned()]).unwrap();
    assert_eq!((inputs.store(), super::store(Some(&file), &[])), (folder.path().join("s"), folder.path().join("s")));
    assert_eq!(inputs.socket(), super::Inputs::default().socket());
    assert!(!inputs.is_stranger());
    // By what is left of these a device might have no apps at all.
    for line in ["[device]\ntenant = \"a\"", "[device.labels]\nfloor = 3", "device = 1"] {
        std::fs::write(&file, line).unwrap();
        assert!(super::read_of_any_age(Some(&file), &[]).unwrap().is_stranger(), "{line}");
    }
    std::fs::write(&file, "[store\n").unwrap();
    assert!(super::read_of_any_age(Some(&file), &[]).is_err());
}

#[test]
fn a_name_that_was_made_is_kept_for_its_pattern() {
    let store = tempfile::tempdir().unwrap();
    let with = |pattern: &str| {
        let path = store.path().display();
        parse(&format!("[device]\nname = \"{pattern}\"\n[source]\nurl = \"/r\"\n[store]\npath = \"{path}\""))
    };
    let made = with("till-{host}").unwrap().device;
    assert_eq!(made.made_from.as_deref(), Some("till-{host}"));
    std::fs::write(store.path().join("name.json"), r#"{"pattern":"till-{host}","name":"till-of-old"}"#).unwrap();
    assert_eq!(with("till-{host}").unwrap().device.name.as_str(), "till-of-old");
    assert_eq!(with("shop-{host}").unwrap().device.name.as_str(), made.name.as_str().replacen("till", "shop", 1));
    assert_eq!(with("plain").unwrap().device.made_from, None);
    let error = with("till-{uuid}").unwrap_err().to_string();
    assert!(error.starts_with("agent.toml:2: device.name: {uuid} is nothing"), "{error}");
}
