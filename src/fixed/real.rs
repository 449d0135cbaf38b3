//! [`Real`]: one number with 31 bits of mantissa, for hyper-parameters, scalings, losses and the optimizer's inner
//! arithmetic: wherever a single value must neither overflow nor lose its low bits.
//!
//! It is a floating-point number in all but the hardware: integer instructions only, no NaN, no infinity, one zero,
//! and the same bits on every core. Every operation is total; what leaves the exponent's range saturates.

use super::reciprocal::reciprocal_q31;
use super::rounding::{bit_length, shift_half_even_saturating_i32, shift_right_half_even};
use super::rsqrt::rsqrt_q31;

/// `mantissa · 2^exponent`, normalized: `2^30 ≤ |mantissa| < 2^31`; zero is `(0, 0)`.
///
/// | operation | worst relative error |
/// |---|---|
/// | [`new`](Real::new), [`mul`](Real::mul), [`add`](Real::add), [`ratio`](Real::ratio) | 2^-31 (half to even) |
/// | [`div`](Real::div), [`sqrt`](Real::sqrt), [`rsqrt`](Real::rsqrt) | 2^-30 |
/// | [`powi`](Real::powi) | n · 2^-30 |
/// | [`to_parts_16`](Real::to_parts_16) | 2^-16 |
///
/// ```
/// use ranklet::fixed::Real;
/// let third = Real::ratio(1, 3);
/// assert_eq!(third.mul(Real::int(3)).to_q(8), 256); // 1.0 in Q8
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Real {
    mantissa: i32,
    exponent: i16,
}

#[allow(clippy::should_implement_trait)] // The names are those of the operations; `const fn` cannot come from a trait.
impl Real {
    /// 0.
    pub const ZERO: Real = Real { mantissa: 0, exponent: 0 };
    /// 1.
    pub const ONE: Real = Real { mantissa: 1 << 30, exponent: -30 };

    /// `mantissa · 2^exponent`, rounded half to even to 31 bits.
    ///
    /// Of the normalized number, an exponent above 2^14 becomes 2^14, and below −2^14 the number becomes 0 (no checked
    /// image and no hyper-parameter comes near).
    #[must_use]
    pub const fn new(mantissa: i64, exponent: i32) -> Real {
        let magnitude = mantissa.unsigned_abs();
        if magnitude == 0 {
            return Real::ZERO;
        }
        let negative = mantissa < 0;
        if magnitude <= i32::MAX as u64 {
            // Fits: exact, in 32-bit instructions.
            let left = (magnitude as u32).leading_zeros() - 1;
            return Real::limited(negative, (magnitude as u32) << left, exponent.saturating_sub(left as i32));
        }
        let left = magnitude.leading_zeros();
        Real::rounded(negative, magnitude << left, exponent.saturating_add(33 - left as i32))
    }

    /// The upper 31 bits of `n`, whose top bit is set, half to even; `exponent` is that of bit 33.
    #[inline]
    const fn rounded(negative: bool, n: u64, exponent: i32) -> Real {
        let upper = (n >> 33) as u32;
        let half = n >> 32 & 1 != 0;
        let beyond_half = n as u32 != 0;
        let m = upper + (half && (beyond_half || upper & 1 != 0)) as u32;
        // Rounded up to 2^31: exactly 2^30 one octave higher.
        let carry = (m >> 31) as i32;
        Real::limited(negative, m >> carry, exponent.saturating_add(carry))
    }

    /// A normalized mantissa and its sign; exponents beyond the limit become the limit, or zero.
    #[inline]
    const fn limited(negative: bool, m: u32, exponent: i32) -> Real {
        const LIMIT: i32 = 1 << 14;
        if exponent < -LIMIT {
            return Real::ZERO;
        }
        let e = if exponent > LIMIT { LIMIT } else { exponent };
        Real { mantissa: if negative { -(m as i32) } else { m as i32 }, exponent: e as i16 }
    }

    /// An integer.
    #[must_use]
    pub const fn int(x: i64) -> Real {
        Real::new(x, 0)
    }

    /// `numerator / denominator`, rounded half to even; 0 where the denominator is 0.
    #[must_use]
    pub const fn ratio(numerator: i32, denominator: u32) -> Real {
        if denominator == 0 || numerator == 0 {
            return Real::ZERO;
        }
        // The quotient of (n · 2^k) by d has at least 32 bits; a sticky bit keeps ties honest.
        let n = numerator.unsigned_abs() as u64;
        let k = n.leading_zeros() - 1;
        let scaled = n << k;
        let (q, r) = (scaled / denominator as u64, scaled % denominator as u64);
        // d < 2^32 and scaled ≥ 2^62, so q > 2^30: two more bits, one of them sticky.
        let (q2, r2) = ((r << 2) / denominator as u64, (r << 2) % denominator as u64);
        let (top, low) = if bit_length(q) > 61 { (q, k as i32) } else { ((q << 2) | q2, k as i32 + 2) };
        let sticky = (r2 != 0) as u64;
        let m = (top | sticky) as i64;
        Real::new(if numerator < 0 { -m } else { m }, -low)
    }

    /// From its two parts as they stand in an image; normalizes, so that any bytes make a valid number.
    #[must_use]
    pub const fn from_parts(mantissa: i32, exponent: i16) -> Real {
        Real::new(mantissa as i64, exponent as i32)
    }

    /// The mantissa, `2^30 ≤ |m| < 2^31`, or 0.
    #[must_use]
    pub const fn mantissa(self) -> i32 {
        self.mantissa
    }

    /// The exponent of the mantissa's lowest bit.
    #[must_use]
    pub const fn exponent(self) -> i32 {
        self.exponent as i32
    }

    /// Whether this is 0.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whether this is below 0.
    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// `-self`, exactly.
    #[must_use]
    pub const fn neg(self) -> Real {
        Real { mantissa: -self.mantissa, exponent: self.exponent }
    }

    /// `|self|`, exactly.
    #[must_use]
    pub const fn abs(self) -> Real {
        if self.mantissa < 0 { self.neg() } else { self }
    }

    /// `self · 2^n`, exactly, as far as the exponent's range goes.
    #[must_use]
    pub const fn scale(self, n: i32) -> Real {
        Real::new(self.mantissa as i64, self.exponent().saturating_add(n))
    }

    /// `self · other`, half to even.
    #[must_use]
    pub const fn mul(self, other: Real) -> Real {
        let product = self.mantissa as i64 * other.mantissa as i64;
        let magnitude = product.unsigned_abs();
        if magnitude == 0 {
            return Real::ZERO;
        }
        // 2^60 ≤ magnitude < 2^62: one bit is open.
        let left = 2 + (magnitude >> 61 == 0) as u32;
        let exponent = self.exponent() + other.exponent() + 33 - left as i32;
        Real::rounded(product < 0, magnitude << left, exponent)
    }

    /// `self · x`, half to even. Exact product of 31 by 31 bits, rounded once.
    #[must_use]
    pub const fn mul_int(self, x: i32) -> Real {
        Real::new(self.mantissa as i64 * x as i64, self.exponent())
    }

    /// `self + other`, half to even.
    #[must_use]
    pub const fn add(self, other: Real) -> Real {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let (big, small) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let apart = big.exponent() - small.exponent();
        // 31 bits moved up by 30 leave room for the carry; what is further away than that is less than half an LSB,
        // and reaches the sum as a sticky bit through the rounding of the smaller one.
        if apart > 40 {
            return big;
        }
        const UP: i32 = 30;
        let a = (big.mantissa as i64) << UP;
        let b = if apart <= UP {
            (small.mantissa as i64) << (UP - apart)
        } else {
            shift_right_half_even(small.mantissa as i64, (apart - UP) as u32)
        };
        Real::new(a + b, big.exponent() - UP)
    }

    /// `self - other`, half to even.
    #[must_use]
    pub const fn sub(self, other: Real) -> Real {
        self.add(other.neg())
    }

    /// `self / other` by a reciprocal, relative error at most 2^-30; 0 where `other` is 0.
    #[must_use]
    pub const fn div(self, other: Real) -> Real {
        if other.is_zero() {
            return Real::ZERO;
        }
        // |m| in [2^30, 2^31) moved to [2^31, 2^32); its reciprocal r = 2^63 / that, 2^31 < r ≤ 2^32.
        let r = reciprocal_q31(other.mantissa.unsigned_abs() << 1);
        self.times(r, self.exponent() - 62 - other.exponent(), (self.mantissa < 0) != (other.mantissa < 0))
    }

    /// `|mantissa| · r` for `2^31 ≤ r < 2^32`, under an exponent and a sign: rounded once.
    #[inline]
    const fn times(self, r: u32, exponent: i32, negative: bool) -> Real {
        let product = self.mantissa.unsigned_abs() as u64 * r as u64;
        if product == 0 {
            return Real::ZERO;
        }
        // 2^61 ≤ product < 2^63: one bit is open.
        let left = 1 + (product >> 62 == 0) as u32;
        Real::rounded(negative, product << left, exponent + 33 - left as i32)
    }

    /// `√self`, relative error at most 2^-30; 0 for what is not positive.
    #[must_use]
    pub const fn sqrt(self) -> Real {
        if self.mantissa <= 0 {
            return Real::ZERO;
        }
        let (r, exponent) = self.rsqrt_parts();
        self.times(r, self.exponent() + exponent, false)
    }

    /// `1 / √self`, relative error at most 2^-30; 0 for what is not positive.
    #[must_use]
    pub const fn rsqrt(self) -> Real {
        if self.mantissa <= 0 {
            return Real::ZERO;
        }
        let (r, exponent) = self.rsqrt_parts();
        Real::new(r as i64, exponent)
    }

    /// `1 / √self` of a number above 0: `2^31 ≤ r < 2^32`, and its exponent.
    const fn rsqrt_parts(self) -> (u32, i32) {
        // value = f · 2^(2k) with f = m32 / 2^32 in [1/4, 1): an even exponent above 32 fraction bits.
        let (m, e) = if self.exponent() & 1 == 0 {
            (self.mantissa as u32, self.exponent() + 32)
        } else {
            ((self.mantissa as u32) << 1, self.exponent() + 31)
        };
        (rsqrt_q31(m), -31 - e / 2)
    }

    /// `self^n`, by repeated squaring: relative error at most n · 2^-30.
    #[must_use]
    pub const fn powi(self, n: u32) -> Real {
        let (mut result, mut square, mut n) = (Real::ONE, self, n);
        while n > 0 {
            if n & 1 == 1 {
                result = result.mul(square);
            }
            square = square.mul(square);
            n >>= 1;
        }
        result
    }

    /// The value as an integer with `fraction` fraction bits, half to even, saturated to `i32` (symmetric).
    #[must_use]
    pub const fn to_q(self, fraction: i32) -> i32 {
        // Two steps: what saturates is beyond 31 bits, or 0, long before.
        let shift = self.exponent().saturating_add(fraction).saturating_neg();
        shift_half_even_saturating_i32(self.mantissa as i64, shift)
    }

    /// The mantissa rounded to 16 bits (half to even, `2^15 ≤ |m| ≤ 2^16`) and the exponent of its lowest bit: what
    /// a layer multiplies accumulators by.
    #[must_use]
    pub const fn to_parts_16(self) -> (i32, i32) {
        if self.mantissa == 0 {
            return (0, 0);
        }
        (shift_right_half_even(self.mantissa as i64, 15) as i32, self.exponent() + 15)
    }

    /// Whether `self < other`.
    #[must_use]
    pub const fn less_than(self, other: Real) -> bool {
        // Normalized: of two numbers above zero, the one with the larger exponent is larger.
        let (a, b) = (self.mantissa, other.mantissa);
        if a == 0 || b == 0 || (a < 0) != (b < 0) || self.exponent == other.exponent {
            return a < b;
        }
        (self.exponent < other.exponent) != (a < 0)
    }

    /// The smaller of two.
    #[must_use]
    pub const fn min(self, other: Real) -> Real {
        if other.less_than(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn f(x: Real) -> f64 {
        f64::from(x.mantissa) * f64::from(x.exponent()).exp2()
    }

    /// Whether `x` is within 2^-bits of what it should be, but for what the expectation itself, an `f64`, is off.
    fn close(x: Real, expected: f64, bits: i32) -> bool {
        (f(x) - expected).abs() <= expected.abs() * f64::from(-bits).exp2() * (1.0 + f64::from(-20).exp2())
    }

    prop_compose! {
        fn real()(m in any::<i64>(), s in 0_u32..63, e in -60_i32..60) -> Real { Real::new(m >> s, e) }
    }

    fn edge_i64() -> impl Strategy<Value = i64> {
        prop_oneof![
            any::<i64>(),
            prop::sample::select(vec![0, 1, -1, i64::MAX, i64::MIN, i64::MIN + 1, 1 << 31, -1 << 31])
        ]
    }

    fn edge_i32() -> impl Strategy<Value = i32> {
        let edges = vec![0, 1, -1, i32::MAX, i32::MAX - 31, i32::MIN, i32::MIN + 1, i32::MIN + 31, 1 << 14, -1 << 14];
        prop_oneof![any::<i32>(), -20000..20000, prop::sample::select(edges)]
    }

    proptest! {
        #[test]
        fn new_is_near_and_normalized(m in any::<i64>(), e in -100_i32..100) {
            let x = Real::new(m, e);
            prop_assert!(m == 0 || (1 << 30..=i32::MAX as u32).contains(&x.mantissa.unsigned_abs()));
            prop_assert!(close(x, m as f64 * f64::from(e).exp2(), 31));
        }

        #[test]
        fn products_sums_and_quotients(a in real(), b in real()) {
            prop_assert!(close(a.mul(b), f(a) * f(b), 31));
            prop_assert!(close(a.add(b), f(a) + f(b), 31));
            prop_assert!(close(a.sub(b), f(a) - f(b), 31));
            if !b.is_zero() { prop_assert!(close(a.div(b), f(a) / f(b), 30)); }
            prop_assert_eq!(a.less_than(b), f(a) < f(b));
        }

        #[test]
        fn roots(a in real()) {
            let a = a.abs();
            prop_assert!(close(a.sqrt(), f(a).sqrt(), 30));
            if !a.is_zero() { prop_assert!(close(a.rsqrt(), 1.0 / f(a).sqrt(), 30)); }
        }

        #[test]
        fn powers(a in 0.8_f64..1.0, n in 1_u32..3000) {
            let x = Real::from_f64(a);
            let (got, want) = (f(x.powi(n)), f(x).powi(n as i32));
            prop_assert!((got / want - 1.0).abs() <= f64::from(n) * f64::from(-30).exp2(), "{} {}", got, want);
        }

        #[test]
        fn sixteen_bits(a in real()) {
            let (m, e) = a.to_parts_16();
            prop_assert!(a.is_zero() || (1 << 15..=1 << 16).contains(&m.unsigned_abs()));
            let error = (f64::from(m) * f64::from(e).exp2() - f(a)).abs();
            prop_assert!(error <= f(a).abs() * f64::from(-16).exp2());
        }

        #[test]
        fn ratios(n in any::<i32>(), d in 1_u32..) {
            prop_assert!(close(Real::ratio(n, d), f64::from(n) / f64::from(d), 31));
        }

        /// No argument panics, overflow checks on; what leaves the range of exponents saturates.
        #[test]
        fn everything_is_total(m in edge_i64(), e in edge_i32(), n in edge_i32(), k in edge_i64(), f in edge_i32()) {
            let (x, y) = (Real::new(m, e), Real::new(k, f));
            for z in [x.scale(n), x.mul(y), x.mul_int(n), x.add(y), x.sub(y), x.div(y), x.sqrt(), x.rsqrt(), x.powi(n as u32), x.neg(), x.min(y)] {
                prop_assert!(z == Real::ZERO || z.mantissa.unsigned_abs() >> 30 == 1 && z.exponent().abs() <= 1 << 14);
            }
            let q = x.to_q(n);
            prop_assert!(q != i32::MIN && (q == 0 || (q < 0) == x.is_negative()));
            let _ = (x.to_parts_16(), x.less_than(y), Real::ratio(n, f as u32), Real::from_parts(n, f as i16));
        }

        #[test]
        fn fixed_point(a in -1000.0_f64..1000.0) {
            let x = Real::new((a * 1e9) as i64, 0).div(Real::int(1_000_000_000));
            prop_assert!((f64::from(x.to_q(16)) / 65536.0 - a).abs() < 1.0 / 65536.0);
        }
    }

    #[test]
    fn exact_cases() {
        assert_eq!(Real::int(3).mul(Real::int(5)), Real::int(15));
        assert_eq!(Real::int(9).add(Real::int(-9)), Real::ZERO);
        assert_eq!(Real::ONE.scale(3), Real::int(8));
        assert_eq!(Real::ratio(-7, 2).to_q(1), -7);
        assert_eq!(Real::ratio(1, 1), Real::ONE);
        assert_eq!(Real::int(1).div(Real::ZERO), Real::ZERO);
        assert_eq!(Real::int(i64::MAX).to_q(0), i32::MAX);
        assert_eq!(Real::int(i64::MIN).to_q(0), -i32::MAX);
        assert_eq!(Real::int(5).to_parts_16(), (5 << 13, -13));
    }
}
