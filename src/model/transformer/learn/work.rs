//! What a transformer keeps between the units of a sample.

use super::shape::{LearnShape, Side};
use crate::fixed::{Exp, TileMut};
use crate::layer::residual::{Mantissas, StreamMut};
use crate::memory::Workspace;
use crate::model::transformer::scratch::carve_store;
use crate::model::transformer::store::{CacheType, Store, StoreShape};

/// Vectors of a stream, in 16 bits or in 32: one of the two is empty.
#[derive(Debug)]
pub(crate) struct Vectors<'w> {
    narrow: &'w mut [i16],
    wide: &'w mut [i32],
    exponents: &'w mut [Exp],
    dim: usize,
}

impl<'w> Vectors<'w> {
    fn carve(rows: usize, dim: usize, wide: bool, memory: &mut Workspace<'w>) -> Vectors<'w> {
        let (narrow, wide) = if wide { (0, rows) } else { (rows, 0) };
        Vectors {
            narrow: memory.carve(narrow * dim),
            wide: memory.carve(wide * dim),
            exponents: memory.carve(rows),
            dim,
        }
    }

    /// The vectors `first ..`.
    pub(crate) fn from(&mut self, first: usize) -> StreamMut<'_> {
        let mantissas = if self.wide.is_empty() {
            Mantissas::Narrow(self.narrow.get_mut(first * self.dim..).unwrap_or_default())
        } else {
            Mantissas::Wide(self.wide.get_mut(first * self.dim..).unwrap_or_default())
        };
        StreamMut { mantissas, exponents: self.exponents.get_mut(first..).unwrap_or_default(), dim: self.dim }
    }

    /// `count` vectors from `first` on, of a stream in 16 bits.
    pub(crate) fn narrow(self, first: usize, count: usize) -> Option<(&'w [i16], &'w [Exp])> {
        let (dim, end) = (self.dim, first + count);
        Some((self.narrow.get(first * dim..end * dim)?, self.exponents.get(first..end)?))
    }

    /// Sets the first ones of a stream in 16 bits.
    pub(crate) fn set_narrow(&mut self, mantissas: &[i16], exponents: &[Exp]) {
        self.narrow.iter_mut().zip(mantissas).for_each(|(to, &m)| *to = m);
        self.exponents.iter_mut().zip(exponents).for_each(|(to, &e)| *to = e);
    }

    /// Sets bytes `at ..` of the first `count` of a stream in 16 bits: exponents, then mantissas.
    #[cfg(feature = "store")]
    pub(crate) fn set_bytes(&mut self, count: usize, at: usize, bytes: &[u8]) {
        use zerocopy::IntoBytes;
        let exponents = self.exponents.get_mut(..count).unwrap_or_default().as_mut_bytes();
        let mantissas = self.narrow.as_mut_bytes();
        let to = exponents.iter_mut().chain(mantissas).skip(at);
        to.zip(bytes).for_each(|(to, &b)| *to = b);
    }

    /// Sets all to zero.
    pub(crate) fn clear(&mut self) {
        self.narrow.fill(0);
        self.wide.fill(0);
        self.exponents.fill(Exp::ZERO);
    }

    /// All of them.
    pub(crate) fn all(&mut self) -> StreamMut<'_> {
        self.from(0)
    }

    /// Copies `count` vectors, from the first on, to those of `to` from `first` on.
    pub(crate) fn copy_to(&self, to: &mut Vectors<'_>, first: usize, count: usize) {
        copy(self.narrow, 0, to.narrow, first * self.dim, count * self.dim);
        copy(self.wide, 0, to.wide, first * self.dim, count * self.dim);
        copy(self.exponents, 0, to.exponents, first, count);
    }

    /// Copies `count` vectors of `of` from `first` on to the first.
    pub(crate) fn copy_from(&mut self, of: &Vectors<'_>, first: usize, count: usize) {
        copy(of.narrow, first * self.dim, self.narrow, 0, count * self.dim);
        copy(of.wide, first * self.dim, self.wide, 0, count * self.dim);
        copy(of.exponents, first, self.exponents, 0, count);
    }
}

/// Copies what there is of a range.
fn copy<T: Copy>(from: &[T], at: usize, to: &mut [T], to_at: usize, count: usize) {
    if let (Some(from), Some(to)) = (from.get(at..at + count), to.get_mut(to_at..to_at + count)) {
        to.copy_from_slice(from);
    }
}

/// What is kept between units.
#[derive(Debug)]
pub(crate) struct Work<'w> {
    /// Tokens of a stack, at most: vectors of a slot.
    pub(crate) rows: usize,
    /// What runs through the blocks, forward; and what stood between two parts of a block, on the way back.
    pub(crate) stream: Vectors<'w>,
    /// The class of each token.
    pub(crate) labels: &'w mut [u32],
    /// The target of the pooled output.
    pub(crate) target: &'w mut [i16],
    /// The gradient of each token's output, where it is given.
    pub(crate) cotangents: TileMut<'w>,
    /// In the memory of these four, once a block's feed-forward is behind: queries (then their gradients), and the gradients of the
    /// heads' outputs.
    pub(crate) queries: Store<'w>,
    /// Gradients of one head's keys and values, while they add up.
    pub(crate) dk: &'w mut [i32],
    pub(crate) dv: &'w mut [i32],
    /// The stream before cross-attention.
    pub(crate) middle: Vectors<'w>,
    /// Inputs of blocks.
    pub(crate) slots: Vectors<'w>,
    /// The gradient of what runs through the blocks.
    pub(crate) gradient: Vectors<'w>,
    /// Keys and values of one block; then their gradients.
    pub(crate) kv: Store<'w>,
    /// The same of cross-attention.
    pub(crate) cross: Store<'w>,
    /// The encoder's output.
    pub(crate) memory: TileMut<'w>,
    /// Its gradient.
    pub(crate) d_memory: Vectors<'w>,
    /// The sample: of the encoder below, then of the stack that the head looks at.
    pub(crate) ids: &'w mut [u32],
    pub(crate) kinds: &'w mut [u8],
    pub(crate) valid: &'w mut [u8],
    pub(crate) features: TileMut<'w>,
}

impl<'w> Work<'w> {
    /// `side`: which of the two that share their memory; the other's buffers are empty.
    pub(crate) fn carve(s: &LearnShape, side: Side, memory: &mut Workspace<'w>) -> Work<'w> {
        let tokens = s.tokens();
        let middle = if s.source > 0 { tokens } else { 0 };
        let all = s.own + s.source;
        let given = |some: usize, count: usize| if some > 0 { count } else { 0 };
        let stream = |count: usize| if side == Side::Stream { count } else { 0 };
        let attention = |count: usize| if side == Side::Attention { count } else { 0 };
        let queries = if side == Side::Attention { s.queries } else { StoreShape { capacity: 0, ..s.queries } };
        Work {
            rows: tokens,
            middle: Vectors::carve(middle, s.dim, s.wide_stream, memory),
            slots: Vectors::carve(s.slots * tokens, s.dim, s.wide_stream, memory),
            gradient: Vectors::carve(tokens, s.dim, false, memory),
            kv: carve_store(s.kv, CacheType::I16, memory),
            cross: carve_store(s.cross, CacheType::I16, memory),
            memory: TileMut { mantissas: memory.carve(s.memory), exponents: memory.carve(s.source) },
            d_memory: Vectors::carve(given(s.d_memory, s.source), s.dim, true, memory),
            ids: memory.carve(s.ids),
            kinds: memory.carve(s.kinds),
            valid: memory.carve(all),
            features: TileMut { mantissas: memory.carve(s.features), exponents: memory.carve(given(s.features, all)) },
            // From here on the two share what is left.
            stream: Vectors::carve(stream(tokens), s.dim, s.wide_stream, memory),
            labels: memory.carve(stream(s.own)),
            target: memory.carve(stream(s.outputs)),
            cotangents: TileMut {
                mantissas: memory.carve(stream(s.cotangents)),
                exponents: memory.carve(stream(given(s.cotangents, s.own))),
            },
            queries: carve_store(queries, CacheType::I16, memory),
            dk: memory.carve(attention(s.accumulators)),
            dv: memory.carve(attention(s.accumulators)),
        }
    }
}
