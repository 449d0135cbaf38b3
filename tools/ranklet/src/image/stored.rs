//! The base's weights as an adapter is used on them, and so what DoRA's norms and the differences of whole layers and
//! biases are taken against: those of an image, or a checkpoint's own where nothing is quantized.

use super::sites;
use crate::adapter::Site;
use crate::quantize::{exp2, i4};
use crate::reference::layers::Layer;
use ranklet::kernel::Weights;
use ranklet::layer::Linear;
use ranklet::model::Model;

/// The linear layers of a base.
#[derive(Clone, Debug)]
pub struct Stored<'a> {
    sites: Vec<Site>,
    values: Values<'a>,
}

/// Where the numbers are.
#[derive(Clone, Debug)]
enum Values<'a> {
    Image(Vec<Linear<'a>>),
    Floats(&'a [Layer]),
}

impl<'a> Stored<'a> {
    /// Of a base's image.
    #[must_use]
    pub fn of(model: &Model<'a>) -> Stored<'a> {
        let linears = (0..model.spec().linears).map(|s| model.linear(s)).collect();
        Stored { sites: sites(model), values: Values::Image(linears) }
    }

    /// Of a checkpoint.
    #[must_use]
    pub fn floats(layers: &'a [Layer]) -> Stored<'a> {
        let site = |l: &Layer| Site { module: l.module.clone(), inputs: l.inputs, outputs: l.outputs };
        Stored { sites: layers.iter().map(site).collect(), values: Values::Floats(layers) }
    }

    /// Names and dimensions, in the order of the sites.
    #[must_use]
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The weight at (row, column) of a site, exactly.
    #[must_use]
    pub fn value(&self, site: usize, row: usize, col: usize) -> f64 {
        match &self.values {
            Values::Image(linears) => weight(&linears[site], row, col),
            Values::Floats(layers) => layers[site].weight[row * layers[site].inputs + col],
        }
    }

    /// How far a weight may be from the checkpoint's because it was quantized: half a step, or more for coarse types.
    #[must_use]
    pub fn tolerance(&self, site: usize, row: usize) -> f64 {
        let Values::Image(linears) = &self.values else { return 0.0 };
        // Half a step; a 4-bit group of the coarsest scale, clipped by up to 0.3 of its peak, is 63 steps of 7 · 0.3.
        let steps = if matches!(linears[site].weights, Weights::I4(_)) { 133.0 } else { 0.500_001 };
        steps * step(&linears[site], row)
    }

    /// The bias of a site, exactly, if it has one.
    #[must_use]
    pub fn bias(&self, site: usize) -> Option<Vec<f64>> {
        match &self.values {
            Values::Image(linears) => {
                let bias = linears[site].bias?;
                Some(bias.mantissas.iter().map(|&m| f64::from(m) * exp2(i32::from(bias.exponent))).collect())
            }
            Values::Floats(layers) => layers[site].bias.clone(),
        }
    }

    /// Layers without weights and biases, for what asks for names alone.
    #[cfg(test)]
    pub(crate) fn bare(sites: &[Site]) -> Stored<'static> {
        let linear = |s: &Site| Linear {
            weights: Weights::I8(&[]),
            inputs: s.inputs,
            outputs: s.outputs,
            scales: &[],
            exponent: 0,
            bias: None,
            activation: ranklet::layer::Activation::None,
        };
        Stored { sites: sites.to_vec(), values: Values::Image(sites.iter().map(linear).collect()) }
    }
}

/// The weight at (row, column) of a layer, or of a table, exactly.
#[must_use]
pub fn weight(l: &Linear<'_>, row: usize, col: usize) -> f64 {
    let integer = match l.weights {
        Weights::I8(w) => i32::from(w[row * l.inputs + col]),
        Weights::I16(w) => i32::from(w[row * l.inputs + col]),
        Weights::I4(w) => i4::integer(w.nibbles, w.groups, l.inputs, row, col),
        _ => return f64::NAN, // A type of a later version: nothing compares equal to it.
    };
    f64::from(integer) * step(l, row)
}

fn step(l: &Linear<'_>, row: usize) -> f64 {
    f64::from(l.scales[row]) * exp2(i32::from(l.exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Base, Linear as Layer};
    use crate::image::{ImageFile, base};
    use crate::quantize::{WeightType, quantize};
    use crate::spec::{Head, MlpSpec};
    use crate::tensor::Matrix;
    use std::path::Path;

    #[test]
    fn every_type_comes_back() {
        let data: Vec<f32> = (0..3 * 37).map(|i| ((i * 29 % 64) as f32 - 31.0) / 16.0).collect();
        let weight = Matrix::new(3, 37, data);
        let module = "0".to_owned();
        let spec = MlpSpec {
            modules: vec![module.clone()],
            relu: false,
            head: Head::None,
            labels: Default::default(),
            normalization: None,
        };
        let layer = Layer { module, weight: weight.clone(), bias: Some(vec![0.5, -0.25, 3.0]) };
        let net = Base { spec, linears: vec![layer], normalization: None };
        for to in [WeightType::I8, WeightType::I16, WeightType::I4] {
            let converted = base::convert(&net, to, || ()).unwrap();
            let file = ImageFile::of(Path::new("x"), &converted.bytes);
            let model = file.model().unwrap();
            let stored = Stored::of(&model);
            let q = quantize(&weight, to);
            for (row, col) in (0..3).flat_map(|r| (0..37).map(move |c| (r, c))) {
                assert_eq!(stored.value(0, row, col), q.value(row, col), "{}", to.name());
                let error = (stored.value(0, row, col) - f64::from(weight.data[row * 37 + col])).abs();
                assert!(error <= stored.tolerance(0, row), "{}", to.name());
            }
            assert_eq!(stored.bias(0).unwrap(), [0.5, -0.25, 3.0]);
            assert_eq!(stored.sites()[0].inputs, 37);
        }
    }
}
