//! `cargo xtask accuracy`: the figures of docs/accuracy.md, collected from the tests that hold them to their limits.

use std::{collections::BTreeMap, env, process::Command, time::Duration};

use anyhow::{Result, ensure};

use crate::{document::Document, process::follow, record::Record, table::Table, tree};

/// Where the tables stand.
pub(crate) const DOCUMENT: Document = Document { path: "docs/accuracy.md", command: "cargo xtask accuracy" };

/// The tests that tell figures.
const TESTS: [&str; 4] = ["families", "kinds", "gradients", "accuracy"];

/// A table: its name in the records, its title, and its columns.
struct Section {
    name: &'static str,
    title: &'static str,
    columns: &'static [&'static str],
}

const SECTIONS: [Section; 6] = [
    Section {
        name: "families",
        title: "Families",
        columns: &["output", "with adapter", "adapter's effect", "other masks", "32-bit stream"],
    },
    Section { name: "kinds", title: "Kinds of adapters", columns: &["output", "effect"] },
    Section {
        name: "t5",
        title: "A T5 classifier, r = 8, alpha = 16, on q and v: the same prediction",
        columns: &["base", "with adapter"],
    },
    Section { name: "cache", title: "Keys and values in 8 bits, beside 16", columns: &["8-bit cache"] },
    Section {
        name: "outlier",
        title: "A stream in which one channel is 10^4 times the others",
        columns: &["32-bit stream", "16-bit stream"],
    },
    Section { name: "gradients", title: "Gradients of A and B", columns: &["cosine", "error", "worst tensor"] },
];

/// Longest time that the tests may take, building included.
const LIMIT: Duration = Duration::from_secs(1800);

/// Measures; writes the document, or with `check` compares it. Tells whether it is, or now is, what was measured.
pub(crate) fn run(check: bool) -> Result<bool> {
    let generated = tables(&measure()?);
    if check {
        let same = DOCUMENT.is(&generated)?;
        let verdict = if same { "is what was measured" } else { "is out of date; `cargo xtask accuracy` writes it" };
        println!("{} {verdict}", DOCUMENT.path);
        return Ok(same);
    }
    DOCUMENT.write(&generated)?;
    println!("{generated}\n{} is up to date", DOCUMENT.path);
    Ok(true)
}

/// What the tests tell.
fn measure() -> Result<Vec<Record>> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(tree::root()).args(["test", "--quiet", "--package", "ranklet-cli"]);
    for test in TESTS {
        command.args(["--test", test]);
    }
    // One thread: the records come in the tests' order.
    command.args(["--", "--nocapture", "--test-threads=1"]);
    let mut records = Vec::new();
    let ended = follow(&mut command, LIMIT, |line| records.extend(find(line)))?;
    ensure!(ended.ok(), "{}the tests of accuracy {}", ended.text, ended.how());
    for Section { name, .. } in &SECTIONS {
        ensure!(records.iter().any(|r| r.text("table") == Some(name)), "the tests told no figure for the table {name}");
    }
    Ok(records)
}

/// The record in a line; the test harness may have written a dot before it.
fn find(line: &str) -> Option<Record> {
    let at = line.find("{\"record\":\"accuracy\"")?;
    Record::parse(&line[at..])
}

fn tables(records: &[Record]) -> String {
    let mut out = String::new();
    for section in &SECTIONS {
        let mut cells: BTreeMap<(String, String, String), String> = BTreeMap::new();
        let (mut cases, mut limits) = (Vec::<String>::new(), Vec::<String>::new());
        let text = |r: &Record, field: &str| r.text(field).unwrap_or_default().to_owned();
        for r in records.iter().filter(|r| r.text("table") == Some(section.name)) {
            let (case, what, weights) = (text(r, "case"), text(r, "what"), text(r, "weights"));
            if !cases.contains(&case) {
                cases.push(case.clone());
            }
            let limit = text(r, "limit");
            if !limit.is_empty() {
                let said = format!("{what} {weights}: {limit}");
                if !limits.contains(&said) {
                    limits.push(said);
                }
            }
            cells.insert((case, what, weights), text(r, "text"));
        }
        let told = |column: &str| cells.keys().any(|(_, what, _)| what == column);
        let columns: Vec<(&str, &str)> = section
            .columns
            .iter()
            .filter(|column| told(column))
            .flat_map(|column| ["i16", "i8"].map(|weights| (*column, weights)))
            .filter(|(column, weights)| cells.keys().any(|(_, what, w)| what == column && w == weights))
            .collect();
        let heads: Vec<String> = columns.iter().map(|(column, weights)| format!("{column}, {weights}")).collect();
        let heads: Vec<&str> = ["case"].into_iter().chain(heads.iter().map(String::as_str)).collect();
        let rows = cases.iter().map(|case| {
            let cell = |&(what, weights): &(&str, &str)| {
                cells.get(&(case.clone(), what.to_owned(), weights.to_owned())).cloned().unwrap_or_default()
            };
            [case.clone()].into_iter().chain(columns.iter().map(cell)).collect()
        });
        let table = Table::new(&heads, rows.collect()).markdown();
        out += &format!("## {}\n\n{table}\nLimits: {}.\n\n", section.title, limits.join("; "));
    }
    out.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_behind_the_harness_marks() {
        let line = r#"..{"record":"accuracy","table":"kinds","case":"x","weights":"i8","what":"output","text":"1e-3","limit":"5e-2"}"#;
        let record = find(line).expect("a record");
        let text = tables(&[record]);
        assert!(text.contains("| x ") && text.contains("output, i8") && text.contains("output i8: 5e-2"), "{text}");
        assert!(find("test result: ok").is_none());
    }
}
