//! Numbers: everything the floors above compute with.
//!
//! | file | what it holds |
//! |---|---|
//! | [`rounding`] | the named roundings; nothing else in the crate drops a bit |
//! | [`block`] | block floating point: `i16` mantissas under one exponent ([`Block`], [`Tile`]) |
//! | [`byte`] | blocks of bytes, for what is kept long |
//! | [`real`] | [`Real`], a 31-bit scalar for hyper-parameters, scalings and losses |
//! | [`row_sum`] | exact sums of terms that carry different exponents |
//! | [`wide_sum`] | exact sums of products that fill 62 bits |
//! | [`hash`] | randomness without a generator: a hash of (seed, step, site, index) |
//! | [`exp2`], [`log2`], [`reciprocal`], [`rsqrt`], [`sigmoid`], [`tanh`], [`normal`], [`cossin`] | nonlinear functions, each with its worst error stated and asserted |
//!
//! `docs/numerics.md` argues for the whole; each file argues for itself.

pub mod block;
pub mod byte;
pub mod cossin;
pub mod exp2;
pub mod hash;
pub mod log2;
pub mod normal;
pub mod real;
pub mod reciprocal;
pub mod rounding;
pub mod row_sum;
pub mod rsqrt;
pub mod sigmoid;
pub mod tanh;
pub mod wide_sum;

pub use block::{Block, Exp, Tile, TileMut};
pub use real::Real;

/// How this version computes: counts up with every change that gives other bits from the same numbers. What was computed by another one, and
/// kept, is not taken up.
#[cfg(all(feature = "train", feature = "store"))]
pub(crate) const ARITHMETIC: u32 = 1;

/// The stride of a test that sweeps a whole domain: `quick`, or 1 where the environment asks for everything
/// (`cargo xtask test --exhaustive`: minutes, in release).
#[cfg(test)]
pub(crate) fn stride(quick: usize) -> usize {
    if std::env::var_os("RANKLET_EXHAUSTIVE").is_some() { 1 } else { quick }
}
