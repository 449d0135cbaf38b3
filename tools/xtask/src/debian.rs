//! Installing packages, where that is possible and nobody needs to be asked.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{
    process::{follow, output, which},
    report::Report,
};

/// The command that a person would type for `packages`.
pub(crate) fn command(packages: &[&str]) -> String {
    format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Whether this process may install packages: root, on Debian or a descendant.
pub(crate) fn may_install() -> bool {
    Path::new("/etc/debian_version").exists()
        && which("apt-get").is_some()
        && output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Installs packages.
///
/// # Errors
/// Says the exact command if this process may not install, or what apt-get said if it failed.
pub(crate) fn install(packages: &[&str], report: Report) -> Result<()> {
    if !may_install() {
        let sudo = if Path::new("/etc/debian_version").exists() { "as root" } else { "on Debian, as root" };
        bail!("missing: {}. Install it ({sudo}):\n    {}", packages.join(", "), command(packages));
    }
    let packages: Vec<&str> = packages.iter().copied().filter(|package| !installed(package)).collect();
    report.doing(&format!("apt-get install {}", packages.join(" ")));
    let limit = Duration::from_secs(1200);
    // An update may fail for a foreign repository while the lists of this package are fine: the installation decides.
    let update = follow(apt().arg("update"), limit, |_| ())?;
    let install = follow(apt().args(["install", "-y", "--no-install-recommends"]).args(&packages), limit, |_| ())?;
    if !install.ok() {
        let said = if update.ok() { install.text.clone() } else { format!("{}{}", update.text, install.text) };
        bail!("apt-get {}:\n{}\nBy hand (as root):\n    {}", install.how(), tail(&said), command(&packages));
    }
    report.did(&packages.join(", "));
    Ok(())
}

fn installed(package: &str) -> bool {
    output(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
