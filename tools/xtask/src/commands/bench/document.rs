//! The generated part of `docs/benchmarks.md`: what stands between two markers.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{goals, row::Row, views};
use crate::{board::BOARDS, process::output, tree};

const BEGIN: &str = "<!-- begin: cargo xtask bench --markdown -->";
const END: &str = "<!-- end: cargo xtask bench --markdown -->";

/// The document.
pub(super) fn path() -> PathBuf {
    tree::root().join("docs/benchmarks.md")
}

/// Writes the tables into the document.
///
/// # Errors
/// If it cannot be read or written, or has lost its markers.
pub(super) fn update(rows: &[Row], rustc: &str) -> Result<()> {
    let path = path();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", tree::shown(&path)))?;
    let generated = format!(
        "With rustc {rustc} and {}.\n\n### Goals\n\n{}\n### Instructions, side by side\n\n{}\n### Every row\n\n```text\n{}```\n",
        emulators()?,
        goals::table(rows).markdown(),
        views::side_by_side(rows).markdown(),
        views::sections(rows)
    );
    let text = between(&text, &generated).with_context(|| {
        format!("{} has lost its markers, two lines of their own:\n{BEGIN}\n{END}", tree::shown(&path))
    })?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", tree::shown(&path)))
}

/// `text` with everything between the markers replaced.
fn between(text: &str, generated: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{generated}\n{END}{after}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = between(&text, "new\n").expect("markers");
        assert_eq!(new, format!("before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"));
        assert_eq!(between(&new, "new\n").as_deref(), Some(new.as_str()), "twice is once");
        assert_eq!(between("no markers", "new"), None);
    }

    #[test]
    fn the_document_has_its_markers() {
        let text = fs::read_to_string(path()).expect("docs/benchmarks.md");
        assert!(between(&text, "").is_some());
    }
}
