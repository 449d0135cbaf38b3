//! `torch.optim.SGD` and `torch.optim.AdamW`, in their order of operations.

use super::Scalar;

/// An optimizer and its hyper-parameters.
#[derive(Clone, Copy, Debug)]
pub enum Optimizer {
    /// `v ← μ v + g + λ p`, `p ← p − lr v`.
    Sgd {
        /// Learning rate.
        lr: f64,
        /// μ.
        momentum: f64,
        /// λ.
        weight_decay: f64,
    },
    /// Decoupled weight decay, bias-corrected moments.
    AdamW {
        /// Learning rate.
        lr: f64,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// ε.
        epsilon: f64,
        /// λ.
        weight_decay: f64,
    },
}

/// The state of one tensor.
#[derive(Clone, Debug)]
pub struct Moments<T> {
    first: Vec<T>,
    second: Vec<T>,
}

impl<T: Scalar> Moments<T> {
    /// Before the first step.
    #[must_use]
    pub fn new(len: usize) -> Moments<T> {
        Moments { first: vec![T::ZERO; len], second: vec![T::ZERO; len] }
    }
}

impl From<ranklet::train::Rule> for Optimizer {
    fn from(rule: ranklet::train::Rule) -> Self {
        match rule {
            ranklet::train::Rule::Sgd(o) => o.into(),
            ranklet::train::Rule::AdamW(o) => o.into(),
        }
    }
}

impl From<ranklet::train::Sgd> for Optimizer {
    fn from(o: ranklet::train::Sgd) -> Self {
        Optimizer::Sgd { lr: o.lr.to_f64(), momentum: o.momentum.to_f64(), weight_decay: o.weight_decay.to_f64() }
    }
}

impl From<ranklet::train::AdamW> for Optimizer {
    fn from(o: ranklet::train::AdamW) -> Self {
        Optimizer::AdamW {
            lr: o.lr.to_f64(),
            beta1: o.beta1.to_f64(),
            beta2: o.beta2.to_f64(),
            epsilon: o.epsilon.to_f64(),
            weight_decay: o.weight_decay.to_f64(),
        }
    }
}

impl Optimizer {
    /// One step of one tensor. `number` is 1 for the first; `factor` is the schedule's.
    pub fn update<T: Scalar>(&self, p: &mut [T], g: &[T], moments: &mut Moments<T>, number: u32, factor: f64) {
        let states = moments.first.iter_mut().zip(&mut moments.second);
        match *self {
            Optimizer::Sgd { lr, momentum, weight_decay } => {
                let (lr, momentum, decay) = (T::of(lr * factor), T::of(momentum), T::of(weight_decay));
                for ((p, &g), (v, _)) in p.iter_mut().zip(g).zip(states) {
                    *v = momentum * *v + (g + decay * *p);
                    *p = *p - lr * *v;
                }
            }
            Optimizer::AdamW { lr, beta1, beta2, epsilon, weight_decay } => {
                // The scalars are Python floats there, so `f64` here, and meet the tensors rounded once.
                let lr = lr * factor;
                let step = T::of(lr / (1.0 - beta1.powi(number as i32)));
                let correction = T::of((1.0 - beta2.powi(number as i32)).sqrt());
                let (keep, epsilon) = (T::of(1.0 - lr * weight_decay), T::of(epsilon));
                let (fresh1, beta2, fresh2) = (T::of(1.0 - beta1), T::of(beta2), T::of(1.0 - beta2));
                for ((p, &g), (m, v)) in p.iter_mut().zip(g).zip(states) {
                    *p = *p * keep;
                    *m += (g - *m) * fresh1; // lerp
                    *v = *v * beta2 + fresh2 * g * g;
                    *p = *p - step * (*m / (v.root() / correction + epsilon));
                }
            }
        }
    }
}
