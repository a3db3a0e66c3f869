//! An enrolled image that was copied, and a disk that was restored: the real
//! agent and the real hub. Two agents with one key are noticed on both sides
//! and mended; one that was set back is not called two; and nothing that any
//! of them reports is lost.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::device::{Device, Setup};
use harness::hub::Hub;
use harness::process::run;
use harness::stage::{Stage, condition};
use harness::wait::{never, until};

fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    run(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Polls every two seconds, connected or not.
fn often(setup: Setup) -> Setup {
    setup.poll(2).source("poll_connected_secs = 2")
}

/// A second device with the store and the root of the first, and its name.
fn copied(stage: &Stage, hub: &Hub) -> Device {
    let trust = stage.repo.signer.line();
    let setup = often(Setup::new("copy", &stage.forge.url(), &trust)).with(&format!("[hub]\nurl = \"{}\"", hub.url()));
    let device = Device::new(stage.folder.path(), &setup);
    rename(&device, "copy", "store-1");
    for part in ["store", "root"] {
        copy(&stage.device.folder.join(part), &device.folder.join(part));
    }
    device
}

fn rename(device: &Device, from: &str, to: &str) {
    let text = std::fs::read_to_string(device.config()).expect("agent.toml");
    let text = text.replace(&format!("name = \"{from}\""), &format!("name = \"{to}\""));
    std::fs::write(device.config(), text).expect("agent.toml");
}

/// How often the hub heard that a revision is applied and healthy.
fn heard(hub: &Hub, device: &str, revision: &str) -> usize {
    let page = hub.get(&format!("/devices/{device}"));
    let events =
        page.split("id=\"events\"").nth(1).and_then(|rest| rest.split("</section>").next()).unwrap_or_default();
    events.split("<li>").filter(|event| event.contains(revision) && event.contains("applied and healthy")).count()
}

fn is_copied(hub: &Hub) -> bool {
    hub.done(&["device", "list"]).contains(", copied")
}

/// Both run `revision`.
#[track_caller]
fn both(stage: &Stage, copy: &Device, text: &str) -> String {
    stage.content(text, true);
    let revision = stage.push(text);
    stage.device.wait_steady(&revision, 60);
    copy.wait_steady(&revision, 60);
    revision
}

fn noticed_and_mended(hub: &Hub) {
    let mut stage = Stage::joined(hub, often);
    stage.device.stop();
    let mut copy = copied(&stage, hub);
    stage.device.start();
    stage.device.wait("the hub is there", 60, |status| status["link"]["hub"] == "up");
    assert!(!is_copied(hub), "one agent is one agent");
    copy.start();

    // Nothing is lost: each says each revision once, though both use the same places.
    for text in ["two", "three"] {
        let revision = both(&stage, &copy, text);
        until("both are heard", Duration::from_secs(90), || (heard(hub, "store-1", &revision) == 2).then_some(()));
    }
    both(&stage, &copy, "four");
    until("the hub notices", Duration::from_secs(60), || is_copied(hub).then_some(()));
    let page = hub.get("/devices/store-1");
    assert!(page.contains("Copied.") && page.contains("--new-identity"), "the device's page says it, and what to do");
    assert!(hub.get("/").contains("1 device copied."), "so does the fleet's");
    assert_eq!(hub.metric("burgee_hub_devices{axis=\"enrolled\",value=\"copied\"}"), 1);
    assert!(hub.done(&["export"]).contains("\"twin\": {"), "and the export");

    // Both are told, in the hub's signed word.
    both(&stage, &copy, "five");
    for device in [&stage.device, &copy] {
        let status = device.wait("it is told", 90, |status| condition(status, "Unique").is_some());
        let said = condition(&status, "Unique").expect("said");
        assert_eq!((&said["status"], &said["reason"]), (&false.into(), &"KeyInUseTwice".into()));
        assert!(said["message"].as_str().is_some_and(|text| text.contains("enroll --new-identity")), "{said}");
    }

    mended(&mut stage, &mut copy, hub);
}

/// The copy becomes a device of its own; nothing of the first one is lost.
fn mended(stage: &mut Stage, copy: &mut Device, hub: &Hub) {
    let token = hub.token(&["--uses", "1"]);
    let trust = copy.folder.join("allowed_signers").display().to_string();
    let url = hub.url();
    let arguments = ["enroll", "--hub", &url, "--token", &token, "--trust", &trust, "--new-identity"];
    let enroll = |copy: &Device| {
        let output = copy.call(&arguments);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = enroll(copy);
    assert!(code == Some(1) && said.contains("systemctl stop burgee-agent"), "not while it runs: {said}");
    copy.stop();
    let key = std::fs::read(copy.store().join("device.key")).expect("a key");
    let (code, said) = enroll(copy);
    assert!(code == Some(1) && said.contains("another device.name"), "the name is the other one's: {said}");
    assert_eq!(std::fs::read(copy.store().join("device.key")).expect("a key"), key, "a no changes nothing");
    rename(copy, "store-1", "store-2");
    let (code, said) = enroll(copy);
    assert!(code == Some(0) && said.contains("store-1 no more"), "{said}");
    assert_ne!(std::fs::read(copy.store().join("device.key")).expect("a key"), key);
    assert!(!copy.store().join("next").exists());

    copy.start();
    let revision = both(stage, copy, "six");
    for name in ["store-1", "store-2"] {
        until("each is heard alone", Duration::from_secs(90), || (heard(hub, name, &revision) == 1).then_some(()));
    }
    for device in [&stage.device, &*copy] {
        device.wait("it is unique again", 90, |status| condition(status, "Unique").is_none());
    }
    let page = hub.get("/devices/store-1");
    assert!(page.contains("Identity given up") && !page.contains("Copied."), "the hub knows, and why");
    both(stage, copy, "seven");
    never("it is called copied again", Duration::from_secs(5), || is_copied(hub));
}

#[test]
fn a_copy_is_noticed_and_mended_over_mqtt() {
    noticed_and_mended(&Hub::start(""));
}

#[test]
fn a_copy_is_noticed_and_mended_over_http() {
    noticed_and_mended(&Hub::start_with("listen = \"127.0.0.1:0\"\n[mqtt]\nenabled = false\n"));
}

#[test]
fn a_copy_under_another_name_takes_no_key_with_it() {
    let hub = Hub::start("");
    let mut stage = Stage::joined(&hub, often);
    stage.device.stop();
    let mut copy = copied(&stage, &hub);
    rename(&copy, "store-1", "copy");
    stage.device.start();
    copy.start();
    let status = copy.wait("it says what it is", 60, |status| condition(status, "Enrolled").is_some());
    let said = condition(&status, "Enrolled").expect("said");
    assert_eq!(said["reason"], "OtherName");
    assert!(said["message"].as_str().is_some_and(|text| text.contains("enroll --new-identity")), "{said}");

    copy.stop();
    let token = hub.token(&["--uses", "1"]);
    let trust = copy.folder.join("allowed_signers").display().to_string();
    let url = hub.url();
    let enroll = |more: &[&str]| {
        let output = copy.call(&[&["enroll", "--hub", &url, "--token", &token, "--trust", &trust], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = enroll(&[]);
    assert!(code == Some(1) && said.contains("enrolled already, as store-1"), "{said}");
    assert!(said.contains("enroll --new-identity") && said.contains("device remove"), "{said}");
    assert!(!hub.done(&["device", "list"]).contains("copy"), "nothing came of it");
    let (code, said) = enroll(&["--new-identity"]);
    assert_eq!(code, Some(0), "{said}");
    copy.start();
    let revision = both(&stage, &copy, "two");
    for name in ["store-1", "copy"] {
        until("each is heard alone", Duration::from_secs(90), || (heard(&hub, name, &revision) == 1).then_some(()));
    }
}

#[test]
fn a_restored_disk_is_no_copy_and_loses_no_report() {
    let hub = Hub::start("");
    let mut stage = Stage::joined(&hub, often);
    stage.device.stop();
    let backup = stage.folder.path().join("backup");
    copy(&stage.device.store(), &backup);
    let push = |stage: &Stage, text: &str| {
        stage.content(text, true);
        let revision = stage.push(text);
        stage.device.wait_steady(&revision, 60);
        until("it is heard", Duration::from_secs(90), || (heard(&hub, "store-1", &revision) == 1).then_some(()));
        revision
    };
    // Life after the backup, with restarts and a power cut.
    for text in ["two", "three"] {
        stage.device.start();
        push(&stage, text);
        stage.device.kill();
    }
    stage.device.start();
    let newest = push(&stage, "four");
    stage.device.stop();
    assert!(!is_copied(&hub), "starts are no copies");

    // The disk is set back: the agent counts from an epoch that is used up.
    copy(&backup, &stage.device.store());
    stage.device.start();
    stage.device.wait_steady(&newest, 60);
    until("what it does again is heard again", Duration::from_secs(90), || {
        (heard(&hub, "store-1", &newest) == 2).then_some(())
    });
    push(&stage, "five");
    let last = push(&stage, "six");
    until("the page shows what is, not what was", Duration::from_secs(60), || {
        hub.get("/?sync=synced").contains(&last[..12]).then_some(())
    });
    never("it is called copied", Duration::from_secs(5), || is_copied(&hub));
    let status = stage.device.status().expect("a status");
    assert!(condition(&status, "Unique").is_none(), "{status:#}");
}
