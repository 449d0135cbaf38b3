//! [`Rule`]: an optimizer that is chosen at run time.

use super::optimizer::Optimizer;
use super::update::{Step, Tensor, Update};
use super::{AdamW, Sgd};
use crate::fixed::Real;
use core::ops::Range;

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

impl Update for Rule {
    fn exponent(&self, tensor: &Tensor<'_>, step: &Step) -> Option<i32> {
        whichever!(self, rule => rule.exponent(tensor, step))
    }

    fn gather(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: i32, range: Range<usize>) {
        whichever!(self, rule => rule.gather(tensor, step, exponent, range));
    }

    fn settle(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>) -> Option<i32> {
        whichever!(self, rule => rule.settle(tensor, step, exponent))
    }

    fn apply(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>, common: i32, range: Range<usize>) {
        whichever!(self, rule => rule.apply(tensor, step, exponent, common, range));
    }
}

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
}
