//! Activations: what stands between the layers of a feed-forward, and its gates.
//!
//! | | value | (source) |
//! |---|---|---|
//! | ReLU | `max(0, x)` | fused into [`Linear`](super::Linear), or here |
//! | GELU | `x · Φ(x)` | Hendrycks and Gimpel, arXiv:1606.08415 |
//! | GELU, tanh form | `x · σ(2√(2/π) (x + 0.044715 x³))` | the same; GPT-2's and T5's "gelu_new" |
//! | SiLU | `x · σ(x)` | Elfwing et al., arXiv:1702.03118 |
//! | tanh | `tanh x` | |
//!
//! A gated unit is `act(gate) ⊙ up` (Shazeer, "GLU Variants", arXiv:2002.05202). Each is a factor f of 31 bits on a
//! mantissa of 16: exact up to the factor's error, and rounded once. So a block far below 1 keeps its 16 bits, where f is
//! near its value at 0. (tanh x is taken itself from a peak of 2^-8 on, and is `x (1 − x²/3)` below.)
//!
//! All but ReLU's backward need the input x, not the output: whoever trains keeps that block. Worst errors of f and of the
//! derivative:
//!
//! | | of f | of the derivative |
//! |---|---|---|
//! | GELU | 2^-30 | 2^-28.6 |
//! | GELU, tanh form | 2^-28.4 | 2^-26 |
//! | SiLU | 2^-30.6 | 2^-27 |
//! | tanh | 2^-30; of tanh x itself 2^-29.6 | 2^-28.4 |
//!
//! (In the derivatives |x| multiplies the error of σ (1 − σ), as far as x ≈ 20, or 6 in the tanh form, where σ has no bit
//! left to err in.) x enters in Q26: exact from an exponent of −26 up; below (|x| < 2^-11) its rounding adds 2^-28.3 to f
//! and 2^-27.3 to a derivative. It saturates at ±32, where every f is 0 or 1. Errors are absolute: a token whose values *all* lie
//! far down a negative tail keeps 2^-30 |x|, not 16 bits.

use super::norm::to_31_bits;
use super::{ShapeError, exactly, first};
use crate::fixed::block::{canonicalize, requantize};
use crate::fixed::normal::{density_q31, phi_q31};
use crate::fixed::rounding::{shift_half_even_saturating_i32, shift_right_half_even};
use crate::fixed::sigmoid::sigmoid_q31;
use crate::fixed::tanh::tanh_q30;
use crate::fixed::{Block, Exp, Tile, TileMut};

/// 1.0 in Q31.
const ONE: i64 = 1 << 31;

/// The largest exponent of a block that lies below 2^-7 as a whole.
const TANH_NEAR_ZERO: i32 = -22;

/// What follows a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Activation {
    /// Nothing.
    #[default]
    None = 0,
    /// `max(0, ·)`. In a linear layer it is applied to the exact sum, before it is rounded.
    Relu = 1,
    /// `x · Φ(x)`.
    Gelu = 2,
    /// `x · σ(2√(2/π) (x + 0.044715 x³))`.
    GeluTanh = 3,
    /// `x · σ(x)`.
    Silu = 4,
    /// The hyperbolic tangent.
    Tanh = 5,
}

impl Activation {
    /// From its code in a spec.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Activation> {
        Some(match code {
            0 => Activation::None,
            1 => Activation::Relu,
            2 => Activation::Gelu,
            3 => Activation::GeluTanh,
            4 => Activation::Silu,
            5 => Activation::Tanh,
            _ => return None,
        })
    }

    /// `y = act(x)` of a rounded vector: `(width)`, canonical, half to even.
    ///
    /// ReLU is exact; of the others, each element is within half an LSB and |x| times the error of f (head of this file).
    ///
    /// `acc`: at least `width`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn forward(self, x: Block<'_>, y: &mut [i16], acc: &mut [i64]) -> Result<Exp, ShapeError> {
        let width = x.mantissas.len();
        exactly("activation's output", width, y.len())?;
        let acc = first("scratch.acc", acc, width)?;
        let exponent = self.row(x, acc);
        Ok(requantize(acc, exponent, y))
    }

    /// `out = act(gate) ⊙ up`: `(width)`, canonical, half to even. The activation keeps 31 bits of the row's largest value.
    ///
    /// `acc`: at least `width`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn gate(self, gate: Block<'_>, up: Block<'_>, out: &mut [i16], acc: &mut [i64]) -> Result<Exp, ShapeError> {
        let width = gate.mantissas.len();
        exactly("up", width, up.mantissas.len())?;
        exactly("gated output", width, out.len())?;
        let acc = first("scratch.acc", acc, width)?;
        Ok(self.gated(gate, up, out, acc))
    }

    /// From `dy`, the gradient behind the activation, and its input: `dx = act'(x) ⊙ dy`, `(width)`, canonical, half to
    /// even, rounded once.
    ///
    /// `x`: as forward had it. `acc`: at least `width`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn backward_from(
        self,
        x: Block<'_>,
        dy: Block<'_>,
        dx: &mut [i16],
        acc: &mut [i64],
    ) -> Result<Exp, ShapeError> {
        let width = x.mantissas.len();
        exactly("activation's dy", width, dy.mantissas.len())?;
        exactly("activation's dx", width, dx.len())?;
        let acc = first("scratch.acc", acc, width)?;
        for ((a, &x_m), &d) in acc.iter_mut().zip(x.mantissas).zip(dy.mantissas) {
            *a = i64::from(d) * self.derivative_q31(x_m, x.exponent.get());
        }
        Ok(requantize(acc, dy.exponent.get() - 31, dx))
    }

    /// From `dy`, the gradient behind a gate, and its inputs: `d_gate = act'(gate) ⊙ up ⊙ dy`, exact but for act', and
    /// `d_up = act(gate) ⊙ dy`, as in forward; each `(width)`, canonical, half to even. Returns their exponents.
    ///
    /// `gate`, `up`: as forward had them. `acc`: at least `width`.
    ///
    /// # Errors
    /// An operand of another width; nothing is written then.
    pub fn gate_backward(
        self,
        gate: Block<'_>,
        up: Block<'_>,
        dy: Block<'_>,
        d_gate: &mut [i16],
        d_up: &mut [i16],
        acc: &mut [i64],
    ) -> Result<(Exp, Exp), ShapeError> {
        let width = gate.mantissas.len();
        exactly("up", width, up.mantissas.len())?;
        exactly("gated dy", width, dy.mantissas.len())?;
        exactly("d_gate", width, d_gate.len())?;
        exactly("d_up", width, d_up.len())?;
        let acc = first("scratch.acc", acc, width)?;
        for ((a, &g), (&u, &d)) in acc.iter_mut().zip(gate.mantissas).zip(up.mantissas.iter().zip(dy.mantissas)) {
            // |act'| < 1.13, and two mantissas: < 2^(31.2 + 30).
            *a = i64::from(i32::from(u) * i32::from(d)) * self.derivative_q31(g, gate.exponent.get());
        }
        let gate_exponent = requantize(acc, up.exponent.get() + dy.exponent.get() - 31, d_gate);
        Ok((gate_exponent, self.gated(gate, dy, d_up, acc)))
    }

    /// `act(gate) ⊙ other`; widths are checked.
    fn gated(self, gate: Block<'_>, other: Block<'_>, out: &mut [i16], acc: &mut [i64]) -> Exp {
        let exponent = self.row(gate, acc);
        let Some(up) = to_31_bits(acc) else {
            out.fill(0);
            return Exp::ZERO;
        };
        for (a, &o) in acc.iter_mut().zip(other.mantissas) {
            *a *= i64::from(o);
        }
        requantize(acc, exponent + up + other.exponent.get(), out)
    }

    /// `act(x)` into accumulators below 2^47; returns their exponent.
    fn row(self, x: Block<'_>, acc: &mut [i64]) -> i32 {
        let e = x.exponent.get();
        if self == Activation::Tanh && e > TANH_NEAR_ZERO {
            for (a, &m) in acc.iter_mut().zip(x.mantissas) {
                *a = i64::from(tanh_q30(to_q26(m, e)));
            }
            return -30;
        }
        for (a, &m) in acc.iter_mut().zip(x.mantissas) {
            *a = i64::from(m) * self.factor_q31(m, e);
        }
        e - 31
    }

    /// f = act(x) / x, 0 to 1, at `x = m · 2^e`; for tanh below 2^-7.
    fn factor_q31(self, m: i16, e: i32) -> i64 {
        match self {
            Activation::None => ONE,
            Activation::Relu => i64::from(m > 0) * ONE, // Not by x in Q26, where a small one would be 0.
            Activation::Gelu => i64::from(phi_q31(to_q26(m, e))),
            Activation::GeluTanh => i64::from(sigmoid_q31(TanhForm::new(to_q26(m, e)).argument)),
            Activation::Silu => i64::from(sigmoid_q31(to_q26(m, e))),
            Activation::Tanh => {
                const THIRD: i64 = 715_827_883; // 2^31 / 3
                let x = i64::from(to_q26(m, e));
                let square = shift_right_half_even(x * x, 21); // Q31. The next term, 2x⁴/15, is below 2^-30.9.
                ONE - shift_right_half_even(square * THIRD, 31)
            }
        }
    }

    /// act'(x), −0.13 to 1.13, at `x = m · 2^e`.
    fn derivative_q31(self, m: i16, e: i32) -> i64 {
        match self {
            Activation::None => ONE,
            Activation::Relu => i64::from(m > 0) * ONE,
            Activation::Gelu => {
                let x = to_q26(m, e);
                let slope = i64::from(x) * i64::from(density_q31(x)); // Q57; |x φ(x)| < 1/4
                i64::from(phi_q31(x)) + shift_right_half_even(slope, 26)
            }
            Activation::GeluTanh => {
                let x = to_q26(m, e);
                let TanhForm { argument, slope } = TanhForm::new(x);
                let s = sigmoid_q31(argument);
                // Q57 to Q31; |x σ'| < 1/4. Times a slope below 16 in Q28.
                let inner = shift_right_half_even(i64::from(x) * sigmoid_slope_q31(s), 26);
                i64::from(s) + shift_right_half_even(inner * i64::from(slope), 28)
            }
            Activation::Silu => {
                let x = to_q26(m, e);
                let s = sigmoid_q31(x);
                i64::from(s) + shift_right_half_even(i64::from(x) * sigmoid_slope_q31(s), 26) // |x σ'| < 1/4
            }
            Activation::Tanh => {
                let t = i64::from(tanh_q30(to_q26(m, e)));
                ONE - shift_right_half_even(t * t, 29)
            }
        }
    }

    /// The gradient before a ReLU that is fused into a layer, from the one behind it and the output `y`, in place:
    /// canonical form is restored, because the mask may take the peak. Nothing for no activation; the others have none
    /// that `y` would tell.
    pub fn backward(self, y: Tile<'_>, dy: &mut TileMut<'_>) {
        if self == Activation::Relu {
            for (y, (dy, e)) in y.blocks().zip(dy.blocks_mut()) {
                for (d, &y) in dy.iter_mut().zip(y.mantissas) {
                    if y <= 0 {
                        *d = 0;
                    }
                }
                *e = canonicalize(dy, *e);
            }
        }
    }
}

/// `m · 2^e` in Q26, saturated to ±32; half to even below an exponent of −26.
fn to_q26(m: i16, e: i32) -> i32 {
    shift_half_even_saturating_i32(i64::from(m), -e - 26)
}

/// σ' = σ (1 − σ), from σ: at most ¼.
fn sigmoid_slope_q31(s: u32) -> i64 {
    let s = i64::from(s);
    shift_right_half_even(s * (ONE - s), 31)
}

/// What stands inside the logistic function of GELU's tanh form, `x (K + C x²)`, and its slope, `K + 3 C x²`.
struct TanhForm {
    /// Q26, saturated to ±32: σ is 0 or 1 there.
    argument: i32,
    /// Q28, below 16.
    slope: u32,
}

impl TanhForm {
    fn new(x: i32) -> TanhForm {
        const K: i64 = 428_361_012; // 2√(2/π) = 1.5957691216057308, in Q28
        const C: i64 = 306_466_602; // 0.044715 K = 0.071354816272600249, in Q32
        // Up to 8, where the argument is 49 already.
        let x = i64::from(x.clamp(-8 << 26, 8 << 26));
        let square = shift_right_half_even(x * x, 26); // Q26, ≤ 2^32
        let cubic = shift_right_half_even(square * C, 30); // Q28, ≤ 4.6
        let argument = shift_half_even_saturating_i32(x * (K + cubic), 28);
        TanhForm { argument, slope: (K + 3 * cubic) as u32 }
    }
}

#[cfg(test)]
mod tests;
