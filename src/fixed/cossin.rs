//! Cosine and sine of an angle in turns: rotary positions.
//!
//! An angle is a `u32` of 2^-32 turns, so that angles wrap exactly, as integers do: position times frequency needs no
//! reduction and loses nothing, however long the text.

/// `(cos, sin)` of `turns · 2^-32` turns in Q30, where ±1.0 is `±2^30`.
///
/// **Worst error 1.2 LSB (2^-29.7).** Quarter turns are exact; the symmetries of the circle (a quarter, a half, a mirror)
/// hold exactly.
///
/// ```
/// use ranklet::fixed::cossin::cossin_q30;
/// assert_eq!(cossin_q30(0), (1 << 30, 0));
/// assert_eq!(cossin_q30(1 << 30), (0, 1 << 30));
/// assert_eq!(cossin_q30(1 << 31), (-1 << 30, 0));
/// ```
///
/// Derivation. The nearest quarter turn is taken off; the rest is z · π/4, |z| ≤ 1, and the series of the sine up to
/// z^11 and of the cosine up to z^10 leave (π/4)^13/13! < 2^-37 and (π/4)^12/12! < 2^-32.9. In units of
/// 2^-32: each of six coefficients is within a half, and so is each product with z² ≤ 1: 6 in all, 1.5 LSB of Q30, and 0.5 for
/// the last rounding: 2.0 LSB if all met; over all angles 1.16 is met.
#[inline]
#[must_use]
pub const fn cossin_q30(turns: u32) -> (i32, i32) {
    let quarter = (turns >> 30) + (turns >> 29 & 1);
    let rest = turns.wrapping_sub(quarter << 30) as i32; // ±2^29
    let z = (rest.unsigned_abs() as u64) << 2; // Q31, ≤ 2^31
    let square = (z * z + (1 << 30)) >> 31;
    let sine = sine_q30(z, square);
    let sine = if rest < 0 { -sine } else { sine };
    let cosine = cosine_q30(square);
    match quarter & 3 {
        0 => (cosine, sine),
        1 => (-sine, cosine),
        2 => (-cosine, -sine),
        _ => (sine, -cosine),
    }
}

/// `a − z² · b`, Q32.
const fn less(a: u64, square: u64, b: u64) -> u64 {
    a - ((square * b + (1 << 30)) >> 31)
}

/// `sin(z · π/4)`: (π/4)^(2k+1)/(2k+1)! in Q32 under alternating signs.
const fn sine_q30(z: u64, square: u64) -> i32 {
    const S: [u64; 6] = [3373259426, 346799334, 10696163, 157094, 1346, 8];
    let [s1, s3, s5, s7, s9, s11] = S;
    let inner = less(s1, square, less(s3, square, less(s5, square, less(s7, square, less(s9, square, s11)))));
    ((z * inner + (1 << 32)) >> 33) as i32
}

/// `cos(z · π/4)`: 1 less a series in z² whose coefficients are (π/4)^(2k)/(2k)! in Q32.
const fn cosine_q30(square: u64) -> i32 {
    const C: [u64; 5] = [1324675879, 68093890, 1400124, 15423, 106];
    let [c2, c4, c6, c8, c10] = C;
    let inner = less(c2, square, less(c4, square, less(c6, square, less(c8, square, c10))));
    (1 << 30) - ((square * inner + (1 << 32)) >> 33) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::stride;

    const WORST_LSB: f64 = 1.2;

    fn sweep(angles: impl Iterator<Item = u32>) -> f64 {
        let mut worst = 0.0_f64;
        for turns in angles {
            let (c, s) = cossin_q30(turns);
            let angle = f64::from(turns) / f64::from(32).exp2() * core::f64::consts::TAU;
            let unit = f64::from(1 << 30);
            worst = worst.max((f64::from(c) - angle.cos() * unit).abs()).max((f64::from(s) - angle.sin() * unit).abs());
            assert_eq!(cossin_q30(turns.wrapping_neg()), (c, -s), "mirror at {turns}");
            assert_eq!(cossin_q30(turns.wrapping_add(1 << 31)), (-c, -s), "half turn at {turns}");
        }
        assert!(worst <= WORST_LSB, "worst error {worst} LSB");
        worst
    }

    #[test]
    fn whole_circle_by_a_coprime_stride() {
        let worst = sweep((0..=u32::MAX).step_by(stride(4007)));
        assert!(worst > 0.9, "the claim of {WORST_LSB} LSB is loose: {worst}");
    }

    #[test]
    fn around_every_eighth() {
        for border in (0..8_u32).map(|k| k << 29) {
            sweep((0..64).map(|i| border.wrapping_add(i).wrapping_sub(32)));
        }
    }
}
