//! The tensors of an export, by the names and in the forms that PEFT gives them.

use super::config::NEAR;
use crate::adapter::{Adapter, Pair};
use crate::image::stored::Stored;
use crate::peft::config::{Biases, Config, Selects};
use crate::peft::keys::{self, Part};
use crate::save::Out;
use crate::tensor::Matrix;
use crate::{dora, whole};
use anyhow::{Result, bail};

/// All tensors that a configuration promises for these pairs.
///
/// # Errors
/// Values beyond `f32`.
pub fn of(adapter: &Adapter, config: &Config, base: &Stored<'_>) -> Result<Vec<(String, Out)>> {
    let mut out = Vec::new();
    for pair in &adapter.pairs {
        Module { pair, module: &base.sites()[pair.site].module, config, base, out: &mut out }.write()?;
    }
    Ok(out)
}

struct Module<'a> {
    pair: &'a Pair,
    module: &'a str,
    config: &'a Config,
    base: &'a Stored<'a>,
    out: &'a mut Vec<(String, Out)>,
}

impl Module<'_> {
    fn write(mut self) -> Result<()> {
        let pair = self.pair;
        let added = moved(pair);
        let replaced = |from: Vec<f64>| from.iter().zip(&added).map(|(b, &d)| (b + f64::from(d)) as f32).collect();
        let base_bias: Option<Vec<f32>> = self.base.bias(pair.site).map(replaced);
        if pair.whole {
            self.matrix(Part::Weight, &whole::weight(pair, self.base))?;
            return base_bias.map_or(Ok(()), |bias| self.vector(Part::Bias, &bias));
        }
        if pair.is_only_bias() && self.config.selects(self.module) != Selects::Yes {
            return base_bias.map_or(Ok(()), |bias| self.vector(Part::Bias, &bias));
        }
        self.matrix(Part::A, &pair.a)?;
        if self.config.dora {
            let (b, magnitudes) = dora::undo(pair, self.base);
            self.matrix(Part::B, &b)?;
            self.vector(Part::Magnitude, &magnitudes)?;
        } else {
            self.matrix(Part::B, &pair.b)?;
        }
        let in_place = base_bias.filter(|_| self.config.biases != Biases::None);
        if let Some(bias) = &in_place {
            self.vector(Part::BaseBias, bias)?;
        }
        if self.config.lora_bias {
            // Two trained biases are one in an image; it comes back in the base's place.
            let all = in_place.is_some() || pair.scaling == 0.0;
            let rest = |&d: &f32| if all { 0.0 } else { (f64::from(d) / pair.scaling) as f32 };
            self.vector(Part::BBias, &added.iter().map(rest).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn matrix(&mut self, part: Part, m: &Matrix) -> Result<()> {
        self.put(part, &[m.rows, m.cols], &m.data)
    }

    fn vector(&mut self, part: Part, v: &[f32]) -> Result<()> {
        self.put(part, &[v.len()], v)
    }

    fn put(&mut self, part: Part, shape: &[usize], data: &[f32]) -> Result<()> {
        let name = keys::name(self.module, part);
        if data.iter().any(|v| !v.is_finite()) {
            bail!("`{name}` is beyond f32; nothing was written");
        }
        self.out.push((name, Out::f32s(shape, data)));
        Ok(())
    }
}

/// Whether what was read again does the same as what was to be written.
///
/// A and B of plain pairs bit for bit, and the scaling to the last bits of its way through alpha. Values that went
/// through a sum or a quotient in `f32`, on the way there and on the way back, to a few of its roundings.
#[must_use]
pub fn same(ours: &Pair, theirs: &Pair, base: &Stored<'_>) -> bool {
    let bias_peak = base.bias(ours.site).iter().flatten().fold(0.0_f64, |p, v| p.max(v.abs()));
    if ours.site != theirs.site || ours.whole != theirs.whole || !near(&moved(ours), &moved(theirs), bias_peak) {
        return false;
    }
    if ours.whole {
        return near(&whole::weight(ours, base).data, &whole::weight(theirs, base).data, 0.0);
    }
    if ours.is_only_bias() && theirs.is_only_bias() {
        return true;
    }
    let b = match (&ours.gain, &theirs.gain) {
        (None, None) => ours.b == theirs.b,
        _ => near(&ours.b.data, &theirs.b.data, 0.0) && near(&gain(ours), &gain(theirs), 1.0),
    };
    b && ours.a == theirs.a && (ours.scaling - theirs.scaling).abs() <= NEAR * ours.scaling.abs()
}

/// What is added to the bias; zeros for nothing.
fn moved(pair: &Pair) -> Vec<f32> {
    pair.bias.clone().unwrap_or_else(|| vec![0.0; pair.b.rows])
}

fn gain(pair: &Pair) -> Vec<f32> {
    pair.gain.clone().unwrap_or_else(|| vec![0.0; pair.b.rows])
}

/// Within 2^-20 of the largest, or of `unit`.
fn near(a: &[f32], b: &[f32], unit: f64) -> bool {
    let peak = a.iter().fold(unit, |p, v| p.max(f64::from(v.abs())));
    let close = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).abs() <= peak / f64::from(1 << 20);
    a.len() == b.len() && a.iter().zip(b).all(close)
}
