//! The agent's own update, with real programs, a host with TLS, and something
//! that starts the agent again as a service manager does: a good one, those
//! that crash, hang, or never become healthy, and the power cut in between.

mod agents;

use std::process::Command;
use std::time::Duration;

use agents::{Updates, VERSION, executable};
use harness::disk::Disk;
use harness::process::{output, run};
use harness::stage::condition;
use harness::wait::{never, until};
use serde_json::Value;

fn updated(status: &Value) -> Option<(String, String)> {
    let found = condition(status, "AgentUpdated")?;
    Some((found["reason"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
}

/// Waits for the condition to have this reason; its message.
#[track_caller]
fn wait_reason(updates: &Updates, reason: &str, seconds: u64) -> String {
    let status = updates.stage.device.wait(&format!("AgentUpdated: {reason}"), seconds, |status| {
        updated(status).is_some_and(|(found, _)| found == reason)
    });
    updated(&status).expect("the condition").1
}

/// Waits for the trial to be over and well.
#[track_caller]
fn wait_passed(updates: &Updates, digest: &str, seconds: u64) {
    updates.wait_runs(digest, seconds);
    until("the trial to be over", Duration::from_secs(seconds), || {
        let record = updates.record();
        (record["current"]["sha256"] == digest && record["trial"].is_null()).then_some(())
    });
}

#[test]
fn a_signed_word_brings_another_agent_and_takes_it_back() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let page = updates.stage.device.folder.join("root/etc/web/page.txt");
    let before = std::fs::metadata(&page).unwrap().modified().unwrap();
    let pid = updates.supervisor().pid();

    let digest = updates.publish("good", &updates.good("another"));
    let second = updates.want(VERSION, "good", &digest);
    updates.stage.device.sync();
    wait_passed(&updates, &digest, 60);
    updates.stage.device.wait_steady(&second, 20);
    assert_eq!(updates.supervisor().pid(), pid, "the service manager saw no restart");
    assert_eq!(updates.supervisor().starts(), 1);
    assert_eq!(std::fs::metadata(&page).unwrap().modified().unwrap(), before, "what runs was not touched");
    let status = updates.stage.device.wait("no condition", 10, |status| updated(status).is_none());
    assert_eq!(status["agent"], VERSION);
    let events = updates.events();
    assert!(events.contains(&"agent-update".to_owned()) && events.contains(&"agent-updated".to_owned()), "{events:?}");

    // It stays after a crash, and with the hosts gone.
    updates.host.down();
    updates.stage.forge.down();
    updates.supervisor().kill();
    updates.wait_runs(&digest, 20);
    updates.stage.forge.up();
    updates.host.up();

    // A signed word takes it back: to the installed one, which needs no download.
    let installed = updates.publish("installed", &std::fs::read(&updates.base).unwrap());
    std::fs::remove_file(updates.host.files().join(format!("installed-{}", agents::machine()))).unwrap();
    let third = updates.want(VERSION, "installed", &installed);
    updates.stage.device.sync();
    updates.wait_runs("burgee-agent", 30);
    updates.stage.device.wait_steady(&third, 20);
    assert!(updates.record()["current"].is_null());
}

#[test]
fn what_is_not_as_signed_never_runs() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);

    // Not there.
    let late = updates.good("late");
    let digest = updates.publish("late", &late);
    let file = updates.host.files().join(format!("late-{}", agents::machine()));
    std::fs::remove_file(&file).unwrap();
    let second = updates.want(VERSION, "late", &digest);
    updates.stage.device.sync();
    let message = wait_reason(&updates, "DownloadFailed", 20);
    assert!(message.contains("404") && message.contains("hint:"), "{message}");
    updates.stage.device.wait_steady(&second, 20);

    // Another content than the digest that was signed.
    std::fs::write(&file, updates.good("forged")).unwrap();
    assert!(updates.stage.device.call(&["retry"]).status.success());
    let message = wait_reason(&updates, "DigestMismatch", 20);
    assert!(message.contains(&digest), "{message}");

    // Another version than it says; none at all for this machine.
    let liar = updates.publish("liar", &updates.good("liar"));
    updates.want("9.9.9", "liar", &liar);
    updates.stage.device.sync();
    let message = wait_reason(&updates, "NotExecutable", 30);
    assert!(message.contains("9.9.9") && message.contains(VERSION), "{message}");
    let broken = updates.publish("broken", b"\x7fELF of another machine");
    updates.want("1.2.3", "broken", &broken);
    updates.stage.device.sync();
    until("the other message", Duration::from_secs(20), || {
        let status = updates.stage.device.status()?;
        updated(&status).filter(|(_, message)| message.contains("does not start on this machine"))
    });
    updates.stage.repo.write(
        "burgee.yaml",
        "format: 1\nfleet: test\nagent:\n  version: 1.2.3\n  url: https://localhost/x\n  sha256: {riscv64: 0000000000000000000000000000000000000000000000000000000000000000}\n",
    );
    updates.stage.push("for another machine");
    updates.stage.device.sync();
    wait_reason(&updates, "NotForThisMachine", 20);

    // What is as signed, at last.
    let good = updates.publish("late", &late);
    assert_eq!(good, digest);
    updates.want(VERSION, "late", &digest);
    updates.stage.device.sync();
    wait_passed(&updates, &digest, 60);
    assert_eq!(updates.supervisor().starts(), 1);
}

#[test]
fn one_that_crashes_goes_and_stays_gone() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let crashing = updates.publish("crashing", &updates.script("7.0.0", "exit 3"));
    let second = updates.want("7.0.0", "crashing", &crashing);
    updates.stage.device.sync();
    let message = wait_reason(&updates, "NeverHealthy", 60);
    assert!(message.contains("7.0.0") && message.contains("4 times") && message.contains("retry"), "{message}");
    assert_eq!(updates.runs().as_deref(), Some("burgee-agent"));
    updates.stage.device.wait_steady(&second, 20);
    let starts = updates.supervisor().starts();
    assert_eq!(starts, 5, "the first, and each of the four crashes");
    assert!(updates.events().contains(&"agent-update-failed".to_owned()));

    // Blocked: not by a poll, not by a restart.
    updates.supervisor().kill();
    wait_reason(&updates, "NeverHealthy", 20);
    never("it is tried again", Duration::from_secs(5), || updates.runs().as_deref() == Some(crashing.as_str()));
    assert_eq!(updates.supervisor().starts(), starts + 1);

    // Also while what is remembered of it can't be read: then nothing is tried at all.
    let record = updates.stage.device.store().join("agent/record.json");
    let kept = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{").unwrap();
    updates.supervisor().kill();
    let message = wait_reason(&updates, "StoreFailed", 20);
    assert!(message.contains("record.json") && message.contains("hint:"), "{message}");
    never("it is tried for want of a memory", Duration::from_secs(3), || {
        updates.runs().as_deref() == Some(crashing.as_str())
    });
    std::fs::write(&record, kept).unwrap();

    // A newer commit that names it again is no way around; another version is.
    updates.stage.content("three", true);
    let third = updates.stage.push("another commit");
    updates.stage.device.sync();
    updates.stage.device.wait_steady(&third, 20);
    assert_eq!(updates.runs().as_deref(), Some("burgee-agent"));
    let good = updates.publish("good", &updates.good("a fix"));
    updates.want(VERSION, "good", &good);
    updates.stage.device.sync();
    wait_passed(&updates, &good, 60);
}

#[test]
fn one_that_hangs_is_ended_by_the_kernel() {
    let (mut updates, first) = Updates::new(10);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let hanging = updates.publish("hanging", &updates.script("7.1.0", "exec sleep 100000"));
    updates.want("7.1.0", "hanging", &hanging);
    updates.stage.device.sync();
    until("it hangs", Duration::from_secs(30), || (updates.runs().as_deref() == Some("sleep")).then_some(()));
    let message = wait_reason(&updates, "NeverHealthy", 60);
    assert!(message.contains("7.1.0"), "{message}");
    assert_eq!(updates.runs().as_deref(), Some("burgee-agent"));
    assert_eq!(updates.supervisor().starts(), 2, "ended once, by its alarm");
}

#[test]
fn one_that_never_reaches_the_repository_goes_back_by_itself_and_is_blocked_the_third_time() {
    let (mut updates, first) = Updates::new(10);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    // The real agent, with a fault that only shows once it runs: it asks for what no Git host has.
    let digest = updates.publish("deaf", &updates.with_other_words(b"info/refs?service=", b"info/nope?service="));
    updates.want(VERSION, "deaf", &digest);
    updates.stage.device.sync();
    let message = wait_reason(&updates, "OnTrial", 30);
    assert!(message.contains("has not reached the fleet repository"), "{message}");
    // Somebody who starts one beside it, or asks for one pass, uses up no start of the trial.
    for words in [&["run"][..], &["run", "--once"], &["run"], &["run"]] {
        let mut beside = Command::new(&updates.base);
        let beside = output(beside.arg("--config").arg(updates.stage.device.config()).args(words));
        assert!(!beside.status.success(), "{beside:?}");
    }
    assert_eq!(updates.record()["trial"]["starts"], 1);
    let message = wait_reason(&updates, "NotInTime", 40);
    assert!(message.contains("tried again"), "{message}");
    assert_eq!(updates.supervisor().starts(), 1, "it went back by itself");
    // After 10 s, and after 20 more.
    until("it is blocked", Duration::from_secs(120), || {
        updates.record()["failed"].as_array()?.iter().any(|failed| failed["blocked"] == true).then_some(())
    });
    updates.stage.device.wait_steady(&updates.stage.repo.git(&["rev-parse", "HEAD"]), 20);
    assert_eq!(updates.supervisor().starts(), 1);
}

#[test]
fn it_waits_where_a_revision_would_and_a_package_goes_before_it() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    assert!(updates.stage.device.call(&["suspend"]).status.success());
    let digest = updates.publish("good", &updates.good("another"));
    updates.want(VERSION, "good", &digest);
    updates.stage.device.sync();
    let message = wait_reason(&updates, "Suspended", 40);
    assert!(message.contains("resume"), "{message}");
    assert!(updates.stage.device.call(&["resume"]).status.success());
    wait_passed(&updates, &digest, 60);

    // A window that is shut.
    let hour: u32 = run(Command::new("date").args(["-u", "+%H"])).trim().parse().unwrap();
    let shut = format!("{{apply: {{from: \"{:02}:00\", for: 1h, tz: UTC}}}}", (hour + 12) % 24);
    updates
        .stage
        .repo
        .write("groups/all.yaml", &format!("selector: {{matchLabels: {{role: test}}}}\napps: [web]\nwindow: {shut}\n"));
    let other = updates.publish("other", &updates.good("one more"));
    updates.want(VERSION, "other", &other);
    updates.stage.device.sync();
    wait_reason(&updates, "WindowShut", 40);
    never("it goes through a shut window", Duration::from_secs(3), || {
        updates.runs().as_deref() == Some(other.as_str())
    });

    // Another package, with an agent of its own: that one runs, and the
    // repository's word is followed anew in its time.
    let fresh = updates.base.with_extension("new");
    std::fs::write(&fresh, updates.good("of another package")).unwrap();
    executable(&fresh);
    std::fs::rename(&fresh, &updates.base).unwrap();
    updates.supervisor().kill();
    updates.wait_runs("burgee-agent", 20);
    wait_reason(&updates, "WindowShut", 40);
    assert!(updates.record()["current"].is_null());

    // A device that is not to follow says so.
    let config = std::fs::read_to_string(updates.stage.device.config()).unwrap();
    std::fs::write(updates.stage.device.config(), config.replace("[update]", "[update]\nenabled = false")).unwrap();
    updates.supervisor().kill();
    wait_reason(&updates, "Disabled", 20);
}

#[test]
fn killed_anywhere_it_ends_with_the_new_one() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let mut seen_part = 0;
    for round in 0..4u64 {
        let digest = updates.publish("next", &updates.good(&format!("round {round}")));
        let wanted = updates.want_from("slow", VERSION, "next", &digest);
        updates.stage.device.sync();
        // In the middle of the download, which goes on where it was.
        let part = updates.stage.device.store().join(format!("agent/{digest}.part"));
        until("a part of it", Duration::from_secs(30), || {
            (std::fs::metadata(&part).is_ok_and(|part| part.len() > (1 + round) << 20)).then_some(())
        });
        updates.supervisor().kill();
        seen_part += u32::from(part.exists());
        let status = updates.stage.device.wait("it answers", 20, |_| true);
        assert_eq!(status["agent"], VERSION);
        // Around the switch.
        until("a trial", Duration::from_secs(60), || (!updates.record()["trial"].is_null()).then_some(()));
        std::thread::sleep(Duration::from_millis(round * 70));
        updates.supervisor().kill();
        std::thread::sleep(Duration::from_millis(250 + round * 150));
        updates.supervisor().kill();
        wait_passed(&updates, &digest, 60);
        updates.stage.device.wait_steady(&wanted, 20);
        assert_eq!(updates.stage.page(), "one\n");
    }
    assert_eq!(seen_part, 4);
    let resumed = updates.host.requests().iter().filter(|line| line.contains("\" 206 ")).count();
    assert!(resumed >= 4, "downloads were resumed {resumed} times");
    let programs = std::fs::read_dir(updates.stage.device.store().join("agent")).unwrap();
    let names: Vec<String> = programs.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(names.len() <= 3, "the current one, the one before, the record: {names:?}");
}

#[test]
fn the_power_fails_anywhere_in_an_update() {
    let mut disk = Disk::of(320).unwrap();
    let (mut updates, first) = Updates::new(60);
    // The whole store on a disk that loses what was not synced.
    std::os::unix::fs::symlink(disk.path(), updates.stage.device.store()).unwrap();
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    for round in 0..5u64 {
        let digest = updates.publish("next", &updates.good(&format!("round {round}")));
        let wanted = updates.want(VERSION, "next", &digest);
        updates.stage.device.sync();
        // From the download to the new one's first seconds.
        std::thread::sleep(Duration::from_millis(150 + round * 600));
        let mut cut = disk.cut_in(Duration::from_millis(round * 37)).unwrap();
        cut.wait().unwrap();
        updates.supervisor = None;
        disk.cut().unwrap();
        updates.run();
        wait_passed(&updates, &digest, 90);
        updates.stage.device.wait_steady(&wanted, 30);
        assert_eq!(updates.stage.page(), "one\n");
    }
    updates.supervisor = None;
}
