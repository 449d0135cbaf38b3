//! The only file that knows `f32` and `f64`: the edges, where a person or a float library is on the other side.
//!
//! [`q!`](crate::q) and [`Real::from_f64`] work at compile time, on the bits alone, and leave no float instruction
//! behind. The rest needs the feature `float` (through `libm` and `micromath`) and belongs on cores that have an FPU,
//! or on the host.

use crate::fixed::Real;

impl Real {
    /// From a finite `f64`, half to even to 31 bits; NaN becomes 0, infinities the largest value.
    ///
    /// Reads bits, computes nothing in floating point: usable in constants on a core without an FPU.
    #[must_use]
    pub const fn from_f64(x: f64) -> Real {
        let bits = x.to_bits();
        let exponent = ((bits >> 52) & 0x7FF) as i32;
        let fraction = (bits & ((1 << 52) - 1)) as i64;
        let magnitude = match exponent {
            0 => Real::new(fraction, -1074),
            0x7FF if fraction != 0 => Real::ZERO,
            0x7FF => Real::new(i64::MAX, 1 << 14),
            _ => Real::new(fraction | (1 << 52), exponent - 1075),
        };
        if bits >> 63 == 1 { magnitude.neg() } else { magnitude }
    }
}

/// A number at compile time: `q!(1e-3)` is a [`Real`], and no float reaches the firmware.
///
/// ```
/// use ranklet::{fixed::Real, q};
/// const LR: Real = q!(1e-3);
/// assert_eq!(LR, Real::ratio(1, 1000));
/// ```
#[macro_export]
macro_rules! q {
    ($x:expr) => {
        const { $crate::fixed::Real::from_f64($x) }
    };
}

#[cfg(feature = "float")]
mod edges {
    use crate::fixed::block::MANTISSA_MAX;
    use crate::fixed::{Block, Exp, Real};
    use micromath::F32Ext;

    impl Real {
        /// As `f64`, exactly; beyond its range 0 or an infinity.
        #[must_use]
        pub fn to_f64(self) -> f64 {
            libm::ldexp(f64::from(self.mantissa()), self.exponent())
        }

        /// As `f32`, half to even (below f32's normal range twice), without a double on the way: for cores whose FPU has
        /// none.
        #[must_use]
        pub fn to_f32(self) -> f32 {
            libm::ldexpf(self.mantissa() as f32, self.exponent())
        }
    }

    /// A value that no fixed-point number stands for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "defmt", derive(defmt::Format))]
    pub struct NotFinite {
        /// Its place in the vector.
        pub index: usize,
    }

    impl core::fmt::Display for NotFinite {
        fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            write!(f, "value {} is NaN or infinite", self.index)
        }
    }

    impl core::error::Error for NotFinite {}

    /// `f32` values to a canonical block, half to even; the exponent is found from the data.
    ///
    /// `values` and `out`: `(width)`; the shorter decides.
    ///
    /// # Errors
    /// The place of the first NaN or infinity; nothing is written then.
    ///
    /// ```
    /// use ranklet::{fixed::Exp, float::to_block};
    /// let mut m = [0; 2];
    /// assert_eq!(to_block(&[1.0, -0.25], &mut m), Ok(Exp(-14)));
    /// assert_eq!(m, [1 << 14, -(1 << 12)]);
    /// ```
    pub fn to_block(values: &[f32], out: &mut [i16]) -> Result<Exp, NotFinite> {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(NotFinite { index });
        }
        let peak = values.iter().fold(0.0_f32, |p, &v| p.max(libm::fabsf(v)));
        if peak == 0.0 {
            out.fill(0);
            return Ok(Exp::ZERO);
        }
        // Exact in f64: 24 bits moved by a power of two.
        let rounded = |v: f32, exponent: i32| libm::rint(libm::ldexp(f64::from(v), -exponent));
        let mut exponent = libm::frexpf(peak).1 - 15;
        if rounded(peak, exponent) > f64::from(MANTISSA_MAX) {
            exponent += 1;
        }
        let width = out.len().min(values.len());
        let out = out.get_mut(..width).unwrap_or_default();
        for (o, &v) in out.iter_mut().zip(values) {
            *o = rounded(v, exponent) as i16;
        }
        Ok(Exp::saturating(exponent))
    }

    /// `f32` values to 31-bit samples under one exponent, half to even: an [`Input::I32`](crate::layer::normalize::Input).
    ///
    /// `values` and `out`: `(features)`; the shorter decides.
    ///
    /// # Errors
    /// The place of the first NaN or infinity; nothing is written then.
    pub fn to_samples(values: &[f32], out: &mut [i32]) -> Result<Exp, NotFinite> {
        if let Some(index) = values.iter().position(|v| !v.is_finite()) {
            return Err(NotFinite { index });
        }
        let peak = values.iter().fold(0.0_f32, |p, &v| p.max(libm::fabsf(v)));
        let exponent = if peak == 0.0 { 0 } else { libm::frexpf(peak).1 - 30 };
        for (o, &v) in out.iter_mut().zip(values) {
            *o = libm::rint(libm::ldexp(f64::from(v), -exponent)) as i32;
        }
        Ok(Exp::saturating(exponent))
    }

    /// A block as `f32`. `out`: `(width)`; exact but beyond f32's range.
    pub fn from_block(block: Block<'_>, out: &mut [f32]) {
        for (o, &m) in out.iter_mut().zip(block.mantissas) {
            *o = libm::ldexp(f64::from(m), block.exponent.get()) as f32;
        }
    }

    /// `e^(-loss)`: how probable the network holds what is right, 0 to 1 (the geometric mean, where the loss is a mean), for
    /// a display: micromath's approximation, within 1 % of it or 10^-6.
    #[must_use]
    pub fn likelihood(loss: Real) -> f32 {
        F32Ext::exp(loss.neg().min(Real::ZERO).to_f32()).min(1.0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use proptest::prelude::*;

        proptest! {
            #[test]
            fn blocks_round_trip(values in prop::collection::vec(-1e6_f32..1e6, 1..20)) {
                let mut m = std::vec![0; values.len()];
                let e = to_block(&values, &mut m).unwrap();
                let mut back = std::vec![0.0; values.len()];
                from_block(Block { mantissas: &m, exponent: e }, &mut back);
                let peak = values.iter().fold(0.0_f32, |p, v| p.max(v.abs()));
                for (a, b) in values.iter().zip(&back) {
                    // Half an LSB under a peak of at least 16320.
                    prop_assert!((f64::from(*a) - f64::from(*b)).abs() <= f64::from(peak) / 32640.0 + f64::from(peak) * 1e-7);
                }
            }

            #[test]
            fn reals_round_trip(x in any::<f64>().prop_filter("finite", |x| x.is_finite() && x.abs() > 1e-300 && x.abs() < 1e300)) {
                let limit = f64::from(-31).exp2() * (1.0 + f64::from(-20).exp2()); // the quotient is itself an f64
                prop_assert!((Real::from_f64(x).to_f64() / x - 1.0).abs() <= limit);
            }
        }

        #[test]
        fn nonsense_is_refused() {
            assert_eq!(to_block(&[1.0, f32::NAN], &mut [0; 2]), Err(NotFinite { index: 1 }));
            assert_eq!(to_block(&[f32::INFINITY], &mut [0; 1]), Err(NotFinite { index: 0 }));
            assert_eq!(Real::from_f64(f64::NAN), Real::ZERO);
        }

        #[test]
        fn likelihood_is_near() {
            for thousandths in 0..20_000 {
                let (loss, expected) = (Real::ratio(thousandths, 1000), (-f64::from(thousandths) / 1000.0).exp());
                let found = f64::from(likelihood(loss));
                assert!((found - expected).abs() <= 0.01 * expected + 1e-6, "{found} {expected}");
            }
            assert_eq!(likelihood(Real::int(-1)), 1.0);
            assert!(likelihood(Real::int(1_000_000)) < 1e-6);
        }

        #[test]
        fn narrow_floats() {
            for (x, expected) in
                [(Real::ONE, 1.0_f32), (Real::ratio(-1, 3), -1.0 / 3.0), (Real::int(i64::MAX), 9.223_372e18)]
            {
                assert_eq!(x.to_f32(), expected);
            }
            assert_eq!((Real::ONE.scale(200).to_f32(), Real::ONE.scale(-200).to_f32()), (f32::INFINITY, 0.0));
        }
    }
}

#[cfg(feature = "float")]
pub use edges::{NotFinite, from_block, likelihood, to_block, to_samples};
