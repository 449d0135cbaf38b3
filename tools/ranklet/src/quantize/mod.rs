//! From `f32` to the integers of an image, and back.
//!
//! | file | what it makes |
//! |---|---|
//! | [`rows`] | `i8` and `i16` weights under one `u16` scale a row |
//! | [`i4`] | 4-bit weights in groups of 32 under a row scale |
//! | [`planes`] | the 32-bit masters of A and B in their two planes |
//! | [`scalars`] | biases and normalisation |
//!
//! [`recipe`] tells which matrix is stored how.
//!
//! All roundings are to nearest, ties to even. All-zero rows and tensors are legal: PEFT starts B at zero.

pub mod i4;
pub mod planes;
pub mod recipe;
pub mod rows;
pub mod scalars;

use crate::tensor::Matrix;

/// How the weights of a base are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightType {
    /// One byte a weight: the usual choice.
    I8,
    /// Two bytes a weight: to check structure against a float reference, and for tiny models.
    I16,
    /// Half a byte a weight, in groups of 32.
    I4,
}

impl WeightType {
    /// As on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            WeightType::I8 => "i8",
            WeightType::I16 => "i16",
            WeightType::I4 => "i4",
        }
    }
}

/// The mantissas of a quantized matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mantissas {
    /// Within ±127: `(rows, cols)`.
    I8(Vec<i8>),
    /// Within ±32767: `(rows, cols)`.
    I16(Vec<i16>),
    /// 4-bit weights.
    I4 {
        /// Two weights a byte, the even one in the low nibble, −7..=7; every row starts on a byte: `(rows, ⌈cols/2⌉)`.
        nibbles: Vec<u8>,
        /// One scale a group of 32, 1..=63: `(rows, ⌈cols/32⌉)`.
        groups: Vec<u8>,
    },
}

/// A quantized weight matrix: `w[o, k] = q[o, k] · scales[o] · 2^exponent`, for 4 bits times the group's scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// The integers.
    pub mantissas: Mantissas,
    /// One a row; 0 for an all-zero row.
    pub scales: Vec<u16>,
    /// Of all weights.
    pub exponent: i16,
}

/// Quantizes a weight matrix.
#[must_use]
pub fn quantize(w: &Matrix, to: WeightType) -> Quantized {
    match to {
        WeightType::I8 => rows::quantize_i8(w),
        WeightType::I16 => rows::quantize_i16(w),
        WeightType::I4 => i4::quantize(w),
    }
}

impl Quantized {
    /// The weight at `(row, col)` as an integer, group scale applied.
    #[must_use]
    pub fn integer(&self, row: usize, col: usize) -> i32 {
        match &self.mantissas {
            Mantissas::I8(q) => i32::from(q[row * self.cols + col]),
            Mantissas::I16(q) => i32::from(q[row * self.cols + col]),
            Mantissas::I4 { nibbles, groups } => i4::integer(nibbles, groups, self.cols, row, col),
        }
    }

    /// The weight at `(row, col)`, exactly.
    #[must_use]
    pub fn value(&self, row: usize, col: usize) -> f64 {
        f64::from(self.integer(row, col)) * self.step(row)
    }

    /// What one unit of a row's integers is worth.
    #[must_use]
    pub fn step(&self, row: usize) -> f64 {
        f64::from(self.scales[row]) * exp2(i32::from(self.exponent))
    }

    /// The whole matrix, rounded to `f32`.
    #[must_use]
    pub fn dequantize(&self) -> Matrix {
        let values = (0..self.rows).flat_map(|r| (0..self.cols).map(move |c| self.value(r, c) as f32));
        Matrix::new(self.rows, self.cols, values.collect())
    }

    /// Signal to noise against the original, in decibels; infinite where nothing was lost.
    #[must_use]
    pub fn snr_db(&self, original: &Matrix) -> f64 {
        let (mut signal, mut noise) = (0.0, 0.0);
        for (row, weights) in original.iter_rows().enumerate() {
            let step = self.step(row);
            for (col, &w) in weights.iter().enumerate() {
                let w = f64::from(w);
                let error = w - f64::from(self.integer(row, col)) * step;
                signal += w * w;
                noise += error * error;
            }
        }
        if noise == 0.0 { f64::INFINITY } else { 10.0 * (signal / noise).log10() }
    }
}

/// The nearest integer, of two the even one; of a value below 2^51. (Without a rounding instruction, as on the x86-64 that
/// everybody has, the standard library calls a function for each.)
#[must_use]
pub(crate) fn round_half_even(x: f64) -> f64 {
    // Where doubles are integers, the addition itself rounds half to even.
    const HIGH: f64 = 3.0 * (1_u64 << 51) as f64;
    (x + HIGH) - HIGH
}

/// `2^e`, exact over the whole range of `f64`'s exponents (and 0 or infinity beyond): from bits, because the
/// exactness of a platform's `exp2` is nowhere promised.
#[must_use]
pub fn exp2(e: i32) -> f64 {
    match e {
        -1022..=1023 => f64::from_bits(((e + 1023) as u64) << 52),
        1024.. => f64::INFINITY,
        -1074..-1022 => f64::from_bits(1 << (e + 1074)),
        _ => 0.0,
    }
}

/// `⌊log2 x⌋` of a finite `x > 0`, exactly: from its bits, not from a logarithm that could round up.
#[must_use]
pub(crate) fn floor_log2(x: f64) -> i32 {
    let bits = (x.to_bits() >> 52) as i32 & 0x7FF;
    if bits > 0 { bits - 1023 } else { floor_log2(x * exp2(200)) - 200 }
}

/// The smallest exponent under which every row's scale fits `u16` when rounded up, and those scales:
/// `scale[o] · 2^e ≥ ideal[o]`. A row of zeros has scale 0; with nothing but zeros the exponent is 0.
fn row_scales(ideal: &[f64]) -> (Vec<u16>, i16) {
    let top = ideal.iter().copied().fold(0.0, f64::max);
    if top == 0.0 {
        return (vec![0; ideal.len()], 0);
    }
    let mut e = floor_log2(top) - 15; // top / 2^e lies in [2^15, 2^16) ...
    if (top / exp2(e)).ceil() > f64::from(u16::MAX) {
        e += 1; // ... and may round up to 2^16.
    }
    let scales = ideal.iter().map(|s| (s / exp2(e)).ceil() as u16).collect();
    (scales, e as i16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn halves_go_to_the_even_side() {
        for x in [0.0, 0.49, 0.5, 0.5_f64.next_up(), 1.5, 2.5, 126.5, 32766.5, 32_767.499_999_999, 1e15, 1e-300] {
            for x in [x, -x] {
                assert_eq!(round_half_even(x), x.round_ties_even(), "{x}");
            }
        }
    }

    #[test]
    fn logarithms_are_exact() {
        for e in [-1074, -1073, -1022, -150, -1, 0, 1, 127, 1023] {
            assert_eq!(exp2(e), f64::from(e).exp2());
            assert_eq!(floor_log2(exp2(e)), e);
        }
        assert_eq!(floor_log2(4.0_f64.next_down()), 1);
    }

    /// Rows whose sizes are octaves apart, zeros among them.
    fn matrices() -> impl Strategy<Value = Matrix> {
        let row = |cols: usize| {
            let values = prop::collection::vec(prop_oneof![4 => -1.0_f32..1.0, 1 => Just(0.0)], cols);
            (values, prop_oneof![4 => -3_i32..4, 1 => -120_i32..120, 1 => Just(-10_000)])
                .prop_map(|(v, e)| v.into_iter().map(|x| x * (e as f32).exp2()).collect::<Vec<f32>>())
        };
        (1_usize..70)
            .prop_flat_map(move |cols| prop::collection::vec(row(cols), 1..6))
            .prop_map(|rows| Matrix::new(rows.len(), rows[0].len(), rows.concat()))
    }

    proptest! {
        #[test]
        fn every_weight_is_within_half_a_step(w in matrices()) {
            for to in [WeightType::I8, WeightType::I16] {
                let q = quantize(&w, to);
                let limit = if to == WeightType::I8 { 127 } else { 32767 };
                for r in 0..w.rows {
                    let peak = w.data[r * w.cols..][..w.cols].iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                    prop_assert_eq!(q.scales[r] == 0, peak == 0.0);
                    for c in 0..w.cols {
                        let error = (q.value(r, c) - f64::from(w.data[r * w.cols + c])).abs();
                        prop_assert!(error <= 0.5 * q.step(r) * (1.0 + 1e-9), "{} {error} {}", to.name(), q.step(r));
                        prop_assert!(q.integer(r, c).abs() <= limit);
                    }
                }
            }
        }

        #[test]
        fn four_bits_are_near(w in matrices()) {
            let q = quantize(&w, WeightType::I4);
            let Mantissas::I4 { nibbles, groups } = &q.mantissas else { panic!() };
            prop_assert_eq!(nibbles.len(), w.rows * w.cols.div_ceil(2));
            prop_assert_eq!(groups.len(), w.rows * w.cols.div_ceil(32));
            prop_assert!(groups.iter().all(|g| (1..=63).contains(g)));
            for r in 0..w.rows {
                let peak = w.data[r * w.cols..][..w.cols].iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                for c in 0..w.cols {
                    // Half of the coarsest step, 1/14 of the peak, and what a group scale of its own can add.
                    let error = (q.value(r, c) - f64::from(w.data[r * w.cols + c])).abs();
                    let bound = f64::from(peak) * 0.45;
                    prop_assert!(error <= bound.max(q.step(r) * 7.0), "{error} of {peak}");
                    prop_assert!(q.integer(r, c).abs() <= 441);
                }
            }
        }
    }

    #[test]
    fn typical_weights_keep_their_quality() {
        // A deterministic bell curve of 64 x 128 values: sums of four uniform draws.
        let mut state = 1_u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 24) as f32 - 0.5
        };
        let data = (0..64 * 128).map(|_| uniform() + uniform() + uniform() + uniform()).collect();
        let w = Matrix::new(64, 128, data);
        let snr = |to| quantize(&w, to).snr_db(&w);
        assert!(snr(WeightType::I8) > 40.0, "{}", snr(WeightType::I8));
        assert!(snr(WeightType::I16) > 88.0, "{}", snr(WeightType::I16));
        assert!(snr(WeightType::I4) > 18.0, "{}", snr(WeightType::I4));
    }

    #[test]
    fn nothing_but_zeros_is_legal() {
        let w = Matrix::new(2, 3, vec![0.0; 6]);
        for to in [WeightType::I8, WeightType::I16, WeightType::I4] {
            let q = quantize(&w, to);
            assert_eq!((q.scales.as_slice(), q.exponent), (&[0, 0][..], 0));
            assert_eq!(q.dequantize(), w);
            assert_eq!(q.snr_db(&w), f64::INFINITY);
        }
    }
}
