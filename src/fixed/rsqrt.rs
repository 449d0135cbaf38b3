//! Reciprocal square root of a normalized mantissa: norms, and the optimizer's step.

use super::exp2::mul_high_floor;

/// `256 / √v − 256` at the middle of each interval of 1/128, v = (32.5 + i) / 128: eight bits to start from.
static SEEDS: [u8; 96] = seeds();

/// Derives [`SEEDS`] at compile time: 256 / √v = √(2^24 / (65 + 2i)), rounded to nearest.
const fn seeds() -> [u8; 96] {
    let mut table = [0; 96];
    let mut rest: &mut [u8] = &mut table;
    let mut odd: u32 = 65;
    while let Some((seed, tail)) = rest.split_first_mut() {
        *seed = (((1_u32 << 26) / odd).isqrt().div_ceil(2) - 256) as u8;
        rest = tail;
        odd += 2;
    }
    table
}

/// `2^31 / √(m / 2^32)` for `m` in [2^30, 2^32), that is of v = m / 2^32 in [1/4, 1): 1/√v in Q1.31.
///
/// Rounded to nearest from 43 fraction bits. **Worst error 0.56 LSB.** The results run from `2^31` up to 2.0, which
/// saturates to `u32::MAX` (only `m = 2^30`). Below the domain, 0 included, the root is larger still: `u32::MAX` too.
/// Monotone.
///
/// An even number of leading zeros goes into the exponent: `x = m · 2^(2k − 32)` has `1/√x = r · 2^(-31 − k)`.
///
/// ```
/// use ranklet::fixed::rsqrt::rsqrt_q31;
/// assert_eq!(rsqrt_q31(1 << 31), 3_037_000_500); // √2 · 2^31
/// assert_eq!(rsqrt_q31(1 << 30), u32::MAX);
/// ```
///
/// Derivation. Every step before the last stays at or under 1/√v, so that each residual h = 1 − v y² is unsigned.
///
/// - Seed: relative error 1/128 for the interval at v = 1/4, less above, and the eight bits: e ≤ 0.0085.
/// - Newton, y (3 − v y²) / 2 = (1 − 3/2 e²) / √v, in 32-bit products: 3/2 e² ≤ 1.1e-4; v rounded up to 16 bits and y
///   down to Q15 add at most 2^-15 each, the roundings between them 2^-17: e ≤ 1.8e-4, h ≤ 3.6e-4 < 2^-11.4.
///   y is below 2, so it has 16 bits, and v y² is exact in 64.
/// - Third order, y (1 + h/2 + 3/8 h²) = (1 − 5/16 h³) / √v: at most 1.5e-11, 0.06 LSB; the floors are below 0.002.
///   With the last rounding 0.56 LSB if all met; over all arguments 0.534 is met.
#[inline]
#[must_use]
pub const fn rsqrt_q31(m: u32) -> u32 {
    if m <= 1 << 30 {
        return u32::MAX;
    }
    let seed = match SEEDS.split_at_checked((m >> 25) as usize - 32) {
        Some((_, [seed, ..])) => 256 + *seed as u32,
        _ => 256, // Not reached: m >> 25 is in [32, 128).
    };
    let v = (m >> 16) + 1; // Q16, up
    let square = (((v * seed) >> 4) + 1) * seed; // v y² in Q28, up
    let three_less = (3 << 28) - square; // 3 − v y², about 2^29
    let y = (seed * (three_less >> 8)) >> 14; // Q8 · Q20, halved, to Q15

    let h = (((1 << 62) - m as u64 * (y * y) as u64) >> 20) as u32; // Q42, < 2^31; as Q43 it is h/2
    let series = h + ((3 * mul_high_floor(h, h)) >> 12);
    (y << 16) + ((y as u64 * series as u64 + (1 << 26)) >> 27) as u32 // Q58 to Q31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 0.56;

    fn sweep(from: u32, to: u32, stride: usize) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = u32::MAX;
        for m in (from..=to).step_by(stride) {
            let r = rsqrt_q31(m);
            assert!(r <= last, "not monotone at {m}");
            last = r;
            if m > 1 << 30 {
                worst = worst.max((f64::from(r) - 2.0_f64.powi(47) / f64::from(m).sqrt()).abs());
            }
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn whole_domain_by_a_coprime_stride() {
        let worst = sweep(1 << 30, u32::MAX, stride(499));
        assert!(worst > 0.5, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn ends_and_borders_of_the_table() {
        sweep(1 << 30, (1 << 30) + 10_000, 1);
        sweep(u32::MAX - 10_000, u32::MAX, 1);
        for border in (33..128).map(|i| i << 25) {
            sweep(border - 5000, border + 5000, 1);
        }
    }

    #[test]
    fn below_the_domain_saturates() {
        for m in [0, 1, (1 << 30) - 1, 1 << 30] {
            assert_eq!(rsqrt_q31(m), u32::MAX);
        }
    }
}
