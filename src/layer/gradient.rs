//! Where dA and dB accumulate: `i32` values under one sticky exponent per tensor.
//!
//! Sums across tokens add vectors of different exponents. The token's exponent is folded into the small factor (the
//! rank vector, rounded once to 16 bits at the tile's common exponent); then a tile's sum is exact, is rounded
//! once, and joins the accumulator. Tiles have a fixed length, [`TILE`], counted from the first token of a call, and meet
//! in ascending order: that order is part of the contract, because it decides the bits. So who splits a sample's tokens
//! over calls splits at multiples of it.

use crate::fixed::rounding::{ceil_log2, shift_right_half_even};
use crate::fixed::{Exp, Tile};
use crate::kernel::active;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Tokens whose rank-one updates are summed exactly before they are rounded.
pub const TILE: usize = 8;

/// Exponents of tiles beyond ±this are taken as this: sums of a few 16-bit exponents stay far below.
const LIMIT: i32 = 1 << 24;

/// The state of an accumulator beside its values: `value = v · 2^exponent`, `|v| ≤ bound`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GradScale {
    exponent: i32,
    /// A proven bound on every magnitude; 0 while the accumulator is empty.
    bound: u32,
}

impl GradScale {
    /// The state of an empty accumulator.
    pub const EMPTY: GradScale = GradScale { exponent: 0, bound: 0 };

    /// Of every value.
    #[must_use]
    pub const fn exponent(&self) -> i32 {
        self.exponent
    }

    /// Whether nothing but zeros has been added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bound == 0
    }

    /// What no magnitude is above.
    #[cfg(feature = "train")]
    pub(crate) const fn bound(&self) -> u32 {
        self.bound
    }

    /// Whether an accumulator can be in this state.
    #[cfg(feature = "train")]
    pub(crate) const fn is_sound(&self) -> bool {
        self.bound <= 1 << 31 && self.exponent >= -2 * LIMIT && self.exponent <= 2 * LIMIT
    }

    /// Bits that every magnitude fits in.
    #[must_use]
    pub const fn bits(&self) -> u32 {
        u32::BITS - self.bound.leading_zeros()
    }
}

/// A gradient accumulator.
#[derive(Debug)]
pub struct Gradient<'a> {
    /// As the parameter's.
    pub values: &'a mut [i32],
    /// Its exponent and bound.
    pub scale: &'a mut GradScale,
}

impl Gradient<'_> {
    /// Adds `Σ_t left[t] ⊗ right[t] · 2^exponent`: a tile of at most [`TILE`] tokens whose products share an exponent.
    ///
    /// `left`: `(tokens, rows)`, `right`: `(tokens, columns)`, values `(rows, columns)`. Rounding: half to even, once,
    /// to 29 bits below the tile's largest possible product or to the accumulator's exponent, whichever is coarser.
    pub fn add_tile(&mut self, left: &[i16], right: &[i16], tokens: usize, exponent: i32) {
        // Σ_t |l·r| ≤ tokens · 2^30; moved down to 2^29.
        let down = ceil_log2(tokens) + 1;
        let natural = exponent.clamp(-LIMIT, LIMIT) + down as i32;
        if self.scale.is_empty() {
            self.scale.exponent = natural;
        } else if natural > self.scale.exponent {
            self.rescale((natural - self.scale.exponent).unsigned_abs());
        }
        let below = |s: &GradScale| (s.exponent - natural).unsigned_abs();
        let tile_bound = |s: &GradScale| ((1_u64 << 29) >> below(s).min(32)) as u32 + 1;
        while u64::from(self.scale.bound) + u64::from(tile_bound(self.scale)) > i32::MAX as u64 {
            self.rescale(1);
        }
        let shift = down + below(self.scale);
        if shift < 63 {
            active::outer_i16(left, right, tokens, shift, self.values);
        }
        self.scale.bound += tile_bound(self.scale);
    }

    /// Moves every value to an exponent larger by `by`, half to even.
    fn rescale(&mut self, by: u32) {
        for v in self.values.iter_mut() {
            *v = shift_right_half_even(i64::from(*v), by) as i32;
        }
        self.scale.exponent += by as i32;
        // Rounding can add at most one half; an accumulator that was not empty stays so.
        self.scale.bound = (u64::from(self.scale.bound) >> by.min(40)) as u32 + 1;
    }
}

/// Folds the exponents of a tile, and a factor, into its small vectors, so that all tokens' products share one
/// exponent; returns that exponent, or `None` where all products are zero.
///
/// `small`: `(tokens, rank)` under `small_exponents`; `other`: the exponents of the vectors that it will be multiplied
/// with; `factor`: 16-bit mantissa and exponent. `out`: `(tokens, rank)`. Half to even.
pub fn fold(small: Tile<'_>, other: &[Exp], factor: (i32, i32), out: &mut [i16]) -> Option<i32> {
    let (mantissa, factor_exponent) = factor;
    let live = |s: Exp, o: Exp| (s != Exp::ZERO && o != Exp::ZERO).then(|| s.get() + o.get());
    let common = small.exponents.iter().zip(other).filter_map(|(&s, &o)| live(s, o)).max()?;
    if mantissa == 0 {
        return None;
    }
    // |m| · |factor| ≤ 2^15 · 2^16. A factor of exactly 2^15 (any power of two) loses nothing.
    let down = if mantissa.unsigned_abs() > 1 << 15 { 16 } else { 15 };
    let width = small.mantissas.len() / small.tokens().max(1);
    let tokens = small.blocks().zip(other).zip(out.chunks_exact_mut(width.max(1)));
    for ((block, &o), out) in tokens {
        match live(block.exponent, o) {
            None => out.fill(0),
            Some(e) => {
                let shift = down + (common - e).unsigned_abs().min(63);
                for (out, &m) in out.iter_mut().zip(block.mantissas) {
                    *out = shift_right_half_even(i64::from(m) * i64::from(mantissa), shift) as i16;
                }
            }
        }
    }
    Some((common + down as i32).saturating_add(factor_exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    proptest! {
        /// Tiles of any exponents, in any order, sum to the true sum within the stated rounding.
        #[test]
        fn accumulates_what_it_is_given(
            tiles in prop::collection::vec((-30_i32..30, prop::collection::vec(-32639_i16..=32639, 6), prop::collection::vec(-32639_i16..=32639, 4)), 1..60)
        ) {
            let mut values = vec![0; 6];
            let mut scale = GradScale::EMPTY;
            let mut truth = vec![0.0_f64; 6];
            let mut largest = 0.0_f64;
            for (e, left, right) in &tiles {
                // Two tokens: rows 3, columns 2.
                let mut g = Gradient { values: &mut values, scale: &mut scale };
                g.add_tile(left, right, 2, *e);
                for i in 0..3 {
                    for j in 0..2 {
                        let sum: f64 = (0..2).map(|t| f64::from(left[t * 3 + i]) * f64::from(right[t * 2 + j])).sum();
                        truth[i * 2 + j] += sum * f64::from(*e).exp2();
                    }
                }
                largest = largest.max(f64::from(*e + 31).exp2());
            }
            let got: Vec<f64> = values.iter().map(|&v| f64::from(v) * f64::from(scale.exponent()).exp2()).collect();
            // Each of ≤ 60 tiles rounds to at most 2^-29 of the largest possible tile, times the growth of ≤ 2^6.
            let bound = largest * 60.0 * f64::from(-23).exp2();
            for (g, t) in got.iter().zip(&truth) {
                prop_assert!((g - t).abs() <= bound, "{g} {t} {bound}");
            }
        }

        #[test]
        fn fold_keeps_products(m in prop::collection::vec(-32639_i16..=32639, 4), es in -20_i16..20, eo in -20_i16..20, f in (1_i32 << 15)..=(1 << 16)) {
            let small = Tile { mantissas: &m, exponents: &[Exp(es), Exp(0)] };
            let mut out = [0; 4];
            let e = fold(small, &[Exp(eo), Exp(0)], (f, -15), &mut out).unwrap();
            for i in 0..4 {
                let token = if i < 2 { es + eo } else { 0 };
                let want = f64::from(m[i]) * f64::from(f) * f64::from(token - 15).exp2();
                let got = f64::from(out[i]) * f64::from(e).exp2();
                prop_assert!((want - got).abs() <= 0.5 * f64::from(e).exp2());
            }
        }
    }

    #[test]
    fn extreme_exponents_are_total() {
        let (mut values, mut scale) = (vec![0; 1], GradScale::EMPTY);
        for e in [0, i32::MIN, i32::MAX, -1, i32::MIN, i32::MAX] {
            Gradient { values: &mut values, scale: &mut scale }.add_tile(&[i16::MIN], &[i16::MIN], 1, e);
        }
        // Two tiles at the largest exponent there is; the others are nothing beside them.
        assert_eq!(i64::from(values[0]) << (scale.exponent() - (1 << 24)), 2 << 30);
        for f in [i32::MIN, i32::MAX] {
            let small = Tile { mantissas: &[1], exponents: &[Exp(i16::MAX)] };
            assert!(fold(small, &[Exp(i16::MAX)], (1 << 15, f), &mut [0]).is_some());
        }
    }

    #[test]
    fn small_gradients_do_not_underflow() {
        // Exponents far below anything f32 can hold, then a thousand equal tiles: nothing is lost.
        let (mut values, mut scale) = (vec![0; 1], GradScale::EMPTY);
        for _ in 0..1000 {
            Gradient { values: &mut values, scale: &mut scale }.add_tile(&[16384], &[16384], 1, -400);
        }
        assert_eq!(f64::from(values[0]) * f64::from(scale.exponent() + 400).exp2(), 1000.0 * f64::from(1 << 28));
    }
}
