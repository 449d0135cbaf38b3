//! [`Arena`]: the one static buffer a firmware sets aside, of exactly the size its [`Plan`] tells; and how a
//! [`Workspace`] is split by a plan.

use super::plan::{Plan, Scratch};
use super::transformer::scratch::SequenceScratch;
use super::transformer::store::Cache;
pub use crate::memory::Workspace;
use core::cell::{Cell, UnsafeCell};
use critical_section::Mutex;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Why an arena gives no buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ArenaError {
    /// It has been taken before: there is one, and it has one owner.
    Taken,
    /// The plan needs more than there is.
    TooSmall {
        /// Bytes the plan needs.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// The plan was made for inference alone: add [`Plan::train`].
    NotPlanned,
    /// The plan is of another kind of network than the call is for.
    Architecture,
}

impl core::fmt::Display for ArenaError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ArenaError::Taken => write!(f, "the arena has been taken before"),
            ArenaError::TooSmall { needed, available } => {
                write!(f, "the plan needs {needed} bytes, the arena has {available}: {} too few", needed - available)
            }
            ArenaError::Architecture => {
                write!(
                    f,
                    "the plan is another kind of network's: `sequence` is for transformers, `scratch` for the others"
                )
            }
            ArenaError::NotPlanned => write!(f, "the plan was made for inference alone"),
        }
    }
}

impl core::error::Error for ArenaError {}

/// `N` bytes at a multiple of 16, all zero, so that a static one lies in .bss and costs no flash.
///
/// ```
/// use ranklet::model::{Arena, ArenaError};
/// static ARENA: Arena<256> = Arena::new();
/// assert!(ARENA.take().is_ok());
/// assert_eq!(ARENA.take().unwrap_err(), ArenaError::Taken);
/// ```
#[repr(C, align(16))]
pub struct Arena<const N: usize> {
    bytes: UnsafeCell<[u8; N]>,
    taken: Mutex<Cell<bool>>,
}

// SAFETY: the only access to `bytes` is `take`, which hands out one exclusive reference: `taken` is tested and set in a
// critical section, and never cleared.
#[allow(unsafe_code)]
unsafe impl<const N: usize> Sync for Arena<N> {}

impl<const N: usize> Arena<N> {
    /// An arena that nobody has taken.
    #[must_use]
    pub const fn new() -> Arena<N> {
        Arena { bytes: UnsafeCell::new([0; N]), taken: Mutex::new(Cell::new(false)) }
    }

    /// Its bytes, once.
    ///
    /// # Errors
    /// [`ArenaError::Taken`] from the second time on.
    pub fn take(&'static self) -> Result<Workspace<'static>, ArenaError> {
        if critical_section::with(|cs| self.taken.borrow(cs).replace(true)) {
            return Err(ArenaError::Taken);
        }
        // SAFETY: `taken` was false and is true for ever now: this is the only reference there will be.
        #[allow(unsafe_code)]
        let bytes = unsafe { &mut *self.bytes.get() };
        Ok(Workspace::new(bytes))
    }
}

impl<const N: usize> Default for Arena<N> {
    fn default() -> Self {
        Arena::new()
    }
}

impl<const N: usize> core::fmt::Debug for Arena<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Arena<{N}>")
    }
}

impl<'a> Workspace<'a> {
    /// The buffers of inference.
    ///
    /// # Errors
    /// [`ArenaError::TooSmall`].
    pub fn scratch(mut self, plan: &Plan<'_>) -> Result<Scratch<'a>, ArenaError> {
        if plan.sequence_lengths().is_some() {
            return Err(ArenaError::Architecture);
        }
        self.reserve(plan.scratch_bytes())?;
        Ok(self.carve_scratch(plan))
    }

    /// The buffers of a transformer, and what its decoder keeps between calls.
    ///
    /// # Errors
    /// [`ArenaError::TooSmall`]; [`ArenaError::Architecture`] where the network is none.
    pub fn sequence(mut self, plan: &Plan<'_>) -> Result<(SequenceScratch<'a>, Cache<'a>), ArenaError> {
        let lengths = plan.sequence_lengths().ok_or(ArenaError::Architecture)?;
        self.reserve(lengths.scratch_bytes() + lengths.cache_bytes())?;
        let scratch = SequenceScratch::carve(lengths, &mut self);
        Ok((scratch, Cache::carve(lengths, &mut self)))
    }

    pub(crate) fn reserve(&self, needed: usize) -> Result<(), ArenaError> {
        let available = self.len();
        if needed > available { Err(ArenaError::TooSmall { needed, available }) } else { Ok(()) }
    }

    pub(crate) fn carve_scratch(&mut self, plan: &Plan<'_>) -> Scratch<'a> {
        let l = plan.scratch_lengths();
        Scratch {
            acc: self.carve(l.acc),
            vectors: [self.carve(l.vector), self.carve(l.vector)],
            #[cfg(feature = "train")]
            scaled: self.carve(l.scaled),
            #[cfg(feature = "train")]
            rank: self.carve(l.rank),
            #[cfg(feature = "train")]
            masked: self.carve(l.masked),
            #[cfg(feature = "train")]
            desk: self.carve(l.desk),
        }
    }

    /// The next `len` values; empty where they do not fit, which `reserve` has ruled out.
    pub(crate) fn carve<T: FromBytes + IntoBytes + KnownLayout>(&mut self, len: usize) -> &'a mut [T] {
        self.try_carve(len).unwrap_or_default()
    }
}
