//! Exact sums of terms that carry different exponents.
//!
//! `W x`, the bias and every adapter's `B (A x)` come under exponents of their own. They meet here, in one row of
//! `i64` accumulators under one exponent, and are requantized together: a term below one LSB of the output still
//! counts. The row moves to a smaller exponent (exactly) when a finer term arrives, as long as 62 bits hold everything;
//! beyond that the finest bits are rounded half to even, 2^-62 below the largest value the row could hold.

use super::rounding::shift_half_even;

/// Bits a row may use, sign excluded: one less than `i64` has, so that a half can be added when it is rounded.
const ROOM: i32 = 62;

/// Exponents beyond ±this are taken as this: sums of a few 16-bit exponents stay far below, and sums of these fit.
const LIMIT: i32 = 1 << 24;

/// A row of accumulators, `value = values[i] · 2^exponent`, `|values[i]| < 2^bits`.
#[derive(Debug)]
pub struct RowSum<'a> {
    values: &'a mut [i64],
    exponent: i32,
    bits: i32,
}

/// How a term joins the row: `value = term · 2^-shift` at the row's exponent.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    shift: i32,
}

impl Joined {
    /// The term at the row's exponent; half to even where it has to be shortened.
    #[inline]
    #[must_use]
    pub const fn align(self, term: i64) -> i64 {
        shift_half_even(term, self.shift)
    }
}

impl<'a> RowSum<'a> {
    /// A row that already holds its first term: `|values[i]| < 2^bits` (`bits ≤ 63`).
    #[must_use]
    pub fn new(values: &'a mut [i64], exponent: i32, bits: u32) -> RowSum<'a> {
        let exponent = exponent.clamp(-LIMIT, LIMIT);
        let mut row = RowSum { values, exponent, bits: bits as i32 };
        if row.bits > ROOM {
            row.move_to(exponent + row.bits - ROOM);
        }
        row
    }

    /// Makes room for terms `t · 2^exponent`, `|t| < 2^bits` (`bits ≤ 63`), and tells how they join.
    pub fn join(&mut self, exponent: i32, bits: u32) -> Joined {
        let exponent = exponent.clamp(-LIMIT, LIMIT);
        let finest = self.exponent.min(exponent);
        let top = (self.exponent + self.bits).max(exponent + bits as i32) + 1;
        let common = finest.max(top - ROOM);
        self.move_to(common);
        self.bits = top - common;
        Joined { shift: common - exponent }
    }

    fn move_to(&mut self, exponent: i32) {
        let shift = exponent - self.exponent;
        if shift != 0 {
            for v in self.values.iter_mut() {
                *v = shift_half_even(*v, shift);
            }
            self.exponent = exponent;
            self.bits = (self.bits - shift).max(0) + i32::from(shift > 0);
        }
    }

    /// The accumulators, to add aligned terms to.
    pub fn values_mut(&mut self) -> &mut [i64] {
        self.values
    }

    /// The row as it stands: accumulators and their exponent.
    #[must_use]
    pub fn finish(self) -> (&'a mut [i64], i32) {
        (self.values, self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    proptest! {
        #[test]
        fn sums_are_exact_while_they_fit(
            a in -(1_i64 << 30)..(1_i64 << 30), b in -(1_i64 << 30)..(1_i64 << 30), c in -(1_i64 << 20)..(1_i64 << 20),
            eb in -15_i32..15, ec in -15_i32..15,
        ) {
            let mut values = vec![a];
            let mut row = RowSum::new(&mut values, 0, 31);
            for (term, e, bits) in [(b, eb, 31), (c, ec, 21)] {
                let joined = row.join(e, bits);
                row.values_mut()[0] += joined.align(term);
            }
            let (v, e) = row.finish();
            let at = |x: i64, e: i32| i128::from(x) << (e + 64);
            prop_assert_eq!(at(v[0], e), at(a, 0) + at(b, eb) + at(c, ec));
        }

        /// Any exponents: no argument panics, overflow checks on.
        #[test]
        fn rows_are_total(a in any::<i64>(), b in any::<i64>(), ea in any::<i32>(), eb in any::<i32>(), edge in 0_usize..4) {
            let edges = [i32::MIN, i32::MAX, 0, ea];
            let mut values = vec![a];
            let mut row = RowSum::new(&mut values, edges[edge], 63);
            for e in [eb, edges[edge], i32::MAX, i32::MIN] {
                let joined = row.join(e, 63);
                row.values_mut()[0] += joined.align(b);
            }
            let (v, e) = row.finish();
            prop_assert!(v[0].unsigned_abs() <= 1 << 62 && e.abs() <= (1 << 24) + 70);
        }

        #[test]
        fn sums_are_near_when_they_do_not(a in any::<i32>(), b in any::<i64>(), e in -200_i32..200) {
            let b = b >> 1;
            let mut values = vec![i64::from(a)];
            let mut row = RowSum::new(&mut values, 0, 32);
            let joined = row.join(e, 63);
            row.values_mut()[0] += joined.align(b);
            let (v, f) = row.finish();
            let (got, expected) = (v[0] as f64 * f64::from(f).exp2(), f64::from(a) + b as f64 * f64::from(e).exp2());
            let top = f64::from(32).exp2().max(f64::from(e + 63).exp2());
            prop_assert!((got - expected).abs() <= top * f64::from(-50).exp2(), "{} {}", got, expected);
        }
    }
}
