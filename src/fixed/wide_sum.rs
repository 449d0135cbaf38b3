//! Exact sums of products that fill 62 bits: the squares under a norm, and its backward's inner product.

use super::Real;

/// A sum of up to 2^31 products of at most 63 bits, held exactly in two words: `high · 2^32 + low`.
///
/// Four 32-bit additions a term: no more than a 64-bit sum of shortened terms costs with its shift, and nothing is
/// dropped.
///
/// ```
/// use ranklet::fixed::{Real, wide_sum::WideSum};
/// let mut sum = WideSum::ZERO;
/// for _ in 0..12 {
///     sum.add(1 << 62); // Two of them leave 63 bits.
/// }
/// assert_eq!(sum.to_real(-62), Real::int(12));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideSum {
    high: i64,
    low: u64,
}

impl WideSum {
    /// The empty sum.
    pub const ZERO: WideSum = WideSum { high: 0, low: 0 };

    /// Adds a product: |product| ≤ 2^62.
    #[inline]
    pub const fn add(&mut self, product: i64) {
        self.high += product >> 32; // Not a rounding: the rest is the low word.
        self.low += product as u32 as u64;
    }

    /// `sum · 2^exponent`, rounded half to even, once.
    #[must_use]
    pub const fn to_real(self, exponent: i32) -> Real {
        let high = self.high + (self.low >> 32) as i64;
        let low = self.low as u32;
        // As many bits of the low word as fit beside the high one's; of the others, whether there are any. The sticky
        // bit cannot be mistaken for a tie: 31 bits are kept of 63, or nothing falls off.
        let free = (high ^ (high >> 63)).leading_zeros() - 1;
        let left = if free < 32 { free } else { 32 };
        let taken = (low as u64) << left;
        let sticky = (taken as u32 != 0) as i64;
        Real::new((high << left) | (taken >> 32) as i64 | sticky, exponent.saturating_add(32 - left as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition: 31 bits of an `i128`, half to even.
    fn slow(x: i128) -> Real {
        let down = (128 - x.unsigned_abs().leading_zeros()).saturating_sub(31);
        let (floor, rest) = (x.unsigned_abs() >> down, x.unsigned_abs() & ((1 << down) - 1));
        let half = if down == 0 { 1 } else { 1 << (down - 1) };
        let magnitude = (floor + u128::from(rest > half || (rest == half && floor & 1 == 1))) as i64;
        Real::new(if x < 0 { -magnitude } else { magnitude }, down as i32)
    }

    fn of(x: i128) -> WideSum {
        WideSum { high: (x >> 32) as i64, low: u64::from(x as u32) }
    }

    proptest! {
        #[test]
        fn is_the_exact_sum(terms in prop::collection::vec(-(1_i64 << 62)..=(1_i64 << 62), 1..30), down in 0_u32..62) {
            let mut sum = WideSum::ZERO;
            let mut exact = 0;
            for t in terms.iter().map(|t| t >> down) {
                sum.add(t);
                exact += i128::from(t);
            }
            prop_assert_eq!(sum.to_real(0), slow(exact));
        }

        #[test]
        fn is_rounded_once(x in any::<i128>(), down in 34_u32..127, tie in any::<bool>(), off in -1_i128..=1) {
            let x = x >> down;
            prop_assert_eq!(of(x).to_real(-3), slow(x).scale(-3));
            // A tie at the 31st bit, and what lies beside it.
            let bits = 128 - x.unsigned_abs().leading_zeros();
            if tie && bits > 31 {
                let x = (x >> (bits - 31) << (bits - 31)) + (1 << (bits - 32)) + off;
                prop_assert_eq!(of(x).to_real(0), slow(x));
            }
        }
    }
}
