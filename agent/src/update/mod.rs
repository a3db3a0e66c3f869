//! The agent's own update: the version that `burgee.yaml` names.
//!
//! The program of the package (the *base*) is never replaced. A newer one lies
//! in the store under its digest; `run` of the base looks into a small record
//! and turns into it (`exec`). So the base is the guard: it counts the starts
//! of a program that is on trial, sets the kernel's alarm for one that hangs,
//! and stays what it was when a trial fails (docs/decisions/0027).
//!
//! [`choose`] is pure; [`start`] is the guard; [`download`] and [`preflight`]
//! bring a program. When that is done, the daemon decides.

mod choose;
pub(crate) mod download;
pub(crate) mod preflight;
pub(crate) mod record;
pub mod start;

use std::path::{Path, PathBuf};

use fleet::digest::Digest;

/// What this machine is called in `burgee.yaml`; `None`: agents are not built
/// for it.
pub(crate) const MACHINE: Option<&str> = if cfg!(target_arch = "x86_64") {
    Some("x86_64")
} else if cfg!(target_arch = "aarch64") {
    Some("aarch64")
} else if cfg!(target_arch = "arm") {
    Some("armv7")
} else if cfg!(target_arch = "riscv64") {
    Some("riscv64")
} else {
    None
};

/// Where programs and their record lie.
pub(crate) fn folder(store: &Path) -> PathBuf {
    store.join("agent")
}

/// Where a program lies.
pub(crate) fn program(folder: &Path, sha256: &Digest) -> PathBuf {
    folder.join(sha256.to_string())
}
