//! The optimizers' state: the first moment in 16-bit block floating point, the second in a 16-bit minifloat.
//!
//! A linear 16-bit second moment does not work (it diverges at step 2: the squares of small gradients vanish, and the
//! update divides by their root). The minifloat has 6 bits of exponent, so 63 octaves, and 10 of mantissa.
//! At β2 = 0.999 a step changes it by about one LSB, so it is rounded with a dither from the hash: unbiased, where
//! rounding to nearest would stand still.

use crate::fixed::rounding::{bit_length, shift_right_half_even};
use crate::fixed::{Exp, Real};
use crate::layer::gradient::GradScale;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What an optimizer keeps for one tensor beside its elements. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TensorState {
    /// Of the gradient accumulator.
    pub(crate) gradient: GradScale,
    /// Exponent of the first moment; [`Exp::ZERO`] while it is zero.
    pub(crate) first: i16,
    /// Exponent that is added to the minifloat's own; the smallest there is while nothing is stored.
    pub(crate) second: i16,
    /// Whether it stays as it is.
    frozen: u32,
}

impl TensorState {
    /// The state before the first step.
    pub const NEW: TensorState =
        TensorState { gradient: GradScale::EMPTY, first: Exp::ZERO.0, second: UNSET, frozen: 0 };

    /// Whether the tensor learns.
    pub(crate) const fn learns(&self) -> bool {
        self.frozen == 0
    }

    pub(crate) fn set_learns(&mut self, learns: bool) {
        self.frozen = u32::from(!learns);
    }

    /// Whether an optimizer can have left this.
    pub(crate) const fn is_sound(&self) -> bool {
        // Exponents are any: a moment that is given nothing for long falls without end, and saturates.
        self.frozen <= 1
    }

    /// The moments' exponents as before the first step; the gradient's stays.
    pub(crate) fn forget_moments(&mut self) {
        *self = TensorState { gradient: self.gradient, frozen: self.frozen, ..TensorState::NEW };
    }
}

const _: () = assert!(size_of::<TensorState>() == 16, "Plan::learn_bytes counts 16");

/// A term of a weighted sum: `factor · x · 2^exponent` with `|x| < 2^bits`.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    /// The weight, exponent of x folded in.
    pub factor: Real,
    /// Bits of x.
    pub bits: u32,
}

impl Term {
    /// Every product is below `2^top`.
    const fn top(&self) -> Option<i32> {
        if self.factor.is_zero() || self.bits == 0 {
            None
        } else {
            Some(self.factor.exponent() + 31 + self.bits as i32)
        }
    }

    /// `factor · x` at `exponent`, half to even; |x| ≤ 2^31.
    #[inline]
    fn at(&self, x: i32, exponent: i32) -> i64 {
        shift_right_half_even(
            i64::from(self.factor.mantissa()) * i64::from(x),
            exponent.saturating_sub(self.factor.exponent()).clamp(0, 63) as u32,
        )
    }
}

/// The exponent at which a weighted sum of up to three terms fits in 31 bits; `None` where all are zero.
#[must_use]
pub fn common_exponent(terms: &[Term]) -> Option<i32> {
    // Three terms below 2^29 each.
    terms.iter().filter_map(Term::top).max().map(|top| top - 29)
}

/// `Σ factor · x` of one element, at the exponent that [`common_exponent`] told.
#[inline]
#[must_use]
pub fn weighted(terms: &[Term; 3], x: [i32; 3], exponent: i32) -> i32 {
    let [a, b, c] = terms;
    let [xa, xb, xc] = x;
    let part = |t: &Term, x: i32| if t.bits == 0 { 0 } else { t.at(x, exponent) };
    let sum = part(a, xa) + part(b, xb) + part(c, xc);
    // Beyond 32 bits only at another exponent than the terms'.
    i32::try_from(sum).unwrap_or(if sum < 0 { -i32::MAX } else { i32::MAX })
}

/// The second moment of one tensor: `value = (1024 + mantissa) · 2^(field + offset)`; code 0 is 0.
#[derive(Debug)]
pub struct Second<'a> {
    /// One code an element: 6 bits of exponent field (1..=63), 10 of mantissa.
    pub codes: &'a mut [u16],
    /// Of all of them.
    pub offset: &'a mut i16,
}

/// The code of the smallest value above 0.
const SMALLEST: u16 = 1 << 10;

/// Where the field of the largest value is kept: room for a gradient 2^4 as large within one step, and 48 octaves below.
const LOWEST_TOP: u16 = 48;
const HIGHEST_TOP: u16 = 55;

/// The offset before the first value.
const UNSET: i16 = i16::MIN;

/// The field that the first value gets: 23 octaves above it, 39 below.
const FIRST_FIELD: i32 = 40;

impl Second<'_> {
    /// Element `i`.
    #[inline]
    #[must_use]
    pub fn get(&self, i: usize) -> Real {
        let code = self.codes.get(i).copied().unwrap_or(0);
        if code < 1024 {
            return Real::ZERO;
        }
        Real::new(i64::from((code & 1023) | 1024), i32::from(code >> 10) + i32::from(*self.offset))
    }

    /// Stores element `i`, a value of at least 0, rounded up or down with the probability of its distance:
    /// `random` is uniform over 32 bits. What is below the range becomes the smallest value of the range, never 0: too
    /// large a second moment makes an update smaller, 0 would make it as large as it can be. What is above moves the range.
    pub fn set(&mut self, i: usize, value: Real, random: u32) {
        if value.is_zero() || value.is_negative() {
            self.put(i, 0);
            return;
        }
        // 31 bits to 11.
        let dithered = value.mantissa().unsigned_abs() + (random & 0xF_FFFF);
        let carry = dithered >> 31;
        let mantissa = (dithered >> (20 + carry)) & 1023;
        let exponent = value.exponent() + 20 + carry as i32;
        if *self.offset == UNSET {
            *self.offset = Exp::saturating(exponent - FIRST_FIELD).0;
        }
        let field = exponent - i32::from(*self.offset);
        if field > 63 {
            self.raise((field - FIRST_FIELD) as u16);
        }
        let field = exponent - i32::from(*self.offset);
        self.put(i, if field < 1 { SMALLEST } else { ((field as u16) << 10) | mantissa as u16 });
    }

    fn put(&mut self, i: usize, code: u16) {
        if let Some(c) = self.codes.get_mut(i) {
            *c = code;
        }
    }

    /// Moves the range up by `by` octaves; what would fall below it becomes its smallest value.
    fn raise(&mut self, by: u16) {
        for c in self.codes.iter_mut().filter(|c| **c != 0) {
            *c = if *c >> 10 > by { *c - (by << 10) } else { SMALLEST };
        }
        *self.offset = Exp::saturating(i32::from(*self.offset) + i32::from(by)).0;
    }

    /// Moves the range so that its largest value lies near the top: after each step, because gradients shrink as a
    /// tensor learns, and a range that only rose would leave them below it.
    pub fn recentre(&mut self) {
        let top = self.codes.iter().copied().max().unwrap_or(0) >> 10;
        if top == 0 || (LOWEST_TOP..=HIGHEST_TOP).contains(&top) {
            return;
        }
        if top > HIGHEST_TOP {
            return self.raise(top - LOWEST_TOP);
        }
        let by = HIGHEST_TOP - top;
        for c in self.codes.iter_mut().filter(|c| **c != 0) {
            *c += by << 10;
        }
        *self.offset = Exp::saturating(i32::from(*self.offset) - i32::from(by)).0;
    }
}

/// The sum of squares of `values · 2^exponent`, to about 2^-20.
#[must_use]
pub fn sum_of_squares(values: &[i32], exponent: i32, bits: u32) -> Real {
    // 22 bits each, so that 2^20 squares fit in 64; a longer tensor would need 2^20 elements at the bound.
    let down = bits.saturating_sub(22);
    let mut sum = 0_u64;
    for &v in values {
        let v = shift_right_half_even(i64::from(v), down).unsigned_abs();
        sum = sum.saturating_add(v * v);
    }
    let excess = bit_length(sum).saturating_sub(62);
    Real::new(
        (sum >> excess) as i64,
        exponent.saturating_add(down as i32).saturating_mul(2).saturating_add(excess as i32),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::hash::{Purpose, Seed, Stream};

    fn f(x: Real) -> f64 {
        f64::from(x.mantissa()) * f64::from(x.exponent()).exp2()
    }

    #[test]
    fn the_minifloat_is_near_and_unbiased() {
        let stream = Stream::new(Seed(1), Purpose::Dither, 0, 0);
        let (mut codes, mut offset) = ([0_u16; 1], UNSET);
        let value = Real::ratio(1234567, 1000000);
        let mut sum = 0.0;
        for i in 0..100_000 {
            let mut s = Second { codes: &mut codes, offset: &mut offset };
            s.set(0, value, stream.at(i));
            let got = f(s.get(0));
            assert!((got / f(value) - 1.0).abs() < 1.0 / 1024.0);
            sum += got;
        }
        assert!((sum / 1e5 / f(value) - 1.0).abs() < 1e-5, "{}", sum / 1e5);
    }

    #[test]
    fn the_minifloat_moves_its_range() {
        let (mut codes, mut offset) = ([0_u16; 3], UNSET);
        let mut s = Second { codes: &mut codes, offset: &mut offset };
        s.set(0, Real::ONE, 0);
        s.set(1, Real::ONE.scale(-30), 0);
        s.set(2, Real::ONE.scale(40), 0);
        assert_eq!(s.get(2), Real::ONE.scale(40));
        // 40 octaves up, the others are at the bottom of the range: larger than they were, and never 0.
        assert!(f(s.get(0)) >= 1.0 && f(s.get(1)) >= f64::from(-30).exp2());
    }

    #[test]
    fn the_range_follows_what_shrinks() {
        let (mut codes, mut offset) = ([0_u16; 2], UNSET);
        let mut s = Second { codes: &mut codes, offset: &mut offset };
        for octave in 0..200 {
            s.set(0, Real::ONE.scale(-octave), 0);
            s.set(1, Real::ONE.scale(-octave - 20), 0);
            s.recentre();
            assert_eq!(s.get(0), Real::ONE.scale(-octave));
            assert_eq!(s.get(1), Real::ONE.scale(-octave - 20));
        }
    }

    #[test]
    fn decay_is_tracked() {
        // v ← 0.999 v, 3000 times: rounding to nearest would leave it where it was or lose 5 %.
        let stream = Stream::new(Seed(5), Purpose::Dither, 0, 0);
        let (mut codes, mut offset) = ([0_u16; 64], UNSET);
        let mut s = Second { codes: &mut codes, offset: &mut offset };
        let beta = Real::ratio(999, 1000);
        for i in 0..64 {
            s.set(i, Real::ONE, 0);
        }
        for step in 0..3000_u32 {
            for i in 0..64 {
                s.set(i, s.get(i).mul(beta), stream.at(step * 64 + i as u32));
            }
        }
        let mean = (0..64).map(|i| f(s.get(i))).sum::<f64>() / 64.0;
        assert!((mean / 0.999_f64.powi(3000) - 1.0).abs() < 0.02, "{mean}");
    }

    #[test]
    fn extreme_exponents_are_total() {
        for e in [i32::MIN, i32::MAX] {
            let _ = sum_of_squares(&[i32::MAX; 4], e, 31);
            let terms = [Term { factor: Real::ONE, bits: 31 }; 3];
            let _ = weighted(&terms, [0; 3], e);
        }
    }

    #[test]
    fn squares() {
        let v = [3 << 20, -4 << 20];
        assert_eq!(sum_of_squares(&v, -20, 23), Real::int(25));
    }
}
