//! The executable specification of every kernel, in plain Rust.
//!
//! All results are exact integers, so there is nothing to round and a leaf may compute in any order: it has to
//! arrive at the same number. Bounds: `|x| ≤ 2^15`, `i8` weights within ±128, `i16` within ±2^15, at most
//! [`MAX_OUTPUTS`](super::MAX_OUTPUTS) = 2^18 terms, so that every sum stays below 2^48.
//!
//! Shapes are taken from the slices: `rows = w.len() / inputs`, `tokens = x.len() / inputs`. Where an output is
//! shorter than that, only what fits is computed.

use super::I4;

/// Terms of an `i8 · i16` product that an `i32` holds: 512 · 2^7 · 2^15 = 2^31 would be one too many only if every
/// factor were at its negative limit; canonical blocks (±32639) and weights (±127) stay below it.
pub const FOLD: usize = 511;

/// This leaf's name, as firmware prints it.
pub const NAME: &str = "generic";

/// `acc[t, o] = Σ_k w[o, k] · x[t, k]` with `i8` weights.
///
/// `w`: `(rows, inputs)`; `x`: `(tokens, inputs)`; `acc`: `(tokens, rows)`.
pub fn product_i8(w: &[i8], inputs: usize, x: &[i16], acc: &mut [i64]) {
    product(w, inputs, x, acc, dot_i8);
}

/// `acc[t, o] = Σ_k w[o, k] · x[t, k]` with `i16` weights; shapes as [`product_i8`].
pub fn product_i16(w: &[i16], inputs: usize, x: &[i16], acc: &mut [i64]) {
    product(w, inputs, x, acc, dot_i16);
}

/// `acc[t, o] = Σ_k q[o, k] · group[o, k / 32] · x[t, k]` with 4-bit weights; shapes as [`product_i8`].
pub fn product_i4(w: I4<'_>, inputs: usize, x: &[i16], acc: &mut [i64]) {
    let rows = w.rows(inputs);
    if inputs == 0 || rows == 0 {
        return acc.fill(0);
    }
    for (x, acc) in x.chunks_exact(inputs).zip(acc.chunks_exact_mut(rows)) {
        for (row, a) in w.iter_rows(inputs).zip(acc) {
            *a = row.values().zip(x).map(|(w, &x)| i64::from(i32::from(w) * i32::from(x))).sum();
        }
    }
}

/// `acc[t, k] = Σ_o w[o, first + k] · g[t, o]`: the transposed product, for the columns `first ..` that `acc` covers.
///
/// W is walked row by row, as it lies; no transpose is stored.
/// `w`: `(rows, inputs)`; `g`: `(tokens, rows)`; `acc`: `(tokens, columns)`, overwritten.
pub fn transposed_i8(w: &[i8], inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    transposed(w, inputs, first, g, acc, i32::from);
}

/// The transposed product with `i16` weights; shapes as [`transposed_i8`].
pub fn transposed_i16(w: &[i16], inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    transposed(w, inputs, first, g, acc, i32::from);
}

/// The transposed product with 4-bit weights; shapes as [`transposed_i8`].
pub fn transposed_i4(w: I4<'_>, inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    acc.fill(0);
    let rows = w.rows(inputs);
    if inputs == 0 || rows == 0 {
        return;
    }
    let columns = acc.len() / (g.len() / rows).max(1);
    if columns == 0 {
        return;
    }
    for (g, acc) in g.chunks_exact(rows).zip(acc.chunks_exact_mut(columns)) {
        for (row, &g) in w.iter_rows(inputs).zip(g) {
            for (a, w) in acc.iter_mut().zip(row.values().skip(first)) {
                *a += i64::from(i32::from(w) * i32::from(g));
            }
        }
    }
}

/// `grad[i, j] += round(2^-shift · Σ_t left[t, i] · right[t, j])`, half to even: a tile's rank-one updates, summed
/// exactly and rounded once.
///
/// `left`: `(tokens, rows)`; `right`: `(tokens, columns)`; `grad`: `(rows, columns)`. The caller keeps
/// `|grad| + 2^(30 − shift) · tokens < 2^31`.
pub fn outer_i16(left: &[i16], right: &[i16], tokens: usize, shift: u32, grad: &mut [i32]) {
    if tokens == 0 {
        return;
    }
    let (rows, columns) = (left.len() / tokens, right.len() / tokens);
    if rows == 0 || columns == 0 {
        return;
    }
    for (i, grad) in grad.chunks_exact_mut(columns).take(rows).enumerate() {
        for (j, grad) in grad.iter_mut().enumerate() {
            let left = left.iter().skip(i).step_by(rows).take(tokens);
            let right = right.iter().skip(j).step_by(columns);
            let sum: i64 = left.zip(right).map(|(&l, &r)| i64::from(i32::from(l) * i32::from(r))).sum();
            let rounded = crate::fixed::rounding::shift_right_half_even(sum, shift);
            *grad = grad.wrapping_add(rounded as i32);
        }
    }
}

fn product<W: Copy>(w: &[W], inputs: usize, x: &[i16], acc: &mut [i64], dot: impl Fn(&[W], &[i16]) -> i64) {
    let rows = w.len().checked_div(inputs).unwrap_or(0);
    if inputs == 0 || rows == 0 {
        return acc.fill(0);
    }
    for (x, acc) in x.chunks_exact(inputs).zip(acc.chunks_exact_mut(rows)) {
        for (row, a) in w.chunks_exact(inputs).zip(acc) {
            *a = dot(row, x);
        }
    }
}

fn dot_i8(w: &[i8], x: &[i16]) -> i64 {
    let folds = w.chunks(FOLD).zip(x.chunks(FOLD));
    folds.map(|(w, x)| i64::from(w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum::<i32>())).sum()
}

fn dot_i16(w: &[i16], x: &[i16]) -> i64 {
    w.iter().zip(x).map(|(&w, &x)| i64::from(i32::from(w) * i32::from(x))).sum()
}

fn transposed<W: Copy>(w: &[W], inputs: usize, first: usize, g: &[i16], acc: &mut [i64], widen: impl Fn(W) -> i32) {
    acc.fill(0);
    let rows = w.len().checked_div(inputs).unwrap_or(0);
    if inputs == 0 || rows == 0 {
        return;
    }
    let columns = acc.len() / (g.len() / rows).max(1);
    if columns == 0 {
        return;
    }
    for (g, acc) in g.chunks_exact(rows).zip(acc.chunks_exact_mut(columns)) {
        for (row, &g) in w.chunks_exact(inputs).zip(g) {
            let row = row.get(first..).unwrap_or(&[]);
            for (a, &w) in acc.iter_mut().zip(row) {
                *a += i64::from(widen(w) * i32::from(g));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! Against the definitions, in 128 bits, for operands of any length.

    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// What outputs hold before: a kernel leaves alone what it does not compute.
    const BEFORE: i64 = -77;

    /// Σ of what `w(row, column)` tells times `x`, for every whole token and row; `acc` as it was where there is none.
    fn product_by_definition(
        w: &dyn Fn(usize, usize) -> i128,
        rows: usize,
        inputs: usize,
        x: &[i16],
        len: usize,
    ) -> Vec<i64> {
        if rows == 0 || inputs == 0 {
            return vec![0; len];
        }
        let mut acc = vec![BEFORE; len];
        for t in 0..(x.len() / inputs).min(len / rows) {
            for o in 0..rows {
                let sum: i128 = (0..inputs).map(|k| w(o, k) * i128::from(x[t * inputs + k])).sum();
                acc[t * rows + o] = i64::try_from(sum).unwrap();
            }
        }
        acc
    }

    fn transposed_by_definition(
        w: &dyn Fn(usize, usize) -> i128,
        (rows, inputs): (usize, usize),
        first: usize,
        g: &[i16],
        len: usize,
    ) -> Vec<i64> {
        let mut acc = vec![0; len];
        if rows == 0 || inputs == 0 {
            return acc;
        }
        let tokens = g.len() / rows;
        let columns = len / tokens.max(1);
        for t in 0..tokens {
            for k in (0..columns).take_while(|k| first + k < inputs) {
                let sum: i128 = (0..rows).map(|o| w(o, first + k) * i128::from(g[t * rows + o])).sum();
                acc[t * columns + k] = i64::try_from(sum).unwrap();
            }
        }
        acc
    }

    /// Bytes, with the extremes more often than they are drawn.
    fn bytes(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<i8>> {
        prop::collection::vec(prop_oneof![6 => any::<i8>(), 1 => Just(i8::MIN), 1 => Just(i8::MAX)], len)
    }

    fn halves(len: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<i16>> {
        prop::collection::vec(prop_oneof![6 => any::<i16>(), 1 => Just(i16::MIN), 1 => Just(i16::MAX)], len)
    }

    proptest! {
        #[test]
        fn bytes_are_their_definition(w in bytes(0..80), inputs in 0_usize..12, x in halves(0..60), len in 0_usize..50, first in 0_usize..14) {
            let at = |o: usize, k: usize| i128::from(w[o * inputs + k]);
            let rows = w.len().checked_div(inputs).unwrap_or(0);
            let mut acc = vec![BEFORE; len];
            product_i8(&w, inputs, &x, &mut acc);
            prop_assert_eq!(&acc, &product_by_definition(&at, rows, inputs, &x, len));
            transposed_i8(&w, inputs, first, &x, &mut acc);
            prop_assert_eq!(&acc, &transposed_by_definition(&at, (rows, inputs), first, &x, len));
        }

        #[test]
        fn halves_are_their_definition(w in halves(0..80), inputs in 0_usize..12, x in halves(0..60), len in 0_usize..50, first in 0_usize..14) {
            let at = |o: usize, k: usize| i128::from(w[o * inputs + k]);
            let rows = w.len().checked_div(inputs).unwrap_or(0);
            let mut acc = vec![BEFORE; len];
            product_i16(&w, inputs, &x, &mut acc);
            prop_assert_eq!(&acc, &product_by_definition(&at, rows, inputs, &x, len));
            transposed_i16(&w, inputs, first, &x, &mut acc);
            prop_assert_eq!(&acc, &transposed_by_definition(&at, (rows, inputs), first, &x, len));
        }

        /// Any bytes, though a converter writes −7..=7 and 1..=63.
        #[test]
        fn nibbles_are_their_definition(
            (inputs, rows) in (1_usize..70, 0_usize..5),
            nibbles in prop::collection::vec(any::<u8>(), 5 * 35),
            groups in prop::collection::vec(any::<u8>(), 5 * 3),
            x in halves(0..150), len in 0_usize..50, first in 0_usize..72,
        ) {
            let (bytes, count) = (I4::row_bytes(inputs), I4::row_groups(inputs));
            let w = I4 { nibbles: &nibbles[..rows * bytes], groups: &groups[..rows * count] };
            let at = |o: usize, k: usize| {
                let nibble = i128::from(nibbles[o * bytes + k / 2] >> (4 * (k % 2)) & 15);
                (if nibble > 7 { nibble - 16 } else { nibble }) * i128::from(groups[o * count + k / 32])
            };
            let mut acc = vec![BEFORE; len];
            product_i4(w, inputs, &x, &mut acc);
            prop_assert_eq!(&acc, &product_by_definition(&at, rows, inputs, &x, len));
            transposed_i4(w, inputs, first, &x, &mut acc);
            prop_assert_eq!(&acc, &transposed_by_definition(&at, (rows, inputs), first, &x, len));
        }

        #[test]
        fn outer_products_are_their_definition(
            (rows, columns, tokens) in (1_usize..5, 1_usize..6, 1_usize..11),
            (left, right) in (halves(5 * 11), halves(6 * 11)),
            (more_left, more_right, more) in (0_usize..11, 0_usize..11, 0_usize..6),
            extra in 0_u32..40,
        ) {
            // Less than one more column, and less than one more row, stand behind.
            let (left, right) = (&left[..rows * tokens + more_left % tokens], &right[..columns * tokens + more_right % tokens]);
            let shift = crate::fixed::rounding::ceil_log2(tokens) + 1 + extra;
            let len = rows * columns + more % columns;
            let mut grad = vec![5; len];
            outer_i16(left, right, tokens, shift, &mut grad);
            for (at, found) in grad.into_iter().enumerate() {
                let (i, j) = (at / columns, at % columns);
                let sum: i128 = (0..tokens)
                    .filter(|_| i < rows)
                    .map(|t| i128::from(left[t * rows + i]) * i128::from(right[t * columns + j]))
                    .sum();
                let (floor, twice) = (sum >> shift, 2 * (sum & ((1 << shift) - 1)));
                let up = twice > 1 << shift || (twice == 1 << shift && floor & 1 != 0);
                prop_assert_eq!(i128::from(found), 5 + floor + i128::from(up));
            }
        }
    }

    /// Long enough to pass the fold, all products extremes of one sign; checked by hand.
    #[test]
    fn long_sums_are_folded() {
        let inputs = 1200;
        let w = vec![i8::MIN; 2 * inputs];
        let mut acc = [0; 2];
        product_i8(&w, inputs, &vec![i16::MIN; inputs], &mut acc);
        assert_eq!(acc, [128 * 32768 * 1200; 2]);
        product_i8(&w, inputs, &vec![i16::MAX; inputs], &mut acc);
        assert_eq!(acc, [-128 * 32767 * 1200; 2]);
    }

    #[test]
    fn four_bits_unpack_by_their_definition() {
        // Row of 3 weights: -7, 3, 5 (high nibble of the last byte unused); group scale 63.
        let w = I4 { nibbles: &[0x39, 0x05], groups: &[63] };
        let row: Vec<i16> = w.iter_rows(3).flat_map(|r| r.values()).collect();
        assert_eq!(row, [-441, 189, 315]);
    }
}
