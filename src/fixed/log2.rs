//! Base-2 logarithm of a 64-bit integer: the cross-entropy's `log Σ exp`, and wherever a magnitude is reported.

use super::exp2::mul_high_floor;

/// A thirty-second of an octave, from 1 + i/32 up.
#[derive(Clone, Copy)]
struct Segment {
    /// `1 / (1 + i/32)` in Q1.15, rounded up, so that a mantissa times this is at least 1.
    reciprocal: u16,
    /// `log2(1 / reciprocal)` in Q31, of the reciprocal as it was rounded: its rounding costs no accuracy.
    log: u32,
}

static SEGMENTS: [Segment; 32] = segments();

/// Derives [`SEGMENTS`] at compile time.
const fn segments() -> [Segment; 32] {
    let mut table = [Segment { reciprocal: 0, log: 0 }; 32];
    let mut rest: &mut [Segment] = &mut table;
    let mut start: u32 = 32;
    while let Some((segment, tail)) = rest.split_first_mut() {
        segment.reciprocal = (1_u32 << 20).div_ceil(start) as u16;
        segment.log = minus_log2_q31(segment.reciprocal);
        rest = tail;
        start += 1;
    }
    table
}

/// `-log2(c)` in Q31, rounded to nearest, for `c` in Q1.15, (1/2, 1]. Compile time only.
///
/// Squaring doubles a logarithm: each time the square of 1/c reaches 2, the next bit is 1. Thirty-two bits, the last
/// of them to round by; the 2^-63 that the quotient starts with has grown to 2^-30 of the last bit's own test.
const fn minus_log2_q31(c: u16) -> u32 {
    let mut v: u128 = (1 << 78) / c as u128; // 1/c in Q63, [1, 2)
    let mut bits: u32 = 0;
    let mut n = 0;
    while n < 32 {
        v = (v * v) >> 63;
        let bit = (v >> 64) as u32;
        v >>= bit;
        bits = (bits << 1) | bit;
        n += 1;
    }
    (bits >> 1) + (bits & 1)
}

/// `log2(x)` in Q6.26 for `x ≥ 1`; 0 for `x = 0`, so that an empty sum reads as "no bits".
///
/// Rounded to nearest from 31 fraction bits. **Worst error 0.6 LSB (2^-26.7)**, but for the last 2^36 or so arguments,
/// whose logarithm rounds to 64 and saturates to `u32::MAX` (64 − 2^-26, 1 LSB). Powers of two are exact. Monotone.
///
/// A sum of exponentials in Q1.31 has its binary point at 31: subtract `31 << 26`.
///
/// ```
/// use ranklet::fixed::log2::log2_q26;
/// assert_eq!(log2_q26(1), 0);
/// assert_eq!(log2_q26(1 << 40), 40 << 26);
/// assert_eq!(log2_q26(10), 222_930_821); // 3.321928 · 2^26
/// ```
#[inline]
#[must_use]
pub const fn log2_q26(x: u64) -> u32 {
    let (high, low) = ((x >> 32) as u32, x as u32);
    // The leading 32 bits. What falls off below them is worth less than 2^-31 · log2 e: 0.046 LSB.
    let (integer, m) = if high != 0 {
        let zeros = high.leading_zeros();
        (63 - zeros, (high << zeros) | ((low >> 1) >> (31 - zeros)))
    } else if low != 0 {
        let zeros = low.leading_zeros();
        (31 - zeros, low << zeros)
    } else {
        return 0;
    };
    (integer << 26).saturating_add((log2_fraction_q31(m) + 16) >> 5)
}

/// `log2(m / 2^31)` in Q31 for `m ≥ 2^31`, in [0, 1]. The leading bit is taken as set.
///
/// Derivation. With c the segment's reciprocal, log2 m = −log2 c + log2(m c), and 0 ≤ m c − 1 = w < 1/32. The product
/// has 48 bits and is exact; w is kept in Q37, so that u = 32 w fills a word. Then
///
/// ```text
/// log2(1 + u/32) = u (k1 − u (k2 − u (k3 − u k4))) + ripple
/// ```
///
/// with the equal-ripple solution (Remez exchange in 50 digits over u … u⁴, so that log2 1 = 0 exactly); its ripple is
/// 2^-35.7, and k in Q36 keeps five guard bits.
///
/// Error in 2^-31: segment 0.5, ripple 0.04, coefficients and floors in Q36 below 6/32, last rounding 0.5: in all
/// below 1.25, which is 0.04 LSB of Q26: with the last rounding and the dropped bits of x, 0.59 LSB if all met; over
/// all 2^31 mantissas 0.532 is met, to which those dropped bits can add 0.046. Inside a segment one step of m moves the sum by at least 22 units of Q36,
/// more than its floors can take back, so it is monotone there; the 32 seams are tested.
#[inline]
pub(super) const fn log2_fraction_q31(m: u32) -> u32 {
    const K1: u32 = 3_098_163_971; // 0.045084219468637274 · 2^36; log2 e / 32 but for the ripple
    const K2: u32 = 48_408_437; // 0.00070443547437056296 · 2^36
    const K3: u32 = 1_007_374; // 0.000014659219177932535 · 2^36
    const K4: u32 = 22_256; // 0.00000032387261201118203 · 2^36
    let Segment { reciprocal, log } = match SEGMENTS.split_at_checked(((m >> 26) & 31) as usize) {
        Some((_, [segment, ..])) => *segment,
        _ => Segment { reciprocal: 0, log: 0 }, // Not reached: five bits.
    };
    // Q31 · Q15 = Q46, to Q37; the cast drops the leading 1 at bit 37, and w < 1/32 has no bit from 32 up.
    let u = ((m as u64 * reciprocal as u64) >> 9) as u32;
    let p = mul_high_floor(u, K1 - mul_high_floor(u, K2 - mul_high_floor(u, K3 - mul_high_floor(u, K4))));
    log + ((p + 16) >> 5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 0.6;
    const ONE: f64 = (1 << 26) as f64;

    fn error(x: u64) -> f64 {
        (f64::from(log2_q26(x)) - (x as f64).log2() * ONE).abs()
    }

    fn sweep(xs: impl Iterator<Item = u64>) -> f64 {
        let mut worst = 0.0_f64;
        let mut last = 0;
        for x in xs {
            let y = log2_q26(x);
            assert!(y >= last, "not monotone at {x}");
            last = y;
            worst = worst.max(error(x));
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn table_is_rounded_to_nearest() {
        for (i, s) in SEGMENTS.into_iter().enumerate() {
            let c = f64::from(s.reciprocal) / 32768.0;
            assert_eq!(f64::from(s.log), (-c.log2() * 2.0_f64.powi(31)).round(), "segment {i}");
            assert!(c * (32.0 + i as f64) >= 32.0 && c * (33.0 + i as f64) <= 33.0, "segment {i}");
        }
    }

    #[test]
    fn small_arguments_all() {
        sweep(1..=1 << 20);
    }

    #[test]
    fn one_octave_densely() {
        let worst = sweep((1 << 63..1 << 63 | 0x7fff_ff00_0000_0000).step_by(0x3f_ffff_ffff));
        assert!(worst > 0.52, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn whole_domain_densely() {
        // A geometric walk: about 32,000 arguments to the octave.
        sweep(
            std::iter::successors(Some(1_u64), |x| x.checked_add((x >> 15) + 1))
                .take_while(|&x| x < u64::MAX - (1 << 37)),
        );
    }

    #[test]
    fn seams_of_the_segments_in_every_octave() {
        for octave in 6..64 {
            for i in 0..32_u64 {
                let seam = (32 + i) << (octave - 5);
                sweep(seam - 16..=seam + 16);
                if octave >= 32 {
                    // One unit of the 32-bit mantissa apart.
                    let unit = 1 << (octave - 31);
                    sweep((0..32).map(|k| seam - 16 * unit + k * unit));
                }
            }
        }
    }

    #[test]
    fn ends_of_the_domain() {
        assert_eq!(log2_q26(0), 0);
        assert_eq!(log2_q26(u64::MAX), u32::MAX);
        assert!(error(u64::MAX) <= 1.0);
        for n in 0..64 {
            assert_eq!(log2_q26(1 << n), n << 26);
        }
    }

    #[test]
    fn mantissas_by_a_coprime_stride() {
        sweep((1_u64 << 31..1 << 32).step_by(stride(499)).chain([1 << 32]));
    }
}
