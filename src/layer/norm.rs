//! Layer norm and RMS norm: `y = x̂ ⊙ γ + β`, forward and backward.
//!
//! ```text
//! layer:  x̂ = (x − mean) · r,  r = 1/√(var + ε)        RMS:  x̂ = x · r,  r = 1/√(mean(x²) + ε)
//! dx = r · (g − mean(g) − x̂ · mean(g ⊙ x̂)),  g = dy ⊙ γ                  (RMS without mean(g))
//! ```
//!
//! (Ba et al., "Layer Normalization", arXiv:1607.06450; Zhang and Sennrich, arXiv:1910.07467. The variance is divided
//! by N, and ε stands inside the root, as in PyTorch.)
//!
//! No mean is ever divided out: with d = N·x − Σx, an exact integer, x − mean is d/N. Of d, 31 bits are kept, D · 2^e;
//! then `S = Σ D²` is exact again ([`WideSum`]), and N and the exponent go to ε instead of to every element:
//!
//! ```text
//! x̂ = D · R,   R = 1/√(S/N + ε · N² · 2^(−2e))         (RMS: D is x, and N² is left out)
//! ```
//!
//! An ε of 1e-12 is as good as one of 1e-5: it is a [`Real`], and never has to be a multiple of any LSB.
//!
//! **Error.** Every D is within one unit, and the largest is at least 2^30: S is within 2√N/2^30 relative, R within half of
//! that, and 3 · 2^-30 for quotient, sum and root. So R is good to 2^-21.4 relative at N = 2^17 and to 2^-23.9 at 4096, if all
//! roundings pulled one way. D and the rounding of x̂ to 31 bits are worth 2^-29 of the row's largest |x̂|. From there γ
//! and β are exact ([`RowSum`]), and the output is rounded once.

use super::{ShapeError, Vector, exactly, first};
use crate::fixed::block::requantize;
use crate::fixed::rounding::{bit_length, ceil_log2, shift_half_even_saturating_i32, shift_right_half_even};
use crate::fixed::row_sum::RowSum;
use crate::fixed::wide_sum::WideSum;
use crate::fixed::{Block, Exp, Real};

/// What a norm measures by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum NormKind {
    /// The deviation from the mean.
    Layer = 0,
    /// The root mean square.
    Rms = 1,
}

/// A norm over a token vector.
///
/// ```
/// use ranklet::fixed::{Exp, Real};
/// use ranklet::layer::{Norm, NormKind, Vector};
/// let norm = Norm {
///     kind: NormKind::Layer,
///     weight: Vector { mantissas: &[1 << 30; 4], exponent: -30 },
///     bias: None,
///     epsilon: Real::ratio(1, 100_000),
/// };
/// let mut y = [0; 4];
/// let e = norm.forward(&mut [1, 3, 1, 3], 20, &mut y)?; // Four huge values; their scale goes out.
/// assert_eq!((e, y), (Exp(-14), [-1 << 14, 1 << 14, -1 << 14, 1 << 14]));
/// # Ok::<(), ranklet::layer::ShapeError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// What it measures by.
    pub kind: NormKind,
    /// γ, `(width)`.
    pub weight: Vector<'a>,
    /// β, `(width)`, if any.
    pub bias: Option<Vector<'a>>,
    /// ε, not below 0. With 0, a row without deviation still gives β, and passes no gradient.
    pub epsilon: Real,
}

/// What a row became: x̂, `value = row[i] · 2^exponent`, and the factor that it took.
struct Standard {
    exponent: i32,
    /// r/N, in units of x.
    share: Real,
}

impl Norm<'_> {
    /// `y = x̂ ⊙ γ + β`, to a canonical block, half to even.
    ///
    /// `row`: `(width)`, `value = v · 2^exponent`, `|v| < 2^62`: any exact accumulators; overwritten. `out`: `(width)`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn forward(&self, row: &mut [i64], exponent: i32, out: &mut [i16]) -> Result<Exp, ShapeError> {
        exactly("norm output", row.len(), out.len())?;
        let exponent = self.forward_row(row, exponent)?;
        Ok(requantize(row, exponent, out))
    }

    /// As [`forward`](Norm::forward), but leaves the result in the row, `|v| < 2^62`, for whoever keeps more than 16 bits
    /// of it; returns its exponent.
    ///
    /// # Errors
    /// A weight or bias of another width; nothing is written then.
    pub fn forward_row(&self, row: &mut [i64], exponent: i32) -> Result<i32, ShapeError> {
        self.check(row.len())?;
        let standard = self.standardize(row, exponent);
        for (v, &w) in row.iter_mut().zip(self.weight.mantissas) {
            *v *= i64::from(w); // 31 by 31 bits.
        }
        let mut sum = RowSum::new(row, standard.exponent + i32::from(self.weight.exponent), 62);
        if let Some(bias) = &self.bias {
            bias.add_to(&mut sum);
        }
        let (_, exponent) = sum.finish();
        Ok(exponent)
    }

    /// From `dy`, the gradient of the output, dx: to a canonical block, half to even. γ and β are frozen.
    ///
    /// `row`: the input, as forward had it; overwritten. `dy`, `dx`: `(width)`. `acc`: at least `width`.
    ///
    /// g is kept in 31 bits; `N·g − Σg` and `Σ g ⊙ x̂` are exact from there, and meet in one row ([`RowSum`]). What cancels
    /// between them leaves 2^-29 of the largest |g|, and the error δ of x̂ in both of its places:
    /// `δ · mean|g ⊙ x̂| + |x̂| · mean(|g| δ)`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn backward(
        &self,
        row: &mut [i64],
        exponent: i32,
        dy: Block<'_>,
        dx: &mut [i16],
        acc: &mut [i64],
    ) -> Result<Exp, ShapeError> {
        let width = row.len();
        self.check(width)?;
        exactly("norm dy", width, dy.mantissas.len())?;
        exactly("norm dx", width, dx.len())?;
        let acc = first("scratch.acc", acc, width)?;

        for ((g, &d), &w) in acc.iter_mut().zip(dy.mantissas).zip(self.weight.mantissas) {
            *g = i64::from(d) * i64::from(w);
        }
        let Some(up) = to_31_bits(acc) else {
            dx.fill(0);
            return Ok(Exp::ZERO);
        };
        let g_exponent = dy.exponent.get() + i32::from(self.weight.exponent) + up;
        let x = self.standardize(row, exponent);

        // In units of g: N·g − Σg − x̂ · Σ g x̂; r/N is left for the end.
        let mut along = WideSum::ZERO;
        acc.iter().zip(row.iter()).for_each(|(&g, &x)| along.add(g * x));
        let along = along.to_real(2 * x.exponent);
        let total = match self.kind {
            NormKind::Layer => acc.iter().sum(),
            NormKind::Rms => 0,
        };
        for g in acc.iter_mut() {
            *g = *g * width as i64 - total;
        }
        // |N·g − Σg| ≤ 2N · 2^31.
        let mut sum = RowSum::new(acc, g_exponent, 32 + ceil_log2(width));
        if !along.is_zero() {
            let joined = sum.join(g_exponent + along.exponent(), 62);
            for (v, &x) in sum.values_mut().iter_mut().zip(row.iter()) {
                *v -= joined.align(x * i64::from(along.mantissa()));
            }
        }
        let (values, exponent) = sum.finish();
        let Some(up) = to_31_bits(values) else {
            dx.fill(0);
            return Ok(Exp::ZERO);
        };
        for v in values.iter_mut() {
            *v *= i64::from(x.share.mantissa());
        }
        Ok(requantize(values, exponent + up + x.share.exponent(), dx))
    }

    /// Whether γ and β have this width.
    ///
    /// # Errors
    /// The first that has not.
    pub fn check(&self, width: usize) -> Result<(), ShapeError> {
        exactly("norm weight", width, self.weight.mantissas.len())?;
        self.bias.map_or(Ok(()), |b| exactly("norm bias", width, b.mantissas.len()))
    }

    /// The row becomes x̂: |v| < 2^31.
    fn standardize(&self, row: &mut [i64], exponent: i32) -> Standard {
        let n = Real::int(row.len() as i64);
        let (exponent, unit) = match self.kind {
            NormKind::Layer => (exponent + center(row), n), // D counts N-ths.
            NormKind::Rms => (exponent, Real::ONE),
        };
        let up = to_31_bits(row);
        let exponent = up.map_or(0, |up| exponent + up); // Without deviation, any exponent is right.
        let mut squares = WideSum::ZERO;
        row.iter().for_each(|&d| squares.add(d * d));
        let epsilon = self.epsilon.mul(unit.mul(unit)).scale(-2 * exponent);
        let r = squares.to_real(0).div(n).add(epsilon).rsqrt();
        for d in row.iter_mut() {
            *d = shift_right_half_even(*d * i64::from(r.mantissa()), 31);
        }
        let share = r.mul(unit).div(n).scale(-exponent);
        // Zeros make room for β's last bit.
        Standard { exponent: up.map_or(Exp::ZERO.get(), |_| r.exponent() + 31), share }
    }
}

/// The row becomes `N·x − Σx`, exactly; of x, the upper 61 − ⌈log2 N⌉ bits (44 or more), half to even. Returns by how
/// much the exponent rises. |result| ≤ 2^62.
fn center(row: &mut [i64]) -> i32 {
    let n = row.len();
    let excess = bit_length(union(row)).saturating_sub(61 - ceil_log2(n));
    if excess > 0 {
        row.iter_mut().for_each(|v| *v = shift_right_half_even(*v, excess));
    }
    let total: i64 = row.iter().sum();
    row.iter_mut().for_each(|v| *v = *v * n as i64 - total);
    excess as i32
}

/// Brings the row's peak to 31 bits, half to even (a peak that would round to 2^31 stays one unit below); returns
/// by how much the exponent rises, or `None` where all is zero.
pub(super) fn to_31_bits(row: &mut [i64]) -> Option<i32> {
    let union = union(row);
    if union == 0 {
        return None;
    }
    let shift = bit_length(union) as i32 - 31;
    row.iter_mut().for_each(|v| *v = i64::from(shift_half_even_saturating_i32(*v, shift)));
    Some(shift)
}

/// The bitwise or of the magnitudes: as many bits as the largest.
fn union(row: &[i64]) -> u64 {
    row.iter().fold(0, |u, v| u | v.unsigned_abs())
}

#[cfg(test)]
mod tests;
