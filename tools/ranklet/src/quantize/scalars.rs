//! Vectors under one exponent: bias, mean, factor. (Single numbers are the core's `Real`.)

use super::{exp2, floor_log2};

/// `i32` mantissas under one exponent: `2^29 ≤ max|m| < 2^30` (room for a carry), ties to even. Nothing but zeros has
/// exponent 0.
#[must_use]
pub fn i32s(values: &[f32]) -> (Vec<i32>, i16) {
    mantissas(&values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
}

/// `i16` mantissas under one exponent: `2^14 ≤ max|m| < 2^15`, ties to even. Nothing but zeros has exponent 0.
#[must_use]
pub fn i16s(values: &[f32]) -> (Vec<i16>, i16) {
    let peak = values.iter().fold(0.0_f64, |p, v| p.max(f64::from(v.abs())));
    if peak == 0.0 {
        return (vec![0; values.len()], 0);
    }
    let mut e = floor_log2(peak) - 14;
    if (peak / exp2(e)).round_ties_even() > f64::from(i16::MAX) {
        e += 1;
    }
    (values.iter().map(|&v| (f64::from(v) / exp2(e)).round_ties_even() as i16).collect(), e as i16)
}

/// One over each deviation, as [`i32s`]. Every `std` is above zero.
#[must_use]
pub fn reciprocals(std: &[f32]) -> (Vec<i32>, i16) {
    mantissas(&std.iter().map(|&s| 1.0 / f64::from(s)).collect::<Vec<_>>())
}

/// A normalisation that would lose a feature.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "feature {feature} has the deviation {std:e}, too small beside feature {widest}, which reaches {reach:.1e}: all \
     features of a sample share one exponent, and 31 bits; use std = 1 for a constant feature, and units of like size \
     for the others"
)]
pub struct LostFeature {
    /// The feature with the smallest deviation.
    pub feature: usize,
    /// Its deviation.
    pub std: f32,
    /// The feature with the largest values.
    pub widest: usize,
    /// How far they go: |mean| and four deviations.
    pub reach: f64,
}

/// Refuses a normalisation that would lose a feature: where half a step of a sample is more than 2^-10 of its
/// deviation. A step is 2^-29 of the sample's largest value, taken as |mean| and four deviations of any feature.
///
/// That bounds the stored numbers too: means stand under one exponent as samples do; and deviations are then within
/// 2^18 of each other, so that every factor ([`reciprocals`]) is within 2^-11 of its value.
///
/// `mean`, `std`: `(features)`; every `std` is above zero.
///
/// # Errors
/// [`LostFeature`].
pub fn check_normalization(mean: &[f32], std: &[f32]) -> Result<(), LostFeature> {
    let reaches = mean.iter().zip(std).map(|(&m, &s)| f64::from(m).abs() + 4.0 * f64::from(s));
    let smallest = std.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1));
    match (smallest, reaches.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))) {
        (Some((feature, &std)), Some((widest, reach))) if reach * exp2(-30) > f64::from(std) * exp2(-10) => {
            Err(LostFeature { feature, std, widest, reach })
        }
        _ => Ok(()),
    }
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
    fn features_that_would_be_lost_are_named() {
        let of = |mean: &[f32], std: &[f32]| check_normalization(mean, std).map_err(|e| (e.feature, e.widest));
        assert_eq!(of(&[], &[]), Ok(()));
        assert_eq!(of(&[0.0; 2], &[1e-30, 2e-30]), Ok(()));
        assert_eq!(of(&[20.0, 1e5], &[5.0, 1e3]), Ok(()), "degrees beside pascals");
        assert_eq!(of(&[0.0; 2], &[1.0, 2_f32.powi(18)]), Ok(()));
        assert_eq!(of(&[0.0; 2], &[2_f32.powi(19), 1.0]), Err((1, 0)));
        assert_eq!(of(&[0.0, 1e9], &[1.0, 1.0]), Err((0, 1)));
        // Constant features, as a deviation with an epsilon leaves them.
        assert_eq!(of(&[0.0; 3], &[1.0, 1e-8, 3.0]), Err((1, 2)));
        assert_eq!(of(&[128.0, 0.0], &[1e-5, 1.0]), Err((0, 0)));
    }

    proptest! {
        #[test]
        fn what_passes_keeps_its_factors(s in prop::collection::vec((1.0_f32..2.0, 0..18), 1..9)) {
            let std: Vec<f32> = s.iter().map(|&(m, e)| m * (e as f32).exp2()).collect();
            prop_assume!(check_normalization(&vec![0.0; std.len()], &std).is_ok());
            let (factors, e) = reciprocals(&std);
            for (&f, &s) in factors.iter().zip(&std) {
                prop_assert!((f64::from(f) * exp2(e.into()) * f64::from(s) - 1.0).abs() <= exp2(-11));
            }
        }
    }

    #[test]
    fn short_vectors_use_their_bits() {
        assert_eq!(i16s(&[0.0, 0.0]), (vec![0, 0], 0));
        assert_eq!(i16s(&[1.0, -0.5]), (vec![1 << 14, -(1 << 13)], -14));
        // The largest below a power of two would round up to 2^15.
        assert_eq!(i16s(&[1.0_f32.next_down(), -0.25]), (vec![1 << 14, -(1 << 12)], -14));
        for v in [f32::MIN_POSITIVE / 4.0, 3.3, f32::MAX] {
            let (m, e) = i16s(&[v]);
            assert!((f64::from(m[0]) * exp2(e.into()) / f64::from(v) - 1.0).abs() <= exp2(-15));
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
