//! Binds the suite to the MPS3 board with the AN547 image (Cortex-M55 at 32 MHz), as QEMU models it.
//!
//! The firmware runs in the secure state, where the core starts, and uses the secure addresses of memory and registers.
#![no_std]

use ranklet_cortex_m::mps::{self, Counter, Image, Mps};
use ranklet_semihost::Emulated;
use ranklet_suite::Failure;

/// The image.
pub struct An547;

// SAFETY: by the image's memory map; nothing else here drives these devices.
unsafe impl Image for An547 {
    const NAME: &'static str = "mps3-an547";
    const LIGHTS: *mut u32 = 0x5930_2000 as *mut u32;
    const COUNTER: Counter = Counter::System(0x5810_0000 as *mut u32);
    const MEGAHERTZ: u64 = 32;
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Mps<An547>>) -> Result<(), Failure>) -> ! {
    mps::run(application)
}
