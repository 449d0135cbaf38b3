//! [`Trainer`]: the sequence of bounded units from a sample to an updated A and B.
//!
//! One unit is one layer forward, the loss, one layer backward, the norm of one tensor, or a part of the update of one tensor
//! ([`Train::update_elements`](crate::model::Train::update_elements) says how large a part).
//! Between units all state lies in the learner's memory, so the scratch may serve an inference meanwhile.

use super::error::TrainError;
use super::learner::{Learner, Mask};
use super::loss::{LossKind, Staged, Target};
use super::moments::sum_of_squares;
use super::optimizer::{Optimizer, is_decay};
use super::phase::{Aim, Part, Phase, Progress};
use super::schedule::Schedule;
use super::score::Answers;
use super::units::Units;
use super::update::{Step, Turn};
use crate::fixed::Real;
use crate::fixed::hash::{Purpose, Seed, Stream};
use crate::layer::normalize::{Input, Normalize};
use crate::layer::{ShapeError, first};
use crate::model::run::check_adapters;
use crate::model::{Active, Model, Scratch};

/// Trains one adapter on one model.
///
/// Configure it once, then for each sample call [`sample`](Trainer::sample) and [`advance`](Trainer::advance) until there
/// is no more, or [`step`](Trainer::step), which loops.
#[derive(Debug)]
pub struct Trainer<'t, 'm, 'a, O> {
    pub(super) model: &'t Model<'m>,
    pub(super) learner: &'t mut Learner<'a>,
    pub(super) beside: &'t [Active<'t>],
    optimizer: O,
    schedule: Schedule,
    accumulate: u32,
    clip: Option<Real>,
    pub(super) dropout: Real,
    pub(super) seed: Seed,
    loss: Option<LossKind>,
}

impl<'t, 'm, 'a, O: Optimizer> Trainer<'t, 'm, 'a, O> {
    /// A trainer with one sample a step, a constant rate, no clipping, no dropout, and the loss that fits the head.
    ///
    /// What an earlier trainer of this learner left, a sample half done (under the dropout it began with) or gradients of
    /// an unfinished step, goes on here (with the hyper-parameters given here), and a schedule goes on from the steps made so far; the moments of another optimizer are forgotten.
    ///
    /// # Errors
    /// [`TrainError::Base`], [`TrainError::Moments`], [`TrainError::Hyperparameter`].
    pub fn new(model: &'t Model<'m>, learner: &'t mut Learner<'a>, optimizer: O) -> Result<Self, TrainError> {
        let (expected, found) = (model.source(), learner.source());
        if expected != found {
            return Err(TrainError::Base { expected, found });
        }
        let (needed, planned) = (optimizer.moments(), learner.train.moments);
        if needed > planned {
            return Err(TrainError::Moments { needed, planned });
        }
        optimizer.check().map_err(|name| TrainError::Hyperparameter { name })?;
        learner.adopt(optimizer.tag());
        // A sample that is half done may go on beside other adapters than it began with.
        learner.sequence.changed |= learner.phase != Phase::Idle;
        Ok(Trainer {
            model,
            learner,
            beside: &[],
            optimizer,
            schedule: Schedule::Constant,
            accumulate: 1,
            clip: None,
            dropout: Real::ZERO,
            seed: Seed(0),
            loss: LossKind::of_head(model.spec().head),
        })
    }

    /// Adapters that are in use meanwhile and do not learn: what is learned is added to them.
    ///
    /// # Errors
    /// [`TrainError::Sequence`] for one of another base; [`TrainError::Beside`] for a DoRA, through which no gradient goes.
    pub fn beside(mut self, adapters: &'t [Active<'t>]) -> Result<Self, TrainError> {
        check_adapters(self.model, adapters).map_err(TrainError::Sequence)?;
        if let Some(index) = adapters.iter().position(Active::has_gain) {
            return Err(TrainError::Beside { index });
        }
        self.learner.sequence.changed |= self.learner.phase != Phase::Idle;
        self.beside = adapters;
        Ok(self)
    }

    /// Samples a step: the gradient is their mean. 0 is taken as 1.
    #[must_use]
    pub fn accumulate(mut self, samples: u32) -> Self {
        self.accumulate = samples.max(1);
        self
    }

    /// Clips the gradient of all tensors together to this L2 norm, as `clip_grad_norm_`.
    #[must_use]
    pub fn clip(mut self, norm: Real) -> Self {
        self.clip = (!norm.is_zero() && !norm.is_negative()).then_some(norm);
        self
    }

    /// The learning rate over time.
    #[must_use]
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedule = schedule;
        self
    }

    /// Dropout on the adapters' inputs, 0 ≤ p < 1.
    ///
    /// # Errors
    /// [`TrainError::DropoutNotPlanned`], [`TrainError::Hyperparameter`].
    pub fn dropout(mut self, p: Real) -> Result<Self, TrainError> {
        if !is_decay(p) {
            return Err(TrainError::Hyperparameter { name: "dropout (0 to 1, 1 excluded)" });
        }
        if !p.is_zero() && !self.learner.train.dropout {
            return Err(TrainError::DropoutNotPlanned);
        }
        self.dropout = p;
        Ok(self)
    }

    /// Fixes everything random in training. Default 0.
    #[must_use]
    pub fn seed(mut self, seed: Seed) -> Self {
        self.seed = seed;
        self
    }

    /// Another loss than the head's.
    #[must_use]
    pub fn loss(mut self, loss: LossKind) -> Self {
        self.loss = Some(loss);
        self
    }

    /// The adapter as it stands. While a sample has more units, some of its tensors may be updated and others not.
    #[must_use]
    pub fn learner(&self) -> &Learner<'a> {
        self.learner
    }

    /// Takes a sample: normalises and copies it, so that the caller's buffers are free again.
    ///
    /// # Errors
    /// See [`TrainError`]; the adapter and its gradients are unchanged.
    pub fn sample(
        &mut self,
        input: Input<'_>,
        target: Target<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.sample_for(Aim::Learn, input, target, scratch)
    }

    pub(super) fn sample_for(
        &mut self,
        aim: Aim,
        input: Input<'_>,
        target: Target<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        if self.learner.phase != Phase::Idle {
            return Err(TrainError::Busy);
        }
        let spec = self.model.spec();
        if spec.transformer().is_some() {
            return Err(TrainError::Architecture);
        }
        let (expected, found) = (spec.features, input.len());
        if expected != found {
            return Err(TrainError::Input { expected, found });
        }
        self.check_target(target, spec.outputs)?;
        scratch.check(self.learner.scratch)?;
        let x = first("trace", self.learner.trace, expected)?;
        let exponent = Normalize::forward(self.model.normalize().as_ref(), input, x, scratch.acc)?;
        if let Some(e) = self.learner.trace_exponents.first_mut() {
            *e = exponent;
        }
        let [dy, _] = &mut self.learner.gradients;
        self.learner.staged = stage(target, first("gradient", dy, spec.outputs)?);
        self.begin(aim);
        self.learner.phase = Phase::Forward { site: 0, at: 0 };
        Ok(())
    }

    /// What every sample begins with.
    pub(super) const fn begin(&mut self, aim: Aim) {
        let measured = matches!(aim, Aim::Measure);
        self.learner.measured = measured;
        self.learner.answers = Answers::NONE;
        // What is only measured neither counts nor is masked.
        self.learner.samples = self.learner.samples.wrapping_add(!measured as u32);
        self.learner.mask = Mask { p: if measured { Real::ZERO } else { self.dropout }, seed: self.seed };
    }

    /// What the next unit is of; `None` where there is nothing to do.
    #[must_use]
    pub fn next_part(&self) -> Option<Part> {
        Some(match self.learner.phase {
            Phase::Idle | Phase::Gathered => return None,
            Phase::Forward { .. } => Part::Forward,
            Phase::Loss { .. } => Part::Loss,
            Phase::Backward { .. } => Part::Backward,
            Phase::Lesson(unit) => unit.part(),
            Phase::Norm { .. } | Phase::Update { .. } => Part::Step,
        })
    }

    /// Runs the next unit.
    ///
    /// # Errors
    /// [`TrainError::Shape`] where `scratch` was split by another plan: nothing has been done, and the same unit runs when
    /// the right one is given.
    pub fn advance(&mut self, scratch: &mut Scratch<'_>) -> Result<Progress, TrainError> {
        scratch.check(self.learner.scratch)?;
        let (loss, stepped) = self.unit(scratch)?;
        Ok(Progress { more: self.learner.phase != Phase::Idle, loss, stepped })
    }

    /// Runs all units of the sample; returns its loss.
    ///
    /// # Errors
    /// As [`advance`](Trainer::advance).
    pub fn step(&mut self, scratch: &mut Scratch<'_>) -> Result<Real, TrainError> {
        let mut loss = Real::ZERO;
        loop {
            let progress = self.advance(scratch)?;
            loss = progress.loss.unwrap_or(loss);
            if !progress.more {
                return Ok(loss);
            }
        }
    }

    /// What the outputs of the last sample were worth: how many answers it had, and how many of them were right.
    #[must_use]
    pub const fn answers(&self) -> Answers {
        self.learner.answers
    }

    /// Makes the optimizer step now, with the samples accumulated so far (the end of an epoch). Then call
    /// [`advance`](Trainer::advance) until there is no more. Nothing happens where none are pending.
    ///
    /// # Errors
    /// [`TrainError::Busy`].
    pub fn flush(&mut self) -> Result<(), TrainError> {
        if self.learner.phase != Phase::Idle {
            return Err(TrainError::Busy);
        }
        if self.learner.pending > 0 {
            self.learner.phase = Phase::Norm { tensor: 0, sum: Real::ZERO };
        }
        Ok(())
    }

    /// Fails where every sample is to make a step, and something else is asked for.
    pub(super) fn check_immediate(&self) -> Result<(), TrainError> {
        let together = self.accumulate != 1 || self.clip.is_some();
        if self.learner.train.immediate && together { Err(TrainError::Immediate) } else { Ok(()) }
    }

    pub(super) fn check_target(&self, target: Target<'_>, outputs: usize) -> Result<(), TrainError> {
        let length = |found| {
            if found == outputs { Ok(()) } else { Err(TrainError::TargetLength { expected: outputs, found }) }
        };
        if let Target::Cotangent(v, _) = target {
            return length(v.len());
        }
        match (self.loss.ok_or(TrainError::NoLoss)?, target) {
            (LossKind::CrossEntropy, Target::Class(found)) if found >= outputs => {
                Err(TrainError::Class { found, classes: outputs })
            }
            (LossKind::CrossEntropy, Target::Class(_)) => Ok(()),
            (LossKind::BinaryCrossEntropy, Target::Labels(l)) => length(l.len()),
            (LossKind::MeanSquaredError, Target::Values(v, _)) => length(v.len()),
            (loss, _) => Err(TrainError::TargetKind { loss }),
        }
    }

    fn unit(&mut self, scratch: &mut Scratch<'_>) -> Result<(Option<Real>, bool), ShapeError> {
        let mut units = Units { model: self.model, learner: self.learner, beside: self.beside };
        let mut loss = None;
        match units.learner.phase {
            Phase::Idle | Phase::Gathered => {}
            Phase::Forward { site, at } => units.forward(site, at, scratch)?,
            Phase::Loss { at } => loss = Some(units.loss(at, scratch)),
            Phase::Backward { site, at, flip, exponent } => units.backward(site, at, flip, exponent, scratch)?,
            Phase::Lesson(unit) => loss = units.lesson(unit, scratch)?,
            Phase::Norm { tensor, sum } => self.norm(tensor, sum),
            Phase::Update { tensor, factor, turn } => return Ok((None, self.update(tensor, factor, turn))),
        }
        if self.learner.phase == Phase::Gathered {
            self.finish();
        }
        Ok((loss, false))
    }

    /// Goes on behind the last unit of a sample.
    fn finish(&mut self) {
        if self.learner.measured {
            self.learner.measured = false;
            // What it has left is not what a sample that learns leaves.
            self.learner.sequence.run = None;
            self.learner.phase = Phase::Idle;
            return;
        }
        self.learner.pending = self.learner.pending.saturating_add(1);
        self.learner.phase = if self.learner.pending >= self.accumulate {
            Phase::Norm { tensor: 0, sum: Real::ZERO }
        } else {
            Phase::Idle
        };
    }

    #[inline(never)] // Beside the units of a sample on the stack, not on top of them.
    fn norm(&mut self, tensor: usize, sum: Real) {
        let mean = Real::ratio(1, self.learner.pending);
        let Some(clip) = self.clip else {
            self.learner.phase = Phase::Update { tensor: 0, factor: mean, turn: Turn::START };
            return;
        };
        let sum = match self.learner.tensor(tensor) {
            Some(t) if t.state.learns() => {
                let scale = t.state.gradient;
                sum.add(sum_of_squares(t.gradient, scale.exponent(), scale.bits()))
            }
            _ => sum,
        };
        self.learner.phase = if tensor + 1 < self.learner.tensors() {
            Phase::Norm { tensor: tensor + 1, sum }
        } else {
            // PyTorch: min(1, max_norm / (norm + 1e-6)).
            let norm = sum.sqrt().mul(mean);
            let limit = clip.div(norm.add(Real::ratio(1, 1_000_000))).min(Real::ONE);
            Phase::Update { tensor: 0, factor: mean.mul(limit), turn: Turn::START }
        };
    }

    #[inline(never)] // As `norm`.
    fn update(&mut self, tensor: usize, factor: Real, turn: Turn) -> bool {
        // The schedule counts on when the optimizer changes; its moments start anew.
        let steps = self.learner.steps.saturating_add(1);
        let number = self.learner.moment_steps.saturating_add(1);
        let step = Step {
            number,
            lr: self.optimizer.lr().mul(self.schedule.factor(steps)),
            gradient_factor: factor,
            dither: Stream::new(self.seed, Purpose::Dither, steps, tensor as u32),
        };
        let elements = self.learner.train.update_elements;
        let inside = tensor < self.learner.window.end;
        if let Some(mut t) = self.learner.tensor(tensor).filter(|t| inside && t.state.learns()) {
            let turn = turn.advance(&self.optimizer, &mut t, &step, elements);
            if turn != Turn::Done {
                self.learner.phase = Phase::Update { tensor, factor, turn };
                return false;
            }
            t.clear_gradient();
        }
        if tensor + 1 < self.learner.window.end {
            self.learner.phase = Phase::Update { tensor: tensor + 1, factor, turn: Turn::START };
            return false;
        }
        if let Some(unit) = self.learner.window.then.take() {
            self.learner.phase = Phase::Lesson(unit);
            return false;
        }
        self.learner.steps = steps;
        self.learner.moment_steps = number;
        self.learner.pending = 0;
        self.learner.phase = Phase::Idle;
        true
    }
}

pub(super) fn stage(target: Target<'_>, dy: &mut [i16]) -> Staged {
    match target {
        Target::Class(class) => Staged::Class(class),
        Target::Labels(labels) => {
            dy.iter_mut().zip(labels).for_each(|(d, &l)| *d = i16::from(l));
            Staged::Labels
        }
        Target::Values(values, exponent) => {
            dy.iter_mut().zip(values).for_each(|(d, &v)| *d = v);
            Staged::Values(exponent)
        }
        Target::Cotangent(values, exponent) => {
            dy.iter_mut().zip(values).for_each(|(d, &v)| *d = v);
            Staged::Cotangent(exponent)
        }
    }
}
