//! The rows, as people read them.

use super::row::{Row, find};
use crate::{
    board::BOARDS,
    table::{Table, thousands},
};

/// Every row with all that was measured, one table a firmware.
pub(super) fn sections(rows: &[Row]) -> String {
    let mut text = String::new();
    for (board, leaf) in firmware() {
        let ours: Vec<_> = rows.iter().filter(|row| row.board == board && row.leaf == leaf).map(cells).collect();
        if !ours.is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            let table = Table::new(&["op", "shape", "instructions", "count", "of", "each"], ours);
            text.push_str(&format!("{board}, leaf {leaf}\n\n{}", table.text()));
        }
    }
    text
}

fn cells(row: &Row) -> Vec<String> {
    let (op, shape, unit) = (row.op.clone(), row.shape.clone(), row.unit.clone());
    vec![op, shape, thousands(row.instructions), thousands(row.count), unit, row.each_text()]
}

/// Instructions a unit, one column a firmware.
pub(super) fn side_by_side(rows: &[Row]) -> Table {
    let mut heads = vec!["op".to_owned(), "shape".into(), "per".into()];
    heads.extend(firmware().map(|(board, leaf)| format!("{board} {leaf}")));
    let mut kinds: Vec<(&str, &str, &str)> = Vec::new();
    for row in rows {
        let kind = (row.op.as_str(), row.shape.as_str(), row.unit.as_str());
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let line = |&(op, shape, unit): &(&str, &str, &str)| {
        let mut cells = vec![op.to_owned(), shape.to_owned(), unit.to_owned()];
        cells
            .extend(firmware().map(|(board, leaf)| {
                find(rows, board, leaf, op, shape).map_or_else(|| "-".to_owned(), Row::each_text)
            }));
        cells
    };
    // Operations together, in the order in which they were first met.
    let mut ops: Vec<&str> = Vec::new();
    kinds.iter().for_each(|&(op, ..)| {
        if !ops.contains(&op) {
            ops.push(op);
        }
    });
    kinds.sort_by_key(|&(op, ..)| ops.iter().position(|&other| other == op));
    Table::new(&heads.iter().map(String::as_str).collect::<Vec<_>>(), kinds.iter().map(line).collect())
}

/// Every board with every leaf.
fn firmware() -> impl Iterator<Item = (&'static str, &'static str)> {
    BOARDS.iter().flat_map(|board| board.leaves.iter().map(|leaf| (board.name, leaf.name)))
}
