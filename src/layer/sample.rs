//! Which token comes next: a draw from a language model's logits, in integers, without a buffer.
//!
//! ```text
//! term_i = exp((x_i − max) / temperature)          Q31, the largest is 1
//! P(i)   = term_i / Σ term_j                       over the j with term_j ≥ min_p
//! ```
//!
//! One pass: candidate i takes the place of the one held with the probability term_i / (term_0 + … + term_i), which leaves each
//! with its share of the whole (reservoir sampling with weights, a reservoir of one). So nothing is kept of 512 or of 32,000
//! logits but their sum, and no term is computed twice. The randomness of token `step` is a hash of seed and step: a text goes on
//! the same way wherever it is cut, and on every machine.

use crate::fixed::exp2::exp_neg_q31;
use crate::fixed::hash::{Purpose, Seed, Stream};
use crate::fixed::{Block, Real};

/// How the next token is chosen.
///
/// ```
/// use ranklet::layer::sample::Sampler;
/// use ranklet::{Block, Exp, Seed, q};
/// let sampler = Sampler { temperature: q!(0.7), min_p: q!(0.05), seed: Seed(1) };
/// let logits = Block { mantissas: &[100, 30_000, 29_000, -30_000], exponent: Exp(-12) };
/// assert!((0..100).all(|step| matches!(sampler.choose(logits, step), 1 | 2)));
/// assert_eq!(Sampler::GREEDY.choose(logits, 0), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampler {
    /// What logits are divided by: below 1 the likely tokens become likelier. At 0 or below the most likely one is taken, of
    /// equal ones the first.
    pub temperature: Real,
    /// Tokens less likely than this share of the most likely one's probability are left out (after the temperature). 0: none.
    pub min_p: Real,
    /// Fixes every draw.
    pub seed: Seed,
}

impl Sampler {
    /// The most likely token, always.
    pub const GREEDY: Sampler = Sampler { temperature: Real::ZERO, min_p: Real::ZERO, seed: Seed(0) };

    /// The token at place `step` of a text. 0 for no logits.
    ///
    /// Terms are at most 1.2 LSB of Q31 off, for a distance that is rounded to 2^-15 of a logit's LSB; a share is rounded up
    /// to a multiple of 2^-32. What is less than half of 2^-31 times as likely as the most likely token is never drawn.
    #[must_use]
    pub fn choose(&self, logits: Block<'_>, step: u32) -> usize {
        let best = super::head::argmax(logits.mantissas);
        let max = logits.mantissas.get(best).copied().unwrap_or(0);
        if self.temperature.is_zero() || self.temperature.is_negative() {
            return best;
        }
        let inverse = Real::ONE.div(self.temperature);
        let exponent = logits.exponent.get() + inverse.exponent() + 16;
        let least = self.min_p.to_q(31).max(1).unsigned_abs();
        let draws = Stream::new(self.seed, Purpose::Sample, step, 0);
        let (mut chosen, mut sum) = (best, 0_u64);
        for (i, &m) in logits.mantissas.iter().enumerate() {
            let distance = u64::from((i32::from(max) - i32::from(m)).unsigned_abs());
            // Below 2^16 · 2^31; half up, in 31 bits.
            let product = (distance * u64::from(inverse.mantissa().unsigned_abs()) + (1 << 15)) >> 16;
            let term = exp_neg_q31(product as u32, exponent);
            if term < least {
                continue;
            }
            sum += u64::from(term);
            if share(sum, draws.at(i as u32)) < u64::from(term) {
                chosen = i;
            }
        }
        chosen
    }
}

/// `⌊sum · random / 2^32⌋`, for a sum below 2^63.
const fn share(sum: u64, random: u32) -> u64 {
    let (high, low, random) = (sum >> 32, sum & 0xFFFF_FFFF, random as u64);
    high * random + ((low * random) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::Exp;
    use crate::q;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// In units of 2^-10: 1, 3, −1, 3, 2.
    const LOGITS: Block<'_> = Block { mantissas: &[1024, 3072, -1024, 3072, 2048], exponent: Exp(-10) };
    const HOT: Sampler = Sampler { temperature: Real::ONE, min_p: Real::ZERO, seed: Seed(5) };

    fn counts(sampler: Sampler, logits: Block<'_>) -> Vec<f64> {
        const DRAWS: u32 = 20_000;
        let mut counts = std::vec![0.0; logits.mantissas.len()];
        (0..DRAWS).for_each(|step| counts[sampler.choose(logits, step)] += 1.0 / f64::from(DRAWS));
        counts
    }

    #[test]
    fn draws_have_the_softmax_probabilities() {
        for (temperature, t) in [(q!(0.5), 0.5), (q!(1.0), 1.0), (q!(3.0), 3.0)] {
            let weights: Vec<f64> = [1.0, 3.0, -1.0, 3.0, 2.0].iter().map(|z: &f64| (z / t).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts(Sampler { temperature, ..HOT }, LOGITS).iter().zip(weights) {
                // Four standard deviations of 20,000 draws are at most 0.0142.
                assert!((count - weight / total).abs() < 0.0142, "{count} {}", weight / total);
            }
        }
    }

    #[test]
    fn the_unlikely_are_left_out() {
        // Terms: 1 of tokens 1 and 3, 0.368 of 4, 0.135 of 0, 0.018 of 2.
        let drawn = |min_p| counts(Sampler { min_p, ..HOT }, LOGITS).iter().map(|&c| c > 0.0).collect::<Vec<_>>();
        assert_eq!(drawn(q!(0.01)), [true; 5]);
        assert_eq!(drawn(q!(0.1)), [true, true, false, true, true]);
        assert_eq!(drawn(q!(0.3)), [false, true, false, true, true]);
        assert_eq!(drawn(q!(1.0)), [false, true, false, true, false]);
    }

    #[test]
    fn without_a_temperature_the_first_of_the_likeliest_is_taken() {
        for temperature in [Real::ZERO, q!(-1.0)] {
            assert_eq!(Sampler { temperature, ..HOT }.choose(LOGITS, 9), 1);
        }
        let nothing = Block { mantissas: &[], exponent: Exp::ZERO };
        assert_eq!((HOT.choose(nothing, 0), Sampler::GREEDY.choose(nothing, 0)), (0, 0));
    }

    #[test]
    fn a_seed_fixes_every_draw() {
        let of =
            |seed| (0..40).map(|step| Sampler { seed: Seed(seed), ..HOT }.choose(LOGITS, step)).collect::<Vec<_>>();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn a_wide_vocabulary_is_drawn_from_evenly() {
        let flat = std::vec![-7; 1 << 16];
        let drawn = (0..400).map(|step| HOT.choose(Block { mantissas: &flat, exponent: Exp(3) }, step));
        let low = drawn.filter(|&token| token < 1 << 15).count();
        // Four standard deviations of 400 draws are 40.
        assert!(low.abs_diff(200) <= 40, "{low} of 400 in the lower half");
    }

    proptest! {
        #[test]
        fn any_logits_any_temperature(
            m in prop::collection::vec(any::<i16>(), 1..20), e in any::<i16>(), t in any::<(i32, i16)>(), p in any::<(i32, i16)>(),
            step: u32,
        ) {
            let (temperature, min_p) = (Real::from_parts(t.0, t.1), Real::from_parts(p.0, p.1));
            let token = Sampler { temperature, min_p, seed: Seed(1) }.choose(Block { mantissas: &m, exponent: Exp(e) }, step);
            prop_assert!(token < m.len());
        }
    }
}
