//! Vectors under one exponent: bias, mean, factor. (Single numbers are the core's `Real`.)

use super::{exp2, floor_log2, row_scales};

/// `i32` mantissas under one exponent: `2^29 ≤ max|m| < 2^30` (room for a carry), ties to even. Nothing but zeros has
/// exponent 0.
#[must_use]
pub fn i32s(values: &[f32]) -> (Vec<i32>, i16) {
    let peak = f64::from(values.iter().fold(0.0_f32, |p, v| p.max(v.abs())));
    if peak == 0.0 {
        return (vec![0; values.len()], 0);
    }
    let e = floor_log2(peak) - 29;
    (values.iter().map(|&v| (f64::from(v) / exp2(e)).round_ties_even() as i32).collect(), e as i16)
}

/// One over each deviation, as `u16` mantissas under one exponent, rounded up like a row's scale. Every `std` is
/// above zero. Also the worst relative error: deviations that lie octaves apart leave the smallest factor few bits.
#[must_use]
pub fn reciprocals(std: &[f32]) -> (Vec<u16>, i16, f64) {
    let ideal: Vec<f64> = std.iter().map(|&s| 1.0 / f64::from(s)).collect();
    let (_, e) = row_scales(&ideal);
    let unit = exp2(i32::from(e));
    let rounded: Vec<u16> = ideal.iter().map(|f| (f / unit).round_ties_even().clamp(0.0, 65535.0) as u16).collect();
    let error = |(&m, f): (&u16, &f64)| (f64::from(m) * unit / f - 1.0).abs();
    let worst = rounded.iter().zip(&ideal).map(error).fold(0.0, f64::max);
    (rounded, e, worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn biases_keep_their_f32(v in prop::collection::vec(-100.0_f32..100.0, 1..9)) {
            let (m, e) = i32s(&v);
            let peak = v.iter().fold(0.0_f32, |p, x| p.max(x.abs()));
            for (&x, &m) in v.iter().zip(&m) {
                prop_assert!((f64::from(m) * exp2(e.into()) - f64::from(x)).abs() <= f64::from(peak) * exp2(-30));
            }
        }
    }

    #[test]
    fn factors_tell_their_error() {
        let (m, e, worst) = reciprocals(&[1.0, 2.0]);
        assert_eq!((m, e), (vec![1 << 15, 1 << 14], -15));
        assert_eq!(worst, 0.0);
        let (_, _, worst) = reciprocals(&[3.0, 3000.0]);
        assert!((1e-3..0.1).contains(&worst), "{worst}");
    }
}
