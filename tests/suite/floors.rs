//! The layering of the crates' modules: lower floors never import higher ones
//! (ARCHITECTURE.md). Reads the `use` lines and every `crate::` path.

use std::path::{Path, PathBuf};

use harness::bins::root;

/// The agent's floors, from the ground up; what is not named here is on top.
const AGENT: [&[&str]; 4] = [
    &["phase", "retry", "window", "plan"],
    &["ports", "config"],
    &[
        "tls", "systemd", "clock", "notify", "log", "crash", "update", "source", "runtime", "health", "journal",
        "uplink",
    ],
    &["daemon", "control", "metrics", "commands"],
];
/// Adapters never import each other; these small rooms serve all of them.
const SHARED: [&str; 6] = ["tls", "systemd", "clock", "notify", "log", "crash"];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn rust_files(crate_folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root().join(crate_folder).join("src"), &mut found);
    assert!(!found.is_empty(), "no sources in {crate_folder}");
    found
}

/// The first module below the crate's root in which a file lies.
fn room(file: &Path, crate_folder: &str) -> String {
    let inner = file.strip_prefix(root().join(crate_folder).join("src")).expect("a path in the crate");
    let first = inner.components().next().expect("a part").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Each `crate::x` that the code of a file names; comments and tests don't count.
fn imports(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines
        .flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn lower_floors_never_import_higher_ones() {
    let floor = |room: &str| AGENT.iter().position(|rooms| rooms.contains(&room));
    let mut breaches = Vec::new();
    for file in rust_files("agent") {
        let here = room(&file, "agent");
        let Some(level) = floor(&here) else { continue };
        let text = std::fs::read_to_string(&file).expect("a source file");
        for there in imports(&text) {
            let Some(other) = floor(&there) else { continue };
            let sideways = level == 2 && other == 2 && here != there && !SHARED.contains(&there.as_str());
            if other > level || sideways {
                breaches.push(format!("{}: {here} imports {there}", file.display()));
            }
        }
    }
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn every_room_of_the_agent_has_a_floor() {
    let known: Vec<&str> = AGENT.iter().flat_map(|rooms| rooms.iter().copied()).chain(["lib", "main"]).collect();
    for file in rust_files("agent") {
        let room = room(&file, "agent");
        assert!(known.contains(&room.as_str()), "{} is on no floor: add it to this test", file.display());
    }
}

#[test]
fn fleet_does_no_io_is_not_async_and_reads_no_clock() {
    let banned = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "ToSocketAddrs",
        "std::process",
        "tokio::",
        "async fn",
        "::now()",
        "std::env::var",
    ];
    // A folder of tests reads other projects' files.
    for file in
        rust_files("fleet").into_iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests"))
    {
        let text = std::fs::read_to_string(&file).expect("a source file");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for word in banned {
                assert!(!line.contains(word), "{}: {word}: {line}", file.display());
            }
        }
    }
}
