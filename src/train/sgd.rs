//! SGD with momentum, as `torch.optim.SGD`: `v ← μ v + g + λ p`, `p ← p − lr · v`.

use super::moments::{Term, common_exponent, weighted};
use super::optimizer::{Optimizer, is_decay};
use super::update::{Step, Tensor, Update};
use crate::fixed::block::requantize_i32;
use crate::fixed::rounding::bit_length;
use crate::fixed::{Exp, Real};
use core::ops::Range;

/// SGD. Without momentum it keeps no state, and forgets what there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sgd {
    /// Learning rate.
    pub lr: Real,
    /// μ, 0 ≤ μ < 1.
    pub momentum: Real,
    /// λ: L2, added to the gradient as PyTorch does.
    pub weight_decay: Real,
}

impl Sgd {
    /// lr 0.01, momentum 0.9, no decay.
    pub const DEFAULT: Sgd = Sgd { lr: Real::ratio(1, 100), momentum: Real::ratio(9, 10), weight_decay: Real::ZERO };
}

impl Sgd {
    /// What the velocity is a sum of: μ v, g, λ p.
    fn terms(&self, tensor: &Tensor<'_>, step: &Step) -> [Term; 3] {
        let grad = tensor.state.gradient;
        let (first, master) = (tensor.state.first, *tensor.master.exponent);
        let live = |exponent: i16, bits: u32| if exponent == Exp::ZERO.0 { 0 } else { bits };
        [
            Term { factor: step.gradient_factor.scale(grad.exponent()), bits: grad.bits() },
            Term { factor: self.momentum.scale(i32::from(first)), bits: live(first, 15) },
            Term { factor: self.weight_decay.scale(i32::from(master)), bits: live(master, 30) },
        ]
    }
}

impl Update for Sgd {
    fn exponent(&self, tensor: &Tensor<'_>, step: &Step) -> Option<i32> {
        common_exponent(&self.terms(tensor, step))
    }

    fn gather(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: i32, range: Range<usize>) {
        let terms = self.terms(tensor, step);
        let buffer = tensor.gradient.get_mut(range.clone()).unwrap_or(&mut []);
        let momenta = tensor.first.get(range.clone()).unwrap_or(&[]);
        for (i, (g, p)) in buffer.iter_mut().zip(tensor.master.part(range)).enumerate() {
            let m = momenta.get(i).copied().unwrap_or(0);
            *g = weighted(&terms, [*g, i32::from(m), p], exponent);
        }
    }

    fn settle(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>) -> Option<i32> {
        if self.momentum.is_zero() {
            // What a later momentum would go on from: nothing.
            tensor.first.fill(0);
            tensor.state.first = Exp::ZERO.0;
        }
        let exponent = exponent?; // No gradient yet, no momentum, nothing to decay.
        if !self.momentum.is_zero() {
            tensor.state.first = requantize_i32(tensor.gradient, exponent, tensor.first).0;
        }
        let union = tensor.gradient.iter().fold(0_u64, |u, v| u | u64::from(v.unsigned_abs()));
        let bound = step.lr.abs().scale(exponent).scale(bit_length(union) as i32);
        Some(tensor.master.common(bound))
    }

    fn apply(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>, common: i32, range: Range<usize>) {
        let velocity = step.lr.scale(exponent.unwrap_or(0));
        tensor.master.moved(tensor.gradient, range, Real::ONE, common, |_, v| velocity.mul_int(v));
    }
}

impl Optimizer for Sgd {
    fn moments(&self) -> usize {
        usize::from(!self.momentum.is_zero())
    }

    fn tag(&self) -> u8 {
        1
    }

    fn check(&self) -> Result<(), &'static str> {
        let checks = [
            ("lr (0 or more)", !self.lr.is_negative()),
            ("momentum (0 to 1, 1 excluded)", is_decay(self.momentum)),
            ("weight decay (0 or more)", !self.weight_decay.is_negative()),
        ];
        checks.iter().find(|c| !c.1).map_or(Ok(()), |c| Err(c.0))
    }

    fn lr(&self) -> Real {
        self.lr
    }
}
