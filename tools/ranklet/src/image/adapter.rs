//! An adapter in `f32` becomes an image, and an image an adapter in `f32`.

use super::Sink;
use super::metadata;
use crate::adapter::{Adapter, Pair};
use crate::quantize::planes::{Planes, value};
use crate::quantize::{exp2, scalars};
use crate::tensor::Matrix;
use anyhow::{Context, Result, ensure};
use ranklet::fixed::{Exp, Real};
use ranklet::image::{Fingerprint, LoraRecord};
use ranklet::model::Model;
use ranklet::model::adapter::AdapterParts;
use serde_json::{Map, Value};

/// The parts of an adapter image, owned.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// One a pair.
    pub records: Vec<LoraRecord>,
    /// The rounded upper halves.
    pub high: Vec<i16>,
    /// The signed lower halves; empty where training is not to go on.
    pub low: Vec<i16>,
}

impl Parts {
    /// The pairs for which `is` does not hold, and those for which it does; the planes are copied whole.
    #[must_use]
    pub fn apart(&self, is: impl Fn(&LoraRecord) -> bool) -> (Parts, Parts) {
        let of = |yes| Parts {
            records: self.records.iter().filter(|r| is(r) == yes).copied().collect(),
            high: self.high.clone(),
            low: self.low.clone(),
        };
        (of(false), of(true))
    }

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
            // Vectors stand in the high plane alone: nobody trains them on. What is all zero is left out.
            let mut vector = |v: &Option<Vec<f32>>, flag: u16| {
                let v = v.as_ref().filter(|v| v.iter().any(|&x| x != 0.0));
                v.map_or((0, 0, 0), |v| {
                    let at = parts.high.len() as u32;
                    let (mantissas, exponent) = scalars::i16s(v);
                    parts.low.resize(parts.low.len() + mantissas.len(), 0);
                    parts.high.extend(mantissas);
                    (flag, at, exponent)
                })
            };
            let (has_gain, gain_offset, gain_exponent) = vector(&pair.gain, LoraRecord::GAIN);
            let (has_bias, bias_offset, bias_exponent) = vector(&pair.bias, LoraRecord::BIAS);
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
                flags: has_gain | has_bias | if pair.whole { LoraRecord::WHOLE } else { 0 },
                gain_offset,
                bias_offset,
                gain_exponent,
                bias_exponent,
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
    let vector = |(v, e): (&[i16], Exp)| v.iter().map(|&m| (f64::from(m) * exp2(e.get())) as f32).collect();
    let pairs = records.iter().map(|r| {
        let (rank, inputs, outputs) = (usize::from(r.rank), r.inputs as usize, r.outputs as usize);
        Pair {
            site: usize::from(r.site),
            a: matrix(rank, inputs, r.a_of(&high), r.a_of(&low), r.a_exponent),
            b: matrix(outputs, rank, r.b_of(&high), r.b_of(&low), r.b_exponent),
            scaling: r.scaling().to_f64(),
            gain: r.gain_of(&high).map(vector),
            bias: r.bias_of(&high).map(vector),
            whole: r.flags & LoraRecord::WHOLE != 0,
        }
    });
    let config = match metadata::parse(image.metadata()).remove("peft_config") {
        Some(Value::Object(config)) => config,
        _ => Map::new(),
    };
    Adapter { pairs: pairs.collect(), config, warnings: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_stand_in_the_high_plane() {
        let matrix = |r, c| Matrix::new(r, c, (0..r * c).map(|i| i as f32 - 2.5).collect());
        let plain = Pair::new(0, matrix(2, 3), matrix(4, 2), 0.5);
        let gain = Some(vec![0.5, -0.25, 0.0, 0.125]);
        let dora = Pair { site: 1, gain, bias: Some(vec![3.0, -1.0, 0.0, 0.0]), ..plain.clone() };
        let whole = Pair { site: 2, whole: true, bias: Some(vec![0.0; 4]), ..plain.clone() };
        let Parts { records, high, low } = Parts::of(&[plain, dora, whole]);
        assert_eq!(records.iter().map(|r| r.flags).collect::<Vec<_>>(), [0, 3, 4], "a bias of zeros is none");
        assert_eq!((high.len(), low.len()), (3 * 14 + 8, 3 * 14 + 8));
        let r = records[1];
        assert_eq!((r.gain_offset, r.bias_offset), (28, 32));
        assert_eq!(r.gain_of(&high), Some((&[1 << 14, -(1 << 13), 0, 1 << 12][..], Exp(-15))));
        assert_eq!(r.bias_of(&high), Some((&[24576, -8192, 0, 0][..], Exp(-13))));
        assert!(low[28..36].iter().all(|&v| v == 0), "{low:?}");
        for r in records {
            assert_eq!(r.check(Some((3, 4)), high.len()), Ok(()));
        }
    }
}
