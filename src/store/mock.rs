//! A flash that minds what a real one does, and that loses its power when it is told to.

use embedded_storage::nor_flash::{ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash};
use std::vec;
use std::vec::Vec;

/// NOR flash with pages of `PAGE` bytes, written `WRITE` bytes at once, and every unit only once between two erasures.
#[derive(Clone, Debug)]
pub(crate) struct Mock<const PAGE: usize, const WRITE: usize> {
    pub(crate) bytes: Vec<u8>,
    written: Vec<bool>,
    /// Units written and pages erased so far; erasures by themselves.
    pub(crate) done: usize,
    pub(crate) erased: usize,
    /// Power goes when so many were done: in the midst of the next.
    pub(crate) cut: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PowerLoss;

impl NorFlashError for PowerLoss {
    fn kind(&self) -> NorFlashErrorKind {
        NorFlashErrorKind::Other
    }
}

impl<const PAGE: usize, const WRITE: usize> Mock<PAGE, WRITE> {
    /// `dirty`: with what an earlier firmware left.
    pub(crate) fn new(pages: usize, dirty: bool) -> Self {
        let len = pages * PAGE;
        let bytes = (0..len).map(|i| if dirty { (i * 37 % 251) as u8 } else { 0xFF }).collect();
        Mock { bytes, written: vec![dirty; len / WRITE], done: 0, erased: 0, cut: None }
    }

    /// What is left after the power has come again.
    pub(crate) fn again(&self) -> Self {
        Mock { cut: None, ..self.clone() }
    }

    fn tick(&mut self) -> Result<bool, PowerLoss> {
        match self.cut {
            Some(cut) if self.done > cut => Err(PowerLoss),
            cut => {
                self.done += 1;
                Ok(cut.is_some_and(|cut| self.done > cut))
            }
        }
    }
}

impl<const PAGE: usize, const WRITE: usize> ErrorType for Mock<PAGE, WRITE> {
    type Error = PowerLoss;
}

impl<const PAGE: usize, const WRITE: usize> ReadNorFlash for Mock<PAGE, WRITE> {
    const READ_SIZE: usize = 1;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), PowerLoss> {
        if self.cut.is_some_and(|cut| self.done > cut) {
            return Err(PowerLoss);
        }
        bytes.copy_from_slice(&self.bytes[offset as usize..offset as usize + bytes.len()]);
        Ok(())
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }
}

impl<const PAGE: usize, const WRITE: usize> NorFlash for Mock<PAGE, WRITE> {
    const WRITE_SIZE: usize = WRITE;
    const ERASE_SIZE: usize = PAGE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), PowerLoss> {
        assert!((from as usize).is_multiple_of(PAGE) && (to as usize).is_multiple_of(PAGE));
        for page in (from as usize..to as usize).step_by(PAGE) {
            // A page whose erasure is cut short holds anything.
            let cut = self.tick()?;
            self.erased += 1;
            let (bytes, units) = (page..page + PAGE, page / WRITE..(page + PAGE) / WRITE);
            self.bytes[bytes]
                .iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b = if cut && i % 3 == 0 { *b | 0xA5 } else { 0xFF });
            self.written[units].fill(cut);
            if cut {
                return Err(PowerLoss);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), PowerLoss> {
        assert!((offset as usize).is_multiple_of(WRITE) && bytes.len().is_multiple_of(WRITE));
        for (n, unit) in bytes.chunks(WRITE).enumerate() {
            let at = offset as usize + n * WRITE;
            assert!(!self.written[at / WRITE], "unit at {at:#x} is written twice");
            let cut = self.tick()?;
            self.written[at / WRITE] = true;
            for (i, (to, &b)) in self.bytes[at..].iter_mut().zip(unit).enumerate() {
                // Some of its bits, where it is cut short.
                *to &= if cut { b | (0x5A_u8.rotate_left(i as u32)) } else { b };
            }
            if cut {
                return Err(PowerLoss);
            }
        }
        Ok(())
    }
}
