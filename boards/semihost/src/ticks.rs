//! A counter of 32 bits, made longer.

/// Ticks since the first reading, from readings of a counter that wraps at 2^32.
///
/// Right as long as it is read at least once in 2^32 ticks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ticks {
    last: u32,
    total: u64,
}

impl Ticks {
    /// Takes a reading of a counter that began at 0 and counts up; returns all ticks so far.
    pub fn at(&mut self, now: u32) -> u64 {
        self.total += u64::from(now.wrapping_sub(self.last));
        self.last = now;
        self.total
    }
}
