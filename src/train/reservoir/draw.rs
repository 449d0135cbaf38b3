//! What chance decides: which sample is kept, in whose place, and which is shown again.

use crate::fixed::hash::{Purpose, Seed, Stream};

/// The draws of a reservoir, by counts: nothing else needs to be kept to go on with them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    seed: Seed,
    /// How often it was started: no start repeats the draws of another.
    session: u32,
    /// Samples that were offered.
    pub(super) offered: u32,
    /// Replays that were asked for.
    replays: u32,
}

/// The draws of one replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay(Stream);

impl Draw {
    pub(super) const fn new(seed: Seed, session: u32, offered: u32) -> Draw {
        Draw { seed, session, offered, replays: 0 }
    }

    /// The place among `capacity` of the next sample, if it is to be kept: the next one while there is any, and then one by
    /// chance, with a probability of `capacity` in as many as there are with it. It counts once it is [`counted`](Draw::counted).
    pub(super) const fn place(&self, capacity: usize) -> Option<usize> {
        let number = self.offered;
        if (number as usize) < capacity {
            return Some(number as usize);
        }
        let stream = Stream::new(self.seed, Purpose::Reservoir, number, self.session);
        let place = below(stream.at(0), number.saturating_add(1)) as usize;
        if place < capacity { Some(place) } else { None }
    }

    /// How many samples the next one is to count for, where `counted` have been written down: it is drawn with a probability of `often` in
    /// so many, and then counts for its inverse. `None` where it is not.
    #[cfg(feature = "store")]
    pub(super) const fn event(&self, counted: u32, often: u32) -> Option<u32> {
        let events = counted / if often == 0 { 1 } else { often };
        let events = if events == 0 { 1 } else { events };
        let stream = Stream::new(self.seed, Purpose::Reservoir, self.offered, self.session);
        if below(stream.at(1), events) == 0 { Some(events) } else { None }
    }

    pub(super) const fn counted(&mut self) {
        self.offered = self.offered.saturating_add(1);
    }

    /// The draws of the next replay.
    pub(super) const fn replay(&mut self) -> Replay {
        let call = self.replays;
        self.replays = call.wrapping_add(1);
        Replay(Stream::new(self.seed, Purpose::Replay, call, self.session))
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
