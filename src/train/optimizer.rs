//! What an optimizer is: a rule that turns the gradient of one tensor into an update of its masters.

use super::master::Master;
use super::moments::TensorState;
use crate::fixed::Real;
use crate::fixed::hash::Stream;
use crate::layer::gradient::GradScale;

/// One tensor, with everything that belongs to it.
#[derive(Debug)]
pub struct Tensor<'a> {
    /// The parameters.
    pub master: Master<'a>,
    /// The accumulated gradient, under `state.gradient`; a buffer for the rule, which the trainer clears afterwards.
    pub gradient: &'a mut [i32],
    /// First moment; empty where the plan made no room for one.
    pub first: &'a mut [i16],
    /// Second moment; empty where the plan made no room for one.
    pub second: &'a mut [u16],
    /// Their exponents.
    pub state: &'a mut TensorState,
}

impl Tensor<'_> {
    /// The same, borrowed for a shorter time.
    pub(crate) fn reborrow(&mut self) -> Tensor<'_> {
        let Master { high, low, exponent } = &mut self.master;
        Tensor {
            master: Master { high, low, exponent },
            gradient: self.gradient,
            first: self.first,
            second: self.second,
            state: self.state,
        }
    }

    /// Empties the accumulator for the next step.
    pub(crate) fn clear_gradient(&mut self) {
        self.gradient.fill(0);
        self.state.gradient = GradScale::EMPTY;
    }
}

/// What a rule is told about the step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// 1 for the first since the moments were last forgotten: what Adam's bias corrections go by.
    pub number: u32,
    /// The learning rate, schedule applied.
    pub lr: Real,
    /// What the accumulated gradient is multiplied by: 1 / samples, times the clipping factor.
    pub gradient_factor: Real,
    /// Draws for dithered rounding, of this step and tensor.
    pub dither: Stream,
}

/// Keeps [`Optimizer`] to this crate.
pub(super) mod sealed {
    /// A rule whose state has one of the forms that a learner keeps.
    pub trait Sealed {}
}

/// An optimizer. Its configuration is `&self`; its state lies in the learner.
///
/// Sealed: a rule works on the masters, moments and accumulators as they lie in a learner, and those forms are not for
/// others to build on. The rules are [`Sgd`](super::Sgd) and [`AdamW`](super::AdamW), and
/// [`Rule`](super::Rule) is whichever of them.
pub trait Optimizer: sealed::Sealed {
    /// Moments it keeps for each parameter: 0, 1 or 2. The plan must have made room.
    fn moments(&self) -> usize;

    /// Which rule this is: the moments of one mean nothing to another. Numbers above 0; 1 and 2 are SGD and AdamW.
    fn tag(&self) -> u8;

    /// Whether the hyper-parameters can be trained with.
    ///
    /// # Errors
    /// The name of the first that cannot.
    fn check(&self) -> Result<(), &'static str>;

    /// The base learning rate, before the schedule.
    fn lr(&self) -> Real;

    /// Updates one tensor.
    fn update(&self, tensor: Tensor<'_>, step: &Step);
}

/// Whether `0 ≤ x < 1`: a decay that forgets.
pub(crate) fn is_decay(x: Real) -> bool {
    !x.is_negative() && x.less_than(Real::ONE)
}
