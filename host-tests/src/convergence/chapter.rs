//! The chapters of the study.

use super::digits::Digits;
use super::run::{Settings, Task};
use super::sequences::Sequences;
use super::study::{Outcome, rules, settings};
use ranklet::q;

/// One task, trained with every optimizer.
#[derive(Debug)]
pub struct Chapter {
    /// On the command line.
    pub name: &'static str,
    /// In the document.
    pub title: &'static str,
    /// What is learned, in a sentence or two.
    pub about: &'static str,
    /// Float trainings beside `f32` and `f64`, each from a start that is off.
    pub perturbed: u64,
    /// One an optimizer.
    pub outcomes: Vec<Outcome>,
}

/// All of them.
pub const NAMES: [&str; 3] = ["digits", "rows", "style"];

impl Chapter {
    /// Trains; `None` for a name that is none of [`NAMES`].
    #[must_use]
    pub fn new(name: &str) -> Option<Chapter> {
        Some(match name {
            // 40 float trainings: fixed point, just one more, would be the least or the largest with 5 %, a rank test.
            "digits" => Chapter::of(
                &Digits::turned(),
                settings(),
                "digits",
                "A perceptron reads digits",
                "The digits of `models/digits`, turned by 90°: 400 to train on, 397 held out. Base with `i8` weights; pairs on every layer.",
                38,
            ),
            "rows" => Chapter::of(
                &Sequences::rows(),
                rows(),
                "rows",
                "A transformer reads their rows",
                "The same digits, row by row, as sequences of 8: `models/rows`, an encoder of two blocks. Base with `i8` weights; pairs on every \
                 linear layer.",
                38,
            ),
            // Each takes seconds; 20 make 9.5 %.
            "style" => Chapter::of(
                &Sequences::style(32),
                style(),
                "style",
                "A language model takes on a style",
                "The Llama of `models/story`, which has read the Bible, and two chapters of Jane Austen (`models/story/style`): 237 sequences of \
                 32 tokens to train on, 63 held out. Base with `i8` weights; pairs on queries and values.",
                18,
            ),
            _ => return None,
        })
    }

    fn of<K: Task>(
        task: &K,
        settings: [Settings; 2],
        name: &'static str,
        title: &'static str,
        about: &'static str,
        perturbed: u64,
    ) -> Chapter {
        let outcomes = settings.into_iter().map(|s| Outcome::new(task, s, perturbed)).collect();
        Chapter { name, title, about, perturbed, outcomes }
    }

    /// The file of its picture, beside the document.
    #[must_use]
    pub fn picture(&self) -> String {
        format!("convergence-{}.svg", self.name)
    }
}

/// The rows' trainings.
#[must_use]
pub fn rows() -> [Settings; 2] {
    rules(q!(1e-3), q!(1e-3)).map(|rule| Settings { rule, rank: 8, alpha: 16, batch: 32, steps: 400, claim: 0.005 })
}

/// The style's.
#[must_use]
pub fn style() -> [Settings; 2] {
    rules(q!(5e-2), q!(2e-3)).map(|rule| Settings { rule, rank: 4, alpha: 8, batch: 8, steps: 256, claim: 0.005 })
}
