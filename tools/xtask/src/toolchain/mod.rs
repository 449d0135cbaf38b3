//! A compiler for bare metal, in two ways:
//!
//! 1. a toolchain with the targets' `core` in it: `rustup target add`;
//! 2. a distribution's Rust with the source of its library, which builds `core` itself (`-Zbuild-std`).

mod compiler;
mod linker;
mod lint;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};

use self::compiler::Compiler;
use crate::{debian, process::follow, report::Report};

/// Debian's packages for the second way.
const PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// How firmware is compiled on this machine.
pub(crate) struct Toolchain {
    compiler: Compiler,
    way: Way,
}

enum Way {
    /// The targets are installed.
    Installed,
    /// `core` is built from its source, and linked with this linker (`None`: rustc finds its own).
    BuildStd(Option<PathBuf>),
}

impl Toolchain {
    /// Cargo with this compiler; the caller adds the subcommand's own arguments after `subcommand`.
    pub(crate) fn cargo(&self, subcommand: &str, target: &str) -> Command {
        let mut command = self.compiler.cargo();
        command.args([subcommand, "--target", target]);
        if let Way::BuildStd(linker) = &self.way {
            command.env("RUSTC_BOOTSTRAP", "1").arg("-Zbuild-std=core");
            if let Some(linker) = linker {
                let triple = target.to_uppercase().replace(['-', '.'], "_");
                command.env(format!("CARGO_TARGET_{triple}_LINKER"), linker);
            }
        }
        command
    }

    /// The compiler's version.
    pub(crate) fn version(&self) -> String {
        self.compiler.version.to_string()
    }

    /// One line for people.
    pub(crate) fn describe(&self) -> String {
        let way = match &self.way {
            Way::Installed => "its installed targets".to_owned(),
            Way::BuildStd(None) => "core built from source (-Zbuild-std)".to_owned(),
            Way::BuildStd(Some(linker)) => {
                format!("core built from source (-Zbuild-std), linker {}", linker.display())
            }
        };
        format!("rustc {} ({}) with {way}", self.compiler.version, self.compiler.rustc.display())
    }
}

/// Makes sure that rustfmt and clippy are there, for the compiler that runs this command and for the firmware's.
///
/// # Errors
/// Says what to install if this process may not.
pub(crate) fn ensure_lints(firmware: &Toolchain, report: Report) -> Result<()> {
    let own = Compiler::all().into_iter().next().context("no rustc in PATH, although cargo runs")?;
    lint::ensure(&own, report)?;
    if own.rustc != firmware.compiler.rustc {
        lint::ensure(&firmware.compiler, report)?;
    }
    Ok(())
}

/// Finds a compiler for all of `targets`, or installs one.
///
/// # Errors
/// If neither way can be had: what was tried, and the commands for both.
pub(crate) fn ensure(targets: &[String], report: Report) -> Result<Toolchain> {
    let toolchain = find_or_install(targets, report)?;
    report.found(&toolchain.describe());
    if matches!(toolchain.way, Way::Installed) {
        for target in targets {
            report.found(&format!("target {target}"));
        }
    }
    Ok(toolchain)
}

fn find_or_install(targets: &[String], report: Report) -> Result<Toolchain> {
    let compilers = Compiler::all();
    let Some(own) = compilers.first() else { bail!("no rustc in PATH, although cargo runs") };
    if own.has(targets) {
        return Ok(Toolchain { compiler: own.clone(), way: Way::Installed });
    }
    let no_rustup = match add_by_rustup(own, targets, report) {
        Ok(()) => return Ok(Toolchain { compiler: own.clone(), way: Way::Installed }),
        Err(error) => format!("{error:#}"),
    };
    report.note(&format!("{no_rustup}: trying the second way, a distribution's Rust"));
    if let Some(toolchain) = second_way(&compilers, targets, report)? {
        return Ok(toolchain);
    }
    debian::install(&PACKAGES, report)
        .with_context(|| format!("firmware needs a Rust for {}. {no_rustup}", targets.join(", ")))?;
    second_way(&Compiler::all(), targets, report)?.with_context(|| {
        format!("{} are installed, but no rustc among them has the source of core", PACKAGES.join(", "))
    })
}

/// Adds the targets that miss, if `compiler` is rustup's.
fn add_by_rustup(compiler: &Compiler, targets: &[String], report: Report) -> Result<()> {
    let missing: Vec<_> = targets.iter().filter(|target| !compiler.has(std::slice::from_ref(target))).collect();
    let (rustup, toolchain) =
        compiler.rustup().with_context(|| format!("{} is not rustup's", compiler.rustc.display()))?;
    let list = missing.iter().map(|target| target.as_str()).collect::<Vec<_>>().join(" ");
    report.doing(&format!("rustup target add {list}"));
    let mut command = Command::new(rustup);
    command.args(["target", "add", "--toolchain", &toolchain]).args(&missing);
    let ended = follow(&mut command, Duration::from_secs(600), |_| ())?;
    if !ended.ok() || !compiler.has(targets) {
        let said = ended.text.lines().find(|line| line.starts_with("error")).unwrap_or("no error message").to_owned();
        bail!("rustup target add {} ({said})", ended.how());
    }
    report.did(&format!("{list} in rustup's {toolchain}"));
    Ok(())
}

/// A compiler that has the targets already, or the source of `core` and a linker.
fn second_way(compilers: &[Compiler], targets: &[String], report: Report) -> Result<Option<Toolchain>> {
    if let Some(compiler) = compilers.iter().find(|compiler| compiler.has(targets)) {
        return Ok(Some(Toolchain { compiler: compiler.clone(), way: Way::Installed }));
    }
    let Some(compiler) = compilers.iter().find(|compiler| compiler.has_source()) else { return Ok(None) };
    let linker = linker::ensure(compiler, report)?;
    Ok(Some(Toolchain { compiler: compiler.clone(), way: Way::BuildStd(linker) }))
}
