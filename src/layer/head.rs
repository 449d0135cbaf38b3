//! What a network's last vector means: class, probabilities.

use crate::fixed::exp2::exp_neg_q31;
use crate::fixed::log2::log2_q26;
use crate::fixed::{Block, Real};

/// ln 2.
const LN_2: Real = Real::new(744_261_118, -30);

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

/// `−ln softmax(logits)[class]`, the loss of a token or an answer in nats, for measuring without training; the largest real there is
/// where there is no such class. Within 2^-27 and `n · 2^-30` for n logits.
#[must_use]
pub fn cross_entropy(logits: Block<'_>, class: usize) -> Real {
    let mut own = None;
    let sum = softmax_terms(logits, |i, term| {
        if i == class {
            own = Some(term);
        }
    });
    own.map_or(Real::new(1, 1 << 20), |own| nats(logits, class, sum, i64::from(own)))
}

/// The same from the sum of the terms and the class's own.
pub(crate) fn nats(y: Block<'_>, class: usize, sum: u64, own: i64) -> Real {
    // L = ln Σ + (max − z_t); Σ in Q31.
    let max = y.mantissas.iter().copied().max().unwrap_or(0);
    let z = y.mantissas.get(class).copied().unwrap_or(0);
    let distance = Real::new(i64::from(max) - i64::from(z), y.exponent.get());
    let log2 = Real::new(i64::from(log2_q26(sum)) - (31 << 26), -26);
    // Where the target holds nearly everything, ln Σ is the small sum of the others: log1p in two terms.
    let others = Real::new(sum as i64 - own, 0);
    if distance.is_zero() && others.less_than(Real::int(1 << 19)) {
        let x = others.scale(-31);
        x.sub(x.mul(x).scale(-1))
    } else {
        log2.mul(LN_2).add(distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::Exp;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nats_are_their_definition(m in prop::collection::vec(-32639_i16..=32639, 1..40), e in -20_i16..-8, at in any::<prop::sample::Index>()) {
            let logits = Block { mantissas: &m, exponent: Exp(e) };
            let class = at.index(m.len());
            let x: std::vec::Vec<f64> = m.iter().map(|&v| f64::from(v) * f64::from(e).exp2()).collect();
            let max = x.iter().copied().fold(f64::MIN, f64::max);
            let want = x.iter().map(|v| (v - max).exp()).sum::<f64>().ln() + max - x[class];
            let found = cross_entropy(logits, class);
            let found = f64::from(found.mantissa()) * f64::from(found.exponent()).exp2();
            prop_assert!((found - want).abs() <= 2_f64.powi(-26) + want * 2_f64.powi(-29), "{} {}", found, want);
        }

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
