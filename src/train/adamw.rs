//! AdamW (Loshchilov & Hutter, arXiv:1711.05101), as `torch.optim.AdamW`:
//!
//! ```text
//! p ← p (1 − lr λ)      m ← β1 m + (1 − β1) g      v ← β2 v + (1 − β2) g²
//! p ← p − lr · clamp( (m / (1 − β1^t)) / (√(v / (1 − β2^t)) + ε), ±8 )
//! ```
//!
//! The clamp is the only difference from PyTorch. With exact moments |u| cannot exceed
//! (1 − β1) / √((1 − β2)(1 − β1²/β2)), 7.3 at the default betas: there it acts only on rounding. Betas with a larger
//! limit (β2 = 0.9999: 23) are clamped where PyTorch would not. The update uses m in 30 bits, before it is stored in 16.

use super::moments::{Second, Term, common_exponent, weighted};
use super::optimizer::sealed::Sealed;
use super::optimizer::{Optimizer, Step, Tensor, is_decay};
use crate::fixed::block::requantize_i32;
use crate::fixed::{Exp, Real};

/// The largest |u|.
const CLAMP: Real = Real::int(8);

/// AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: Real,
    /// Decay of the first moment.
    pub beta1: Real,
    /// Decay of the second moment.
    pub beta2: Real,
    /// Keeps the denominator from 0.
    pub epsilon: Real,
    /// λ, decoupled: applied to the parameter, not to the gradient.
    pub weight_decay: Real,
}

impl AdamW {
    /// lr 1e-3, betas (0.9, 0.999), ε 1e-8, and **no** weight decay (PyTorch: 0.01).
    pub const DEFAULT: AdamW = AdamW {
        lr: Real::ratio(1, 1000),
        beta1: Real::ratio(9, 10),
        beta2: Real::ratio(999, 1000),
        epsilon: Real::ratio(1, 100_000_000),
        weight_decay: Real::ZERO,
    };
}

impl Sealed for AdamW {}

impl Optimizer for AdamW {
    fn moments(&self) -> usize {
        2
    }

    fn tag(&self) -> u8 {
        2
    }

    fn check(&self) -> Result<(), &'static str> {
        let checks = [
            ("lr (0 or more)", !self.lr.is_negative()),
            ("beta1 (0 to 1, 1 excluded)", is_decay(self.beta1)),
            ("beta2 (0 to 1, 1 excluded)", is_decay(self.beta2)),
            ("epsilon (0 or more)", !self.epsilon.is_negative()),
            ("weight decay (0 or more, and lr times it at most 1)", {
                !self.weight_decay.is_negative() && !Real::ONE.less_than(self.lr.mul(self.weight_decay))
            }),
        ];
        checks.iter().find(|c| !c.1).map_or(Ok(()), |c| Err(c.0))
    }

    fn lr(&self) -> Real {
        self.lr
    }

    fn update(&self, tensor: Tensor<'_>, step: &Step) {
        let Tensor { mut master, gradient, first, second, state } = tensor;
        let scale = step.gradient_factor.scale(state.gradient.exponent());
        let first_bits = if state.first == Exp::ZERO.0 { 0 } else { 15 };
        let terms = [
            Term { factor: scale.mul(Real::ONE.sub(self.beta1)), bits: state.gradient.bits() },
            Term { factor: self.beta1.scale(i32::from(state.first)), bits: first_bits },
            Term { factor: Real::ZERO, bits: 0 },
        ];
        let decay = Real::ONE.sub(step.lr.mul(self.weight_decay));
        let Some(exponent) = common_exponent(&terms) else {
            // Never had a gradient: only the decay acts.
            if decay != Real::ONE {
                master.update(gradient, decay, Real::ZERO, |_, _| Real::ZERO);
            }
            return;
        };

        let mut v = Second { codes: second, offset: &mut state.second };
        let fresh = Real::ONE.sub(self.beta2);
        for (i, (g, &m)) in gradient.iter_mut().zip(first.iter()).enumerate() {
            let value = scale.mul_int(*g);
            let squares = self.beta2.mul(v.get(i)).add(fresh.mul(value.mul(value)));
            v.set(i, squares, step.dither.at(i as u32));
            *g = weighted(&terms, [*g, i32::from(m), 0], exponent);
        }
        v.recentre();
        state.first = requantize_i32(gradient, exponent, first).0;

        let correction1 = Real::ONE.sub(self.beta1.powi(step.number));
        let correction2 = Real::ONE.sub(self.beta2.powi(step.number)).rsqrt();
        let rate = step.lr.div(correction1);
        let limit = CLAMP.mul(correction1);
        master.update(gradient, decay, step.lr.abs().mul(CLAMP), |i, m| {
            let root = v.get(i).sqrt().mul(correction2);
            let u = Real::new(i64::from(m), exponent).div(root.add(self.epsilon));
            let u = if u.is_negative() { u.abs().min(limit).neg() } else { u.min(limit) };
            rate.mul(u)
        });
    }
}
