//! Which token comes next, from the model's logits: the most likely one, or a draw.

use crate::metrics::argmax;
use ranklet::fixed::hash::{Purpose, Seed, Stream};

/// How the next token is chosen. In the order of transformers: temperature, then top-k, then top-p.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// What logits are divided by; at 0 the most likely token is taken (of equal ones the first), as a device does.
    pub temperature: f64,
    /// Only so many of the most likely; 0: all.
    pub top_k: usize,
    /// Only the most likely that together have this probability.
    pub top_p: f64,
    /// Fixes every draw: number `step` is a hash of both, so a text goes on the same way wherever it is cut.
    pub seed: Seed,
}

impl Sampler {
    /// The most likely token, always.
    pub const GREEDY: Sampler = Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, seed: Seed(0) };

    /// The token at place `step` of a text.
    #[must_use]
    pub fn choose(&self, logits: &[f32], step: u32) -> u32 {
        let best = argmax(logits);
        if self.temperature <= 0.0 {
            return best as u32;
        }
        let max = f64::from(logits.get(best).copied().unwrap_or(0.0));
        // Of logits beyond f32, all infinite ones are equal.
        let weight = |z: f32| if f64::from(z) == max { 1.0 } else { ((f64::from(z) - max) / self.temperature).exp() };
        let mut all: Vec<(usize, f64)> = logits.iter().map(|&z| weight(z)).enumerate().collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            all.truncate(self.top_k);
        }
        let mut enough = self.top_p * all.iter().map(|(_, w)| w).sum::<f64>();
        // Those in front of which less than `top_p` stands; the first always.
        let keep = all.iter().take_while(|(_, w)| {
            let needed = enough > 0.0;
            enough -= w;
            needed
        });
        let keep = keep.count().max(1);
        all.truncate(keep);
        let total: f64 = all.iter().map(|(_, w)| w).sum();
        let uniform = (f64::from(Stream::new(self.seed, Purpose::Sample, step, 0).at(0)) + 0.5) / 2_f64.powi(32);
        let mut left = uniform * total;
        let drawn = all.iter().find(|(_, w)| {
            left -= w;
            left < 0.0
        });
        drawn.or(all.last()).map_or(best, |(id, _)| *id) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, -1.0, 3.0, 2.0];

    fn counts(sampler: Sampler, logits: &[f32]) -> Vec<f64> {
        const DRAWS: u32 = 20_000;
        let mut counts = vec![0.0; logits.len()];
        (0..DRAWS).for_each(|step| counts[sampler.choose(logits, step) as usize] += 1.0 / f64::from(DRAWS));
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        assert_eq!(Sampler::GREEDY.choose(&LOGITS, 7), 1);
    }

    #[test]
    fn draws_have_the_softmax_probabilities() {
        for temperature in [0.5, 1.0, 3.0] {
            let sampler = Sampler { temperature, ..Sampler::GREEDY };
            let weights: Vec<f64> = LOGITS.iter().map(|&z| (f64::from(z) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts(sampler, &LOGITS).iter().zip(weights) {
                // Four standard deviations of 20,000 draws are at most 0.0142.
                assert!((count - weight / total).abs() < 0.0142, "{count} {}", weight / total);
            }
        }
    }

    #[test]
    fn top_k_and_top_p_leave_the_rest_out() {
        let hot = Sampler { temperature: 1.0, ..Sampler::GREEDY };
        let drawn = |sampler: Sampler| counts(sampler, &LOGITS).iter().map(|&c| c > 0.0).collect::<Vec<_>>();
        assert_eq!(drawn(Sampler { top_k: 1, ..hot }), [false, true, false, false, false]);
        assert_eq!(drawn(Sampler { top_k: 3, ..hot }), [false, true, false, true, true]);
        // Probabilities: 0.4 and 0.4 of tokens 1 and 3, 0.147 of 4, 0.054 of 0.
        assert_eq!(drawn(Sampler { top_p: 0.3, ..hot }), [false, true, false, false, false]);
        assert_eq!(drawn(Sampler { top_p: 0.79, ..hot }), [false, true, false, true, false]);
        assert_eq!(drawn(Sampler { top_p: 0.9, ..hot }), [false, true, false, true, true]);
        // Top-p counts what top-k has left.
        assert_eq!(drawn(Sampler { top_k: 2, top_p: 0.6, ..hot }), [false, true, false, true, false]);
        assert_eq!(drawn(Sampler { top_k: 2, top_p: 0.49, ..hot }), [false, true, false, false, false]);
    }

    #[test]
    fn a_seed_fixes_every_draw() {
        let of = |seed| {
            let sampler = Sampler { temperature: 1.0, seed: Seed(seed), ..Sampler::GREEDY };
            (0..40).map(|step| sampler.choose(&LOGITS, step)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn logits_beyond_f32_are_drawn_from() {
        let sampler = Sampler { temperature: 1.0, ..Sampler::GREEDY };
        let c = counts(sampler, &[f32::INFINITY, 0.0, f32::INFINITY, f32::NEG_INFINITY]);
        assert!((c[0] - 0.5).abs() < 0.015 && (c[2] - 0.5).abs() < 0.015 && c[1] + c[3] == 0.0, "{c:?}");
    }
}
