//! `W x` with `i8` weights.
//!
//! SXTB16 widens bytes 0 and 2 of a word, with a rotation bytes 1 and 3; x has its pairs as (0, 1), (2, 3). One of the
//! two has to be shuffled. One token: x, once for all rows. A tile: the weights, once for all tokens; there they
//! are widened as well, and the inner loop is left with loads and SMLAD.

use super::{aligned, load_aligned, load_unaligned};
use core::arch::asm;
use core::mem::MaybeUninit;

/// Columns in the buffer of one token's kernel (512 bytes).
const GEMV_COLUMNS: usize = 256;

/// Columns in the buffer of a tile's kernel: two rows, widened (768 bytes).
const TILE_COLUMNS: usize = 192;

/// Tokens from which the tile's kernel pays: widening a weight costs 1.75 instructions, and saves 0.5 a token.
const TILE_TOKENS: usize = 4;

/// Where a token's sums start. 512 · 128 · 2^15 = 2^31 would be one too many; the least sum is −512 · 128 · (2^15 − 1) =
/// −2^31 + 2^16. So one less makes all of them fit, and is given back when the sum is widened.
const START: i32 = -1;

/// `acc[t, o] = Σ_k w[o, k] · x[t, k]` with `i8` weights; shapes as [`generic`](crate::kernel::generic::product_i8).
pub fn product_i8(w: &[i8], inputs: usize, x: &[i16], acc: &mut [i64]) {
    let rows = w.len().checked_div(inputs).unwrap_or(0);
    if inputs == 0 || rows == 0 {
        return acc.fill(0);
    }
    // Whole rows alone: below, a chunk of more than one row is one of two.
    let w = w.get(..rows * inputs).unwrap_or(w);
    if x.len() / inputs < TILE_TOKENS {
        for (x, acc) in x.chunks_exact(inputs).zip(acc.chunks_exact_mut(rows)) {
            one_token(w, inputs, x, acc);
        }
    } else {
        tile(w, inputs, rows, x, acc);
    }
}

/// `w`: `(rows, inputs)`, exactly; `x`: `(inputs)`; `acc`: `(rows)`.
fn one_token(w: &[i8], inputs: usize, x: &[i16], acc: &mut [i64]) {
    let mut shuffled = [MaybeUninit::<u32>::uninit(); GEMV_COLUMNS / 2];
    let in_pairs = aligned(w.as_ptr()) && inputs.is_multiple_of(4);
    let dot = if in_pairs { dot2_aligned } else { dot2_unaligned };
    for (n, x) in x.chunks(GEMV_COLUMNS).enumerate() {
        let first = n * GEMV_COLUMNS;
        let fours = x.len() & !3;
        let (body, tail) = x.split_at_checked(fours).unwrap_or((x, &[]));
        if !body.is_empty() {
            // SAFETY: `body` has a multiple of 4 values, at least 4, and the buffer has room for GEMV_COLUMNS of them.
            unsafe { shuffle(body.as_ptr(), shuffled.as_mut_ptr().cast(), body.len()) };
        }
        let (mut w, mut acc) = (w, &mut *acc);
        if fours == inputs {
            // The usual layer: no tail, no other chunk. Sums go where they belong.
            let pairs = acc.len() / 2;
            for (rows, acc) in w.chunks_exact(2 * inputs).zip(acc.chunks_exact_mut(2)) {
                let a = rows.as_ptr();
                // SAFETY: as below, with two whole rows and two sums.
                unsafe { dot(shuffled.as_ptr().cast(), a, a.wrapping_add(inputs), inputs, acc.as_mut_ptr()) };
            }
            w = w.get(pairs * 2 * inputs..).unwrap_or(&[]);
            acc = acc.get_mut(pairs * 2..).unwrap_or(&mut []);
        }
        for (rows, acc) in w.chunks(2 * inputs).zip(acc.chunks_mut(2)) {
            // The last row of an odd number is computed twice.
            let second = if rows.len() == inputs { 0 } else { inputs };
            let a = rows.as_ptr().wrapping_add(first);
            let b = a.wrapping_add(second);
            let mut sums = [0; 2];
            // SAFETY: columns `first .. first + body.len()` lie within both rows; the buffer holds body.len() shuffled
            // values; `dot` was chosen by the alignment of the first row and the distance of rows (and `first` is a
            // multiple of 4); there is room for two sums.
            unsafe { dot(shuffled.as_ptr().cast(), a, b, fours, sums.as_mut_ptr()) };
            for (k, &x) in (first + fours..).zip(tail) {
                let at = |k: usize| i32::from(rows.get(k).copied().unwrap_or(0)) * i32::from(x);
                let terms = [at(k), at(k + second)];
                sums.iter_mut().zip(terms).for_each(|(s, t)| *s += i64::from(t));
            }
            for (acc, sum) in acc.iter_mut().zip(sums) {
                *acc = if n == 0 { sum } else { *acc + sum };
            }
        }
    }
}

/// From (0, 1), (2, 3) to (0, 2), (1, 3), in every four values.
///
/// Per 4 values: 7 instructions, 10 cycles.
///
/// # Safety
/// `x` is readable and `out` writable (and aligned) for `n` values; `n` is a positive multiple of 4.
unsafe fn shuffle(x: *const i16, out: *mut u32, n: usize) {
    // SAFETY: the caller's contract; the loop reads and writes n/4 times 8 bytes.
    unsafe {
        asm!(
            "2:",
            "ldr {a}, [{x}], #4",
            "ldr {b}, [{x}], #4",
            "pkhbt {c}, {a}, {b}, lsl #16",
            "pkhtb {b}, {b}, {a}, asr #16",
            "strd {c}, {b}, [{out}], #8",
            "subs {n}, {n}, #4",
            "bne 2b",
            x = inout(reg) x => _, out = inout(reg) out => _, n = inout(reg) n => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _,
            options(nostack),
        );
    }
}

/// Eight columns of two rows: 19 instructions, 27 cycles for 16 multiplications; with [`load_unaligned`] 21.
macro_rules! eight_columns {
    ($load:ident) => {
        concat!(
            "ldmia r0!, {{r4, r5, r6, r7}}\n",
            $load!("r10", "r11", "r1"),
            "
            sxtb16 r12, r10
            smlad  r8, r12, r4, r8
            sxtb16 r10, r10, ror #8
            smlad  r8, r10, r5, r8
            sxtb16 r12, r11
            smlad  r8, r12, r6, r8
            sxtb16 r11, r11, ror #8
            smlad  r8, r11, r7, r8
            ",
            $load!("r10", "r11", "r2"),
            "
            sxtb16 r12, r10
            smlad  r9, r12, r4, r9
            sxtb16 r10, r10, ror #8
            smlad  r9, r10, r5, r9
            sxtb16 r12, r11
            smlad  r9, r12, r6, r9
            sxtb16 r11, r11, ror #8
            smlad  r9, r11, r7, r9
            "
        )
    };
}

macro_rules! dot2 {
    ($name:ident, $load:ident) => {
        /// `out = [Σ a x, Σ b x]` over `n` columns.
        ///
        /// Registers: r0 x; r1, r2 rows a, b; r3 columns left; r4–r7 eight shuffled values of x; r8, r9 sums;
        /// r10, r11 four weights each; r12 two of them, widened. Per 32 columns of two rows: 78 instructions, 112 cycles
        /// (1.22 and 1.75 a multiplication); with LDR 1.34. Not inlined: it needs all registers, and a call saves them
        /// in one instruction.
        ///
        /// # Safety
        /// `a` and `b` are readable for `n` values and aligned as the load needs it; `x` holds `n` shuffled values,
        /// aligned; `n` is a multiple of 4, at most 512; `out` is writable for 2.
        #[inline(never)]
        unsafe fn $name(x: *const u32, a: *const i8, b: *const i8, n: usize, out: *mut i64) {
            // SAFETY: the caller's contract; reads n bytes of a and b and 2n of x, writes 16 of out. r6 and r7 are the
            // compiler's own and are put back.
            unsafe {
                asm!(
                    "push {{r6, r7, lr}}",
                    "subs r3, #32",
                    "blo 3f",
                    "2:",
                    eight_columns!($load),
                    eight_columns!($load),
                    eight_columns!($load),
                    eight_columns!($load),
                    "subs r3, #32",
                    "bhs 2b",
                    "3:",
                    "adds r3, #28",
                    "bmi 5f",
                    // Four columns: 12 instructions, 18 cycles for 8 multiplications.
                    "4:",
                    "ldrd r4, r5, [r0], #8",
                    "ldr r10, [r1], #4",
                    "ldr r11, [r2], #4",
                    "sxtb16 r12, r10",
                    "smlad r8, r12, r4, r8",
                    "sxtb16 r10, r10, ror #8",
                    "smlad r8, r10, r5, r8",
                    "sxtb16 r12, r11",
                    "smlad r9, r12, r4, r9",
                    "sxtb16 r11, r11, ror #8",
                    "smlad r9, r11, r5, r9",
                    "subs r3, #4",
                    "bpl 4b",
                    "5:",
                    "pop {{r6, r7, lr}}",
                    // To 64 bits, and START taken back.
                    "asrs r4, r8, #31",
                    "asrs r5, r9, #31",
                    "adds r8, r8, #1",
                    "adc r4, r4, #0",
                    "adds r9, r9, #1",
                    "adc r5, r5, #0",
                    "strd r8, r4, [lr]",
                    "strd r9, r5, [lr, #8]",
                    inout("r0") x => _, inout("r1") a => _, inout("r2") b => _, inout("r3") n => _,
                    out("r4") _, out("r5") _,
                    inout("r8") START => _, inout("r9") START => _,
                    out("r10") _, out("r11") _, out("r12") _, in("lr") out,
                );
            }
        }
    };
}

dot2!(dot2_aligned, load_aligned);
dot2!(dot2_unaligned, load_unaligned);

/// `w`: `(rows, inputs)`, exactly; `x`: `(tokens, inputs)`; `acc`: `(tokens, rows)`.
fn tile(w: &[i8], inputs: usize, rows: usize, x: &[i16], acc: &mut [i64]) {
    let mut wide = [MaybeUninit::<u32>::uninit(); TILE_COLUMNS];
    let in_pairs = aligned(x.as_ptr()) && inputs.is_multiple_of(2);
    let dot = if in_pairs { dot2x2_aligned } else { dot2x2_unaligned };
    for (row, two) in w.chunks(2 * inputs).enumerate() {
        let row = 2 * row;
        // The last row of an odd number is computed twice; so is the last token.
        let second = if two.len() == inputs { 0 } else { inputs };
        for first in (0..inputs).step_by(TILE_COLUMNS) {
            let columns = (inputs - first).min(TILE_COLUMNS);
            let fours = columns & !3;
            let a = two.as_ptr().wrapping_add(first);
            if fours > 0 {
                // SAFETY: columns `first .. first + fours` lie within both rows; the buffer has room for TILE_COLUMNS
                // values of each; `fours` is a positive multiple of 4.
                unsafe { widen(a, a.wrapping_add(second), wide.as_mut_ptr().cast(), fours) };
            }
            let (mut x, mut acc) = (x, &mut *acc);
            if fours == inputs && second != 0 {
                // The usual layer: no tail, no other chunk. Sums go where they belong.
                let pairs = (x.len() / (2 * inputs)).min(acc.len() / (2 * rows));
                for (x, acc) in x.chunks_exact(2 * inputs).zip(acc.chunks_exact_mut(2 * rows)) {
                    let (x, out) = (x.as_ptr(), acc.as_mut_ptr().wrapping_add(row));
                    // SAFETY: as below, with two whole tokens; `row + 1 < rows`, so that both tokens have room for both sums.
                    unsafe {
                        dot(wide.as_ptr().cast(), x, x.wrapping_add(inputs), fours, [out, out.wrapping_add(rows)])
                    };
                }
                x = x.get(pairs * 2 * inputs..).unwrap_or(&[]);
                acc = acc.get_mut(pairs * 2 * rows..).unwrap_or(&mut []);
            }
            for (x, acc) in x.chunks(2 * inputs).zip(acc.chunks_mut(2 * rows)) {
                if x.len() < inputs || acc.len() < rows {
                    break;
                }
                let (x2, acc2) = if x.len() < 2 * inputs || acc.len() < 2 * rows { (0, 0) } else { (inputs, rows) };
                let p = x.as_ptr().wrapping_add(first);
                let mut sums = [[0; 2]; 2];
                let outs = sums.each_mut().map(|s| s.as_mut_ptr());
                // SAFETY: columns `first .. first + fours` lie within both tokens; the buffer holds `fours` columns of
                // both rows; `dot` was chosen by the alignment of the first token and the distance of tokens; `sums` has
                // room for two sums of each.
                unsafe { dot(wide.as_ptr().cast(), p, p.wrapping_add(x2), fours, outs) };
                for k in first + fours..first + columns {
                    let w = [two.get(k), two.get(k + second)].map(|w| i32::from(w.copied().unwrap_or(0)));
                    for (sums, x) in sums.iter_mut().zip([x.get(k), x.get(k + x2)]) {
                        let x = i32::from(x.copied().unwrap_or(0));
                        sums.iter_mut().zip(w).for_each(|(s, w)| *s += i64::from(w * x));
                    }
                }
                // What was computed twice is added once.
                let (rows_here, tokens_here) = (if second == 0 { 1 } else { 2 }, if x2 == 0 { 1 } else { 2 });
                for (token, sums) in sums.iter().take(tokens_here).enumerate() {
                    let acc = acc.get_mut(token * acc2 + row..).unwrap_or(&mut []);
                    for (acc, &sum) in acc.iter_mut().zip(sums).take(rows_here) {
                        *acc = if first == 0 { sum } else { *acc + sum };
                    }
                }
            }
        }
    }
}

/// Two rows of bytes to 16 bits, interleaved: a(0,1), b(0,1), a(2,3), b(2,3), and so on.
///
/// Per 4 columns of two rows: 13 instructions, 20 cycles.
///
/// # Safety
/// `a` and `b` are readable for `n` values; `out` is writable (and aligned) for 2 · `n` of 16 bits; `n` is a positive
/// multiple of 4.
unsafe fn widen(a: *const i8, b: *const i8, out: *mut u32, n: usize) {
    // SAFETY: the caller's contract; n/4 times 4 bytes of a and b are read, 16 written.
    unsafe {
        asm!(
            "2:",
            "ldr {a0}, [{a}], #4",
            "ldr {b0}, [{b}], #4",
            "sxtb16 {t}, {a0}",                     // 0, 2
            "sxtb16 {a0}, {a0}, ror #8",            // 1, 3
            "pkhbt r4, {t}, {a0}, lsl #16",         // 0, 1
            "pkhtb r8, {a0}, {t}, asr #16",         // 2, 3
            "sxtb16 {t}, {b0}",
            "sxtb16 {b0}, {b0}, ror #8",
            "pkhbt r5, {t}, {b0}, lsl #16",
            "pkhtb r9, {b0}, {t}, asr #16",
            "stmia {out}!, {{r4, r5, r8, r9}}",
            "subs {n}, {n}, #4",
            "bne 2b",
            a = inout(reg) a => _, b = inout(reg) b => _, out = inout(reg) out => _, n = inout(reg) n => _,
            a0 = out(reg) _, b0 = out(reg) _, t = out(reg) _,
            out("r4") _, out("r5") _, out("r8") _, out("r9") _,
            options(nostack),
        );
    }
}

/// Four columns of two rows and two tokens: 11 instructions, 19 cycles for 16 multiplications.
macro_rules! four_columns {
    ($load:ident) => {
        concat!(
            "ldmia r0!, {{r4, r5, r6, r7}}\n",
            $load!("r12", "lr", "r1"),
            "
            smlad r8, r4, r12, r8
            smlad r9, r5, r12, r9
            smlad r8, r6, lr, r8
            smlad r9, r7, lr, r9
            ",
            $load!("r12", "lr", "r2"),
            "
            smlad r10, r4, r12, r10
            smlad r11, r5, r12, r11
            smlad r10, r6, lr, r10
            smlad r11, r7, lr, r11
            "
        )
    };
}

macro_rules! dot2x2 {
    ($name:ident, $load:ident) => {
        /// `outs = [[Σ a x, Σ b x], [Σ a y, Σ b y]]` over `n` columns.
        ///
        /// Registers: r0 widened weights; r1, r2 tokens x, y; r3 columns left; r4–r7 weights a, b, a, b; r8–r11 sums;
        /// r12, lr four values of a token. Per 16 columns: 46 instructions, 79 cycles (0.72 and 1.23 a multiplication);
        /// with LDR 0.84.
        ///
        /// # Safety
        /// `w` holds `n` columns of two rows as [`widen`] writes them; `x` and `y` are readable for `n` values and
        /// aligned as the load needs it; `n` is a multiple of 4, at most 508; each of `outs` is writable for 2.
        #[inline(never)]
        unsafe fn $name(w: *const u32, x: *const i16, y: *const i16, n: usize, outs: [*mut i64; 2]) {
            let [x_out, y_out] = outs;
            // SAFETY: the caller's contract; reads 4n bytes of w and 2n of x and y, writes 16 of each output. r6 and r7
            // are the compiler's own and are put back.
            unsafe {
                asm!(
                    "push {{r6, r7, r12, lr}}",
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
                    "pop {{r6, r7, r12, lr}}",
                    "asrs r0, r8, #31",
                    "asrs r1, r9, #31",
                    "asrs r2, r10, #31",
                    "asrs r3, r11, #31",
                    "strd r10, r2, [lr]",
                    "strd r11, r3, [lr, #8]",
                    "strd r8, r0, [r12]",
                    "strd r9, r1, [r12, #8]",
                    inout("r0") w => _, inout("r1") x => _, inout("r2") y => _, inout("r3") n => _,
                    out("r4") _, out("r5") _,
                    inout("r8") 0 => _, inout("r9") 0 => _, inout("r10") 0 => _, inout("r11") 0 => _,
                    in("r12") x_out, in("lr") y_out,
                );
            }
        }
    };
}

dot2x2!(dot2x2_aligned, load_aligned);
dot2x2!(dot2x2_unaligned, load_unaligned);
