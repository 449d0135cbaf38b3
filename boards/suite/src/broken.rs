//! Firmware that panics, to prove that a panic is seen: `cargo xtask test` wants its message and a non-zero exit.

use crate::{Board, Failure};

/// What the panic says.
pub const MESSAGE: &str = "this panic is meant to be seen";

/// Panics.
///
/// # Panics
/// Always: that is its purpose.
///
/// # Errors
/// [`Failure::Console`].
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    writeln!(board, "ranklet panics on {}", B::NAME)?;
    panic!("{MESSAGE}")
}
