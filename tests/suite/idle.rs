//! An idle device is silent: for two minutes, steady and connected to its hub
//! over MQTT, it writes nothing to its disk.

use std::process::Command;
use std::time::Duration;

use harness::hub::Hub;
use harness::process::Running;
use harness::stage::Stage;

const IDLE: Duration = Duration::from_secs(120);
/// What can change a disk.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate,mkdir,mkdirat,openat,copy_file_range,sendfile";

/// The lines of a trace that change a file: writes to anything but sockets,
/// pipes and events, and files that are opened to be written.
fn changes(trace: &str) -> Vec<&str> {
    trace
        .lines()
        .filter(|line| {
            let harmless = [
                "socket:[",
                "TCP:[",
                "UNIX:[",
                "UNIX-STREAM:[",
                "pipe:[",
                "anon_inode:",
                "agent.log>",
                "+++",
                "---",
                "strace:",
            ];
            let opened = line.contains("openat(")
                && !line.contains("O_WRONLY")
                && !line.contains("O_RDWR")
                && !line.contains("O_CREAT");
            !opened
                && !harmless.iter().any(|text| line.contains(text))
                && !line.contains("resumed>")
                && line.contains('(')
        })
        .collect()
}

#[test]
fn for_two_minutes_nothing_is_written() {
    let hub = Hub::start("");
    // It polls four times in the two minutes: a poll that finds nothing new writes nothing, either.
    let mut stage = Stage::joined(&hub, |setup| setup.poll(30));
    stage.device.wait("MQTT is up", 30, |status| status["link"]["mqtt"] == "up");
    // Reports of the last transition are still being acknowledged.
    std::thread::sleep(Duration::from_secs(10));

    let trace = stage.folder.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-e", CALLS, "-o"]).arg(&trace).arg("-p").arg(stage.device.pid().to_string());
    let mut tracing = Running::start(&mut strace, &stage.folder.path().join("strace.log"));
    std::thread::sleep(IDLE);
    assert!(
        tracing.is_alive(),
        "strace ended: {}",
        std::fs::read_to_string(stage.folder.path().join("strace.log")).unwrap_or_default()
    );
    tracing.stop(Duration::from_secs(10));
    let text = std::fs::read_to_string(&trace).expect("the trace");
    assert!(stage.device.is_alive());
    assert!(!text.is_empty(), "the trace saw nothing at all, not even a packet");
    assert_eq!(changes(&text), Vec::<&str>::new());

    // The same eyes see a change: else this would prove nothing.
    let trace = stage.folder.path().join("trace-2");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-e", CALLS, "-o"]).arg(&trace).arg("-p").arg(stage.device.pid().to_string());
    let mut tracing = Running::start(&mut strace, &stage.folder.path().join("strace.log"));
    std::thread::sleep(Duration::from_secs(1));
    let second = stage.change("two", true);
    stage.device.wait_steady(&second, 60);
    tracing.stop(Duration::from_secs(10));
    let text = std::fs::read_to_string(&trace).expect("the trace");
    assert!(!changes(&text).is_empty(), "a change was not seen:\n{text}");
}
