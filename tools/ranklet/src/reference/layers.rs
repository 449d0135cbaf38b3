//! What a network is made of: linear layers with what adapters add, norms, activations. Each as its paper or PyTorch has it.

use super::scalar::{Scalar, convert, dot};
use crate::adapter::Pair;
use ranklet::layer::Activation;
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// `W x + b`; the weight is (out, in), row-major.
#[derive(Clone, Debug)]
pub struct Layer<S = f64> {
    /// Module path.
    pub module: String,
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// (out, in).
    pub weight: Vec<S>,
    /// (out), if there is one.
    pub bias: Option<Vec<S>>,
    /// What adapters add.
    pub added: Vec<Added<S>>,
}

/// What one adapter adds to a layer: `gain ⊙ W x + scaling · B (A x) + bias`.
#[derive(Clone, Debug)]
pub struct Added<S = f64> {
    /// (r, in).
    pub a: Vec<S>,
    /// (out, r).
    pub b: Vec<S>,
    /// Rank.
    pub rank: usize,
    /// alpha / r, or alpha / √r.
    pub scaling: S,
    /// DoRA's g − 1, (out).
    pub gain: Option<Vec<S>>,
    /// (out).
    pub bias: Option<Vec<S>>,
}

/// Puts an adapter on, beside those that are on already.
pub fn adapt<S: Scalar>(layers: &mut [Layer<S>], pairs: &[Pair]) {
    for p in pairs {
        if let Some(layer) = layers.get_mut(p.site) {
            layer.added.push(Added {
                a: convert(&p.a.data),
                b: convert(&p.b.data),
                rank: p.rank(),
                scaling: S::of(p.scaling),
                gain: p.gain.as_deref().map(convert),
                bias: p.bias.as_deref().map(convert),
            });
        }
    }
}

impl<S: Scalar> Layer<S> {
    /// The same in another precision.
    #[must_use]
    pub fn convert<T: Scalar>(&self) -> Layer<T> {
        let added = |a: &Added<S>| Added {
            a: convert(&a.a),
            b: convert(&a.b),
            rank: a.rank,
            scaling: T::of(a.scaling.wide()),
            gain: a.gain.as_deref().map(convert),
            bias: a.bias.as_deref().map(convert),
        };
        Layer {
            module: self.module.clone(),
            inputs: self.inputs,
            outputs: self.outputs,
            weight: convert(&self.weight),
            bias: self.bias.as_deref().map(convert),
            added: self.added.iter().map(added).collect(),
        }
    }

    /// One vector; `adapted`: with what adapters add.
    #[must_use]
    pub fn forward(&self, x: &[S], adapted: bool) -> Vec<S> {
        let added: &[Added<S>] = if adapted { &self.added } else { &[] };
        let product: Vec<S> = self.weight.chunks_exact(self.inputs).map(|row| dot(row, x)).collect();
        let mut y = product.clone();
        let mut plus = |values: &[S]| y.iter_mut().zip(values).for_each(|(y, &v)| *y += v);
        plus(self.bias.as_deref().unwrap_or(&[]));
        for adapter in added {
            let u = adapter.narrow(x, self.inputs);
            let rows = adapter.b.chunks_exact(adapter.rank.max(1));
            plus(&rows.map(|row| adapter.scaling * dot(row, &u)).collect::<Vec<_>>());
            if let Some(gain) = &adapter.gain {
                plus(&gain.iter().zip(&product).map(|(&g, &v)| g * v).collect::<Vec<_>>());
            }
            plus(adapter.bias.as_deref().unwrap_or(&[]));
        }
        y
    }
}

impl<S: Scalar> Added<S> {
    /// A x.
    pub(super) fn narrow(&self, x: &[S], inputs: usize) -> Vec<S> {
        self.a.chunks_exact(inputs).map(|row| dot(row, x)).collect()
    }
}

/// A layer norm, or a norm of the root mean square.
#[derive(Clone, Debug)]
pub struct Norm<S = f64> {
    /// γ.
    pub weight: Vec<S>,
    /// β, if there is one.
    pub bias: Option<Vec<S>>,
    /// Without a mean.
    pub rms: bool,
    /// Inside the root.
    pub epsilon: f64,
}

impl<S: Scalar> Norm<S> {
    /// The same in another precision.
    #[must_use]
    pub fn convert<T: Scalar>(&self) -> Norm<T> {
        let bias = self.bias.as_deref().map(convert);
        Norm { weight: convert(&self.weight), bias, rms: self.rms, epsilon: self.epsilon }
    }

    /// x without its mean, divided by its deviation; and 1 / deviation.
    pub(super) fn standard(&self, x: &[S]) -> (Vec<S>, S) {
        let n = S::of(x.len() as f64);
        let mean = if self.rms { S::ZERO } else { x.iter().copied().sum::<S>() / n };
        let square = x.iter().map(|&v| (v - mean) * (v - mean)).sum::<S>() / n;
        let factor = S::ONE / (square + S::of(self.epsilon)).root();
        (x.iter().map(|&v| (v - mean) * factor).collect(), factor)
    }
}

/// What stands behind an activation.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => x * normal(x),
        Activation::GeluTanh => 0.5 * x * (1.0 + inner(x).tanh()),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        _ => x,
    }
}

/// Its slope.
#[must_use]
pub fn slope(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => f64::from(u8::from(x > 0.0)),
        Activation::Gelu => normal(x) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt(),
        Activation::GeluTanh => {
            let t = inner(x).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * (2.0 / PI).sqrt() * (1.0 + 3.0 * 0.044715 * x * x)
        }
        Activation::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
        Activation::Tanh => 1.0 - x.tanh().powi(2),
        _ => 1.0,
    }
}

fn normal(x: f64) -> f64 {
    0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2))
}

fn inner(x: f64) -> f64 {
    (2.0 / PI).sqrt() * (x + 0.044715 * x.powi(3))
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Turns the heads of a vector by a position: value i of a head's first half with value i of its second; `back`: the other way.
pub fn rotate<S: Scalar>(x: &mut [S], width: usize, turns: &[u32], position: usize, back: bool) {
    for head in x.chunks_exact_mut(width) {
        let (first, second) = head.split_at_mut(width / 2);
        for ((a, b), &turns) in first.iter_mut().zip(second).zip(turns) {
            let turn = f64::from(turns.wrapping_mul(position as u32)) / f64::from(2).powi(32);
            let (sine, cosine) = (std::f64::consts::TAU * turn).sin_cos();
            let (sine, cosine) = (S::of(if back { -sine } else { sine }), S::of(cosine));
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_the_difference_quotients() {
        use Activation::{Gelu, GeluTanh, None, Relu, Silu, Tanh};
        for activation in [None, Relu, Gelu, GeluTanh, Silu, Tanh] {
            for x in [-3.0, -0.7, 0.3, 2.5] {
                let quotient = (activate(activation, x + 1e-6) - activate(activation, x - 1e-6)) / 2e-6;
                assert!((quotient - slope(activation, x)).abs() < 1e-8, "{activation:?} at {x}");
            }
        }
    }
}
