//! [`Reservoir`]: a few of the samples that a device has seen, to be shown again.
//!
//! A device sees each sample once, and what it learns last overwrites what it learned before: unless it rehearses. A reservoir holds
//! N of all samples that were ever offered, each with the same probability, whatever their number ("algorithm R": Vitter, "Random sampling
//! with a reservoir", 1985); after every new sample some of them are trained on once more.
//!
//! `examples/replay.rs` shows what is forgotten without it. `flash` has one whose samples outlast a power loss; `draw` is what chance decides
//! in both.

mod draw;
#[cfg(feature = "store")]
pub mod flash;

use crate::fixed::hash::Seed;
use draw::Draw;
use heapless::Vec;

/// N samples of all that were offered. `S` is whatever a sample is: its values and its label.
///
/// ```
/// use ranklet::Seed;
/// use ranklet::train::Reservoir;
///
/// let mut seen: Reservoir<(u8, usize), 4> = Reservoir::new(Seed(7));
/// for n in 0..100 {
///     seen.offer((n, usize::from(n % 3)));
/// }
/// assert_eq!((seen.len(), seen.offered()), (4, 100));
/// // Three of them, to be trained on once more.
/// for (value, label) in seen.replay(3) {
///     assert_eq!(usize::from(value % 3), *label);
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Reservoir<S, const N: usize> {
    samples: Vec<S, N>,
    draw: Draw,
}

impl<S, const N: usize> Reservoir<S, N> {
    /// Empty. The seed decides what is kept, and what is shown again.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Reservoir { samples: Vec::new(), draw: Draw::new(seed, 0, 0) }
    }

    /// Offers a sample; returns the one that has to go for it, or itself where it is not kept.
    pub fn offer(&mut self, sample: S) -> Option<S> {
        let place = self.draw.place(N);
        self.draw.counted();
        let Some(place) = place else { return Some(sample) };
        let sample = match self.samples.push(sample) {
            Ok(()) => return None,
            Err(sample) => sample,
        };
        match self.samples.get_mut(place) {
            Some(old) => Some(core::mem::replace(old, sample)),
            None => Some(sample),
        }
    }

    /// So many of those that are held, drawn one by one: a sample may come twice, none comes while it is empty. Every call draws anew.
    pub fn replay(&mut self, count: usize) -> impl Iterator<Item = &S> {
        let (this, call, len) = (&self.samples, self.draw.replay(), self.samples.len());
        (0..count as u32).filter_map(move |n| this.get(call.at(n, len)))
    }

    /// Samples that are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// Samples that were offered.
    #[must_use]
    pub const fn offered(&self) -> u32 {
        self.draw.offered
    }

    /// Those that are held.
    pub fn iter(&self) -> impl Iterator<Item = &S> {
        self.samples.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 200 samples each is among the 20 with a probability of 1/10: over 2000 seeds 200 times, within five standard deviations.
    #[test]
    fn each_is_as_likely_as_the_other() {
        let mut kept = [0_u32; 200];
        for seed in 0..2000 {
            let mut r: Reservoir<usize, 20> = Reservoir::new(Seed(seed));
            let gone = (0..200).filter_map(|n| r.offer(n)).count();
            assert_eq!((r.len(), gone), (20, 180));
            r.iter().for_each(|&n| kept[n] += 1);
        }
        assert!(kept.iter().all(|&k| k.abs_diff(200) < 68), "{kept:?}");
    }

    #[test]
    fn replays_differ_and_reach_all() {
        let mut r: Reservoir<usize, 8> = Reservoir::new(Seed(3));
        assert_eq!(r.replay(5).count(), 0);
        (0..8).for_each(|n| assert_eq!(r.offer(n), None));
        let mut seen = [0; 8];
        for _ in 0..400 {
            r.replay(2).for_each(|&n| seen[n] += 1);
        }
        assert!(seen.iter().all(|&n: &i32| (60..140).contains(&n)), "{seen:?}");
        let mut none: Reservoir<u8, 0> = Reservoir::new(Seed(3));
        assert_eq!(none.offer(1), Some(1));
    }
}
