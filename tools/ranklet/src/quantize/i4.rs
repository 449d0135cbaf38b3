//! 4-bit weights: `w = q · group · scale · 2^e`, with q in −7..=7, a group scale of 6 bits for 32 weights, and the
//! row's scale. `q · group` is an exact integer, so the transposed product works on the same form.

use super::{Mantissas, Quantized, exp2, round_half_even, row_scales};
use crate::tensor::Matrix;
use ranklet::kernel::GROUP;

/// The largest mantissa.
const Q_MAX: f64 = 7.0;
/// The largest group scale.
const GROUP_MAX: f64 = 63.0;

/// Quantizes; rows are padded to whole bytes with zeros.
#[must_use]
pub fn quantize(w: &Matrix) -> Quantized {
    let peak = |v: &[f32]| f64::from(v.iter().fold(0.0_f32, |m, v| m.max(v.abs())));
    let ideal: Vec<f64> = w.iter_rows().map(|row| peak(row) / (Q_MAX * GROUP_MAX)).collect();
    let (scales, exponent) = row_scales(&ideal);
    let (mut nibbles, mut groups) = (Vec::new(), Vec::new());
    for (row, &scale) in w.iter_rows().zip(&scales) {
        let unit = f64::from(scale) * exp2(i32::from(exponent));
        let mut q = Vec::with_capacity(row.len());
        for group in row.chunks(GROUP) {
            let g = if scale == 0 { 1 } else { best_group_scale(group, peak(group), unit) };
            groups.push(g);
            q.extend(group.iter().map(|&v| if scale == 0 { 0 } else { rounded(v, f64::from(g) * unit) as i8 }));
        }
        nibbles.extend(q.chunks(2).map(|pair| {
            let high = pair.get(1).copied().unwrap_or(0);
            (pair[0] as u8 & 0x0F) | ((high as u8) << 4)
        }));
    }
    Quantized { rows: w.rows, cols: w.cols, mantissas: Mantissas::I4 { nibbles, groups }, scales, exponent }
}

/// The weight at `(row, col)` as an integer, −441..=441.
#[must_use]
pub fn integer(nibbles: &[u8], groups: &[u8], cols: usize, row: usize, col: usize) -> i32 {
    let byte = nibbles[row * cols.div_ceil(2) + col / 2];
    let q = if col.is_multiple_of(2) { ((byte << 4) as i8) >> 4 } else { (byte as i8) >> 4 };
    i32::from(q) * i32::from(groups[row * cols.div_ceil(GROUP) + col / GROUP])
}

fn rounded(v: f32, step: f64) -> f64 {
    round_half_even(f64::from(v) / step).clamp(-Q_MAX, Q_MAX)
}

/// The group scale with the least squared error. With 15 levels, clipping the largest weight a little often pays:
/// the search goes from the scale that clips nothing down to 0.7 of it. Of equals the larger is taken.
fn best_group_scale(group: &[f32], peak: f64, unit: f64) -> u8 {
    let whole = (peak / (Q_MAX * unit)).ceil().clamp(1.0, GROUP_MAX);
    let lowest = (whole * 0.7).floor().max(1.0);
    let mut best = (f64::INFINITY, whole);
    let mut g = whole;
    while g >= lowest {
        let step = g * unit;
        let error: f64 = group.iter().map(|&v| (f64::from(v) - rounded(v, step) * step).powi(2)).sum();
        if error < best.0 {
            best = (error, g);
        }
        g -= 1.0;
    }
    best.1 as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_stand_as_the_kernels_read_them() {
        let w = Matrix::new(2, 3, vec![7.0, -7.0, 1.0, 0.0, 3.5, -7.0]);
        let q = quantize(&w);
        let Mantissas::I4 { nibbles, groups } = &q.mantissas else { panic!() };
        assert_eq!(nibbles.len(), 4); // Rows of three weights take two bytes.
        assert_eq!(nibbles[0], 0x97); // 7 in the low nibble, −7 in the high one.
        assert_eq!(nibbles[1] & 0xF0, 0, "padding");
        assert_eq!(groups.len(), 2);
        assert_eq!(integer(nibbles, groups, 3, 0, 1), -7 * i32::from(groups[0]));
    }
}
