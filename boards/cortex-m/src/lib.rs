//! What the emulated Cortex-M boards share: how they start and fault, and [`mps`], which most of them are.
#![no_std]

pub mod mps;

use cortex_m as _; // Its critical section: one core, interrupts off.
use cortex_m_rt::{ExceptionFrame, exception};
use ranklet_semihost::{Emulated, Machine, Stack};
use ranklet_suite::Failure;

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run<M: Machine>(machine: M, application: fn(&mut Emulated<M>) -> Result<(), Failure>) -> ! {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    // SAFETY: the linker script's bounds of the stack we run on; nothing else lives between them.
    let stack = unsafe { Stack::paint(&raw const _stack_end, &raw const _stack_start) };
    ranklet_semihost::run(machine, stack, application)
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    ranklet_semihost::die(format_args!("hard fault at {:#010x}", frame.pc()))
}
