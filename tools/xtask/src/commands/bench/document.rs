//! The generated part of `docs/benchmarks.md`: what stands between two markers.

use std::process::Command;

use anyhow::{Context, Result};

use super::{goals, row::Row, views};
use crate::{board::BOARDS, document::Document, process::output};

/// The document.
pub(crate) const DOCUMENT: Document = Document { path: "docs/benchmarks.md", command: "cargo xtask bench --markdown" };

/// Writes the tables into the document.
///
/// # Errors
/// If it cannot be read or written, or has lost its markers.
pub(super) fn update(rows: &[Row], rustc: &str) -> Result<()> {
    let generated = format!(
        "With rustc {rustc} and {}.\n\n### Goals\n\n{}\n### Instructions, side by side\n\n{}\n### Every row\n\n```text\n{}```\n",
        emulators()?,
        goals::table(rows).markdown(),
        views::side_by_side(rows).markdown(),
        views::sections(rows)
    );
    DOCUMENT.write(&generated)
}

/// Name and version of the emulators.
fn emulators() -> Result<String> {
    let mut versions = Vec::new();
    for board in BOARDS {
        let program = board.runner()?.first().cloned().context("an empty runner")?;
        let said = output(Command::new(program).arg("--version"))?;
        let words = said.lines().next().unwrap_or_default().split_whitespace();
        // "QEMU emulator version 7.2.22 (Debian …)": the same for all architectures, unless they were mixed.
        let version = words.skip_while(|word| *word != "version").nth(1).unwrap_or("?").to_owned();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    Ok(format!("QEMU {}", versions.join(" and ")))
}
