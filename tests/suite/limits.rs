//! Repositories that are too much for a device: each is refused for its own
//! reason and in bounded memory, by the real `burgee-agent verify`.

use harness::forge::Forge;
use harness::trust::{Stage, tree};

/// What a `verify` may hold at most, in MiB: the limit of 64 MiB for a pack or
/// an object, and itself (a debug build) beside it.
const BOUND: u64 = 128;

/// Asserts that the head of a stage, served over smart HTTP (so that no child
/// does the agent's reading), is refused for that reason, in bounded memory.
#[track_caller]
fn refused(stage: &Stage, forge: &Forge, base: &str, limit: &str, more: &[&str]) {
    stage.repo.git(&[
        "push",
        "-q",
        "--force",
        forge.bare().to_str().expect("a UTF-8 path"),
        "refs/heads/main:refs/heads/main",
    ]);
    let (said, peak) = stage.verify_measured(&forge.url(), &[&["--after", base], more].concat());
    said.failed(2, limit);
    said.failed(2, "hint: ");
    println!("{limit}: {} MiB at most", peak / 1024);
    assert!(peak / 1024 < BOUND, "{} MiB: {said:?}", peak / 1024);
}

/// A raw tree of `count` entries of one object.
fn wide(stage: &Stage, mode: &str, count: usize, object: &str) -> String {
    let names: Vec<String> = (0..count).map(|number| format!("f{number:06}")).collect();
    let rows: Vec<(&str, &[u8], &str)> = names.iter().map(|name| (mode, name.as_bytes(), object)).collect();
    stage.object("tree", &tree(&rows))
}

/// Makes a signed commit over `base` with this tree as `apps/`.
fn with_apps(stage: &Stage, base: &str, apps: &str) {
    stage.head(base);
    let top = stage.top_with(&[("40000", b"apps", apps)]);
    stage.put_signed(&stage.payload(&top, base));
}

#[test]
fn large_blobs() {
    let stage = Stage::new();
    let forge = Forge::start(stage.folder.path());
    let base = stage.repo.commit("base");
    stage.repo.write("docs/large", &"x".repeat(2 * 1024 * 1024));
    let head = stage.repo.commit("two MiB where nobody looks");
    stage.verify(&["--after", &base]).holds(&head);
    stage.repo.write("apps/a/files/large", &"x".repeat(2 * 1024 * 1024));
    let head = stage.repo.commit("two MiB in an app");
    stage.verify(&["--after", &base]).failed(2, "source.limits.blob_mib");
    stage.verify(&["--after", &base, "--set", "source.limits.blob_mib=2"]).holds(&head);

    // A gigabyte that compresses to a megabyte, where nobody looks (and in an app).
    let paths: &[&str] =
        if std::env::var_os("BURGEE_PROVE").is_some() { &["zeros", "apps/a/files/zeros"] } else { &["zeros"] };
    for path in paths {
        stage.repo.git(&["reset", "-q", "--hard", &base]);
        let path = stage.repo.path.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::File::create(path).and_then(|file| file.set_len(1_000_000_000)).expect("a sparse file");
        stage.repo.commit("a bomb");
        refused(&stage, &forge, &base, "source.limits.pack_mib", &[]);
    }
}

#[test]
fn large_packs() {
    let stage = Stage::new();
    let forge = Forge::start(stage.folder.path());
    let base = stage.repo.commit("base");
    let mut noise = vec![0; 3 * 1024 * 1024];
    getrandom::fill(&mut noise).expect("noise");
    std::fs::write(stage.repo.path.join("noise"), &noise).expect("a file");
    let head = stage.repo.commit("noise");
    stage.verify(&["--after", &base]).holds(&head);
    stage.verify(&["--after", &base, "--set", "source.limits.pack_mib=1"]).failed(2, "source.limits.pack_mib");

    // More than the limit, in files that are each small enough.
    for file in 0..8 {
        getrandom::fill(&mut noise).expect("noise");
        std::fs::write(stage.repo.path.join(format!("noise-{file}")), &noise).expect("a file");
    }
    stage.repo.git(&["config", "core.compression", "0"]);
    stage.repo.commit("more noise");
    refused(&stage, &forge, &base, "source.limits.pack_mib", &["--set", "source.limits.pack_mib=16"]);
}

#[test]
fn large_trees() {
    let stage = Stage::new();
    let forge = Forge::start(stage.folder.path());
    let base = stage.repo.commit("base");
    let blob = stage.object("blob", b"x\n");

    // A hundred thousand files in one folder, and in a hundred.
    let many = wide(&stage, "100644", 100_000, &blob);
    with_apps(&stage, &base, &many);
    refused(&stage, &forge, &base, "source.limits.files", &[]);
    let folder = wide(&stage, "100644", 1000, &blob);
    let folders = wide(&stage, "40000", 100, &folder);
    with_apps(&stage, &base, &folders);
    refused(&stage, &forge, &base, "source.limits.files", &[]);

    // Ten thousand million files of eleven objects.
    let mut bomb = blob.clone();
    for level in 0..10 {
        bomb = wide(&stage, if level == 0 { "100644" } else { "40000" }, 10, &bomb);
    }
    with_apps(&stage, &base, &bomb);
    refused(&stage, &forge, &base, "source.limits.files", &[]);
    // The same with no file in it: folders alone.
    let mut bomb = stage.object("tree", b"");
    for _ in 0..10 {
        bomb = wide(&stage, "40000", 10, &bomb);
    }
    with_apps(&stage, &base, &bomb);
    refused(&stage, &forge, &base, "source.limits.files", &[]);

    let mut deep = wide(&stage, "100644", 1, &blob);
    for _ in 0..70 {
        deep = stage.object("tree", &tree(&[("40000", b"d", &deep)]));
    }
    with_apps(&stage, &base, &deep);
    refused(&stage, &forge, &base, "source.limits.depth", &[]);
}
