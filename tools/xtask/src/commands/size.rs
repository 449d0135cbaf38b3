//! `cargo xtask size`: memory of every firmware, against its budget.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use serde_json::json;

use crate::{
    board::BOARDS,
    budget::{self, Budget},
    commands::setup,
    elf, emulate,
    firmware::{self, Firmware},
    report::Report,
    table::{self, thousands},
    tree,
};

pub(crate) struct Row {
    name: String,
    flash: u64,
    ram: u64,
    stack: u64,
    budget: Option<Budget>,
}

impl Row {
    /// What a firmware takes, by its file and a run of it.
    ///
    /// # Errors
    /// If it is no sound file, did not run well, or told no stack.
    pub(crate) fn of(firmware: &Firmware, run: &emulate::Run, budgets: &BTreeMap<String, Budget>) -> Result<Self> {
        let (sizes, name) = (elf::read(&firmware.elf)?.sizes, &firmware.name);
        let Some(stack) = run.stack().filter(|_| run.ended.ok()) else {
            bail!("{name} {} and told no stack:\n{}", run.ended.how(), run.tail());
        };
        let budget = budgets.get(name).copied();
        Ok(Self { name: name.clone(), flash: sizes.flash, ram: sizes.ram, stack, budget })
    }

    /// What is over the budget, in words.
    pub(crate) fn faults(&self) -> Vec<String> {
        let Some(budget) = self.budget else { return vec!["no budget in boards/budgets.json".into()] };
        [("flash", self.flash, budget.flash), ("static RAM", self.ram, budget.ram), ("stack", self.stack, budget.stack)]
            .into_iter()
            .filter(|(_, taken, limit)| taken > limit)
            .map(|(what, taken, limit)| format!("{what} is {} bytes over", taken - limit))
            .collect()
    }
}

/// Builds, reads and runs every firmware; tells whether all are within their budgets.
pub(crate) fn run(json: bool) -> Result<bool> {
    let toolchain = setup::ready(Report::Changes)?;
    let budgets = budget::read()?;
    let mut rows = Vec::new();
    for board in BOARDS {
        for leaf in board.leaves {
            for application in board.applications {
                let firmware = firmware::build(&toolchain, board, leaf, application)?;
                let run = emulate::run(board, &firmware, &tree::firmware(), |_| ())?;
                rows.push(Row::of(&firmware, &run, &budgets)?);
            }
        }
    }
    if json {
        let rows: Vec<_> = rows.iter().map(as_json).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        let cells = |row: &Row| {
            let faults = row.faults();
            let verdict = if faults.is_empty() { "within budget".into() } else { faults.join(", ") };
            vec![row.name.clone(), thousands(row.flash), thousands(row.ram), thousands(row.stack), verdict]
        };
        table::print(&["firmware", "flash", "static RAM", "stack", ""], &rows.iter().map(cells).collect::<Vec<_>>());
    }
    let mut within = true;
    for row in &rows {
        for fault in row.faults() {
            eprintln!("over budget: {}: {fault}", row.name);
            within = false;
        }
    }
    Ok(within)
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "firmware": row.name, "flash": row.flash, "static_ram": row.ram, "stack": row.stack,
        "budget": row.budget.map(|limit| json!({"flash": limit.flash, "static_ram": limit.ram, "stack": limit.stack})),
        "faults": row.faults(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_limit() {
        let budget = Some(Budget { flash: 10, ram: 10, stack: 10 });
        let row = |flash, stack, budget| Row { name: "m0/suite".into(), flash, ram: 10, stack, budget };
        assert!(row(10, 10, budget).faults().is_empty());
        assert_eq!(row(11, 12, budget).faults(), ["flash is 1 bytes over", "stack is 2 bytes over"]);
        assert_eq!(row(1, 1, None).faults().len(), 1, "a firmware without a budget fails");
    }
}
