//! What is wrong in a repository or on a device: what ran still runs, and
//! `status` says why in one sentence, with a hint.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use harness::process::run;
use harness::stage::{Stage, condition};
use harness::wait::never;
use serde_json::Value;

/// The message of a condition: one sentence, and a hint.
#[track_caller]
fn sentence(status: &Value, kind: &str) -> String {
    let condition = condition(status, kind).unwrap_or_else(|| panic!("no {kind}: {status:#}"));
    let message = condition["message"].as_str().expect("text");
    let (said, hint) = message.split_once("\nhint: ").unwrap_or_else(|| panic!("no hint: {message}"));
    assert!(!said.contains('\n') && !hint.contains('\n'), "more than a sentence: {message}");
    message.to_owned()
}

#[test]
fn content_that_does_not_render_is_refused_by_its_place() {
    let mut stage = Stage::new();
    stage.repo.write("apps/other/app.yaml", "runtime: files\nfiles: [{from: etc/, to: /etc/other/}]\n");
    stage.repo.write("apps/other/files/etc/other.txt", "other\n");
    let good = stage.push("good");
    stage.device.start();
    stage.device.wait_steady(&good, 30);
    let bomb = {
        let mut text = "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            text.push_str(&format!("x-a{level}: &a{level} [{before}]\n"));
        }
        text + "services: {web: {image: x}}\n"
    };
    let group = "selector: {matchLabels: {role: test}}\napps: [web]\n";
    let template = "runtime: files\nfiles:\n  - {from: etc/, to: /etc/web/}\ntemplates: [etc/page.txt]\n";
    let coloured = |colour: &str| format!("{group}vars: {{COLOUR: {colour}}}\n");
    let (red, green) = (coloured("red"), coloured("green"));
    let absent = group.replace("web", "shop");
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            "a YAML bomb",
            vec![("apps/web/app.yaml", "runtime: compose\n"), ("apps/web/compose.yaml", &bomb)],
            "apps/web/compose.yaml",
            "alias",
        ),
        (
            "a cycle",
            vec![
                ("apps/web/app.yaml", "runtime: files\ndependsOn: [other]\nfiles: [{from: etc/, to: /etc/web/}]\n"),
                ("apps/other/app.yaml", "runtime: files\ndependsOn: [web]\nfiles: [{from: etc/, to: /etc/other/}]\n"),
                ("groups/all.yaml", "selector: {matchLabels: {role: test}}\napps: [web, other]\n"),
            ],
            "apps/",
            "dependsOn",
        ),
        ("ambiguous priorities", vec![("groups/all.yaml", &red), ("groups/more.yaml", &green)], "groups/", "COLOUR"),
        (
            "an undefined variable",
            vec![("apps/web/app.yaml", template), ("apps/web/files/etc/page.txt", "one\n${NOBODY_SAYS}\n")],
            "apps/web/files/etc/page.txt:2",
            "NOBODY_SAYS",
        ),
        (
            "a repeated key",
            vec![("apps/web/app.yaml", "runtime: files\nruntime: files\n")],
            "apps/web/app.yaml:2",
            "runtime",
        ),
        ("an app that is not there", vec![("groups/all.yaml", &absent)], "groups/all.yaml:2", "shop"),
        ("no format", vec![("burgee.yaml", "fleet: test\n")], "burgee.yaml", "format"),
        ("a format of tomorrow", vec![("burgee.yaml", "format: 2\nfleet: test\n")], "burgee.yaml:1", "format"),
    ];
    for (name, files, place, word) in cases {
        for (path, text) in files {
            stage.repo.write(path, text);
        }
        let bad = stage.push(name);
        stage.device.sync();
        let status = stage.device.wait_stalled(&good, &bad, 20);
        let message = sentence(&status, "Prepared");
        println!("{name}: {message}");
        assert!(message.contains(place) && message.to_lowercase().contains(&word.to_lowercase()), "{name}: {message}");
        assert_eq!(stage.page(), "one\n", "{name}");
        assert!(stage.device.is_alive(), "{name}");
        stage.repo.git(&["rm", "-rqf", "--ignore-unmatch", "groups/more.yaml"]);
        stage.repo.git(&["checkout", "-q", &good, "--", "."]);
    }
    stage.content("mended", true);
    let fix = stage.push("mended");
    stage.device.sync();
    let status = stage.device.wait_steady(&fix, 20);
    assert_eq!(status["conditions"], serde_json::json!([]), "{status:#}");
}

#[test]
fn what_the_device_does_not_allow_is_refused() {
    let mut stage = Stage::new();
    let good = stage.push("good");
    stage.device.start();
    stage.device.wait_steady(&good, 30);
    for (to, word) in [("/usr/share/web/", "[runtime.files]"), ("/etc/../usr/web/", "..")] {
        stage.repo.write("apps/web/app.yaml", &format!("runtime: files\nfiles:\n  - {{from: etc/, to: {to}}}\n"));
        let bad = stage.push(to);
        stage.device.sync();
        let status = stage.device.wait_stalled(&good, &bad, 20);
        let message = sentence(&status, "Prepared");
        println!("{to}: {message}");
        assert!(message.contains(word), "{to}: {message}");
        assert_eq!(stage.page(), "one\n");
    }
}

/// A small disk at a folder, gone with the value.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn new(at: &'a Path, size: &str) -> Self {
        std::fs::create_dir_all(at).expect("a folder");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "small"]).arg(at));
        Self(at)
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        use std::io::Write as _;
        let mut file = std::fs::File::create(self.0.join("filler")).expect("a file");
        while file.write_all(&[0; 4096]).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("the filler");
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}

#[test]
fn a_store_on_a_full_disk_keeps_what_runs_and_goes_on_when_there_is_space() {
    let mut stage = Stage::new();
    let store = stage.device.store();
    let disk = SmallDisk::new(&store, "16m");
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    disk.fill();
    let second = stage.change("two", true);
    let full = |status: &Value| {
        ["StoreWritable", "Fetched"].iter().any(|kind| condition(status, kind).is_some_and(|it| it["status"] == false))
    };
    let status = stage.device.wait("the disk is full", 30, full);
    assert_eq!(status["revision"], *first, "{status:#}");
    let kind = if condition(&status, "StoreWritable").is_some() { "StoreWritable" } else { "Fetched" };
    let message = sentence(&status, kind);
    println!("{message}");
    assert!(message.contains("space"), "{message}");
    never("it moves", Duration::from_secs(2), || stage.page() != "one\n");

    // Repair needs no space in the store; nor does a restart.
    std::fs::write(stage.device.folder.join("root/etc/web/page.txt"), "vandal").expect("drift");
    harness::wait::until("repair", Duration::from_secs(20), || (stage.page() == "one\n").then_some(()));
    stage.device.kill();
    stage.device.start();
    stage.device.wait("it holds what it had", 30, |status| status["revision"] == *first);
    assert_eq!(stage.page(), "one\n");

    disk.free();
    let status = stage.device.wait_steady(&second, 60);
    assert_eq!(stage.page(), "two\n");
    assert!(condition(&status, "StoreWritable").is_none() && condition(&status, "Fetched").is_none(), "{status:#}");
    assert_eq!(stage.device.stop(), Some(0));
}

#[test]
fn a_full_disk_under_the_files_is_said_and_waited_for() {
    let mut stage = Stage::new();
    let etc = stage.device.folder.join("root/etc");
    let disk = SmallDisk::new(&etc, "256k");
    let first = stage.push("first");
    stage.device.start();
    stage.device.wait_steady(&first, 30);
    disk.fill();
    stage.content(&"long ".repeat(4000), true);
    stage.push("larger than what is left");
    stage.device.sync();
    let status =
        stage.device.wait("the disk is full", 30, |status| status["conditions"].to_string().contains("is full"));
    let message = sentence(&status, "Applied");
    println!("{message}");
    assert!(message.contains("page.txt"), "{message}");
    assert_eq!(stage.page(), "one\n", "the old content stays");
    disk.free();
    assert!(stage.device.call(&["retry"]).status.success());
    let head = stage.repo.head();
    stage.device.wait_steady(&head, 60);
}
