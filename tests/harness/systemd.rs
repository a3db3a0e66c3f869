//! A device with a booted systemd: a Debian root file system made by
//! `mmdebstrap` (once, kept below `target/`) and booted by `systemd-nspawn`
//! on an overlay that goes with the machine, or that outlives its boots.
//!
//! Needs root, and mmdebstrap, systemd-container and util-linux from Debian;
//! what is missing is an error, never a skip.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a root file system is made of.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    suite: &'static str,
    packages: &'static str,
}

/// A systemd, and little else.
pub const PLAIN: Image =
    Image { suite: "bookworm", packages: "systemd,systemd-sysv,dbus,ca-certificates,openssh-client" };
/// With a Podman that has quadlets, and a busybox to make images of.
pub const PODMAN: Image =
    Image { suite: "trixie", packages: "systemd,systemd-sysv,dbus,ca-certificates,podman,crun,busybox-static" };

const BOOT: Duration = Duration::from_secs(120);
const HALT: Duration = Duration::from_secs(30);

/// The root file system, made when it is not there yet.
///
/// # Errors
/// When a tool is missing, or Debian's archive can't be reached the first time.
pub fn root_file_system(image: Image) -> Result<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let folder = target.join("rootfs");
    fs::create_dir_all(&folder)?;
    // Suites that start together make it once.
    let lock = fs::File::create(folder.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let done = folder.canonicalize()?.join(format!("{}-{}", image.suite, image.packages.replace(',', "+")));
    if done.is_dir() {
        return Ok(done);
    }
    let partial = done.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase"])
        .arg(format!("--include={}", image.packages))
        .arg(image.suite)
        .arg(&partial)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("mmdebstrap (apt-get install mmdebstrap): {error}"))?;
    if !made.status.success() {
        return Err(format!("mmdebstrap failed: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    fs::rename(&partial, &done)?;
    Ok(done)
}

/// A disk that outlives its machine's boots: an overlay over an image, its
/// upper part in memory.
#[derive(Debug)]
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(lower: &Path) -> Result<Self> {
        let disk = Self { folder: tempfile::tempdir()? };
        let at = |name: &str| disk.folder.path().join(name);
        mount(&["-t", "tmpfs", "-o", "size=1g,mode=755", "burgee-disk"], disk.folder.path())?;
        for name in ["upper", "work", "root"] {
            fs::create_dir(at(name))?;
        }
        let (lower, upper, work) = (lower.display(), at("upper"), at("work"));
        let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "-o", &options, "burgee-disk"], &at("root"))?;
        Ok(disk)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for mounted in [self.root(), self.folder.path().to_owned()] {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).status();
        }
    }
}

fn mount(what: &[&str], at: &Path) -> Result<()> {
    let done = Command::new("mount").args(what).arg(at).output()?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("mount {what:?}: {}", String::from_utf8_lossy(&done.stderr)).into()),
    }
}

/// A booted machine; it halts when dropped.
#[derive(Debug)]
pub struct Machine {
    nspawn: Child,
    leader: String,
    cgroups: Vec<PathBuf>,
    image: Image,
    binds: Vec<(PathBuf, String)>,
    /// None: what it writes goes with the boot.
    disk: Option<Disk>,
    /// The network that it is in; none: its own, with a loopback alone.
    network: Option<PathBuf>,
}

impl Machine {
    /// Boots one, with each of `binds` (host path, path in the machine) shown
    /// read-only in it, and waits until it is up. It has no network but its
    /// own loopback.
    ///
    /// # Errors
    /// When it does not come up, with what its console said.
    pub fn boot(binds: &[(&Path, &str)]) -> Result<Self> {
        Self::boot_image(PLAIN, binds, None, None)
    }

    /// The same with a disk of its own, in a network namespace (its file).
    ///
    /// # Errors
    /// When it does not come up, with what its console said.
    pub fn boot_linked(image: Image, binds: &[(&Path, &str)], network: &Path) -> Result<Self> {
        let disk = Disk::new(&root_file_system(image)?)?;
        Self::boot_image(image, binds, Some(disk), Some(network.to_owned()))
    }

    /// The same with a disk of its own, for [`Machine::power_cycle`].
    ///
    /// # Errors
    /// When it does not come up, with what its console said.
    pub fn boot_kept(image: Image, binds: &[(&Path, &str)]) -> Result<Self> {
        let disk = Disk::new(&root_file_system(image)?)?;
        Self::boot_image(image, binds, Some(disk), None)
    }

    fn boot_image(image: Image, binds: &[(&Path, &str)], disk: Option<Disk>, network: Option<PathBuf>) -> Result<Self> {
        let binds: Vec<(PathBuf, String)> =
            binds.iter().map(|(host, guest)| ((*host).to_owned(), (*guest).to_owned())).collect();
        let (nspawn, cgroups, console) = spawn(image, &binds, disk.as_ref(), network.as_deref())?;
        let mut machine = Self { nspawn, leader: String::new(), cgroups, image, binds, disk, network };
        machine.come_up(&console)?;
        Ok(machine)
    }

    /// Cuts the power (every process of the machine is killed at once), lets
    /// `while_off` change what it likes, and boots again with the same disk,
    /// a new boot id and an empty `/run`.
    ///
    /// # Errors
    /// When it does not come up again, with what its console said.
    ///
    /// # Panics
    /// When the machine has no disk of its own.
    pub fn power_cycle(&mut self, while_off: impl FnOnce(&Path)) -> Result<()> {
        let disk = self.disk.as_ref().expect("a machine with a disk of its own");
        let leader = self.leader.parse().ok().and_then(Pid::from_raw).ok_or("no process 1")?;
        kill_process(leader, Signal::KILL)?;
        self.nspawn.wait()?;
        self.cgroups.iter().for_each(|own| remove_cgroup(own));
        while_off(&disk.root());
        let (nspawn, cgroups, console) = spawn(self.image, &self.binds, Some(disk), self.network.as_deref())?;
        (self.nspawn, self.cgroups) = (nspawn, cgroups);
        self.leader.clear();
        self.come_up(&console)
    }

    /// Its process 1, as this machine numbers it.
    #[must_use]
    pub fn leader(&self) -> &str {
        &self.leader
    }

    /// Its `/`, as this machine sees it.
    ///
    /// # Panics
    /// When the machine has no disk of its own.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.disk.as_ref().expect("a machine with a disk of its own").root()
    }

    fn come_up(&mut self, console: &Path) -> Result<()> {
        let up = self.wait_until_up();
        let said = fs::read_to_string(console).unwrap_or_default();
        fs::remove_file(console)?;
        up.map_err(|error| format!("{error}; the console said:\n{said}").into())
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let deadline = Instant::now() + BOOT;
        while Instant::now() < deadline {
            if let Some(status) = self.nspawn.try_wait()? {
                return Err(format!("systemd-nspawn (apt-get install systemd-container) ended with {status}").into());
            }
            if self.leader.is_empty() {
                self.leader = init_below(self.nspawn.id())?.unwrap_or_default();
            } else {
                let state = self.run(["systemctl", "is-system-running"])?;
                if matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded") {
                    return Ok(());
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(format!("the machine was not up after {} s", BOOT.as_secs()).into())
    }

    /// Asks for the agent's `status` until it is as wanted; panics with the journal.
    ///
    /// # Panics
    /// After so many seconds.
    #[track_caller]
    pub fn wait_status(
        &self,
        what: &str,
        seconds: u64,
        status: impl Fn() -> Option<Value>,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let start = Instant::now();
        loop {
            match status() {
                Some(status) if wanted(&status) => return status,
                status if start.elapsed() > Duration::from_secs(seconds) => {
                    let log = self.run(["journalctl", "--no-pager", "--lines=60"]).map(|log| log.stdout);
                    let log = log.unwrap_or_default();
                    panic!("still waiting: {what}\n{status:#?}\n{}", String::from_utf8_lossy(&log))
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Runs a command in the machine, as root, and waits for its end.
    ///
    /// # Errors
    /// When it can't be started; not for how it ends.
    pub fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<Output> {
        let output = Command::new("nsenter")
            .args(["--target", &self.leader, "--mount", "--uts", "--ipc", "--net", "--pid", "--"])
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"])
            .args(command)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("nsenter (apt-get install util-linux): {error}"))?;
        Ok(output)
    }
}

/// Starts systemd-nspawn: itself, its cgroups, and where its console goes.
fn spawn(
    image: Image,
    binds: &[(PathBuf, String)],
    disk: Option<&Disk>,
    network: Option<&Path>,
) -> Result<(Child, Vec<PathBuf>, PathBuf)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let base = root_file_system(image)?;
    let name = format!("burgee-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let console = base.with_file_name(format!("{name}.console"));
    let root = disk.map_or_else(|| base.clone(), Disk::root);
    let network_option = match network {
        Some(path) => format!("--network-namespace-path={}", path.display()),
        None => "--private-network".to_owned(),
    };
    let mut nspawn = vec!["systemd-nspawn".into(), "--directory".into(), root.into_os_string()];
    for option in ["--boot", "--register=no", &network_option, "--machine", &name] {
        nspawn.push(option.into());
    }
    if disk.is_none() {
        nspawn.push("--volatile=overlay".into());
    }
    for (host, guest) in binds {
        nspawn.push(format!("--bind-ro={}:{guest}", host.display()).into());
    }
    let mut cgroups = Vec::new();
    if !Path::new("/run/systemd/system").is_dir() {
        // Nobody here gives each machine a part of the cgroup tree of its own.
        nspawn.push("--keep-unit".into());
        for tree in ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            let tree = Path::new(tree);
            if tree.join("cgroup.procs").exists() {
                let own = tree.join(&name);
                fs::create_dir(&own)?;
                cgroups.push(own);
            }
        }
    }
    let mut command = Command::new("sh");
    command.args([
        "-ec",
        "while [ \"$1\" != -- ]; do echo $$ > \"$1/cgroup.procs\"; shift; done; shift; exec \"$@\"",
        "sh",
    ]);
    command.args(&cgroups).arg("--").args(&nspawn);
    if image.suite != PLAIN.suite {
        // A systemd of today does not boot on the old hierarchy.
        command.env("UNIFIED_CGROUP_HIERARCHY", "1");
    }
    let out = fs::File::create(&console)?;
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    Ok((command.spawn()?, cgroups, console))
}

impl Drop for Machine {
    fn drop(&mut self) {
        let signal = |signal| {
            if let Some(pid) = i32::try_from(self.nspawn.id()).ok().and_then(Pid::from_raw) {
                // It may have ended by itself.
                let _ = kill_process(pid, signal);
            }
        };
        // An orderly halt; then the hard way.
        signal(Signal::TERM);
        let deadline = Instant::now() + HALT;
        while Instant::now() < deadline && matches!(self.nspawn.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
        for own in &self.cgroups {
            remove_cgroup(own);
        }
    }
}

/// Cgroups go from the inside out; their files go with them.
fn remove_cgroup(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

/// The child of `parent` that is process 1 of a namespace of its own;
/// systemd-nspawn has others before that one.
fn init_below(parent: u32) -> Result<Option<String>> {
    for entry in fs::read_dir("/proc")? {
        // Processes end while they are listed.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let pids: Vec<&str> = field("NSpid:").split_whitespace().collect();
        if field("PPid:") == parent.to_string()
            && let [outside, .., "1"] = pids.as_slice()
        {
            return Ok(Some((*outside).to_owned()));
        }
    }
    Ok(None)
}
