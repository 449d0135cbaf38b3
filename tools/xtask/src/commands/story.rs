//! `cargo xtask story`: a language model writes on an emulated Cortex-M4, or on this machine where there is no emulator.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::{
    board::DEMO,
    commands::{
        bench::{self, goals},
        setup,
    },
    elf, emulate, firmware,
    report::Report,
    table::{self, thousands},
    tree, turns,
};

/// Runs the writer and tells whether it ended well, and its adapters did as merged ones do.
pub(crate) fn run() -> Result<bool> {
    let folder = tree::root().join("target/story");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", tree::shown(&folder)))?;
    let show = |line: &str| println!("{line}");
    let run = match setup::ready(Report::Changes) {
        Ok(toolchain) => {
            let firmware = firmware::build(&toolchain, DEMO, &DEMO.leaves[0], "write")?;
            println!("On an emulated Cortex-M4 (QEMU, {}):\n", DEMO.name);
            let run = emulate::run(DEMO, &firmware, &folder, show)?;
            if run.ended.ok() {
                costs(&run)?;
                let sizes = elf::read(&firmware.elf)?.sizes;
                println!("\nMemory (by the ELF file; base, adapters and all that the writer measures included):\n");
                println!("  flash         {} bytes", thousands(sizes.flash));
                println!("  static RAM    {} bytes", thousands(sizes.ram));
                println!("  stack         {} bytes at its deepest", thousands(run.stack().context("told no stack")?));
            }
            run
        }
        Err(error) => {
            println!("On this host, not on a Cortex-M4: no bare-metal target or no emulator could be had.");
            eprintln!("{error:#}\n");
            emulate::run_command(Command::new(firmware::build_host("write")?).current_dir(&folder), show)?
        }
    };
    if !run.ended.ok() {
        println!("the writer {}", run.ended.how());
        return Ok(false);
    }
    compare(&folder)
}

/// Instructions, and the goals that they are held against.
fn costs(run: &emulate::Run) -> Result<()> {
    let rows = bench::rows(&run.records)?;
    println!("Instructions, counted (docs/benchmarks.md tells how):\n");
    let cells = rows.iter().map(|row| vec![row.op.clone(), row.shape.clone(), thousands(row.instructions)]);
    table::print(&["op", "shape", "instructions"], &cells.collect::<Vec<_>>());
    println!("\nGoals:\n\n{}", goals::measured(&rows).text().trim_end());
    Ok(())
}

/// The logits of every turn beside PyTorch's.
fn compare(folder: &Path) -> Result<bool> {
    let turns = turns::compare(folder)?;
    println!("\nAdapters that take turns, beside PyTorch with them merged into the base (relative L2):\n");
    table::print(&["turn", "logits", "effect"], &turns.iter().map(turns::Turn::cells).collect::<Vec<_>>());
    let good = turns.iter().all(turns::Turn::good);
    if !good {
        println!("\nToo far: docs/story.md tells the limits.");
    }
    Ok(good)
}
