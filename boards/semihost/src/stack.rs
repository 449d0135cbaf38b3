//! The painted stack: how deep it ever was.
//!
//! The free part is filled with a pattern at start; the lowest word that has changed since is the high-water mark.
//! A word that was written with the pattern itself, or skipped, hides at most the depth of one frame's hole.

const PAINT: u32 = 0xDEAD_57AC;

/// Words next to the stack pointer that are left alone while painting: the painter's own frame.
const MARGIN: usize = 64;

/// A stack that was painted at start.
#[derive(Debug, Clone, Copy)]
pub struct Stack {
    /// Lowest address that belongs to the stack.
    low: usize,
    /// One past the highest address.
    high: usize,
}

impl Stack {
    /// Paints the free part of the stack that lies between `low` and `high`.
    ///
    /// # Safety
    /// The caller runs on that stack, and nothing else uses the memory from `low`, aligned to 4, to the stack pointer.
    #[must_use]
    #[inline(never)]
    pub unsafe fn paint(low: *const u32, high: *const u32) -> Self {
        let here = 0u32;
        let end = (core::ptr::from_ref(core::hint::black_box(&here)) as usize).saturating_sub(4 * MARGIN);
        let mut at = low as usize;
        while at + 4 <= end {
            // SAFETY: `at` is aligned, above `low` and below the live frames; the caller vouches for that memory.
            unsafe { core::ptr::write_volatile(at as *mut u32, PAINT) };
            at += 4;
        }
        Self { low: low as usize, high: high as usize }
    }

    /// Deepest use since [`Stack::paint`], in bytes. A stack that was used up entirely reports its whole size.
    #[must_use]
    pub fn used(&self) -> usize {
        let mut at = self.low;
        // SAFETY: reads aligned words of the stack's memory, which is always readable.
        while at + 4 <= self.high && unsafe { core::ptr::read_volatile(at as *const u32) } == PAINT {
            at += 4;
        }
        self.high - at
    }

    /// Size of the stack in bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.high - self.low
    }
}
