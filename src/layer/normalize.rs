//! Per-feature normalisation of the input, stored in the image: `x' = (x − mean) · scale`.
//!
//! Sensors deliver integers under an exponent; with the normalisation in the image a firmware passes them on as they
//! are, and no calibration constant can be forgotten.

use super::{ShapeError, exactly};
use crate::fixed::Exp;
use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, shift_right_half_even};
use crate::fixed::row_sum::RowSum;

/// What a network is given: raw samples with the exponent of their lowest bit.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// `value = sample · 2^exponent`: what an ADC or an IMU delivers. `(features)`.
    I16(&'a [i16], Exp),
    /// `value = sample · 2^exponent`: what a camera delivers. `(features)`.
    U8(&'a [u8], Exp),
    /// `value = sample · 2^exponent`, `|sample| < 2^31`: features whose ranges lie octaves apart, under one exponent.
    /// `(features)`.
    I32(&'a [i32], Exp),
}

impl<'a> Input<'a> {
    /// Signed samples.
    #[must_use]
    pub const fn i16(samples: &'a [i16], exponent: Exp) -> Input<'a> {
        Input::I16(samples, exponent)
    }

    /// Unsigned samples.
    #[must_use]
    pub const fn u8(samples: &'a [u8], exponent: Exp) -> Input<'a> {
        Input::U8(samples, exponent)
    }

    /// Wide samples.
    #[must_use]
    pub const fn i32(samples: &'a [i32], exponent: Exp) -> Input<'a> {
        Input::I32(samples, exponent)
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Input::I16(s, _) => s.len(),
            Input::U8(s, _) => s.len(),
            Input::I32(s, _) => s.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the samples; none where the range reaches beyond them.
    #[must_use]
    pub fn part(&self, range: core::ops::Range<usize>) -> Input<'a> {
        match *self {
            Input::I16(s, e) => Input::I16(s.get(range).unwrap_or(&[]), e),
            Input::U8(s, e) => Input::U8(s.get(range).unwrap_or(&[]), e),
            Input::I32(s, e) => Input::I32(s.get(range).unwrap_or(&[]), e),
        }
    }

    /// The samples' exponent.
    #[must_use]
    pub const fn exponent(&self) -> Exp {
        match *self {
            Input::I16(_, e) | Input::U8(_, e) | Input::I32(_, e) => e,
        }
    }

    /// The raw samples, widened.
    fn widen_into(&self, out: &mut [i64]) {
        match self {
            Input::I16(s, _) => out.iter_mut().zip(*s).for_each(|(o, &s)| *o = i64::from(s)),
            Input::U8(s, _) => out.iter_mut().zip(*s).for_each(|(o, &s)| *o = i64::from(s)),
            Input::I32(s, _) => out.iter_mut().zip(*s).for_each(|(o, &s)| *o = i64::from(s)),
        }
    }
}

/// The normalisation of an image, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Normalize<'a> {
    /// `(features)`, `value = mantissa · 2^mean_exponent`.
    pub mean: &'a [i32],
    /// Of all means.
    pub mean_exponent: i16,
    /// One over the deviation: `(features)`, `value = mantissa · 2^scale_exponent`.
    pub scale: &'a [i32],
    /// Of all scales.
    pub scale_exponent: i16,
}

impl Normalize<'_> {
    /// `(x − mean) · scale`, rounded half to even, to a canonical block; without a normalisation, `x` in
    /// canonical form.
    ///
    /// `input` and `out`: `(features)`; `acc`: at least as many.
    ///
    /// # Errors
    /// Another number of features.
    pub fn forward(this: Option<&Self>, input: Input<'_>, out: &mut [i16], acc: &mut [i64]) -> Result<Exp, ShapeError> {
        let features = out.len();
        exactly("input", features, input.len())?;
        let acc = super::first("scratch.acc", acc, features)?;
        input.widen_into(acc);
        let exponent = input.exponent().get();
        let Some(n) = this else {
            return Ok(requantize(acc, exponent, out));
        };
        exactly("mean", features, n.mean.len())?;
        exactly("scale", features, n.scale.len())?;
        let mut row = RowSum::new(acc, exponent, 31);
        let joined = row.join(i32::from(n.mean_exponent), 31);
        for (v, &m) in row.values_mut().iter_mut().zip(n.mean) {
            *v -= joined.align(i64::from(m));
        }
        let (values, exponent) = row.finish();
        let union = values.iter().fold(0, |u, v| u | v.unsigned_abs());
        // 31 bits of difference under 31 bits of scale. What is rounded away here is 2^-31 of the largest difference.
        let excess = bit_length(union).saturating_sub(31);
        for (v, &s) in values.iter_mut().zip(n.scale) {
            *v = shift_right_half_even(*v, excess) * i64::from(s);
        }
        Ok(requantize(values, exponent + excess as i32 + i32::from(n.scale_exponent), out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Two features whose deviations lie a thousand apart come out alike.
        #[test]
        fn normalises_each_feature_by_its_own(a in -3.0_f64..3.0, b in -3000.0_f64..3000.0) {
            let samples = [(a * f64::from(1 << 19)).round() as i32, (b * f64::from(1 << 19)).round() as i32];
            let n = Normalize {
                mean: &[1 << 20, -(100 << 18)],
                mean_exponent: -18, // 4 and −100
                scale: &[(1 << 30) / 3, (1 << 30) / 3000],
                scale_exponent: -30,
            };
            let mut out = [0; 2];
            let e = Normalize::forward(Some(&n), Input::i32(&samples, Exp(-19)), &mut out, &mut [0; 2]).unwrap();
            // As the integers say.
            let value = |m: i32, e: i32| f64::from(m) * f64::from(e).exp2();
            let want = [0, 1].map(|i| (value(samples[i], -19) - value(n.mean[i], -18)) * value(n.scale[i], -30));
            let peak = want[0].abs().max(want[1].abs());
            for (got, want) in out.iter().zip(want) {
                let got = f64::from(*got) * f64::from(e.get()).exp2();
                prop_assert!((got - want).abs() <= peak / 32640.0 + peak * 1e-8, "{got} {want}");
            }
        }
    }

    #[test]
    fn without_a_normalisation_samples_pass() {
        let mut out = [0; 2];
        let e = Normalize::forward(None, Input::u8(&[16, 4], Exp(0)), &mut out, &mut [0; 2]).unwrap();
        assert_eq!((e, out), (Exp(-10), [1 << 14, 1 << 12]));
        assert!(Normalize::forward(None, Input::u8(&[16], Exp(0)), &mut out, &mut [0; 2]).is_err());
    }
}
