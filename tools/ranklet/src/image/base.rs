//! A base in `f32` becomes an image.

use super::Sink;
use super::metadata;
use crate::base::{Base, Linear};
use crate::fingerprint;
use crate::quantize::recipe::Recipe;
use crate::quantize::{Mantissas, Quantized, quantize, scalars};
use crate::spec::Head;
use anyhow::{Context, Result};
use ranklet::image::layout::{Dtype, NONE, section};
use ranklet::image::{Fingerprint, Kind, NewImage, NewSection, Order};
use ranklet::kernel::I4;
use ranklet::layer::Activation;
use ranklet::model::spec::Body;
use ranklet::model::{HeadKind, LinearSpec, Roles, Spec};
use sha2::{Digest, Sha256};

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

/// The sections of an image while it is put together; each owns its bytes.
#[derive(Default)]
pub(super) struct Sections(Vec<Part>);

pub(super) struct Part {
    kind: u16,
    site: u16,
    dtype: Dtype,
    exponent: i16,
    rows: usize,
    cols: usize,
    data: Vec<u8>,
}

impl Sections {
    /// Adds one and returns its index in the directory.
    pub(super) fn push(&mut self, part: Part) -> u16 {
        self.0.push(part);
        (self.0.len() - 1) as u16
    }

    pub(super) fn text(&mut self, kind: u16, text: &str) {
        let data = text.as_bytes().to_vec();
        self.push(Part { kind, site: NONE, dtype: Dtype::Bytes, exponent: 0, rows: 1, cols: data.len(), data });
    }
}

/// Converts a base. `each` is called once a layer, for a progress bar.
///
/// # Errors
/// A pattern that matches nothing; where the model is beyond what the format can hold; where its normalisation would lose a feature.
pub fn convert(base: &Base, to: impl Into<Recipe>, mut each: impl FnMut()) -> Result<Converted> {
    let recipe = to.into();
    recipe.check(&base.linears.iter().map(|l| l.module.as_str()).collect::<Vec<_>>())?;
    let mut sections = Sections::default();
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
            ..add_linear(&mut sections, i as u16, linear, q)
        });
        each();
    }
    let (mut mean, mut scale) = (NONE, NONE);
    if let Some(n) = &base.normalization {
        let tensor = base.spec.normalization.as_ref().map_or("normalization", |(_, std)| std.as_str());
        scalars::check_normalization(&n.mean, &n.std).with_context(|| format!("`{tensor}`"))?;
        let vector = |kind, dtype, exponent, data: Vec<u8>| Part {
            kind,
            site: NONE,
            dtype,
            exponent,
            rows: 1,
            cols: n.mean.len(),
            data,
        };
        let (m, e) = scalars::i32s(&n.mean);
        mean = sections.push(vector(section::INPUT_MEAN, Dtype::I32, e, le(&m, |v| v.to_le_bytes())));
        let (f, e) = scalars::reciprocals(&n.std);
        scale = sections.push(vector(section::INPUT_SCALE, Dtype::I32, e, le(&f, |v| v.to_le_bytes())));
    }
    let modules: Vec<&str> = base.linears.iter().map(|l| l.module.as_str()).collect();
    sections.text(section::NAMES, &modules.join("\n"));
    sections.text(section::METADATA, &metadata::of_base(base, &layers));
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
    let (bytes, image) = emit(source, &spec, &sections)?;
    Ok(Converted { bytes, source, image, layers })
}

/// The `image` fingerprint is the truncated SHA-256 of the image as it stands with that field zero (and the head's CRC
/// to match): so that anybody can compute it from a finished file.
pub(super) fn emit(source: Fingerprint, spec: &[u8], sections: &Sections) -> Result<(Vec<u8>, Fingerprint)> {
    let sections: Vec<NewSection<'_>> = sections
        .0
        .iter()
        .map(|p| NewSection {
            kind: p.kind,
            site: p.site,
            dtype: p.dtype,
            order: Order::RowMajor,
            exponent: p.exponent,
            rows: p.rows as u32,
            cols: p.cols as u32,
            data: &p.data,
        })
        .collect();
    let write = |image| -> Result<Vec<u8>> {
        let mut out = Sink::default();
        let new = NewImage { kind: Kind::Base, source, image, spec, sections: &sections };
        new.write_to(&mut out).context("cannot write the image")?;
        Ok(out.0)
    };
    let hash = Sha256::digest(write(Fingerprint::default())?);
    let mut image = Fingerprint::default();
    image.0.iter_mut().zip(hash.iter()).for_each(|(o, h)| *o = *h);
    Ok((write(image)?, image))
}

/// A section of a layer, or, with [`NONE`], of none.
pub(super) fn part(kind: u16, site: u16, dtype: Dtype, exponent: i16, rows: usize, cols: usize, data: Vec<u8>) -> Part {
    Part { kind, site, dtype, exponent, rows, cols, data }
}

fn add_linear(sections: &mut Sections, site: u16, linear: &Linear, q: Quantized) -> LinearSpec {
    add_quantized(sections, site, q, linear.bias.as_deref())
}

/// Adds the sections of one layer; role and activation are still to be told.
pub(super) fn add_quantized(sections: &mut Sections, site: u16, q: Quantized, bias: Option<&[f32]>) -> LinearSpec {
    let (rows, cols) = (q.rows, q.cols);
    let part = |kind, dtype, exponent, rows, cols, data| part(kind, site, dtype, exponent, rows, cols, data);
    let (dtype, data, groups) = match q.mantissas {
        Mantissas::I8(v) => (Dtype::I8, le(&v, |v| v.to_le_bytes()), None),
        Mantissas::I16(v) => (Dtype::I16, le(&v, |v| v.to_le_bytes()), None),
        Mantissas::I4 { nibbles, groups } => (Dtype::I4, nibbles, Some(groups)),
    };
    let weight = sections.push(part(section::WEIGHT, dtype, 0, rows, cols, data));
    let scales = le(&q.scales, |v| v.to_le_bytes());
    let row_scale = sections.push(part(section::ROW_SCALE, Dtype::U16, q.exponent, 1, rows, scales));
    let groups =
        groups.map_or(NONE, |g| sections.push(part(section::GROUP_SCALE, Dtype::U8, 0, rows, I4::row_groups(cols), g)));
    let bias = bias.map_or(NONE, |b| {
        let (m, e) = scalars::i32s(b);
        sections.push(part(section::BIAS, Dtype::I32, e, 1, rows, le(&m, |v| v.to_le_bytes())))
    });
    LinearSpec {
        inputs: cols,
        outputs: rows,
        role: Roles(0),
        activation: Activation::None,
        weight,
        row_scale,
        bias,
        groups,
    }
}

pub(super) fn le<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&v| bytes(v)).collect()
}
