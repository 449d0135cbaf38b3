//! `Wᵀ g`: W is walked row by row, four rows at a time, as it lies.
//!
//! A strip of columns down all rows would keep its sums in registers, but read flash with a stride: every word from
//! another line, a wait for each. Four rows side by side are four streams, and the sums are loaded and stored once
//! for four rows.

use super::aligned;
use core::arch::asm;

/// Rows that go together.
const ROWS: usize = 4;

/// Columns whose `i32` sums are on the stack at a time (512 bytes).
const COLUMNS: usize = 128;

/// Rows whose products an `i32` holds: 508 · 2^7 · 2^15 < 2^31, a multiple of [`ROWS`].
const FOLD: usize = 508;

/// Four rows from some column on, and their factors in pairs. Of fewer than four rows the missing ones are copies of the
/// first with factor 0.
struct Four<W> {
    rows: [*const W; ROWS],
    factors: [u32; 2],
}

/// Groups of four rows, from column `first` on; `w`: `(rows, inputs)`, `g`: `(rows)`.
fn fours<W>(w: &[W], inputs: usize, first: usize, g: &[i16]) -> impl Iterator<Item = Four<W>> {
    w.chunks(ROWS * inputs).zip(g.chunks(ROWS)).map(move |(rows, g)| {
        let start = rows.as_ptr().wrapping_add(first);
        let at = |n: usize| {
            let factor = g.get(n).copied().filter(|_| n * inputs < rows.len());
            factor.map_or((start, 0), |g| (start.wrapping_add(n * inputs), u32::from(g as u16)))
        };
        let [(p0, g0), (p1, g1), (p2, g2), (p3, g3)] = [at(0), at(1), at(2), at(3)];
        Four { rows: [p0, p1, p2, p3], factors: [g0 | g1 << 16, g2 | g3 << 16] }
    })
}

/// Calls `f` with g and the sums of every token, and the number of columns that exist; the sums are zero.
fn each_token(weights: usize, inputs: usize, first: usize, g: &[i16], acc: &mut [i64], f: impl Fn(&[i16], &mut [i64])) {
    acc.fill(0);
    let rows = weights.checked_div(inputs).unwrap_or(0);
    if inputs <= first || rows == 0 {
        return;
    }
    let columns = acc.len() / (g.len() / rows).max(1);
    if columns == 0 {
        return;
    }
    for (g, acc) in g.chunks_exact(rows).zip(acc.chunks_exact_mut(columns)) {
        let present = columns.min(inputs - first);
        f(g, acc.get_mut(..present).unwrap_or(&mut []));
    }
}

/// `acc[t, k] = Σ_o w[o, first + k] · g[t, o]` with `i8` weights; shapes as
/// [`generic`](crate::kernel::generic::transposed_i8).
pub fn transposed_i8(w: &[i8], inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    each_token(w.len(), inputs, first, g, acc, |g, acc| {
        for (n, acc) in acc.chunks_mut(COLUMNS).enumerate() {
            let first = first + n * COLUMNS;
            for (w, g) in w.chunks(FOLD * inputs).zip(g.chunks(FOLD)) {
                fold_i8(w, inputs, first, g, acc);
            }
        }
    });
}

/// Adds the products of at most [`FOLD`] rows to at most [`COLUMNS`] sums.
fn fold_i8(w: &[i8], inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    let mut sums = [0_i32; COLUMNS];
    let sums = sums.get_mut(..acc.len()).unwrap_or(&mut []);
    let columns = sums.len() & !3;
    let (body, tail) = sums.split_at_mut_checked(columns).unwrap_or((&mut [], &mut []));
    if !body.is_empty() {
        for four in fours(w, inputs, first, g) {
            // SAFETY: the columns `first .. first + body.len()` lie within every row; `body` has a positive multiple of 4.
            unsafe { add4_i8(&four, body.as_mut_ptr(), body.len()) };
        }
    }
    if !tail.is_empty() {
        for (row, &g) in w.chunks_exact(inputs).zip(g) {
            let row = row.get(first + columns..).unwrap_or(&[]);
            tail.iter_mut().zip(row).for_each(|(s, &w)| *s += i32::from(w) * i32::from(g));
        }
    }
    acc.iter_mut().zip(sums).for_each(|(a, &mut s)| *a += i64::from(s));
}

/// Adds four rows, times their factors, to `n` sums.
///
/// Registers: r0–r3 rows; r4 sums; r5 factors 0, 1; r6 factors 2, 3; r7–r10 four sums; r11, r12, lr weights; the end of
/// the sums at `[sp, #8]`. Per 4 columns of 4 rows: 29 instructions, 47 cycles (1.81 and 2.9 a multiplication).
///
/// # Safety
/// Every row is readable for `n` values; `sums` is valid for `n`; `n` is a positive multiple of 4.
#[inline]
unsafe fn add4_i8(four: &Four<i8>, sums: *mut i32, n: usize) {
    let [r0, r1, r2, r3] = four.rows;
    let [g01, g23] = four.factors;
    // SAFETY: the caller's contract; n bytes of each row are read and 4n of the sums updated. r6 and r7 are the
    // compiler's own and are put back.
    unsafe {
        asm!(
            "push {{r6, r7, r12}}",
            "mov r6, r11",
            "2:",
            "ldmia r4, {{r7, r8, r9, r10}}",
            "ldr r11, [r0], #4",
            "ldr r12, [r1], #4",
            "pkhbt lr, r11, r12, lsl #16",  // rows 0, 1: columns 0 and 1 of each
            "pkhtb r12, r12, r11, asr #16", // columns 2 and 3 of each
            "sxtb16 r11, lr",
            "smlad r7, r11, r5, r7",
            "sxtb16 lr, lr, ror #8",
            "smlad r8, lr, r5, r8",
            "sxtb16 r11, r12",
            "smlad r9, r11, r5, r9",
            "sxtb16 r12, r12, ror #8",
            "smlad r10, r12, r5, r10",
            "ldr r11, [r2], #4",
            "ldr r12, [r3], #4",
            "pkhbt lr, r11, r12, lsl #16", // rows 2, 3
            "pkhtb r12, r12, r11, asr #16",
            "sxtb16 r11, lr",
            "smlad r7, r11, r6, r7",
            "sxtb16 lr, lr, ror #8",
            "smlad r8, lr, r6, r8",
            "sxtb16 r11, r12",
            "smlad r9, r11, r6, r9",
            "sxtb16 r12, r12, ror #8",
            "ldr r11, [sp, #8]",
            "smlad r10, r12, r6, r10",
            "stmia r4!, {{r7, r8, r9, r10}}",
            "cmp r4, r11",
            "bne 2b",
            "pop {{r6, r7, r12}}",
            inout("r0") r0 => _, inout("r1") r1 => _, inout("r2") r2 => _, inout("r3") r3 => _,
            inout("r4") sums => _, in("r5") g01, inout("r11") g23 => _, inout("r12") sums.wrapping_add(n) => _,
            out("r8") _, out("r9") _, out("r10") _, out("lr") _,
        );
    }
}

/// `acc[t, k] = Σ_o w[o, first + k] · g[t, o]` with `i16` weights; shapes as
/// [`generic`](crate::kernel::generic::transposed_i8).
pub fn transposed_i16(w: &[i16], inputs: usize, first: usize, g: &[i16], acc: &mut [i64]) {
    debug_assert!(aligned(acc.as_ptr()));
    each_token(w.len(), inputs, first, g, acc, |g, acc| {
        let columns = acc.len() & !1;
        let (body, tail) = acc.split_at_mut_checked(columns).unwrap_or((&mut [], &mut []));
        if !body.is_empty() {
            for four in fours(w, inputs, first, g) {
                // SAFETY: the columns `first .. first + body.len()` lie within every row; `body` has a positive even
                // length, and i64 is aligned to words.
                unsafe { add4_i16(&four, body.as_mut_ptr(), body.len()) };
            }
        }
        if let [a] = tail {
            let column = w.get(first + columns..).unwrap_or(&[]).iter().step_by(inputs);
            *a = column.zip(g).map(|(&w, &g)| i64::from(i32::from(w) * i32::from(g))).sum();
        }
    });
}

/// Adds four rows, times their factors, to `n` sums.
///
/// Registers: r0–r3 rows; r4 sums; r5 factors 0, 1; r6 factors 2, 3; r7:r8, r9:r10 two sums; r11, lr two weights each;
/// r12 columns left. Per 2 columns of 4 rows: 16 instructions, 28 cycles (2.0 and 3.5 a multiplication).
///
/// # Safety
/// Every row is readable for `n` values; `sums` is valid for `n`; `n` is positive and even.
#[inline]
unsafe fn add4_i16(four: &Four<i16>, sums: *mut i64, n: usize) {
    let [r0, r1, r2, r3] = four.rows;
    let [g01, g23] = four.factors;
    // SAFETY: the caller's contract; 2n bytes of each row are read and 8n of the sums updated. r6 and r7 are the
    // compiler's own and are put back.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "mov r6, r11",
            "2:",
            "ldmia r4, {{r7, r8, r9, r10}}",
            "ldr r11, [r0], #4",
            "ldr lr, [r1], #4",
            "smlalbb r7, r8, r11, r5",
            "smlaltb r9, r10, r11, r5",
            "smlalbt r7, r8, lr, r5",
            "smlaltt r9, r10, lr, r5",
            "ldr r11, [r2], #4",
            "ldr lr, [r3], #4",
            "smlalbb r7, r8, r11, r6",
            "smlaltb r9, r10, r11, r6",
            "smlalbt r7, r8, lr, r6",
            "smlaltt r9, r10, lr, r6",
            "stmia r4!, {{r7, r8, r9, r10}}",
            "subs r12, #2",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") r0 => _, inout("r1") r1 => _, inout("r2") r2 => _, inout("r3") r3 => _,
            inout("r4") sums => _, in("r5") g01, inout("r11") g23 => _, inout("r12") n => _,
            out("r8") _, out("r9") _, out("r10") _, out("lr") _,
        );
    }
}
