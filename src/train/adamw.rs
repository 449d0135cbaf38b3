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
use super::optimizer::{Optimizer, is_decay};
use super::update::{Step, Tensor, Update};
use crate::fixed::block::requantize_i32;
use crate::fixed::{Exp, Real};
use core::ops::Range;

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

impl AdamW {
    /// What the first moment is a sum of: (1 − β1) g, β1 m.
    fn terms(&self, tensor: &Tensor<'_>, step: &Step) -> [Term; 3] {
        let (grad, first) = (tensor.state.gradient, tensor.state.first);
        [
            Term { factor: grad_scale(tensor, step).mul(Real::ONE.sub(self.beta1)), bits: grad.bits() },
            Term { factor: self.beta1.scale(i32::from(first)), bits: if first == Exp::ZERO.0 { 0 } else { 15 } },
            Term { factor: Real::ZERO, bits: 0 },
        ]
    }

    /// What is left of a parameter.
    const fn decay(&self, step: &Step) -> Real {
        Real::ONE.sub(step.lr.mul(self.weight_decay))
    }
}

/// What an accumulated value is multiplied by.
fn grad_scale(tensor: &Tensor<'_>, step: &Step) -> Real {
    step.gradient_factor.scale(tensor.state.gradient.exponent())
}

impl Update for AdamW {
    fn exponent(&self, tensor: &Tensor<'_>, step: &Step) -> Option<i32> {
        common_exponent(&self.terms(tensor, step))
    }

    fn gather(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: i32, range: Range<usize>) {
        let (terms, scale) = (self.terms(tensor, step), grad_scale(tensor, step));
        let mut v = Second { codes: tensor.second, offset: &mut tensor.state.second };
        let fresh = Real::ONE.sub(self.beta2);
        let buffer = tensor.gradient.get_mut(range.clone()).unwrap_or(&mut []);
        let first = tensor.first.get(range.clone()).unwrap_or(&[]);
        for ((i, g), &m) in range.zip(buffer).zip(first) {
            let value = scale.mul_int(*g);
            let squares = self.beta2.mul(v.get(i)).add(fresh.mul(value.mul(value)));
            v.set(i, squares, step.dither.at(i as u32));
            *g = weighted(&terms, [*g, i32::from(m), 0], exponent);
        }
    }

    fn settle(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>) -> Option<i32> {
        let Some(exponent) = exponent else {
            // Never had a gradient: only the decay acts.
            return (self.decay(step) != Real::ONE).then(|| tensor.master.common(Real::ZERO));
        };
        Second { codes: tensor.second, offset: &mut tensor.state.second }.recentre();
        tensor.state.first = requantize_i32(tensor.gradient, exponent, tensor.first).0;
        Some(tensor.master.common(step.lr.abs().mul(CLAMP)))
    }

    fn apply(&self, tensor: &mut Tensor<'_>, step: &Step, exponent: Option<i32>, common: i32, range: Range<usize>) {
        let Tensor { master, gradient, second, state, .. } = tensor;
        let Some(exponent) = exponent else {
            return master.moved(gradient, range, self.decay(step), common, |_, _| Real::ZERO);
        };
        let v = Second { codes: second, offset: &mut state.second };
        let correction1 = Real::ONE.sub(self.beta1.powi(step.number));
        let correction2 = Real::ONE.sub(self.beta2.powi(step.number)).rsqrt();
        let rate = step.lr.div(correction1);
        let limit = CLAMP.mul(correction1);
        master.moved(gradient, range, self.decay(step), common, |i, m| {
            let root = v.get(i).sqrt().mul(correction2);
            let u = Real::new(i64::from(m), exponent).div(root.add(self.epsilon));
            let u = if u.is_negative() { u.abs().min(limit).neg() } else { u.min(limit) };
            rate.mul(u)
        });
    }
}

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
}
