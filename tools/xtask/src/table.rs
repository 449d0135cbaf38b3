//! Plain tables for the terminal.

/// Rows under their heads.
pub(crate) struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Every row has as many cells as there are heads.
    pub(crate) fn new(heads: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self { heads: heads.iter().map(|head| (*head).to_owned()).collect(), rows }
    }

    /// For a terminal: columns of numbers (and only they) are set to the right.
    pub(crate) fn text(&self) -> String {
        self.lines().map(|cells| format!("  {}\n", cells.join("  ").trim_end())).collect()
    }

    /// For a Markdown document, and still readable as text.
    pub(crate) fn markdown(&self) -> String {
        let mut lines = self.lines().map(|cells| format!("| {} |\n", cells.join(" | ")));
        let head = lines.next().unwrap_or_default();
        let rule: Vec<String> = self
            .columns()
            .map(|(width, numeric)| format!("{}{}", "-".repeat(width + 1), if numeric { ":" } else { "-" }))
            .collect();
        format!("{head}|{}|\n{}", rule.join("|"), lines.collect::<String>())
    }

    /// Heads and rows, each cell as wide as its column.
    fn lines(&self) -> impl Iterator<Item = Vec<String>> {
        let columns: Vec<(usize, bool)> = self.columns().collect();
        std::iter::once(&self.heads).chain(&self.rows).map(move |row| {
            let padded = row.iter().zip(&columns).map(|(cell, &(width, numeric))| {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                if numeric { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
            });
            padded.collect()
        })
    }

    /// Width of every column, and whether it holds numbers.
    fn columns(&self) -> impl Iterator<Item = (usize, bool)> {
        self.heads.iter().enumerate().map(|(column, head)| {
            let cells = || self.rows.iter().filter_map(move |row| row.get(column));
            let width = cells().map(|cell| cell.chars().count()).fold(head.chars().count(), usize::max);
            let digits = cells().any(|cell| cell.contains(|c: char| c.is_ascii_digit()));
            (width, digits && cells().all(|cell| is_number(cell)))
        })
    }
}

/// Prints rows under their heads.
pub(crate) fn print(heads: &[&str], rows: &[Vec<String>]) {
    print!("{}", Table::new(heads, rows.to_vec()).text());
}

/// A number with its separators and unit, or the dash that stands for none.
fn is_number(cell: &str) -> bool {
    let number = cell.trim_end_matches(['%', 's', ' ']);
    cell == "-" || (!number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || ",.-".contains(c)))
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Table, thousands};

    #[test]
    fn numbers_are_set_to_the_right() {
        let rows = [["gemv", "64x64", "1,234", "5.0 %"], ["softmax", "10", "-", "12.5 %"]];
        let table = Table::new(&["op", "shape", "n", ""], rows.map(|row| row.map(str::to_owned).to_vec()).to_vec());
        assert_eq!(
            table.text(),
            "  op       shape      n\n  gemv     64x64  1,234   5.0 %\n  softmax  10         -  12.5 %\n"
        );
        assert_eq!(table.markdown().lines().nth(1), Some("|---------|-------|------:|-------:|"));
    }

    #[test]
    fn groups_digits() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
