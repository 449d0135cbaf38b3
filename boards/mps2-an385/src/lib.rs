//! Binds the suite to the MPS2 board with the AN385 image (Cortex-M3 at 25 MHz, no FPU), as QEMU models it.
#![no_std]

use ranklet_cortex_m::mps::{self, Counter, Image, Mps};
use ranklet_semihost::Emulated;
use ranklet_suite::Failure;

/// The image.
pub struct An385;

// SAFETY: by the image's memory map; nothing else here drives these devices.
unsafe impl Image for An385 {
    const NAME: &'static str = "mps2-an385";
    const LIGHTS: *mut u32 = 0x4002_8000 as *mut u32;
    const COUNTER: Counter = Counter::Timer(0x4000_0000 as *mut u32);
    const MEGAHERTZ: u64 = 25;
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Mps<An385>>) -> Result<(), Failure>) -> ! {
    mps::run(application)
}
