//! `y = act(W x + b + Σ s · B (A x))`, layer after layer, and its gradients.

use super::scalar::{Scalar, convert};
use ranklet::fixed::Real;
use ranklet::fixed::hash::Seed;
use ranklet::layer::Dropout;

/// A frozen linear layer.
#[derive(Clone, Debug)]
pub struct Linear<T> {
    /// Width of x.
    pub inputs: usize,
    /// Width of y.
    pub outputs: usize,
    /// `(outputs, inputs)`, row-major.
    pub weight: Vec<T>,
    /// `(outputs)`; zeros where there is none.
    pub bias: Vec<T>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// A low-rank pair on one layer.
#[derive(Clone, Debug)]
pub struct Pair<T> {
    /// Index of the layer.
    pub site: usize,
    /// Rows of A.
    pub rank: usize,
    /// `(rank, inputs)`, row-major.
    pub a: Vec<T>,
    /// `(outputs, rank)`, row-major.
    pub b: Vec<T>,
    /// s.
    pub scaling: T,
}

/// The gradients of one pair.
#[derive(Clone, Debug)]
pub struct PairGradient<T> {
    /// As A.
    pub a: Vec<T>,
    /// As B.
    pub b: Vec<T>,
}

/// Dropout of one sample: the core's own mask, because "the same dropout" is what is to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    /// Probability.
    pub p: f64,
    /// The trainer's seed.
    pub seed: Seed,
    /// The sample's number, 1 for the first.
    pub sample: u32,
}

impl Masks {
    /// What input `index` of the pair on `site` is multiplied by.
    fn factor<T: Scalar>(self, site: usize, index: usize) -> T {
        match Dropout::new(Real::from_f64(self.p), self.seed, self.sample, site as u32) {
            Some(d) if !d.keeps(index) => T::ZERO,
            Some(_) => T::of(1.0 / (1.0 - self.p)),
            None => T::ONE,
        }
    }
}

/// A multilayer perceptron.
#[derive(Clone, Debug)]
pub struct Mlp<T> {
    /// Subtracted from the input; empty without normalisation.
    pub mean: Vec<T>,
    /// Multiplied then; empty without normalisation.
    pub factor: Vec<T>,
    /// In the order of the data's way.
    pub layers: Vec<Linear<T>>,
}

/// `(rows, x.len())` times x.
fn product<T: Scalar>(w: &[T], x: &[T]) -> Vec<T> {
    w.chunks_exact(x.len()).map(|row| row.iter().zip(x).map(|(&w, &x)| w * x).sum()).collect()
}

/// The transpose of `(g.len(), columns)` times g.
fn transposed<T: Scalar>(w: &[T], columns: usize, g: &[T]) -> Vec<T> {
    let mut out = vec![T::ZERO; columns];
    for (row, &g) in w.chunks_exact(columns).zip(g) {
        out.iter_mut().zip(row).for_each(|(o, &w)| *o += w * g);
    }
    out
}

fn outer<T: Scalar>(left: &[T], right: &[T], s: T) -> Vec<T> {
    left.iter().flat_map(|&l| right.iter().map(move |&r| s * l * r)).collect()
}

impl<T: Scalar> Pair<T> {
    /// The same in another precision.
    #[must_use]
    pub fn convert<S: Scalar>(&self) -> Pair<S> {
        let Pair { site, rank, .. } = *self;
        Pair { site, rank, a: convert(&self.a), b: convert(&self.b), scaling: S::of(self.scaling.wide()) }
    }

    fn input(&self, x: &[T], masks: Option<Masks>) -> Vec<T> {
        match masks {
            None => x.to_vec(),
            Some(m) => x.iter().enumerate().map(|(i, &x)| x * m.factor(self.site, i)).collect(),
        }
    }
}

impl<T: Scalar> Mlp<T> {
    /// The same in another precision.
    #[must_use]
    pub fn convert<S: Scalar>(&self) -> Mlp<S> {
        let layers = self.layers.iter().map(|l| Linear {
            inputs: l.inputs,
            outputs: l.outputs,
            weight: convert(&l.weight),
            bias: convert(&l.bias),
            relu: l.relu,
        });
        Mlp { mean: convert(&self.mean), factor: convert(&self.factor), layers: layers.collect() }
    }

    /// Adds `s · B A` into the weights: what merging an adapter means. Masks have no part in it.
    #[must_use]
    pub fn merged(&self, pairs: &[Pair<T>]) -> Mlp<T> {
        let mut merged = self.clone();
        for p in pairs {
            let layer = &mut merged.layers[p.site];
            for (w, b) in layer.weight.chunks_exact_mut(layer.inputs).zip(p.b.chunks_exact(p.rank)) {
                let row = transposed(&p.a, layer.inputs, b);
                w.iter_mut().zip(row).for_each(|(w, d)| *w += p.scaling * d);
            }
        }
        merged
    }

    /// The input of every layer, and the output. Several pairs on one layer add up.
    #[must_use]
    pub fn trace(&self, input: &[T], pairs: &[Pair<T>], masks: Option<Masks>) -> Vec<Vec<T>> {
        let mut x = input.to_vec();
        for ((x, &m), &f) in x.iter_mut().zip(&self.mean).zip(&self.factor) {
            *x = (*x - m) * f;
        }
        let mut trace = vec![x];
        for (site, layer) in self.layers.iter().enumerate() {
            let x = &trace[site];
            let mut y = product(&layer.weight, x);
            y.iter_mut().zip(&layer.bias).for_each(|(y, &b)| *y += b);
            for p in pairs.iter().filter(|p| p.site == site) {
                let u = product(&p.a, &p.input(x, masks));
                y.iter_mut().zip(product(&p.b, &u)).for_each(|(y, d)| *y += p.scaling * d);
            }
            if layer.relu {
                y.iter_mut().for_each(|y| *y = y.larger(T::ZERO));
            }
            trace.push(y);
        }
        trace
    }

    /// The output alone, without dropout.
    #[must_use]
    pub fn run(&self, input: &[T], pairs: &[Pair<T>]) -> Vec<T> {
        self.trace(input, pairs, None).pop().unwrap_or_default()
    }

    /// From dL/dy: the gradients of every pair, in their order, and that of the (normalised) input.
    #[must_use]
    pub fn backward(
        &self,
        trace: &[Vec<T>],
        pairs: &[Pair<T>],
        masks: Option<Masks>,
        dy: &[T],
    ) -> (Vec<PairGradient<T>>, Vec<T>) {
        let mut gradients = vec![PairGradient { a: Vec::new(), b: Vec::new() }; pairs.len()];
        let mut dy = dy.to_vec();
        for (site, layer) in self.layers.iter().enumerate().rev() {
            if layer.relu {
                let dead = trace[site + 1].iter().map(|&y| y <= T::ZERO);
                dy.iter_mut().zip(dead).filter(|(_, dead)| *dead).for_each(|(d, _)| *d = T::ZERO);
            }
            let mut dx = transposed(&layer.weight, layer.inputs, &dy);
            for (p, g) in pairs.iter().zip(&mut gradients).filter(|(p, _)| p.site == site) {
                let x = p.input(&trace[site], masks);
                let t: Vec<T> = transposed(&p.b, p.rank, &dy).iter().map(|&t| p.scaling * t).collect();
                g.a = outer(&t, &x, T::ONE);
                g.b = outer(&dy, &product(&p.a, &x), p.scaling);
                for (i, (dx, d)) in dx.iter_mut().zip(transposed(&p.a, layer.inputs, &t)).enumerate() {
                    *dx += d * masks.map_or(T::ONE, |m| m.factor(site, i));
                }
            }
            dy = dx;
        }
        (gradients, dy)
    }
}
