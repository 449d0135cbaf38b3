//! Binds the suite to the MPS2 board with the AN505 image (Cortex-M33 with DSP and FPU at 20 MHz), as QEMU models it.
//!
//! The firmware runs in the secure state, where the core starts, and uses the secure addresses of memory and registers.
#![no_std]

use ranklet_cortex_m::mps::{self, Counter, Image, Mps};
use ranklet_semihost::Emulated;
use ranklet_suite::Failure;

/// The image.
pub struct An505;

// SAFETY: by the image's memory map; nothing else here drives these devices.
unsafe impl Image for An505 {
    const NAME: &'static str = "mps2-an505";
    const LIGHTS: *mut u32 = 0x5030_2000 as *mut u32;
    const COUNTER: Counter = Counter::Timer(0x5000_0000 as *mut u32);
    const MEGAHERTZ: u64 = 20;
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Mps<An505>>) -> Result<(), Failure>) -> ! {
    mps::run(application)
}
