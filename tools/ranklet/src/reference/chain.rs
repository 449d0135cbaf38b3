//! A multilayer perceptron in `f64`, from the checkpoint's own values.

use super::Seen;
use super::layers::Layer;
use super::scalar::convert;
use crate::base::{Base, Normalization};

/// Layers one behind the other.
#[derive(Debug)]
pub struct Chain {
    /// In the order of the data's way, which is that of the sites.
    pub layers: Vec<Layer>,
    relu: bool,
    normalization: Option<Normalization>,
}

impl Chain {
    /// Of a base.
    #[must_use]
    pub fn of(base: Base) -> Chain {
        let layer = |l: crate::base::Linear| Layer {
            module: l.module,
            inputs: l.weight.cols,
            outputs: l.weight.rows,
            weight: convert(&l.weight.data),
            bias: l.bias.as_deref().map(convert),
            added: vec![],
        };
        Chain {
            layers: base.linears.into_iter().map(layer).collect(),
            relu: base.spec.relu,
            normalization: base.normalization,
        }
    }

    /// One row of features; what its last layer gives.
    pub fn run(&self, row: &[f32], adapted: bool, each: &mut dyn FnMut(Seen<'_>)) -> Vec<f64> {
        let mut x: Vec<f64> = row.iter().map(|&v| f64::from(v)).collect();
        if let Some(n) = &self.normalization {
            let scales = n.mean.iter().zip(&n.std);
            x.iter_mut().zip(scales).for_each(|(x, (&mean, &std))| *x = (*x - f64::from(mean)) / f64::from(std));
        }
        for (site, layer) in self.layers.iter().enumerate() {
            let y = layer.forward(&x, adapted);
            each(Seen::Linear { site, x: &x, y: &y });
            let between = self.relu && site + 1 < self.layers.len();
            x = if between { y.into_iter().map(|y| y.max(0.0)).collect() } else { y };
        }
        x
    }
}
