//! What training promises: from B = 0, by the seed alone, bit for bit; and beside the float oracle.

mod adapters;
mod long;
mod optimizers;
mod refusals;
mod start;
mod steps;
mod units;

use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::{Model, Train};
use ranklet::train::{AdamW, Learner, Optimizer, Schedule, Sgd, Trainer};
use ranklet_cli::quantize::WeightType;
use ranklet_host_tests::draw::Draw;
use ranklet_host_tests::fixture::{Desk, Fixture, Sample, pairs_of};
use ranklet_host_tests::oracle::{self, Pair};

fn fixture() -> Fixture {
    Fixture::random(&[12, 20, 4], WeightType::I8, 81)
}

fn data(n: usize, seed: u64) -> Vec<Sample> {
    let mut d = Draw::new(seed);
    (0..n).map(|_| Sample::random(12, 4, &mut d)).collect()
}

/// Everything that a learner has learned, to be compared bit for bit.
fn state(l: &Learner<'_>) -> (Vec<ranklet::image::LoraRecord>, Vec<i16>, Vec<i16>) {
    (l.records().to_vec(), l.high().to_vec(), l.low().to_vec())
}

fn pairs(l: &Learner<'_>) -> Vec<Pair<f64>> {
    pairs_of(l.records(), l.high(), l.low())
}

fn parameters(pairs: &[Pair<f64>]) -> Vec<f64> {
    pairs.iter().flat_map(|p| p.a.iter().chain(&p.b).copied()).collect()
}

/// How a training is set up, for both sides.
#[derive(Clone, Copy)]
struct How {
    rank: u16,
    accumulate: u32,
    clip: Option<f64>,
    schedule: (Schedule, oracle::Schedule),
    dropout: f64,
    seed: u32,
}

const PLAIN: How = How {
    rank: 4,
    accumulate: 1,
    clip: None,
    schedule: (Schedule::Constant, oracle::Schedule::Constant),
    dropout: 0.0,
    seed: 3,
};

const ADAMW: AdamW = AdamW { lr: Real::ratio(1, 500), ..AdamW::DEFAULT };

const SGD: Sgd = Sgd { lr: Real::ratio(1, 200), ..Sgd::DEFAULT };

/// Trains on `samples`; hands the learner and the losses to `then`.
fn train<O: Optimizer, R>(
    model: &Model<'_>,
    optimizer: O,
    how: How,
    samples: &[Sample],
    then: impl FnOnce(&mut Learner<'_>, Vec<f64>) -> R,
) -> R {
    let mut desk = Desk::new(model, Some(Train::adamw().rank(how.rank).alpha(8).dropout()));
    let (mut scratch, learn) = desk.split();
    let mut learner = learn.fresh(model, Seed(how.seed)).expect("planned for it");
    let mut t = Trainer::new(model, &mut learner, optimizer).expect("planned for it");
    t = t.accumulate(how.accumulate).schedule(how.schedule.0).seed(Seed(how.seed));
    t = t.clip(how.clip.map_or(Real::ZERO, Real::from_f64));
    t = t.dropout(Real::from_f64(how.dropout)).expect("planned for it");
    let losses = samples.iter().map(|x| {
        t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
        t.step(&mut scratch).expect("its units").to_f64()
    });
    let losses = losses.collect();
    then(&mut learner, losses)
}

/// The same by the oracle, from the same start.
fn by_oracle(fixture: &Fixture, optimizer: oracle::Optimizer, how: How, samples: &[Sample]) -> Vec<f64> {
    let start = train(&fixture.model(), SGD, how, &[], |l, _| pairs(l));
    let mut t = oracle::Trainer::new(fixture.dequantized(), start, optimizer);
    (t.accumulate, t.clip, t.schedule) = (how.accumulate as usize, how.clip, how.schedule.1);
    t.dropout = (how.dropout > 0.0).then_some((how.dropout, Seed(how.seed)));
    for x in samples {
        t.sample(&x.values(), &oracle::Target::Class(x.class));
    }
    parameters(&t.pairs)
}

/// One sample's gradients, as the learner holds them: A and B of every record, in floats.
fn gradients(l: &Learner<'_>) -> Vec<f64> {
    let wide = |(g, e): (&[i32], i32)| -> Vec<f64> {
        g.iter().map(|&g| if g == 0 { 0.0 } else { f64::from(g) * f64::from(e).exp2() }).collect()
    };
    (0..l.records().len()).flat_map(|i| l.gradient(i).expect("a record").into_iter().flat_map(wide)).collect()
}
