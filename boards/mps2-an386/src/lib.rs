//! Binds the suite to the MPS2 board with the AN386 image (Cortex-M4F at 25 MHz), as QEMU models it.
#![no_std]

use core::{convert::Infallible, ffi::CStr, fmt};

use cortex_m as _; // Its critical section: one core, interrupts off.
use cortex_m_rt::{ExceptionFrame, exception};
use embedded_hal::digital::{ErrorType, OutputPin};
use ranklet_semihost::{Console, File, FileError, Stack};
use ranklet_suite::{Board, Failure};

/// CMSDK timer 0: control, value, reload; 32 bits, counts down at the core's 25 MHz.
const TIMER0: *mut u32 = 0x4000_0000 as *mut u32;

/// The FPGA's two user lights, one bit each.
const LEDS: *mut u32 = 0x4002_8000 as *mut u32;

/// The board.
pub struct An386 {
    console: Console,
    stack: Stack,
    led: Led,
    last: u32,
    ticks: u64,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut An386) -> Result<(), Failure>) -> ! {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    // SAFETY: the linker script's bounds of the stack we run on; nothing else lives between them.
    let stack = unsafe { Stack::paint(&raw const _stack_end, &raw const _stack_start) };
    // SAFETY: the timer is memory-mapped at this address and nobody else uses it.
    unsafe {
        TIMER0.add(2).write_volatile(u32::MAX);
        TIMER0.add(1).write_volatile(u32::MAX);
        TIMER0.write_volatile(1);
    }
    let mut board = An386 { console: Console::open(), stack, led: Led, last: u32::MAX, ticks: 0 };
    ranklet_semihost::finish(application(&mut board))
}

impl Board for An386 {
    const NAME: &'static str = "mps2-an386";
    type Light = Led;
    type File = File;

    fn light(&mut self) -> &mut Led {
        &mut self.led
    }

    /// With `-icount shift=6` an instruction takes 64 ns, a tick 40 ns: 8 ticks are 5 instructions.
    fn instructions(&mut self) -> Option<u64> {
        // SAFETY: as in `run`.
        let now = unsafe { TIMER0.add(1).read_volatile() };
        self.ticks += u64::from(self.last.wrapping_sub(now));
        self.last = now;
        Some(self.ticks * 5 / 8)
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

impl fmt::Write for An386 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write_str(text)
    }
}

/// User light 0.
pub struct Led;

impl ErrorType for Led {
    type Error = Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Infallible> {
        // SAFETY: a write of this register changes the lights and nothing else.
        unsafe { LEDS.write_volatile(0) };
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        // SAFETY: as above.
        unsafe { LEDS.write_volatile(1) };
        Ok(())
    }
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    ranklet_semihost::die(format_args!("hard fault at {:#010x}", frame.pc()))
}
