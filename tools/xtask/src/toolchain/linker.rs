//! A linker for the second way: a distribution's rustc often has none for bare metal.

use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result};

use super::compiler::{Compiler, linkers_in};
use crate::{debian, process::which, report::Report};

/// The linker that cargo must be told of; `None` if the compiler finds its own.
pub(super) fn ensure(compiler: &Compiler, report: Report) -> Result<Option<PathBuf>> {
    if compiler.has_linker() {
        return Ok(None);
    }
    if let Some(linker) = find() {
        return Ok(Some(linker));
    }
    debian::install(&["lld"], report)?;
    find().context("lld is installed, but there is no ld.lld in PATH").map(Some)
}

fn find() -> Option<PathBuf> {
    which("rust-lld").or_else(|| which("ld.lld")).or_else(rustups)
}

/// The `rust-lld` of any of rustup's toolchains: it links for every compiler.
fn rustups() -> Option<PathBuf> {
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".rustup")))?;
    let toolchains = fs::read_dir(home.join("toolchains")).ok()?;
    toolchains.flatten().find_map(|toolchain| linkers_in(&toolchain.path()).next())
}
