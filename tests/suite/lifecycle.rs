//! One device's life with the files runtime, which needs no engine: a signed
//! commit runs, a bad one goes back by itself, nothing is tried twice, and all
//! of it with the power cut and the network gone.

use std::path::Path;
use std::time::Duration;

use harness::repo::Signer;
use harness::stage::{Stage, condition};
use harness::wait::{never, until};
use serde_json::Value;

#[test]
fn a_signed_commit_runs_and_a_newer_one_replaces_it() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    let status = stage.device.wait_steady(&first, 30);
    assert_eq!(stage.page(), "one\n");
    assert_eq!(status["lastGood"], *first);
    assert_eq!(status["link"]["git"], "up");
    assert_eq!(status["link"]["mqtt"], "unused");

    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);
    assert_eq!(stage.page(), "two\n");
    let status = stage.device.wait("health", 10, |status| status["apps"][0]["health"] == "healthy");
    assert_eq!(status["apps"][0]["name"], "web");
    assert_eq!(status["apps"][0]["sync"], "synced");
    assert_eq!(stage.device.stop(), Some(0));
}

#[test]
fn a_bad_revision_goes_back_is_blocked_and_a_fix_goes_through() {
    let mut stage = Stage::new();
    let good = stage.push("good");
    stage.device.start();
    stage.device.wait_steady(&good, 30);

    let bad = stage.change("bad", false);
    let status = stage.device.wait_stalled(&good, &bad, 30);
    assert_eq!(stage.page(), "one\n", "the former bytes are back");
    assert_eq!(status["lastGood"], *good);
    let healthy = condition(&status, "Healthy").expect("a condition that says why");
    assert!(healthy["message"].as_str().is_some_and(|text| text.contains("app web")), "{healthy}");

    // Not tried again: not by a poll, not by a restart.
    stage.device.kill();
    stage.device.start();
    stage.device.wait_stalled(&good, &bad, 20);
    let tries = |log: &str| log.matches("revision failed").count();
    let before = tries(&stage.device.log());
    never("the bad revision is tried again", Duration::from_secs(4), || stage.page() == "bad\n");
    assert_eq!(tries(&stage.device.log()), before);

    // A commit that renders to the same is blocked, too, and says which it equals.
    let same = stage.push("the same again");
    stage.device.sync();
    let status = stage.device.wait_stalled(&good, &same, 20);
    let prepared = condition(&status, "Prepared").expect("a condition");
    assert!(prepared["message"].as_str().is_some_and(|text| text.contains(&bad[..12])), "{prepared}");

    let fix = stage.change("fixed", true);
    stage.device.wait_steady(&fix, 20);
    assert_eq!(stage.page(), "fixed\n");
}

#[test]
fn retry_is_the_way_to_try_a_blocked_revision_again() {
    let mut stage = Stage::new();
    let good = stage.push("good");
    stage.device.start();
    stage.device.wait_steady(&good, 30);
    let bad = stage.change("slow", false);
    stage.device.wait_stalled(&good, &bad, 30);
    let output = stage.device.call(&["retry"]);
    assert!(output.status.success(), "{output:?}");
    until("another try", Duration::from_secs(10), || {
        (stage.device.log().matches("revision failed").count() >= 2).then_some(())
    });
    stage.device.wait_stalled(&good, &bad, 20);
}

#[test]
fn a_first_revision_that_fails_is_tried_again_at_growing_intervals() {
    let mut stage = Stage::new();
    stage.content("first", false);
    let first = stage.push("a bad beginning");
    stage.device.start();
    let tries = || {
        let log = stage.device.log();
        let lines = log.lines().filter(|line| line.contains("revision failed"));
        let at = |line: &str| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            value["timestamp"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()).expect("a time")
        };
        lines.map(at).collect::<Vec<_>>()
    };
    let found = until("four tries", Duration::from_secs(90), || Some(tries()).filter(|tries| tries.len() >= 4));
    let gaps: Vec<_> = found.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect();
    assert!(gaps[2] > gaps[0] + 2.0, "they come ever more slowly: {gaps:?}");
    let status = stage.device.status().expect("it answers");
    assert_eq!((&status["blocked"], &status["lastGood"]), (&serde_json::json!([]), &Value::Null), "{status:#}");
    assert_eq!(status["revision"], *first);
    assert!(condition(&status, "Healthy").is_some_and(|it| it.to_string().contains("app web")), "{status:#}");

    let fix = stage.change("fixed", true);
    let status = stage.device.wait_steady(&fix, 30);
    assert_eq!(status["conditions"], serde_json::json!([]), "{status:#}");
}

#[test]
fn onfailure_hold_stays_at_the_failed_revision() {
    let mut stage = Stage::new();
    let good = stage.push("good");
    stage.device.start();
    stage.device.wait_steady(&good, 30);
    stage.content("held", false);
    let path = stage.repo.path.join("apps/web/app.yaml");
    let text = std::fs::read_to_string(&path).expect("app.yaml") + "onFailure: hold\n";
    std::fs::write(&path, text).expect("app.yaml");
    let held = stage.push("hold");
    stage.device.sync();
    let status = stage.device.wait("held", 20, |status| status["phase"] == "stalled" && status["revision"] == held);
    assert_eq!(status["blocked"], serde_json::json!([]));
    assert_eq!(status["lastGood"], *good);
    assert_eq!(stage.page(), "held\n");
}

#[test]
fn with_the_git_host_gone_it_restarts_repairs_and_rolls_back() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);

    stage.device.kill();
    stage.forge.down();
    std::fs::remove_file(stage.device.folder.join("root/etc/web/page.txt")).expect("drift while it was off");
    stage.device.start();
    until("repair after the restart", Duration::from_secs(20), || (stage.page() == "two\n").then_some(()));
    std::fs::write(stage.device.folder.join("root/etc/web/page.txt"), "vandal").expect("drift while it runs");
    until("repair", Duration::from_secs(20), || (stage.page() == "two\n").then_some(()));

    let output = stage.device.call(&["rollback"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status = stage.device.wait_steady(&first, 20);
    assert_eq!(stage.page(), "one\n");
    assert_eq!(status["lastGood"], *first);
    assert_eq!(status["blocked"][0]["revision"], *second);
    assert_eq!(status["link"]["git"], "down");

    // The host is back: what was rolled back stays blocked, a newer commit goes through.
    stage.forge.up();
    stage.device.sync();
    never("it moves by itself", Duration::from_secs(3), || stage.page() != "one\n");
    let third = stage.change("three", true);
    stage.device.wait_steady(&third, 20);
}

#[test]
fn unsigned_foreign_and_rewound_heads_are_refused_and_said() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 20);

    // Rewound: validly signed, but behind what was accepted.
    stage.repo.git(&["reset", "-q", "--hard", &first]);
    stage.repo.push(&stage.forge.url(), true);
    stage.device.sync();
    let refused = |status: &Value| condition(status, "Verified").is_some_and(|it| it["status"] == false);
    let status = stage.device.wait("refused", 20, refused);
    assert_eq!((&status["phase"], &status["revision"]), (&"steady".into(), &Value::from(second.as_str())));
    stage.repo.git(&["reset", "-q", "--hard", &second]);

    stage.content("three", true);
    stage.repo.commit_unsigned("not signed");
    stage.repo.push(&stage.forge.url(), true);
    stage.device.sync();
    let unsigned = |status: &Value| {
        condition(status, "Verified").is_some_and(|it| it["reason"].as_str().is_some_and(|it| it.contains("nsigned")))
    };
    stage.device.wait("refused as unsigned", 20, unsigned);
    never("it runs what nobody signed", Duration::from_secs(2), || stage.page() != "two\n");

    // A stranger's key.
    stage.repo.git(&["reset", "-q", "--hard", &second]);
    let stranger = Signer::new(stage.folder.path(), "stranger@example.com");
    stage.repo.git(&["config", "user.signingkey", stranger.key.to_str().expect("a path")]);
    stage.content("four", true);
    stage.push("by a stranger");
    stage.device.sync();
    stage.device.wait("refused", 20, refused);
    never("it runs what a stranger signed", Duration::from_secs(2), || stage.page() != "two\n");

    stage.repo.git(&["reset", "-q", "--hard", &second]);
    stage.repo.git(&["config", "user.signingkey", stage.repo.signer.key.to_str().expect("a path")]);
    let good = stage.change("five", true);
    let status = stage.device.wait_steady(&good, 20);
    assert!(condition(&status, "Verified").is_none(), "{status:#}");
}

#[test]
fn what_does_not_render_is_blocked_with_file_line_and_column() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    stage.repo.write("apps/web/app.yaml", "runtime: files\nfiels: []\n");
    let bad = stage.push("a typing error");
    stage.device.sync();
    let status = stage.device.wait_stalled(&first, &bad, 20);
    let message = condition(&status, "Prepared").expect("a condition")["message"].to_string();
    assert!(message.contains("apps/web/app.yaml:2:1") && message.contains("fiels"), "{message}");
    assert_eq!(stage.page(), "one\n");
}

#[test]
fn removing_the_app_prunes_its_files_and_leaves_foreign_ones() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    let folder = stage.device.folder.join("root/etc/web");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    std::fs::write(folder.join("mine.txt"), "not burgee's").expect("a foreign file");
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    let second = stage.push("without the app");
    stage.device.sync();
    stage.device.wait_steady(&second, 20);
    assert_eq!(stage.page(), "");
    assert!(folder.join("mine.txt").exists(), "a foreign file is left alone");
}

#[test]
fn a_second_agent_on_the_same_store_is_refused() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    let output = stage.device.call(&["run", "--once"]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("another agent holds"), "{stderr}");
    assert!(stage.device.is_alive());
}

#[test]
fn once_exits_by_what_came_of_it() {
    let stage = Stage::new();
    let first = stage.push("first");
    let run = || {
        let output = stage.device.call(&["run", "--once"]);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, stdout) = run();
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.contains(&first[..12]), "{stdout}");
    stage.content("bad", false);
    stage.push("bad");
    assert_eq!(run().0, Some(4), "went back by itself");
    stage.repo.commit_unsigned("not signed");
    stage.repo.push(&stage.forge.url(), true);
    assert_eq!(run().0, Some(3), "refused by trust");
}

#[test]
fn suspended_it_downloads_and_waits() {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    assert!(stage.device.call(&["suspend"]).status.success());
    let second = stage.change("two", true);
    let status = stage.device.wait("held", 20, |status| status["phase"] == "held");
    assert_eq!(status["target"], *second);
    assert_eq!(status["suspended"], true);
    stage.device.kill();
    stage.device.start();
    stage.device.wait("still held", 20, |status| status["phase"] == "held");
    never("it applies while suspended", Duration::from_secs(2), || stage.page() != "one\n");
    assert!(stage.device.call(&["resume"]).status.success());
    stage.device.wait_steady(&second, 20);
}

#[test]
fn kill_minus_nine_at_random_points_always_ends_on_the_newest_good() {
    let (updates, kills) = if std::env::var_os("BURGEE_PROVE").is_some() { (20, 5) } else { (6, 4) };
    let mut stage = Stage::new();
    let mut good = stage.push("first");
    let mut page = "one\n".to_owned();
    stage.device.start();
    stage.device.wait_steady(&good, 30);
    // A fixed sequence of odd delays: much the same points in each run.
    let mut delay: u64 = 7;
    for update in 0..updates {
        let is_good = update % 3 != 1;
        let text = format!("update {update}");
        stage.content(&text, is_good);
        let id = stage.push(&text);
        for _ in 0..kills {
            delay = (delay * 61 + 13) % 1300;
            std::thread::sleep(Duration::from_millis(delay));
            stage.device.kill();
            stage.device.start();
        }
        if is_good {
            (good, page) = (id, format!("{text}\n"));
            stage.device.wait_steady(&good, 40);
        } else {
            stage.device.wait_stalled(&good, &id, 40);
        }
        assert_eq!(stage.page(), page, "after update {update}");
    }
    assert_eq!(leftovers(&stage.device.folder.join("root")), Vec::<std::path::PathBuf>::new());
}

fn leftovers(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(leftovers(&path));
        } else if path.file_name().is_some_and(|name| name != "page.txt") {
            found.push(path);
        }
    }
    found
}

#[test]
fn too_many_deletions_wait_for_an_operators_word() {
    let mut stage = Stage::new();
    let old = stage.device.folder.join("root/etc/web/1.txt");
    for file in 0..6 {
        stage.repo.write(&format!("apps/web/files/etc/{file}.txt"), "old name\n");
    }
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    for file in 0..6 {
        stage.repo.remove(&format!("apps/web/files/etc/{file}.txt"));
        stage.repo.write(&format!("apps/web/files/etc/new-{file}.txt"), "new name\n");
    }
    let second = stage.push("all of them renamed");
    stage.device.sync();
    stage.device.wait_steady(&second, 30);
    let status = stage.device.wait("a reason", 20, |status| condition(status, "PruneLimited").is_some());
    assert!(condition(&status, "PruneLimited").is_some_and(|it| it.to_string().contains("sync --prune")), "{status:#}");
    // The inventory holds both now; that must not make the deletions seem few.
    stage.device.sync();
    never("they go unprompted", Duration::from_secs(4), || !old.exists());
    stage.device.kill();
    stage.device.start();
    never("they go after a restart", Duration::from_secs(4), || !old.exists());

    let output = stage.device.call(&["sync", "--prune", "--no-wait"]);
    assert!(output.status.success(), "{output:?}");
    until("they go when an operator says so", Duration::from_secs(20), || (!old.exists()).then_some(()));
    assert!(stage.device.folder.join("root/etc/web/new-1.txt").exists());
}
