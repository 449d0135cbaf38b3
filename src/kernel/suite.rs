//! One suite for every leaf: compares [`active`] with [`generic`], on the host and on the target. That generic is right
//! is a test of its own, against 128-bit sums.
//!
//! A shape is worth running where it takes a leaf another way: around each unrolling, beyond each buffer and each fold,
//! with an odd last row, token or column. Every shape runs in four [`Lie`]s: as layers pass it, from odd addresses, and
//! with the beginning of one more row, token and output behind it, which must be left alone.

use super::{I4, active, generic};
use crate::fixed::hash::{Purpose, Seed, Stream};
use crate::fixed::rounding::ceil_log2;
use crate::memory::Workspace;
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

/// Where a leaf left the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mismatch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Rows, inputs, tokens.
    pub shape: (usize, usize, usize),
    /// How the operands lay in memory.
    pub lie: Lie,
}

/// How operands lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Lie {
    /// Aligned, and as long as the shape says.
    Plain,
    /// The weights (the left vectors of an outer product) start one element off.
    OddWeights,
    /// The inputs (the right vectors) start one element off.
    OddInputs,
    /// The first elements of one more row, token and output follow.
    Ragged,
}

impl Lie {
    const ALL: [Lie; 4] = [Lie::Plain, Lie::OddWeights, Lie::OddInputs, Lie::Ragged];

    /// How many elements stand behind operands that would hold one more part of `len`: not all of it, nor too many.
    const fn behind(self, len: usize) -> usize {
        match self {
            Lie::Ragged if len > 32 => 32,
            Lie::Ragged => len.saturating_sub(1),
            _ => 0,
        }
    }
}

/// Shapes (rows, inputs, tokens) of the products, forward and transposed, with weights of every width.
const SHAPES: [(usize, usize, usize); 24] = [
    (1, 1, 1),
    (2, 3, 1),
    (3, 4, 2),
    (4, 5, 3),
    (5, 7, 1),
    (6, 8, 4),
    (7, 13, 1),
    (8, 16, 2),
    (9, 31, 1),
    (4, 33, 1),
    (3, 64, 2),
    (2, 100, 1),
    (1, 515, 1),
    (2, 260, 1),
    (33, 2, 1),
    (40, 8, 3),
    (21, 4, 3),
    // The tile of the DSP leaf: an odd last row and token, one buffer of 192 columns and two, with a tail and without.
    (3, 5, 5),
    (2, 264, 4),
    (3, 263, 5),
    // Its transposed product: one and two strips of 128 columns.
    (4, 200, 1),
    (5, 131, 1),
    // Long enough to pass the fold of an `i32` where all products are extremes of one sign: see `LONG`.
    (1, 1040, 1),
    (2, 520, 2),
];

/// Shapes of the transposed product with more rows than an `i32` can sum; bytes alone, which are the ones that fold.
const TALL: [(usize, usize, usize); 3] = [(1100, 1, 1), (550, 2, 1), (600, 8, 1)];

/// Shapes whose sums leave 32 bits when all values are extremes of one sign.
const LONG: [(usize, usize, usize); 2] = [(1, 1040, 1), (2, 520, 2)];

/// (rows, columns, tokens) of outer products: around a strip of 64 columns and a tile of 8 tokens, and beyond both.
const OUTER: [(usize, usize, usize); 9] =
    [(1, 1, 1), (2, 3, 1), (3, 5, 2), (5, 7, 3), (4, 64, 6), (3, 70, 5), (5, 130, 7), (2, 200, 8), (3, 9, 9)];

/// Shifts of outer products beyond the least that a layer passes.
const SHIFTS: [u32; 5] = [0, 3, 8, 15, 40];

/// Columns of a transposed product times tokens, at most: what its accumulators have room for.
const SUMS: usize = 208;

/// Bytes of memory that [`run`] needs.
pub const BYTES: usize = 7680;

/// Runs every kernel on every shape with values from `seed`, extremes included; `memory`: [`BYTES`], and 15 more where it
/// does not start at a multiple of 16.
///
/// # Errors
/// The first kernel and shape where the active leaf differs from generic; [`Mismatch::kernel`] is "memory" where there is
/// too little of it.
pub fn run(seed: Seed, memory: &mut [u8]) -> Result<(), Mismatch> {
    let drawn = |n: usize, what| Values::Drawn(Stream::new(seed, Purpose::Init, n as u32, what));
    for lie in Lie::ALL {
        for (n, &shape) in SHAPES.iter().enumerate() {
            Case { values: drawn(n, 0), shape, lie }.products(memory)?;
        }
        for (n, &shape) in TALL.iter().enumerate() {
            Case { values: drawn(n, 1), shape, lie }.tall(memory)?;
        }
        for (n, &shape) in OUTER.iter().enumerate() {
            Case { values: drawn(n, 2), shape, lie }.outer(memory)?;
        }
        for values in [Values::Least, Values::Opposed] {
            LONG.iter().try_for_each(|&shape| Case { values, shape, lie }.products(memory))?;
            TALL.iter().try_for_each(|&shape| Case { values, shape, lie }.tall(memory))?;
            OUTER.iter().try_for_each(|&shape| Case { values, shape, lie }.outer(memory))?;
        }
    }
    Ok(())
}

/// What the operands are filled with.
#[derive(Clone, Copy)]
enum Values {
    /// Drawn, one in eight an extreme.
    Drawn(Stream),
    /// The least weights with the least inputs: products are positive, and the largest there are.
    Least,
    /// The least weights with the largest inputs: products are negative.
    Opposed,
}

impl Values {
    fn weight(self, index: usize) -> i16 {
        match self {
            Values::Drawn(stream) => drawn(stream.at(index as u32)),
            Values::Least | Values::Opposed => i16::MIN,
        }
    }

    fn input(self, index: usize) -> i16 {
        match self {
            Values::Drawn(stream) => drawn(stream.at(0x2_0000 + index as u32)),
            Values::Least => i16::MIN,
            Values::Opposed => i16::MAX,
        }
    }

    fn nibbles(self, index: usize) -> u8 {
        match self {
            Values::Drawn(stream) => stream.at(0x4_0000 + index as u32) as u8,
            Values::Least | Values::Opposed => 0x88,
        }
    }

    fn group(self, index: usize) -> u8 {
        match self {
            Values::Drawn(stream) => 1 + (stream.at(0x3_0000 + index as u32) % 63) as u8,
            Values::Least | Values::Opposed => u8::MAX,
        }
    }
}

/// 16 of 32 random bits; one value in eight is an extreme.
const fn drawn(bits: u32) -> i16 {
    match bits & 15 {
        0 => i16::MAX,
        1 => i16::MIN,
        _ => (bits >> 16) as i16,
    }
}

/// What memory is cut into.
trait Value: FromBytes + IntoBytes + KnownLayout + From<i8> {}

impl<T: FromBytes + IntoBytes + KnownLayout + From<i8>> Value for T {}

/// Outputs before a kernel runs: what it does not overwrite must still be this.
const UNTOUCHED: i8 = -1;

/// One shape, as its operands are filled and lie.
#[derive(Clone, Copy)]
struct Case {
    values: Values,
    shape: (usize, usize, usize),
    lie: Lie,
}

impl Case {
    /// Every product, with weights of every width.
    fn products(self, memory: &mut [u8]) -> Result<(), Mismatch> {
        self.product("product_i8", memory, Case::i8, generic::product_i8, active::product_i8)?;
        self.product("product_i16", memory, Case::i16, generic::product_i16, active::product_i16)?;
        self.product("product_i4", memory, Case::i4, generic::product_i4, active::product_i4)?;
        self.tall(memory)?;
        self.transposed("transposed_i16", memory, Case::i16, generic::transposed_i16, active::transposed_i16)?;
        self.transposed("transposed_i4", memory, Case::i4, generic::transposed_i4, active::transposed_i4)
    }

    /// The transposed product of bytes alone.
    fn tall(self, memory: &mut [u8]) -> Result<(), Mismatch> {
        self.transposed("transposed_i8", memory, Case::i8, generic::transposed_i8, active::transposed_i8)
    }

    fn product<'m, W: Copy>(
        self,
        kernel: &'static str,
        memory: &'m mut [u8],
        weights: impl Fn(Case, &mut Workspace<'m>) -> Option<W>,
        spec: impl Fn(W, usize, &[i16], &mut [i64]),
        leaf: impl Fn(W, usize, &[i16], &mut [i64]),
    ) -> Result<(), Mismatch> {
        let (rows, inputs, tokens) = self.shape;
        let mut memory = Workspace::new(memory);
        let cut = |m: &mut Workspace<'m>| {
            Some((weights(self, m)?, self.inputs(m, tokens, inputs)?, self.outputs::<i64>(m, tokens, rows)?))
        };
        let (w, x, [want, got]) = cut(&mut memory).ok_or(self.mismatch("memory"))?;
        spec(w, inputs, x, want);
        leaf(w, inputs, x, got);
        if want == got { Ok(()) } else { Err(self.mismatch(kernel)) }
    }

    /// Of all columns, of a range in the middle, and of one that reaches beyond the last column; as far as there are sums.
    fn transposed<'m, W: Copy>(
        self,
        kernel: &'static str,
        memory: &'m mut [u8],
        weights: impl Fn(Case, &mut Workspace<'m>) -> Option<W>,
        spec: impl Fn(W, usize, usize, &[i16], &mut [i64]),
        leaf: impl Fn(W, usize, usize, &[i16], &mut [i64]),
    ) -> Result<(), Mismatch> {
        let (rows, inputs, tokens) = self.shape;
        let mut memory = Workspace::new(memory);
        let most = inputs.min(SUMS / tokens);
        let cut = |m: &mut Workspace<'m>| {
            Some((weights(self, m)?, self.inputs(m, tokens, rows)?, self.outputs::<i64>(m, most, tokens)?))
        };
        let (w, g, [want, got]) = cut(&mut memory).ok_or(self.mismatch("memory"))?;
        for (first, columns) in [(0, most), (inputs / 3, most.min(inputs - inputs / 3)), (inputs - 1, most.min(2))] {
            let len = columns * tokens + self.lie.behind(tokens);
            let (Some(want), Some(got)) = (want.get_mut(..len), got.get_mut(..len)) else {
                return Err(self.mismatch("memory"));
            };
            spec(w, inputs, first, g, want);
            leaf(w, inputs, first, g, got);
            if want != got {
                return Err(self.mismatch(kernel));
            }
        }
        Ok(())
    }

    fn outer(self, memory: &mut [u8]) -> Result<(), Mismatch> {
        let (rows, columns, tokens) = self.shape;
        let mut memory = Workspace::new(memory);
        // The left vectors are drawn as weights; there are as many tokens of them as long as less than one column follows.
        let left = Case { shape: (rows, tokens, 1), ..self };
        let mut cut = || {
            let m = &mut memory;
            Some((left.i16(m)?, self.inputs(m, columns, tokens)?, self.outputs::<i32>(m, rows, columns)?))
        };
        let (left, right, [want, got]) = cut().ok_or(self.mismatch("memory"))?;
        for more in SHIFTS {
            let shift = ceil_log2(tokens) + 1 + more;
            generic::outer_i16(left, right, tokens, shift, want);
            active::outer_i16(left, right, tokens, shift, got);
            if want != got {
                return Err(self.mismatch("outer_i16"));
            }
        }
        Ok(())
    }

    const fn mismatch(self, kernel: &'static str) -> Mismatch {
        Mismatch { kernel, shape: self.shape, lie: self.lie }
    }

    fn i8<'m>(self, memory: &mut Workspace<'m>) -> Option<&'m [i8]> {
        self.weights(memory, |w| (w >> 8) as i8)
    }

    fn i16<'m>(self, memory: &mut Workspace<'m>) -> Option<&'m [i16]> {
        self.weights(memory, |w| w)
    }

    fn weights<'m, T: Value>(self, memory: &mut Workspace<'m>, of: impl Fn(i16) -> T) -> Option<&'m [T]> {
        let (rows, inputs, _) = self.shape;
        let odd = usize::from(self.lie == Lie::OddWeights);
        let all = memory.try_carve(odd + rows * inputs + self.lie.behind(inputs))?;
        all.iter_mut().enumerate().for_each(|(i, w)| *w = of(self.values.weight(i)));
        all.get(odd..)
    }

    fn i4<'m>(self, memory: &mut Workspace<'m>) -> Option<I4<'m>> {
        let (rows, inputs, _) = self.shape;
        let (bytes, count) = (I4::row_bytes(inputs), I4::row_groups(inputs));
        let nibbles = memory.try_carve(rows * bytes + self.lie.behind(bytes))?;
        nibbles.iter_mut().enumerate().for_each(|(i, n)| *n = self.values.nibbles(i));
        let groups = memory.try_carve(rows * count + self.lie.behind(count))?;
        groups.iter_mut().enumerate().for_each(|(i, g)| *g = self.values.group(i));
        Some(I4 { nibbles, groups })
    }

    /// `count` vectors of `width`.
    fn inputs<'m>(self, memory: &mut Workspace<'m>, count: usize, width: usize) -> Option<&'m [i16]> {
        let odd = usize::from(self.lie == Lie::OddInputs);
        let all = memory.try_carve(odd + count * width + self.lie.behind(width))?;
        all.iter_mut().enumerate().for_each(|(i, x)| *x = self.values.input(i));
        all.get(odd..)
    }

    /// `count` times `width` outputs, twice: for the specification and for the leaf.
    fn outputs<'m, T: Value>(self, memory: &mut Workspace<'m>, count: usize, width: usize) -> Option<[&'m mut [T]; 2]> {
        let len = count * width + self.lie.behind(width);
        let mut both = [memory.try_carve(len)?, memory.try_carve(len)?];
        both.iter_mut().flat_map(|half| half.iter_mut()).for_each(|o| *o = T::from(UNTOUCHED));
        Some(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn active_is_generic() {
        for seed in 0..4 {
            assert_eq!(run(Seed(seed), &mut vec![0; BYTES + 15]), Ok(()));
        }
    }

    #[test]
    fn too_little_memory_is_a_mismatch() {
        let error = run(Seed(1), &mut vec![0; BYTES / 2]).unwrap_err();
        assert_eq!(error.kernel, "memory");
    }

    /// Sums of [`LONG`] and [`TALL`] shapes do not fit 32 bits: a leaf that forgot to fold would be seen.
    #[test]
    fn long_shapes_pass_32_bits() {
        for (rows, inputs, tokens) in LONG.into_iter().chain(TALL) {
            assert!(rows.max(inputs) as i64 * 128 * 32768 > i64::from(i32::MAX), "{rows} {inputs} {tokens}");
        }
        assert!(LONG.iter().all(|shape| SHAPES.contains(shape)));
    }
}
