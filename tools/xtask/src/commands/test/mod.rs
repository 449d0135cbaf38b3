//! `cargo xtask test`: everything, and a table of what ran. Nothing is skipped in silence: what cannot run has failed.

mod firmware;
mod host;
mod steps;

use anyhow::Result;

use self::steps::Steps;
use crate::{commands::setup, report::Report, toolchain};

/// Runs everything; tells whether nothing failed.
pub(crate) fn run(exhaustive: bool) -> Result<bool> {
    let mut steps = Steps::new();
    let mut toolchain = None;
    steps.check("tools, targets, emulators", || {
        let firmware = setup::ready(Report::Changes)?;
        toolchain::ensure_lints(&firmware, Report::Changes)?;
        toolchain = Some(firmware);
        Ok(())
    });
    host::run(&mut steps);
    host::convergence(&mut steps);
    if exhaustive {
        host::sweeps(&mut steps);
    }
    match toolchain {
        Some(toolchain) => firmware::run(&mut steps, &toolchain),
        None => steps.check("firmware on every emulated board", || anyhow::bail!("not run: see above")),
    }
    Ok(steps.summary())
}
