//! How firmware ends: always with an exit code, never in a silent loop.

use core::fmt::{self, Write as _};

use ranklet_suite::Failure;
use semihosting::process;

use crate::console::Console;

/// Ends the emulation: code 0, or the failure on the console and code 1.
pub fn finish(result: Result<(), Failure>) -> ! {
    match result {
        Ok(()) => process::exit(0),
        Err(failure) => die(format_args!("{failure}")),
    }
}

/// Prints `why` and ends the emulation with code 1. Fault handlers of the boards end here.
pub fn die(why: fmt::Arguments<'_>) -> ! {
    // Without a console there is still the exit code.
    let _ = writeln!(Console::open(), "\nFAILED: {why}");
    process::exit(1)
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Console::open(), "\nPANIC: {info}");
    process::exit(101)
}
