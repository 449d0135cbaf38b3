//! The hyperbolic tangent: poolers, and an activation.

use super::sigmoid::sigmoid_q31;

/// `tanh x`: `x` in Q5.26, [−32, 32); the result in Q1.30, where ±1.0 is `±2^30`.
///
/// `tanh x = 2 σ(2x) − 1`: σ in Q31 less one half is tanh in Q30, and nothing is rounded again. So a 31st fraction bit
/// could only be 0, and would leave no room for 1.0. From |x| = 16 on, 2x is at the end of σ's range, where σ is 0 or 1.
///
/// **Worst error 1.3 LSB (2^-29.6)**, that of [`sigmoid_q31`]: absolute, so near 0 it is large beside the result; there
/// `x − x³/3` is at hand. Odd exactly, tanh 0 is exactly 0, and the ends reach ±1 exactly. Monotone.
///
/// ```
/// use ranklet::fixed::tanh::tanh_q30;
/// assert_eq!(tanh_q30(0), 0);
/// assert_eq!(tanh_q30(1 << 26) >> 10, 798_589); // 0.76159416
/// assert_eq!(tanh_q30(i32::MIN), -1 << 30);
/// ```
#[inline]
#[must_use]
pub const fn tanh_q30(x: i32) -> i32 {
    const HALF: i32 = 1 << 30;
    // σ reaches 2^31, one more than i32 holds: the difference wraps back.
    (sigmoid_q31(x.saturating_mul(2)) as i32).wrapping_sub(HALF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 1.3;
    const ONE: f64 = (1 << 30) as f64;

    fn sweep(xs: impl Iterator<Item = i32>) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = 0;
        for x in xs {
            let y = tanh_q30(x);
            assert!(y >= last, "not monotone at {x}");
            last = y;
            assert_eq!(tanh_q30(-x), -y, "not odd at {x}");
            worst = worst.max((f64::from(y) - (f64::from(x) / f64::from(1 << 26)).tanh() * ONE).abs());
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn tanh_by_a_coprime_stride() {
        sweep((0..=i32::MAX).step_by(stride(1499)));
    }

    #[test]
    fn tanh_where_it_bends_densely() {
        let worst = sweep((0..=2 << 26).step_by(61));
        assert!(worst > 0.9, "the claim of {WORST_LSB} LSB is loose: {worst}");
        sweep(0..=20_000);
    }

    #[test]
    fn tanh_at_its_ends() {
        assert_eq!([0, i32::MAX, -i32::MAX, i32::MIN].map(tanh_q30), [0, 1 << 30, -1 << 30, -1 << 30]);
    }
}
