//! Gradients of A and B, and no step.

use super::{Start, with_learner};
use crate::dataset::Inputs;
use crate::image::ImageFile;
use crate::image::adapter::Parts;
use crate::infer::{block, samples};
use crate::sequences::Batch;
use anyhow::{Context, Result};
use ranklet::fixed::{Exp, Real};
use ranklet::image::LoraRecord;
use ranklet::layer::normalize::Input;
use ranklet::model::spec::{Pool, Transformer};
use ranklet::model::{Model, Train};
use ranklet::train::{Learner, SequenceTarget, Sgd, Target, Trainer};
use serde_json::Map;
use std::path::Path;

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
        Start::Adapter(adapter),
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
        Start::Adapter(&learning),
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
