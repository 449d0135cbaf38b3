//! Activations: what stands between the layers of a feed-forward, and its gates.
//!
//! | | value | (source) |
//! |---|---|---|
//! | ReLU | `max(0, x)` | fused into [`Linear`](super::Linear), or here |
//! | GELU | `x · Φ(x)` | Hendrycks and Gimpel, arXiv:1606.08415 |
//! | GELU, tanh form | `x · σ(2√(2/π) (x + 0.044715 x³))` | the same; GPT-2's and T5's "gelu_new" |
//! | SiLU | `x · σ(x)` | Elfwing et al., arXiv:1702.03118 |
//! | tanh | `2σ(2x) − 1` | |
//!
//! A gated unit is `act(gate) ⊙ up` (Shazeer, "GLU Variants", arXiv:2002.05202). Each is a factor of 31 bits on a
//! mantissa of 16: exact up to the factor's error, and rounded once.

use super::{ShapeError, exactly, first};
use crate::fixed::block::{canonicalize, requantize};
use crate::fixed::normal::phi_q31;
use crate::fixed::rounding::{bit_length, shift_half_even_saturating_i32, shift_right_half_even};
use crate::fixed::sigmoid::sigmoid_q31;
use crate::fixed::{Block, Exp, Tile, TileMut};

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
    /// Arguments are taken in Q26, ±32: beyond, a factor is 0 or 1 in 31 bits anyway. Error before the rounding: 2^-30 · |x|
    /// (tanh: 2^-29), and for the tanh form of GELU 2^-23 · |x|, its argument's.
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
        let exponent = self.row(gate, acc);
        let excess = bit_length(acc.iter().fold(0, |u, v| u | v.unsigned_abs())).saturating_sub(31);
        for (a, &up) in acc.iter_mut().zip(up.mantissas) {
            *a = shift_right_half_even(*a, excess) * i64::from(up);
        }
        let up_exponent = if up.is_zero() { 0 } else { up.exponent.get() };
        Ok(requantize(acc, exponent + excess as i32 + up_exponent, out))
    }

    /// `act(x)` into accumulators below 2^47; returns their exponent.
    fn row(self, x: Block<'_>, acc: &mut [i64]) -> i32 {
        if x.is_zero() {
            acc.fill(0);
            return 0;
        }
        let exponent = x.exponent.get();
        let q26 = |m: i16| shift_half_even_saturating_i32(i64::from(m), -(exponent + 26));
        let mut scaled = |factor: fn(i32) -> u32| {
            for (a, &m) in acc.iter_mut().zip(x.mantissas) {
                *a = i64::from(m) * i64::from(factor(q26(m)));
            }
            exponent - 31
        };
        match self {
            Activation::None => scaled(|_| 1 << 31),
            Activation::Relu => scaled(|x| if x > 0 { 1 << 31 } else { 0 }),
            Activation::Gelu => scaled(phi_q31),
            Activation::GeluTanh => scaled(|x| sigmoid_q31(gelu_argument_q26(x))),
            Activation::Silu => scaled(sigmoid_q31),
            Activation::Tanh => {
                for (a, &m) in acc.iter_mut().zip(x.mantissas) {
                    // 2σ(2x) − 1, Q31.
                    *a = 2 * i64::from(sigmoid_q31(q26(m).saturating_mul(2))) - (1 << 31);
                }
                -31
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

/// `2√(2/π) (x + 0.044715 x³)` in Q26, within ±31.9; beyond, the logistic function is 0 or 1 in 31 bits.
///
/// Error: below 2^-24 relative, from the roundings of x² and of the bracket in Q26.
const fn gelu_argument_q26(x: i32) -> i32 {
    const CUBIC_Q32: i64 = 192_049_462; // 0.044715
    const TWICE_ROOT_Q30: i64 = 1_713_443_942; // 2√(2/π) = 1.5957691216057308
    const LIMIT: i64 = 10 << 26;
    let x = if (x as i64) > LIMIT {
        LIMIT
    } else if (x as i64) < -LIMIT {
        -LIMIT
    } else {
        x as i64
    };
    let square = shift_right_half_even(x * x, 26); // Q26, ≤ 100
    let bracket = (1 << 26) + shift_right_half_even(square * CUBIC_Q32, 32); // 1 + 0.044715 x²
    let inner = shift_right_half_even(x * bracket, 26); // ±54.8
    const MOST: i64 = 20 << 26;
    let inner = if inner > MOST {
        MOST
    } else if inner < -MOST {
        -MOST
    } else {
        inner
    };
    shift_right_half_even(inner * TWICE_ROOT_Q30, 30) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    const ALL: [Activation; 6] = [
        Activation::None,
        Activation::Relu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Silu,
        Activation::Tanh,
    ];

    /// Φ by its series around 0, or by the continued fraction of the tail: no function of the code under test.
    fn phi(x: f64) -> f64 {
        let density = (-x * x / 2.0).exp() / (2.0 * core::f64::consts::PI).sqrt();
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                term *= x * x / f64::from(2 * n + 1);
                sum += term;
            }
            return 0.5 + density * sum;
        }
        let fraction = (1..60).rev().fold(x.abs(), |f, n| x.abs() + f64::from(n) / f);
        if x < 0.0 { density / fraction } else { 1.0 - density / fraction }
    }

    fn slow(act: Activation, x: f64) -> f64 {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match act {
            Activation::None => x,
            Activation::Relu => x.max(0.0),
            Activation::Gelu => x * phi(x),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::Silu => x * sigmoid(x),
            Activation::Tanh => x.tanh(),
        }
    }

    fn values(m: &[i16], e: Exp) -> Vec<f64> {
        m.iter().map(|&m| f64::from(m) * f64::from(e.get()).exp2()).collect()
    }

    /// Half an LSB, what the doc states before the rounding, and the clamp of a peak.
    fn near(got: &[i16], e: Exp, want: &[f64], x: &[f64]) -> Result<(), TestCaseError> {
        let lsb = f64::from(e.get()).exp2();
        for ((&m, want), x) in got.iter().zip(want).zip(x) {
            let clamp = if m.unsigned_abs() == 32639 { 129.0 * lsb } else { 0.0 };
            let bound = 0.5 * lsb + clamp + x.abs() * f64::from(-23).exp2() + f64::from(-29).exp2();
            prop_assert!((f64::from(m) * lsb - want).abs() <= bound, "{} {want} at {x}", f64::from(m) * lsb);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn values_are_their_definition(m in prop::collection::vec(-32639_i16..=32639, 1..20), e in -24_i16..-6, which in 0_usize..6) {
            let act = ALL[which];
            let x = values(&m, Exp(e));
            let (mut y, mut acc) = (vec![0; m.len()], vec![0; m.len()]);
            let f = act.forward(Block { mantissas: &m, exponent: Exp(e) }, &mut y, &mut acc).unwrap();
            let want: Vec<f64> = x.iter().map(|&x| slow(act, x)).collect();
            near(&y, f, &want, &x)?;
        }

        #[test]
        fn gates_are_their_definition(m in prop::collection::vec((-32639_i16..=32639, -32639_i16..=32639), 1..20), e in -20_i16..-8, u in -30_i16..30, which in 0_usize..6) {
            let act = ALL[which];
            let (gate, up): (Vec<i16>, Vec<i16>) = m.into_iter().unzip();
            let (x, v) = (values(&gate, Exp(e)), values(&up, Exp(u)));
            let (mut y, mut acc) = (vec![0; gate.len()], vec![0; gate.len()]);
            let up = Block { mantissas: &up, exponent: Exp(u) };
            let f = act.gate(Block { mantissas: &gate, exponent: Exp(e) }, up, &mut y, &mut acc).unwrap();
            let lsb = f64::from(f.get()).exp2();
            let peak = x.iter().fold(0.0_f64, |p, x| p.max(x.abs())).max(1.0);
            for ((&m, x), v) in y.iter().zip(&x).zip(&v) {
                let clamp = if m.unsigned_abs() == 32639 { 129.0 * lsb } else { 0.0 };
                let error = (f64::from(m) * lsb - slow(act, *x) * v).abs();
                prop_assert!(error <= 0.5 * lsb + clamp + peak * v.abs() * f64::from(-23).exp2());
            }
        }
    }

    #[test]
    fn codes_come_back() {
        for act in ALL {
            assert_eq!(Activation::from_code(act as u8), Some(act));
        }
        assert_eq!(Activation::from_code(6), None);
    }

    #[test]
    fn zero_and_wrong_widths() {
        let zero = Block { mantissas: &[0; 2], exponent: Exp::ZERO };
        for act in ALL {
            let mut y = [7; 2];
            assert_eq!(act.forward(zero, &mut y, &mut [1; 2]), Ok(Exp::ZERO));
            assert_eq!(y, [0; 2]);
            assert!(act.forward(zero, &mut [0; 3], &mut [0; 3]).is_err());
            assert!(act.gate(zero, Block { mantissas: &[1; 3], ..zero }, &mut y, &mut [0; 2]).is_err());
        }
    }
}
