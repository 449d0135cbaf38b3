//! Counts, and prints what it counted.

use core::fmt;

use crate::{
    Board, Failure, LEAF,
    counter::Counter,
    record::{self, Row, Work},
};

/// A board whose counter has been calibrated.
pub(super) struct Meter<'b, B> {
    board: &'b mut B,
    counter: Counter,
}

impl<'b, B: Board> Meter<'b, B> {
    /// Calibrates the counter.
    ///
    /// # Errors
    /// [`Failure::Counter`].
    pub(super) fn new(board: &'b mut B) -> Result<Self, Failure> {
        let counter = Counter::calibrate(board)?;
        Ok(Self { board, counter })
    }

    /// Counts the instructions of `run`.
    ///
    /// # Errors
    /// [`Failure::Counter`].
    pub(super) fn count<R>(&mut self, run: impl FnOnce() -> R) -> Result<(R, u64), Failure> {
        Ok(self.counter.count(self.board, |_| run())?)
    }

    /// Prints a row.
    ///
    /// # Errors
    /// [`Failure::Console`].
    pub(super) fn print(
        &mut self,
        op: impl fmt::Display,
        shape: impl fmt::Display,
        instructions: u64,
        work: Work,
    ) -> Result<(), Failure> {
        let (op, shape) = (format_args!("{op}"), format_args!("{shape}"));
        record::row(self.board, &Row { leaf: LEAF, op, shape, instructions, work })
    }
}
