//! A file system of its own that loses power: ext4 on a loop device, shut down
//! by `EXT4_IOC_SHUTDOWN` without a flush of its log. What was not synced
//! before is gone after the next mount, as it is on a device.
//!
//! Needs root, e2fsprogs, mount and python3 (the ioctl is not to be had
//! otherwise without unsafe code).

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `_IOR('X', 125, __u32)` with `EXT4_GOING_FLAGS_NOLOGFLUSH`.
const SHUTDOWN: &str = "import fcntl, os, struct, sys, time\n\
    disk = os.open(sys.argv[1], os.O_RDONLY)\n\
    print('ready', flush=True)\n\
    sys.stdin.read() if sys.argv[2] == 'told' else time.sleep(float(sys.argv[2]))\n\
    fcntl.ioctl(disk, 0x8004587d, struct.pack('I', 2))";

/// A mounted disk; it goes with this value.
#[derive(Debug)]
pub struct Disk {
    folder: tempfile::TempDir,
    /// How often the power was cut.
    cuts: u32,
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

impl Disk {
    /// A fresh, small one.
    ///
    /// # Errors
    /// When it can't be made or mounted.
    pub fn new() -> Result<Self> {
        Self::of(16)
    }

    /// One of this many MiB.
    ///
    /// # Errors
    /// When it can't be made or mounted.
    pub fn of(mib: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("mount"))?;
        let disk = Self { folder, cuts: 0 };
        std::fs::File::create(disk.image())?.set_len(mib << 20)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk.image()))?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join(format!("image-{}", self.cuts))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    fn mount(&self) -> Result<()> {
        // Only what is synced, or five seconds old, may be there afterwards; the latter never counts here.
        run(Command::new("mount").args(["-o", "loop,commit=300"]).arg(self.image()).arg(self.path()))
    }

    /// Cuts the power `delay` after this returns; wait for what it returns.
    ///
    /// # Errors
    /// When there is no python3.
    pub fn cut_in(&self, delay: Duration) -> Result<Child> {
        self.armed(&delay.as_secs_f64().to_string())
    }

    /// Makes ready to cut the power the moment that `when` returns.
    ///
    /// # Errors
    /// When there is no python3, or the cut failed.
    pub fn cut_when(&self, when: impl FnOnce()) -> Result<()> {
        let mut child = self.armed("told")?;
        when();
        drop(child.stdin.take());
        let cut = child.wait()?;
        if cut.success() { Ok(()) } else { Err(format!("the shutdown ioctl failed: {cut}").into()) }
    }

    fn armed(&self, when: &str) -> Result<Child> {
        let mut command = Command::new("python3");
        command.args(["-c", SHUTDOWN]).arg(self.path()).arg(when);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if let Some(stdout) = child.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut String::new())?;
        }
        Ok(child)
    }

    /// Cuts the power, if it is not cut yet, and comes up again with what was
    /// on the disk at that moment: a copy, because a mount namespace that
    /// somebody made meanwhile may keep the old file system alive.
    ///
    /// # Errors
    /// When it does not.
    pub fn cut(&mut self) -> Result<()> {
        // A second shutdown does nothing.
        let cut = self.cut_in(Duration::ZERO)?.wait()?;
        if !cut.success() {
            return Err(format!("the shutdown ioctl failed: {cut}").into());
        }
        let before = self.image();
        self.cuts += 1;
        std::fs::copy(&before, self.image())?;
        run(Command::new("umount").arg(self.path()))?;
        std::fs::remove_file(before)?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(self.path()));
    }
}
