//! Randomness without a generator: every draw is a hash of (seed, step, site, index).
//!
//! There is no state to save, so a draw survives recomputation and another tiling, and two cores that never talked draw
//! the same. The mixer is the `lowbias32` finalizer (C. Wellons, "Prospecting for hash
//! functions"): two 32-bit multiplications, which a Cortex-M0 has.

/// A seed fixes everything random: initial values, dropout, dithering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Seed(pub u32);

/// What a draw is for; keeps the streams apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Purpose {
    /// The initial values of A.
    Init = 1,
    /// Dropout on the adapter's input.
    Dropout = 2,
    /// Dithered rounding of Adam's second moment.
    Dither = 3,
    /// The order of samples.
    Shuffle = 4,
    /// The next token of a text.
    Sample = 6,
    /// Which samples a reservoir keeps.
    Reservoir = 7,
    /// Which of them are shown again.
    Replay = 8,
}

/// One stream of draws: fixed purpose, step and site; indexed by [`at`](Stream::at).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(u32);

impl Stream {
    /// The stream of one purpose, at one step, for one site (or tensor).
    #[must_use]
    pub const fn new(seed: Seed, purpose: Purpose, step: u32, site: u32) -> Stream {
        // Chained, not xor-ed together: (step 1, site 2) and (step 2, site 1) must differ.
        let h = mix(seed.0 ^ 0x9E37_79B9);
        let h = mix(h ^ purpose as u32);
        let h = mix(h.wrapping_add(step));
        Stream(mix(h.wrapping_add(site).wrapping_mul(0x85EB_CA6B)))
    }

    /// Draw number `index`: 32 uniform bits.
    #[inline]
    #[must_use]
    pub const fn at(self, index: u32) -> u32 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9E37_79B9)))
    }
}

/// 64 bits of all words it is given, in their order: to find again what was the same. Not for whom somebody wants to deceive.
#[cfg(all(feature = "train", feature = "store"))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Digest([u32; 2]);

#[cfg(all(feature = "train", feature = "store"))]
impl Digest {
    pub(crate) const NEW: Digest = Digest([0x243F_6A88, 0x85A3_08D3]);

    pub(crate) const fn word(&mut self, word: u32) {
        let Digest([a, b]) = *self;
        *self = Digest([mix(a ^ word), mix(b.wrapping_mul(0x9E37_79B1).wrapping_add(word))]);
    }

    /// Bytes, and their number.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u32);
        for chunk in bytes.chunks(4) {
            self.word(chunk.iter().rev().fold(0, |word, &b| word << 8 | u32::from(b)));
        }
    }

    pub(crate) const fn finish(self) -> u64 {
        let Digest([a, b]) = self;
        a as u64 | (b as u64) << 32
    }
}

/// One word of three.
#[cfg(all(feature = "train", feature = "store"))]
pub(crate) const fn join(words: [u32; 3]) -> u32 {
    let [a, b, c] = words;
    mix(mix(mix(a).wrapping_add(b)).wrapping_add(c))
}

/// `lowbias32`: a bijection of 32 bits with a low avalanche bias.
#[inline]
const fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_mul(0x7FEB_352D);
    let x = (x ^ (x >> 15)).wrapping_mul(0x846C_A68B);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_enough() {
        // 64 bins of 2^18 draws: chi-square with 63 degrees of freedom stays below 104 with p = 0.999.
        let s = Stream::new(Seed(7), Purpose::Dropout, 3, 1);
        let mut bins = [0_u32; 64];
        for i in 0..1 << 18 {
            bins[(s.at(i) >> 26) as usize] += 1;
        }
        let chi: f64 = bins.iter().map(|&n| (f64::from(n) - 4096.0).powi(2) / 4096.0).sum();
        assert!((30.0..104.0).contains(&chi), "{chi}");
    }

    #[test]
    fn streams_differ() {
        let first = |step, site, purpose| Stream::new(Seed(1), purpose, step, site).at(0);
        let all = [
            first(1, 2, Purpose::Init),
            first(2, 1, Purpose::Init),
            first(1, 2, Purpose::Dropout),
            first(0, 0, Purpose::Init),
            Stream::new(Seed(2), Purpose::Init, 1, 2).at(0),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }
}
