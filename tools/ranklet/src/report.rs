//! What a command has to say: once for people, once for programs.

use crate::tensor::printable;
use serde_json::Value;

/// The outcome of a command. `human` goes to stdout, or `json` does with `--json`; never both.
#[derive(Clone, Debug)]
pub struct Report {
    /// Lines for people.
    pub human: String,
    /// The same, and more, for programs.
    pub json: Value,
    /// Whether the command's question was answered with yes: a plan that does not fit is a report, but no success.
    pub ok: bool,
}

impl Report {
    /// A success.
    #[must_use]
    pub fn new(human: impl Into<String>, json: Value) -> Report {
        Report { human: human.into(), json, ok: true }
    }
}

/// A number for people: with so many decimals, or with an exponent where those would be nothing but zeros, or follow
/// more digits than an `f64` has.
#[must_use]
pub fn decimal(x: f64, digits: usize) -> String {
    let plain = 10_f64.powi(-(digits as i32))..1e15;
    if x == 0.0 || !x.is_finite() || plain.contains(&x.abs()) {
        format!("{x:.digits$}")
    } else {
        format!("{x:.digits$e}")
    }
}

/// An error and its causes on one line. A part that the text before ends in is left out: some libraries repeat their
/// cause in their own words.
#[must_use]
pub fn chain(e: &anyhow::Error) -> String {
    let mut text = String::new();
    for part in e.chain().map(ToString::to_string).filter(|p| !p.is_empty()) {
        if text.is_empty() {
            text = part;
        } else if !text.ends_with(&part) {
            text += ": ";
            text += &part;
        }
    }
    text
}

/// Bytes for people: `1.2 KiB`, exact below a kibibyte.
#[must_use]
pub fn bytes(n: u64) -> String {
    match n {
        0..1024 => format!("{n} B"),
        1024..1_048_576 => format!("{:.1} KiB", n as f64 / 1024.0),
        _ => format!("{:.2} MiB", n as f64 / 1_048_576.0),
    }
}

/// The widest that a column is padded to; a longer cell pushes its own row out of line.
const WIDEST: usize = 100;

/// Columns padded to the widest cell; the first row is the heading. Numbers (cells that start with a digit or a
/// sign) are aligned to the right.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|text| printable(text)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, c: usize| row.get(c).map_or(0, |s| s.chars().count().min(WIDEST));
    let widths: Vec<usize> = (0..columns).map(|c| rows.iter().map(|row| cell(row, c)).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for (i, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (c, (text, &width)) in row.iter().zip(&widths).enumerate() {
            let numeric = rows.iter().skip(1).all(|r| {
                r.get(c).is_none_or(|s| s.is_empty() || s.starts_with(|ch: char| ch.is_ascii_digit() || ch == '-'))
            });
            let gap = if c == 0 { "" } else { "  " };
            line += &if numeric && rows.len() > 1 {
                format!("{gap}{text:>width$}")
            } else {
                format!("{gap}{text:<width$}")
            };
        }
        out += line.trim_end();
        if i + 1 < rows.len() {
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [["name", "size"], ["a", "10"], ["long", "5"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "name  size\na       10\nlong     5");
        assert_eq!(table(&[]), "");
        let rows = [["name"], ["a\u{1b}[31m\nb"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(table(&rows), "name\na\\u{1b}[31m\\nb");
        let long = "m".repeat(70_000);
        let rows = [["name", "size"], [&long, "10"], ["short", "5"]].map(|r| r.map(str::to_owned).to_vec());
        assert!(table(&rows).len() < 70_000 + 3 * WIDEST);
    }

    #[test]
    fn numbers_stay_short() {
        let shown = [0.0, 1.5, -0.25, 1e300, -1e-9, 999_999_999_999_999.0, f64::INFINITY].map(|x| decimal(x, 2));
        assert_eq!(shown, ["0.00", "1.50", "-0.25", "1.00e300", "-1.00e-9", "999999999999999.00", "inf"]);
    }

    #[test]
    fn causes_are_told_once() {
        let json = serde_json::from_str::<u8>("x").unwrap_err();
        let cause = json.to_string();
        let e = anyhow::Error::from(std::io::Error::other(format!("no header: {cause}")));
        assert_eq!(chain(&e.context("cannot read x")), format!("cannot read x: no header: {cause}"));
        let e = anyhow::Error::from(json).context(format!("y is wrong: {cause}")).context("y");
        assert_eq!(chain(&e), format!("y: y is wrong: {cause}"));
    }

    #[test]
    fn sizes_are_exact_where_it_matters() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
