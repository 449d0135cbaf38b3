//! `cargo xtask story`: the project's language model writes on an emulated Cortex-M4.

use anyhow::Result;

use crate::{board::DEMO, commands::setup, elf, emulate, firmware, record::Record, report::Report, table, tree};

/// Runs it, and tells whether it ended well.
pub(crate) fn run() -> Result<bool> {
    let toolchain = setup::ready(Report::Changes)?;
    let firmware = firmware::build(&toolchain, DEMO, &DEMO.leaves[0], "story")?;
    println!("On an emulated Cortex-M4 (QEMU, {}):\n", DEMO.name);
    let people = |line: &str| {
        if Record::parse(line).is_none() {
            println!("{line}");
        }
    };
    let run = emulate::run(DEMO, &firmware, &tree::firmware(), people)?;
    if !run.ended.ok() {
        println!("the firmware {}", run.ended.how());
        return Ok(false);
    }
    let sizes = elf::read(&firmware.elf)?.sizes;
    println!("\nThe firmware (by its ELF file, base and adapters included):");
    println!("  flash         {} bytes", table::thousands(sizes.flash));
    println!("  static RAM    {} bytes", table::thousands(sizes.ram));
    if let Some(stack) = run.records.iter().find(|r| r.kind() == "stack").and_then(|r| r.number("bytes")) {
        println!("  stack         {} bytes, at its deepest", table::thousands(stack));
    }
    println!("\nInstructions (docs/benchmarks.md tells what they are held against):");
    let rows = run.records.iter().filter(|r| r.kind() == "bench").map(|r| {
        let text = |field| r.text(field).unwrap_or_default().to_owned();
        vec![text("op"), text("shape"), table::thousands(r.number("instructions").unwrap_or_default())]
    });
    table::print(&["operation", "", "instructions"], &rows.collect::<Vec<_>>());
    Ok(true)
}
