//! What an optimizer is: a rule that turns the gradients of A and B into an update of their masters.

use super::update::Update;
use crate::fixed::Real;

/// An optimizer. Its configuration is `&self`; its state lies in the learner.
///
/// Sealed: a rule works on masters, moments and accumulators as they lie in a learner, and those forms are not for others to
/// build on. The rules are [`Sgd`](super::Sgd) and [`AdamW`](super::AdamW); [`Rule`](super::Rule) is whichever of them.
pub trait Optimizer: Update {
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
}

/// Whether `0 ≤ x < 1`: a decay that forgets.
pub(crate) fn is_decay(x: Real) -> bool {
    !x.is_negative() && x.less_than(Real::ONE)
}
