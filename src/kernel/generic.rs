//! The executable specification of every kernel, in plain Rust.
//!
//! All results are exact integers, so there is nothing to round and a leaf may compute in any order: it has to
//! arrive at the same number. Bounds: `|x| ≤ 2^15`, `i8` weights within ±128, `i16` within ±2^15, at most
//! [`MAX_DIM`](super::MAX_DIM) = 2^17 terms, so that every sum stays below 2^47.
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
            let left = left.iter().skip(i).step_by(rows);
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
