//! A clock that is wrong: Debian's libfaketime between the agent and its C
//! library. Time that only goes forward (monotonic) stays as it is, as on a
//! device.

use std::path::PathBuf;
use std::process::Command;

use crate::device::Device;

pub const RIGHT: &str = "+0";
pub const EPOCH: &str = "@1970-01-02 00:00:00";
pub const FUTURE: &str = "@2099-06-01 12:00:00";

/// The library that tells the time.
fn library() -> PathBuf {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketimeMT.so.1"]).output().expect("sh");
    let path = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    assert!(found.status.success(), "libfaketime is missing: apt-get install faketime (./dev test does)");
    path.into()
}

/// Sets the clock that an agent sees whose command was [`told`].
pub fn set(device: &Device, time: &str) {
    let file = device.folder.join("clock");
    let new = device.folder.join("clock.new");
    std::fs::write(&new, format!("{time}\n")).expect("a file");
    std::fs::rename(new, file).expect("a file");
}

/// Has a command take the time from [`set`].
pub fn told(device: &Device, command: &mut Command) {
    command
        .env("LD_PRELOAD", library())
        .env("FAKETIME_TIMESTAMP_FILE", device.folder.join("clock"))
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
}
