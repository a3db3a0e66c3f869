//! Where the built binaries are.

use std::path::PathBuf;

/// A binary of this workspace, from the folder that this program was built
/// into (or `BURGEE_BIN_DIR`).
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    let folder = std::env::var_os("BURGEE_BIN_DIR").map_or_else(built, PathBuf::from);
    let path = folder.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins` (./dev test does)", path.display());
    path
}

fn built() -> PathBuf {
    let here = std::env::current_exe().expect("this program's path");
    let folder = here.parent().expect("a folder");
    if folder.ends_with("deps") { folder.parent().expect("a folder").to_owned() } else { folder.to_owned() }
}

/// The workspace's root.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Other projects' files, beside the project.
#[must_use]
pub fn examples() -> PathBuf {
    let path = root().join("../shared/examples");
    assert!(path.is_dir(), "{} is missing: the examples of other projects are read from there", path.display());
    path
}
