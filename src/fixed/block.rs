//! Block floating point: a vector of `i16` mantissas under one exponent, `value = mantissa · 2^exponent`.
//!
//! **Canonical form**: `|m| ≤ 32639` (so that `m = 256·h + l` splits into two signed bytes), `max|m| ≥ 2^14`;
//! an all-zero vector has mantissas 0 and exponent [`Exp::ZERO`]. [`requantize`] is the only way from exact
//! accumulators to a block, and always yields canonical form.
//!
//! Why: static activation scales need calibration data and fail in training, where gradients span many octaves.
//! An exponent found from the data needs neither; and 16 bits cost no more than 8 on a DSP core, which widens bytes
//! before it multiplies. (Exponents found from the data's bit width: NITI, arXiv:2009.13108.)

use super::rounding::{bit_length, narrow_half_even, shift_half_even};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The largest mantissa of a canonical block, 127·256 + 127.
pub const MANTISSA_MAX: i16 = 32639;

/// The smallest peak of a canonical block that is not zero.
pub const PEAK_MIN: i16 = 1 << 14;

/// A binary exponent: `value = mantissa · 2^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(transparent)]
pub struct Exp(pub i16);

impl Exp {
    /// The exponent of an all-zero block: the smallest there is.
    pub const ZERO: Exp = Exp(i16::MIN);

    /// From 32 bits; what lies outside is clamped to ±32767, far beyond any value a checked image can produce.
    #[inline]
    #[must_use]
    pub const fn saturating(e: i32) -> Exp {
        if e > i16::MAX as i32 {
            Exp(i16::MAX)
        } else if e <= i16::MIN as i32 {
            Exp(i16::MIN + 1)
        } else {
            Exp(e as i16)
        }
    }

    /// As `i32`, the type in which exponents are added.
    #[inline]
    #[must_use]
    pub const fn get(self) -> i32 {
        self.0 as i32
    }
}

/// One token vector: mantissas and their exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// `(width)`, canonical.
    pub mantissas: &'a [i16],
    /// Of all of them.
    pub exponent: Exp,
}

impl Block<'_> {
    /// Whether every mantissa is zero.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.exponent == Exp::ZERO
    }
}

/// One or more token vectors of one width, each under its own exponent: what every layer takes.
///
/// No exponent is shared between tokens, so that a token's bits do not depend on its neighbours.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// `(tokens, width)`, row-major.
    pub mantissas: &'a [i16],
    /// `(tokens)`.
    pub exponents: &'a [Exp],
}

impl<'a> Tile<'a> {
    /// The number of tokens.
    #[must_use]
    pub const fn tokens(&self) -> usize {
        self.exponents.len()
    }

    /// The token vectors, in order. `width` is `mantissas.len() / tokens`.
    pub fn blocks(&self) -> impl Iterator<Item = Block<'a>> + use<'a> {
        let width = (self.mantissas.len() / self.exponents.len().max(1)).max(1);
        self.mantissas
            .chunks_exact(width)
            .zip(self.exponents)
            .map(|(mantissas, &exponent)| Block { mantissas, exponent })
    }
}

/// A [`Tile`] to be written.
#[derive(Debug)]
pub struct TileMut<'a> {
    /// `(tokens, width)`, row-major.
    pub mantissas: &'a mut [i16],
    /// `(tokens)`.
    pub exponents: &'a mut [Exp],
}

impl<'a> TileMut<'a> {
    /// The token vectors to be written, in order.
    pub fn blocks_mut(&mut self) -> impl Iterator<Item = (&mut [i16], &mut Exp)> {
        let width = (self.mantissas.len() / self.exponents.len().max(1)).max(1);
        self.mantissas.chunks_exact_mut(width).zip(self.exponents.iter_mut())
    }

    /// The same tile, to be read.
    #[must_use]
    pub fn as_tile(&self) -> Tile<'_> {
        Tile { mantissas: self.mantissas, exponents: self.exponents }
    }

    /// The same tile, borrowed for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> TileMut<'_> {
        TileMut { mantissas: self.mantissas, exponents: self.exponents }
    }
}

/// Clamps to ±[`MANTISSA_MAX`].
#[inline]
#[must_use]
pub const fn clamp_mantissa(x: i32) -> i16 {
    if x > MANTISSA_MAX as i32 {
        MANTISSA_MAX
    } else if x < -(MANTISSA_MAX as i32) {
        -MANTISSA_MAX
    } else {
        x as i16
    }
}

/// The exponent that makes a canonical block of accumulators, and the shift that gets there.
///
/// `union` is the bitwise or of the accumulators' magnitudes: it has the bit length of the largest, and costs one
/// instruction per value instead of a compare.
#[inline]
#[must_use]
pub(crate) fn canonical_shift(union: u64, exponent: i32) -> Option<(i32, Exp)> {
    if union == 0 {
        return None;
    }
    let shift = bit_length(union) as i32 - 15;
    Some((shift, Exp::saturating(exponent.saturating_add(shift))))
}

/// From exact accumulators to a canonical block: the exponent is chosen from the largest, then each is rounded
/// half to even and clamped to ±[`MANTISSA_MAX`].
///
/// `values`: `(width)`, each `value = v · 2^exponent`, `|v| ≤ 2^62`. `out`: `(width)`.
/// Where `out` is shorter or longer than `values`, the shorter decides.
///
/// ```
/// use ranklet::fixed::block::{requantize, Exp};
/// let mut m = [0; 3];
/// assert_eq!(requantize(&[1 << 20, -3, 0], -20, &mut m), Exp(-14)); // 1.0, −3·2^-20, 0
/// assert_eq!(m, [1 << 14, 0, 0]);
/// ```
pub fn requantize(values: &[i64], exponent: i32, out: &mut [i16]) -> Exp {
    let union = values.iter().fold(0, |u, v| u | v.unsigned_abs());
    let Some((shift, exponent)) = canonical_shift(union, exponent) else {
        out.fill(0);
        return Exp::ZERO;
    };
    if shift >= 0 {
        // 16 bits are left, one more where a rounding carries.
        for (o, &v) in out.iter_mut().zip(values) {
            *o = clamp_mantissa(narrow_half_even(v, shift.unsigned_abs()));
        }
    } else {
        for (o, &v) in out.iter_mut().zip(values) {
            *o = clamp_mantissa((v as i32) << shift.unsigned_abs());
        }
    }
    exponent
}

/// Brings mantissas that lost their peak (a ReLU's backward mask) or never had one (a sensor's samples) back to
/// canonical form, in place. Exact, but for the clamp where the peak's leading bits are all ones (255 becomes
/// 254.99), and the lowest bit where a mantissa is −32768.
pub fn canonicalize(mantissas: &mut [i16], exponent: Exp) -> Exp {
    let union = mantissas.iter().fold(0, |u, m| u | u64::from(m.unsigned_abs()));
    let Some((shift, exponent)) = canonical_shift(union, exponent.get()) else {
        return Exp::ZERO;
    };
    for m in mantissas {
        *m = clamp_mantissa(shift_half_even(i64::from(*m), shift) as i32);
    }
    exponent
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_canonical(m: &[i16], e: Exp) -> bool {
        let peak = m.iter().map(|m| m.unsigned_abs()).max().unwrap_or(0);
        if peak == 0 { e == Exp::ZERO } else { (1 << 14..=32639).contains(&peak) }
    }

    proptest! {
        #[test]
        fn requantized_is_canonical_and_near(
            values in prop::collection::vec(-(1_i64 << 62)..=(1_i64 << 62), 1..40),
            scale in 0_u32..62,
            exponent in -1000_i32..1000,
        ) {
            let values: std::vec::Vec<i64> = values.iter().map(|v| v >> scale).collect();
            let mut m = std::vec![0; values.len()];
            let e = requantize(&values, exponent, &mut m);
            prop_assert!(is_canonical(&m, e));
            let peak = values.iter().map(|v| v.unsigned_abs()).max().unwrap() as f64;
            for (v, m) in values.iter().zip(&m) {
                let back = f64::from(*m) * f64::from(e.get() - exponent).exp2();
                // Half an LSB, or the clamp of the uppermost 1/256 of the range, whichever is larger.
                let bound = peak * (1.0 / 32768.0 + if m.unsigned_abs() == 32639 { 128.5 / 32768.0 } else { 0.0 });
                prop_assert!((back - *v as f64).abs() <= bound, "{v} became {back}");
            }
        }

        #[test]
        fn canonicalize_keeps_the_value(m in prop::collection::vec(-32639_i16..=32639, 1..20), e in -100_i16..100) {
            let mut n = m.clone();
            let f = canonicalize(&mut n, Exp(e));
            prop_assert!(is_canonical(&n, f));
            for (a, b) in m.iter().zip(&n) {
                let (a, b) = (f64::from(*a) * f64::from(e).exp2(), f64::from(*b) * f64::from(f.get()).exp2());
                prop_assert!(a == b || n.iter().any(|n| n.unsigned_abs() == 32639) && (a - b).abs() <= a.abs() / 255.0);
            }
        }
    }

    #[test]
    fn zero_has_one_form() {
        let mut m = [7_i16; 4];
        assert_eq!(requantize(&[0; 4], 3, &mut m), Exp::ZERO);
        assert_eq!(m, [0; 4]);
    }

    #[test]
    fn exponents_saturate() {
        let mut m = [0; 1];
        for value in [1, i64::MAX >> 1, -1] {
            assert_eq!(requantize(&[value], i32::MAX, &mut m), Exp(i16::MAX));
            assert_eq!(requantize(&[value], i32::MIN, &mut m), Exp(i16::MIN + 1));
        }
        assert_eq!(canonicalize(&mut [1], Exp(i16::MIN + 1)), Exp(i16::MIN + 1));
        assert_eq!(Exp::saturating(100_000), Exp(i16::MAX));
        assert_eq!(Exp::saturating(-100_000), Exp(i16::MIN + 1));
    }
}
