//! How much rank a turned camera needs: a small transformer reads the rows of digits.

use super::Report;
use super::train::{Recipe, fixed, float, held_out, measure_float};
use crate::convergence::sequences::Sequences;
use crate::oracle::{Optimizer, SequenceTrainer};
use ranklet_cli::chart::{Chart, Line, picture};
use std::fmt::Write;

const RECIPE: Recipe = Recipe { rank: 8, alpha: 16, lr: 1e-3, dropout: 0.0, batch: 8, epochs: 24, seed: 1 };
/// Seeds that a figure is the mean of.
const SEEDS: u32 = 3;
/// Ranks; alpha is twice the rank.
const RANKS: [(u16, &str); 3] = [(4, "#c03030"), (8, "#104080"), (16, "#208040")];

/// Runs it.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn run() -> Report {
    let task = Sequences::rows();
    let mut markdown = String::from(
        "| what learns | trainable | RAM | held out: loss | right | the same in f32: loss | right |\n|---|---|---|---|---|---|---|\n",
    );
    let (loss, right) = held_out(&task, None);
    let _ = writeln!(markdown, "| nothing | 0 | | {loss:.4} | {:.1} % | | |", 100.0 * right);
    let adam = Optimizer::AdamW { lr: RECIPE.lr, beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
    let mut lines = vec![];
    let mean = |all: &[(f64, f64)]| {
        let n = all.len() as f64;
        (all.iter().map(|a| a.0).sum::<f64>() / n, 100.0 * all.iter().map(|a| a.1).sum::<f64>() / n)
    };
    for (rank, color) in RANKS {
        let (mut ours, mut floats, mut size) = (vec![], vec![], (0, 0));
        for seed in 1..=SEEDS {
            let recipe = Recipe { rank, alpha: 2 * rank, seed, ..RECIPE };
            let learned = fixed(&task, &recipe);
            ours.push(held_out(&task, Some(&learned.parts)));
            let mut lora = SequenceTrainer::<f32>::adapters(task.reference.convert(), &learned.start, adam);
            float(&mut lora, &task, &recipe);
            floats.push(measure_float(&task, &lora));
            size = (learned.parameters, learned.bytes);
            if seed == 1 {
                lines.push(Line::of(format!("rank {rank}, fixed point"), &learned.epochs, color));
            }
        }
        let ((parameters, bytes), (loss, right), (loss32, right32)) = (size, mean(&ours), mean(&floats));
        let _ = writeln!(
            markdown,
            "| pairs of rank {rank} | {parameters} | {bytes} | {loss:.4} | {right:.1} % | {loss32:.4} | {right32:.1} % |"
        );
    }
    let mut full = SequenceTrainer::<f32>::whole(task.reference.convert(), adam);
    let values = float(&mut full, &task, &RECIPE);
    let (loss, right) = measure_float(&task, &full);
    let parameters = full.parameters();
    let _ = writeln!(markdown, "| everything | {parameters} | | | | {loss:.4} | {:.1} % |", 100.0 * right);
    lines.push(Line::of("everything, f32".to_owned(), &values, "#909090"));
    lines.rotate_right(1);
    let title = "training loss by epoch, turned digits".to_owned();
    Report { markdown, picture: picture(&[Chart { title, across: "epoch", lines }]) }
}
