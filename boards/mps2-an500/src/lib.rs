//! Binds the suite to the MPS2 board with the AN500 image (Cortex-M7 at 25 MHz), as QEMU models it.
#![no_std]

use ranklet_cortex_m::mps::{self, Counter, Image, Mps};
use ranklet_semihost::Emulated;
use ranklet_suite::Failure;

/// The image.
pub struct An500;

// SAFETY: by the image's memory map; nothing else here drives these devices.
unsafe impl Image for An500 {
    const NAME: &'static str = "mps2-an500";
    const LIGHTS: *mut u32 = 0x4002_8000 as *mut u32;
    const COUNTER: Counter = Counter::Timer(0x4000_0000 as *mut u32);
    const MEGAHERTZ: u64 = 25;
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run(application: fn(&mut Emulated<Mps<An500>>) -> Result<(), Failure>) -> ! {
    mps::run(application)
}
