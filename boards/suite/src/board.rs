//! What a board gives to the suite.

use core::{ffi::CStr, fmt};

use embedded_hal::digital::OutputPin;

/// A board, bound by its own thin crate. Its console is the board itself, as [`fmt::Write`].
pub trait Board: fmt::Write {
    /// Name of the board, as in `boards/<name>`.
    const NAME: &'static str;

    /// The light that shows work; see [`crate::busy::Busy`].
    type Light: OutputPin;

    /// A file on the host that watches the board.
    type File: embedded_io::Write;

    /// The busy light.
    fn light(&mut self) -> &mut Self::Light;

    /// Instructions executed since some moment before `main`, or `None` where nothing counts them.
    ///
    /// A board may derive this from a timer of 32 bits: read it at least once in 2^30 instructions.
    fn instructions(&mut self) -> Option<u64>;

    /// Executes a loop of `rounds` rounds (at least one) and tells how many instructions those rounds have.
    ///
    /// The instructions around the loop are not in that number, but must be the same few for any `rounds`:
    /// [`crate::counter::Counter::calibrate`] works with differences.
    fn spin(&mut self, rounds: u32) -> u64;

    /// Deepest stack use since start, in bytes, or `None` where the stack is not the board's own.
    fn stack_used(&self) -> Option<usize>;

    /// Creates (or empties) the file `name` in the working directory of the host.
    ///
    /// # Errors
    /// Whatever the host says: no such directory, no permission, no host.
    fn create(&mut self, name: &CStr) -> Result<Self::File, FileErrorOf<Self>>;
}

/// The error of a board's files.
pub type FileErrorOf<B> = <<B as Board>::File as embedded_io::ErrorType>::Error;
