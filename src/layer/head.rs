//! What a network's last vector means: class, probabilities.

use crate::fixed::Block;
use crate::fixed::exp2::exp_neg_q31;

/// The index of the largest value; of several, the first. 0 for an empty vector.
#[must_use]
pub fn argmax(logits: &[i16]) -> usize {
    let best = logits.iter().enumerate().fold((0, i16::MIN), |best, (i, &m)| if m > best.1 { (i, m) } else { best });
    best.0
}

/// The softmax of `logits` in Q31: each term `exp(x − max)`, at most 1.2 LSB off and the largest exact, and their sum.
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
        fn probabilities_sum_to_one(m in prop::collection::vec(-32639_i16..=32639, 1..12), e in -20_i16..-8) {
            let logits = Block { mantissas: &m, exponent: Exp(e) };
            let total: u32 = (0..m.len()).map(|c| probability_permille(logits, c)).sum();
            prop_assert!(total.abs_diff(1000) <= m.len() as u32);
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
