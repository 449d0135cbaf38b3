//! What a training came by: losses by step, and looks at other data; as CSV, as JSON, as a line of blocks, as a picture.

use crate::chart::{Chart, Line, picture};
use crate::lessons::Score;
use crate::training::{Event, StepLog};
use serde_json::{Value, json};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Steps.
    pub steps: Vec<StepLog>,
    /// Looks at other data: after which step, and what was found.
    pub checks: Vec<(u32, Score)>,
}

impl Journal {
    /// Takes down what was told.
    pub fn push(&mut self, event: Event) {
        match event {
            Event::Step(step) => self.steps.push(step),
            Event::Check(step, score) => self.checks.push((step, score)),
        }
    }

    /// The mean loss of the first and of the last tenth.
    #[must_use]
    pub fn ends(&self) -> (f64, f64) {
        let n = self.steps.len().div_ceil(10);
        let mean = |part: &[StepLog]| part.iter().map(|s| s.loss).sum::<f64>() / part.len().max(1) as f64;
        (mean(&self.steps[..n]), mean(&self.steps[self.steps.len() - n..]))
    }

    /// The look with the least loss.
    #[must_use]
    pub fn best(&self) -> Option<(u32, Score)> {
        self.checks.iter().copied().min_by(|a, b| a.1.loss.total_cmp(&b.1.loss))
    }

    /// The losses in at most 40 steps of eight heights.
    #[must_use]
    pub fn sparkline(&self) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let means: Vec<f64> = self
            .steps
            .chunks(self.steps.len().div_ceil(40).max(1))
            .map(|c| c.iter().map(|s| s.loss).sum::<f64>() / c.len() as f64)
            .collect();
        let top = means.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        means.iter().map(|m| BARS[((m / top * 7.99).max(0.0) as usize).min(7)]).collect()
    }

    /// A line a step; the last two columns where other data were looked at behind it.
    #[must_use]
    pub fn csv(&self) -> String {
        let checked = !self.checks.is_empty();
        let mut out =
            "step,epoch,samples,loss,lr".to_owned() + if checked { ",eval_loss,eval_accuracy\n" } else { "\n" };
        let mut checks = self.checks.iter().peekable();
        for s in &self.steps {
            out += &format!("{},{},{},{},{}", s.step, s.epoch, s.samples, s.loss, s.lr);
            if checked {
                match checks.next_if(|(step, _)| *step == s.step) {
                    Some((_, score)) => {
                        out += &format!(",{},{}", score.loss, accuracy(score).map_or(String::new(), |a| a.to_string()))
                    }
                    None => out += ",,",
                }
            }
            out.push('\n');
        }
        out
    }

    /// The same, and the recipe.
    #[must_use]
    pub fn json(&self, recipe: &Value) -> String {
        let step =
            |s: &StepLog| json!({"step": s.step, "epoch": s.epoch, "samples": s.samples, "loss": s.loss, "lr": s.lr});
        let check = |(step, s): &(u32, Score)| json!({"step": step, "loss": s.loss, "accuracy": accuracy(s)});
        let steps: Vec<Value> = self.steps.iter().map(step).collect();
        let checks: Vec<Value> = self.checks.iter().map(check).collect();
        json!({"recipe": recipe, "steps": steps, "evaluations": checks}).to_string() + "\n"
    }

    /// The curves: every step's loss, its moving mean, and what was found in other data.
    #[must_use]
    pub fn svg(&self, title: &str) -> String {
        let each: Vec<f64> = self.steps.iter().map(|s| s.loss).collect();
        let mut mean = None;
        let smooth: Vec<f64> =
            each.iter().map(|&l| *mean.insert(mean.map_or(l, |m: f64| 0.95 * m + 0.05 * l))).collect();
        let mut lines =
            vec![Line::of("loss of a step", &each, "#c8d4e4"), Line::of("its moving mean", &smooth, "#104080")];
        if !self.checks.is_empty() {
            let points = self.checks.iter().map(|(step, s)| (f64::from(*step), s.loss)).collect();
            lines.push(Line { name: "loss on --eval".to_owned(), points, color: "#c03030" });
        }
        picture(&[Chart { title: title.to_owned(), across: "step", lines }])
    }
}

/// Right answers in percent.
#[must_use]
pub fn accuracy(score: &Score) -> Option<f64> {
    score.right.map(|right| 100.0 * right as f64 / score.answers.max(1) as f64)
}
