//! Steps of the test, their time and their outcome.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    process::{Ended, follow},
    table,
};

/// The longest that one step may take on a slow machine, compiling included.
pub(super) const LIMIT: Duration = Duration::from_secs(3600);

/// All steps so far.
pub(super) struct Steps {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    time: Duration,
    passed: u64,
    failed: u64,
}

impl Steps {
    pub(super) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// A step that is one test: it passes, or fails with an error that is printed.
    pub(super) fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        self.count(name, || work().map(|()| (1, 0)));
    }

    /// A program that passes by ending with code 0. Its words are shown only if it fails.
    pub(super) fn program(&mut self, name: &str, command: &mut Command) {
        self.check(name, || {
            let ended = follow(command, LIMIT, |_| ())?;
            failed(&ended).map_or(Ok(()), Err)
        });
    }

    /// `cargo test`: each test counts, and one more failure if it failed in another way.
    pub(super) fn tests(&mut self, name: &str, command: &mut Command) {
        self.count(name, || {
            let ended = follow(command, LIMIT, |_| ())?;
            let (passed, mut failures) = results(&ended.text);
            if let Some(error) = failed(&ended) {
                eprintln!("{error:#}");
                failures = failures.max(1);
            }
            anyhow::ensure!(passed + failures > 0, "no test ran");
            Ok((passed, failures))
        });
    }

    /// Runs a step and keeps its tally of passed and failed tests.
    fn count(&mut self, name: &str, work: impl FnOnce() -> Result<(u64, u64)>) {
        eprintln!("· {name}");
        let start = Instant::now();
        let (passed, failed) = work().unwrap_or_else(|error| {
            eprintln!("{error:#}");
            (0, 1)
        });
        if failed > 0 {
            eprintln!("FAILED: {name}");
        }
        self.rows.push(Row { name: name.to_owned(), time: start.elapsed(), passed, failed });
    }

    /// Prints the table and the last line; tells whether nothing failed.
    pub(super) fn summary(&self) -> bool {
        let cells = |row: &Row| {
            let verdict = if row.failed == 0 { "ok" } else { "FAILED" };
            let time = format!("{:.1} s", row.time.as_secs_f64());
            vec![row.name.clone(), row.passed.to_string(), row.failed.to_string(), time, verdict.into()]
        };
        println!();
        table::print(&["step", "passed", "failed", "time", ""], &self.rows.iter().map(cells).collect::<Vec<_>>());
        let total: Duration = self.rows.iter().map(|row| row.time).sum();
        let (passed, failed): (u64, u64) =
            (self.rows.iter().map(|row| row.passed).sum(), self.rows.iter().map(|row| row.failed).sum());
        println!("\n{} steps in {:.0} s", self.rows.len(), total.as_secs_f64());
        println!("{passed} passed, {failed} failed");
        failed == 0
    }
}

/// The error of a program that did not end well, with the end of what it said.
fn failed(ended: &Ended) -> Option<anyhow::Error> {
    let lines: Vec<_> = ended.text.lines().collect();
    let tail = lines[lines.len().saturating_sub(80)..].join("\n");
    (!ended.ok()).then(|| anyhow::anyhow!("{tail}\nit {}", ended.how()))
}

/// Sums the lines `test result: ok. 4 passed; 0 failed; …` of all test binaries.
fn results(text: &str) -> (u64, u64) {
    let number = |line: &str, word: &str| -> u64 {
        line.split(['.', ';']).find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok()).unwrap_or(0)
    };
    text.lines()
        .filter_map(|line| line.strip_prefix("test result:"))
        .fold((0, 0), |(passed, failed), line| (passed + number(line, "passed"), failed + number(line, "failed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_results_are_summed() {
        let text = "running 4 tests\ntest result: ok. 4 passed; 0 failed; 0 ignored; finished in 0.00s\n\n\
                    test result: FAILED. 1 passed; 2 failed; 0 ignored; finished in 0.10s\n";
        assert_eq!(results(text), (5, 2));
    }

    #[test]
    fn a_step_that_fails_is_counted() {
        let mut steps = Steps::new();
        steps.check("good", || Ok(()));
        assert!(steps.summary());
        steps.check("bad", || anyhow::bail!("on purpose"));
        steps.program("worse", Command::new("sh").args(["-c", "exit 2"]));
        steps.tests("no tests at all", Command::new("sh").args(["-c", "true"]));
        assert!(!steps.summary());
        assert_eq!(steps.rows.iter().map(|row| row.failed).collect::<Vec<_>>(), [0, 1, 1, 1]);
    }
}
