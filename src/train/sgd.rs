//! SGD with momentum, as `torch.optim.SGD`: `v ← μ v + g + λ p`, `p ← p − lr · v`.

use super::moments::{Term, common_exponent, weighted};
use super::optimizer::sealed::Sealed;
use super::optimizer::{Optimizer, Step, Tensor, is_decay};
use crate::fixed::block::requantize_i32;
use crate::fixed::rounding::bit_length;
use crate::fixed::{Exp, Real};

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

impl Sealed for Sgd {}

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

    fn update(&self, tensor: Tensor<'_>, step: &Step) {
        let Tensor { mut master, gradient, first, state, .. } = tensor;
        let keeps = !self.momentum.is_zero();
        if !keeps {
            // What a later momentum would go on from: nothing.
            first.fill(0);
            state.first = Exp::ZERO.0;
        }
        let grad = state.gradient;
        let live = |exponent: i16, bits: u32| if exponent == Exp::ZERO.0 { 0 } else { bits };
        let terms = [
            Term { factor: step.gradient_factor.scale(grad.exponent()), bits: grad.bits() },
            Term { factor: self.momentum.scale(i32::from(state.first)), bits: live(state.first, 15) },
            Term { factor: self.weight_decay.scale(i32::from(*master.exponent)), bits: live(*master.exponent, 30) },
        ];
        let Some(exponent) = common_exponent(&terms) else {
            return; // no gradient yet, no momentum, nothing to decay
        };
        let momenta = first.iter().copied().chain(core::iter::repeat(0));
        for ((g, m), p) in gradient.iter_mut().zip(momenta).zip(master.values()) {
            *g = weighted(&terms, [*g, i32::from(m), p], exponent);
        }
        if keeps {
            state.first = requantize_i32(gradient, exponent, first).0;
        }
        let union = gradient.iter().fold(0_u64, |u, v| u | u64::from(v.unsigned_abs()));
        let velocity = step.lr.scale(exponent);
        let bound = velocity.abs().scale(bit_length(union) as i32);
        master.update(gradient, Real::ONE, bound, |_, v| velocity.mul_int(v));
    }
}
