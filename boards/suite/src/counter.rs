//! Counting instructions with an instrument that is checked first.
//!
//! A board derives its count from a timer and the emulator's fixed time per instruction. If the emulator runs with
//! other options, or a timer wraps unseen, every number would be wrong and look right. So the counter is
//! calibrated against loops of known length, short and long, before anything is measured.

use core::fmt;

use crate::Board;

/// Rounds of the calibration loops. The longest one passes 2^24 ticks of any timer that ticks at least once in two
/// instructions, where a 24-bit timer would have wrapped.
const SPANS: [(u32, u32); 3] = [(1, 2), (1_000, 3_000), (1_000, 20_000_000)];

/// A calibrated counter. [`Counter::calibrate`] is the only way to have one.
#[derive(Debug, Clone, Copy)]
pub struct Counter {
    /// Instructions that reading the counter twice costs by itself.
    overhead: u64,
}

/// Why a board's counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CounterError {
    /// The board counts nothing.
    Absent,
    /// A loop of known length was counted wrong.
    Wrong {
        /// Instructions the loop has.
        expected: u64,
        /// Instructions the counter told.
        counted: u64,
    },
}

impl fmt::Display for CounterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("this board counts no instructions"),
            Self::Wrong { expected, counted } => write!(
                f,
                "the instruction counter is off: a loop of {expected} instructions was counted as {counted}; \
                 run the firmware with the runner in the board's .cargo/config.toml (-icount matters)"
            ),
        }
    }
}

impl core::error::Error for CounterError {}

impl Counter {
    /// Checks the board's counter against loops of known length.
    ///
    /// Each check takes the difference of two loops, so that calls and reads around them cancel: it must be exact
    /// but for one tick at each of the four reads, and for one part in 2^20.
    ///
    /// # Errors
    /// [`CounterError::Absent`], or [`CounterError::Wrong`] with the numbers.
    pub fn calibrate<B: Board>(board: &mut B) -> Result<Self, CounterError> {
        let mut overhead = u64::MAX;
        for _ in 0..8 {
            let (_, raw) = raw(board, |_| ())?;
            overhead = overhead.min(raw);
        }
        for (few, many) in SPANS {
            let (short, counted_short) = loop_of(board, few)?;
            let (long, counted_long) = loop_of(board, many)?;
            let expected = long.wrapping_sub(short);
            let counted = counted_long.wrapping_sub(counted_short);
            if counted.abs_diff(expected) > 4 + (expected >> 20) {
                let counted = counted_long.saturating_sub(counted_short);
                return Err(CounterError::Wrong { expected, counted });
            }
        }
        Ok(Self { overhead })
    }

    /// Runs `work` and counts its instructions, reading the counter excluded. Right within ±2.
    ///
    /// # Errors
    /// [`CounterError::Absent`] if the board stopped counting.
    pub fn count<B: Board, R>(&self, board: &mut B, work: impl FnOnce(&mut B) -> R) -> Result<(R, u64), CounterError> {
        let (result, raw) = raw(board, work)?;
        Ok((result, raw.saturating_sub(self.overhead)))
    }
}

/// One calibration loop: its instructions, and what the counter made of them. Not inlined, so that both loops of a pair
/// have the same instructions around them.
#[inline(never)]
fn loop_of<B: Board>(board: &mut B, rounds: u32) -> Result<(u64, u64), CounterError> {
    raw(board, |board| board.spin(rounds))
}

fn raw<B: Board, R>(board: &mut B, work: impl FnOnce(&mut B) -> R) -> Result<(R, u64), CounterError> {
    let start = board.instructions().ok_or(CounterError::Absent)?;
    let result = work(board);
    let end = board.instructions().ok_or(CounterError::Absent)?;
    Ok((result, end.wrapping_sub(start)))
}
