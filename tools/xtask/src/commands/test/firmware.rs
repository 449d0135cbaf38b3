//! What is tested on the emulated boards.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::steps::Steps;
use crate::{
    board::{BOARDS, BROKEN, Board},
    budget,
    commands::size,
    elf, emulate,
    firmware::{self, Firmware},
    symbols,
    toolchain::Toolchain,
    tree, turns,
};

/// Digests by application and name.
type Digests = Vec<(String, String, String)>;

/// Applications that the host runs as well, and that tell digests.
const DIGESTED: [&str; 7] = ["suite", "sequences", "learning", "demo", "write", "style", "memory"];

/// One that was built and run.
struct Ran {
    application: &'static str,
    firmware: Firmware,
    run: emulate::Run,
}

/// Lints, builds and runs every application on every board with every leaf.
pub(super) fn run(steps: &mut Steps, toolchain: &Toolchain) {
    let mut host = Digests::new();
    for application in DIGESTED {
        steps.check(&format!("host: {application}"), || {
            let elf = firmware::build_host(application)?;
            let run = emulate::run_command(Command::new(&elf).current_dir(tree::firmware()), |_| ())?;
            host.extend(digests(&run, application, &format!("host/{application}"))?);
            match application {
                "demo" => promises(&run, "host/demo"),
                "write" => as_merged("host/write"),
                _ => Ok(()),
            }
        });
    }
    for board in BOARDS {
        steps.check(&format!("{}: lints", board.name), || firmware::lint(toolchain, board));
        for leaf in board.leaves {
            let label = format!("{} ({})", board.name, leaf.name);
            let mut built = Vec::new();
            steps.check(&format!("{label}: builds"), || {
                for application in board.applications {
                    built.push((*application, firmware::build(toolchain, board, leaf, application)?));
                }
                Ok(())
            });
            if board.no_fpu {
                steps.check(&format!("{label}: no soft float"), || {
                    none_of(board, leaf.name, symbols::is_soft_float, "soft float")
                });
            }
            steps.check(&format!("{label}: no allocator"), || {
                none_of(board, leaf.name, symbols::is_allocator, "an allocator")
            });
            let mut ran = Vec::new();
            steps.check(&format!("{label}: runs"), || {
                ensure!(built.len() == board.applications.len(), "not run: it does not build");
                for (application, firmware) in built {
                    let run = emulate::run(board, &firmware, &tree::firmware(), |_| ())?;
                    ensure!(run.ended.ok(), "{} {}:\n{}", firmware.name, run.ended.how(), run.tail());
                    ran.push(Ran { application, firmware, run });
                }
                Ok(())
            });
            steps.check(&format!("{label}: digests equal the host's"), || same_digests(&ran, board, leaf.name, &host));
            steps.check(&format!("{label}: within its budgets"), || within_budgets(&ran, board));
            if board.applications.contains(&"demo") {
                steps.check(&format!("{label}: the demo keeps its promises"), || {
                    let demo = ran.iter().find(|ran| ran.application == "demo").context("it did not run")?;
                    promises(&demo.run, &demo.firmware.name)
                });
            }
            if board.applications.contains(&"write") {
                steps.check(&format!("{label}: adapters take turns as if they were merged"), || {
                    let write = ran.iter().find(|ran| ran.application == "write").context("it did not run")?;
                    as_merged(&write.firmware.name)
                });
            }
        }
        steps.check(&format!("{}: a panic is seen", board.name), || panic_is_seen(toolchain, board));
    }
}

/// The digests of a run that must end well and tell at least one.
fn digests(run: &emulate::Run, application: &str, name: &str) -> Result<Digests> {
    ensure!(run.ended.ok(), "{name} {}:\n{}", run.ended.how(), run.tail());
    let owned = |(name, value): (&str, &str)| (application.to_owned(), name.to_owned(), value.to_owned());
    let digests: Digests = run.digests().into_iter().map(owned).collect();
    ensure!(!digests.is_empty(), "{name} told no digest");
    Ok(digests)
}

/// Every application that the host runs too must tell exactly the digests that it tells there.
fn same_digests(ran: &[Ran], board: &Board, leaf: &str, host: &Digests) -> Result<()> {
    for application in DIGESTED.into_iter().filter(|application| board.applications.contains(application)) {
        let ran = ran.iter().find(|ran| ran.application == application);
        let Ran { firmware, run, .. } = ran.with_context(|| format!("{application} did not run"))?;
        let ours = digests(run, application, &firmware.name)?;
        let other = run.records.iter().find(|record| record.kind() == "digest" && record.text("leaf") != Some(leaf));
        if let Some(record) = other {
            let ran = record.text("leaf").unwrap_or("none");
            bail!("{} was built for leaf {leaf}, but ran {ran}", firmware.name);
        }
        let theirs: Digests = host.iter().filter(|digest| digest.0 == application).cloned().collect();
        ensure!(!theirs.is_empty(), "the host told no digest of {application}");
        ensure!(ours == theirs, "{} told {ours:?}, the host {theirs:?}", firmware.name);
    }
    Ok(())
}

/// Flash, static RAM and stack of every application against `boards/budgets.json`.
fn within_budgets(ran: &[Ran], board: &Board) -> Result<()> {
    ensure!(ran.len() == board.applications.len(), "not every application ran");
    let budgets = budget::read()?;
    let mut faults = Vec::new();
    for Ran { firmware, run, .. } in ran {
        let row = size::Row::of(firmware, run, &budgets)?;
        faults.extend(row.faults().iter().map(|fault| format!("{}: {fault}", firmware.name)));
    }
    ensure!(faults.is_empty(), "over budget: {}", faults.join("; "));
    Ok(())
}

/// What the README says of the demo, in test images read right: the base reads them upright and not turned, the adapter reads them
/// turned, and without it the base is what it was.
fn promises(run: &emulate::Run, name: &str) -> Result<()> {
    let demo = run.records.iter().find(|record| record.kind() == "demo");
    let demo = demo.with_context(|| format!("{name} told no readings"))?;
    let number = |field| demo.number(field).with_context(|| format!("{name} told no number `{field}`"));
    let images = number("images")?;
    let percent = |field| Ok::<_, anyhow::Error>(100.0 * number(field)? as f64 / images as f64);
    let (upright, turned, adapted) = (percent("upright")?, percent("turned")?, percent("adapted")?);
    ensure!(upright >= 95.0, "{name}: the base reads only {upright:.1} % upright");
    ensure!(turned <= 45.0, "{name}: the base reads {turned:.1} % turned: there is little to learn");
    ensure!(adapted >= 90.0, "{name}: with the adapter only {adapted:.1} % are read turned");
    ensure!(number("off")? == number("upright")?, "{name}: with the adapter switched off the base reads others");
    Ok(())
}

/// The logits that the writer has left, adapter by adapter, are those of PyTorch with that adapter merged into the base.
fn as_merged(name: &str) -> Result<()> {
    for turn in turns::compare(&tree::firmware())? {
        ensure!(turn.good(), "{name} is too far from PyTorch: {}", turn.cells().join(", "));
    }
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
