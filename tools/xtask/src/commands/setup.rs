//! `cargo xtask setup`: find or install what firmware needs, and say so.

use anyhow::Result;

use crate::{board, emulator, report::Report, toolchain, toolchain::Toolchain};

/// Gets everything ready and tells it line by line.
pub(crate) fn run() -> Result<bool> {
    let firmware = ready(Report::All)?;
    toolchain::ensure_lints(&firmware, Report::All)?;
    println!("ready      cargo xtask demo | test | bench | size");
    Ok(true)
}

/// Gets everything ready, for the other commands.
pub(crate) fn ready(report: Report) -> Result<Toolchain> {
    let toolchain = toolchain::ensure(&board::targets()?, report)?;
    emulator::ensure(report)?;
    Ok(toolchain)
}
