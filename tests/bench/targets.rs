//! The shipped agent for each kind of device: its size, and how long it takes to
//! say its version (a start with no work). Other machines' run under qemu's user
//! emulation, whose figure says little about a real one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use harness::bins::root;

use crate::table::Table;

const TARGETS: [(&str, &str, Option<&str>); 4] = [
    ("x86_64", "x86_64-unknown-linux-musl", None),
    ("aarch64", "aarch64-unknown-linux-musl", Some("qemu-aarch64-static")),
    ("armv7", "armv7-unknown-linux-musleabihf", Some("qemu-arm-static")),
    ("riscv64", "riscv64gc-unknown-linux-musl", Some("qemu-riscv64-static")),
];
/// What `./dev bench` builds; riscv64 is measured where it was built.
const NEEDED: usize = 3;
/// MB; SPECIFICATION.md.
const AGENT: f64 = 8.0;
const STARTS: usize = 21;

pub(crate) fn measure(table: &mut Table) {
    for (index, (name, triple, qemu)) in TARGETS.into_iter().enumerate() {
        let folder = root().join("target/cross").join(triple);
        for (program, budget) in [("burgee-agent", Some(AGENT)), ("burgee-hub", None), ("burgee", None)] {
            let path = folder.join(program);
            if let Ok(found) = std::fs::metadata(&path) {
                let size = found.len() as f64 / 1e6;
                table.add(&format!("{program}, {name}"), size, "MB", budget, "static, stripped");
            } else {
                assert!(program != "burgee-agent" || index >= NEEDED, "{} is not built", path.display());
            }
        }
        let agent = folder.join("burgee-agent");
        if agent.exists() {
            let how = qemu.map_or("on this machine".to_owned(), |qemu| format!("under {qemu}"));
            table.add(&format!("burgee-agent, {name}: start"), start(&agent, qemu), "ms", None, &how);
        }
    }
}

/// The median of some starts, in milliseconds.
fn start(agent: &Path, qemu: Option<&str>) -> f64 {
    let program = qemu.map_or_else(|| agent.to_owned(), PathBuf::from);
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let mut command = Command::new(&program);
            if qemu.is_some() {
                command.arg(agent);
            }
            let began = Instant::now();
            let ended = command.arg("--version").stdout(Stdio::null()).status().expect("the agent (or qemu) runs");
            assert!(ended.success(), "{} ended with {ended}", agent.display());
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[STARTS / 2]
}
