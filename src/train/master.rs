//! The parameters: 32-bit masters in two 16-bit planes, `master = high · 65536 + low`.
//!
//! The low plane is **signed**, so that the high plane is the *rounded* master (half up), and a kernel that reads the
//! high plane alone computes with the nearest 16-bit value. One exponent a tensor: `value = master · 2^exponent`,
//! kept so that `2^29 ≤ max|master| < 2^30`. Why 32 bits: written back in 8 or 16, updates below one LSB are lost or,
//! floored, pull the parameters to zero.

use crate::fixed::rounding::{bit_length, shift_half_even, shift_right_half_even};
use crate::fixed::{Exp, Real};
use core::ops::Range;

/// Bits of a normalized peak: `2^29 ≤ max|master| < 2^30`.
const PEAK_BITS: i32 = 30;

/// Exponents of masters are within ±this, as those of an image.
const MAX_EXPONENT: i32 = 1024;

/// One tensor of parameters.
#[derive(Debug)]
pub struct Master<'a> {
    /// The rounded upper halves: what the kernels read.
    pub high: &'a mut [i16],
    /// The signed lower halves.
    pub low: &'a mut [i16],
    /// Of the masters; [`Exp::ZERO`] where all are zero.
    pub exponent: &'a mut i16,
}

/// Both halves of a master. Requires `|master| < 2^31 − 2^15`.
#[inline]
#[must_use]
pub const fn split(master: i32) -> (i16, i16) {
    let high = (master.wrapping_add(0x8000)) >> 16;
    (high as i16, master.wrapping_sub(high << 16) as i16)
}

/// The master of two halves.
#[inline]
#[must_use]
pub const fn join(high: i16, low: i16) -> i32 {
    ((high as i32) << 16).wrapping_add(low as i32)
}

impl Master<'_> {
    /// The masters, in order.
    pub fn values(&self) -> impl Iterator<Item = i32> {
        self.part(0..self.high.len())
    }

    /// The masters of a range, in order; none of one that reaches beyond them.
    pub fn part(&self, range: Range<usize>) -> impl Iterator<Item = i32> {
        let (high, low) = (self.high.get(range.clone()).unwrap_or(&[]), self.low.get(range).unwrap_or(&[]));
        high.iter().zip(low).map(|(&h, &l)| join(h, l))
    }

    /// Replaces all masters by `values · 2^exponent`, normalized; half to even where bits are dropped. What would need an
    /// exponent below −1024 becomes 0, what would need one above 1024 gets that.
    pub fn set(&mut self, values: &[i32], exponent: i32) {
        self.set_by(exponent, |i| values.get(i).copied().unwrap_or(0));
    }

    /// The same with values that are told by their index, as often as they are asked for.
    pub fn set_by(&mut self, exponent: i32, value: impl Fn(usize) -> i32) {
        let values = || (0..self.high.len()).map(&value);
        let union = values().fold(0_u64, |u, v| u | u64::from(v.unsigned_abs()));
        let peak = values().map(i32::unsigned_abs).max().unwrap_or(0);
        // Far below anything a sum could notice; and what an image may not hold.
        let peak_exponent = exponent.saturating_add(bit_length(union) as i32 - PEAK_BITS);
        if union == 0 || peak_exponent < -MAX_EXPONENT {
            self.high.fill(0);
            self.low.fill(0);
            *self.exponent = Exp::ZERO.0;
            return;
        }
        let mut shift = bit_length(union) as i32 - PEAK_BITS;
        // Rounding may carry the peak to 2^30 exactly: one more.
        if shift > 0 && shift_half_even(i64::from(peak), shift) >> PEAK_BITS != 0 {
            shift += 1;
        }
        for (i, (h, l)) in self.high.iter_mut().zip(self.low.iter_mut()).enumerate() {
            (*h, *l) = split(shift_half_even(i64::from(value(i)), shift) as i32);
        }
        *self.exponent = Exp::saturating(exponent.saturating_add(shift).min(MAX_EXPONENT)).0;
    }

    /// The exponent at which masters that were multiplied by at most 1 and moved by at most `bound` fit 30 bits, for
    /// [`moved`](Master::moved).
    #[must_use]
    pub fn common(&self, bound: Real) -> i32 {
        // bound < 2^(e + 31) and must stay below 2^29 at the common exponent; masters are below 2^30.
        let current = i32::from(*self.exponent);
        match (bound.is_zero(), *self.exponent == Exp::ZERO.0) {
            (false, false) => current.max(bound.exponent() + 2),
            (false, true) => bound.exponent() + 2,
            (true, _) => current,
        }
    }

    /// `buffer[i] ← master[i] · decay − delta(i, buffer[i])` at exponent `common`, for the elements of a range; the masters
    /// stay. To be followed by [`set`](Master::set).
    ///
    /// Rounding: half to even, the decay and the delta once each; a delta beyond the bound that `common` was told saturates.
    pub fn moved(
        &self,
        buffer: &mut [i32],
        range: Range<usize>,
        decay: Real,
        common: i32,
        mut delta: impl FnMut(usize, i32) -> Real,
    ) {
        let down = (common - i32::from(*self.exponent) - decay.exponent()).clamp(0, 63) as u32;
        let buffer = buffer.get_mut(range.clone()).unwrap_or(&mut []);
        for ((i, b), master) in range.clone().zip(buffer).zip(self.part(range)) {
            // |master · decay mantissa| < 2^30 · 2^31.
            let kept = shift_right_half_even(i64::from(master) * i64::from(decay.mantissa()), down) as i32;
            *b = kept.saturating_sub(delta(i, *b).to_q(-common));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn value(m: &Master<'_>, i: usize) -> f64 {
        f64::from(join(m.high[i], m.low[i])) * f64::from(*m.exponent).exp2()
    }

    fn update(m: &mut Master<'_>, buffer: &mut [i32], bound: Real, delta: Real) {
        let common = m.common(bound);
        m.moved(buffer, 0..buffer.len(), Real::ONE, common, |_, _| delta);
        m.set(buffer, common);
    }

    proptest! {
        #[test]
        fn halves_join(m in -(1 << 30)..(1 << 30)) {
            let (h, l) = split(m);
            prop_assert_eq!(join(h, l), m);
            // The high plane is the rounded master.
            prop_assert!((i64::from(h) * 65536 - i64::from(m)).abs() <= 32768);
        }

        #[test]
        fn set_normalizes(values in prop::collection::vec(any::<i32>().prop_map(|v| v.max(-i32::MAX)), 1..20), e in -50_i32..50) {
            let (mut h, mut l, mut x) = (vec![0; values.len()], vec![0; values.len()], 0);
            let mut m = Master { high: &mut h, low: &mut l, exponent: &mut x };
            m.set(&values, e);
            let peak = m.values().map(|v| v.unsigned_abs()).max().unwrap();
            prop_assert!(peak == 0 || (1 << 29..1 << 30).contains(&peak), "{}", peak);
            for (i, v) in values.iter().enumerate() {
                let want = f64::from(*v) * f64::from(e).exp2();
                prop_assert!((value(&m, i) - want).abs() <= f64::from(*m.exponent - 1).exp2());
            }
        }

        #[test]
        fn update_subtracts(values in prop::collection::vec(-(1 << 30)..(1 << 30), 4), d in -1000_i32..1000, de in -40_i32..10, e in -40_i32..0) {
            let (mut h, mut l, mut x) = (vec![0; 4], vec![0; 4], 0);
            let mut m = Master { high: &mut h, low: &mut l, exponent: &mut x };
            m.set(&values, e);
            let before: vec::Vec<f64> = (0..4).map(|i| value(&m, i)).collect();
            let delta = Real::new(i64::from(d), de);
            let mut buffer = vec![0; 4];
            update(&mut m, &mut buffer, delta.abs(), delta);
            let top = before.iter().fold(0.0_f64, |a, b| a.max(b.abs())).max((f64::from(d) * f64::from(de).exp2()).abs());
            for (i, b) in before.iter().enumerate() {
                let want = b - f64::from(d) * f64::from(de).exp2();
                prop_assert!((value(&m, i) - want).abs() <= top * f64::from(-27).exp2(), "{} {}", value(&m, i), want);
            }
        }
    }

    #[test]
    fn extreme_exponents_are_total() {
        let (mut h, mut l, mut x) = (vec![0; 2], vec![0; 2], 0);
        for (exponent, expected) in [(i32::MAX, MAX_EXPONENT as i16), (i32::MIN, Exp::ZERO.0)] {
            Master { high: &mut h, low: &mut l, exponent: &mut x }.set(&[i32::MAX, 1], exponent);
            assert_eq!(x, expected);
        }
    }

    #[test]
    fn zero_mean_updates_do_not_drift() {
        // An 8-bit master with floored writes falls from 100 to 0 here; this one must stay.
        let (mut h, mut l, mut x) = (vec![0; 1], vec![0; 1], 0);
        let mut m = Master { high: &mut h, low: &mut l, exponent: &mut x };
        m.set(&[100], 0);
        for i in 0..400 {
            let delta = Real::ratio(if i % 2 == 0 { 1 } else { -1 }, 11);
            update(&mut m, &mut [0], Real::ONE, delta);
        }
        assert!((value(&m, 0) - 100.0).abs() < 1e-5, "{}", value(&m, 0));
    }
}
