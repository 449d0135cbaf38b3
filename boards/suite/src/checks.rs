//! The suite proper: self-checks and the digest that must be equal on every machine.

use crate::{Board, Failure, LEAF, counter::Counter, digest::Digest, record};

/// Runs everything and prints the records.
///
/// # Errors
/// The first failure.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "ranklet suite on {}, kernel leaf {LEAF}", B::NAME)?;
    if board.instructions().is_some() {
        Counter::calibrate(board)?;
        writeln!(board, "the instruction counter is right")?;
    }
    let mut digest = Digest::new();
    for n in 0..1000i32 {
        digest.i32s(&[n.wrapping_mul(n)]);
    }
    record::digest(board, LEAF, "scaffold", digest.value())?;
    record::stack(board)
}
