//! The demo: the application that a person looks at.

use crate::{Board, Failure, busy::Busy, record};

/// Runs the demo.
///
/// # Errors
/// The first failure.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "ranklet demo on {}", B::NAME)?;
    let mut busy = Busy::new(board.light()).map_err(|_| Failure::Check("the light does not answer"))?;
    busy.unit().map_err(|_| Failure::Check("the light does not answer"))?;
    busy.done().map_err(|_| Failure::Check("the light does not answer"))?;
    record::stack(board)
}
