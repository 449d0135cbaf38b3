//! Running firmware.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};

use crate::{
    board::Board,
    firmware::Firmware,
    process::{Ended, follow},
    record::Record,
};

/// What a run said.
pub(crate) struct Run {
    /// How it ended, and all its text.
    pub(crate) ended: Ended,
    /// Its records, in order.
    pub(crate) records: Vec<Record>,
}

/// The longest that any firmware may take on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(900);

/// Boots `firmware` in QEMU, with `folder` as the place of the files it writes. Lines for people go to `each`.
///
/// # Errors
/// If QEMU cannot be started. A firmware that fails is no error here: see [`Run::ended`].
pub(crate) fn run(board: &Board, firmware: &Firmware, folder: &Path, each: impl FnMut(&str)) -> Result<Run> {
    let runner = board.runner()?;
    let (program, arguments) = runner.split_first().context("an empty runner")?;
    let mut command = Command::new(program);
    command.args(arguments).arg(&firmware.elf).current_dir(folder);
    run_command(&mut command, each)
}

/// Runs any program that speaks as the suite does: the host's own build of it, for one.
pub(crate) fn run_command(command: &mut Command, mut each: impl FnMut(&str)) -> Result<Run> {
    let mut records = Vec::new();
    let ended = follow(command, LIMIT, |line| match Record::parse(line) {
        Some(record) => records.push(record),
        None => each(line),
    })?;
    Ok(Run { ended, records })
}

impl Run {
    /// The stack's high-water mark in bytes, if the board told it.
    pub(crate) fn stack(&self) -> Option<u64> {
        self.records.iter().filter(|record| record.kind() == "stack").filter_map(|record| record.number("bytes")).max()
    }

    /// The digests by name, in order.
    pub(crate) fn digests(&self) -> Vec<(&str, &str)> {
        self.records
            .iter()
            .filter(|record| record.kind() == "digest")
            .filter_map(|record| record.text("name").zip(record.text("value")))
            .collect()
    }

    /// The last lines, for a person who wants to know why it failed.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<_> = self.ended.text.lines().filter(|line| Record::parse(line).is_none()).collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}
