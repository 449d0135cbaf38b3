//! `cargo xtask bench`: instructions per operation on every emulated board.
//!
//! - [`row`]: one measurement
//! - [`goals`]: what has been set as a goal, and how far it is
//! - [`views`]: the tables that people read
//! - [`document`]: the generated part of `docs/benchmarks.md`

mod document;
mod goals;
mod row;
mod views;

use anyhow::{Result, bail};
use serde_json::Value;

pub(crate) use self::document::DOCUMENT;
use self::row::Row;
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
        let told = ["bench", "story"].into_iter().filter(|application| board.applications.contains(application));
        for (leaf, application) in told.flat_map(|application| board.leaves.iter().map(move |leaf| (leaf, application)))
        {
            let firmware = firmware::build(&toolchain, board, leaf, application)?;
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
    let rows = records.iter().map(Row::of).collect::<Result<Vec<_>>>()?;
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
