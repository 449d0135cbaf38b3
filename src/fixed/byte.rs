//! Blocks of bytes: half the memory of a [`Block`](super::Block), for what is kept long, as keys and values are.

use super::Exp;
use super::rounding::{bit_length, shift_half_even};

/// Rounds mantissas to 8 bits under the smallest exponent that keeps all within ±127, half to even: the largest is at
/// least 64, unless all are zero. Error: half an LSB, 1/128 of the largest at most.
///
/// `mantissas`, `out`: `(width)`; where their lengths differ, the shorter decides.
///
/// ```
/// use ranklet::fixed::{Exp, byte};
/// let mut out = [0; 2];
/// assert_eq!(byte::narrow(&[16384, -256], Exp(-14), &mut out), Exp(-6));
/// assert_eq!(out, [64, -1]); // 1.0 and −1/64
/// ```
pub fn narrow(mantissas: &[i16], exponent: Exp, out: &mut [i8]) -> Exp {
    let peak = mantissas.iter().map(|m| i64::from(m.unsigned_abs())).max().unwrap_or(0);
    if peak == 0 {
        out.fill(0);
        return Exp::ZERO;
    }
    let seven_bits = bit_length(peak.unsigned_abs()) as i32 - 7;
    let carries = shift_half_even(peak, seven_bits) > i64::from(i8::MAX);
    let shift = seven_bits + i32::from(carries);
    for (o, &m) in out.iter_mut().zip(mantissas) {
        *o = shift_half_even(i64::from(m), shift) as i8;
    }
    Exp::saturating(exponent.get() + shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_near_and_uses_seven_bits(m in prop::collection::vec(any::<i16>(), 1..20), down in 0_u32..16, e in -100_i16..100) {
            let m: std::vec::Vec<i16> = m.into_iter().map(|m| m >> down).collect();
            let mut out = std::vec![0; m.len()];
            let f = narrow(&m, Exp(e), &mut out);
            let peak = m.iter().map(|m| m.unsigned_abs()).max().unwrap();
            if peak == 0 {
                prop_assert_eq!(f, Exp::ZERO);
            } else {
                prop_assert!((64..=127).contains(&out.iter().map(|o| o.unsigned_abs()).max().unwrap()));
                for (&m, &o) in m.iter().zip(&out) {
                    let got = f64::from(o) * f64::from(f.get() - i32::from(e)).exp2();
                    prop_assert!((got - f64::from(m)).abs() <= f64::from(peak) / 127.0);
                }
            }
        }
    }
}
