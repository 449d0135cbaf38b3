//! Where things lie in the repository.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub(crate) fn root() -> &'static Path {
    // tools/xtask, two floors down.
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The crate of a board, or another crate that lives with the boards.
pub(crate) fn board(name: &str) -> PathBuf {
    root().join("boards").join(name)
}

/// Where finished firmware is put, under names that do not collide.
pub(crate) fn firmware() -> PathBuf {
    root().join("target/firmware")
}

/// The path as a person in the repository would type it.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}
