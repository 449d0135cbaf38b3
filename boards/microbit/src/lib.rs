//! Binds the suite to the BBC micro:bit (nRF51822: Cortex-M0 at 16 MHz, 256 KB flash, 16 KB RAM), as QEMU models it.
#![no_std]

use core::{convert::Infallible, ffi::CStr, fmt};

use cortex_m as _; // Its critical section: one core, interrupts off.
use cortex_m_rt::{ExceptionFrame, exception};
use embedded_hal::digital::{ErrorType, OutputPin};
use ranklet_semihost::{Console, File, FileError, Stack};
use ranklet_suite::{Board, Failure};

/// TIMER0, the one of 32 bits. This Cortex-M0 has no `SysTick` in silicon.
const TIMER0: usize = 0x4000_8000;
/// Its registers: start, capture 0, mode, width, prescaler, captured value 0.
const START: usize = 0x000;
const CAPTURE0: usize = 0x040;
const BITMODE: usize = 0x508;
const PRESCALER: usize = 0x510;
const CC0: usize = 0x540;

/// GPIO: set and clear outputs, set direction.
const GPIO: usize = 0x5000_0000;
const OUTSET: usize = 0x508;
const OUTCLR: usize = 0x50C;
const DIRSET: usize = 0x518;
/// Row 1 of the LED matrix; its column 1 is left low.
const ROW1: u32 = 1 << 13;

/// The board.
pub struct Microbit {
    console: Console,
    stack: Stack,
    led: Led,
    last: u32,
    ticks: u64,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Microbit) -> Result<(), Failure>) -> ! {
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    // SAFETY: the linker script's bounds of the stack we run on; nothing else lives between them.
    let stack = unsafe { Stack::paint(&raw const _stack_end, &raw const _stack_start) };
    write(TIMER0 + BITMODE, 3); // 32 bits
    write(TIMER0 + PRESCALER, 0); // 16 MHz
    write(TIMER0 + START, 1);
    write(GPIO + DIRSET, ROW1);
    let mut board = Microbit { console: Console::open(), stack, led: Led, last: 0, ticks: 0 };
    ranklet_semihost::finish(application(&mut board))
}

impl Board for Microbit {
    const NAME: &'static str = "microbit";
    type Light = Led;
    type File = File;

    fn light(&mut self) -> &mut Led {
        &mut self.led
    }

    /// With `-icount shift=6` an instruction takes 64 ns, a tick 62.5 ns: 128 ticks are 125 instructions.
    fn instructions(&mut self) -> Option<u64> {
        write(TIMER0 + CAPTURE0, 1);
        // SAFETY: reads a register of the timer.
        let now = unsafe { ((TIMER0 + CC0) as *const u32).read_volatile() };
        self.ticks += u64::from(now.wrapping_sub(self.last));
        self.last = now;
        Some(self.ticks * 125 / 128)
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

impl fmt::Write for Microbit {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.console.write_str(text)
    }
}

/// The LED at the upper left corner.
pub struct Led;

impl ErrorType for Led {
    type Error = Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Infallible> {
        write(GPIO + OUTCLR, ROW1);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        write(GPIO + OUTSET, ROW1);
        Ok(())
    }
}

/// Writes one of the registers named above.
fn write(register: usize, value: u32) {
    // SAFETY: private, and called with registers of the timer and of GPIO only, which no one else uses.
    unsafe { (register as *mut u32).write_volatile(value) };
}

#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    ranklet_semihost::die(format_args!("hard fault at {:#010x}", frame.pc()))
}
