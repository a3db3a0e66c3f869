//! What a service manager does at the least: starts a program, and starts it
//! again when it ends.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two starts.
const PAUSE: Duration = Duration::from_millis(200);

/// See the module. Ends its program when dropped.
#[derive(Debug)]
pub struct Supervisor {
    child: Arc<Mutex<Option<Child>>>,
    starts: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts what `command` gives; what it prints goes to `log`.
    #[must_use]
    pub fn start(command: impl Fn() -> Command + Send + 'static, log: &Path) -> Self {
        let (child, starts, stop) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)), Arc::default());
        let (held, counted, stopped, log) =
            (Arc::clone(&child), Arc::clone(&starts), Arc::clone(&stop), log.to_owned());
        let watch = move || {
            while !AtomicBool::load(&stopped, Ordering::SeqCst) {
                let running =
                    lock(&held).as_mut().is_some_and(|child: &mut Child| matches!(child.try_wait(), Ok(None)));
                if !running {
                    std::thread::sleep(PAUSE);
                    let out = File::options().create(true).append(true).open(&log).expect("a log file");
                    let err = out.try_clone().expect("the log file once more");
                    let started = command().stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("a start");
                    *lock(&held) = Some(started);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        };
        Self { child, starts, stop, thread: Some(std::thread::spawn(watch)) }
    }

    /// How often it was started.
    #[must_use]
    pub fn starts(&self) -> u32 {
        self.starts.load(Ordering::SeqCst)
    }

    /// The process that runs now, if one does.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let mut held = lock(&self.child);
        let child = held.as_mut()?;
        matches!(child.try_wait(), Ok(None)).then(|| child.id())
    }

    /// SIGKILL; it is started again.
    pub fn kill(&self) {
        if let Some(child) = lock(&self.child).as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn lock(child: &Mutex<Option<Child>>) -> std::sync::MutexGuard<'_, Option<Child>> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.kill();
    }
}
