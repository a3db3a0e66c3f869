//! A condition is shown while it holds, and is gone as soon as it doesn't.

use std::time::Duration;

use harness::stage::{Stage, condition};
use harness::wait::until;
use serde_json::Value;

/// Waits until a condition is there, or gone.
#[track_caller]
fn wait(stage: &Stage, kind: &str, there: bool, seconds: u64) -> Value {
    let what = format!("{kind} {}", if there { "is said" } else { "is gone" });
    stage.device.wait(&what, seconds, |status| condition(status, kind).is_some() == there)
}

/// A stage whose device runs its first revision and says nothing.
fn steady() -> (Stage, String) {
    let mut stage = Stage::new();
    let first = stage.push("first");
    stage.device.start();
    let status = stage.device.wait_steady(&first, 30);
    assert_eq!(status["conditions"], serde_json::json!([]), "{status:#}");
    (stage, first)
}

#[test]
fn of_the_host_and_of_the_head() {
    let (mut stage, first) = steady();
    stage.forge.down();
    stage.device.sync();
    let status = wait(&stage, "Fetched", true, 20);
    assert!(condition(&status, "Fetched").is_some_and(|it| it["reason"] == "GitUnreachable"), "{status:#}");
    stage.forge.up();
    wait(&stage, "Fetched", false, 20);

    stage.repo.commit_unsigned("not signed");
    stage.repo.push(&stage.forge.url(), true);
    wait(&stage, "Verified", true, 20);
    // The host takes it back: the accepted head is the branch's again.
    stage.repo.git(&["reset", "-q", "--hard", &first]);
    stage.repo.push(&stage.forge.url(), true);
    let status = wait(&stage, "Verified", false, 20);
    assert_eq!(status["conditions"], serde_json::json!([]), "{status:#}");

    assert!(stage.device.call(&["suspend"]).status.success());
    wait(&stage, "Held", true, 10);
    assert!(stage.device.call(&["resume"]).status.success());
    wait(&stage, "Held", false, 10);
}

#[test]
fn of_a_revision_that_failed() {
    let (stage, _) = steady();
    stage.repo.write("apps/web/app.yaml", "runtime: files\nfiels: []\n");
    stage.push("a typing error");
    stage.device.sync();
    wait(&stage, "Prepared", true, 20);
    stage.change("bad", false);
    let status = wait(&stage, "Healthy", true, 30);
    assert!(condition(&status, "Prepared").is_none(), "of a revision that nobody waits for: {status:#}");
    let fix = stage.change("fixed", true);
    let status = stage.device.wait_steady(&fix, 30);
    assert_eq!(status["conditions"], serde_json::json!([]), "{status:#}");
}

#[test]
fn of_withheld_deletions_when_the_app_goes_whole() {
    let (stage, _) = steady();
    for file in 0..6 {
        stage.repo.write(&format!("apps/web/files/etc/{file}.txt"), "old name\n");
    }
    let second = stage.push("six files");
    stage.device.sync();
    stage.device.wait_steady(&second, 20);
    for file in 0..6 {
        stage.repo.remove(&format!("apps/web/files/etc/{file}.txt"));
        stage.repo.write(&format!("apps/web/files/etc/new-{file}.txt"), "new name\n");
    }
    stage.push("all of them renamed");
    stage.device.sync();
    wait(&stage, "PruneLimited", true, 20);

    // An app that leaves goes whole: nothing is withheld any more.
    stage.repo.write("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: []\n");
    let last = stage.push("without the app");
    stage.device.sync();
    stage.device.wait_steady(&last, 20);
    wait(&stage, "PruneLimited", false, 20);
    assert!(!stage.device.folder.join("root/etc/web").exists());
}

#[test]
fn of_a_fight_that_drift_mode_ends() {
    let (stage, _) = steady();
    let path = stage.device.folder.join("root/etc/web/page.txt");
    for round in 0..4 {
        until("repair", Duration::from_secs(20), || (stage.page() == "one\n").then_some(()));
        std::fs::write(&path, format!("vandal {round}")).expect("drift");
    }
    until("repair", Duration::from_secs(20), || (stage.page() == "one\n").then_some(()));
    std::fs::write(&path, "vandal").expect("drift");
    wait(&stage, "DriftFighting", true, 20);
    assert_eq!(stage.page(), "vandal", "repairs are held back");

    // As the hint says: it is reported from now on, and nobody fights.
    let app = stage.repo.path.join("apps/web/app.yaml");
    let text = std::fs::read_to_string(&app).expect("app.yaml") + "drift: {mode: report}\n";
    std::fs::write(&app, text).expect("app.yaml");
    stage.push("report drift");
    stage.device.sync();
    wait(&stage, "DriftFighting", false, 30);
}
