//! One suite for every leaf: compares [`active`] with [`generic`], on the host
//! and on the target.

use super::{I4, active, generic};
use crate::fixed::block::MANTISSA_MAX;
use crate::fixed::hash::{Purpose, Seed, Stream};

/// Where a leaf left the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mismatch {
    /// The kernel's name.
    pub kernel: &'static str,
    /// Rows, inputs, tokens.
    pub shape: (usize, usize, usize),
}

/// Shapes worth running: odd ones, ones around each unrolling, one beyond the `i32` fold.
pub const SHAPES: &[(usize, usize, usize)] = &[
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
];

/// Shapes whose sums pass every fold when all values are extremes of one sign: long rows, wide tiles, many rows.
pub const LONG: &[(usize, usize, usize)] = &[(1, 1040, 1), (2, 520, 2), (1100, 1, 1), (550, 2, 1)];

/// The largest buffers that [`run`] needs: weights, inputs, accumulators.
pub const BUFFERS: (usize, usize, usize) = (1104, 1104, 128);

/// Buffers for [`run`], sized by [`BUFFERS`].
#[derive(Debug)]
pub struct Scratch<'a> {
    /// Weights of 16 bits; [`BUFFERS`]`.0`.
    pub w16: &'a mut [i16],
    /// Weights of 8 bits; [`BUFFERS`]`.0`.
    pub w8: &'a mut [i8],
    /// Inputs; [`BUFFERS`]`.1`.
    pub x: &'a mut [i16],
    /// Accumulators, twice; [`BUFFERS`]`.2`.
    pub acc: [&'a mut [i64]; 2],
}

/// Runs every kernel on every shape with values from `seed`, extremes included.
///
/// # Errors
/// The first kernel and shape where the active leaf differs from generic, or where a buffer is too small.
pub fn run(seed: Seed, scratch: &mut Scratch<'_>) -> Result<(), Mismatch> {
    for (n, &shape) in SHAPES.iter().enumerate() {
        run_shape(Values::Drawn(Stream::new(seed, Purpose::Init, n as u32, 0)), shape, scratch)?;
    }
    for &shape in LONG {
        // Every product has the largest magnitude an image can make, and all have one sign.
        run_shape(Values::Least, shape, scratch)?;
        run_shape(Values::Opposed, shape, scratch)?;
    }
    Ok(())
}

/// What the buffers are filled with.
#[derive(Clone, Copy)]
enum Values {
    /// Drawn, one in eight an extreme.
    Drawn(Stream),
    /// The least weights with the least inputs of a canonical block: products are positive.
    Least,
    /// The least weights with the largest inputs: products are negative.
    Opposed,
}

impl Values {
    fn weight(self, index: usize) -> i16 {
        match self {
            Values::Drawn(stream) => extreme_i16(stream.at(index as u32), 32767),
            Values::Least | Values::Opposed => i16::MIN,
        }
    }

    fn input(self, index: usize) -> i16 {
        match self {
            Values::Drawn(stream) => extreme_i16(stream.at(0x2_0000 + index as u32), 32639),
            Values::Least => -MANTISSA_MAX,
            Values::Opposed => MANTISSA_MAX,
        }
    }

    fn byte(self, index: usize) -> u8 {
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

fn run_shape(values: Values, shape: (usize, usize, usize), s: &mut Scratch<'_>) -> Result<(), Mismatch> {
    let (rows, inputs, tokens) = shape;
    let small = Mismatch { kernel: "scratch too small", shape };
    let [want, got] = &mut s.acc;
    let w16 = s.w16.get_mut(..rows * inputs).ok_or(small)?;
    let w8 = s.w8.get_mut(..rows * inputs).ok_or(small)?;
    let x = s.x.get_mut(..tokens * inputs.max(rows)).ok_or(small)?;
    for (i, w) in w16.iter_mut().enumerate() {
        *w = values.weight(i);
    }
    for (i, w) in w8.iter_mut().enumerate() {
        *w = (values.weight(0x1_0000 + i) >> 8) as i8;
    }
    for (i, x) in x.iter_mut().enumerate() {
        *x = values.input(i);
    }

    let mut check = |kernel, len: usize, f: &dyn Fn(&mut [i64]), g: &dyn Fn(&mut [i64])| {
        let want = want.get_mut(..len).ok_or(small)?;
        let got = got.get_mut(..len).ok_or(small)?;
        f(want);
        got.fill(-1);
        g(got);
        if want == got { Ok(()) } else { Err(Mismatch { kernel, shape }) }
    };

    let xs = x.get(..tokens * inputs).ok_or(small)?;
    // As many rows as the accumulators reach.
    let some = rows.min(BUFFERS.2 / tokens);
    let (s8, s16) = (w8.get(..some * inputs).ok_or(small)?, w16.get(..some * inputs).ok_or(small)?);
    let len = tokens * some;
    check("product_i8", len, &|a| generic::product_i8(s8, inputs, xs, a), &|a| active::product_i8(s8, inputs, xs, a))?;
    check("product_i16", len, &|a| generic::product_i16(s16, inputs, xs, a), &|a| {
        active::product_i16(s16, inputs, xs, a);
    })?;

    // The transposed product of all columns, as far as the accumulators reach, and of a range in the middle.
    let gs = x.get(..tokens * rows).ok_or(small)?;
    for (first, columns) in [(0, inputs.min(32)), (inputs / 3, (inputs - inputs / 3).min(32))] {
        let len = tokens * columns;
        check("transposed_i8", len, &|a| generic::transposed_i8(w8, inputs, first, gs, a), &|a| {
            active::transposed_i8(w8, inputs, first, gs, a);
        })?;
        check("transposed_i16", len, &|a| generic::transposed_i16(w16, inputs, first, gs, a), &|a| {
            active::transposed_i16(w16, inputs, first, gs, a);
        })?;
    }

    // Outer products, of at most 8 by 8.
    let (r, c) = (rows.min(8), inputs.min(8));
    let (left, right) = (w16.get(..tokens * r), x.get(..tokens * c));
    if let (Some(left), Some(right)) = (left, right) {
        let (mut a, mut b) = ([7_i32; 64], [7_i32; 64]);
        let (a, b) = (a.get_mut(..r * c).ok_or(small)?, b.get_mut(..r * c).ok_or(small)?);
        let shift = 4 + crate::fixed::rounding::ceil_log2(tokens);
        generic::outer_i16(left, right, tokens, shift, a);
        active::outer_i16(left, right, tokens, shift, b);
        if a != b {
            return Err(Mismatch { kernel: "outer_i16", shape });
        }
    }

    // 4-bit weights from the same bytes, where a row of them is full.
    let row_bytes = I4::row_bytes(inputs);
    let row_groups = I4::row_groups(inputs);
    let mut groups = [0_u8; 64];
    let mut nibbles = [0_u8; 320];
    if let (Some(groups), Some(nibbles)) = (groups.get_mut(..rows * row_groups), nibbles.get_mut(..rows * row_bytes)) {
        for (i, g) in groups.iter_mut().enumerate() {
            *g = values.group(i);
        }
        for (i, n) in nibbles.iter_mut().enumerate() {
            *n = values.byte(i);
        }
        let w = I4 { nibbles, groups };
        check("product_i4", tokens * rows, &|a| generic::product_i4(w, inputs, xs, a), &|a| {
            active::product_i4(w, inputs, xs, a);
        })?;
        for (first, columns) in [(0, inputs.min(32)), (inputs / 3, (inputs - inputs / 3).min(32))] {
            let len = tokens * columns;
            check("transposed_i4", len, &|a| generic::transposed_i4(w, inputs, first, gs, a), &|a| {
                active::transposed_i4(w, inputs, first, gs, a);
            })?;
        }
    }
    Ok(())
}

/// A value within ±`limit` from 32 random bits; one in eight is an extreme.
fn extreme_i16(bits: u32, limit: i16) -> i16 {
    match bits & 15 {
        0 => limit,
        1 => -limit,
        _ => ((((bits >> 16) as i16) as i32 * i32::from(limit)) / 32768) as i16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn active_is_generic() {
        let (w, x, a) = BUFFERS;
        let (mut w16, mut w8, mut x) = (vec![0; w], vec![0; w], vec![0; x]);
        let (mut a0, mut a1) = (vec![0; a], vec![0; a]);
        let mut scratch = Scratch { w16: &mut w16, w8: &mut w8, x: &mut x, acc: [&mut a0, &mut a1] };
        assert_eq!(run(Seed(1), &mut scratch), Ok(()));
    }

    /// Sums of [`LONG`] shapes do not fit 32 bits: a leaf that forgot to fold would be seen.
    #[test]
    fn long_shapes_pass_32_bits() {
        let byte = 128 * i64::from(MANTISSA_MAX);
        for &(rows, inputs, tokens) in LONG {
            assert!(rows.max(inputs) as i64 * byte > i64::from(i32::MAX), "{rows} {inputs} {tokens}");
        }
    }

    #[test]
    fn generic_is_the_plain_sum() {
        // 128-bit sums over one shape beyond the fold, extremes only.
        let (rows, inputs) = (2, 1200);
        let w = vec![-127_i8; rows * inputs];
        let x = vec![-32639_i16; inputs];
        let mut acc = vec![0; rows];
        generic::product_i8(&w, inputs, &x, &mut acc);
        assert_eq!(acc, vec![127 * 32639 * 1200; rows]);
        let mut t = vec![0; inputs];
        generic::transposed_i8(&w, inputs, 0, &[32639, -32639], &mut t);
        assert_eq!(t, vec![0; inputs]);
    }

    #[test]
    fn i4_unpacks_by_its_definition() {
        // Row of 3 weights: -7, 3, 5 (high nibble of the last byte unused); group scale 63.
        let w = I4 { nibbles: &[0x39, 0x05], groups: &[63] };
        let row: vec::Vec<i16> = w.iter_rows(3).flat_map(|r| r.values()).collect();
        assert_eq!(row, [-441, 189, 315]);
    }
}
