//! QEMU: found, or installed.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    board::BOARDS,
    debian,
    process::{output, which},
    report::Report,
};

/// Which Debian package has which emulator.
const PACKAGES: [(&str, &str); 2] =
    [("qemu-system-arm", "qemu-system-arm"), ("qemu-system-riscv32", "qemu-system-misc")];

/// Makes sure that every board's emulator can be started.
///
/// # Errors
/// Says what to install if this process may not.
pub(crate) fn ensure(report: Report) -> Result<()> {
    let mut programs = Vec::new();
    for board in BOARDS {
        let program = board.runner()?.first().cloned().context("an empty runner")?;
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    let missing: Vec<&str> = programs.iter().map(String::as_str).filter(|program| which(program).is_none()).collect();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing
            .iter()
            .map(|program| PACKAGES.iter().find(|(name, _)| name == program).map_or(*program, |(_, package)| package))
            .collect();
        debian::install(&packages, report)?;
    }
    for program in &programs {
        let Some(path) = which(program) else { bail!("{program} is still not in PATH after its installation") };
        let version = output(Command::new(&path).arg("--version"))?;
        report.found(&format!("{} ({})", path.display(), version.lines().next().unwrap_or("of unknown version")));
    }
    Ok(())
}
