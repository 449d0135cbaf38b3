//! The goals that have been set, and where the figures stand.

use super::row::{Row, find};
use crate::table::{Table, thousands};

/// What is compared with a goal.
enum Measure {
    /// Instructions a unit of an operation.
    Each(&'static str),
    /// Percent that the second operation takes more than the first.
    More(&'static str, &'static str),
}

struct Goal {
    what: &'static str,
    board: &'static str,
    leaf: &'static str,
    measure: Measure,
    shape: &'static str,
    limit: f64,
    /// What others need on that core: CMSIS-NN with 8-bit and with 16-bit activations, or who is named.
    others: &'static str,
}

const GEMV: &str = "gemv-w8a16-requant";
const LORA: &str = "gemv-w8a16-requant+lora8";
const BATCH: &str = "batch-w8a16-requant";
const TOKEN: &str = "story-token";
const PROMPT: &str = "story-prompt";
const STEP: &str = "story-step";

const M4: (&str, &str) = ("mps2-an386", "arm-dsp");
const M55: (&str, &str) = ("mps3-an547", "generic");
const M3: (&str, &str) = ("mps2-an385", "generic");
const M0: (&str, &str) = ("microbit", "generic");
const RV32: (&str, &str) = ("rv32-virt", "generic");

const fn goal(
    what: &'static str,
    (board, leaf): (&'static str, &'static str),
    measure: Measure,
    shape: &'static str,
    limit: f64,
    others: &'static str,
) -> Goal {
    Goal { what, board, leaf, measure, shape, limit, others }
}

const GOALS: [Goal; 20] = [
    goal("gemv W8A16, per MAC", M4, Measure::Each(GEMV), "512x512", 1.40, "1.97 / 2.48"),
    goal("gemv W8A16, per MAC", M4, Measure::Each(GEMV), "64x64", 1.75, "2.68 / 3.26"),
    goal("32 tokens, W8A16, per MAC", M4, Measure::Each(BATCH), "32x64x64", 1.20, "2.17 / none"),
    goal("LoRA r = 8, more instructions", M4, Measure::More(GEMV, LORA), "512x512", 5.0, ""),
    goal("gemv W8A16, per MAC", M55, Measure::Each(GEMV), "512x512", 0.30, "0.49 / 0.88"),
    goal("gemv W8A16, per MAC", M55, Measure::Each(GEMV), "64x64", 0.50, "0.70 / 1.58"),
    goal("32 tokens, W8A16, per MAC", M55, Measure::Each(BATCH), "32x64x64", 0.35, "0.39 / 0.82"),
    goal("gemv W8A16, per MAC", M3, Measure::Each(GEMV), "512x512", 3.0, "3.42 / 5.10"),
    goal("gemv W8A16, per MAC", RV32, Measure::Each(GEMV), "512x512", 3.6, ""),
    goal("gemv W8A16, per MAC (goal: 512x512)", M0, Measure::Each(GEMV), "512x128", 5.0, ""),
    goal("story, a token at position 0", M4, Measure::Each(TOKEN), "position-0", 600_000.0, "llama2.c, f32: 1.43 M"),
    goal("story, a token at position 39", M4, Measure::Each(TOKEN), "position-39", 750_000.0, "llama2.c, f32: 1.76 M"),
    goal("story, a prompt of 32 tokens", M4, Measure::Each(PROMPT), "32", 15_000_000.0, ""),
    goal("story, a step of training, 32 tokens", M4, Measure::Each(STEP), "32", 50_000_000.0, ""),
    goal(
        "story, a token at position 39",
        M3,
        Measure::Each(TOKEN),
        "position-39",
        1_300_000.0,
        "llama2.c, f32: 30.0 M",
    ),
    goal("softmax terms, per element", M4, Measure::Each("softmax-terms"), "64", 45.0, "405"),
    goal("softmax terms, per element", M55, Measure::Each("softmax-terms"), "64", 45.0, "430"),
    goal("softmax terms, per element", M3, Measure::Each("softmax-terms"), "64", 45.0, "402"),
    goal("softmax terms, per element", RV32, Measure::Each("softmax-terms"), "64", 45.0, ""),
    goal("softmax terms, per element", M0, Measure::Each("softmax-terms"), "64", 45.0, ""),
];

impl Goal {
    /// The figure as it is, if there are rows for it.
    fn now(&self, rows: &[Row]) -> Option<f64> {
        let row = |op| find(rows, self.board, self.leaf, op, self.shape);
        match self.measure {
            Measure::Each(op) => row(op).map(Row::each),
            Measure::More(base, with) => {
                let (base, with) = (row(base)?.instructions as f64, row(with)?.instructions as f64);
                Some(100.0 * (with / base - 1.0))
            }
        }
    }

    fn cells(&self, rows: &[Row]) -> Vec<String> {
        let text = |value: f64| match self.measure {
            Measure::Each(_) if value >= 1000.0 => thousands(value.round() as u64),
            Measure::Each(_) => format!("{value:.2}"),
            Measure::More(..) => format!("{value:.1} %"),
        };
        let now = self.now(rows);
        let state = match now {
            None => "not measured".to_owned(),
            Some(now) if now <= self.limit => "met".to_owned(),
            Some(now) => format!("{:.2} x the goal", now / self.limit),
        };
        vec![
            self.what.to_owned(),
            self.board.to_owned(),
            self.leaf.to_owned(),
            self.shape.to_owned(),
            text(self.limit),
            now.map_or_else(|| "-".to_owned(), text),
            state,
            self.others.to_owned(),
        ]
    }
}

/// All goals.
pub(super) fn table(rows: &[Row]) -> Table {
    Table::new(&HEADS, GOALS.iter().map(|goal| goal.cells(rows)).collect())
}

/// Those that there are rows for.
pub(crate) fn measured(rows: &[Row]) -> Table {
    Table::new(&HEADS, GOALS.iter().filter(|goal| goal.now(rows).is_some()).map(|goal| goal.cells(rows)).collect())
}

const HEADS: [&str; 8] = ["what", "board", "leaf", "shape", "goal", "now", "state", "CMSIS-NN (s8 / s16), or others"];

#[cfg(test)]
mod tests {
    use super::*;

    fn row(op: &str, instructions: u64) -> Row {
        let text = str::to_owned;
        Row {
            board: text("mps2-an386"),
            leaf: text("arm-dsp"),
            op: text(op),
            shape: text("512x512"),
            instructions,
            count: 262_144,
            unit: text("MAC"),
        }
    }

    #[test]
    fn figures_are_held_against_their_goals() {
        let rows = [row(GEMV, 360_000), row(LORA, 381_600)];
        let text = table(&rows).text();
        let line = |what: &str| text.lines().find(|line| line.contains(what)).expect(what).to_owned();
        assert!(line("1.40").contains("met"), "{text}");
        assert!(line("LoRA").contains("6.0 %") && line("LoRA").contains("1.20 x the goal"), "{text}");
        assert!(line("32 tokens").contains("not measured"), "{text}");
    }
}
