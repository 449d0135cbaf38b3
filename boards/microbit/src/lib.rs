//! Binds the suite to the BBC micro:bit (nRF51822: Cortex-M0 at 16 MHz, 256 KB flash, 16 KB RAM), as QEMU models it.
#![no_std]

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, OutputPin};
use ranklet_semihost::{Emulated, Machine, Ticks};
use ranklet_suite::Failure;

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

/// The machine.
pub struct Microbit {
    led: Led,
    ticks: Ticks,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Microbit>) -> Result<(), Failure>) -> ! {
    write(TIMER0 + BITMODE, 3); // 32 bits
    write(TIMER0 + PRESCALER, 0); // 16 MHz
    write(TIMER0 + START, 1);
    write(GPIO + DIRSET, ROW1);
    ranklet_cortex_m::run(Microbit { led: Led, ticks: Ticks::default() }, application)
}

impl Machine for Microbit {
    const NAME: &'static str = "microbit";
    type Light = Led;

    fn light(&mut self) -> &mut Led {
        &mut self.led
    }

    /// With `-icount shift=6` an instruction takes 64 ns, a tick 62.5 ns: 128 ticks are 125 instructions.
    fn instructions(&mut self) -> u64 {
        write(TIMER0 + CAPTURE0, 1);
        // SAFETY: reads a register of the timer.
        let now = unsafe { ((TIMER0 + CC0) as *const u32).read_volatile() };
        self.ticks.at(now) * 125 / 128
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
