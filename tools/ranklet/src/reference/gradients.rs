//! The gradients of what learns: of adapters, or of everything.

use super::layers::{Layer, Norm};
use super::scalar::{Scalar, add, dot};

/// Gradients, shaped like what they belong to.
#[derive(Clone, Debug)]
pub struct Gradients<S> {
    /// Of every adapter on every layer: dA, dB.
    pub added: Vec<Vec<[Vec<S>; 2]>>,
    /// Of the layers and norms themselves, where those learn too.
    pub whole: Option<Whole<S>>,
}

/// Of weights and biases; the second is empty where there is none.
#[derive(Clone, Debug)]
pub struct Whole<S> {
    /// Of layers.
    pub layers: Vec<[Vec<S>; 2]>,
    /// Of norms.
    pub norms: Vec<[Vec<S>; 2]>,
}

impl<S: Scalar> Gradients<S> {
    /// Zeros. `whole`: for layers and norms, too.
    #[must_use]
    pub fn new(layers: &[Layer<S>], norms: &[Norm<S>], whole: bool) -> Gradients<S> {
        let zeros = |like: &[S]| vec![S::ZERO; like.len()];
        let added = |l: &Layer<S>| l.added.iter().map(|a| [zeros(&a.a), zeros(&a.b)]).collect();
        let none = &vec![];
        let whole = whole.then(|| Whole {
            layers: layers.iter().map(|l| [zeros(&l.weight), zeros(l.bias.as_ref().unwrap_or(none))]).collect(),
            norms: norms.iter().map(|n| [zeros(&n.weight), zeros(n.bias.as_ref().unwrap_or(none))]).collect(),
        });
        Gradients { added: layers.iter().map(added).collect(), whole }
    }

    /// All tensors: of adapters in the order of the layers, A before B; then of the layers and norms.
    pub fn tensors(&mut self) -> Vec<&mut Vec<S>> {
        let whole = self.whole.as_mut().into_iter().flat_map(|w| w.layers.iter_mut().chain(&mut w.norms)).flatten();
        self.added.iter_mut().flatten().flatten().chain(whole).collect()
    }

    /// One row of a layer; `dx`. Gains and biases of adapters do not learn.
    pub(super) fn layer(&mut self, site: usize, layer: &Layer<S>, x: &[S], dy: &[S], adapted: bool) -> Vec<S> {
        let mut dx = vec![S::ZERO; x.len()];
        let added = if adapted { &layer.added[..] } else { &[] };
        for (o, row) in layer.weight.chunks_exact(layer.inputs).enumerate() {
            let gain: S = added.iter().filter_map(|a| a.gain.as_ref()).map(|g| g[o]).sum();
            add(&mut dx, dy[o] * (S::ONE + gain), row);
        }
        if let Some([weight, bias]) = self.whole.as_mut().map(|w| &mut w.layers[site]) {
            weight.chunks_exact_mut(layer.inputs).zip(dy).for_each(|(row, &d)| add(row, d, x));
            add(bias, S::ONE, dy);
        }
        for (adapter, [da, db]) in added.iter().zip(&mut self.added[site]) {
            let u = adapter.narrow(x, layer.inputs);
            let mut t = vec![S::ZERO; adapter.rank];
            for ((b, db), &d) in adapter.b.chunks_exact(adapter.rank).zip(db.chunks_exact_mut(adapter.rank)).zip(dy) {
                add(&mut t, adapter.scaling * d, b);
                add(db, adapter.scaling * d, &u);
            }
            for ((a, da), &t) in adapter.a.chunks_exact(layer.inputs).zip(da.chunks_exact_mut(layer.inputs)).zip(&t) {
                add(&mut dx, t, a);
                add(da, t, x);
            }
        }
        dx
    }

    /// One row of a norm; `dx`. With `h` the standardised row and `g = γ ⊙ dy`:
    /// `dx = (g − mean(g) − h mean(g h)) / deviation`, without `mean(g)` where no mean was taken.
    pub(super) fn norm(&mut self, index: usize, norm: &Norm<S>, x: &[S], dy: &[S]) -> Vec<S> {
        let (h, factor) = norm.standard(x);
        if let Some([weight, bias]) = self.whole.as_mut().map(|w| &mut w.norms[index]) {
            weight.iter_mut().zip(dy).zip(&h).for_each(|((w, &d), &h)| *w += d * h);
            add(bias, S::ONE, dy);
        }
        let n = S::of(x.len() as f64);
        let g: Vec<S> = dy.iter().zip(&norm.weight).map(|(&d, &w)| d * w).collect();
        let mean = if norm.rms { S::ZERO } else { g.iter().copied().sum::<S>() / n };
        let slope = dot(&g, &h) / n;
        g.iter().zip(&h).map(|(&g, &h)| (g - mean - h * slope) * factor).collect()
    }
}
