//! The 32-bit masters of A and B, in two planes: `value = (high · 65536 + low) · 2^exponent`.
//!
//! The low plane is **signed**, so that the high plane is the rounded master and inference can do with it alone.

use super::{exp2, floor_log2};
use crate::tensor::Matrix;
use ranklet::fixed::Exp;
use ranklet::train::master::{join, split};

/// The exponent that marks an all-zero tensor.
pub const ZERO: i16 = Exp::ZERO.0;

/// One tensor in two planes; row-major as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planes {
    /// What the kernels read: the master's upper half, rounded.
    pub high: Vec<i16>,
    /// What training continues from.
    pub low: Vec<i16>,
    /// Of the masters: `2^29 ≤ max|master| < 2^30`; [`ZERO`] for an all-zero tensor.
    pub exponent: i16,
}

impl Planes {
    /// Splits a tensor. The 24 bits of an `f32` fit, so a value within 2^6 of the largest is kept exactly, and any
    /// other to half a master's LSB (ties to even).
    #[must_use]
    pub fn of(m: &Matrix) -> Planes {
        let peak = f64::from(m.data.iter().fold(0.0_f32, |p, v| p.max(v.abs())));
        if peak == 0.0 {
            return Planes { high: vec![0; m.data.len()], low: vec![0; m.data.len()], exponent: ZERO };
        }
        let e = floor_log2(peak) - 29;
        let masters = m.data.iter().map(|&v| (f64::from(v) / exp2(e)).round_ties_even() as i32);
        let (high, low) = masters.map(split).unzip();
        Planes { high, low, exponent: e as i16 }
    }

    /// The values, rounded to `f32`.
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        self.high.iter().zip(&self.low).map(|(&h, &l)| value(h, l, self.exponent)).collect()
    }
}

/// The first element whose halves are none of [`split`]'s, |master| < 2^31 − 2^15: joined, they would wrap around, so
/// that the high plane alone has another sign than both. `low` may be empty.
#[must_use]
pub fn misjoined(high: &[i16], low: &[i16]) -> Option<usize> {
    let low = low.iter().copied().chain(std::iter::repeat(0));
    let sum = |(&h, l): (&i16, i16)| i64::from(h) * 65536 + i64::from(l);
    high.iter().zip(low).position(|halves| sum(halves).abs() >= (1 << 31) - (1 << 15))
}

/// One value of two planes, rounded to `f32` once.
#[must_use]
pub fn value(high: i16, low: i16, exponent: i16) -> f32 {
    if exponent == ZERO {
        return 0.0;
    }
    (f64::from(join(high, low)) * exp2(i32::from(exponent))) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_come_back(v in prop::collection::vec(-1.0_f32..1.0, 1..40), e in -140_i32..120) {
            let v: Vec<f32> = v.iter().map(|x| x * (e as f32).exp2()).collect();
            let p = Planes::of(&Matrix::new(1, v.len(), v.clone()));
            let peak = v.iter().fold(0.0_f32, |p, x| p.max(x.abs()));
            if peak > 0.0 {
                let top = p.high.iter().zip(&p.low).map(|(&h, &l)| (i64::from(h) * 65536 + i64::from(l)).abs()).max();
                prop_assert!((1 << 29..1 << 30).contains(&top.unwrap()));
            }
            for ((&x, y), &h) in v.iter().zip(p.values()).zip(&p.high) {
                // Half a master's LSB and half a subnormal's; far within the step of the high plane.
                let bound = f64::from(peak) * exp2(-30) + exp2(-150);
                prop_assert!((f64::from(x) - f64::from(y)).abs() <= bound, "{x} {y}");
                let high = if p.exponent == ZERO { 0.0 } else { f64::from(h) * exp2(i32::from(p.exponent) + 16) };
                prop_assert!((f64::from(x) - high).abs() <= f64::from(peak) * exp2(-14) + exp2(-150));
            }
        }
    }

    #[test]
    fn halves_that_wrap_are_found() {
        assert_eq!(misjoined(&[0, 32767, -32767], &[-1, 32767, -32767]), None);
        assert_eq!(misjoined(&[0, 32767, -32767], &[-1, 32767, -32768]), Some(2));
        assert_eq!(misjoined(&[1, -32768], &[]), Some(1));
        assert_eq!(misjoined(&[-32768], &[-1]), Some(0));
        assert_eq!(value(-32768, -1, 0), 2_147_483_647.0, "which is why");
    }

    #[test]
    fn zero_and_one() {
        let p = Planes::of(&Matrix::new(1, 2, vec![0.0, -0.0]));
        assert_eq!((p.high, p.low, p.exponent), (vec![0; 2], vec![0; 2], ZERO));
        let p = Planes::of(&Matrix::new(1, 2, vec![1.0, -0.5]));
        assert_eq!((p.high, p.low, p.exponent), (vec![1 << 13, -(1 << 12)], vec![0; 2], -29));
    }
}
