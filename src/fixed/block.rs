//! Block floating point: a vector of `i16` mantissas under one exponent, `value = mantissa · 2^exponent`.
//!
//! **Canonical form**: `|m| ≤ 32639` (so that `m = 256·h + l` splits into two signed bytes), under the smallest exponent
//! at which the *rounded* peak fits, so that `max|m| ≥ 16320`; an all-zero vector has mantissas 0 and exponent
//! [`Exp::ZERO`]. Every vector has one canonical form. [`requantize`] is the only way from exact accumulators to a block,
//! and always yields it, rounding every value half to even, once: the error is at most half an LSB, 2^-15 of the peak.
//!
//! Why: static activation scales need calibration data and fail in training, where gradients span many octaves.
//! An exponent found from the data needs neither; and 16 bits cost no more than 8 on a DSP core, which widens bytes
//! before it multiplies. (Exponents found from the data's bit width: NITI, arXiv:2009.13108.)

use super::rounding::{bit_length, narrow_half_even, shift_half_even};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The largest mantissa of a canonical block, 127·256 + 127.
pub const MANTISSA_MAX: i16 = 32639;

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

    /// The same tile, borrowed for a shorter time.
    #[must_use]
    pub fn reborrow(&mut self) -> TileMut<'_> {
        TileMut { mantissas: self.mantissas, exponents: self.exponents }
    }

    /// The same tile, to be read.
    #[must_use]
    pub fn as_tile(&self) -> Tile<'_> {
        Tile { mantissas: self.mantissas, exponents: self.exponents }
    }
}

/// Bits of a mantissa, sign excluded.
const BITS: i32 = 15;

/// From exact accumulators to a canonical block, rounded half to even.
///
/// `values`: `(width)`, each `value = v · 2^exponent`, `|v| ≤ 2^62`. `out`: `(width)`.
/// Where `out` is shorter or longer than `values`, the shorter decides.
///
/// ```
/// use ranklet::fixed::block::{requantize, Exp};
/// let mut m = [0; 3];
/// assert_eq!(requantize(&[1 << 20, -3, 0], -20, &mut m), Exp(-14)); // 1.0, −3·2^-20, 0
/// assert_eq!(m, [1 << 14, 0, 0]);
/// assert_eq!(requantize(&[255, -1, 0], 0, &mut m), Exp(-6)); // 32640 would be one too many, so 16320 · 2^-6
/// assert_eq!(m, [16320, -64, 0]);
/// ```
pub fn requantize(values: &[i64], exponent: i32, out: &mut [i16]) -> Exp {
    block_of(values, exponent, out)
}

/// As [`requantize`], from 32-bit values.
pub fn requantize_i32(values: &[i32], exponent: i32, out: &mut [i16]) -> Exp {
    block_of(values, exponent, out)
}

#[inline]
fn block_of<T: Copy + Into<i64>>(values: &[T], exponent: i32, out: &mut [i16]) -> Exp {
    // The union of the magnitudes has the bit length of the largest, and costs one instruction a value instead of a
    // compare.
    let union = values.iter().fold(0, |u, &v| u | v.into().unsigned_abs());
    if union == 0 {
        out.fill(0);
        return Exp::ZERO;
    }
    let mut shift = bit_length(union) as i32 - BITS;
    if !round_to(values, shift, out) {
        // One block in 180: the peak's leading bits are (nearly) all ones. From the accumulators again, not from what
        // has been rounded already.
        shift += 1;
        round_to(values, shift, out);
    }
    Exp::saturating(exponent.saturating_add(shift))
}

/// `v · 2^-shift` of each, half to even; tells whether all are within ±[`MANTISSA_MAX`]. Requires results of 17 bits.
#[inline]
fn round_to<T: Copy + Into<i64>>(values: &[T], shift: i32, out: &mut [i16]) -> bool {
    const MAX: i32 = MANTISSA_MAX as i32;
    let mut beyond = false;
    let mut put = |o: &mut i16, m: i32| {
        beyond |= (m + MAX) as u32 > 2 * MAX as u32;
        *o = m as i16;
    };
    let right = shift.unsigned_abs();
    if shift >= 0 {
        out.iter_mut().zip(values).for_each(|(o, &v)| put(o, narrow_half_even(v.into(), right)));
    } else {
        out.iter_mut().zip(values).for_each(|(o, &v)| put(o, (v.into() as i32) << right));
    }
    !beyond
}

/// Brings mantissas that lost their peak (a ReLU's backward mask) or never had one (a sensor's samples) back to
/// canonical form, in place. Exact where they are within ±[`MANTISSA_MAX`]; beyond it, half to even.
pub fn canonicalize(mantissas: &mut [i16], exponent: Exp) -> Exp {
    let peak = mantissas.iter().fold(0, |p, m| p.max(m.unsigned_abs()));
    if peak == 0 {
        return Exp::ZERO;
    }
    let mut shift = bit_length(u64::from(peak)) as i32 - BITS;
    if shift_half_even(i64::from(peak), shift) > i64::from(MANTISSA_MAX) {
        shift += 1;
    }
    for m in mantissas {
        *m = shift_half_even(i64::from(*m), shift) as i16;
    }
    Exp::saturating(exponent.get() + shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_canonical(m: &[i16], e: Exp) -> bool {
        let peak = m.iter().map(|m| m.unsigned_abs()).max().unwrap_or(0);
        if peak == 0 { e == Exp::ZERO } else { (16320..=32639).contains(&peak) }
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
            // Half to even, once, at the smallest exponent at which the peak fits.
            let shift = e.get() - exponent;
            let rounded = |v: i64, shift: i32| shift_half_even(v, shift);
            for (&v, &m) in values.iter().zip(&m) {
                prop_assert!(e == Exp::ZERO || rounded(v, shift) == i64::from(m), "{v} became {m} · 2^{shift}");
            }
            let fits = |shift: i32| values.iter().all(|&v| rounded(v, shift).abs() <= 32639);
            prop_assert!(e == Exp::ZERO || !fits(shift - 1));
        }

        /// Peaks about the border: 32639.5 LSB and its neighbours at every shift.
        #[test]
        fn the_border_is_met(up in 1_u32..46, off in -3_i64..=3, second in -32640_i64..=32640, negative in any::<bool>()) {
            let peak = (65279_i64 << up) + off; // (32639 + 1/2) · 2^(up + 1)
            let values = [if negative { -peak } else { peak }, second << up];
            let mut m = [0; 2];
            let e = requantize(&values, 0, &mut m);
            prop_assert!(is_canonical(&m, e));
            let fits = off < 0; // a tie goes to 32640
            prop_assert_eq!(e.get(), up as i32 + 1 + i32::from(!fits));
            prop_assert_eq!(m[0].unsigned_abs(), if fits { 32639 } else { 16320 });
        }

        #[test]
        fn widths_agree(values in prop::collection::vec(any::<i32>().prop_map(|v| v.max(-i32::MAX)), 1..20), s in 0_u32..31, e in -100..100) {
            let values: std::vec::Vec<i32> = values.iter().map(|v| v >> s).collect();
            let wide: std::vec::Vec<i64> = values.iter().map(|&v| i64::from(v)).collect();
            let (mut a, mut b) = (std::vec![0; values.len()], std::vec![0; values.len()]);
            prop_assert_eq!(requantize_i32(&values, e, &mut a), requantize(&wide, e, &mut b));
            prop_assert_eq!(a, b);
        }

        #[test]
        fn canonicalize_keeps_the_value(m in prop::collection::vec(any::<i16>(), 1..20), s in 0_u32..15, e in -100_i16..100) {
            let m: std::vec::Vec<i16> = m.iter().map(|m| m >> s).collect();
            let mut n = m.clone();
            let f = canonicalize(&mut n, Exp(e));
            prop_assert!(is_canonical(&n, f));
            // Exact but where the peak is beyond 32639; and what requantize would make of it.
            let error = if m.iter().all(|m| m.unsigned_abs() <= 32639) { 0.0 } else { 1.0 };
            for (a, b) in m.iter().zip(&n) {
                let (a, b) = (f64::from(*a), f64::from(*b) * f64::from(f.get() - i32::from(e)).exp2());
                prop_assert!(f == Exp::ZERO || (a - b).abs() <= error);
            }
            let wide: std::vec::Vec<i64> = m.iter().map(|&m| i64::from(m)).collect();
            let mut direct = std::vec![0; m.len()];
            prop_assert_eq!(requantize(&wide, e.into(), &mut direct), f);
            prop_assert_eq!(direct, n);
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
