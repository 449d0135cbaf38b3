//! [`Workspace`]: memory that is cut into slices of integers, front to back. Nothing is allocated and nothing is given
//! back: who needs the memory again makes a new workspace of it.

use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Memory to be cut.
#[derive(Debug)]
pub struct Workspace<'a> {
    bytes: &'a mut [u8],
}

impl<'a> Workspace<'a> {
    /// From any buffer; what stands before a multiple of 16 is left unused, so give 15 bytes more than are needed.
    #[must_use]
    pub fn new(bytes: &'a mut [u8]) -> Workspace<'a> {
        let skip = bytes.as_ptr().align_offset(16);
        Workspace { bytes: bytes.get_mut(skip..).unwrap_or(&mut []) }
    }

    /// From what was carved before, which is aligned already.
    #[cfg(feature = "train")]
    pub(crate) const fn again(bytes: &'a mut [u8]) -> Workspace<'a> {
        Workspace { bytes }
    }

    /// The next `len` values, or `None` where they do not fit; what is left then stays as it is. Contents mean nothing.
    ///
    /// ```
    /// use ranklet::memory::Workspace;
    /// let mut bytes = [0_u8; 64 + 15];
    /// let mut memory = Workspace::new(&mut bytes);
    /// assert_eq!(memory.try_carve::<i16>(3).map(|m| m.len()), Some(3));
    /// assert_eq!(memory.try_carve::<i64>(7).map(|m| m.len()), Some(7)); // 8 bytes have gone, not 6
    /// assert!(memory.try_carve::<i64>(2).is_none());
    /// ```
    pub fn try_carve<T: FromBytes + IntoBytes + KnownLayout>(&mut self, len: usize) -> Option<&'a mut [T]> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let all = core::mem::take(&mut self.bytes);
        match bytes.checked_next_multiple_of(GRAIN) {
            Some(whole) if whole <= all.len() => {
                let (part, rest) = all.split_at_mut_checked(whole)?;
                self.bytes = rest;
                <[T]>::mut_from_bytes(part.get_mut(..bytes)?).ok()
            }
            _ => {
                self.bytes = all;
                None
            }
        }
    }

    /// Bytes that are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Every slice takes a multiple of this, so that whatever follows is aligned.
const GRAIN: usize = 8;

/// Bytes that `len` values take.
#[must_use]
pub const fn carved_bytes<T>(len: usize) -> usize {
    (len * size_of::<T>()).next_multiple_of(GRAIN)
}
