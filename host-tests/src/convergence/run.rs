//! One training, from the same start and over the same data, in fixed point or in floats.

use super::task::Task;
use crate::draw::Draw;
use crate::fixture::{Desk, Sample, pairs_of};
use crate::oracle::{self, Mlp, Pair, Scalar};
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::train::{Learner, Optimizer, Rule, Trainer};

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
    /// Of A and B, on every layer.
    pub rank: u16,
    /// alpha.
    pub alpha: u16,
    /// Samples a step.
    pub batch: usize,
    /// Steps in all.
    pub steps: usize,
}

/// What a training came to.
#[derive(Clone, Debug)]
pub struct Run {
    /// The mean loss of every step's batch, before the step.
    pub losses: Vec<f64>,
    /// Figures at the end, in the order of [`METRICS`].
    pub finals: [f64; 4],
}

/// What is measured at the end.
pub const METRICS: [&str; 4] = ["training loss", "held-out loss", "training accuracy", "held-out accuracy"];

/// The indices of every step's samples: one random order after the other, by the seed.
fn batches(task: &Task, s: &Settings, seed: u32) -> Vec<Vec<usize>> {
    let mut d = Draw::new(1000 + u64::from(seed));
    let mut order = Vec::new();
    while order.len() < s.steps * s.batch {
        order.extend(d.order(task.train.len()));
    }
    order.chunks_exact(s.batch).take(s.steps).map(<[usize]>::to_vec).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Loss and accuracy over the training and the held-out samples, in the order of [`METRICS`].
fn finals(task: &Task, mut logits: impl FnMut(&Sample) -> Vec<f64>) -> [f64; 4] {
    let mut over = |samples: &[Sample]| {
        let (mut loss, mut right) = (0.0, 0.0);
        for s in samples {
            let y = logits(s);
            loss += oracle::loss(&y, &oracle::Target::Class(s.class)).0;
            let best = (0..y.len()).fold(0, |b, i| if y[i] > y[b] { i } else { b });
            right += f64::from(u8::from(best == s.class));
        }
        let n = samples.len() as f64;
        [loss / n, right / n]
    };
    let ([lt, at], [lh, ah]) = (over(&task.train), over(&task.held_out));
    [lt, lh, at, ah]
}

/// Trains in fixed point; also the pairs it started from, exactly.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn fixed(task: &Task, s: &Settings, seed: u32) -> (Run, Vec<Pair<f64>>) {
    let model = task.fixture.model();
    let room = if s.rule.moments() == 2 { Train::adamw() } else { Train::momentum() };
    let mut desk = Desk::new(&model, Some(room.rank(s.rank).alpha(s.alpha)));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(&model, Seed(seed)).expect("planned for it");
    let pairs = |l: &Learner<'_>| pairs_of(l.records(), l.high(), l.low());
    let start = pairs(&learner);
    let mut losses = Vec::new();
    let batches = batches(task, s, seed);
    let t = Trainer::new(&model, &mut learner, s.rule).expect("a trainer");
    let mut t = t.accumulate(s.batch as u32).seed(Seed(seed));
    for batch in batches {
        let step = batch.iter().map(|&i| {
            let x = &task.train[i];
            t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
            t.step(&mut scratch).expect("its units").to_f64()
        });
        losses.push(mean(&step.collect::<Vec<f64>>()));
    }
    let finals = finals(task, |x| {
        let y = model.infer(&mut scratch, x.input(), &[learner.view()]).expect("inference");
        y.mantissas.iter().map(|&m| f64::from(m) * crate::fixture::base::power(y.exponent.get())).collect()
    });
    (Run { losses, finals }, start)
}

/// Trains in floats of type `T`, from the same start.
#[must_use]
pub fn float<T: Scalar>(task: &Task, s: &Settings, seed: u32, start: &[Pair<f64>]) -> Run {
    let net: Mlp<T> = task.fixture.dequantized().convert();
    let inputs: Vec<Vec<T>> = task.train.iter().map(Sample::values).collect();
    let mut t = oracle::Trainer::new(net, start.iter().map(Pair::convert).collect(), s.rule.into());
    t.accumulate = s.batch;
    let mut losses = Vec::new();
    for batch in batches(task, s, seed) {
        let step = batch.iter().map(|&i| t.sample(&inputs[i], &oracle::Target::Class(task.train[i].class)).wide());
        losses.push(mean(&step.collect::<Vec<f64>>()));
    }
    let finals = finals(task, |x| t.net.run(&x.values(), &t.pairs).iter().map(|y| y.wide()).collect());
    Run { losses, finals }
}

/// The start with every value of A off by up to `by`. B stays 0: that is what makes it a fresh adapter.
#[must_use]
pub fn perturbed(start: &[Pair<f64>], by: f64, d: &mut Draw) -> Vec<Pair<f64>> {
    let mut start = start.to_vec();
    start.iter_mut().flat_map(|p| &mut p.a).for_each(|v| *v += by * d.uniform());
    start
}
