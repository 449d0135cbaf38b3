//! `cargo xtask bench`: instructions per operation on every emulated board.
//!
//! - [`row`]: one measurement
//! - [`goals`]: what has been set as a goal, and how far it is
//! - [`views`]: the tables that people read
//! - [`document`]: the generated part of `docs/benchmarks.md`

mod document;
pub(crate) mod goals;
mod row;
mod views;

use anyhow::{Result, bail};
use serde_json::Value;

pub(crate) use self::{document::DOCUMENT, row::Row};
use crate::{board::BOARDS, commands::setup, emulate, firmware, record::Record, report::Report, tree};

/// What to do with the rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Tables on standard output.
    Tables,
    /// One JSON array on standard output.
    Json,
    /// Into `docs/benchmarks.md`.
    Markdown,
}

/// Runs the benchmark of every board and leaf.
pub(crate) fn run(form: Form) -> Result<bool> {
    let toolchain = setup::ready(Report::Changes)?;
    let mut records = Vec::new();
    for board in BOARDS {
        for leaf in board.leaves {
            let firmware = firmware::build(&toolchain, board, leaf, "bench")?;
            let run = emulate::run(board, &firmware, &tree::firmware(), |_| ())?;
            if !run.ended.ok() {
                bail!("{} {}:\n{}", firmware.name, run.ended.how(), run.tail());
            }
            let before = records.len();
            records.extend(run.records.into_iter().filter(|record| record.kind() == "bench"));
            if let Some(record) = records.iter().skip(before).find(|record| record.text("leaf") != Some(leaf.name)) {
                let ran = record.text("leaf").unwrap_or("none");
                bail!("{} was built for leaf {}, but ran {ran}", firmware.name, leaf.name);
            }
        }
    }
    if form == Form::Json {
        println!("{}", serde_json::to_string_pretty(&records.iter().map(Record::row).collect::<Vec<Value>>())?);
        return Ok(true);
    }
    let rows = rows(&records)?;
    if form == Form::Tables {
        print!("{}", views::sections(&rows));
        println!("\nGoals\n\n{}", goals::table(&rows).text());
        println!(
            "Instructions, not cycles: counted in QEMU, which models no pipeline, no caches and no flash wait states."
        );
    } else {
        document::update(&rows, &toolchain.version())?;
        println!("wrote {}", DOCUMENT.path);
    }
    Ok(true)
}

/// The rows among a firmware's records.
///
/// # Errors
/// If one lacks a field.
pub(crate) fn rows(records: &[Record]) -> Result<Vec<Row>> {
    records.iter().filter(|record| record.kind() == "bench").map(Row::of).collect()
}
