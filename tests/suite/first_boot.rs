//! A golden image's first boot: no name, no key, a join token and a root of
//! trust. The real agent, the real hub; the hub (and the network) may be hours
//! late, the token may be wrong, an operator may have to say yes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::device::{Device, Setup};
use harness::hub::Hub;
use harness::net::free_port;
use harness::process::{output, run};
use harness::stage::{Stage, condition};
use harness::wait::{never, until};

/// A hub that can go and come back under the same address.
fn hub() -> Hub {
    let port = free_port();
    Hub::start_with(&format!("listen = \"127.0.0.1:{port}\"\n[mqtt]\nenabled = false\n"))
}

/// A device as an image makes it.
struct Image {
    stage: Stage,
    hub: Hub,
    token: PathBuf,
}

impl Image {
    fn new(name: &str, token: &str, hub: Hub) -> Self {
        let url = hub.url();
        let keep = std::cell::Cell::new(PathBuf::new());
        let stage = Stage::set_up(|setup| {
            let file = std::env::temp_dir().join(format!("burgee-join-{}-{}", std::process::id(), free_port()));
            keep.set(file.clone());
            setup.poll(2).with(&format!("[hub]\nurl = \"{url}\"\ntoken_file = \"{}\"", file.display()))
        });
        let token_file = keep.take();
        std::fs::write(&token_file, format!("{token}\n")).expect("the join token");
        stage.repo.write("burgee.yaml", "format: 1\nfleet: retail\n");
        let image = Self { stage, hub, token: token_file };
        image.named(name);
        image
    }

    fn named(&self, name: &str) {
        let config = self.stage.device.config();
        let text = std::fs::read_to_string(&config).expect("agent.toml");
        std::fs::write(&config, text.replace("name = \"store-1\"", &format!("name = \"{name}\""))).expect("agent.toml");
    }

    fn devices(&self) -> Vec<String> {
        let listed = self.hub.done(&["device", "list"]);
        listed.lines().skip(1).filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    }

    /// Waits until the device says why it is in no fleet.
    #[track_caller]
    fn waits_for(&self, reason: &str) -> String {
        let status = self.stage.device.wait(&format!("Enrolled: {reason}"), 60, |status| {
            condition(status, "Enrolled").is_some_and(|said| said["status"] == false && said["reason"] == reason)
        });
        condition(&status, "Enrolled").expect("said")["message"].as_str().expect("text").to_owned()
    }

    #[track_caller]
    fn enrolled(&self) -> String {
        let status = self.stage.device.wait("the device to be enrolled", 90, |status| {
            condition(status, "Enrolled").is_none() && status["link"]["hub"] == "up"
        });
        status["device"].as_str().expect("a name").to_owned()
    }
}

/// Mounts a file onto itself, so that it can't be removed; or written, either.
fn fix(file: &Path, read_only: bool) {
    run(Command::new("mount").arg("--bind").args([file, file]));
    if read_only {
        run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(file));
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Only where a test fixed it.
        let _ = output(Command::new("umount").arg(&self.token));
        let _ = std::fs::remove_file(&self.token);
    }
}

#[test]
fn a_line_of_devices_names_and_enrols_itself() {
    let hub = hub();
    let token = hub.token(&["--uses", "2"]);
    let mut image = Image::new("till-{machine-id}", &token, hub);
    let first = image.stage.push("one");
    // No hub, perhaps no network: what Git and trust allow goes on meanwhile.
    image.hub.down();
    image.stage.device.start();
    image.stage.device.wait_steady(&first, 60);
    let said = image.waits_for("HubUnreachable");
    assert!(said.contains("while enrolling: cannot reach") && said.contains("hint: "), "{said}");
    assert!(image.token.exists(), "nothing is lost while the hub is away");

    image.hub.up();
    let name = image.enrolled();
    assert!(name.starts_with("till-") && name.len() == 21, "{name}");
    assert_eq!(image.devices(), std::slice::from_ref(&name));
    until("the token's file goes", Duration::from_secs(10), || (!image.token.exists()).then_some(()));
    let page = || image.hub.get(&format!("/devices/{name}"));
    until("what it did before is told", Duration::from_secs(60), || page().contains("signed by").then_some(()));
    assert!(!image.stage.device.log().contains(&token), "the token is in the log");
    let whole = run(Command::new("sh")
        .args(["-c", "grep -rl \"$1\" \"$2\" || true", "sh", &token])
        .arg(image.stage.device.store()));
    assert_eq!(whole, "", "the token is in the store");

    // The name stays when what it was made of changes; only another pattern makes another name.
    image.stage.device.stop();
    let kept = image.stage.device.store().join("name.json");
    let text = std::fs::read_to_string(&kept).expect("the kept name");
    assert!(text.contains(&name), "{text}");
    let earlier = format!("{{\"pattern\":\"till-{{machine-id}}\",\"name\":\"{name}\"}}");
    std::fs::write(&kept, earlier.replace(&name, "till-of-another-board")).expect("writes");
    image.stage.device.start();
    // (Which the enrolment notices: it is another's.)
    let said = image.waits_for("OtherName");
    assert!(said.contains("till-of-another-board"), "{said}");
    image.stage.device.stop();
    std::fs::write(&kept, earlier).expect("writes");
    image.stage.device.start();
    assert_eq!(image.enrolled(), name);
    assert_eq!(image.devices(), [name]);
}

#[test]
fn a_key_that_an_image_brought_along_is_left_to_its_first_device() {
    let hub = hub();
    let token = hub.token(&[]);
    let mut first = Image::new("till-1", &token, hub);
    first.stage.push("one");
    first.stage.device.start();
    assert_eq!(first.enrolled(), "till-1");
    let key = std::fs::read(first.stage.device.store().join("device.key")).expect("a key");

    // The image was booted once, before it was copied: it had a key, and no hub yet.
    let Image { hub, stage: former, .. } = &mut first;
    former.device.stop();
    let second = former.device.folder.parent().expect("a folder").join("second");
    std::fs::create_dir_all(second.join("store-2/store")).expect("a folder");
    let setup = Setup::new("store-2", &former.forge.url(), &former.repo.signer.line()).poll(2);
    let file = second.join("join-token");
    std::fs::write(&file, &token).expect("the join token");
    let setup = setup.with(&format!("[hub]\nurl = \"{}\"\ntoken_file = \"{}\"", hub.url(), file.display()));
    let mut device = Device::new(&second, &setup);
    std::fs::write(device.store().join("device.key"), &key).expect("the image's key");
    run(Command::new("chmod").arg("600").arg(device.store().join("device.key")));
    device.start();
    device
        .wait("it is enrolled", 90, |status| condition(status, "Enrolled").is_none() && status["link"]["hub"] == "up");
    assert_ne!(std::fs::read(device.store().join("device.key")).expect("a key"), key, "it has its own");
    former.device.start();
    assert_eq!(first.enrolled(), "till-1");
    assert_eq!(first.devices(), ["store-2", "till-1"]);
}

#[test]
fn the_lobby_lets_it_wait() {
    let hub = hub();
    let token = hub.token(&["--lobby"]);
    let mut image = Image::new("{host}-{machine-id}", &token, hub);
    image.stage.push("one");
    image.stage.device.start();
    let said = image.waits_for("InLobby");
    assert!(said.contains("SHA256:") && said.contains("device accept"), "{said}");
    let name = image.devices().pop().expect("it is in the lobby");
    // Power fails in the lobby: the key, the name and the place in it stay.
    image.stage.device.kill();
    image.stage.device.start();
    image.waits_for("InLobby");
    image.hub.done(&["device", "accept", &name]);
    assert_eq!(image.enrolled(), name);
    assert!(!image.token.exists());
}

/// As below the packaged unit, to which `/etc` is read-only; and on an image that is so as a whole.
#[test]
fn a_token_that_can_not_be_removed() {
    for read_only in [false, true] {
        let hub = hub();
        let token = hub.token(&["--uses", "1"]);
        let mut image = Image::new("till-3", &token, hub);
        fix(&image.token, read_only);
        image.stage.push("one");
        image.stage.device.start();
        assert_eq!(image.enrolled(), "till-3");
        let left = || std::fs::read_to_string(&image.token).expect("it is there").trim().to_owned();
        let want = if read_only { token.as_str() } else { "" };
        until("the token is dealt with", Duration::from_secs(10), || (left() == want).then_some(()));
        image.stage.device.stop();
        image.stage.device.start();
        assert_eq!(image.enrolled(), "till-3");
    }
}

#[test]
fn a_token_that_will_not_do() {
    let hub = hub();
    let spent = hub.token(&["--uses", "1"]);
    let good = hub.token(&["--uses", "1"]);
    let other = Setup::new("till-1", "/nowhere", "");
    let mut image = Image::new("till-2", &spent, hub);
    let first = Device::new(image.stage.folder.path(), &other);
    std::fs::write(first.folder.join("signers"), image.stage.repo.signer.line()).expect("writes");
    let signers = first.folder.join("signers").display().to_string();
    let taken = first.call(&["enroll", "--hub", &image.hub.url(), "--token", &spent, "--trust", &signers]);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));

    let revision = image.stage.push("one");
    image.stage.device.start();
    image.stage.device.wait_steady(&revision, 60);
    let said = image.waits_for("TokenRefused");
    assert!(said.contains("used up") && said.contains("hint: put a new token"), "{said}");
    assert!(!said.contains(&spent));
    let refusals = image.hub.refused("EnrollToken");
    never("it asks again and again", Duration::from_secs(12), || image.hub.refused("EnrollToken") > refusals);
    std::fs::remove_file(&image.token).expect("removes");
    // A refusal stands until there is another file, which is tried at once.
    image.waits_for("NoToken");
    std::fs::write(&image.token, &good).expect("writes");
    assert_eq!(image.enrolled(), "till-2");

    // Somebody else has that name: said, and nothing is lost.
    image.stage.device.stop();
    let store = image.stage.device.store();
    for file in ["device.key", "enrolment.json"] {
        std::fs::remove_file(store.join(file)).expect("removes");
    }
    std::fs::write(&image.token, image.hub.token(&["--uses", "1"])).expect("writes");
    image.stage.device.start();
    let said = image.waits_for("NameTaken");
    assert!(said.contains("device remove"), "{said}");
    image.hub.done(&["device", "remove", "till-2"]);
    // Touched, it is tried at once; else within a quarter of an hour.
    let text = std::fs::read_to_string(&image.token).expect("still there");
    std::fs::write(&image.token, text).expect("writes");
    assert_eq!(image.enrolled(), "till-2");
    assert_eq!(image.stage.device.stop(), Some(0));
}
