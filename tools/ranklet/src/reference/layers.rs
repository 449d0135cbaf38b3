//! The layers in `f64`, each as its paper or PyTorch has it, for one token or one row.

use crate::adapter::Pair;
use ranklet::layer::Activation;

/// `W x + b`; the weight is (out, in), row-major.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Module path.
    pub module: String,
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// As the checkpoint has it.
    pub weight: Vec<f32>,
    /// The same, if there is one.
    pub bias: Option<Vec<f32>>,
    /// What adapters add.
    pub added: Vec<Added>,
}

/// What one adapter adds to a layer: `gain ⊙ W x + scaling · B (A x) + bias`.
#[derive(Clone, Debug)]
pub struct Added {
    /// (r, in).
    pub a: Vec<f32>,
    /// (out, r).
    pub b: Vec<f32>,
    /// Rank.
    pub rank: usize,
    /// alpha / r, or alpha / √r.
    pub scaling: f64,
    /// DoRA's g − 1, (out).
    pub gain: Option<Vec<f32>>,
    /// (out).
    pub bias: Option<Vec<f32>>,
}

/// Puts an adapter on, beside those that are on already.
pub fn adapt(layers: &mut [Layer], pairs: &[Pair]) {
    for p in pairs {
        if let Some(layer) = layers.get_mut(p.site) {
            layer.added.push(Added {
                a: p.a.data.clone(),
                b: p.b.data.clone(),
                rank: p.rank(),
                scaling: p.scaling,
                gain: p.gain.clone(),
                bias: p.bias.clone(),
            });
        }
    }
}

impl Layer {
    /// One vector; `adapted`: with what adapters add.
    #[must_use]
    pub fn forward(&self, x: &[f64], adapted: bool) -> Vec<f64> {
        let added: &[Added] = if adapted { &self.added } else { &[] };
        let mut y: Vec<f64> = self.weight.chunks_exact(self.inputs).map(|row| dot(row, x)).collect();
        let base = (added.iter().any(|a| a.gain.is_some())).then(|| y.clone());
        if let Some(bias) = &self.bias {
            y.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
        }
        for adapter in added {
            let u: Vec<f64> = adapter.a.chunks_exact(self.inputs).map(|row| dot(row, x)).collect();
            for (y, row) in y.iter_mut().zip(adapter.b.chunks_exact(adapter.rank.max(1))) {
                *y += adapter.scaling * dot(row, &u);
            }
            if let (Some(gain), Some(base)) = (&adapter.gain, &base) {
                y.iter_mut().zip(gain).zip(base).for_each(|((y, &g), v)| *y += f64::from(g) * v);
            }
            if let Some(bias) = &adapter.bias {
                y.iter_mut().zip(bias).for_each(|(y, &b)| *y += f64::from(b));
            }
        }
        y
    }
}

fn dot(w: &[f32], x: &[f64]) -> f64 {
    w.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum()
}

/// A layer norm, or a norm of the root mean square.
#[derive(Clone, Debug)]
pub struct Norm {
    /// γ.
    pub weight: Vec<f32>,
    /// β, if there is one.
    pub bias: Option<Vec<f32>>,
    /// Without a mean.
    pub rms: bool,
    /// Inside the root.
    pub epsilon: f64,
}

impl Norm {
    /// One vector.
    #[must_use]
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = if self.rms { 0.0 } else { x.iter().sum::<f64>() / n };
        let square = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let factor = 1.0 / (square + self.epsilon).sqrt();
        let scaled = x.iter().zip(&self.weight).map(|(v, &w)| (v - mean) * factor * f64::from(w));
        match &self.bias {
            Some(bias) => scaled.zip(bias).map(|(v, &b)| v + f64::from(b)).collect(),
            None => scaled.collect(),
        }
    }
}

/// What stands behind an activation.
#[must_use]
pub fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
        _ => x,
    }
}

/// Turns the heads of a vector by a position: value i of a head's first half with value i of its second.
pub fn rotate(x: &mut [f64], width: usize, turns: &[u32], position: usize) {
    for head in x.chunks_exact_mut(width) {
        let (first, second) = head.split_at_mut(width / 2);
        for ((a, b), &turns) in first.iter_mut().zip(second).zip(turns) {
            let turn = f64::from(turns.wrapping_mul(position as u32)) / f64::from(2).powi(32);
            let (sine, cosine) = (std::f64::consts::TAU * turn).sin_cos();
            (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
        }
    }
}

/// `Σ softmax(scores)_j values_j`; nothing where there is nothing to look at.
#[must_use]
pub fn attend(scores: &[f64], values: &[&[f64]], width: usize) -> Vec<f64> {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let p: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
    let sum: f64 = p.iter().sum();
    let mut out = vec![0.0; width];
    for (p, value) in p.iter().zip(values) {
        out.iter_mut().zip(*value).for_each(|(o, v)| *o += p / sum * v);
    }
    out
}
