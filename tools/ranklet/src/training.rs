//! Training on the host, with the device's own arithmetic: the same bits as a device that sees the same samples in
//! the same order.

use crate::dataset::{Inputs, Targets};
use crate::image::ImageFile;
use crate::image::adapter::Parts;
use crate::infer::{SLACK, block, samples};
use crate::quantize::planes::value;
use crate::sequences::Batch;
use anyhow::{Context, Result, bail};
use ranklet::fixed::hash::{Purpose, Seed, Stream};
use ranklet::fixed::{Exp, Real};
use ranklet::image::LoraRecord;
use ranklet::layer::normalize::Input;
use ranklet::memory::Workspace;
use ranklet::model::spec::{Pool, Transformer};
use ranklet::model::{Model, Plan, Roles, Train};
use ranklet::train::{Learner, LossKind, Optimizer, Rule, Schedule, SequenceTarget, Sgd, Target, Trainer};
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
    /// Norm that gradients are clipped to.
    pub clip: Option<Real>,
    /// Of the adapters' inputs.
    pub dropout: Real,
    /// Fixes everything random.
    pub seed: Seed,
    /// What is minimised.
    pub loss: LossKind,
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
    let plan = Plan::new(model.bytes())?.train(train);
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

/// Calls `work` with a learner that goes on from `start`, and returns what has become of it.
fn with_learner<'m, T>(
    model: &Model<'m>,
    start: &Parts,
    train: Train,
    sized: impl FnOnce(Plan<'m>) -> Plan<'m>,
    work: impl FnOnce(&mut Learner<'_>, &mut ranklet::model::Scratch<'_>) -> Result<T>,
) -> Result<(T, Parts)> {
    let rank = start.records.iter().map(|r| r.rank).max().unwrap_or(1);
    let plan = sized(Plan::new(model.bytes())?.train(train.rank(rank).on(Roles::ALL)));
    let mut memory = vec![0; plan.bytes() + SLACK];
    let (mut scratch, learn) = Workspace::new(&mut memory).split(&plan)?;
    let bytes = start.emit(model.source(), model.head().image, &Map::new())?;
    let image = ImageFile::of(Path::new("the adapter to start from"), &bytes);
    let mut learner = learn.resume(model, &image.adapter(model)?)?;
    let result = work(&mut learner, &mut scratch)?;
    let (records, high, low) = (learner.records().to_vec(), learner.high().to_vec(), learner.low().to_vec());
    Ok((result, Parts { records, high, low }))
}

/// Trains; `each` is called after every step. Returns the adapter.
///
/// # Errors
/// Samples that the model or the loss does not take; training that diverges, at the first step that shows it.
pub fn train(
    model: &Model<'_>,
    start: &Parts,
    inputs: &Inputs,
    targets: &Targets,
    recipe: &Recipe,
    mut each: impl FnMut(StepLog),
) -> Result<Parts> {
    let room = match recipe.optimizer.moments() {
        0 => Train::sgd(),
        1 => Train::momentum(),
        _ => Train::adamw(),
    };
    let room = if recipe.dropout.is_zero() { room } else { room.dropout() };
    let rows: Vec<&[f32]> = inputs.iter().collect();
    let outputs = model.spec().outputs;
    let ((), parts) = with_learner(
        model,
        start,
        room,
        |plan| plan,
        |learner, scratch| {
            let mut trainer = Trainer::new(model, learner, recipe.optimizer)?
                .accumulate(recipe.batch)
                .schedule(recipe.schedule)
                .dropout(recipe.dropout)?
                .seed(recipe.seed)
                .loss(recipe.loss);
            if let Some(norm) = recipe.clip {
                trainer = trainer.clip(norm);
            }
            let (mut raw, mut values) = (vec![0; model.spec().features], vec![0; outputs]);
            let (mut step, mut epoch) = (0, 0);
            while step < recipe.steps {
                let order = order(rows.len(), epoch, recipe);
                for batch in order.chunks(recipe.batch as usize) {
                    if step == recipe.steps {
                        break;
                    }
                    let mut loss = 0.0;
                    for &row in batch {
                        let exponent = samples(rows[row], &mut raw)?;
                        let target = target(targets, row, outputs, &mut values)?;
                        trainer
                            .sample(Input::i32(&raw, exponent), target, scratch)
                            .with_context(|| format!("row {row} of the data"))?;
                        loss += trainer.step(scratch)?.to_f64() / batch.len() as f64;
                    }
                    // The last batch of an epoch may be short: its step is made now. After a full one nothing is pending.
                    trainer.flush()?;
                    trainer.step(scratch)?;
                    step += 1;
                    if let Some(why) = divergence(loss, trainer.learner()) {
                        bail!("diverged at step {step}: {why}; lower --lr, or use --clip; nothing was written");
                    }
                    let lr = recipe.optimizer.lr().mul(recipe.schedule.factor(step)).to_f64();
                    each(StepLog { step, epoch, samples: batch.len() as u32, loss, lr });
                }
                epoch += 1;
            }
            Ok(())
        },
    )?;
    Ok(parts)
}

/// Why training cannot go on. Fixed point saturates where floats become infinite, so nothing else would tell.
fn divergence(loss: f64, learner: &Learner<'_>) -> Option<String> {
    if !loss.is_finite() {
        return Some("the loss is beyond every number".to_owned());
    }
    let beyond = |(high, low): (&[i16], &[i16]), exponent: i16| {
        // |master| < 2^30: below this exponent no value reaches 2^127.
        exponent >= 98 && high.iter().zip(low).any(|(&h, &l)| !value(h, l, exponent).is_finite())
    };
    let (high, low) = (learner.high(), learner.low());
    let grown = learner.records().iter().find(|r| {
        beyond((r.a_of(high), r.a_of(low)), r.a_exponent) || beyond((r.b_of(high), r.b_of(low)), r.b_exponent)
    })?;
    Some(format!("the pair on layer {} has values beyond f32", grown.site))
}

/// The order of an epoch's samples: Fisher-Yates over draws of (seed, epoch).
fn order(rows: usize, epoch: u32, recipe: &Recipe) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    if recipe.shuffle {
        let stream = Stream::new(recipe.seed, Purpose::Shuffle, epoch, 0);
        for i in (1..rows).rev() {
            let draw = (u64::from(stream.at(i as u32)) * (i as u64 + 1)) >> 32;
            order.swap(i, draw as usize);
        }
    }
    order
}

fn target<'t>(targets: &'t Targets, row: usize, outputs: usize, values: &'t mut [i16]) -> Result<Target<'t>> {
    let of = row * outputs..(row + 1) * outputs;
    Ok(match targets {
        Targets::Classes(classes) => Target::Class(classes[row]),
        Targets::Labels(labels) => Target::Labels(&labels[of]),
        Targets::Values(all) => {
            let exponent = block(&all[of], values)?;
            Target::Values(values, exponent)
        }
    })
}

/// The gradients of one record, in `f32`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gradients {
    /// The site.
    pub site: u16,
    /// dL/dA, `(rank, inputs)`.
    pub a: Vec<f32>,
    /// dL/dB, `(outputs, rank)`.
    pub b: Vec<f32>,
}

/// The gradients of A and B for `L = Σ output · cotangent`, summed over all rows. The adapter stays as it is.
///
/// # Errors
/// Inputs that the model does not take.
pub fn gradients(
    model: &Model<'_>,
    adapter: &Parts,
    inputs: &Inputs,
    cotangent: &[f32],
    mut each: impl FnMut(),
) -> Result<Vec<Gradients>> {
    let outputs = model.spec().outputs;
    if adapter.records.iter().all(|r| r.scaling().is_zero()) {
        // Nothing that A and B hold reaches an output, and a learner would refuse.
        return Ok(nothing(adapter));
    }
    let (gradients, _) = with_learner(
        model,
        adapter,
        Train::sgd(),
        |plan| plan,
        |learner, scratch| {
            // A batch that is never full: gradients are summed, and no step is made.
            let plain = Sgd { lr: Real::ZERO, momentum: Real::ZERO, weight_decay: Real::ZERO };
            let mut trainer = Trainer::new(model, learner, plain)?.accumulate(u32::MAX);
            let (mut raw, mut dy) = (vec![0; model.spec().features], vec![0; outputs]);
            for (row, (x, c)) in inputs.iter().zip(cotangent.chunks_exact(outputs)).enumerate() {
                let exponent = samples(x, &mut raw)?;
                let dy_exponent = block(c, &mut dy)?;
                each();
                if dy_exponent == Exp::ZERO {
                    continue; // Adds nothing.
                }
                trainer
                    .sample(Input::i32(&raw, exponent), Target::Cotangent(&dy, dy_exponent), scratch)
                    .with_context(|| format!("row {row} of the input"))?;
                trainer.step(scratch)?;
            }
            Ok(read(learner))
        },
    )?;
    Ok(gradients)
}

/// The gradients as they stand.
fn read(learner: &Learner<'_>) -> Vec<Gradients> {
    let value = |(v, e): (&[i32], i32)| -> Vec<f32> {
        v.iter().map(|&v| (f64::from(v) * crate::quantize::exp2(e)) as f32).collect()
    };
    let of = |(i, r): (usize, &ranklet::image::LoraRecord)| {
        let [a, b] = learner.gradient(i)?;
        Some(Gradients { site: r.site, a: value(a), b: value(b) })
    };
    learner.records().iter().enumerate().filter_map(of).collect()
}

/// As [`gradients`], of a transformer; of the pairs without a bias, while the others do their part. `cotangent` is shaped like the output of [`sequences::run`](crate::sequences::run).
///
/// # Errors
/// Sequences that the model does not take.
pub fn sequence_gradients(
    model: &Model<'_>,
    t: &Transformer,
    adapter: &Parts,
    batch: &Batch,
    cotangent: &[f32],
    mut each: impl FnMut(),
) -> Result<Vec<Gradients>> {
    if adapter.records.iter().all(|r| r.scaling().is_zero()) {
        return Ok(nothing(adapter));
    }
    let (outputs, pooled) = (model.spec().outputs, t.pool != Pool::None);
    let tokens = if t.has_cross() { batch.decoder_length() } else { batch.length };
    let (learning, beside) = adapter.apart(LoraRecord::has_extras);
    let beside = beside.emit(model.source(), model.head().image, &Map::new())?;
    let beside = ImageFile::of(Path::new("what is used and does not learn"), &beside);
    let beside = [beside.adapter(model)?.view()];
    let room = Train::sgd().cotangents();
    let (gradients, _) = with_learner(
        model,
        &learning,
        room,
        |plan| plan.tokens(tokens).source(batch.length),
        |learner, scratch| {
            let plain = Sgd { lr: Real::ZERO, momentum: Real::ZERO, weight_decay: Real::ZERO };
            let mut trainer = Trainer::new(model, learner, plain)?.accumulate(u32::MAX).beside(&beside)?;
            let mut raw = vec![0; batch.length * model.spec().features * usize::from(t.vocab == 0)];
            let width = if pooled { outputs } else { tokens * outputs };
            let (mut dy, mut exponents) = (vec![0; width], vec![Exp::ZERO; width / outputs]);
            for (row, c) in cotangent.chunks_exact(width).enumerate() {
                for ((c, dy), e) in c.chunks_exact(outputs).zip(dy.chunks_exact_mut(outputs)).zip(&mut exponents) {
                    *e = block(c, dy)?;
                }
                each();
                if exponents.iter().all(|&e| e == Exp::ZERO) {
                    continue; // Adds nothing.
                }
                let target = match (pooled, batch.last(t, row)) {
                    (false, _) => SequenceTarget::Cotangents(&dy, &exponents),
                    (true, None) => SequenceTarget::Pooled(Target::Cotangent(&dy, exponents[0])),
                    (true, Some(index)) => SequenceTarget::At(index, Target::Cotangent(&dy, exponents[0])),
                };
                let sequence = batch.sequence(t, row, &mut raw)?;
                let taken = if t.has_cross() {
                    trainer.pair(sequence, batch.decoder(row), target, scratch)
                } else {
                    trainer.sequence(sequence, target, scratch)
                };
                taken.with_context(|| format!("row {row} of the input"))?;
                trainer.step(scratch)?;
            }
            Ok(read(learner))
        },
    )?;
    Ok(gradients)
}

/// Of an adapter that is switched off.
fn nothing(adapter: &Parts) -> Vec<Gradients> {
    let zero =
        |r: &ranklet::image::LoraRecord| Gradients { site: r.site, a: vec![0.0; r.a_len()], b: vec![0.0; r.b_len()] };
    adapter.records.iter().map(zero).collect()
}
