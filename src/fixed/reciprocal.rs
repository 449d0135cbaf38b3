//! Reciprocal of a normalized 32-bit mantissa, without a division: the Cortex-M0 has no divider.

use super::exp2::mul_high_floor;

/// `256 / v − 256` at the middle of each thirty-second of the octave, v = (32.5 + i) / 64: eight bits to start from.
static SEEDS: [u8; 32] = seeds();

/// Derives [`SEEDS`] at compile time: 256 / v = 2^15 / (65 + 2i), rounded to nearest.
const fn seeds() -> [u8; 32] {
    let mut table = [0; 32];
    let mut rest: &mut [u8] = &mut table;
    let mut odd: u32 = 65;
    while let Some((seed, tail)) = rest.split_first_mut() {
        *seed = ((65_536 / odd).div_ceil(2) - 256) as u8;
        rest = tail;
        odd += 2;
    }
    table
}

/// `2^63 / m`, **rounded to nearest, exactly** (error at most 0.5 LSB), for normalized `m` in [2^31, 2^32).
///
/// With m the mantissa of v = m / 2^32 in [1/2, 1), the result is 1/v in Q1.31, from `2^31` up to 2.0, which saturates
/// to `u32::MAX` (only `m = 2^31`). Below the domain, 0 included, the quotient is larger still: `u32::MAX` too.
/// Monotone, being exact. A core with a fast divider may compute the quotient its own way and get the same bits.
///
/// ```
/// use ranklet::fixed::reciprocal::reciprocal_q31;
/// assert_eq!(reciprocal_q31(3 << 30), 2_863_311_531); // 4/3 · 2^31
/// assert_eq!(reciprocal_q31(1 << 31), u32::MAX);
/// ```
///
/// Derivation. Every step below stays at or under 1/v (floors, and an argument rounded up), so that each residual
/// h = 1 − v y is unsigned.
///
/// - Seed: |1 − v y| ≤ 1/64 for the interval and 2^-10 for its eight bits: e ≤ 0.0166.
/// - Newton, y (2 − v y) = (1 − e²) / v, in 32-bit products: e² ≤ 2.8e-4; v rounded up to 16 bits and y down to Q15
///   add at most 2^-15 each: h ≤ 3.4e-4 < 2^-11.5. y is below 2, so it has 16 bits, and v y is exact in 48.
/// - Third order, y (1 + h + h²) = (1 − h³) / v: h³ ≤ 3.9e-11, at most 0.17 LSB; the floors of h and h² are below 0.01.
/// - So the candidate is the result or one less, and the remainder of m · candidate tells which.
#[inline]
#[must_use]
pub const fn reciprocal_q31(m: u32) -> u32 {
    if m <= 1 << 31 {
        return u32::MAX;
    }
    let seed = match SEEDS.split_at_checked(((m >> 26) & 31) as usize) {
        Some((_, [seed, ..])) => 256 + *seed as u32,
        _ => 256, // Not reached: five bits.
    };
    let v = (m >> 16) + 1; // Q16, up
    let two_less = (2 << 24) - v * seed; // 2 − v y in Q24
    let y = (seed * (two_less >> 4)) >> 13; // Q8 · Q20, to Q15

    let h = (((1 << 47) - m as u64 * y as u64) >> 5) as u32; // Q42, < 2^31
    let series = h + (mul_high_floor(h, h) >> 10);
    let candidate = (y << 16) + ((y as u64 * series as u64) >> 26) as u32; // Q57 to Q31, down

    // 2^63/m rounds to ⌊(2^63 + m/2) / m⌋ (there are no ties); the remainder is in [0, 2m).
    let remainder = ((1 << 63) + (m >> 1) as u64) - m as u64 * candidate as u64;
    candidate + (remainder >= m as u64) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    /// The definition.
    fn slow(m: u32) -> u32 {
        let m = u64::from(m);
        u32::try_from(((1 << 63) + m / 2) / m).unwrap_or(u32::MAX)
    }

    fn check(m: u32) {
        assert_eq!(reciprocal_q31(m), slow(m), "2^63 / {m}");
    }

    #[test]
    fn whole_domain_by_a_coprime_stride() {
        (1 << 31..=u32::MAX).step_by(stride(499)).for_each(check);
    }

    #[test]
    fn ends_and_borders_of_the_table() {
        (1 << 31..(1 << 31) + 10_000).for_each(check);
        (u32::MAX - 10_000..=u32::MAX).for_each(check);
        for border in (1..32).map(|i| (1 << 31) + (i << 26)) {
            (border - 5000..border + 5000).for_each(check);
        }
    }

    #[test]
    fn below_the_domain_saturates() {
        for m in [0, 1, 1 << 30, (1 << 31) - 1, 1 << 31] {
            assert_eq!(reciprocal_q31(m), u32::MAX);
        }
    }
}
