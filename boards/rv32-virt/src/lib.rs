//! Binds the suite to a 32-bit RISC-V core without FPU (RV32IMAC): the `virt` machine of QEMU.
#![no_std]

use ranklet_semihost::{Emulated, Machine, Stack};
use ranklet_suite::{Failure, busy::NoLight};
use riscv::register::{mcause, minstret, mtval};

/// The machine. It has no light.
pub struct Rv32Virt {
    light: NoLight,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Rv32Virt>) -> Result<(), Failure>) -> ! {
    unsafe extern "C" {
        static __estack: u32;
        static _stack_start: u32;
    }
    // SAFETY: the linker script's bounds of the stack we run on; nothing else lives between them.
    let stack = unsafe { Stack::paint(&raw const __estack, &raw const _stack_start) };
    ranklet_semihost::run(Rv32Virt { light: NoLight }, stack, application)
}

impl Machine for Rv32Virt {
    const NAME: &'static str = "rv32-virt";
    type Light = NoLight;

    fn light(&mut self) -> &mut NoLight {
        &mut self.light
    }

    /// `minstret` itself. QEMU 7.2 fills it with virtual nanoseconds: under `-icount shift=0` one per instruction.
    fn instructions(&mut self) -> u64 {
        minstret::read64()
    }
}

#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    let (cause, value) = (mcause::read().bits(), mtval::read());
    ranklet_semihost::die(format_args!("exception: mcause {cause:#x}, mtval {value:#010x}"))
}
