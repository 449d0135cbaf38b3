//! What is tested on the emulated boards.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::steps::Steps;
use crate::{
    board::{BOARDS, BROKEN, Board},
    elf, emulate,
    firmware::{self, Firmware},
    symbols,
    toolchain::Toolchain,
    tree,
};

/// Names and values of digests.
type Digests = Vec<(String, String)>;

/// Lints, builds and runs the suite on every board with every leaf.
pub(super) fn run(steps: &mut Steps, toolchain: &Toolchain) {
    let mut host = Digests::new();
    steps.check("host: the suite", || {
        let elf = firmware::build_host("suite")?;
        let run = emulate::run_command(Command::new(&elf).current_dir(tree::firmware()), |_| ())?;
        host = digests(&run, "host/suite")?;
        Ok(())
    });
    for board in BOARDS {
        steps.check(&format!("{}: lints", board.name), || firmware::lint(toolchain, board));
        for leaf in board.leaves {
            let label = format!("{} ({})", board.name, leaf.name);
            let mut suite = None;
            steps.check(&format!("{label}: builds"), || {
                for application in board.applications {
                    let firmware = firmware::build(toolchain, board, leaf, application)?;
                    if *application == "suite" {
                        suite = Some(firmware);
                    }
                }
                Ok(())
            });
            let built = || suite.as_ref().ok_or_else(|| anyhow::anyhow!("not run: it does not build"));
            if board.no_fpu {
                steps.check(&format!("{label}: no soft float"), || {
                    none_of(board, leaf.name, symbols::is_soft_float, "soft float")
                });
            }
            steps.check(&format!("{label}: no allocator"), || {
                none_of(board, leaf.name, symbols::is_allocator, "an allocator")
            });
            steps.check(&format!("{label}: digest equals the host's"), || {
                same_digest(board, built()?, leaf.name, &host)
            });
        }
        steps.check(&format!("{}: a panic is seen", board.name), || panic_is_seen(toolchain, board));
    }
}

/// The digests of a run that must end well and tell at least one.
fn digests(run: &emulate::Run, name: &str) -> Result<Digests> {
    ensure!(run.ended.ok(), "{name} {}:\n{}", run.ended.how(), run.tail());
    let digests: Digests = run.digests().into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    ensure!(!digests.is_empty(), "{name} told no digest");
    Ok(digests)
}

fn same_digest(board: &Board, suite: &Firmware, leaf: &str, host: &Digests) -> Result<()> {
    let run = emulate::run(board, suite, &tree::firmware(), |_| ())?;
    let ours = digests(&run, &suite.name)?;
    let other = run.records.iter().find(|record| record.kind() == "digest" && record.text("leaf") != Some(leaf));
    if let Some(record) = other {
        bail!("{} was built for leaf {leaf}, but ran {}", suite.name, record.text("leaf").unwrap_or("none"));
    }
    for (name, value) in host {
        match ours.iter().find(|(other, _)| other == name) {
            None => bail!("{} told no digest `{name}`", suite.name),
            Some((_, found)) if found != value => {
                bail!("digest `{name}`: {found} on {}, {value} on the host", suite.name)
            }
            Some(_) => (),
        }
    }
    ensure!(ours.len() == host.len(), "{} told {} digests, the host {}", suite.name, ours.len(), host.len());
    Ok(())
}

/// Fails if any application of the board has a symbol that `forbidden` knows.
fn none_of(board: &Board, leaf: &str, forbidden: fn(&str) -> bool, what: &str) -> Result<()> {
    for application in board.applications {
        let path = firmware::path(board, leaf, application)?;
        let found: Vec<_> = elf::read(&path)?.symbols.into_iter().filter(|name| forbidden(name)).collect();
        ensure!(found.is_empty(), "{} has {what}: {}", tree::shown(&path), found.join(", "));
    }
    Ok(())
}

fn panic_is_seen(toolchain: &Toolchain, board: &Board) -> Result<()> {
    let Some(leaf) = board.leaves.first() else { bail!("{} has no leaf", board.name) };
    let firmware = firmware::build(toolchain, board, leaf, BROKEN)?;
    let run = emulate::run(board, &firmware, &tree::firmware(), |_| ())?;
    ensure!(run.ended.code.is_some_and(|code| code != 0), "firmware that panics {}", run.ended.how());
    ensure!(run.ended.text.contains("PANIC: "), "firmware that panics did not say so:\n{}", run.tail());
    Ok(())
}
