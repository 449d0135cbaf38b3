//! One static buffer, cut anew for every measurement.

use ranklet::fixed::Exp;
use zerocopy::{FromBytes, IntoBytes};

use super::weights::Pool;
use crate::Failure;

/// Memory to be cut into slices.
pub(super) struct Memory<'a> {
    rest: &'a mut [u8],
}

impl<'a> Memory<'a> {
    /// Words, so that every type the benchmark needs can be aligned in them.
    pub(super) fn new(words: &'a mut [u64]) -> Self {
        Self { rest: words.as_mut_bytes() }
    }

    /// The next `len` values; contents mean nothing.
    ///
    /// # Errors
    /// [`Failure::Check`]: the board's sizes ask for more than its memory.
    pub(super) fn take<T: FromBytes + IntoBytes>(&mut self, len: usize) -> Result<&'a mut [T], Failure> {
        const SMALL: Failure = Failure::Check("the benchmark's memory is too small");
        let bytes = (len * size_of::<T>()).next_multiple_of(size_of::<u64>());
        let (part, rest) = core::mem::take(&mut self.rest).split_at_mut_checked(bytes).ok_or(SMALL)?;
        self.rest = rest;
        let exact = part.get_mut(..len * size_of::<T>()).ok_or(SMALL)?;
        <[T]>::mut_from_bytes(exact).map_err(|_| SMALL)
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
