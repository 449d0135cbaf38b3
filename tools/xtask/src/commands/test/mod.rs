//! `cargo xtask test`: everything, and a table of what ran. Nothing is skipped in silence: what cannot run has failed.

mod firmware;
mod host;
mod steps;

use anyhow::Result;

use self::steps::Steps;
use crate::{commands::setup, report::Report};

/// Runs everything; tells whether nothing failed.
pub(crate) fn run() -> Result<bool> {
    let mut steps = Steps::new();
    host::run(&mut steps);
    let mut toolchain = None;
    steps.check("targets and emulators", || {
        toolchain = Some(setup::ready(Report::Changes)?);
        Ok(())
    });
    match toolchain {
        Some(toolchain) => firmware::run(&mut steps, &toolchain),
        None => steps.check("firmware on every emulated board", || anyhow::bail!("not run: see above")),
    }
    Ok(steps.summary())
}
