//! Counts, and prints what it counted.

use core::fmt;

use crate::{
    Board, Failure, LEAF,
    counter::Counter,
    record::{self, Row, Work},
};

/// A board whose counter has been calibrated.
pub struct Meter<'b, B> {
    board: &'b mut B,
    counter: Option<Counter>,
}

impl<'b, B: Board> Meter<'b, B> {
    /// Calibrates the counter.
    ///
    /// # Errors
    /// [`Failure::Counter`].
    pub fn new(board: &'b mut B) -> Result<Self, Failure> {
        let counter = Some(Counter::calibrate(board)?);
        Ok(Self { board, counter })
    }

    /// The same; on a board that counts nothing, one that runs everything and prints nothing.
    ///
    /// # Errors
    /// [`Failure::Counter`] where the board counts wrong.
    pub fn where_counted(board: &'b mut B) -> Result<Self, Failure> {
        let counter = match board.instructions() {
            Some(_) => Some(Counter::calibrate(board)?),
            None => None,
        };
        Ok(Self { board, counter })
    }

    /// Counts the instructions of `run`; 0 where nothing counts.
    ///
    /// # Errors
    /// [`Failure::Counter`].
    pub fn count<R>(&mut self, run: impl FnOnce() -> R) -> Result<(R, u64), Failure> {
        match self.counter {
            Some(counter) => Ok(counter.count(self.board, |_| run())?),
            None => Ok((run(), 0)),
        }
    }

    /// Prints a row, where something counts.
    ///
    /// # Errors
    /// [`Failure::Console`].
    pub fn print(
        &mut self,
        op: impl fmt::Display,
        shape: impl fmt::Display,
        instructions: u64,
        work: Work,
    ) -> Result<(), Failure> {
        if self.counter.is_none() {
            return Ok(());
        }
        let (op, shape) = (format_args!("{op}"), format_args!("{shape}"));
        record::row(self.board, &Row { leaf: LEAF, op, shape, instructions, work })
    }
}
