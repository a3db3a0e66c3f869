//! Processes that end with the test that started them, and one-off commands.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A process that is ended when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    /// It leads a process group, which ends with it.
    leads: bool,
}

impl Running {
    /// Starts it; what it prints goes to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("a log file");
        let err = out.try_clone().expect("the log file once more");
        let name = format!("{:?}", command.get_program());
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("cannot start {name}: {error}")), name, leads: false }
    }

    /// Starts one that leaves its workers behind: they end with it.
    pub fn start_group(command: &mut Command, log: &Path) -> Self {
        let mut running = Self::start(command.process_group(0), log);
        running.leads = true;
        running
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by number.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        let _ = rustix::process::kill_process(pid, signal);
    }

    /// SIGTERM, and SIGKILL where that doesn't help in time. The exit code.
    pub fn stop(&mut self, patience: Duration) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        let start = Instant::now();
        while start.elapsed() < patience {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not stop in {} s; killed", self.name, patience.as_secs());
        self.kill();
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_alive() {
            self.stop(Duration::from_secs(10));
        }
        if self.leads {
            let group = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Runs a command to its end; panics with what it said when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end, whatever that is.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
}

/// Whether a program is installed.
#[must_use]
pub fn has(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().is_ok_and(|out| out.status.success())
}
