//! The tools that `cargo xtask test` needs beside the compiler: rustfmt and clippy. Minimal installations lack them.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use super::compiler::Compiler;
use crate::{debian, process::follow, report::Report};

/// Cargo's subcommand, rustup's component, and Debian's package for the Rust of the second way.
const TOOLS: [(&str, &str, &str); 2] = [("fmt", "rustfmt", "rustfmt-web"), ("clippy", "clippy", "rust-web-clippy")];

/// Makes sure that `compiler` has both tools.
///
/// # Errors
/// Says what to install if this process may not, or what the installer said.
pub(super) fn ensure(compiler: &Compiler, report: Report) -> Result<()> {
    let missing: Vec<_> = TOOLS.into_iter().filter(|(subcommand, ..)| !works(compiler, subcommand)).collect();
    if !missing.is_empty() {
        match compiler.rustup() {
            Some((rustup, toolchain)) => {
                let components: Vec<_> = missing.iter().map(|(_, component, _)| *component).collect();
                report.doing(&format!("rustup component add {}", components.join(" ")));
                let mut command = Command::new(rustup);
                command.args(["component", "add", "--toolchain", &toolchain]).args(&components);
                let ended = follow(&mut command, Duration::from_secs(600), |_| ())?;
                if !ended.ok() {
                    bail!("rustup component add {} {}:\n{}", components.join(" "), ended.how(), ended.text);
                }
                report.did(&components.join(", "));
            }
            None => {
                let packages: Vec<_> = missing.iter().map(|(.., package)| *package).collect();
                debian::install(&packages, report).context("cargo fmt or cargo clippy does not work")?;
            }
        }
    }
    for (subcommand, ..) in TOOLS {
        if !works(compiler, subcommand) {
            bail!("cargo {subcommand} does not work with {}", compiler.rustc.display());
        }
        report.found(&format!("cargo {subcommand}, for rustc {}", compiler.version));
    }
    Ok(())
}

fn works(compiler: &Compiler, subcommand: &str) -> bool {
    let mut command = compiler.cargo();
    command.args([subcommand, "--version"]);
    follow(&mut command, Duration::from_secs(60), |_| ()).is_ok_and(|ended| ended.ok())
}
