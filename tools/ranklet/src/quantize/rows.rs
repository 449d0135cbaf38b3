//! `i8` and `i16` weights: symmetric, one scale a row.

use super::{Mantissas, Quantized, exp2, round_half_even, row_scales};
use crate::tensor::Matrix;

/// `i8` mantissas within ±127.
#[must_use]
pub fn quantize_i8(w: &Matrix) -> Quantized {
    let (q, scales, exponent) = quantize(w, 127.0, |q| q as i8);
    Quantized { rows: w.rows, cols: w.cols, mantissas: Mantissas::I8(q), scales, exponent }
}

/// `i16` mantissas within ±32767.
#[must_use]
pub fn quantize_i16(w: &Matrix) -> Quantized {
    let (q, scales, exponent) = quantize(w, 32767.0, |q| q as i16);
    Quantized { rows: w.rows, cols: w.cols, mantissas: Mantissas::I16(q), scales, exponent }
}

/// The scale of a row is rounded **up** to its u16 mantissa, and the row is quantized with that rounded scale: so no
/// mantissa leaves ±limit, and the rounding of the scale costs resolution, never correctness.
fn quantize<T>(w: &Matrix, limit: f64, narrow: impl Fn(f64) -> T) -> (Vec<T>, Vec<u16>, i16) {
    let peak = |row: &[f32]| f64::from(row.iter().fold(0.0_f32, |m, v| m.max(v.abs())));
    let ideal: Vec<f64> = w.iter_rows().map(|row| peak(row) / limit).collect();
    let (scales, exponent) = row_scales(&ideal);
    let mut q = Vec::with_capacity(w.data.len());
    for (row, &scale) in w.iter_rows().zip(&scales) {
        let step = f64::from(scale) * exp2(i32::from(exponent));
        let of = |v: f32| if scale == 0 { 0.0 } else { round_half_even(f64::from(v) / step) };
        // The clamp catches the last bit of the division above, which may round a scale to just below its ideal.
        q.extend(row.iter().map(|&v| narrow(of(v).clamp(-limit, limit))));
    }
    (q, scales, exponent)
}
