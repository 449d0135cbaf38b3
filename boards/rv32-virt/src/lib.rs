//! Binds the suite to a 32-bit RISC-V core without FPU (RV32IMAC): the `virt` machine of QEMU.
#![no_std]

use core::{ffi::CStr, fmt};

use ranklet_semihost::{Console, File, FileError, Stack};
use ranklet_suite::{Board, Failure, busy::NoLight};
use riscv::register::{mcause, minstret, mtval};

/// The board. It has no light.
pub struct Rv32Virt {
    console: Console,
    stack: Stack,
    light: NoLight,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Rv32Virt) -> Result<(), Failure>) -> ! {
    unsafe extern "C" {
        static __estack: u32;
        static _stack_start: u32;
    }
    // SAFETY: the linker script's bounds of the stack we run on; nothing else lives between them.
    let stack = unsafe { Stack::paint(&raw const __estack, &raw const _stack_start) };
    let mut board = Rv32Virt { console: Console::open(), stack, light: NoLight };
    ranklet_semihost::finish(application(&mut board))
}

impl Board for Rv32Virt {
    const NAME: &'static str = "rv32-virt";
    type Light = NoLight;
    type File = File;

    fn light(&mut self) -> &mut NoLight {
        &mut self.light
    }

    /// `minstret` itself. QEMU 7.2 fills it with virtual nanoseconds: under `-icount shift=0` one per instruction.
    fn instructions(&mut self) -> Option<u64> {
        Some(minstret::read64())
    }

    fn spin(&mut self, rounds: u32) -> u64 {
        ranklet_semihost::spin(rounds)
    }

    fn stack_used(&self) -> Option<usize> {
        Some(self.stack.used())
    }

    fn create(&mut self, name: &CStr) -> Result<File, FileError> {
        File::create(name)
    }
}

impl fmt::Write for Rv32Virt {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write_str(text)
    }
}

#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    let (cause, value) = (mcause::read().bits(), mtval::read());
    ranklet_semihost::die(format_args!("exception: mcause {cause:#x}, mtval {value:#010x}"))
}
