//! The host command `ranklet`, built from this tree.

use std::{
    env,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::tree;

/// A call of `ranklet`, to be given its arguments. It is built first.
///
/// # Errors
/// If it does not build: the compiler's words are on standard error by then.
pub(crate) fn ranklet() -> Result<Command> {
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(tree::root()).args(["build", "--quiet", "--locked", "--package", "ranklet-cli"]);
    ensure!(build.stdin(Stdio::null()).status().context("cannot start cargo")?.success(), "ranklet does not build");
    let mut command = Command::new(tree::root().join("target/debug/ranklet"));
    command.current_dir(tree::root()).stdin(Stdio::null());
    Ok(command)
}
