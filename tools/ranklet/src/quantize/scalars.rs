//! Vectors under one exponent: bias, mean, factor. (Single numbers are the core's `Real`.)

use super::{exp2, floor_log2};

/// `i32` mantissas under one exponent: `2^29 ≤ max|m| < 2^30` (room for a carry), ties to even. Nothing but zeros has
/// exponent 0.
#[must_use]
pub fn i32s(values: &[f32]) -> (Vec<i32>, i16) {
    mantissas(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
}

/// One over each deviation, as [`i32s`]. Every `std` is above zero.
#[must_use]
pub fn reciprocals(std: &[f32]) -> (Vec<i32>, i16) {
    mantissas(&std.iter().map(|&s| 1.0 / f64::from(s)).collect::<Vec<_>>())
}

fn mantissas(values: &[f64]) -> (Vec<i32>, i16) {
    let peak = values.iter().fold(0.0_f64, |p, v| p.max(v.abs()));
    if peak == 0.0 {
        return (vec![0; values.len()], 0);
    }
    let e = floor_log2(peak) - 29;
    (values.iter().map(|&v| (v / exp2(e)).round_ties_even() as i32).collect(), e as i16)
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
    fn factors_of_far_deviations_keep_their_bits() {
        let (m, e) = reciprocals(&[3.0, 3000.0]);
        for (m, std) in m.iter().zip([3.0, 3000.0]) {
            assert!((f64::from(*m) * exp2(e.into()) * std - 1.0).abs() < 1e-5);
        }
    }
}
