//! [`Rule`]: an optimizer that is chosen at run time.

use super::optimizer::sealed::Sealed;
use super::optimizer::{Optimizer, Step, Tensor};
use super::{AdamW, Sgd};
use crate::fixed::Real;

/// One of the optimizers. Firmware that knows which names that one, and carries no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Stochastic gradient descent.
    Sgd(Sgd),
    /// AdamW.
    AdamW(AdamW),
}

/// Asks whichever it is.
macro_rules! whichever {
    ($self:expr, $rule:ident => $answer:expr) => {
        match $self {
            Rule::Sgd($rule) => $answer,
            Rule::AdamW($rule) => $answer,
        }
    };
}

impl Sealed for Rule {}

impl Optimizer for Rule {
    fn moments(&self) -> usize {
        whichever!(self, rule => rule.moments())
    }

    fn tag(&self) -> u8 {
        whichever!(self, rule => rule.tag())
    }

    fn check(&self) -> Result<(), &'static str> {
        whichever!(self, rule => rule.check())
    }

    fn lr(&self) -> Real {
        whichever!(self, rule => rule.lr())
    }

    fn update(&self, tensor: Tensor<'_>, step: &Step) {
        whichever!(self, rule => rule.update(tensor, step));
    }
}
