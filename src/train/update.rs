//! How one tensor is updated: in two stages, each in bounded turns, because an optimizer costs hundreds of instructions an
//! element where a layer costs one or two a multiplication.
//!
//! ```text
//! gather   moments ← gradient; the buffer of the gradient ← what the step is made of     element by element
//! settle   the first moment to 16 bits, the range of the second                          all at once: light
//! apply    the buffer ← new masters                                                      element by element
//! set      masters ← the buffer, normalized                                              all at once: light
//! ```
//!
//! Masters change in the last moment and all together, so that whatever reads A and B between two turns sees the old tensor
//! or the new one. Every element's result is the same however many are done in a turn.

use super::master::Master;
use super::moments::TensorState;
use crate::fixed::Real;
use crate::fixed::hash::Stream;
use crate::layer::gradient::GradScale;
use core::ops::Range;

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
    /// Empties the accumulator for the next step.
    pub fn clear_gradient(&mut self) {
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

/// The working half of an [`Optimizer`](super::Optimizer); what seals it, because these forms are not for others to build on.
pub trait Update {
    /// The exponent at which [`gather`](Update::gather) leaves its sums in the gradient's buffer; `None` where all are zero.
    fn exponent(&self, tensor: &Tensor<'_>, step: &Step) -> Option<i32>;

    /// Updates the moments of some elements, and leaves in the gradient's buffer what [`apply`](Update::apply) needs.
    fn gather(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: i32, range: Range<usize>);

    /// Between the two, once: stores the first moment, and returns the exponent at which the new masters fit; `None` where
    /// nothing changes.
    fn settle(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>) -> Option<i32>;

    /// Leaves the new masters of some elements in the gradient's buffer, at `common`.
    fn apply(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>, common: i32, range: Range<usize>);
}

/// How far the update of a tensor has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The next elements to gather.
    Gather {
        /// The first of them.
        at: usize,
        /// Of the sums; told by the rule before the first turn.
        exponent: Option<i32>,
    },
    /// The next elements to apply.
    Apply {
        /// The first of them.
        at: usize,
        /// Of the sums.
        exponent: Option<i32>,
        /// Of the new masters.
        common: i32,
    },
    /// Nothing is left to do; the masters are as they should be.
    Done,
}

impl Turn {
    /// Before anything has been done.
    pub const START: Turn = Turn::Gather { at: 0, exponent: None };

    /// Goes on with a tensor, by at most `elements` of either stage.
    pub fn advance(self, rule: &impl Update, tensor: &mut Tensor<'_>, step: &Step, elements: usize) -> Turn {
        let len = tensor.gradient.len();
        let mut left = elements.max(1);
        let mut turn = self;
        loop {
            turn = match turn {
                Turn::Gather { at, exponent } => {
                    let exponent = if at == 0 { rule.exponent(tensor, step) } else { exponent };
                    if let Some(e) = exponent {
                        let end = len.min(at + left);
                        rule.gather(tensor, step, e, at..end);
                        left -= end - at;
                        if end < len {
                            return Turn::Gather { at: end, exponent };
                        }
                    }
                    match rule.settle(tensor, step, exponent) {
                        Some(common) => Turn::Apply { at: 0, exponent, common },
                        None => Turn::Done,
                    }
                }
                Turn::Apply { at, exponent, common } => {
                    let end = len.min(at + left);
                    rule.apply(tensor, step, exponent, common, at..end);
                    if end < len {
                        return Turn::Apply { at: end, exponent, common };
                    }
                    tensor.master.set(tensor.gradient, common);
                    Turn::Done
                }
                Turn::Done => return Turn::Done,
            };
        }
    }
}
