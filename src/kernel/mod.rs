//! **The seam for speed**: the inner products of every layer, forward and backward.
//!
//! [`generic`] is the executable specification and is always compiled, on the target too. A leaf is a file with the
//! same names that computes the same exact integers faster; the board crate chooses one by a feature, because
//! stable Rust shows no `cfg` for the DSP or Helium extensions. Every result is an exact integer: there is no
//! tolerance between leaves, and no feature changes a result.
//!
//! | function | computes |
//! |---|---|
//! | `product_{i8,i16,i4}` | `W x` for a tile of tokens |
//! | `transposed_{i8,i16,i4}` | `Wᵀ g` for a range of columns, walking W row by row |
//! | `outer_i16` | rank-one updates of a gradient, a tile at a time |
//!
//! [`suite`] compares a leaf with generic; host tests and every board run it.

pub mod generic;
pub mod suite;

#[cfg(all(feature = "arm-dsp", target_arch = "arm"))]
pub mod arm_dsp;

#[cfg(all(feature = "arm-dsp", target_arch = "arm"))]
pub use arm_dsp as active;
#[cfg(not(all(feature = "arm-dsp", target_arch = "arm")))]
pub use generic as active;

/// The largest input dimension of a layer, and of everything that a layer's outputs go into: the bound behind every
/// "this fits" of a forward pass. `W x` with 16-bit weights and row scales fills 2^(15 + 15 + 17 + 16) = 2^63.
pub const MAX_DIM: usize = 1 << 17;

/// The largest output dimension of a layer, which nothing adds up but the backward pass: `s · Bᵀ dy` fills
/// 2^(14 + 15 + 18 + 16) = 2^63. Wide enough for the vocabularies in use; only a head or a table is wider than [`MAX_DIM`].
pub const MAX_OUTPUTS: usize = 1 << 18;

/// Weights in one group of the 4-bit form.
pub const GROUP: usize = 32;

/// A weight matrix as it lies in the image, `(rows, inputs)`, row-major.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Weights<'a> {
    /// One byte a weight, within ±127.
    I8(&'a [i8]),
    /// Two bytes a weight.
    I16(&'a [i16]),
    /// Half a byte a weight, in groups.
    I4(I4<'a>),
}

impl Weights<'_> {
    /// Bits that the magnitude of one weight needs: part of every accumulator's bound.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        match self {
            Weights::I8(_) => 7,
            Weights::I16(_) => 15,
            // 7 · 63 = 441 from a converter; 8 · 255 = 2040 from any bytes.
            Weights::I4(_) => 11,
        }
    }

    /// The number of weights, given the width of a row.
    #[must_use]
    pub fn len(&self, inputs: usize) -> usize {
        match self {
            Weights::I8(w) => w.len(),
            Weights::I16(w) => w.len(),
            Weights::I4(w) => w.rows(inputs) * inputs,
        }
    }

    /// Some rows of the matrix.
    #[must_use]
    pub fn rows(self, inputs: usize, rows: core::ops::Range<usize>) -> Self {
        let part = |width: usize| rows.start * width..rows.end * width;
        match self {
            Weights::I8(w) => Weights::I8(w.get(part(inputs)).unwrap_or(&[])),
            Weights::I16(w) => Weights::I16(w.get(part(inputs)).unwrap_or(&[])),
            Weights::I4(w) => Weights::I4(I4 {
                nibbles: w.nibbles.get(part(I4::row_bytes(inputs))).unwrap_or(&[]),
                groups: w.groups.get(part(I4::row_groups(inputs))).unwrap_or(&[]),
            }),
        }
    }

    /// `W x` on the active leaf; shapes as [`generic::product_i8`].
    pub fn product(&self, inputs: usize, x: &[i16], acc: &mut [i64]) {
        match *self {
            Weights::I8(w) => active::product_i8(w, inputs, x, acc),
            Weights::I16(w) => active::product_i16(w, inputs, x, acc),
            Weights::I4(w) => active::product_i4(w, inputs, x, acc),
        }
    }

    /// `Wᵀ g` on the active leaf; shapes as [`generic::transposed_i8`].
    pub fn transposed(&self, inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
        match *self {
            Weights::I8(w) => active::transposed_i8(w, inputs, first, g, acc),
            Weights::I16(w) => active::transposed_i16(w, inputs, first, g, acc),
            Weights::I4(w) => active::transposed_i4(w, inputs, first, g, acc),
        }
    }
}

/// 4-bit weights: `w[o, k] = q[o, k] · group[o, k / 32]`, an exact integer within ±441.
#[derive(Clone, Copy, Debug)]
pub struct I4<'a> {
    /// Two weights a byte, the even one in the low nibble, −7..=7; every row starts on a byte: `(rows, ⌈inputs/2⌉)`.
    pub nibbles: &'a [u8],
    /// One scale a group, 1..=63: `(rows, ⌈inputs/32⌉)`.
    pub groups: &'a [u8],
}

impl<'a> I4<'a> {
    /// Bytes of one row of nibbles.
    #[must_use]
    pub const fn row_bytes(inputs: usize) -> usize {
        inputs.div_ceil(2)
    }

    /// Groups of one row.
    #[must_use]
    pub const fn row_groups(inputs: usize) -> usize {
        inputs.div_ceil(GROUP)
    }

    /// The number of rows.
    #[must_use]
    pub const fn rows(&self, inputs: usize) -> usize {
        match self.nibbles.len().checked_div(Self::row_bytes(inputs)) {
            Some(rows) => rows,
            None => 0,
        }
    }

    /// The rows, in order.
    pub fn iter_rows(self, inputs: usize) -> impl Iterator<Item = I4Row<'a>> {
        let nibbles = self.nibbles.chunks_exact(Self::row_bytes(inputs).max(1));
        let groups = self.groups.chunks_exact(Self::row_groups(inputs).max(1));
        nibbles.zip(groups).map(move |(nibbles, groups)| I4Row { nibbles, groups, inputs })
    }
}

/// One row of 4-bit weights.
#[derive(Clone, Copy, Debug)]
pub struct I4Row<'a> {
    nibbles: &'a [u8],
    groups: &'a [u8],
    inputs: usize,
}

impl<'a> I4Row<'a> {
    /// The row's weights, group scale applied.
    pub fn values(self) -> impl Iterator<Item = i16> + use<'a> {
        let q = self.nibbles.iter().flat_map(|&b| [((b << 4) as i8) >> 4, (b as i8) >> 4]);
        let g = self.groups.iter().flat_map(|&g| core::iter::repeat_n(i16::from(g), GROUP));
        q.zip(g).take(self.inputs).map(|(q, g)| i16::from(q) * g)
    }
}
