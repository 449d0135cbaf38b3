//! Training that tells of every step: in fixed point, as a device does it, and in floats.

use crate::convergence::sequences::{Sequences, target};
use crate::draw::Draw;
use crate::fixture::pairs_of;
use crate::oracle::{Item, Pair, SequenceTrainer};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::model::{Plan, Train, Workspace};
use ranklet::train::{AdamW, Trainer};
use ranklet_cli::image::adapter::Parts;

/// How to train; AdamW without decay.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// Of A and B.
    pub rank: u16,
    /// alpha.
    pub alpha: u16,
    /// Learning rate.
    pub lr: f64,
    /// Of the adapters' inputs; in fixed point only.
    pub dropout: f64,
    /// Sequences a step.
    pub batch: usize,
    /// Passes over the data.
    pub epochs: usize,
    /// Of the initial values and of the order.
    pub seed: u32,
}

impl Recipe {
    fn optimizer(&self) -> AdamW {
        AdamW { lr: Real::from_f64(self.lr), ..AdamW::DEFAULT }
    }

    /// The order of every epoch.
    #[must_use]
    pub fn orders(&self, items: usize) -> Vec<Vec<usize>> {
        let mut draw = Draw::new(500 + u64::from(self.seed));
        (0..self.epochs).map(|_| draw.order(items)).collect()
    }
}

/// What was learned in fixed point.
#[derive(Debug)]
pub struct Learned {
    /// The mean loss of every epoch, before its steps.
    pub epochs: Vec<f64>,
    /// What it began with.
    pub start: Vec<Pair<f64>>,
    /// The adapter.
    pub parts: Parts,
    /// How many numbers learned.
    pub parameters: usize,
    /// The plan's bytes: everything that the training of this model needs.
    pub bytes: usize,
}

/// The memory plan.
///
/// # Panics
/// Never: the image is an open model's.
#[must_use]
pub fn plan<'t>(task: &'t Sequences, recipe: &Recipe) -> Plan<'t> {
    let tokens = task.train.iter().chain(&task.held_out).map(|item| item.batch.length).max().unwrap_or(1);
    let room = Train::adamw().rank(recipe.rank).alpha(recipe.alpha).on(task.on);
    let room = if recipe.dropout > 0.0 { room.dropout() } else { room };
    Plan::new(task.image.bytes()).expect("a plan").tokens(tokens).source(tokens).train(room)
}

/// Trains as a device does.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn fixed(task: &Sequences, recipe: &Recipe) -> Learned {
    let model = task.image.model().expect("a model");
    let t = model.spec().transformer().expect("a transformer");
    let plan = plan(task, recipe);
    let mut memory = vec![0; plan.bytes() + 15];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan).expect("planned");
    let mut learner = learn.fresh(&model, Seed(recipe.seed)).expect("planned for it");
    let start = pairs_of(learner.records(), learner.high(), learner.low());
    let trainer = Trainer::new(&model, &mut learner, recipe.optimizer()).expect("a trainer");
    let mut trainer = trainer.accumulate(recipe.batch as u32).seed(Seed(recipe.seed));
    if recipe.dropout > 0.0 {
        trainer = trainer.dropout(Real::from_f64(recipe.dropout)).expect("planned for it");
    }
    let mut epochs = vec![];
    for order in recipe.orders(task.train.len()) {
        let mut sum = 0.0;
        for &i in &order {
            let Item { batch, goal } = &task.train[i];
            let mut raw = vec![0; batch.length * model.spec().features];
            let sequence = batch.sequence(t, 0, &mut raw).expect("a sequence");
            let taken = if t.has_cross() {
                trainer.pair(sequence, batch.decoder(0), target(goal), &mut scratch)
            } else {
                trainer.sequence(sequence, target(goal), &mut scratch)
            };
            taken.expect("a sample");
            sum += trainer.step(&mut scratch).expect("its units").to_f64();
        }
        trainer.flush().expect("a step");
        trainer.step(&mut scratch).expect("its units");
        epochs.push(sum / order.len() as f64);
    }
    let (records, high, low) = (learner.records().to_vec(), learner.high().to_vec(), learner.low().to_vec());
    let parameters = records.iter().map(|r| r.a_len() + r.b_len()).sum();
    Learned { epochs, start, parts: Parts { records, high, low }, parameters, bytes: plan.bytes() }
}

/// Trains in `f32`; the mean loss of every epoch.
pub fn float(trainer: &mut SequenceTrainer<f32>, task: &Sequences, recipe: &Recipe) -> Vec<f64> {
    trainer.accumulate = recipe.batch;
    let epoch = |order: Vec<usize>| {
        let mean = order.iter().map(|&i| f64::from(trainer.item(&task.train[i]))).sum::<f64>() / order.len() as f64;
        trainer.flush();
        mean
    };
    recipe.orders(task.train.len()).into_iter().map(epoch).collect()
}

/// Of held-out items, with an adapter as the device reads it, or without: the mean loss, and the share of right answers.
///
/// # Panics
/// Where the core refuses.
#[must_use]
pub fn held_out(task: &Sequences, parts: Option<&Parts>) -> (f64, f64) {
    let model = task.image.model().expect("a model");
    let none = serde_json::Map::new();
    let bytes = parts.map(|p| p.emit(model.source(), model.head().image, &none).expect("an adapter"));
    let file = bytes.map(|b| ranklet_cli::image::ImageFile::of("learned".as_ref(), &b));
    let adapter = file.as_ref().map(|f| f.adapter(&model).expect("an adapter"));
    let active: Vec<_> = adapter.iter().map(|a| a.view()).collect();
    measure(task, |item| task.output(&model, &active, item))
}

/// The same by any outputs.
pub fn measure(task: &Sequences, mut output: impl FnMut(&Item) -> Vec<f64>) -> (f64, f64) {
    let (mut loss, mut given, mut right) = (0.0, 0, 0);
    for item in &task.held_out {
        let y = output(item);
        loss += item.loss(&y).0;
        let (g, r) = item.answers(&y);
        (given, right) = (given + g, right + r);
    }
    (loss / task.held_out.len() as f64, right as f64 / given as f64)
}

/// The same by a float network.
#[must_use]
pub fn measure_float(task: &Sequences, trainer: &SequenceTrainer<f32>) -> (f64, f64) {
    measure(task, |item| trainer.run(&item.batch).iter().map(|&y| f64::from(y)).collect())
}
