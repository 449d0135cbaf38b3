//! The suite proper: self-checks and the digest that must be equal on every machine.

use ranklet::{fixed::hash::Seed, kernel::suite};

use crate::{Board, Failure, LEAF, counter::Counter, record, workload};

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
    kernels()?;
    writeln!(board, "kernel leaf {LEAF} equals generic")?;
    let outcome = workload::run()?;
    writeln!(
        board,
        "trained {} steps in an arena of {} bytes, loss {} -> {} thousandths; the base is unchanged",
        outcome.steps, outcome.arena, outcome.losses.0, outcome.losses.1
    )?;
    record::digest(board, LEAF, "training", outcome.digest)?;
    record::stack(board)
}

/// Compares the active kernel leaf with the generic kernels, on this very machine.
fn kernels() -> Result<(), Failure> {
    let mut memory = [0; suite::BYTES + 15];
    for seed in 0..4 {
        suite::run(Seed(seed), &mut memory)?;
    }
    Ok(())
}
