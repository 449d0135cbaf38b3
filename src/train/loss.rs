//! Losses and their gradients: forward and backward of the network's end, side by side.
//!
//! | loss | of one sample | gradient |
//! |---|---|---|
//! | cross-entropy | `log Σ exp(z_i − z_t)` | `softmax(z) − onehot(t)`; the target's is minus the sum of the others |
//! | binary cross-entropy | mean of `max(z,0) − z·y + log(1 + e^−|z|)` | `(sigmoid(z) − y) / n` |
//! | mean squared error | mean of `(y − t)²` | `2 (y − t) / n` |
//!
//! Exponentials have 31 bits, so a confident sample still has a gradient: with 15 it would vanish at a probability of
//! 0.99997.

use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, shift_right_half_even};
use crate::fixed::row_sum::RowSum;
use crate::fixed::sigmoid::{sigmoid_q31, softplus_neg_abs_q26};
use crate::fixed::{Block, Exp, Real};
use crate::layer::head::{nats, softmax_terms};
use crate::model::HeadKind;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum LossKind {
    /// For exclusive classes.
    CrossEntropy,
    /// On logits, for labels that are each yes or no.
    BinaryCrossEntropy,
    /// For values.
    MeanSquaredError,
}

impl LossKind {
    /// The loss that fits a head; none for a network without one.
    #[must_use]
    pub const fn of_head(head: HeadKind) -> Option<LossKind> {
        match head {
            HeadKind::Classification | HeadKind::Language => Some(LossKind::CrossEntropy),
            HeadKind::Binary => Some(LossKind::BinaryCrossEntropy),
            HeadKind::Regression => Some(LossKind::MeanSquaredError),
            HeadKind::None => None,
        }
    }
}

/// What a sample should have come out as.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Target<'a> {
    /// A class, for cross-entropy.
    Class(usize),
    /// One yes or no a logit, for binary cross-entropy.
    Labels(&'a [bool]),
    /// `value = v · 2^exponent`, for mean squared error.
    Values(&'a [i16], Exp),
    /// The gradient itself, `dL/dy`, in place of a loss: `value = v · 2^exponent`.
    Cotangent(&'a [i16], Exp),
}

/// What a sequence should have come out as.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SequenceTarget<'a> {
    /// Of the output for the whole sequence, from the vector that the network pools.
    Pooled(Target<'a>),
    /// Of the output at one token.
    At(usize, Target<'a>),
    /// A class for every token, or [`IGNORE`]: the loss is the mean over those that have one. `(tokens)`.
    Tokens(&'a [u32]),
    /// Of every token the one that follows: language modelling. Padding, and what stands before it, has no label.
    Next,
    /// In place of a loss, the gradient `dL/dy` of every token's output: mantissas `(tokens, outputs)`, and an exponent a token
    /// ([`Exp::ZERO`]: none). Needs [`Train::cotangents`](crate::model::Train::cotangents).
    Cotangents(&'a [i16], &'a [Exp]),
}

pub use crate::model::transformer::IGNORE;

/// A target as it waits for its unit: vectors lie in the gradient's buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Staged {
    Class(usize),
    Labels,
    Values(Exp),
    Cotangent(Exp),
}

/// The loss of a sample and its gradient.
///
/// `dy`: `(outputs)`, the staged target; overwritten by the gradient, canonical. `share`: what both are multiplied by, where
/// the sample's loss is a mean over tokens; a given gradient is not. `acc`: as long.
///
/// Worst errors, for n outputs, a loss L and a gradient whose peak is p:
///
/// | loss | of the loss | of an element of the gradient |
/// |---|---|---|
/// | cross-entropy | 2^-27 + n · 2^-30.7 + L · 2^-30 | p · 2^-14.4 + n · 2^-30 |
/// | binary cross-entropy | 2^-26 + L · (n + 2) · 2^-31 | p · 2^-14.4 + 2^-28.4 / n |
/// | mean squared error | L · (n + 4) · 2^-31 | p · 2^-14.4 |
///
/// p · 2^-14.4: half an LSB of the block (p / 32640) and of a 16-bit factor, 1/Σ or 1/n (2^-16).
///
/// - Cross-entropy: each of the n − 1 terms beside the largest is off by at most 1.2 · 2^-31, Σ ≥ 1, and so ln Σ; `log2_q26` by
///   0.6 · 2^-26 octaves; the product with ln 2 and the sum with max − z_t round to 31 bits each. In the gradient, the target's element
///   collects the errors of all terms.
/// - Binary: softplus is off by 0.6 · 2^-26, and by half of 2^-27 where |z| has more than 26 fraction bits; |z| is exact; n sums and the
///   mean round to 31 bits each. The sigmoid is off by 1.3 · 2^-31, and by a quarter of 2^-27 for the same reason.
/// - Squared error: differences are exact, or 2^-62 of the largest; 31 bits of each are squared (2^-30), the product, n − 1 sums, 1/n and the
///   product with it round to 31 bits each.
pub(crate) fn loss(y: Block<'_>, target: Staged, dy: &mut [i16], share: Real, acc: &mut [i64]) -> (Real, Exp) {
    let acc = acc.get_mut(..y.mantissas.len()).unwrap_or(&mut []);
    match target {
        Staged::Class(class) => cross_entropy(y, class, dy, share, acc),
        Staged::Labels => binary_cross_entropy(y, dy, share, acc),
        Staged::Values(exponent) => mean_squared_error(y, exponent, dy, share, acc),
        Staged::Cotangent(exponent) => (Real::ZERO, crate::fixed::block::canonicalize(dy, exponent)),
    }
}

fn cross_entropy(y: Block<'_>, class: usize, dy: &mut [i16], share: Real, acc: &mut [i64]) -> (Real, Exp) {
    let mut slots = acc.iter_mut();
    let sum = softmax_terms(y, |_, term| {
        if let Some(slot) = slots.next() {
            *slot = i64::from(term);
        }
    });
    let mut own = 0;
    if let Some(slot) = acc.get_mut(class) {
        own = *slot;
        *slot -= sum as i64; // minus the sum of the others
    }
    let loss = nats(y, class, sum, own);

    // dy = acc / Σ: at most 44 bits of accumulator under a 16-bit reciprocal.
    let excess = bit_length(sum).saturating_sub(44);
    let (inverse, exponent) = share.div(Real::new(sum as i64, 0)).to_parts_16();
    for a in acc.iter_mut() {
        *a = shift_right_half_even(*a, excess) * i64::from(inverse);
    }
    (loss.mul(share), requantize(acc, exponent + excess as i32, dy))
}

fn binary_cross_entropy(y: Block<'_>, dy: &mut [i16], share: Real, acc: &mut [i64]) -> (Real, Exp) {
    let mut total = Real::ZERO;
    for ((&m, &label), a) in y.mantissas.iter().zip(dy.iter()).zip(acc.iter_mut()) {
        let yes = label != 0;
        let z = Real::new(i64::from(m), y.exponent.get());
        let q26 = z.to_q(26); // ±32; beyond that the sigmoid is 0 or 1 in 31 bits
        // max(z, 0) − z·y: |z| where the sign is wrong, 0 where it is right.
        let wrong = if z.is_negative() == yes { z.abs() } else { Real::ZERO };
        let rest = Real::new(i64::from(softplus_neg_abs_q26(q26.unsigned_abs())), -26);
        total = total.add(wrong).add(rest);
        *a = i64::from(sigmoid_q31(q26)) - if yes { 1 << 31 } else { 0 };
    }
    let per_output = Real::ratio(1, y.mantissas.len() as u32).mul(share);
    let (factor, exponent) = per_output.to_parts_16();
    for a in acc.iter_mut() {
        *a *= i64::from(factor);
    }
    (total.mul(per_output), requantize(acc, exponent - 31, dy))
}

fn mean_squared_error(y: Block<'_>, target: Exp, dy: &mut [i16], share: Real, acc: &mut [i64]) -> (Real, Exp) {
    for (a, &m) in acc.iter_mut().zip(y.mantissas) {
        *a = i64::from(m);
    }
    let mut row = RowSum::new(acc, y.exponent.get(), 15);
    let joined = row.join(target.get(), 15);
    for (v, &t) in row.values_mut().iter_mut().zip(dy.iter()) {
        *v -= joined.align(i64::from(t));
    }
    let (difference, exponent) = row.finish();
    let union = difference.iter().fold(0, |u, v| u | v.unsigned_abs());
    let excess = bit_length(union).saturating_sub(46);
    let per_output = Real::ratio(1, y.mantissas.len() as u32).mul(share);
    let (factor, factor_exponent) = per_output.scale(1).to_parts_16();
    let mut total = Real::ZERO;
    for d in difference.iter_mut() {
        let value = Real::new(*d, exponent);
        total = total.add(value.mul(value));
        *d = shift_right_half_even(*d, excess) * i64::from(factor);
    }
    (total.mul(per_output), requantize(difference, exponent + excess as i32 + factor_exponent, dy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn f(x: Real) -> f64 {
        f64::from(x.mantissa()) * f64::from(x.exponent()).exp2()
    }

    fn run(z: &[i16], e: i16, staged: Staged, dy: &mut [i16]) -> (f64, Vec<f64>) {
        let y = Block { mantissas: z, exponent: Exp(e) };
        let (l, de) = loss(y, staged, dy, Real::ONE, &mut vec![0; z.len()]);
        let g = dy.iter().map(|&d| f64::from(d) * f64::from(de.get()).exp2()).collect();
        (f(l), g)
    }

    fn power(e: i32) -> f64 {
        f64::from(e).exp2()
    }

    /// Whether every element is as near as the table says: `absolute` beside the roundings to 16 bits.
    fn close(got: &[f64], want: &[f64], absolute: f64) -> bool {
        let peak = want.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        let limit = peak * (1.0 / 32640.0 + power(-16)) * (1.0 + power(-10)) + absolute;
        got.iter().zip(want).all(|(g, w)| (g - w).abs() <= limit)
    }

    /// Widths about those of heads, and wide ones; exponents from next to nothing to far beyond what an exponential can.
    fn logits() -> impl Strategy<Value = (Vec<i16>, i16)> {
        let width = prop_oneof![4 => 2_usize..20, 1 => 200_usize..2000];
        (width.prop_flat_map(|n| prop::collection::vec(-32639_i16..=32639, n)), -30_i16..-8)
    }

    proptest! {
        #[test]
        fn cross_entropy_is_its_definition((z, e) in logits(), t in any::<prop::sample::Index>()) {
            let (t, n) = (t.index(z.len()), z.len() as f64);
            let x: Vec<f64> = z.iter().map(|&m| f64::from(m) * f64::from(e).exp2()).collect();
            let max = x.iter().fold(f64::MIN, |a, &b| a.max(b));
            let sum: f64 = x.iter().map(|v| (v - max).exp()).sum();
            let want: Vec<f64> = x.iter().enumerate().map(|(i, v)| (v - max).exp() / sum - f64::from(u8::from(i == t))).collect();
            let (l, g) = run(&z, e, Staged::Class(t), &mut vec![0; z.len()]);
            let expected = sum.ln() + max - x[t];
            let limit = power(-27) + n * (-30.7_f64).exp2() + expected * power(-30);
            prop_assert!((l - expected).abs() <= limit, "{} {}", l, expected);
            prop_assert!(close(&g, &want, n * power(-30)), "{:?} {:?}", g, want);
        }

        #[test]
        fn binary_is_its_definition((m, e) in logits(), labels in prop::collection::vec(any::<bool>(), 2000)) {
            let mut dy: Vec<i16> = labels.iter().take(m.len()).map(|&y| i16::from(y)).collect();
            let n = m.len() as f64;
            let (mut expected, mut want) = (0.0, vec![]);
            for (&m, &y) in m.iter().zip(&labels) {
                let (x, y) = (f64::from(m) * f64::from(e).exp2(), f64::from(u8::from(y)));
                expected += (x.max(0.0) - x * y + (-x.abs()).exp().ln_1p()) / n;
                want.push((1.0 / (1.0 + (-x).exp()) - y) / n);
            }
            let (l, g) = run(&m, e, Staged::Labels, &mut dy);
            let limit = power(-26) + expected * (n + 2.0) * power(-31);
            prop_assert!((l - expected).abs() <= limit, "{} {}", l, expected);
            prop_assert!(close(&g, &want, (-28.4_f64).exp2() / n), "{:?} {:?}", g, want);
        }

        #[test]
        fn squared_error_is_its_definition((m, e) in logits(), targets in prop::collection::vec(-32639_i16..=32639, 2000), te in -30_i16..-8) {
            let mut dy = targets[..m.len()].to_vec();
            let n = m.len() as f64;
            let value = |m: i16, e: i16| f64::from(m) * power(i32::from(e));
            let d: Vec<f64> = m.iter().zip(&targets).map(|(&m, &t)| value(m, e) - value(t, te)).collect();
            let (l, g) = run(&m, e, Staged::Values(Exp(te)), &mut dy);
            let expected = d.iter().map(|d| d * d).sum::<f64>() / n;
            prop_assert!((l - expected).abs() <= expected * (n + 4.0) * power(-31), "{} {}", l, expected);
            prop_assert!(close(&g, &d.iter().map(|d| 2.0 * d / n).collect::<Vec<_>>(), 0.0));
        }
    }

    #[test]
    fn a_confident_sample_still_has_a_gradient() {
        // z = (0, −18): the other class has 1.5e-8, which 15-bit exponentials would not see.
        let (l, g) = run(&[0, -18 << 10], -10, Staged::Class(0), &mut [0; 2]);
        assert!((l / 1.5229979e-8 - 1.0).abs() < 0.04, "{l}");
        assert!(g[0] < 0.0 && g[1] > 0.0);
    }
}
