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

/// `exp(−d · 2^exponent)` in Q31, where 1.0 is 2^31: one term of a softmax, `d ≥ 0` the distance from the maximum.
///
/// d · 2^exponent is brought to Q27 in powers of two (half to even), 31.99 at most: what lies beyond is below one LSB.
/// Error: at most 2 LSB of the exponential itself, and 2^-28 relative from the argument.
#[inline]
#[must_use]
pub fn exp_neg_q31(distance: u32, exponent: i32) -> u32 {
    // distance < 2^17, log2(e) in Q30 < 2^31: below 2^48. From 30 fraction bits to 27: to the right by 3 − exponent.
    let product = i64::from(distance & 0x1_FFFF) * LOG2_E_Q30;
    let turns = if exponent > 18 { product.min(1) << 40 } else { shift_half_even(product, 3 - exponent) };
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
