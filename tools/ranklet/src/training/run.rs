//! The loop: epochs, batches, steps; and, between them, a look at data that are not trained on.

use super::material::Material;
use super::{Recipe, Start, StepLog, steps_per_epoch, with_learner};
use crate::image::Sink;
use crate::image::adapter::Parts;
use crate::lessons::Score;
use crate::quantize::planes::value;
use anyhow::{Context, Result, bail};
use ranklet::image::LoraRecord;
use ranklet::model::{Active, Model, Train};
use ranklet::train::order::shuffle;
use ranklet::train::{Learner, Optimizer, Trainer};

/// A look at other data now and then.
pub struct Checks<'c> {
    /// After so many steps.
    pub every: u32,
    /// Stop where so many looks in a row find nothing better.
    pub patience: Option<u32>,
    /// What is looked at.
    pub measure: &'c dyn Fn(Active<'_>) -> Result<Score>,
    /// The best of an earlier run that goes on now.
    pub before: Option<Best>,
}

/// An adapter, its loss on other data, and after how many steps that was.
#[derive(Clone, Debug)]
pub struct Best {
    /// The adapter.
    pub parts: Parts,
    /// See [`Score::loss`].
    pub loss: f64,
    /// Steps.
    pub steps: u32,
}

impl std::fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checks").field("every", &self.every).field("patience", &self.patience).finish_non_exhaustive()
    }
}

/// What is told while it trains.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A step was made.
    Step(StepLog),
    /// Other data were looked at, after so many steps.
    Check(u32, Score),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The adapter: with checks and patience the best that was seen, otherwise the last.
    pub parts: Parts,
    /// After so many steps.
    pub steps: u32,
    /// Whether patience ended it.
    pub early: bool,
    /// Samples seen in all, those of earlier runs included.
    pub samples: u32,
    /// Where the last step has left everything.
    pub checkpoint: Vec<u8>,
}

/// Trains; `each` is told of every step and check. Returns the adapter.
///
/// # Errors
/// Samples that the model or the loss does not take; training that diverges, at the first step that shows it.
pub fn train(
    model: &Model<'_>,
    start: Start<'_>,
    material: &impl Material,
    recipe: &Recipe,
    checks: Option<&Checks<'_>>,
    mut each: impl FnMut(Event),
) -> Result<Trained> {
    let room = match recipe.optimizer.moments() {
        0 => Train::sgd(),
        1 => Train::momentum(),
        _ => Train::adamw(),
    };
    let room = if recipe.dropout.is_zero() { room } else { room.dropout() };
    let room = if recipe.only_b { room.only_b() } else { room };
    let mut keeper = Keeper { checks, best: checks.and_then(|c| c.before.clone()), since: 0 };
    let ((steps, early, samples, checkpoint), last) = with_learner(
        model,
        start,
        room,
        |plan| material.sized(plan),
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
            if trainer.learner().pending() > 0 {
                let (pending, batch) = (trainer.learner().pending(), recipe.batch);
                bail!(
                    "the checkpoint is in the middle of a batch, behind {pending} samples; `ranklet train` goes on behind whole steps \
                     (here of {batch} samples): let the device make its step first (Trainer::flush)"
                );
            }
            // A checkpoint has come so far; what it has seen of its epoch is not shown again.
            let per_epoch = steps_per_epoch(material.len(), recipe.batch);
            let mut step = trainer.learner().steps();
            let (mut epoch, mut seen) = (step / per_epoch, step % per_epoch);
            let mut early = false;
            let stop = recipe.stop.min(recipe.steps);
            if step > 0 {
                keeper.take_up(step, trainer.learner())?;
            }
            'all: while step < stop {
                let mut order: Vec<usize> = (0..material.len()).collect();
                if recipe.shuffle {
                    shuffle(&mut order, recipe.seed, epoch);
                }
                for batch in order.chunks(recipe.batch as usize).skip(std::mem::take(&mut seen) as usize) {
                    if step == stop {
                        break;
                    }
                    let mut loss = 0.0;
                    for &row in batch {
                        let given = material.give(row, &mut trainer, scratch);
                        given.with_context(|| format!("row {row} of the data"))?;
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
                    each(Event::Step(StepLog { step, epoch, samples: batch.len() as u32, loss, lr }));
                    if keeper.look(step, step == stop, trainer.learner(), &mut each)? {
                        early = true;
                        break 'all;
                    }
                }
                epoch += 1;
            }
            let mut out = Sink(vec![]);
            trainer.learner().checkpoint(&mut out)?;
            Ok((step, early, trainer.learner().samples(), out.0))
        },
    )?;
    let kept = keeper.best.filter(|_| checks.is_some_and(|c| c.patience.is_some()));
    Ok(match kept {
        Some(Best { parts, steps, .. }) => Trained { parts, steps, early, samples, checkpoint },
        None => Trained { parts: last, steps, early, samples, checkpoint },
    })
}

/// Keeps the best.
struct Keeper<'c> {
    checks: Option<&'c Checks<'c>>,
    best: Option<Best>,
    /// Looks since.
    since: u32,
}

impl Keeper<'_> {
    /// Looks, where it is time to; tells whether patience is over.
    fn look(&mut self, step: u32, last: bool, learner: &Learner<'_>, each: &mut impl FnMut(Event)) -> Result<bool> {
        let Some(checks) = self.checks.filter(|c| last || step.is_multiple_of(c.every)) else { return Ok(false) };
        let score = (checks.measure)(learner.view())?;
        each(Event::Check(step, score));
        if self.better(step, score.loss, learner) {
            self.since = 0;
            return Ok(false);
        }
        self.since += 1;
        Ok(checks.patience.is_some_and(|p| self.since >= p))
    }

    /// What a checkpoint begins with counts as well: nothing worse takes its place. What was best before counts where it is of the same
    /// pairs, can be trained on, and has not come further than the checkpoint.
    fn take_up(&mut self, step: u32, learner: &Learner<'_>) -> Result<()> {
        let pairs = |records: &[LoraRecord]| -> Vec<_> {
            records.iter().map(|r| (r.site, r.rank, r.scaling_mantissa, r.scaling_exponent, r.flags)).collect()
        };
        self.best = self.best.take().filter(|best| {
            let same = pairs(&best.parts.records) == pairs(learner.records());
            same && best.parts.low.len() == best.parts.high.len() && best.steps <= step
        });
        if let Some(checks) = self.checks.filter(|c| c.patience.is_some()) {
            let score = (checks.measure)(learner.view())?;
            self.better(step, score.loss, learner);
        }
        Ok(())
    }

    /// Keeps it, where it is better.
    fn better(&mut self, steps: u32, loss: f64, learner: &Learner<'_>) -> bool {
        let better = self.best.as_ref().is_none_or(|best| loss < best.loss);
        if better {
            let (records, high, low) = (learner.records().to_vec(), learner.high().to_vec(), learner.low().to_vec());
            self.best = Some(Best { parts: Parts { records, high, low }, loss, steps });
        }
        better
    }
}

/// Why training cannot go on. Fixed point saturates where floats become infinite, so nothing else would tell.
fn divergence(loss: f64, learner: &Learner<'_>) -> Option<String> {
    if loss.is_nan() || loss > f64::from(f32::MAX) {
        return Some("the loss is beyond f32".to_owned());
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
