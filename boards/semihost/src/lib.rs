//! What the emulated boards share: a console, files on the host, exit codes and panics over semihosting, a painted
//! stack, and a loop of known length.
//!
//! `unsafe` is here because a stack is painted through raw pointers and a loop of known length is assembly.
#![no_std]

mod console;
mod end;
mod file;
mod spin;
mod stack;

pub use console::Console;
pub use end::{die, finish};
pub use file::{File, FileError};
pub use spin::spin;
pub use stack::Stack;
