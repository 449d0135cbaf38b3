//! An adapter in `f32` becomes an image, and an image an adapter in `f32`.

use super::Sink;
use super::metadata;
use crate::adapter::{Adapter, Pair};
use crate::quantize::planes::{Planes, value};
use crate::tensor::Matrix;
use anyhow::{Context, Result, ensure};
use ranklet::fixed::Real;
use ranklet::image::{Fingerprint, LoraRecord};
use ranklet::model::Model;
use ranklet::model::adapter::AdapterParts;
use serde_json::{Map, Value};

/// The parts of an adapter image, owned.
#[derive(Clone, Debug)]
pub struct Parts {
    /// One a pair.
    pub records: Vec<LoraRecord>,
    /// The rounded upper halves.
    pub high: Vec<i16>,
    /// The signed lower halves; empty where training is not to go on.
    pub low: Vec<i16>,
}

impl Parts {
    /// From pairs in ascending order of their sites.
    #[must_use]
    pub fn of(pairs: &[Pair]) -> Parts {
        let mut parts = Parts { records: Vec::new(), high: Vec::new(), low: Vec::new() };
        for pair in pairs {
            let mut place = |m: &Matrix| {
                let at = parts.high.len() as u32;
                let planes = Planes::of(m);
                parts.high.extend(planes.high);
                parts.low.extend(planes.low);
                (at, planes.exponent)
            };
            let (a_offset, a_exponent) = place(&pair.a);
            let (b_offset, b_exponent) = place(&pair.b);
            let scaling = Real::from_f64(pair.scaling);
            parts.records.push(LoraRecord {
                site: pair.site as u16,
                rank: pair.rank() as u16,
                inputs: pair.a.cols as u32,
                outputs: pair.b.rows as u32,
                a_offset,
                b_offset,
                a_exponent,
                b_exponent,
                scaling_mantissa: scaling.mantissa(),
                scaling_exponent: scaling.exponent() as i16,
                flags: 0,
                gain_offset: 0,
                bias_offset: 0,
                gain_exponent: 0,
                bias_exponent: 0,
                reserved: 0,
            });
        }
        parts
    }

    /// From a checked adapter.
    #[must_use]
    pub fn copy(adapter: &ranklet::model::Adapter<'_>) -> Parts {
        let (records, high, low) = (adapter.records().to_vec(), adapter.high().to_vec(), adapter.low().to_vec());
        Parts { records, high, low }
    }

    /// The same with a low plane of zeros where the image has none: for what reads the high plane and changes neither.
    #[must_use]
    pub fn with_low_plane(mut self) -> Parts {
        self.low.resize(self.high.len(), 0);
        self
    }

    /// Multiplies every scaling.
    ///
    /// # Errors
    /// Where a product is beyond what an image can hold.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        for r in &mut self.records {
            let s = r.scaling().mul(Real::from_f64(factor));
            ensure!(s.exponent().abs() <= 1024, "its scaling times {factor:e} is beyond what an image can hold");
            (r.scaling_mantissa, r.scaling_exponent) = (s.mantissa(), s.exponent() as i16);
        }
        Ok(())
    }

    /// The image.
    ///
    /// # Errors
    /// Where the adapter is beyond what the format can hold.
    pub fn emit(&self, source: Fingerprint, image: Fingerprint, metadata: &Map<String, Value>) -> Result<Vec<u8>> {
        let text = if metadata.is_empty() { String::new() } else { Value::Object(metadata.clone()).to_string() };
        let mut out = Sink::default();
        let Parts { records, high, low } = self;
        AdapterParts { source, image, records, high, low, metadata: text.as_bytes() }
            .write_to(&mut out)
            .context("cannot write the image")?;
        Ok(out.0)
    }
}

/// The image of an adapter for this base.
///
/// # Errors
/// Where the adapter is beyond what the format can hold.
pub fn convert(adapter: &Adapter, model: &Model<'_>, inference_only: bool) -> Result<Vec<u8>> {
    let mut parts = Parts::of(&adapter.pairs);
    if inference_only {
        parts.low.clear();
    }
    let mut metadata = Map::new();
    if !adapter.config.is_empty() {
        metadata.insert("peft_config".to_owned(), Value::Object(adapter.config.clone()));
    }
    metadata.insert("base_parameters".to_owned(), super::parameters(model).into());
    parts.emit(model.source(), model.head().image, &metadata)
}

/// The adapter in `f32`: from both planes where the image has them.
#[must_use]
pub fn read(image: &ranklet::model::Adapter<'_>) -> Adapter {
    let Parts { records, high, low } = Parts::copy(image).with_low_plane();
    let matrix = |rows: usize, cols: usize, high: &[i16], low: &[i16], exponent| {
        Matrix::new(rows, cols, high.iter().zip(low).map(|(&h, &l)| value(h, l, exponent)).collect())
    };
    let pairs = records.iter().map(|r| {
        let (rank, inputs, outputs) = (usize::from(r.rank), r.inputs as usize, r.outputs as usize);
        Pair {
            site: usize::from(r.site),
            a: matrix(rank, inputs, r.a_of(&high), r.a_of(&low), r.a_exponent),
            b: matrix(outputs, rank, r.b_of(&high), r.b_of(&low), r.b_exponent),
            scaling: r.scaling().to_f64(),
        }
    });
    let config = match metadata::parse(image.metadata()).remove("peft_config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    Adapter { pairs: pairs.collect(), config, warnings: Vec::new() }
}
