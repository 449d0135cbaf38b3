//! Samples in an order of chance.

use crate::fixed::hash::{Purpose, Seed, Stream};

/// Shuffles, as an epoch's order wants it: Fisher-Yates over draws of (seed, epoch). The order depends on nothing else, so that a training
/// that is resumed in the middle of an epoch shuffles the same numbers anew and goes on where it was. `ranklet train` shuffles so.
///
/// ```
/// use ranklet::{Seed, train::order::shuffle};
/// let mut order: [u16; 100] = core::array::from_fn(|i| i as u16); // which sample comes when
/// shuffle(&mut order, Seed(7), 0);
/// assert_ne!(order[..3], [0, 1, 2]);
/// ```
pub fn shuffle<T>(order: &mut [T], seed: Seed, epoch: u32) {
    let stream = Stream::new(seed, Purpose::Shuffle, epoch, 0);
    for i in (1..order.len()).rev() {
        let draw = (u64::from(stream.at(i as u32)) * (i as u64 + 1)) >> 32;
        order.swap(i, draw as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over 6000 epochs each of 6 orders of 3 comes a thousand times, within five standard deviations.
    #[test]
    fn every_order_is_as_likely() {
        let mut counts = std::collections::BTreeMap::new();
        for epoch in 0..6000 {
            let mut order = [0, 1, 2];
            shuffle(&mut order, Seed(5), epoch);
            *counts.entry(order).or_insert(0_u32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|&n| n.abs_diff(1000) < 145), "{counts:?}");
        shuffle::<u8>(&mut [], Seed(5), 0);
    }
}
