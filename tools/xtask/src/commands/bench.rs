//! `cargo xtask bench`: instructions per operation on every emulated board.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::{
    board::BOARDS,
    commands::setup,
    emulate, firmware,
    record::Record,
    report::Report,
    table::{self, thousands},
    tree,
};

/// Runs the benchmark of every board and leaf.
pub(crate) fn run(json: bool) -> Result<bool> {
    let toolchain = setup::ready(Report::Changes)?;
    let mut rows = Vec::new();
    for board in BOARDS {
        for leaf in board.leaves {
            let firmware = firmware::build(&toolchain, board, leaf, "bench")?;
            let run = emulate::run(board, &firmware, &tree::firmware(), |_| ())?;
            if !run.ended.ok() {
                bail!("{} {}:\n{}", firmware.name, run.ended.how(), run.tail());
            }
            rows.extend(run.records.into_iter().filter(|record| record.kind() == "bench"));
        }
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows.iter().map(Record::row).collect::<Vec<Value>>())?);
    } else {
        let heads = ["board", "leaf", "op", "shape", "instructions", "macs", "per mac"];
        table::print(&heads, &rows.iter().map(cells).collect::<Vec<_>>());
        println!(
            "\nInstructions, not cycles: counted in QEMU, which models no pipeline, no caches and no flash wait states."
        );
    }
    Ok(true)
}

fn cells(row: &Record) -> Vec<String> {
    let text = |field| row.text(field).unwrap_or("?").to_owned();
    let number = |field| row.number(field).map_or("?".into(), thousands);
    let per_mac = row.fraction("per_mac").map_or("-".into(), |value| format!("{value:.3}"));
    vec![text("board"), text("leaf"), text("op"), text("shape"), number("instructions"), number("macs"), per_mac]
}
