//! What the emulated boards share: a console, files on the host, exit codes and panics over semihosting, a painted
//! stack, and a loop of known length. [`run`] puts them together with what a machine has of its own.
//!
//! `unsafe` is here because a stack is painted through raw pointers and a loop of known length is assembly.
#![no_std]

mod console;
mod emulated;
mod end;
mod file;
mod spin;
mod stack;
mod ticks;

pub use emulated::{Emulated, Machine, run};
pub use end::die;
pub use file::{File, FileError};
pub use stack::Stack;
pub use ticks::Ticks;
