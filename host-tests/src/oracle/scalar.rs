//! [`Scalar`]: the operations that `f32` and `f64` share, as far as the oracle needs them.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `f32` or `f64`.
pub trait Scalar:
    Copy
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;

    /// Rounded to this type.
    fn of(x: f64) -> Self;
    /// Widened.
    fn wide(self) -> f64;
    /// `√self`.
    fn root(self) -> Self;
    /// `e^self`.
    fn exponential(self) -> Self;
    /// `ln self`.
    fn logarithm(self) -> Self;
    /// `|self|`.
    fn magnitude(self) -> Self;

    /// The larger of two.
    #[must_use]
    fn larger(self, other: Self) -> Self {
        if other > self { other } else { self }
    }
}

macro_rules! scalar {
    ($t:ty) => {
        #[allow(clippy::cast_lossless, trivial_numeric_casts)] // One text for both types.
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;

            fn of(x: f64) -> Self {
                x as $t
            }

            fn wide(self) -> f64 {
                self as f64
            }

            fn root(self) -> Self {
                self.sqrt()
            }

            fn exponential(self) -> Self {
                self.exp()
            }

            fn logarithm(self) -> Self {
                self.ln()
            }

            fn magnitude(self) -> Self {
                self.abs()
            }
        }
    };
}

scalar!(f32);
scalar!(f64);

/// A vector in another precision.
#[must_use]
pub fn convert<S: Scalar, T: Scalar>(values: &[S]) -> Vec<T> {
    values.iter().map(|v| T::of(v.wide())).collect()
}
