//! One training, from the same start and over the same data, in fixed point or in floats.

use crate::draw::Draw;
use crate::oracle::{Pair, Scalar};
use ranklet::train::Rule;

/// What a rule is called in the report.
#[must_use]
pub const fn name(rule: &Rule) -> &'static str {
    match rule {
        Rule::Sgd(_) => "SGD",
        Rule::AdamW(_) => "AdamW",
    }
}

/// Hyper-parameters.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Optimizer.
    pub rule: Rule,
    /// Of A and B.
    pub rank: u16,
    /// alpha.
    pub alpha: u16,
    /// Samples a step.
    pub batch: usize,
    /// Steps in all.
    pub steps: usize,
    /// The largest relative difference from `f32` of one of the first losses that is claimed.
    pub claim: f64,
}

/// What a training came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The mean loss of every step's batch, before the step.
    pub losses: Vec<f64>,
    /// Figures at the end, in the order of [`METRICS`]; of transformers as floats read what was learned, so that they are the
    /// training's and not inference's.
    pub finals: [f64; 4],
    /// The same, as what trained reads it.
    pub read: [f64; 4],
}

/// What is measured at the end.
pub const METRICS: [&str; 4] = ["training loss", "held-out loss", "training accuracy", "held-out accuracy"];

/// What is learned, in both ways.
pub trait Task: Sync {
    /// Trains in fixed point; also the pairs it started from, exactly.
    fn fixed(&self, s: &Settings, seed: u32) -> (Run, Vec<Pair<f64>>);

    /// Trains in floats of type `T`, from the same start.
    fn float<T: Scalar>(&self, s: &Settings, seed: u32, start: &[Pair<f64>]) -> Run;
}

/// The indices of every step's samples, of `samples` there are: one random order after the other, by the seed.
pub(super) fn batches(samples: usize, s: &Settings, seed: u32) -> Vec<Vec<usize>> {
    let mut d = Draw::new(1000 + u64::from(seed));
    let mut order = Vec::new();
    while order.len() < s.steps * s.batch {
        order.extend(d.order(samples));
    }
    order.chunks_exact(s.batch).take(s.steps).map(<[usize]>::to_vec).collect()
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The start with every value of A off by up to `by`. B stays 0: that is what makes it a fresh adapter.
#[must_use]
pub fn perturbed(start: &[Pair<f64>], by: f64, d: &mut Draw) -> Vec<Pair<f64>> {
    let mut start = start.to_vec();
    start.iter_mut().flat_map(|p| &mut p.a).for_each(|v| *v += by * d.uniform());
    start
}
