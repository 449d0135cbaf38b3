//! [`Measure`]: samples that are looked at and not learned from, in the memory of training.

use super::error::TrainError;
use super::loss::{SequenceTarget, Target};
use super::optimizer::Optimizer;
use super::phase::Aim;
use super::trainer::Trainer;
use crate::layer::normalize::Input;
use crate::model::{Scratch, Sequence};

/// Takes samples as its [`Trainer`] does, which then runs them as far as their loss: nothing learns, no dropout masks anything, no step is
/// counted, and a batch that is half gathered stays so. Training goes on with the bits it would have had without.
///
/// ```
/// # use ranklet::train::{AdamW, Score, SequenceTarget, Trainer, TrainError};
/// # use ranklet::model::{Scratch, Sequence};
/// # fn f(trainer: &mut Trainer<'_, '_, '_, AdamW>, held_out: &[[u32; 32]], scratch: &mut Scratch<'_>) -> Result<Score, TrainError> {
/// let mut score = Score::default();
/// for text in held_out {
///     trainer.measure().sequence(Sequence::tokens(text), SequenceTarget::Next, scratch)?;
///     let loss = trainer.step(scratch)?; // or `advance`, a unit at a time
///     score.add(loss, trainer.answers());
/// }
/// # Ok(score)
/// # }
/// ```
#[derive(Debug)]
pub struct Measure<'x, 't, 'm, 'a, O>(&'x mut Trainer<'t, 'm, 'a, O>);

impl<'t, 'm, 'a, O: Optimizer> Trainer<'t, 'm, 'a, O> {
    /// The next sample is to be measured, and not to be learned from.
    pub const fn measure(&mut self) -> Measure<'_, 't, 'm, 'a, O> {
        Measure(self)
    }
}

impl<O: Optimizer> Measure<'_, '_, '_, '_, O> {
    /// As [`Trainer::sample`].
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn sample(self, input: Input<'_>, target: Target<'_>, scratch: &mut Scratch<'_>) -> Result<(), TrainError> {
        self.0.sample_for(Aim::Measure, input, target, scratch)
    }

    /// As [`Trainer::sequence`].
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn sequence(
        self,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.0.lesson_of(Aim::Measure, None, sequence, target, None, scratch)
    }

    /// As [`Trainer::pair`].
    ///
    /// # Errors
    /// See [`TrainError`].
    pub fn pair(
        self,
        source: Sequence<'_>,
        sequence: Sequence<'_>,
        target: SequenceTarget<'_>,
        scratch: &mut Scratch<'_>,
    ) -> Result<(), TrainError> {
        self.0.lesson_of(Aim::Measure, Some(source), sequence, target, None, scratch)
    }
}
