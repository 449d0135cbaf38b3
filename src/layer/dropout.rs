//! Dropout on an adapter's input, as PEFT's `lora_dropout`: elements are zeroed with probability p, the rest scaled
//! by 1/(1−p). The mask is a hash of (seed, step, site, index): nothing is stored, and recomputation draws it again.

use crate::fixed::Real;
use crate::fixed::hash::{Purpose, Seed, Stream};

/// One draw of the mask: for one sample at one site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropout {
    stream: Stream,
    threshold: u32,
    first: u32,
    /// 1/(1−p).
    pub keep_scale: Real,
}

impl Dropout {
    /// The mask of probability `p` (0 ≤ p < 1; what is outside is taken as 0) for `(seed, sample, site)`.
    ///
    /// p is honoured to 2^-32.
    #[must_use]
    pub const fn new(p: Real, seed: Seed, sample: u32, site: u32) -> Option<Dropout> {
        let keep = Real::ONE.sub(p);
        if p.is_zero() || p.is_negative() || keep.is_zero() || keep.is_negative() {
            return None;
        }
        // p in Q32, from Q31 because `to_q` is signed.
        let threshold = (p.to_q(31) as u32) << 1;
        let stream = Stream::new(seed, Purpose::Dropout, sample, site);
        Some(Dropout { stream, threshold, first: 0, keep_scale: Real::ONE.div(keep) })
    }

    /// The same mask for a call whose first element is number `first` of the sample (first token · width): tokens that are
    /// split over calls are masked as the whole would be.
    #[must_use]
    pub const fn starting_at(self, first: usize) -> Dropout {
        Dropout { first: first as u32, ..self }
    }

    /// Whether element `index` of the input stays.
    #[inline]
    #[must_use]
    pub const fn keeps(&self, index: usize) -> bool {
        self.stream.at(self.first.wrapping_add(index as u32)) >= self.threshold
    }

    /// Copies `x` to `out` with the dropped elements zeroed; `first` is the index of `x[0]`.
    pub fn mask(&self, first: usize, x: &[i16], out: &mut [i16]) {
        for (i, (&x, out)) in x.iter().zip(out).enumerate() {
            *out = if self.keeps(first + i) { x } else { 0 };
        }
    }
}

/// The masks of one sample at all sites.
#[derive(Clone, Copy, Debug)]
pub struct Masks {
    /// The probability that an element is dropped.
    pub p: Real,
    /// What fixes them.
    pub seed: Seed,
    /// The sample's number.
    pub sample: u32,
}

impl Masks {
    /// The mask at one site, from element `first` of its input on ([`Dropout::starting_at`]).
    #[must_use]
    pub const fn at(&self, site: u16, first: usize) -> Option<Dropout> {
        match Dropout::new(self.p, self.seed, self.sample, site as u32) {
            Some(dropout) => Some(dropout.starting_at(first)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_the_fraction_it_is_told_to() {
        for percent in [1, 10, 50, 90] {
            let d = Dropout::new(Real::ratio(percent, 100), Seed(3), 17, 2).unwrap();
            let dropped = (0..100_000).filter(|&i| !d.keeps(i)).count() as f64;
            let expected = f64::from(percent) * 1000.0;
            // Five standard deviations of a binomial.
            assert!(
                (dropped - expected).abs() < 5.0 * (expected * (1.0 - expected / 1e5)).sqrt(),
                "{percent}: {dropped}"
            );
        }
    }

    #[test]
    fn zero_and_nonsense_mean_none() {
        for p in [Real::ZERO, Real::ONE, Real::int(2), Real::int(-1)] {
            assert_eq!(Dropout::new(p, Seed(0), 0, 0), None);
        }
    }
}
