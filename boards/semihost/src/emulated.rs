//! An emulated board: what all of them have in the same way.

use core::{ffi::CStr, fmt};

use embedded_hal::digital::OutputPin;
use ranklet_suite::{Board, Failure};

use crate::{File, FileError, Stack, console::Console, end::finish, spin::spin};

/// What a machine has in its own way.
pub trait Machine {
    /// Name of the board, as in `boards/<name>`.
    const NAME: &'static str;

    /// The light that shows work.
    type Light: OutputPin;

    /// The busy light.
    fn light(&mut self) -> &mut Self::Light;

    /// As [`Board::instructions`], on machines that always count them.
    fn instructions(&mut self) -> u64;
}

/// A machine with a console, files and a painted stack: a [`Board`].
pub struct Emulated<M> {
    machine: M,
    console: Console,
    stack: Stack,
}

/// Runs an application of the suite and ends the emulation with its result.
pub fn run<M: Machine>(machine: M, stack: Stack, application: fn(&mut Emulated<M>) -> Result<(), Failure>) -> ! {
    let mut board = Emulated { machine, console: Console::open(), stack };
    finish(application(&mut board))
}

impl<M: Machine> Board for Emulated<M> {
    const NAME: &'static str = M::NAME;
    type Light = M::Light;
    type File = File;

    fn light(&mut self) -> &mut M::Light {
        self.machine.light()
    }

    fn instructions(&mut self) -> Option<u64> {
        Some(self.machine.instructions())
    }

    fn spin(&mut self, rounds: u32) -> u64 {
        spin(rounds)
    }

    fn stack_used(&self) -> Option<usize> {
        Some(self.stack.used())
    }

    fn create(&mut self, name: &CStr) -> Result<File, FileError> {
        File::create(name)
    }
}

impl<M> fmt::Write for Emulated<M> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write_str(text)
    }
}
