//! The real agent under clocks that are wrong: at 1970 and in 2099 nothing is
//! removed, what waits says so, and goes on when the clock is right. The
//! clock is Debian's libfaketime between the agent and its C library; time
//! that only goes forward (monotonic) stays as it is, as on a device.

use std::time::Duration;

use harness::clock::{EPOCH, FUTURE, RIGHT, set, told};
use harness::device::Device;
use harness::stage::{Stage, condition};
use harness::wait::{never, until};
use serde_json::Value;

const ALWAYS: &str =
    "window: {apply: {days: [mon, tue, wed, thu, fri, sat, sun], from: \"00:00\", for: 24h, tz: UTC}}\n";

/// Starts the agent with that clock.
fn start(device: &mut Device, time: &str) {
    set(device, time);
    let mut command = device.command(&["run"]);
    told(device, &mut command);
    device.start_by(command);
}

/// What happened last, by the device's own clock.
fn noted(device: &Device) -> String {
    let said = device.call(&["history"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().last().unwrap_or_else(|| panic!("no history: {said:?}")).to_owned()
}

/// Removes the app's file: it has to come back.
fn repairs(stage: &Stage, text: &str) {
    let path = stage.device.folder.join("root/etc/web/page.txt");
    std::fs::remove_file(&path).expect("the file");
    until("repair", Duration::from_secs(20), || (stage.page() == text).then_some(()));
}

#[test]
fn at_1970_new_revisions_wait_and_nothing_else_stops() {
    let mut stage = Stage::set_up(|setup| setup.poll(3600));
    stage.repo.write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [web]\n{ALWAYS}"));
    let first = stage.push("first");
    start(&mut stage.device, RIGHT);
    stage.device.wait_steady(&first, 30);
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);

    // A new head waits, and says why; what runs is repaired.
    stage.device.kill();
    stage.content("three", true);
    let third = stage.push("three");
    start(&mut stage.device, EPOCH);
    let unset = |status: &Value| condition(status, "ClockSet").is_some_and(|it| it["reason"] == "ClockUnset");
    let status = stage.device.wait("the clock is not set", 20, unset);
    assert!(condition(&status, "ClockSet").is_some_and(|it| it.to_string().contains("hint: ")), "{status:#}");
    assert_eq!(
        (&status["phase"], &status["revision"], &status["lastGood"]),
        (&"steady".into(), &Value::from(second.as_str()), &Value::from(second.as_str()))
    );
    repairs(&stage, "two\n");
    assert_eq!(status["blocked"], serde_json::json!([]));
    // It was seen by that clock, or this would prove nothing.
    assert!(stage.device.log().contains("\"1970-01-02T"), "{}", stage.device.log());

    // Going back needs no clock, either; what it left stays blocked when the clock is right.
    let output = stage.device.call(&["rollback"]);
    assert!(output.status.success(), "{output:?}");
    stage.device.wait_steady(&first, 20);
    assert_eq!(stage.page(), "one\n");
    assert!(noted(&stage.device).contains("1970-01-02"), "{}", noted(&stage.device));

    // The clock is right: it goes on by itself.
    set(&stage.device, RIGHT);
    let status = stage.device.wait_steady(&third, 40);
    assert_eq!(stage.page(), "three\n");
    assert!(condition(&status, "ClockSet").is_none(), "{status:#}");
}

#[test]
fn at_1970_windows_stay_shut() {
    let mut stage = Stage::set_up(|setup| setup.poll(3600));
    stage.repo.write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [web]\n{ALWAYS}"));
    let first = stage.push("first");
    start(&mut stage.device, RIGHT);
    stage.device.wait_steady(&first, 30);
    assert!(stage.device.call(&["suspend"]).status.success());
    let second = stage.change("two", true);
    stage.device.wait("held", 20, |status| status["phase"] == "held");

    // All that it waits for is a window, and there is no time to compare it with.
    stage.device.kill();
    start(&mut stage.device, EPOCH);
    stage.device.wait_up();
    assert!(stage.device.call(&["resume"]).status.success());
    let status = stage.device.wait("held for the clock", 20, |status| {
        condition(status, "Held").is_some_and(|it| it["reason"] == "ClockUnset")
    });
    assert_eq!((&status["phase"], &status["target"]), (&"held".into(), &Value::from(second.as_str())));
    never("it applies", Duration::from_secs(3), || stage.page() != "one\n");
    repairs(&stage, "one\n");

    set(&stage.device, RIGHT);
    let status = stage.device.wait_steady(&second, 40);
    assert!(condition(&status, "Held").is_none(), "{status:#}");
}

#[test]
fn in_2099_nothing_is_removed_and_the_way_back_to_today_is_open() {
    let mut stage = Stage::set_up(|setup| setup.poll(3600));
    stage.repo.write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [web]\n{ALWAYS}"));
    let first = stage.push("first");
    start(&mut stage.device, RIGHT);
    stage.device.wait_steady(&first, 30);
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);

    // What runs stays, is repaired, and can go back.
    stage.device.kill();
    start(&mut stage.device, FUTURE);
    stage.device.wait_steady(&second, 20);
    repairs(&stage, "two\n");
    let bad = stage.change("bad", false);
    stage.device.wait_stalled(&second, &bad, 30);
    assert_eq!(stage.page(), "two\n");
    assert!(noted(&stage.device).contains("2099-06-01"), "{}", noted(&stage.device));

    // A key that is past its time by that clock is refused; nothing else changes.
    stage.repo.write(
        "trust/allowed_signers",
        &stage.repo.signer.line().replace("namespaces", "valid-before=\"20980101Z\",namespaces"),
    );
    let limited = stage.push("a key with an end");
    stage.device.sync();
    stage.device.wait("it is judged", 20, |status| status["phase"] == "stalled" || status["phase"] == "steady");
    stage.content("late", true);
    let late = stage.push("by a key that is past its time");
    stage.device.sync();
    let status = stage
        .device
        .wait("refused", 20, |status| condition(status, "Verified").is_some_and(|it| it["reason"] == "KeyExpired"));
    assert_ne!(status["revision"], *late, "{status:#}");
    never("it runs", Duration::from_secs(2), || stage.page() == "late\n");
    assert_ne!(limited, late);

    // Today again, while it runs: at once where an operator asks, else with the next poll.
    set(&stage.device, RIGHT);
    stage.device.sync();
    let status = stage.device.wait_steady(&late, 30);
    assert_eq!(stage.page(), "late\n");
    assert!(condition(&status, "Verified").is_none(), "{status:#}");
    stage.device.kill();
    start(&mut stage.device, RIGHT);
    stage.device.wait_steady(&late, 20);
    let last = stage.change("last", true);
    stage.device.wait_steady(&last, 20);
}
