//! Training on the host, with the device's own arithmetic: the same bits as a device that sees the same samples in
//! the same order.
//!
//! | file | what it does |
//! |---|---|
//! | [`run`] | epochs, batches, steps, and a look at other data |
//! | [`material`] | samples, one at a time |
//! | [`gradient`] | gradients and no step |
//! | here | how to train, and what training starts from |

pub mod gradient;
pub mod material;
pub mod run;

pub use gradient::{Gradients, gradients, sequence_gradients};
pub use run::{Best, Checks, Event, Trained, train};

use crate::image::ImageFile;
use crate::image::adapter::Parts;
use crate::infer::SLACK;
use anyhow::Result;
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::image::MAX_RANK;
use ranklet::memory::Workspace;
use ranklet::model::{Model, Plan, Roles, Train};
use ranklet::train::{Learner, LossKind, Rule, Schedule};
use serde_json::Map;
use std::path::Path;

/// How to train.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// The rule.
    pub optimizer: Rule,
    /// The learning rate over time.
    pub schedule: Schedule,
    /// Samples a step.
    pub batch: u32,
    /// Optimizer steps.
    pub steps: u32,
    /// Stop after so many of them, for now.
    pub stop: u32,
    /// Norm that gradients are clipped to.
    pub clip: Option<Real>,
    /// Of the adapters' inputs.
    pub dropout: Real,
    /// Fixes everything random.
    pub seed: Seed,
    /// What is minimised.
    pub loss: LossKind,
    /// Whether B alone learns.
    pub only_b: bool,
    /// Whether each epoch has an order of its own, drawn from the seed; otherwise the file's.
    pub shuffle: bool,
}

/// One optimizer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepLog {
    /// 1 for the first.
    pub step: u32,
    /// Passes over the data that had been finished before.
    pub epoch: u32,
    /// Its samples.
    pub samples: u32,
    /// Mean of their losses, before the step.
    pub loss: f64,
    /// The learning rate it used.
    pub lr: f64,
}

/// A fresh adapter on some sites: A random by (seed, site), B zero.
///
/// # Errors
/// Where the base is beyond what training can hold.
pub fn fresh(model: &Model<'_>, rank: u16, scaling: f64, sites: &[u16], seed: Seed) -> Result<Parts> {
    let train = Train::sgd().rank(rank).scaling(Real::from_f64(scaling)).on(Roles::ALL);
    let plan = Plan::new(model.bytes())?;
    // The shortest text: here nothing is trained yet.
    let plan = if model.spec().transformer().is_some() { plan.tokens(1).source(1) } else { plan }.train(train);
    let mut memory = vec![0; plan.bytes() + SLACK];
    let (_, learn) = Workspace::new(&mut memory).split(&plan)?;
    let learner = learn.fresh(model, seed)?;
    let mut parts = Parts { records: Vec::new(), high: Vec::new(), low: Vec::new() };
    for r in learner.records().iter().filter(|r| sites.contains(&r.site)) {
        let mut moved = *r;
        moved.a_offset = parts.high.len() as u32;
        parts.high.extend(r.a_of(learner.high()));
        parts.low.extend(r.a_of(learner.low()));
        moved.b_offset = parts.high.len() as u32;
        parts.high.extend(r.b_of(learner.high()));
        parts.low.extend(r.b_of(learner.low()));
        parts.records.push(moved);
    }
    Ok(parts)
}

/// Steps in one pass over the data: the last one takes what is left.
#[must_use]
pub fn steps_per_epoch(rows: usize, batch: u32) -> u32 {
    rows.div_ceil(batch.max(1) as usize).try_into().unwrap_or(u32::MAX)
}

/// What training begins with.
#[derive(Clone, Copy, Debug)]
pub enum Start<'s> {
    /// An adapter; the optimizer starts anew.
    Adapter(&'s Parts),
    /// A checkpoint: everything goes on.
    Checkpoint(&'s [u8]),
}

/// Calls `work` with a learner that goes on from `start`, and returns what has become of it.
fn with_learner<'m, T>(
    model: &Model<'m>,
    start: Start<'_>,
    train: Train,
    sized: impl FnOnce(Plan<'m>) -> Plan<'m>,
    work: impl FnOnce(&mut Learner<'_>, &mut ranklet::model::Scratch<'_>) -> Result<T>,
) -> Result<(T, Parts)> {
    let rank = match start {
        Start::Adapter(start) => start.records.iter().map(|r| r.rank).max().unwrap_or(1),
        Start::Checkpoint(_) => MAX_RANK as u16,
    };
    let plan = sized(Plan::new(model.bytes())?.train(train.rank(rank).on(Roles::ALL)));
    let mut memory = vec![0; plan.bytes() + SLACK];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan)?;
    let mut learner = match start {
        Start::Adapter(start) => {
            let bytes = start.emit(model.source(), model.head().image, &Map::new())?;
            let image = ImageFile::of(Path::new("the adapter to start from"), &bytes);
            learn.resume(model, &image.adapter(model)?)?
        }
        Start::Checkpoint(bytes) => learn.restore(model, bytes)?,
    };
    let result = work(&mut learner, &mut scratch)?;
    let (records, high, low) = (learner.records().to_vec(), learner.high().to_vec(), learner.low().to_vec());
    Ok((result, Parts { records, high, low }))
}
