//! [`Ram`]: memory that behaves as NOR flash, a byte at a time: for what need not outlast anything, and for tests.

use core::ops::Range;
use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};

/// Memory as NOR flash whose pages have `PAGE` bytes. Erased bytes are 0xFF; writing clears bits, as in flash.
#[derive(Debug)]
pub struct Ram<'a, const PAGE: usize = 64> {
    bytes: &'a mut [u8],
}

impl<'a> Ram<'a> {
    /// With pages of 64 bytes. What lies there stays: memory that was one before a warm start is one again. Of a last page that is not whole
    /// nothing is used.
    #[must_use]
    pub const fn new(bytes: &'a mut [u8]) -> Ram<'a> {
        Ram::with_pages(bytes)
    }
}

impl<'a, const PAGE: usize> Ram<'a, PAGE> {
    /// As [`new`](Ram::new), with pages of `PAGE` bytes. What lies there stays: memory that was one before a warm start is one again. Of a last page that is not whole nothing is used.
    #[must_use]
    pub const fn with_pages(bytes: &'a mut [u8]) -> Ram<'a, PAGE> {
        const { assert!(PAGE > 0, "a page has bytes") };
        Ram { bytes }
    }
}

/// What is beyond the memory, or not whole pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Outside;

impl NorFlashError for Outside {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::OutOfBounds
    }
}

impl<const PAGE: usize> ErrorType for Ram<'_, PAGE> {
    type Error = Outside;
}

fn range(offset: u32, len: usize) -> Range<usize> {
    offset as usize..(offset as usize).saturating_add(len)
}

impl<const PAGE: usize> ReadNorFlash for Ram<'_, PAGE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), Outside> {
        bytes.copy_from_slice(self.bytes.get(range(offset, bytes.len())).ok_or(Outside)?);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len() / PAGE * PAGE
    }
}

impl<const PAGE: usize> NorFlash for Ram<'_, PAGE> {
    const WRITE_SIZE: usize = 1;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), Outside> {
        if !(from as usize).is_multiple_of(PAGE) || !(to as usize).is_multiple_of(PAGE) {
            return Err(Outside);
        }
        self.bytes.get_mut(from as usize..to as usize).ok_or(Outside)?.fill(0xFF);
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), Outside> {
        let to = self.bytes.get_mut(range(offset, bytes.len())).ok_or(Outside)?;
        to.iter_mut().zip(bytes).for_each(|(to, &b)| *to &= b);
        Ok(())
    }
}
