//! The agent's own update, with real programs, a host with TLS, and something
//! that starts the agent again as a service manager does: a good one, those
//! that crash, hang, or never become healthy, and the power cut in between.

mod agents;

use std::process::Command;
use std::time::{Duration, Instant};

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
    // After 10 s, and after 20 more, however often something else is pushed.
    let mut pushed = Instant::now();
    until("it is blocked", Duration::from_secs(120), || {
        if pushed.elapsed() > Duration::from_secs(4) {
            updates.stage.content(&format!("{:?}", pushed.elapsed()), true);
            updates.stage.push("something else");
            pushed = Instant::now();
        }
        updates.record()["failed"].as_array()?.iter().any(|failed| failed["blocked"] == true).then_some(())
    });
    updates.stage.device.wait_steady(&updates.stage.repo.git(&["rev-parse", "HEAD"]), 20);
    assert_eq!(updates.supervisor().starts(), 1);
}

#[test]
fn a_trial_that_is_interrupted_has_the_rest_of_its_time_and_is_not_called_hung() {
    let (mut updates, first) = Updates::new(20);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let digest = updates.publish("deaf", &updates.with_other_words(b"info/refs?service=", b"info/nope?service="));
    updates.want(VERSION, "deaf", &digest);
    updates.stage.device.sync();
    wait_reason(&updates, "OnTrial", 30);
    std::thread::sleep(Duration::from_secs(10));
    updates.supervisor().kill();
    wait_reason(&updates, "NotInTime", 30);
    let failed = &updates.record()["failed"][0];
    assert_eq!((&failed["blocked"], &failed["reason"]), (&false.into(), &"NotInTime".into()), "{failed}");
    assert_eq!(updates.supervisor().starts(), 2, "it went back by itself, not by the kernel's alarm");
}

#[test]
fn one_too_old_for_the_repository_takes_its_successor_from_it() {
    let (mut updates, first) = Updates::new(60);
    let new = std::fs::read(&updates.base).unwrap();
    // The installed one does not know a key that the repository is about to use.
    std::fs::write(&updates.base, updates.with_other_words(b"onFailure", b"onFailurx")).unwrap();
    executable(&updates.base);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    updates.stage.content("two", true);
    let app = updates.stage.repo.path.join("apps/web/app.yaml");
    let text = std::fs::read_to_string(&app).unwrap();
    updates.stage.repo.write("apps/web/app.yaml", &format!("{text}onFailure: rollback\n"));
    let unread = updates.stage.push("a key of the next version");
    updates.stage.device.sync();
    let status = updates.stage.device.wait("it is blocked", 30, |status| {
        status["blocked"].as_array().is_some_and(|blocked| blocked.iter().any(|one| one["revision"] == unread.as_str()))
    });
    assert!(status.to_string().contains("onFailure"), "{status}");

    // The next commit keeps the key and names the agent that reads it.
    let digest = updates.publish("new", &new);
    let second = updates.want(VERSION, "new", &digest);
    updates.stage.device.sync();
    wait_passed(&updates, &digest, 60);
    updates.stage.device.wait_steady(&second, 30);
    assert_eq!(updates.stage.page(), "two\n");
    let told = updates.stage.device.call(&["history", "-o", "json"]);
    let entries: Value = serde_json::from_slice(&told.stdout).unwrap();
    let refused = entries.as_array().unwrap().iter().any(|entry| {
        let words = entry.to_string();
        words.contains(second.as_str()) && words.contains("onFailure")
    });
    assert!(refused, "the old one read what it can't: {entries}");
    // What judges for itself judges as the one that runs.
    let mut render = Command::new(&updates.base);
    let render = output(render.arg("--config").arg(updates.stage.device.config()).arg("render"));
    assert!(render.status.success(), "{render:?}");
}

#[test]
fn settings_that_only_the_newer_one_knows_do_not_keep_the_installed_one_away() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let newer = updates.publish("newer", &updates.with_other_words(b"source.username", b"source.nickname"));
    updates.want(VERSION, "newer", &newer);
    updates.stage.device.sync();
    wait_passed(&updates, &newer, 60);
    let known = updates.record()["settings"].clone();
    let say = |updates: &Updates, line: &str| {
        let config = std::fs::read_to_string(updates.stage.device.config()).expect("agent.toml");
        let text = config.replace("branch = \"main\"\n", &format!("branch = \"main\"\n{line}\n"));
        std::fs::write(updates.stage.device.config(), text).expect("agent.toml");
    };
    say(&updates, "nickname = \"me\"");
    updates.supervisor().kill();
    until("it begins anew by them", Duration::from_secs(30), || (updates.record()["settings"] != known).then_some(()));
    updates.wait_runs(&newer, 30);

    // Its file is lost: the installed one comes back, and works.
    std::fs::remove_file(updates.stage.device.store().join("agent").join(&newer)).expect("damage");
    updates.supervisor().kill();
    updates.wait_runs("burgee-agent", 30);
    let status = updates.stage.device.wait("it says so", 20, |it| condition(it, "SettingsKnown").is_some());
    let said = condition(&status, "SettingsKnown").expect("said");
    assert_eq!((&said["status"], &said["reason"]), (&false.into(), &"PassedOver".into()));
    assert!(said["message"].as_str().is_some_and(|text| text.contains("source.nickname: no such key")), "{said}");
    let second = updates.stage.change("two", true);
    updates.stage.device.wait_steady(&second, 30);

    // What nobody ever knew is a mistake, as everywhere.
    say(&updates, "nickmame = \"me\"");
    updates.supervisor = None;
    let refused = output(Command::new(&updates.base).arg("--config").arg(updates.stage.device.config()).arg("run"));
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no such key"), "{refused:?}");
}

#[test]
fn a_newer_word_does_not_wait_for_a_host_that_draws_it_out() {
    let (mut updates, first) = Updates::new(60);
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    // Half an hour of it.
    let dripping = updates.publish("dripping", &updates.good("drop by drop"));
    updates.want_from("dripping", VERSION, "dripping", &dripping);
    updates.stage.device.sync();
    let part = updates.stage.device.store().join(format!("agent/{dripping}.part"));
    until("a part of it", Duration::from_secs(30), || {
        std::fs::metadata(&part).is_ok_and(|part| part.len() > 0).then_some(())
    });
    let good = updates.publish("good", &updates.good("at once"));
    let wanted = updates.want(VERSION, "good", &good);
    updates.stage.device.sync();
    wait_passed(&updates, &good, 30);
    updates.stage.device.wait_steady(&wanted, 20);
    assert!(!part.exists(), "what nobody wants any more is gone");
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

/// Where the power fails, in the order of an update's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A part of the program is there.
    Part,
    /// The program has its name, and nothing says yet that it is to run.
    Named,
    /// The record says that it is to be tried; no start was counted.
    Recorded,
    /// Its first start is counted.
    Counted,
    /// It runs, and has not proved itself.
    OnTrial,
    /// It has.
    Passed,
}

impl At {
    fn is_reached(self, updates: &Updates, digest: &str) -> bool {
        let agents = updates.stage.device.store().join("agent");
        let record = updates.record();
        let of_it = |entry: &Value| entry["sha256"] == digest;
        let starts = record["trial"]["starts"].as_u64();
        match self {
            Self::Part => {
                std::fs::metadata(agents.join(format!("{digest}.part"))).is_ok_and(|part| part.len() > 1 << 20)
            }
            Self::Named => agents.join(digest).exists(),
            Self::Recorded => of_it(&record["trial"]) && starts.is_some(),
            Self::Counted => of_it(&record["trial"]) && starts >= Some(1),
            Self::OnTrial => of_it(&record["trial"]) && updates.runs().as_deref() == Some(digest),
            Self::Passed => of_it(&record["current"]),
        }
    }
}

#[test]
fn the_power_fails_at_each_step_of_an_update() {
    let mut disk = Disk::of(320).unwrap();
    let (mut updates, first) = Updates::new(60);
    // The whole store on a disk that loses what was not synced.
    std::os::unix::fs::symlink(disk.path(), updates.stage.device.store()).unwrap();
    updates.run();
    updates.stage.device.wait_steady(&first, 30);
    let mut found = Vec::new();
    for (round, at) in [At::Part, At::Named, At::Recorded, At::Counted, At::OnTrial, At::Passed].into_iter().enumerate()
    {
        let before = updates.record()["current"].clone();
        let digest = updates.publish("next", &updates.good(&format!("round {round}")));
        let folder = if at == At::Part { "slow" } else { "files" };
        disk.cut_when(|| {
            updates.want_from(folder, VERSION, "next", &digest);
            updates.stage.device.sync();
            let start = Instant::now();
            while !at.is_reached(&updates, &digest) {
                assert!(start.elapsed() < Duration::from_secs(60), "{at:?} is not reached: {}", updates.record());
                std::thread::sleep(Duration::from_millis(1));
            }
        })
        .unwrap();
        updates.supervisor = None;
        disk.cut().unwrap();
        // What a disk keeps of an update is a whole step of it, or the step before.
        let kept = updates.record();
        let trial = &kept["trial"]["sha256"];
        assert!(kept["current"] == before || kept["current"]["sha256"] == digest, "{at:?}: {kept}");
        assert!(trial.is_null() || *trial == digest, "{at:?}: {kept}");
        assert!(trial.is_null() || At::Named.is_reached(&updates, &digest), "{at:?}: a trial of nothing: {kept}");
        found.push((trial.is_null(), kept["trial"]["starts"].as_u64()));
        updates.run();
        wait_passed(&updates, &digest, 90);
        let wanted = updates.stage.repo.head();
        updates.stage.device.wait_steady(&wanted, 30);
        assert_eq!(updates.stage.page(), "one\n");
    }
    assert!(found.contains(&(true, None)) && found.contains(&(false, Some(1))), "the steps differ: {found:?}");
    updates.supervisor = None;
}
