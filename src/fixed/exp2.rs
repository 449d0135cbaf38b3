//! `2^(-x)` and `e^(-x)` to 31 bits: the exponential under softmax, the losses and the logistic function.

/// `⌊a · b / 2^32⌋`, one `umull` on a core that has it.
///
/// Only for unsigned intermediates with guard bits below the result, where a floor cannot make anything drift.
#[inline]
pub(super) const fn mul_high_floor(a: u32, b: u32) -> u32 {
    ((a as u64 * b as u64) >> 32) as u32
}

/// `2^32 · (1 − 2^(-i/32))`, rounded to nearest: what the first five fraction bits take away from 1.
///
/// Kept as the complement so that entry 0 is exactly 0 (1.0 would not fit 32 bits), which makes powers of two exact.
static STEPS: [u32; 32] = steps();

/// Derives [`STEPS`] at compile time: five integer square roots of 1/2 give `2^(-1/32)` in Q0.64, its powers the rest.
/// Each product loses less than 2 · 2^-64, so that every power is known to 2^-58 before it is rounded to 2^-32.
const fn steps() -> [u32; 32] {
    let mut root: u64 = 1 << 63;
    let mut halvings = 0;
    while halvings < 5 {
        root = ((root as u128) << 64).isqrt() as u64;
        halvings += 1;
    }
    let mut table = [0; 32];
    let mut rest: &mut [u32] = &mut table;
    let mut power: u128 = 1 << 64;
    while let Some((entry, tail)) = rest.split_first_mut() {
        *entry = (((1 << 64) - power + (1 << 31)) >> 32) as u32;
        power = (power * root as u128) >> 64;
        rest = tail;
    }
    table
}

/// `2^(-x)`: `x` in Q5.27, [0, 32); the result in Q1.31, where 1.0 is `2^31`.
///
/// Rounded to nearest (ties down) from 32 fraction bits. **Worst error 1.0 LSB (2^-31)** in the first octave, where
/// the result is above 1/2, falling towards 0.5 LSB in those below. Whole `x` are exact: `2^(-n)` is `2^(31 − n)`.
/// Monotone: a larger `x` never gives a larger result.
///
/// ```
/// use ranklet::fixed::exp2::exp2_neg_q31;
/// assert_eq!(exp2_neg_q31(0), 1 << 31);
/// assert_eq!(exp2_neg_q31(3 << 27), 1 << 28);
/// assert_eq!(exp2_neg_q31(1 << 26), 1_518_500_250); // √½
/// ```
#[inline]
#[must_use]
pub const fn exp2_neg_q31(x: u32) -> u32 {
    exp2_neg_parts_q31(x >> 27, x << 5)
}

/// `2^-(octaves + fraction)`: `fraction` in Q0.32, finer than the public function takes, for arguments that come out
/// of a multiplication (by log2 e). Any `octaves`: from 32 on the result is less than half an LSB, so 0.
///
/// Derivation. With i the first five bits of the fraction and u in [0, 1) the rest, scaled up by 32:
///
/// ```text
/// 2^-(i/32 + u/32) = (1 − S)(1 − p)    S = STEPS[i],  p = 1 − 2^(-u/32) = u (k1 − u (k2 − u k3)) + ripple
///                  = 1 − s             s = S + p − S p,  0 ≤ s ≤ 1/2
/// ```
///
/// The k are the equal-ripple solution (Remez exchange in 50 digits over u, u², u³, so that p(0) = 0); its ripple is
/// 2^-33.5. Rounded to Q37, p < 2^-5.5 fits 32 bits with five guard bits below the Q32 of s.
///
/// Error of s in 2^-32: entry 0.5, ripple 0.36, coefficients and floors in Q37 below 5/32: in all below 1.02. Halved
/// to Q31, and rounded once: 0.51 + 0.5 = 1.01 LSB if all met; over all arguments 0.921 is met.
///
/// Monotone in Q27, because one step of x moves s by at least 2^-27 · ln 2 / 2 = 11 units of 2^-32, more than twice
/// the error.
#[inline]
pub(super) const fn exp2_neg_parts_q31(octaves: u32, fraction: u32) -> u32 {
    const K1: u32 = 2_977_044_243; // 0.021660847725369724 · 2^37; ln 2 / 32 but for the ripple
    const K2: u32 = 32_241_264; // 0.00023458606839697856 · 2^37
    const K3: u32 = 230_394; // 0.0000016763381404724754 · 2^37
    if octaves > 31 {
        return 0;
    }
    let step = match STEPS.split_at_checked((fraction >> 27) as usize) {
        Some((_, [step, ..])) => *step,
        _ => 0, // Not reached: five bits.
    };
    let u = fraction << 5;
    let p = mul_high_floor(u, K1 - mul_high_floor(u, K2 - mul_high_floor(u, K3))); // Q37, < 2^31.5
    let rest = p - mul_high_floor(p, step);
    // Down, so that 2^32 − s is up: then halving with ties down is the one rounding to nearest of the unrounded value.
    let s = step + (rest >> 5); // Q32, ≤ 2^31
    // !s is 2^32 − s less one, which keeps 1.0 in 32 bits; ⌈!s / 2⌉ is (2^32 − s) / 2 with ties down.
    let twice = !s >> octaves;
    (twice >> 1) + (twice & 1)
}

/// `e^(-m · 2^exponent)` in Q1.31, where 1.0 is `2^31`: one term of a softmax, one half of a logistic function.
///
/// `2^-(m · 2^exponent · log2 e)`, the product half up to 32 fraction bits. **Worst error 1.2 LSB (2^-30.7)**, any `m` and
/// `exponent`; exactly 1.0 for `m = 0`. Monotone: a larger `m` never gives a larger result.
///
/// ```
/// use ranklet::fixed::exp2::exp_neg_q31;
/// assert_eq!(exp_neg_q31(0, 5), 1 << 31);
/// assert_eq!(exp_neg_q31(1, 0), 790_015_084); // 1/e
/// assert_eq!(exp_neg_q31(22, 0), 1);
/// ```
///
/// Derivation. The constant's relative error of 1.2e-10 is worth 0.1 LSB where a · e^(-a) peaks, the rounding of the exponent
/// (2^-33 · ln 2) at most 0.18 LSB near 0, where the exponential is 1; with the exponential's own 0.921: 1.2 LSB if all
/// met; 1.055 is met.
#[inline]
#[must_use]
pub const fn exp_neg_q31(m: u32, exponent: i32) -> u32 {
    const LOG2_E: u32 = 3_098_164_009; // 1.4426950408889634 · 2^31
    const OCTAVES: u64 = 32 << 32; // from here on less than half an LSB
    let product = m as u64 * LOG2_E as u64; // < 2^64 − 2^62, 31 fraction bits where the exponent is 0
    let z = if exponent < -64 {
        0 // less than half of 2^-32
    } else if exponent < -1 {
        let down = (-1 - exponent) as u32;
        (product + (1 << (down - 1))) >> down
    } else if exponent == -1 {
        product
    } else if product == 0 {
        0
    } else if exponent > 36 || product >= OCTAVES >> (exponent + 1) {
        OCTAVES
    } else {
        product << (exponent + 1)
    };
    if z >= OCTAVES { 0 } else { exp2_neg_parts_q31((z >> 32) as u32, z as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 1.0;

    fn error(x: u32) -> f64 {
        let exact = (31.0 - f64::from(x) / f64::from(1 << 27)).exp2();
        (f64::from(exp2_neg_q31(x)) - exact).abs()
    }

    fn sweep(from: u32, to: u32, stride: usize) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = u32::MAX;
        for x in (from..=to).step_by(stride) {
            let y = exp2_neg_q31(x);
            assert!(y <= last, "not monotone at {x}");
            last = y;
            worst = worst.max(error(x));
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn table_is_rounded_to_nearest() {
        for (i, step) in STEPS.into_iter().enumerate() {
            let exact = (1.0 - (-(i as f64) / 32.0).exp2()) * 2.0_f64.powi(32);
            assert_eq!(f64::from(step), exact.round(), "entry {i}");
        }
    }

    #[test]
    fn first_octave_densely() {
        let worst = sweep(0, 1 << 27, 61);
        assert!(worst > 0.89, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn rounding_is_unbiased() {
        // A worst error alone would not notice a floor in place of a rounding: half a unit of 2^-32.
        let signed = |x: u32| f64::from(exp2_neg_q31(x)) - (31.0 - f64::from(x) / f64::from(1 << 27)).exp2();
        let (sum, count) = (0..1 << 27).step_by(61).fold((0.0, 0.0), |(s, n), x| (s + signed(x), n + 1.0));
        assert!((sum / count).abs() < 0.05, "mean error {} LSB", sum / count);
    }

    #[test]
    fn whole_domain_by_a_coprime_stride() {
        sweep(0, u32::MAX, stride(2003));
    }

    #[test]
    fn borders_of_the_table_in_every_octave() {
        for border in (1..1024_u32).map(|k| k << 22) {
            sweep(border - 16, border + 16, 1);
        }
        sweep(u32::MAX - 1000, u32::MAX, 1);
    }

    const WORST_EXP_LSB: f64 = 1.2;

    /// Arguments that cover every octave that matters, at every exponent that can reach it.
    #[test]
    fn natural_exponentials_at_every_exponent() {
        let mut worst = 0.0_f64;
        for e in -70..40 {
            let mut last = 1 << 31;
            // A geometric walk: a hundred arguments to the octave.
            let mut m = 0_u32;
            loop {
                let y = exp_neg_q31(m, e);
                assert!(y <= last, "not monotone at {m} · 2^{e}");
                last = y;
                let exact = (-f64::from(m) * f64::from(e).exp2()).exp() * f64::from(31).exp2();
                worst = worst.max((f64::from(y) - exact).abs());
                match m.checked_add(m / 100 + 1) {
                    Some(next) => m = next,
                    None => break,
                }
            }
        }
        assert!(worst <= WORST_EXP_LSB, "worst error {worst} LSB");
    }

    /// The domain of the logistic function, densely where the exponential bends.
    #[test]
    fn natural_exponentials_densely() {
        let error = |m: u32| {
            (f64::from(exp_neg_q31(m, -26)) - (-f64::from(m) / f64::from(1 << 26)).exp() * f64::from(31).exp2()).abs()
        };
        let worst = (0..4 << 26).step_by(61).map(error).fold(0.0, f64::max);
        assert!(worst <= WORST_EXP_LSB, "worst error {worst} LSB");
        assert!(worst > 0.95, "the claim of {WORST_EXP_LSB} LSB is loose: {worst}");
        assert!((0..=u32::MAX).step_by(stride(2003)).all(|m| error(m) <= WORST_EXP_LSB));
    }

    #[test]
    fn natural_exponentials_are_total() {
        for m in [0, 1, 22, 0x1_FFFF, u32::MAX] {
            assert_eq!(exp_neg_q31(m, i32::MIN), 1 << 31);
            assert_eq!(exp_neg_q31(m, i32::MAX), if m == 0 { 1 << 31 } else { 0 });
        }
    }

    #[test]
    fn powers_of_two_are_exact() {
        for n in 0..32 {
            assert_eq!(exp2_neg_q31(n << 27), 1 << (31 - n));
        }
        assert_eq!(exp2_neg_parts_q31(32, 0), 0);
        assert_eq!(exp2_neg_parts_q31(u32::MAX, u32::MAX), 0);
    }
}
