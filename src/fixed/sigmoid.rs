//! The logistic function, and the logarithm that belongs to it: gates (SwiGLU, SiLU) and the binary cross-entropy.

use super::exp2::{exp_neg_q31, mul_high_floor};
use super::log2::log2_fraction_q31;
use super::reciprocal::reciprocal_q31;

/// 1.0 in Q1.31.
const ONE: u32 = 1 << 31;

/// `1 / (1 + e^(-x))`: `x` in Q5.26, [−32, 32); the result in Q1.31, where 1.0 is `2^31`.
///
/// Rounded to nearest from 32 fraction bits, half to even. **Worst error 1.3 LSB (2^-30.6).** `σ(−x)` is `2^31 − σ(x)`
/// exactly, σ(0) is exactly ½, and the ends reach 0 and `2^31` exactly. Monotone.
///
/// ```
/// use ranklet::fixed::sigmoid::sigmoid_q31;
/// assert_eq!(sigmoid_q31(0), 1 << 30);
/// assert_eq!(sigmoid_q31(1 << 26) + sigmoid_q31(-1 << 26), 1 << 31);
/// ```
///
/// Derivation. With e = e^(-|x|), σ(|x|) = 1/(1 + e): 1 + e in Q31 is the mantissa that [`reciprocal_q31`] takes, and
/// its rounded 2^63 / m is the result in Q32. An error of e reaches σ divided by (1 + e)², which is worst just above
/// e = 1/4: (0.76 + 0.1 + 0.05) / 1.56 = 0.58 LSB, where the three are the exponential, its constant and the rounding
/// of its argument; 0.53 just above 1/2, and less in the octaves below. Then 0.25 for the reciprocal and 0.5 for the
/// last rounding: 1.33 LSB if all met; over all arguments 1.27 is met.
#[inline]
#[must_use]
pub const fn sigmoid_q31(x: i32) -> u32 {
    let above = match ONE.checked_add(exp_neg_q31(x.unsigned_abs(), -26)) {
        Some(m) => {
            let twice = reciprocal_q31(m);
            (twice >> 1) + (twice & (twice >> 1) & 1) // Half, ties to even; u32::MAX stands for 2.0 and gives 1.0.
        }
        None => ONE / 2, // x = 0: 1 + e is 2.0, one more than 32 bits hold.
    };
    if x < 0 { ONE - above } else { above }
}

/// `ln(1 + e^(-x))`: `x ≥ 0` in Q6.26, [0, 64); the result in Q0.26, from ln 2 down to 0.
///
/// Rounded to nearest from 31 fraction bits. **Worst error 0.6 LSB (2^-26.7).** Monotone: a larger `x` never gives a
/// larger result.
///
/// The binary cross-entropy of a logit z against a target t is `max(z, 0) − z t + softplus_neg_abs(|z|)`, which
/// neither overflows nor cancels.
///
/// ```
/// use ranklet::fixed::sigmoid::softplus_neg_abs_q26;
/// assert_eq!(softplus_neg_abs_q26(0), 46_516_320); // ln 2 · 2^26
/// assert_eq!(softplus_neg_abs_q26(u32::MAX), 0);
/// ```
///
/// ln 2 · log2(1 + e). In 2^-31: the exponential below 0.8 after the division by 1 + e, the logarithm 1.25 · ln 2, the product
/// 1: in all below 2.7, 0.09 LSB of Q26 before the last rounding: 0.59 if all met; over all arguments 0.538 is met.
#[inline]
#[must_use]
pub const fn softplus_neg_abs_q26(x: u32) -> u32 {
    const LN_2_Q32: u32 = 2_977_044_472;
    const LN_2_Q26: u32 = 46_516_320;
    match ONE.checked_add(exp_neg_q31(x, -26)) {
        Some(m) => (mul_high_floor(log2_fraction_q31(m), LN_2_Q32) + 16) >> 5,
        None => LN_2_Q26, // x = 0: log2 of 2.0 is 1.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_SIGMOID_LSB: f64 = 1.3;
    const WORST_SOFTPLUS_LSB: f64 = 0.6;

    fn real(x: impl Into<f64>) -> f64 {
        x.into() / f64::from(1 << 26)
    }

    /// From above 0 up: the other half follows from the symmetry, which is asserted.
    fn sweep_sigmoid(xs: impl Iterator<Item = i32>) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = 0;
        for x in xs {
            let y = sigmoid_q31(x);
            assert!(y >= last, "not monotone at {x}");
            last = y;
            assert_eq!(y + sigmoid_q31(-x), ONE, "not symmetric at {x}");
            worst = worst.max((f64::from(y) - f64::from(ONE) / (1.0 + (-real(x)).exp())).abs());
        }
        assert!(worst <= WORST_SIGMOID_LSB, "worst error {worst} LSB");
        worst
    }

    fn sweep_softplus(xs: impl Iterator<Item = u32>) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = u32::MAX;
        for x in xs {
            let y = softplus_neg_abs_q26(x);
            assert!(y <= last, "not monotone at {x}");
            last = y;
            worst = worst.max((f64::from(y) - (-real(x)).exp().ln_1p() * f64::from(1 << 26)).abs());
        }
        assert!(worst <= WORST_SOFTPLUS_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn sigmoid_by_a_coprime_stride() {
        sweep_sigmoid((0..=i32::MAX).step_by(stride(1499)));
    }

    #[test]
    fn sigmoid_where_it_bends_densely() {
        let worst = sweep_sigmoid((0..=4 << 26).step_by(127));
        assert!(worst > 0.9, "the claim of {WORST_SIGMOID_LSB} LSB is loose: {worst}");
        sweep_sigmoid(0..=20_000);
    }

    #[test]
    fn sigmoid_at_its_ends() {
        assert_eq!(sigmoid_q31(0), ONE / 2);
        assert_eq!(sigmoid_q31(i32::MAX), ONE);
        assert_eq!(sigmoid_q31(-i32::MAX), 0);
        assert_eq!(sigmoid_q31(i32::MIN), 0);
    }

    #[test]
    fn softplus_by_a_coprime_stride() {
        sweep_softplus((0..=u32::MAX).step_by(stride(2999)));
    }

    #[test]
    fn softplus_where_it_bends_densely() {
        let worst = sweep_softplus((0..=4 << 26).step_by(127));
        assert!(worst > 0.51, "the claim of {WORST_SOFTPLUS_LSB} LSB is loose: {worst}");
        sweep_softplus(0..=20_000);
    }
}
