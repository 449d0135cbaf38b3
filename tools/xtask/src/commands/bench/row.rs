//! One measurement, as a firmware told it.

use anyhow::{Context, Result};

use crate::record::Record;

/// One row of the benchmark.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub(super) board: String,
    pub(super) leaf: String,
    pub(crate) op: String,
    pub(crate) shape: String,
    pub(crate) instructions: u64,
    /// How many of `unit` the call does.
    pub(super) count: u64,
    /// "MAC", "element", "parameter", "sample".
    pub(super) unit: String,
}

impl Row {
    /// Reads a record.
    ///
    /// # Errors
    /// If a field is missing.
    pub(super) fn of(record: &Record) -> Result<Self> {
        let text = |field| record.text(field).map(str::to_owned).with_context(|| format!("a row without `{field}`"));
        let number = |field| record.number(field).with_context(|| format!("a row without `{field}`"));
        let (count, unit) = match record.text("unit") {
            Some(unit) => (number("units")?, unit.to_owned()),
            None => (number("macs")?, "MAC".to_owned()),
        };
        let (board, leaf, op, shape) = (text("board")?, text("leaf")?, text("op")?, text("shape")?);
        Ok(Self { board, leaf, op, shape, instructions: number("instructions")?, count, unit })
    }

    /// Instructions a unit.
    pub(super) fn each(&self) -> f64 {
        self.instructions as f64 / self.count.max(1) as f64
    }

    /// The same, for a table: as many digits as mean something.
    pub(super) fn each_text(&self) -> String {
        let each = self.each();
        if each < 100.0 { format!("{each:.2}") } else { crate::table::thousands(each.round() as u64) }
    }
}

/// The row of that board, leaf, operation and shape.
pub(super) fn find<'r>(rows: &'r [Row], board: &str, leaf: &str, op: &str, shape: &str) -> Option<&'r Row> {
    rows.iter().find(|row| row.board == board && row.leaf == leaf && row.op == op && row.shape == shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(line: &str) -> Row {
        Row::of(&Record::parse(line).expect("a record")).expect("a row")
    }

    #[test]
    fn both_kinds_of_work_are_read() {
        let macs = row(
            r#"{"record":"bench","board":"b","leaf":"l","op":"o","shape":"8x8","instructions":96,"macs":64,"per_mac":1.5}"#,
        );
        assert_eq!((macs.count, macs.unit.as_str(), macs.each_text().as_str()), (64, "MAC", "1.50"));
        let units = row(
            r#"{"record":"bench","board":"b","leaf":"l","op":"o","shape":"x","instructions":9000,"macs":0,"per_mac":null,"unit":"sample","units":2,"per_unit":4500.0}"#,
        );
        assert_eq!((units.count, units.unit.as_str(), units.each_text().as_str()), (2, "sample", "4,500"));
        assert!(find(&[macs], "b", "l", "o", "8x8").is_some());
    }
}
