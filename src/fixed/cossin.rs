//! Cosine and sine of an angle in turns: rotary positions.
//!
//! An angle is a `u32` of 2^-32 turns, so that angles wrap exactly, as integers do: position times frequency needs no
//! reduction and loses nothing, however long the text.

use super::exp2::mul_high_floor;

/// `(cos, sin)` of `turns · 2^-32` turns in Q30, where ±1.0 is `±2^30`.
///
/// Rounded to nearest. **Worst error 0.9 LSB (2^-30.1).** Quarter turns are exact; the symmetries of the circle (a quarter, a
/// half, both mirrors) hold exactly.
///
/// Q30, because ±1 must be representable: Q31 would have to saturate, and a rotation by nothing would shrink.
///
/// ```
/// use ranklet::fixed::cossin::cossin_q30;
/// assert_eq!(cossin_q30(0), (1 << 30, 0));
/// assert_eq!(cossin_q30(1 << 29), (759_250_125, 759_250_125)); // √½
/// assert_eq!(cossin_q30(1 << 30), (0, 1 << 30));
/// assert_eq!(cossin_q30(1 << 31), (-1 << 30, 0));
/// ```
///
/// Derivation. The nearest quarter turn is taken off; the rest is z · π/4, |z| ≤ 1, and with v = z²
///
/// ```text
/// cos = 1 − v (c1 − v (c2 − v (c3 − v c4))) + ripple    sin = z (s1 − v (s2 − v (s3 − v (s4 − v s5)))) + ripple
/// ```
///
/// The c and s are equal-ripple solutions (Remez exchange in 50 digits, over v and over z), so that cos 0 and sin 0 are exact;
/// the ripples are 2^-34.1 and 2^-39.1.
///
/// Error in 2^-30. Cosine: ripple 0.06; v, rounded to 2^-33 (2^-32 at its end, where it saturates), under a slope of 0.3, 0.08;
/// coefficients and floors in Q33, of which the signs alternate, 0.25; the last rounding 0.5: 0.89 if all met. Sine:
/// 0.25 and 0.5 likewise. Over all angles 0.87 is met.
#[inline]
#[must_use]
pub const fn cossin_q30(turns: u32) -> (i32, i32) {
    let quarter = (turns >> 30) + (turns >> 29 & 1);
    let rest = turns.wrapping_sub(quarter << 30) as i32; // ±2^29
    let z = rest.unsigned_abs() << 2; // Q31, ≤ 2^31
    let v = (z as u64 * z as u64 + (1 << 29)) >> 30;
    let v = if v >> 32 == 0 { v as u32 } else { u32::MAX }; // Q32; an eighth of a turn would be 2^32.
    let cosine = cosine_q30(v);
    let sine = if rest < 0 { -sine_q30(z, v) } else { sine_q30(z, v) };
    match quarter & 3 {
        0 => (cosine, sine),
        1 => (-sine, cosine),
        2 => (-cosine, -sine),
        _ => (sine, -cosine),
    }
}

/// `cos(z · π/4)` in Q30, for v = z² in Q32.
#[inline]
const fn cosine_q30(v: u32) -> i32 {
    const C1: u32 = 2_649_351_743; // 0.30842513583837178 · 2^33; (π/4)²/2 but for the ripple
    const C2: u32 = 136_187_638; // 0.015854327751877257 · 2^33
    const C3: u32 = 2_799_821; // 0.00032594200795044509 · 2^33
    const C4: u32 = 30_334; // 0.0000035313346557728844 · 2^33
    let inner = C1 - mul_high_floor(v, C2 - mul_high_floor(v, C3 - mul_high_floor(v, C4)));
    (1 << 30) - ((v as u64 * inner as u64 + (1 << 34)) >> 35) as i32
}

/// `sin(z · π/4)` in Q30, for z in Q31 and v = z² in Q32.
#[inline]
const fn sine_q30(z: u32, v: u32) -> i32 {
    const S1: u64 = 6_746_518_852; // 0.78539816337880604 · 2^33; π/4 but for the ripple
    const S2: u32 = 693_598_665; // 0.080745511815160032 · 2^33
    const S3: u32 = 21_392_309; // 0.0024903924788446046 · 2^33
    const S4: u32 = 314_146; // 0.000036571417665440446 · 2^33
    const S5: u32 = 2_651; // 0.00000030856341648890378 · 2^33
    let inner = S2 - mul_high_floor(v, S3 - mul_high_floor(v, S4 - mul_high_floor(v, S5)));
    let slope = S1 - mul_high_floor(v, inner) as u64; // < 2^32.7
    ((z as u64 * slope + (1 << 33)) >> 34) as i32 // Q64, ≤ √½ · 2^64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 0.9;

    fn sweep(angles: impl Iterator<Item = u32>) -> f64 {
        let mut worst = 0.0_f64;
        for turns in angles {
            let (c, s) = cossin_q30(turns);
            let angle = f64::from(turns) / f64::from(32).exp2() * core::f64::consts::TAU;
            let unit = f64::from(1 << 30);
            worst = worst.max((f64::from(c) - angle.cos() * unit).abs()).max((f64::from(s) - angle.sin() * unit).abs());
            assert_eq!(cossin_q30(turns.wrapping_neg()), (c, -s), "mirror at {turns}");
            assert_eq!(cossin_q30(turns.wrapping_add(1 << 31)), (-c, -s), "half turn at {turns}");
            assert_eq!(cossin_q30(turns.wrapping_add(1 << 30)), (-s, c), "quarter turn at {turns}");
            assert_eq!(cossin_q30((1_u32 << 30).wrapping_sub(turns)), (s, c), "diagonal at {turns}");
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn whole_circle_by_a_coprime_stride() {
        let worst = sweep((0..=u32::MAX).step_by(stride(4007)));
        assert!(worst > 0.75, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn around_every_eighth() {
        for border in (0..8_u32).map(|k| k << 29) {
            sweep((0..64).map(|i| border.wrapping_add(i).wrapping_sub(32)));
        }
    }
}
