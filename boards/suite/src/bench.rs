//! The benchmark: instructions, counted by a calibrated instrument.

use core::hint::black_box;

use crate::{
    Board, Failure, LEAF,
    counter::Counter,
    record::{self, Row},
};

/// Calibrates the counter, then prints one row per operation and shape.
///
/// # Errors
/// [`Failure::Counter`] if the instrument is off: then nothing is printed, because nothing could be believed.
pub fn run<B: Board>(board: &mut B) -> Result<(), Failure> {
    let counter = Counter::calibrate(board)?;
    let (rounds, instructions) = counter.count(board, |board| board.spin(black_box(1_000)))?;
    record::row(board, &Row { leaf: LEAF, op: "calibration", shape: format_args!("{rounds}"), instructions, macs: 0 })?;
    record::stack(board)
}
