//! [`Scalar`]: the operations that `f32` and `f64` share, as far as a float reference needs them.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// `f32` or `f64`.
pub trait Scalar:
    Copy
    + Default
    + PartialOrd
    + std::fmt::Debug
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Sum
    + Send
    + Sync
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

/// `Σ a b`, in eight sums side by side, which a compiler can make vector instructions of.
#[must_use]
pub fn dot<S: Scalar>(a: &[S], b: &[S]) -> S {
    let mut sums = [S::ZERO; 8];
    let (mut a, mut b) = (a.chunks_exact(8), b.chunks_exact(8));
    for (a, b) in a.by_ref().zip(b.by_ref()) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: S = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| a * b).sum();
    sums.into_iter().sum::<S>() + rest
}

/// `to += factor · from`.
pub fn add<S: Scalar>(to: &mut [S], factor: S, from: &[S]) {
    to.iter_mut().zip(from).for_each(|(t, &f)| *t += factor * f);
}
