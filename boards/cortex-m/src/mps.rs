//! Arm's prototyping boards MPS2 and MPS3, as QEMU models them. An FPGA image makes the core, the memory map and the
//! devices; two of these are used here: the lights and a counter.

use core::{convert::Infallible, marker::PhantomData};

use embedded_hal::digital::{ErrorType, OutputPin};
use ranklet_semihost::{Emulated, Machine, Ticks};
use ranklet_suite::Failure;

/// An FPGA image.
///
/// # Safety
/// The registers are where it says, and nobody else uses them.
pub unsafe trait Image {
    /// Name of the board, as in `boards/<name>`.
    const NAME: &'static str;

    /// The register of the user lights, one bit each: the first of the block that the application notes call FPGAIO.
    const LIGHTS: *mut u32;

    /// What instructions are counted with.
    const COUNTER: Counter;

    /// Ticks of the counter in a microsecond.
    const MEGAHERTZ: u64;
}

/// A counter, by its first register. It begins when firmware says so: then its ticks fall on the same instructions in
/// every run. One that runs from reset, as FPGAIO's does, is off by a fraction of a tick that no two runs share.
#[derive(Debug, Clone, Copy)]
pub enum Counter {
    /// A timer of the CMSDK: control, value, reload. 32 bits, counts down.
    Timer(*mut u32),
    /// The system counter of an SSE-300: control, status, value. 64 bits, counts up; the lower half is read.
    System(*mut u32),
}

impl Counter {
    /// Lets the counter count.
    ///
    /// # Safety
    /// The counter is there, and nobody else uses it.
    unsafe fn start(self) {
        // SAFETY: the caller vouches for the registers.
        unsafe {
            match self {
                Self::Timer(control) => {
                    control.add(2).write_volatile(u32::MAX);
                    control.add(1).write_volatile(u32::MAX);
                    control.write_volatile(1);
                }
                Self::System(control) => control.write_volatile(1),
            }
        }
    }

    /// Ticks since the start, modulo 2^32.
    ///
    /// # Safety
    /// As [`Counter::start`].
    #[inline(always)] // In every measurement, so as few instructions as there can be.
    unsafe fn now(self) -> u32 {
        // SAFETY: the caller vouches for the registers; a read changes none.
        unsafe {
            match self {
                Self::Timer(control) => u32::MAX - control.add(1).read_volatile(),
                Self::System(control) => control.add(2).read_volatile(),
            }
        }
    }
}

/// Guest nanoseconds of an instruction: `-icount shift=6`.
const INSTRUCTION: u64 = 64;

/// A board with an FPGA image.
pub struct Mps<I> {
    light: Light<I>,
    ticks: Ticks,
}

/// Runs an application of the suite and ends the emulation with its result. Call it first in `main`, once.
pub fn run<I: Image>(application: fn(&mut Emulated<Mps<I>>) -> Result<(), Failure>) -> ! {
    // SAFETY: the image vouches for the counter.
    unsafe { I::COUNTER.start() };
    crate::run(Mps { light: Light(PhantomData), ticks: Ticks::default() }, application)
}

impl<I: Image> Machine for Mps<I> {
    const NAME: &'static str = I::NAME;
    type Light = Light<I>;

    fn light(&mut self) -> &mut Light<I> {
        &mut self.light
    }

    fn instructions(&mut self) -> u64 {
        // SAFETY: the image vouches for the counter.
        let now = unsafe { I::COUNTER.now() };
        self.ticks.at(now) * 1000 / (I::MEGAHERTZ * INSTRUCTION)
    }
}

/// User light 0.
pub struct Light<I>(PhantomData<I>);

impl<I> ErrorType for Light<I> {
    type Error = Infallible;
}

impl<I: Image> OutputPin for Light<I> {
    fn set_low(&mut self) -> Result<(), Infallible> {
        // SAFETY: the image vouches for the register; a write changes the lights and nothing else.
        unsafe { I::LIGHTS.write_volatile(0) };
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        // SAFETY: as above.
        unsafe { I::LIGHTS.write_volatile(1) };
        Ok(())
    }
}
