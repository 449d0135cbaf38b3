//! Building one firmware.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    board::{Board, Leaf},
    toolchain::Toolchain,
    tree,
};

/// A finished firmware.
pub(crate) struct Firmware {
    /// Its ELF file.
    pub(crate) elf: PathBuf,
    /// `board/application`, or `board+leaf/application` where the leaf is not the board's usual one.
    pub(crate) name: String,
}

/// Builds an application for a board with one kernel leaf, and puts it under its own name in `target/firmware`.
///
/// # Errors
/// If it does not build: the compiler's words are on standard error by then.
pub(crate) fn build(toolchain: &Toolchain, board: &Board, leaf: &Leaf, application: &str) -> Result<Firmware> {
    build_with(toolchain, board, leaf, application, &[])
}

/// As [`build`], with environment variables that the application reads at compile time.
pub(crate) fn build_with(
    toolchain: &Toolchain,
    board: &Board,
    leaf: &Leaf,
    application: &str,
    environment: &[(&str, String)],
) -> Result<Firmware> {
    let folder = folder(board, leaf);
    let name = format!("{folder}/{application}");
    let mut command = toolchain.cargo("build", &board.target()?);
    command.current_dir(tree::board(board.name)).args(leaf.arguments).envs(environment.iter().cloned());
    let elf = compile(&mut command, &folder, application)?;
    Ok(Firmware { elf, name })
}

/// Builds an application for this machine; returns the program.
///
/// # Errors
/// As [`build`].
pub(crate) fn build_host(application: &str) -> Result<PathBuf> {
    build_host_with(application, &[])
}

/// As [`build_host`], with environment variables that the application reads at compile time.
pub(crate) fn build_host_with(application: &str, environment: &[(&str, String)]) -> Result<PathBuf> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree::board("host")).arg("build").envs(environment.iter().cloned());
    compile(&mut command, "host", application)
}

/// Where [`build`] puts an application built with the leaf of that name.
///
/// # Errors
/// If the board has no such leaf.
pub(crate) fn path(board: &Board, leaf: &str, application: &str) -> Result<PathBuf> {
    let leaf = board.leaves.iter().find(|other| other.name == leaf);
    let leaf = leaf.with_context(|| format!("{} has no such leaf", board.name))?;
    Ok(file(&folder(board, leaf), application))
}

/// Runs clippy over a board, for its own target, with each leaf.
///
/// # Errors
/// If clippy has anything to say: it is on standard error by then.
pub(crate) fn lint(toolchain: &Toolchain, board: &Board) -> Result<()> {
    for leaf in board.leaves {
        let mut command = toolchain.cargo("clippy", &board.target()?);
        command.current_dir(tree::board(board.name)).args(["--quiet", "--release"]).args(leaf.arguments);
        command.args(["--", "-Dwarnings"]).stdin(Stdio::null());
        ensure!(command.status().context("cannot start cargo")?.success(), "clippy objects to boards/{}", board.name);
    }
    Ok(())
}

/// The board's usual leaf has the board's own name.
fn folder(board: &Board, leaf: &Leaf) -> String {
    if leaf.arguments.is_empty() { board.name.to_owned() } else { format!("{}+{}", board.name, leaf.name) }
}

fn file(folder: &str, application: &str) -> PathBuf {
    tree::firmware().join(folder).join(format!("{application}.elf"))
}

fn compile(command: &mut Command, folder: &str, application: &str) -> Result<PathBuf> {
    command
        .args(["--quiet", "--locked", "--release", "--bin", application, "--message-format=json-render-diagnostics"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "{folder}/{application} does not build");
    let built = executable(&String::from_utf8_lossy(&output.stdout), application)
        .with_context(|| format!("cargo did not say where it put {folder}/{application}"))?;
    let elf = file(folder, application);
    let parent = elf.parent().context("a file without a folder")?;
    fs::create_dir_all(parent)
        .and_then(|()| fs::copy(&built, &elf))
        .with_context(|| format!("cannot copy {} to {}", built.display(), elf.display()))?;
    Ok(elf)
}

/// The file cargo names for a binary, in its stream of messages.
fn executable(messages: &str, binary: &str) -> Option<PathBuf> {
    messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let ours = message.get("target")?.get("name")?.as_str()? == binary;
        let path = message.get("executable")?.as_str()?;
        ours.then(|| Path::new(path).to_owned())
    })
}
