//! The suite proper: self-checks and the digest that must be equal on every machine.

use crate::{Board, Failure, digest::Digest, record};

/// Runs everything and prints the records.
///
/// # Errors
/// The first failure.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "ranklet suite on {}", B::NAME)?;
    let mut digest = Digest::new();
    for n in 0..1000i32 {
        digest.i32s(&[n.wrapping_mul(n)]);
    }
    record::digest(board, "none", "scaffold", digest.value())?;
    record::stack(board)
}
