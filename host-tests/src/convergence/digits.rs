//! The digits of `models/digits`, seen by a camera that was mounted sideways, and read by a perceptron.

use super::run::{Run, Settings, Task, batches, mean};
use crate::fixture::{Desk, Fixture, Sample, pairs_of};
use crate::oracle::{self, Mlp, Pair, Scalar};
use ranklet::fixed::hash::Seed;
use ranklet::model::Train;
use ranklet::train::{Learner, Optimizer, Trainer};
use ranklet_cli::base::Base;
use ranklet_cli::quantize::WeightType;
use std::path::Path;

/// A base and the data to adapt it with.
#[derive(Debug)]
pub struct Digits {
    /// The base, with `i8` weights.
    pub fixture: Fixture,
    /// To be trained on.
    pub train: Vec<Sample>,
    /// Not to be trained on.
    pub held_out: Vec<Sample>,
}

/// Side of an image.
const SIDE: usize = 8;
/// `digits.bin`: header, then records of pixels and a label; see `models/digits/README.md`.
const HEADER: usize = 16;
const RECORD: usize = SIDE * SIDE + 1;

impl Digits {
    /// The digits, turned by 90°: the device part to be trained on, the test part held out.
    ///
    /// # Panics
    /// Where the files of `models/digits` are missing or of another layout.
    #[must_use]
    pub fn turned() -> Digits {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits/base");
        let base = Base::open(&base).expect("models/digits/base");
        let [train, held_out] = images();
        Digits { fixture: Fixture::new(base, WeightType::I8), train, held_out }
    }
}

/// The turned digits: the device part to be trained on, the test part held out.
///
/// # Panics
/// Where `models/digits/digits.bin` is missing or of another layout.
#[must_use]
pub fn images() -> [Vec<Sample>; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits/digits.bin");
    let data = std::fs::read(path).expect("models/digits/digits.bin");
    assert_eq!(data[..8], *b"RKDG\x01\x00\x41\x00", "digits.bin: another layout");
    let count = |at: usize| usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
    let (upright, device, test) = (count(8), count(10), count(12));
    let mut records = data[HEADER..].chunks_exact(RECORD).map(turned).skip(upright);
    let train: Vec<Sample> = records.by_ref().take(device).collect();
    let held_out: Vec<Sample> = records.take(test).collect();
    assert_eq!((train.len(), held_out.len()), (device, test), "digits.bin: truncated");
    [train, held_out]
}

/// A quarter turn clockwise.
fn turned(record: &[u8]) -> Sample {
    let pixel = |i: usize| record[(SIDE - 1 - i % SIDE) * SIDE + i / SIDE];
    let raw = (0..SIDE * SIDE).map(|i| i16::from(pixel(i))).collect();
    Sample { raw, exponent: 0, class: usize::from(record[SIDE * SIDE]) }
}

impl Digits {
    /// Loss and accuracy over the training and the held-out samples, in the order of [`METRICS`].
    fn finals(&self, mut logits: impl FnMut(&Sample) -> Vec<f64>) -> [f64; 4] {
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
        let ([lt, at], [lh, ah]) = (over(&self.train), over(&self.held_out));
        [lt, lh, at, ah]
    }
}

impl Task for Digits {
    fn fixed(&self, s: &Settings, seed: u32) -> (Run, Vec<Pair<f64>>) {
        let model = self.fixture.model();
        let room = if s.rule.moments() == 2 { Train::adamw() } else { Train::momentum() };
        let mut desk = Desk::new(&model, Some(room.rank(s.rank).alpha(s.alpha)));
        let (mut scratch, learn) = desk.split();
        let mut learner = learn.fresh(&model, Seed(seed)).expect("planned for it");
        let pairs = |l: &Learner<'_>| pairs_of(l.records(), l.high(), l.low());
        let start = pairs(&learner);
        let mut losses = Vec::new();
        let batches = batches(self.train.len(), s, seed);
        let t = Trainer::new(&model, &mut learner, s.rule).expect("a trainer");
        let mut t = t.accumulate(s.batch as u32).seed(Seed(seed));
        for batch in batches {
            let step = batch.iter().map(|&i| {
                let x = &self.train[i];
                t.sample(x.input(), x.target(), &mut scratch).expect("a sample");
                t.step(&mut scratch).expect("its units").to_f64()
            });
            losses.push(mean(&step.collect::<Vec<f64>>()));
        }
        let finals = self.finals(|x| {
            let y = model.infer(&mut scratch, x.input(), &[learner.view()]).expect("inference");
            y.mantissas.iter().map(|&m| f64::from(m) * crate::fixture::base::power(y.exponent.get())).collect()
        });
        (Run { losses, finals, read: finals }, start)
    }

    fn float<T: Scalar>(&self, s: &Settings, seed: u32, start: &[Pair<f64>]) -> Run {
        let net: Mlp<T> = self.fixture.dequantized().convert();
        let inputs: Vec<Vec<T>> = self.train.iter().map(Sample::values).collect();
        let mut t = oracle::Trainer::new(net, start.iter().map(Pair::convert).collect(), s.rule.into());
        t.accumulate = s.batch;
        let mut losses = Vec::new();
        for batch in batches(self.train.len(), s, seed) {
            let step = batch.iter().map(|&i| t.sample(&inputs[i], &oracle::Target::Class(self.train[i].class)).wide());
            losses.push(mean(&step.collect::<Vec<f64>>()));
        }
        let finals = self.finals(|x| t.net.run(&x.values(), &t.pairs).iter().map(|y| y.wide()).collect());
        Run { losses, finals, read: finals }
    }
}
