//! The leaf for Arm cores with the DSP extension: Cortex-M4, M7, and M33 where it has it.
//!
//! One instruction, SMLAD, multiplies two pairs of 16-bit values and adds both products to 32 bits; SMLALD adds
//! them to 64. SXTB16 widens two bytes. What is left is to feed them, so every kernel here is a register block: a value
//! that was loaded (and widened) is used for two rows, two tokens, or four rows of a column, before it is dropped.
//!
//! | kernel | block | where overflow is stopped |
//! |---|---|---|
//! | [`bytes`], one token | 2 rows × 8 columns, x shuffled once into a buffer | 512 terms to an `i32` |
//! | [`bytes`], a tile | 2 rows × 2 tokens × 4 columns, weights widened once into a buffer | 256 terms to an `i32` |
//! | [`halves`] | 2 rows × 4 columns; whole rows where a row has 4 or 8 values | never: SMLALD |
//! | [`transposed`], bytes | 4 rows × 4 columns | 508 rows to an `i32` |
//! | [`transposed`], halves | 4 rows × 2 columns | never: SMLALxy |
//! | [`outer`] | 8 tokens of one row × a row of the gradient | never: SMLALD |
//!
//! Unaligned rows (an odd width, a buffer that begins at an odd element) are read by LDR, which these cores allow,
//! and never by LDRD or LDM, which fault; so each inner loop exists twice, and whole rows choose. Nothing here depends
//! on an FPU. Cycle counts beside the loops are by the Cortex-M4 TRM (r0p1, table 3-1: one for every multiplication and
//! data instruction, 1 + N for a load of N words), zero wait states; the taken branch costs 2 more.
//!
//! The assembler has to know the extension: `thumbv7em` targets do; for an M33, `thumbv8m.main` needs
//! `-C target-cpu=cortex-m33` (or `target-feature=+dsp`).
//!
//! The 4-bit kernels are generic's: their group scales leave nothing for two-way multiplications to gain.

#![allow(unsafe_code)]

mod bytes;
mod halves;
mod outer;
mod transposed;

pub use super::generic::{product_i4, transposed_i4};
pub use bytes::product_i8;
pub use halves::product_i16;
pub use outer::outer_i16;
pub use transposed::{transposed_i8, transposed_i16};

/// This leaf's name, as firmware prints it.
pub const NAME: &str = "arm-dsp";

/// Two words from an aligned pointer, which moves on: 3 cycles.
macro_rules! load_aligned {
    ($a:literal, $b:literal, $p:literal) => {
        concat!("ldrd ", $a, ", ", $b, ", [", $p, "], #8")
    };
}

/// Two words from any pointer, which moves on: 3 cycles where it happens to be aligned, up to 5 where not.
macro_rules! load_unaligned {
    ($a:literal, $b:literal, $p:literal) => {
        concat!("ldr ", $a, ", [", $p, "], #4\n ldr ", $b, ", [", $p, "], #4")
    };
}

use {load_aligned, load_unaligned};

/// Whether words can be loaded from `p` by LDRD and LDM.
fn aligned<T>(p: *const T) -> bool {
    p.addr() & 3 == 0
}
