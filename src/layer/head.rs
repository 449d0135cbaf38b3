//! What a network's last vector means: class, probabilities.

use crate::fixed::Block;
use crate::fixed::exp2::exp2_neg_q31;
use crate::fixed::rounding::shift_half_even;

/// log2(e) in Q30.
const LOG2_E_Q30: i64 = 1_549_082_005;

/// The index of the largest value; of several, the first. 0 for an empty vector.
#[must_use]
pub fn argmax(logits: &[i16]) -> usize {
    let best = logits.iter().enumerate().fold((0, i16::MIN), |best, (i, &m)| if m > best.1 { (i, m) } else { best });
    best.0
}

/// `exp(−d · 2^exponent)` in Q31, where 1.0 is 2^31: one term of a softmax, `d` the distance from the maximum, 0 to
/// 2^17 − 1 (more is taken as that; two mantissas are at most 65278 apart).
///
/// d · 2^exponent is brought to Q27 in powers of two (half to even), 31.99 at most: what lies beyond is below one LSB.
/// Error: at most 2 LSB of the exponential itself, and 2^-28 relative from the argument.
#[inline]
#[must_use]
pub fn exp_neg_q31(distance: u32, exponent: i32) -> u32 {
    // distance < 2^17, log2(e) in Q30 < 2^31: below 2^48. From 30 fraction bits to 27: to the right by 3 − exponent.
    let product = i64::from(distance.min(0x1_FFFF)) * LOG2_E_Q30;
    let turns =
        if exponent > 18 { product.min(1) << 40 } else { shift_half_even(product, 3_i32.saturating_sub(exponent)) };
    exp2_neg_q31(turns.min(i64::from(u32::MAX)) as u32)
}

/// The softmax of `logits` in Q31: each term `exp(x − max)`, and their sum.
///
/// Calls `each(index, term)` in order; returns the sum, which fits as long as there are fewer than 2^33 logits.
pub fn softmax_terms(logits: Block<'_>, mut each: impl FnMut(usize, u32)) -> u64 {
    let max = logits.mantissas.iter().copied().max().unwrap_or(0);
    let mut sum = 0;
    for (i, &m) in logits.mantissas.iter().enumerate() {
        let distance = (i32::from(max) - i32::from(m)).unsigned_abs();
        let term = exp_neg_q31(distance, logits.exponent.get());
        sum += u64::from(term);
        each(i, term);
    }
    sum
}

/// The probability of `class`, in thousandths, rounded to nearest: for a display. 0 where there is no such class.
#[must_use]
pub fn probability_permille(logits: Block<'_>, class: usize) -> u32 {
    let mut term = 0;
    let sum = softmax_terms(logits, |i, t| {
        if i == class {
            term = t;
        }
    });
    ((u64::from(term) * 1000 + sum / 2).checked_div(sum).unwrap_or(0)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::Exp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn exponentials_are_near(d in 0_u32..131_072, e in -40_i32..20) {
            let want = (-f64::from(d) * f64::from(e).exp2()).exp() * f64::from(31).exp2();
            let got = f64::from(exp_neg_q31(d, e));
            // 2 LSB, and 2^-28 relative for each octave of the argument (at most 32 turns).
            prop_assert!((got - want).abs() <= 2.0 + want * 32.0 * f64::from(-28).exp2(), "{} {}", got, want);
        }

        #[test]
        fn probabilities_sum_to_one(m in prop::collection::vec(-32639_i16..=32639, 1..12), e in -20_i16..-8) {
            let logits = Block { mantissas: &m, exponent: Exp(e) };
            let total: u32 = (0..m.len()).map(|c| probability_permille(logits, c)).sum();
            prop_assert!(total.abs_diff(1000) <= m.len() as u32);
        }
    }

    #[test]
    fn extremes_are_total() {
        for distance in [0, 1, 0x1_FFFF, u32::MAX] {
            assert_eq!(exp_neg_q31(distance, i32::MIN), 1 << 31);
            let far = exp_neg_q31(distance, i32::MAX);
            assert!(if distance == 0 { far == 1 << 31 } else { far <= 1 }, "{far}");
        }
    }

    #[test]
    fn the_first_of_equals_wins() {
        assert_eq!(argmax(&[3, 7, 7, -1]), 1);
        assert_eq!(argmax(&[]), 0);
        let none = Block { mantissas: &[], exponent: Exp::ZERO };
        assert_eq!(probability_permille(none, 0), 0);
    }
}
