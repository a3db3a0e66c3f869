//! The device itself: name, clock, disk, store, trust, cgroups, secrets.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Finding, Grade, found};
use crate::clock::SystemClock;
use crate::config::facts::Facts;
use crate::config::settings::Settings;
use crate::ports::clock::Clock as _;

/// Below this, downloads and the journal are at risk.
const LITTLE_SPACE: u64 = 64 << 20;
/// The same in files.
const FEW_FILES: u64 = 1000;

pub(super) fn name(settings: &Settings) -> Finding {
    let made = settings.device.made_from.as_ref().map(|pattern| format!(", made of {pattern}")).unwrap_or_default();
    let machine = Facts::read(Path::new("/")).fingerprint();
    let machine = machine.and_then(|id| Some(format!(", on machine {}", id.get(..8)?))).unwrap_or_default();
    found("name", Grade::Ok, format!("{}{made}{machine}", settings.device.name))
}

pub(super) fn clock() -> Finding {
    let (now, built) = (SystemClock.now(), SystemClock.build_date());
    let text = now.strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    if now < built {
        let hint = "start a time service; new revisions wait until the clock is set, what runs stays";
        return found("clock", Grade::Fail, format!("{text} is before this program was built")).hint(hint);
    }
    // systemd-timesyncd, chrony and ntpd leave this when they have set it.
    let set = Path::new("/run/systemd/timesync/synchronized").exists();
    found("clock", Grade::Ok, if set { format!("{text}, synchronised") } else { text })
}

/// The disk under the store, or under the nearest folder that is there.
pub(super) fn disk(path: &Path) -> Finding {
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = there.display();
    let space = match rustix::fs::statvfs(there) {
        Ok(space) => space,
        Err(error) => {
            return found("disk", Grade::Fail, format!("{shown}: {error}")).hint("look at the disk, or set store.path");
        }
    };
    let of = |blocks: u64| blocks.saturating_mul(space.f_frsize) >> 20;
    let (free, whole) = (of(space.f_bavail), of(space.f_blocks));
    let message = format!("{free} of {whole} MiB free under {shown}");
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return found("disk", Grade::Fail, format!("{shown} is read-only"))
            .hint("remount it writable, or set store.path; until then the device does not move");
    }
    if free << 20 < LITTLE_SPACE {
        return found("disk", Grade::Warn, message).hint("free space: new revisions can't be kept on a full disk");
    }
    // Some file systems have no table of files to run out of.
    if space.f_files > 0 && space.f_favail < FEW_FILES {
        return found("disk", Grade::Warn, format!("{} more files fit under {shown}", space.f_favail))
            .hint("remove files: new revisions can't be kept");
    }
    if space.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return found("disk", Grade::Warn, format!("{message}; no program may run there (noexec)")).hint(
            "an agent that burgee.yaml names can't run: remount it exec, or set store.path; or update.enabled to false",
        );
    }
    found("disk", Grade::Ok, message)
}

pub(super) fn store(path: &Path) -> Finding {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return found("store", Grade::Ok, format!("{shown} will be made at the first start"));
        }
        Err(error) => return found("store", Grade::Fail, format!("{shown}: {error}")),
    };
    if !metadata.is_dir() {
        return found("store", Grade::Fail, format!("{shown} is no folder")).hint("set store.path to a folder");
    }
    if rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_err() {
        return found("store", Grade::Fail, format!("{shown} can't be written"))
            .hint("run this as the agent's user; else remount it writable");
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return found("store", Grade::Warn, format!("{shown} can be written by others"))
            .hint(format!("chmod go-w {shown}: whoever writes there decides what runs"));
    }
    found("store", Grade::Ok, shown.to_string())
}

pub(super) fn trust(path: &Path) -> Finding {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) => {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            match lines.filter(|line| line.contains("ssh-ed25519 ")).count() {
                0 => found("trust", Grade::Fail, format!("{shown} names no ssh-ed25519 key"))
                    .hint("a line reads: anna@example.com namespaces=\"git\" ssh-ed25519 AAAA…"),
                count => found("trust", Grade::Ok, format!("{shown}, {count} lines with a key")),
            }
        }
        Err(error) => found("trust", Grade::Fail, format!("{shown}: {error}"))
            .hint("put the fleet's allowed_signers there: nothing unsigned runs"),
    }
}

/// What engines need to keep containers within their limits.
pub(super) fn cgroups(root: &Path) -> Finding {
    let hint = "on a Raspberry Pi, add cgroup_enable=memory cgroup_memory=1 to /boot/firmware/cmdline.txt";
    let missing = |version: &str, has: &[&str]| {
        let lacks: Vec<&str> = ["cpu", "memory", "pids"].into_iter().filter(|want| !has.contains(want)).collect();
        if lacks.is_empty() {
            return found("cgroups", Grade::Ok, format!("{version}: {}", has.join(" ")));
        }
        let message = format!("{version} without {}: limits of containers are not held", lacks.join(", "));
        found("cgroups", Grade::Warn, message).hint(hint)
    };
    if let Ok(controllers) = fs::read_to_string(root.join("sys/fs/cgroup/cgroup.controllers")) {
        return missing("v2", &controllers.split_whitespace().collect::<Vec<_>>());
    }
    match fs::read_to_string(root.join("proc/cgroups")) {
        Ok(table) => {
            let enabled = table.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
                let mut words = line.split_whitespace();
                let name = words.next()?;
                (words.nth(2)? == "1").then_some(name)
            });
            missing("v1", &enabled.collect::<Vec<_>>())
        }
        Err(_) => found("cgroups", Grade::Warn, "none: the kernel has no cgroups, or /sys is not mounted")
            .hint("containers need them; files apps do not"),
    }
}

/// A file that only its owner should be able to read.
pub(super) fn secret(part: &'static str, path: &Path) -> Finding {
    match fs::metadata(path) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 == 0 => {
            found(part, Grade::Ok, path.display().to_string())
        }
        Ok(_) => found(part, Grade::Warn, format!("{} can be read by others", path.display()))
            .hint(format!("chmod 600 {}", path.display())),
        Err(error) => found(part, Grade::Fail, format!("{}: {error}", path.display()))
            .hint("agent.toml names it: put it there, or correct the path"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Grade, cgroups, disk, store, trust};

    #[test]
    fn parts_are_found_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(store(folder.path()).result, Grade::Ok);
        assert_eq!(disk(&folder.path().join("not/yet")).result, Grade::Ok);
        let file = folder.path().join("signers");
        assert_eq!(trust(&file).result, Grade::Fail);
        std::fs::write(&file, "# nobody\n").unwrap();
        assert_eq!(trust(&file).result, Grade::Fail);
        std::fs::write(&file, "a@b namespaces=\"git\" ssh-ed25519 AAAA\n").unwrap();
        assert_eq!(trust(&file).result, Grade::Ok);
        assert_eq!(store(&file).result, Grade::Fail);
    }

    #[test]
    fn cgroups_as_the_kernel_has_them() {
        let check = |files: &[(&str, &str)], want: Grade, says: &str| {
            let root = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = root.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            let found = cgroups(root.path());
            assert!(found.result == want && found.message.contains(says), "{found:?}");
        };
        check(&[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n")], Grade::Ok, "v2");
        check(&[("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io pids\n")], Grade::Warn, "without memory");
        let v1 = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t1\t1\nmemory\t0\t1\t0\npids\t5\t1\t1\n";
        check(&[("proc/cgroups", v1)], Grade::Warn, "v1 without memory");
        check(&[("proc/cgroups", &v1.replace("memory\t0\t1\t0", "memory\t4\t1\t1"))], Grade::Ok, "v1");
        check(&[], Grade::Warn, "none");
    }
}
