//! `W x` with `i16` weights: A and B of an adapter, mostly.
//!
//! Two products of 2^30 overflow 32 bits, so that every pair goes to 64 (SMLALD): four registers of sums for two rows,
//! and no fold.

use super::{aligned, load_aligned, load_unaligned};
use core::arch::asm;

/// `acc[t, o] = Σ_k w[o, k] · x[t, k]` with `i16` weights; shapes as [`generic`](crate::kernel::generic::product_i16).
pub fn product_i16(w: &[i16], inputs: usize, x: &[i16], acc: &mut [i64]) {
    let rows = w.len().checked_div(inputs).unwrap_or(0);
    if inputs == 0 || rows == 0 {
        return acc.fill(0);
    }
    // Whole rows alone: below, a chunk of more than one row is one of two.
    let w = w.get(..rows * inputs).unwrap_or(w);
    let in_pairs = aligned(w.as_ptr()) && aligned(x.as_ptr()) && inputs.is_multiple_of(2);
    for (x, acc) in x.chunks_exact(inputs).zip(acc.chunks_exact_mut(rows)) {
        match inputs {
            // SAFETY: `w` holds acc.len() = rows rows of 8 (or 4), `x` one, all aligned; rows > 0.
            8 if in_pairs => unsafe { rows_of_8(w.as_ptr(), x.as_ptr(), acc.as_mut_ptr(), acc.len()) },
            // SAFETY: as above.
            4 if in_pairs => unsafe { rows_of_4(w.as_ptr(), x.as_ptr(), acc.as_mut_ptr(), acc.len()) },
            _ => long_rows(w, inputs, x, acc, if in_pairs { dot2_aligned } else { dot2_unaligned }),
        }
    }
}

/// Two dot products: of the rows at the first two pointers with the third, over so many columns.
type Dot2 = unsafe fn(*const i16, *const i16, *const i16, usize) -> (i64, i64);

#[inline]
fn long_rows(w: &[i16], inputs: usize, x: &[i16], acc: &mut [i64], dot: Dot2) {
    let fours = inputs & !3;
    let tail = x.get(fours..).unwrap_or(&[]);
    for (rows, acc) in w.chunks(2 * inputs).zip(acc.chunks_mut(2)) {
        // The last row of an odd number is computed twice.
        let second = if rows.len() == inputs { 0 } else { inputs };
        let a = rows.as_ptr();
        // SAFETY: both rows and x have `inputs ≥ fours` columns; `dot` was chosen by their alignment.
        let (mut sum_a, mut sum_b) = unsafe { dot(a, a.wrapping_add(second), x.as_ptr(), fours) };
        for (k, &x) in (fours..).zip(tail) {
            let at = |k: usize| i64::from(i32::from(rows.get(k).copied().unwrap_or(0)) * i32::from(x));
            sum_a += at(k);
            sum_b += at(k + second);
        }
        match acc {
            [a, b] => (*a, *b) = (sum_a, sum_b),
            [a] => *a = sum_a,
            _ => {}
        }
    }
}

/// Four columns of two rows: 7 instructions, 13 cycles for 8 multiplications.
macro_rules! four_columns {
    ($load:ident) => {
        concat!(
            $load!("r4", "r5", "r0"),
            "\n",
            $load!("r12", "lr", "r1"),
            "
            smlald r8, r9, r12, r4
            smlald r8, r9, lr, r5
            ",
            $load!("r12", "lr", "r2"),
            "
            smlald r10, r11, r12, r4
            smlald r10, r11, lr, r5
            "
        )
    };
}

macro_rules! dot2 {
    ($name:ident, $load:ident) => {
        /// `Σ a x` and `Σ b x` over `n` columns.
        ///
        /// Registers: r0 x; r1, r2 rows a, b; r3 columns left; r4, r5 four values of x; r8:r9, r10:r11 sums; r12, lr four
        /// weights. Per 16 columns of two rows: 30 instructions, 55 cycles (0.94 and 1.72 a multiplication).
        ///
        /// # Safety
        /// `a`, `b` and `x` are readable for `n` values and aligned as the load needs it; `n` is a multiple of 4.
        unsafe fn $name(a: *const i16, b: *const i16, x: *const i16, n: usize) -> (i64, i64) {
            let (a0, a1, b0, b1): (u32, i32, u32, i32);
            // SAFETY: the caller's contract; reads 2n bytes of each.
            unsafe {
                asm!(
                    "subs r3, #16",
                    "blo 3f",
                    "2:",
                    four_columns!($load),
                    four_columns!($load),
                    four_columns!($load),
                    four_columns!($load),
                    "subs r3, #16",
                    "bhs 2b",
                    "3:",
                    "adds r3, #12",
                    "bmi 5f",
                    "4:",
                    four_columns!($load),
                    "subs r3, #4",
                    "bpl 4b",
                    "5:",
                    inout("r0") x => _, inout("r1") a => _, inout("r2") b => _, inout("r3") n => _,
                    out("r4") _, out("r5") _,
                    inout("r8") 0 => a0, inout("r9") 0 => a1, inout("r10") 0 => b0, inout("r11") 0 => b1,
                    out("r12") _, out("lr") _,
                    options(nostack, readonly),
                );
            }
            (i64::from(a1) << 32 | i64::from(a0), i64::from(b1) << 32 | i64::from(b0))
        }
    };
}

dot2!(dot2_aligned, load_aligned);
dot2!(dot2_unaligned, load_unaligned);

/// Rows of eight (B of a rank-8 adapter): x stays in registers.
///
/// Registers: w, acc, n as named; r2–r5 x; r8–r11 a row; r12:lr its sum. A row: 10 instructions, 18 cycles (1.25 and
/// 2.25 a multiplication).
///
/// # Safety
/// `w` is readable for 8 · `n` values and aligned, `x` for 8; `acc` is writable for `n`; `n > 0`.
unsafe fn rows_of_8(w: *const i16, x: *const i16, acc: *mut i64, n: usize) {
    // SAFETY: the caller's contract; 16 bytes of w are read and 8 of acc written n times. r6 and r7 are the compiler's
    // own and are put back.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "ldmia r3, {{r3, r4, r5, r6}}",
            "2:",
            "ldmia r0!, {{r7, r8, r9, r10}}",
            "smull r12, lr, r2, r2", // r2 = 0: clears both at once
            "smlald r12, lr, r7, r3",
            "smlald r12, lr, r8, r4",
            "smlald r12, lr, r9, r5",
            "smlald r12, lr, r10, r6",
            "strd r12, lr, [r1], #8",
            "subs r11, #1",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") w => _, inout("r1") acc => _, in("r2") 0, inout("r3") x => _, inout("r11") n => _,
            out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _, out("r12") _, out("lr") _,
        );
    }
}

/// Rows of four (B of a rank-4 adapter): as [`rows_of_8`]. A row: 7 instructions, 13 cycles.
///
/// # Safety
/// `w` is readable for 4 · `n` values and aligned, `x` for 4; `acc` is writable for `n`; `n > 0`.
unsafe fn rows_of_4(w: *const i16, x: *const i16, acc: *mut i64, n: usize) {
    // SAFETY: the caller's contract; 8 bytes of w are read and 8 of acc written n times.
    unsafe {
        asm!(
            "ldrd r3, r4, [r3]",
            "2:",
            "ldrd r8, r9, [r0], #8",
            "smull r12, lr, r2, r2", // r2 = 0: clears both at once
            "smlald r12, lr, r8, r3",
            "smlald r12, lr, r9, r4",
            "strd r12, lr, [r1], #8",
            "subs r11, #1",
            "bne 2b",
            inout("r0") w => _, inout("r1") acc => _, in("r2") 0, inout("r3") x => _, inout("r11") n => _,
            out("r4") _, out("r8") _, out("r9") _, out("r12") _, out("lr") _,
            options(nostack),
        );
    }
}
