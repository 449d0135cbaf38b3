//! A base in `f32` becomes an image.

use super::metadata;
use super::sections::{Sections, Spool, Unwritten, part};
use crate::base::{Base, Linear};
use crate::fingerprint;
use crate::quantize::recipe::Recipe;
use crate::quantize::{Mantissas, Quantized, quantize, scalars};
use crate::spec::Head;
use anyhow::{Context, Result};
use ranklet::image::Fingerprint;
use ranklet::image::layout::{Dtype, NONE, section};
use ranklet::kernel::I4;
use ranklet::layer::Activation;
use ranklet::model::spec::Body;
use ranklet::model::{HeadKind, LinearSpec, Roles, Spec};

/// What became of one weight matrix.
#[derive(Clone, Debug)]
pub struct LayerReport {
    /// Its module path.
    pub module: String,
    /// Columns.
    pub inputs: usize,
    /// Rows.
    pub outputs: usize,
    /// Signal to noise of the stored weights, in decibels.
    pub snr_db: f64,
}

/// A base image, and how good it is.
#[derive(Debug)]
pub struct Converted {
    /// The image.
    pub bytes: Vec<u8>,
    /// Of the checkpoint.
    pub source: Fingerprint,
    /// Of these bytes.
    pub image: Fingerprint,
    /// One a layer.
    pub layers: Vec<LayerReport>,
}

/// Converts a base, in memory.
///
/// # Errors
/// As [`prepare`].
pub fn convert(base: &Base, to: impl Into<Recipe>, each: impl FnMut()) -> Result<Converted> {
    prepare(base, to, Spool::memory(), each)?.into_memory()
}

/// Converts a base up to the point where it can be written. `each` is called once a layer, for a progress bar.
///
/// # Errors
/// A pattern that matches nothing; where the model is beyond what the format can hold; where its normalisation would lose a feature.
pub fn prepare(base: &Base, to: impl Into<Recipe>, spool: Spool, mut each: impl FnMut()) -> Result<Unwritten> {
    let recipe = to.into();
    recipe.check(&base.linears.iter().map(|l| l.module.as_str()).collect::<Vec<_>>())?;
    let mut sections = Sections::new(spool);
    let (mut layers, mut specs) = (Vec::new(), Vec::new());
    let last = base.linears.len() - 1;
    for (i, linear) in base.linears.iter().enumerate() {
        let q = quantize(&linear.weight, recipe.of(&[&linear.module]));
        layers.push(LayerReport {
            module: linear.module.clone(),
            inputs: linear.weight.cols,
            outputs: linear.weight.rows,
            snr_db: q.snr_db(&linear.weight),
        });
        let is_head = i == last && base.spec.head != Head::None;
        specs.push(LinearSpec {
            role: if is_head { Roles::HEAD } else { Roles::HIDDEN },
            activation: if base.spec.relu && i < last { Activation::Relu } else { Activation::None },
            ..add_linear(&mut sections, i as u16, linear, q)?
        });
        each();
    }
    let (mut mean, mut scale) = (NONE, NONE);
    if let Some(n) = &base.normalization {
        let tensor = base.spec.normalization.as_ref().map_or("normalization", |(_, std)| std.as_str());
        scalars::check_normalization(&n.mean, &n.std).with_context(|| format!("`{tensor}`"))?;
        let vector = |kind, e, data| part(kind, NONE, Dtype::I32, e, 1, n.mean.len(), data);
        let (m, e) = scalars::i32s(&n.mean);
        mean = sections.push(vector(section::INPUT_MEAN, e, le(&m, |v| v.to_le_bytes())))?;
        let (f, e) = scalars::reciprocals(&n.std);
        scale = sections.push(vector(section::INPUT_SCALE, e, le(&f, |v| v.to_le_bytes())))?;
    }
    let modules: Vec<&str> = base.linears.iter().map(|l| l.module.as_str()).collect();
    sections.text(section::NAMES, &modules.join("\n"))?;
    sections.text(section::METADATA, &metadata::of_base(base, &layers))?;
    let spec = Spec {
        head: match base.spec.head {
            Head::None => HeadKind::None,
            Head::Classification => HeadKind::Classification,
            Head::Binary => HeadKind::Binary,
            Head::Regression => HeadKind::Regression,
        },
        features: base.features(),
        outputs: base.outputs(),
        linears: specs.len() as u16,
        mean,
        scale,
        body: Body::Mlp,
    };
    let spec: Vec<u8> = spec.to_bytes().into_iter().chain(specs.iter().flat_map(LinearSpec::to_bytes)).collect();
    let source = Fingerprint(fingerprint::source(base));
    sections.finish(source, &spec, layers)
}

fn add_linear(sections: &mut Sections, site: u16, linear: &Linear, q: Quantized) -> Result<LinearSpec> {
    add_quantized(sections, site, q, linear.bias.as_deref())
}

/// Adds the sections of one layer; role and activation are still to be told.
pub(super) fn add_quantized(
    sections: &mut Sections,
    site: u16,
    q: Quantized,
    bias: Option<&[f32]>,
) -> Result<LinearSpec> {
    let (rows, cols) = (q.rows, q.cols);
    let mut push =
        |kind, dtype, exponent, rows, cols, data| sections.push(part(kind, site, dtype, exponent, rows, cols, data));
    let (dtype, data, groups) = match q.mantissas {
        Mantissas::I8(v) => (Dtype::I8, v.into_iter().map(|v| v as u8).collect(), None), // In place.
        Mantissas::I16(v) => (Dtype::I16, le(&v, |v| v.to_le_bytes()), None),
        Mantissas::I4 { nibbles, groups } => (Dtype::I4, nibbles, Some(groups)),
    };
    let weight = push(section::WEIGHT, dtype, 0, rows, cols, data)?;
    let scales = le(&q.scales, |v| v.to_le_bytes());
    let row_scale = push(section::ROW_SCALE, Dtype::U16, q.exponent, 1, rows, scales)?;
    let groups = match groups {
        Some(g) => push(section::GROUP_SCALE, Dtype::U8, 0, rows, I4::row_groups(cols), g)?,
        None => NONE,
    };
    let bias = match bias {
        Some(b) => {
            let (m, e) = scalars::i32s(b);
            push(section::BIAS, Dtype::I32, e, 1, rows, le(&m, |v| v.to_le_bytes()))?
        }
        None => NONE,
    };
    Ok(LinearSpec {
        inputs: cols,
        outputs: rows,
        role: Roles(0),
        activation: Activation::None,
        weight,
        row_scale,
        bias,
        groups,
    })
}

pub(super) fn le<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.len() * N);
    values.iter().for_each(|&v| out.extend(bytes(v)));
    out
}
