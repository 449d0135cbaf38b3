//! What chance decides: which sample is kept, in whose place, and which is shown again.

use crate::fixed::hash::{Purpose, Seed, Stream};

/// The draws of a reservoir, by counts: nothing else needs to be kept to go on with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: Seed,
    /// Samples that were offered.
    pub(super) offered: u32,
    /// Replays that were asked for.
    replays: u32,
}

/// The draws of one replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay(Stream);

impl Draw {
    pub(super) const fn new(seed: Seed) -> Draw {
        Draw { seed, offered: 0, replays: 0 }
    }

    /// Counts a sample that is offered; returns its place among `capacity`, if it is kept: the next one while there is any, and then
    /// one by chance, with a probability of `capacity` in as many as there were.
    pub(super) fn offer(&mut self, capacity: usize) -> Option<usize> {
        let number = self.offered;
        self.offered = number.saturating_add(1);
        if (number as usize) < capacity {
            return Some(number as usize);
        }
        let place = below(Stream::new(self.seed, Purpose::Reservoir, number, 0).at(0), self.offered) as usize;
        (place < capacity).then_some(place)
    }

    /// The draws of the next replay.
    pub(super) const fn replay(&mut self) -> Replay {
        let call = self.replays;
        self.replays = call.wrapping_add(1);
        Replay(Stream::new(self.seed, Purpose::Replay, call, 0))
    }
}

impl Replay {
    /// Draw number `n`, of `len`.
    pub(super) const fn at(self, n: u32, len: usize) -> usize {
        below(self.0.at(n), len as u32) as usize
    }
}

/// Uniform in `0..n`, but for 2^-32; 0 where n is 0.
const fn below(draw: u32, n: u32) -> u32 {
    ((draw as u64 * n as u64) >> 32) as u32
}
