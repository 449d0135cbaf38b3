//! Keys and values: those of one layer while an encoder runs, and those of every layer that a decoder keeps.

#[cfg(feature = "train")]
use crate::fixed::{Block, Tile};
use crate::fixed::{Exp, byte};
use crate::layer::attention::{KeyValue, Rows};

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum CacheType {
    /// As they were computed: decoding token by token gives the bits of the full pass.
    #[default]
    I16,
    /// In half the memory, each row rounded to 8 bits under its own exponent.
    I8,
}

/// Dimensions of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct StoreShape {
    /// Layers.
    pub layers: usize,
    /// Heads of keys, and of values.
    pub heads: usize,
    /// Positions.
    pub capacity: usize,
    /// Width of a head.
    pub width: usize,
}

impl StoreShape {
    /// Rows: of keys and values, one a layer, head and position.
    #[must_use]
    pub const fn rows(&self) -> usize {
        2 * self.layers * self.heads * self.capacity
    }

    /// Mantissas.
    #[must_use]
    pub const fn elements(&self) -> usize {
        self.rows() * self.width
    }
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Keys = 0,
    Values = 1,
}

/// The mantissas, in the one type or the other.
#[derive(Debug)]
pub(crate) enum Plane<'a> {
    I16(&'a mut [i16]),
    I8(&'a mut [i8]),
}

/// A store: `(layers, keys and values, heads, capacity, width)`, and an exponent a row.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    pub(crate) plane: Plane<'a>,
    pub(crate) exponents: &'a mut [Exp],
    pub(crate) shape: StoreShape,
}

impl Store<'_> {
    /// The number of the first row of one head.
    const fn first(&self, layer: usize, side: Side, head: usize) -> usize {
        ((layer * 2 + side as usize) * self.shape.heads + head) * self.shape.capacity
    }

    /// Puts one row; a place beyond the shape is passed over, which the caller has ruled out.
    pub(crate) fn put(&mut self, layer: usize, side: Side, head: usize, position: usize, row: &[i16], exponent: Exp) {
        let (at, width) = (self.first(layer, side, head) + position, self.shape.width);
        let stored = match &mut self.plane {
            Plane::I16(plane) => {
                if let Some(to) = plane.get_mut(at * width..(at + 1) * width) {
                    to.copy_from_slice(row);
                }
                exponent
            }
            Plane::I8(plane) => match plane.get_mut(at * width..(at + 1) * width) {
                Some(to) => byte::narrow(row, exponent, to),
                None => exponent,
            },
        };
        if let Some(e) = self.exponents.get_mut(at) {
            *e = stored;
        }
    }

    /// The first `count` positions of one head.
    pub(crate) fn head(&self, layer: usize, head: usize, count: usize) -> KeyValue<'_> {
        let exponents = |side| {
            let at = self.first(layer, side, head);
            self.exponents.get(at..at + count).unwrap_or(&[])
        };
        KeyValue {
            keys: self.rows(layer, Side::Keys, head, count),
            key_exponents: exponents(Side::Keys),
            values: self.rows(layer, Side::Values, head, count),
            value_exponents: exponents(Side::Values),
        }
    }

    /// Some positions of one head of the first layer, of a store of 16 bits.
    #[cfg(feature = "train")]
    pub(crate) fn tile(&self, side: Side, head: usize, first: usize, count: usize) -> Tile<'_> {
        let at = self.first(0, side, head) + first;
        let width = self.shape.width;
        let mantissas = match &self.plane {
            Plane::I16(plane) => plane.get(at * width..(at + count) * width).unwrap_or(&[]),
            Plane::I8(_) => &[],
        };
        Tile { mantissas, exponents: self.exponents.get(at..at + count).unwrap_or(&[]) }
    }

    /// One of them.
    #[cfg(feature = "train")]
    pub(crate) fn row(&self, side: Side, head: usize, position: usize) -> Option<Block<'_>> {
        self.tile(side, head, position, 1).blocks().next()
    }

    fn rows(&self, layer: usize, side: Side, head: usize, count: usize) -> Rows<'_> {
        let at = self.first(layer, side, head) * self.shape.width;
        let range = at..at + count * self.shape.width;
        match &self.plane {
            Plane::I16(plane) => Rows::I16(plane.get(range).unwrap_or(&[])),
            Plane::I8(plane) => Rows::I8(plane.get(range).unwrap_or(&[])),
        }
    }
}

/// What a decoder keeps between calls: keys and values of every token so far, and of the encoder's output.
///
/// They were computed with the adapters of the call that put them there. Who switches adapters in the middle of a
/// text mixes both; [`clear`](Cache::clear) starts anew.
#[derive(Debug)]
pub struct Cache<'a> {
    pub(crate) own: Store<'a>,
    /// `(context)`: 0 for a token that is padding.
    pub(crate) valid: &'a mut [u8],
    pub(crate) len: usize,
    pub(crate) cross: Store<'a>,
    /// `(source)`: likewise.
    pub(crate) source_valid: &'a mut [u8],
    pub(crate) source_len: usize,
}

impl Cache<'_> {
    /// Tokens it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.own.shape.capacity
    }

    /// Forgets all tokens, and the encoder's output.
    pub const fn clear(&mut self) {
        self.len = 0;
        self.source_len = 0;
    }

    /// Forgets the tokens behind the first `len`; the encoder's output stays.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}
