//! One static buffer, cut anew for every measurement.

use ranklet::{fixed::Exp, memory::Workspace};
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::weights::Pool;
use crate::Failure;

/// Memory to be cut into slices; too little of it is a failure.
pub(super) struct Memory<'a>(Workspace<'a>);

impl<'a> Memory<'a> {
    /// Words, so that every type the benchmark needs can be aligned in them.
    pub(super) fn new(words: &'a mut [u64]) -> Self {
        Self(Workspace::new(words.as_mut_bytes()))
    }

    /// The next `len` values; contents mean nothing.
    ///
    /// # Errors
    /// [`Failure::Check`]: the board's sizes ask for more than its memory.
    pub(super) fn take<T: FromBytes + IntoBytes + KnownLayout>(&mut self, len: usize) -> Result<&'a mut [T], Failure> {
        self.0.try_carve(len).ok_or(Failure::Check("the benchmark's memory is too small"))
    }

    /// `tokens` vectors of `width` drawn values, as mantissas and exponents; all canonical.
    ///
    /// # Errors
    /// As [`Memory::take`].
    pub(super) fn vectors(
        &mut self,
        pool: &Pool,
        tokens: usize,
        width: usize,
    ) -> Result<(&'a mut [i16], &'a mut [Exp]), Failure> {
        let (mantissas, exponents) = (self.take::<i16>(tokens * width)?, self.take::<Exp>(tokens)?);
        for (m, &w) in mantissas.iter_mut().zip(pool.i16.iter().cycle()) {
            *m = w;
        }
        for vector in mantissas.chunks_exact_mut(width.max(1)) {
            if let Some(peak) = vector.first_mut() {
                *peak = 30_000;
            }
        }
        exponents.fill(Exp(-14));
        Ok((mantissas, exponents))
    }
}
